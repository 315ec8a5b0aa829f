//! Who sent traffic lately and would be cut: by a source that is lost, a new deny, a binding that is suspended.
//!
//! What is known of traffic is what owners' grants have passed, and when last.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::cover::{Candidate, Cover, around, services_of};
use super::plan::{Cut, Ground, LISTED_MAX};
use crate::bindings::seam::OwnerUse;
use crate::compiler::{owner_name, service_mode};
use crate::kernel::clock;
use crate::policy::Policy;
use crate::policy::model::{Mode, PassDrop};

/// Who has sent since then has sent lately.
const LATELY_NS: u64 = 24 * 3_600 * 1_000_000_000;

/// Whoever sent lately and would be cut.
pub(super) struct Cuts<'a> {
    pub(super) ground: &'a Ground<'a>,
    now: u64,
    wall_offset: i128,
    pub(super) list: Vec<Cut>,
    pub(super) count: usize,
}

impl<'a> Cuts<'a> {
    pub(super) fn new(ground: &'a Ground<'a>) -> Self {
        Cuts {
            ground,
            now: clock::monotonic().0,
            wall_offset: clock::wall_offset(),
            list: Vec::new(),
            count: 0,
        }
    }

    /// What an owner's grant has done, and when last if that was lately.
    pub(super) fn seen(&self, owner: &str) -> Option<(OwnerUse, Option<jiff::Timestamp>)> {
        let used = self.ground.grants.used(owner)?;
        let lately = used.last_seen > 0 && self.now.saturating_sub(used.last_seen) <= LATELY_NS;
        let at = i128::from(used.last_seen) + self.wall_offset;
        let at = jiff::Timestamp::from_nanosecond(at).ok().filter(|_| lately);
        Some((used, at))
    }

    pub(super) fn add(&mut self, source: IpNet, services: &[&str], owner: &str, reason: &'static str) {
        let Some((used, Some(last_seen))) = self.seen(owner) else {
            return;
        };
        self.count += 1;
        if self.list.len() < LISTED_MAX {
            self.list.push(Cut {
                source,
                services: services.iter().map(|name| (*name).to_owned()).collect(),
                owner: Some(owner.to_owned()),
                reason,
                last_seen,
                packets: used.packets,
            });
        }
    }

    /// Where a service is gone its packets go by `other-traffic`; where it observes nothing is dropped.
    pub(super) fn lost(&mut self, candidate: &Candidate<'_>, services: &[&str]) {
        let policy = self.ground.new;
        let owner = owner_name(candidate.client);
        let (mut unlisted, mut other) = (Vec::new(), Vec::new());
        for name in services {
            match policy.services.iter().find(|service| service.name == *name) {
                Some(service) if service_mode(policy, service) == Mode::Enforce => unlisted.push(*name),
                None if policy.filter.other_traffic == PassDrop::Drop
                    && policy.filter.mode == Mode::Enforce =>
                {
                    other.push(*name);
                }
                _ => {}
            }
        }
        for (services, reason) in [(unlisted, "unlisted"), (other, "other")] {
            if !services.is_empty() {
                self.add(candidate.prefix, &services, &owner, reason);
            }
        }
    }

    /// New denies, against the sources that clients have in the policy in force.
    pub(super) fn denied(&mut self) {
        let ground = self.ground;
        let all = |policy: &Policy| -> BTreeSet<IpNet> {
            let sources = policy.denies.iter().flat_map(|deny| &deny.sources);
            sources.map(|source| source.prefix).collect()
        };
        let new: BTreeSet<IpNet> = all(ground.new).difference(&all(ground.old)).copied().collect();
        if new.is_empty() || ground.new.filter.mode == Mode::Observe {
            return;
        }
        for client in &ground.old.clients {
            let owner = owner_name(&client.name);
            if !matches!(self.seen(&owner), Some((_, Some(_)))) {
                continue;
            }
            let services = services_of(ground.old, client);
            for prefix in client.sources.iter().map(|source| source.prefix) {
                if around(prefix).any(|around| new.contains(&around)) {
                    self.add(prefix, &services, &owner, "denied");
                    continue;
                }
                // In the order of addresses, those that it holds follow it.
                let inside = new.range(prefix..).take_while(|deny| prefix.contains(*deny));
                for deny in inside {
                    self.add(*deny, &services, &owner, "denied");
                }
            }
        }
    }

    /// Sources of bindings that would be suspended, but for those that a client admits.
    pub(super) fn suspended(&mut self, sources: &[(IpNet, Arc<str>)]) {
        let candidates = sources.iter().map(|(prefix, owner)| Candidate {
            prefix: *prefix,
            client: owner,
            services: Arc::new([]),
        });
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        let cover = Cover::of_clients(&candidates, self.ground.new);
        for candidate in candidates.iter().filter(|candidate| !cover.any(candidate)) {
            self.add(candidate.prefix, &[], candidate.client, "unlisted");
        }
    }
}
