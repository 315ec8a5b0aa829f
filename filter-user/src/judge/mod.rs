//! One policy asked about single frames, apart from what is in force: by the reference on the host and by a copy of
//! the kernel program that no interface knows.
//!
//! For replay, explain and what a policy expects. Attaches nothing, pins nothing, touches no live bucket.

pub mod asked;
pub mod both;
pub mod canary;
pub mod copy;
pub mod expect;
pub mod frame;
pub mod in_force;
pub mod reading;
pub mod session;
pub mod told;

use std::collections::HashMap;

use filter_common::verdict::Judgement;
use ipnet::IpNet;

use crate::compiler::{self, CompileError, Compiled, Numbers, Pushed, Surroundings, owner_name};
use crate::policy::Policy;
use crate::policy::model::Addresses;

/// Where the filter's clock stands when judging begins: no bucket has been used before, and no end is at 0.
pub const BASE_NS: u64 = 1_000_000_000;
/// How far the clock may go: bucket time lasts 36 years, and room is left for the longest bursts.
pub const ELAPSED_NS_MAX: u64 = 30 * 365 * 86_400 * 1_000_000_000;

/// A policy with all that is needed to judge by it.
pub struct Bench {
    pub compiled: Compiled,
    pub numbers: Numbers,
    pub names: Names,
}

impl Bench {
    /// `end` turns a client's end into the clock that frames will be judged at.
    pub fn new(
        policy: &Policy,
        host_addresses: &[IpNet],
        end: &dyn Fn(jiff::Timestamp) -> u64,
        pushed: &Pushed,
    ) -> Result<Self, CompileError> {
        let (numbers, _) = Numbers::default().assign((policy, pushed), None, u32::MAX);
        let around = Surroundings {
            host_addresses,
            end,
            pushed,
            grows: None,
        };
        Ok(Self {
            compiled: compiler::compile(policy, &numbers, &around)?,
            names: Names::of(policy, pushed, &numbers),
            numbers,
        })
    }

    /// The owners whose grants end, by number, with their ends.
    pub fn ending(&self, policy: &Policy) -> Vec<(u32, jiff::Timestamp)> {
        let ends = policy
            .clients
            .iter()
            .filter_map(|client| Some((owner_name(&client.name), client.expires?)));
        let ends: HashMap<String, jiff::Timestamp> = ends.collect();
        let owners = self.names.owners();
        owners
            .filter_map(|(number, name)| Some((number, *ends.get(name)?)))
            .collect()
    }
}

/// The names behind the numbers of a judgement.
pub struct Names {
    services: HashMap<u32, String>,
    owners: HashMap<u32, String>,
}

impl Names {
    pub fn of(policy: &Policy, pushed: &Pushed, numbers: &Numbers) -> Self {
        let services = numbers.services().map(|(name, number)| (number, name.to_owned()));
        let clients = policy.clients.iter().map(|client| owner_name(&client.name));
        let owners = clients.chain(pushed.grantees.keys().map(|name| name.to_string()));
        let owners = owners.filter_map(|name| Some((numbers.owner(&name)?, name)));
        Self {
            services: services.collect(),
            owners: owners.collect(),
        }
    }

    /// Those that are given: numbers and names.
    pub fn known(
        services: impl IntoIterator<Item = (u32, String)>,
        owners: impl IntoIterator<Item = (u32, String)>,
    ) -> Self {
        Self {
            services: services.into_iter().collect(),
            owners: owners.into_iter().collect(),
        }
    }

    pub fn service(&self, judgement: &Judgement) -> Option<&str> {
        self.services.get(&judgement.service).map(String::as_str)
    }

    pub fn owner(&self, judgement: &Judgement) -> Option<&str> {
        self.owners.get(&judgement.owner).map(String::as_str)
    }

    pub fn services(&self) -> impl Iterator<Item = (u32, &str)> {
        self.services
            .iter()
            .map(|(number, name)| (*number, name.as_str()))
    }

    pub fn owners(&self) -> impl Iterator<Item = (u32, &str)> {
        self.owners.iter().map(|(number, name)| (*number, name.as_str()))
    }
}

/// Whether any entry means the host's own addresses.
pub fn names_host(policy: &Policy) -> bool {
    let services = policy.services.iter().map(|service| &service.address);
    let management = policy.management.iter().map(|entry| &entry.address);
    services
        .chain(management)
        .any(|address| *address == Addresses::Host)
}
