//! The policy's part of an authorization, in the form that a request asks it: services, denies, clients by key.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Facts, key};
use crate::policy::Policy;
use crate::policy::model::{Mode, PortRange, ServiceSet};

/// Built once a policy.
#[derive(Debug)]
pub(crate) struct Rules {
    policy: Arc<Policy>,
    services: HashMap<String, usize>,
    /// Clients that are enabled, by their credentials.
    clients: HashMap<String, Vec<usize>>,
    sources: HashMap<usize, Ranges>,
    denied: Ranges,
}

impl Rules {
    pub(crate) fn new(policy: Arc<Policy>) -> Rules {
        let services = policy.services.iter().enumerate();
        let services = services.map(|(at, service)| (service.name.clone(), at)).collect();
        let mut clients: HashMap<String, Vec<usize>> = HashMap::new();
        let mut sources = HashMap::new();
        for (at, client) in policy
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.enabled)
        {
            for credential in &client.credentials {
                clients.entry(credential.clone()).or_default().push(at);
                sources
                    .entry(at)
                    .or_insert_with(|| Ranges::new(client.sources.iter().map(|source| source.prefix)));
            }
        }
        let denied = policy.denies.iter().flat_map(|deny| &deny.sources);
        let denied = Ranges::new(denied.map(|source| source.prefix));
        Rules {
            policy,
            services,
            clients,
            sources,
            denied,
        }
    }

    pub(crate) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The service's number in the policy.
    pub(crate) fn service(&self, name: &str) -> Option<usize> {
        self.services.get(name).copied()
    }

    /// Whether it lets through what it would refuse.
    pub(crate) fn observes(&self, service: usize) -> bool {
        let service = self.policy.services.get(service);
        let mode = service
            .and_then(|service| service.mode)
            .unwrap_or(self.policy.filter.mode);
        mode == Mode::Observe
    }

    pub(crate) fn denies(&self, address: IpAddr) -> bool {
        self.denied.hold(address)
    }

    /// What the policy's clients with this credential say. `now` is the wall clock, as for the clients' `expires`.
    pub(crate) fn facts(
        &self,
        credential: &str,
        service: usize,
        from: (IpAddr, Option<u16>),
        now: jiff::Timestamp,
    ) -> Vec<Facts> {
        let found = self.clients.get(credential).into_iter().flatten();
        let said = found.filter_map(|at| {
            let client = self.policy.clients.get(*at)?;
            let named = client
                .credentials
                .iter()
                .any(|listed| key::is_same(listed, credential));
            named.then(|| Facts {
                publisher: String::new(),
                service: names(&client.services, service),
                address: self.sources.get(at).is_some_and(|ranges| ranges.hold(from.0)),
                port: admits_port(&client.source_ports, from.1),
                ended: client.expires.is_some_and(|expires| expires <= now),
            })
        });
        said.collect()
    }
}

fn names(set: &ServiceSet, service: usize) -> bool {
    match set {
        ServiceSet::All => true,
        ServiceSet::Some(services) => services.contains(&service),
    }
}

/// Empty is any, and so is a port that the gateway did not tell.
pub(crate) fn admits_port(ranges: &[PortRange], port: Option<u16>) -> bool {
    let Some(port) = port else {
        return true;
    };
    ranges.is_empty()
        || ranges
            .iter()
            .any(|range| (range.first..=range.last).contains(&port))
}

/// Prefixes as sorted, disjoint ranges: a look-up is a binary search, however many there are.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    pub(crate) fn new(prefixes: impl Iterator<Item = IpNet>) -> Ranges {
        let mut ranges = Ranges::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(v4) => ranges.v4.push((v4.network().to_bits(), v4.broadcast().to_bits())),
                IpNet::V6(v6) => ranges.v6.push((v6.network().to_bits(), v6.broadcast().to_bits())),
            }
        }
        ranges.v4 = disjoint(ranges.v4);
        ranges.v6 = disjoint(ranges.v6);
        ranges
    }

    pub(crate) fn hold(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => holds(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => holds(&self.v6, v6.to_bits()),
        }
    }
}

/// Prefixes nest or are apart, so the first that begins at an address is merged with all it holds.
fn disjoint<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
    let mut kept: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if kept.last().is_none_or(|last| last.1 < range.0) {
            kept.push(range);
        }
    }
    kept.shrink_to_fit();
    kept
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after.checked_sub(1).is_some_and(|at| address <= ranges[at].1)
}
