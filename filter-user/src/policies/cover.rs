//! Whether sources that one entry loses are admitted by another: of each source, the services that nothing else gives.
//!
//! Only the lengths and prefixes that could matter are looked up, so a policy of millions of sources is walked once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::bindings::Bindings;
use crate::bindings::seam::LeftOut;
use crate::policy::Policy;
use crate::policy::model::{Client, ServiceSet};

/// A source of a client, and services that it has there.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) prefix: IpNet,
    pub(super) client: &'a str,
    pub(super) services: Arc<[&'a str]>,
}

/// The services that a client reaches; none while it is switched off.
pub(super) fn services_of<'a>(policy: &'a Policy, client: &Client) -> Vec<&'a str> {
    let names = |service: &'a crate::policy::model::Service| service.name.as_str();
    match &client.services {
        _ if !client.enabled => Vec::new(),
        ServiceSet::All => policy.services.iter().map(names).collect(),
        ServiceSet::Some(indexes) => {
            let services = indexes.iter().filter_map(|index| policy.services.get(*index));
            services.map(names).collect()
        }
    }
}

/// What a policy and bindings admit around some sources.
pub(super) struct Cover {
    services: HashMap<IpNet, BTreeSet<String>>,
}

impl Cover {
    pub(super) fn of(
        candidates: &[Candidate<'_>],
        policy: &Arc<Policy>,
        (bindings, left): (&Bindings, &[LeftOut]),
    ) -> Cover {
        let wanted = Wanted::of(candidates);
        let mut cover = Self::clients(&wanted, policy);
        if wanted.prefixes.is_empty() {
            return cover;
        }
        bindings.each_under(policy, left, |planned| {
            if planned.suspended.is_some() {
                return;
            }
            for source in planned.sources().iter().filter(|source| wanted.has(source)) {
                let services = planned.services().iter().map(|name| name.to_string());
                cover.services.entry(*source).or_default().extend(services);
            }
        });
        cover
    }

    pub(super) fn of_clients(candidates: &[Candidate<'_>], policy: &Policy) -> Cover {
        Self::clients(&Wanted::of(candidates), policy)
    }

    fn clients(wanted: &Wanted, policy: &Policy) -> Cover {
        let mut services: HashMap<IpNet, BTreeSet<String>> = HashMap::new();
        if wanted.prefixes.is_empty() {
            return Cover { services };
        }
        for client in &policy.clients {
            let names = services_of(policy, client);
            let around = client.sources.iter().map(|source| source.prefix);
            for prefix in around.filter(|prefix| wanted.has(prefix)) {
                let names = names.iter().map(|name| (*name).to_owned());
                services.entry(prefix).or_default().extend(names);
            }
        }
        Cover { services }
    }

    /// The services of a candidate that nothing here gives.
    pub(super) fn left<'c>(&self, candidate: &Candidate<'c>) -> Vec<&'c str> {
        let mut left = candidate.services.to_vec();
        for around in around(candidate.prefix) {
            if let Some(names) = self.services.get(&around) {
                left.retain(|service| !names.contains(*service));
            }
        }
        left
    }

    /// Whether anything here admits it to anything.
    pub(super) fn any(&self, candidate: &Candidate<'_>) -> bool {
        let admits = |around: &IpNet| self.services.get(around).is_some_and(|names| !names.is_empty());
        around(candidate.prefix).any(|around| admits(&around))
    }
}

/// The prefix and all that hold it.
pub(super) fn around(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(Some(prefix), IpNet::supernet)
}

/// The prefixes that could hold a candidate.
struct Wanted {
    prefixes: HashSet<IpNet>,
}

impl Wanted {
    fn of(candidates: &[Candidate<'_>]) -> Wanted {
        let mut prefixes = HashSet::new();
        for candidate in candidates {
            // What holds one that is known is known.
            let new = around(candidate.prefix).take_while(|around| !prefixes.contains(around));
            let new: Vec<IpNet> = new.collect();
            prefixes.extend(new);
        }
        Wanted { prefixes }
    }

    fn has(&self, prefix: &IpNet) -> bool {
        self.prefixes.contains(prefix)
    }
}
