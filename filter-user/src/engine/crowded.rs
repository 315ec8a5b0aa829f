//! Bindings that have to be left out because more owners would grant an address than the kernel walks, or because there
//! would be more sets of source ports than it holds.
//!
//! A policy must come into force whatever was pushed before it, and a start must not end at a store that a crash left
//! fuller than the kernel takes: who came last is left out, and is told.

use std::cmp::Reverse;
use std::collections::HashSet;

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;

use ipnet::IpNet;

use crate::bindings::seam::{Grantee, Lacks, LeftOut, Under};
use crate::compiler::port_sets::{Ports, are_set, ports};
use crate::compiler::{Key, Pushed};
use crate::policy::Policy;
use crate::policy::bounds::PORT_SETS_MAX;

/// Takes out of what is pushed all that does not fit beside the policy and beside what came before it, and tells whoever
/// holds it. Gives how many: none where all fits. Where the policy itself is too much, its compile says so still.
pub(super) fn leave_out(policy: &Policy, pushed: &mut Pushed, under: &dyn Under) -> usize {
    let left = crowded_out(policy, pushed, |owner| under.age(owner));
    for LeftOut { owner, .. } in &left {
        pushed.grantees.remove(owner.as_str());
    }
    if !left.is_empty() {
        under.leave_out(&left);
    }
    left.len()
}

/// Those that do not fit, the latest by their age first.
pub fn crowded_out(policy: &Policy, pushed: &Pushed, age: impl Fn(&str) -> u64) -> Vec<LeftOut> {
    let grantees: Vec<&Grantee> = pushed.grantees.values().collect();
    let clients = policy.clients.iter().filter(|client| client.enabled);
    let of_clients = clients.map(|client| client.sources.iter().map(|source| &source.prefix).collect());
    let of_grantees = grantees.iter().map(|grantee| grantee.sources.iter().collect());
    let owners: Vec<Vec<&IpNet>> = of_grantees.chain(of_clients).collect();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (owner, prefixes) in owners.iter().enumerate() {
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((Key::cut(net.addr().octets(), net.prefix_len()), owner)),
                IpNet::V6(net) => v6.push((Key::cut(net.addr().octets(), net.prefix_len()), owner)),
            }
        }
    }
    let mut crowd = Crowd {
        grantees,
        out: vec![false; owners.len()],
        left: Vec::new(),
        age,
    };
    crowd.sweep::<4>(v4);
    crowd.sweep::<16>(v6);
    crowd.spare_port_sets(policy);
    crowd.left
}

struct Crowd<'p, A> {
    /// Owners up to their number; clients are behind them.
    grantees: Vec<&'p Grantee>,
    out: Vec<bool>,
    left: Vec<LeftOut>,
    age: A,
}

impl<A: Fn(&str) -> u64> Crowd<'_, A> {
    /// A prefix comes right behind all that hold it.
    fn sweep<const N: usize>(&mut self, mut said: Vec<(Key<N>, usize)>) {
        said.sort_unstable();
        said.dedup();
        let mut chain: Vec<(Key<N>, Vec<usize>)> = Vec::new();
        for same in said.chunk_by(|one, other| one.0 == other.0) {
            let key = same[0].0;
            while chain.last().is_some_and(|(around, _)| !around.holds(&key)) {
                chain.pop();
            }
            let around = chain.last().map_or(&[][..], |(_, owners)| owners);
            if around.is_empty() && same.len() <= OWNERS_PER_SOURCE_MAX as usize && key.is_single() {
                continue;
            }
            let mut owners: Vec<usize> = same
                .iter()
                .map(|(_, owner)| *owner)
                .chain(around.iter().copied())
                .collect();
            owners.sort_unstable();
            owners.dedup();
            owners.retain(|owner| !self.out[*owner]);
            self.thin(&key.to_string(), &mut owners);
            if !key.is_single() {
                chain.push((key, owners));
            }
        }
    }

    fn thin(&mut self, prefix: &str, owners: &mut Vec<usize>) {
        let over = owners.len().saturating_sub(OWNERS_PER_SOURCE_MAX as usize);
        if over == 0 {
            return;
        }
        let name = |owner: usize| &self.grantees[owner].credential;
        let mut latest: Vec<usize> = owners
            .iter()
            .copied()
            .filter(|owner| *owner < self.grantees.len())
            .collect();
        latest.sort_by_key(|owner| (Reverse((self.age)(name(*owner))), Reverse(name(*owner))));
        latest.truncate(over);
        for owner in latest {
            self.out[owner] = true;
            self.left.push(LeftOut {
                owner: name(owner).to_string(),
                lacks: Lacks::Owners(prefix.to_owned()),
            });
        }
        owners.retain(|owner| !self.out[*owner]);
    }

    /// The policy's sets of source ports come first, then those of who came first.
    fn spare_port_sets(&mut self, policy: &Policy) {
        let clients = policy.clients.iter().filter(|client| client.enabled);
        let clients = clients.filter(|client| are_set(&client.source_ports));
        let mut known: HashSet<Ports> = clients.map(|client| ports(&client.source_ports)).collect();
        let mut asked: Vec<(usize, Ports)> = (0..self.grantees.len())
            .filter(|owner| !self.out[*owner] && are_set(&self.grantees[*owner].source_ports))
            .map(|owner| (owner, ports(&self.grantees[owner].source_ports)))
            .collect();
        let all: HashSet<&Ports> = known.iter().chain(asked.iter().map(|(_, ports)| ports)).collect();
        if all.len() <= PORT_SETS_MAX as usize {
            return;
        }
        asked.sort_by_cached_key(|(owner, _)| {
            let name = &self.grantees[*owner].credential;
            ((self.age)(name), name)
        });
        for (owner, ports) in asked {
            if known.contains(&ports) {
                continue;
            }
            if known.len() < PORT_SETS_MAX as usize {
                known.insert(ports);
                continue;
            }
            self.out[owner] = true;
            self.left.push(LeftOut {
                owner: self.grantees[owner].credential.to_string(),
                lacks: Lacks::PortSets,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::seam::Grantee;
    use crate::engine::live_tests::{policy_from, wide};
    use crate::engine::room_tests::with_ports;

    const MAX: usize = OWNERS_PER_SOURCE_MAX as usize;

    fn policy(clients: &[(&str, &str)]) -> Policy {
        let clients = clients.iter().map(|(name, source)| {
            format!("[[client]]\nname = \"{name}\"\nsources = [\"{source}\"]\nservices = [\"a\"]\n")
        });
        let service = "[[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [80]\n";
        let clients: String = clients.collect();
        policy_from(&format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n{service}{clients}"
        ))
    }

    /// The later, the higher the number in its name.
    fn age(owner: &str) -> u64 {
        owner
            .rsplit('-')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    }

    fn pushed(grants: impl IntoIterator<Item = (usize, &'static str)>) -> Pushed {
        let grantee = |(number, source): (usize, &str)| Grantee {
            credential: format!("binding/gateway/key-{number}").into(),
            sources: [source.parse().unwrap()].into(),
            ..wide()
        };
        Pushed::of(grants.into_iter().map(grantee), Vec::new())
    }

    fn left(policy: &Policy, pushed: &Pushed) -> Vec<(u64, String)> {
        let left = crowded_out(policy, pushed, age).into_iter();
        let prefix = |lacks| match lacks {
            Lacks::Owners(prefix) => prefix,
            Lacks::PortSets => String::from("ports"),
        };
        left.map(|left| (age(&left.owner), prefix(left.lacks))).collect()
    }

    #[test]
    fn who_came_last_is_left_out_where_there_are_more_sets_of_ports_than_the_kernel_holds() {
        let with_ports = |number: u32, set: u32| {
            let grantee = Grantee {
                credential: format!("binding/gateway/key-{number}").into(),
                sources: [format!("10.{}.{}.1/32", number >> 8, number & 255)
                    .parse()
                    .unwrap()]
                .into(),
                ..wide()
            };
            with_ports(&[(1, 1), (set as u16 + 3, set as u16 + 3)], grantee)
        };
        let none = policy(&[]);
        let full = || (0..PORT_SETS_MAX).map(|number| with_ports(number, number));
        let more = [
            with_ports(9_000, 7),
            with_ports(9_001, 60_000),
            with_ports(9_002, 60_001),
        ];
        assert_eq!(left(&none, &Pushed::of(full(), [])), []);
        let ports = || String::from("ports");
        assert_eq!(
            left(&none, &Pushed::of(full().chain(more), [])),
            [(9_001, ports()), (9_002, ports())]
        );
    }

    #[test]
    fn who_came_last_is_left_out_where_more_would_grant_an_address_than_the_kernel_walks() {
        let none = policy(&[]);
        let full = || (0..MAX).map(|number| (number, "10.0.0.1/32"));
        let elsewhere = [(9_000, "10.0.0.2/32"), (9_001, "fd00::/48")];
        assert_eq!(left(&none, &pushed(full().chain(elsewhere))), []);
        let late = [(2_000, "10.0.0.1/32"), (3_000, "10.0.0.1/32")];
        let prefix = "10.0.0.1/32".to_owned();
        assert_eq!(
            left(&none, &pushed(full().chain(late))),
            [(3_000, prefix.clone()), (2_000, prefix.clone())]
        );
        // What is around it counts, pushed or of the policy; of the policy nothing goes.
        assert_eq!(
            left(&none, &pushed(full().chain([(2_000, "10.0.0.0/8")]))),
            [(2_000, prefix.clone())]
        );
        let office = policy(&[("office", "10.0.0.0/24"), ("host", "10.0.0.1/32")]);
        assert_eq!(
            left(&office, &pushed(full().chain(elsewhere))),
            [(255, prefix.clone()), (254, prefix)]
        );
    }

    #[test]
    fn one_that_is_left_out_at_a_wide_prefix_makes_room_inside_it() {
        let around = (0..=MAX).map(|number| (number, "fd00::/32"));
        let inside = [(7_000, "fd00:0:1::/48")];
        let said = left(&policy(&[]), &pushed(around.chain(inside)));
        assert_eq!(
            said,
            [(256, "fd00::/32".to_owned()), (7_000, "fd00:0:1::/48".to_owned())]
        );
    }
}
