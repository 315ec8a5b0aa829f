//! A policy's tables as this host has them compiled: with its addresses, and ends by its clocks.

use ipnet::IpNet;

use super::Options;
use super::error::FilterError;
use crate::bindings::seam::Many;
use crate::compiler::{self, Numbers, Pushed, Surroundings};
use crate::kernel::{addresses, clock};
use crate::policy::model::Addresses;
use crate::policy::{Policy, share_port};

/// What `"host"` means now; empty where the policy does not say it.
pub(super) async fn host_addresses(policy: &Policy) -> Result<Vec<IpNet>, FilterError> {
    let services = policy.services.iter().map(|service| &service.address);
    let mut all = services.chain(policy.management.iter().map(|entry| &entry.address));
    if !all.any(|address| *address == Addresses::Host) {
        return Ok(Vec::new());
    }
    addresses::read().await.map_err(FilterError::HostAddresses)
}

/// Why a policy is put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Nothing was filtered, or nobody watched over it. All of the policy's interfaces must be there.
    Start,
    /// An operator asks for it, and is told of what it cannot do.
    Reload,
    /// The host has changed around it: as much as can be done is.
    Change,
}

impl Occasion {
    /// How a start goes about what is not there.
    pub(super) fn of_start(options: &Options) -> Self {
        if options.await_interfaces {
            Self::Change
        } else {
            Self::Start
        }
    }
}

/// Where `"host"` holds an address that a service with the same port names itself, and nobody can be asked, the
/// written service keeps the address, and the daemon is not ready until it is mended: going on with the old addresses
/// would leave the new ones open.
pub(super) fn compile(
    (policy, pushed): (&Policy, &Pushed),
    numbers: &Numbers,
    host: &[IpNet],
    (occasion, many): (Occasion, Many),
) -> Result<(compiler::Compiled, Option<String>), FilterError> {
    let offset = clock::wall_offset();
    let end = |expires| clock::monotonic_end(expires, offset);
    let compiled = |policy: &Policy| {
        compiler::compile(
            policy,
            numbers,
            &Surroundings {
                host_addresses: host,
                end: &end,
                pushed,
                grows: (!policy.publishers.is_empty()).then_some(many),
            },
        )
    };
    match compiled(policy) {
        Err(error @ compiler::CompileError::Overlap { .. }) if occasion != Occasion::Reload => {
            Ok((compiled(&narrowed(policy, host))?, Some(error.to_string())))
        }
        other => Ok((other?, None)),
    }
}

/// The policy with `"host"` written out where a service with the same port names addresses, less those.
pub(super) fn narrowed(policy: &Policy, host: &[IpNet]) -> Policy {
    let mut narrowed = policy.clone();
    for service in &mut narrowed.services {
        let written: Vec<IpNet> = policy
            .services
            .iter()
            .filter(|other| service.address == Addresses::Host && share_port(service, other))
            .filter_map(|other| match &other.address {
                Addresses::Prefixes(prefixes) => Some(prefixes),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        if !written.is_empty() {
            service.address = Addresses::Prefixes(less(host, &written));
        }
    }
    narrowed
}

/// Prefixes without what others hold of them.
fn less(prefixes: &[IpNet], taken: &[IpNet]) -> Vec<IpNet> {
    let mut left = Vec::new();
    let mut open = prefixes.to_vec();
    // Halves down to a taken one: 128 steps for each at most.
    while let Some(prefix) = open.pop() {
        if taken.iter().any(|taken| taken.contains(&prefix)) {
            continue;
        }
        match prefix.subnets(prefix.prefix_len() + 1) {
            Ok(halves) if taken.iter().any(|taken| prefix.contains(taken)) => open.extend(halves),
            _ => left.push(prefix),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn prefixes_less_others_hold_all_the_rest_and_no_more() {
        let host = nets(&["10.5.0.0/29", "10.6.0.1/32", "fd00::/64"]);
        let mut left = less(&host, &nets(&["10.5.0.2/32", "10.6.0.0/16", "192.0.2.0/24"]));
        left.sort_unstable();
        assert_eq!(
            left,
            nets(&["10.5.0.0/31", "10.5.0.3/32", "10.5.0.4/30", "fd00::/64"])
        );
        assert_eq!(less(&nets(&["10.0.0.1/32"]), &nets(&["0.0.0.0/0"])), []);
        let mut all = less(&nets(&["::/0"]), &nets(&["fd00::1/128"]));
        assert_eq!(all.len(), 128);
        all.extend(nets(&["fd00::1/128"]));
        assert_eq!(IpNet::aggregate(&all), nets(&["::/0"]));
    }
}
