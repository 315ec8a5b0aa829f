//! The decision on the host under one policy, and the oracle beside it.

use std::collections::HashMap;

use filter_common::limit::Effect;
use filter_common::parse::Packet;
use filter_common::pipeline;
use filter_common::units::Nanos;
use ipnet::IpNet;

use crate::compiler::host::HostTables;
use crate::compiler::{Numbers, Pushed, Surroundings, compile, owner_hash, owner_name};
use crate::oracle::judge::Judge;
use crate::oracle::policy::Policy;
use crate::oracle::random::{self, Budgets};
use crate::oracle::vectors::START_NS;
use crate::policy::{LoadContext, MemoryFiles, load_from};
use crate::seeds;

/// Where the filter's clock stands at the start: an hour after boot.
const BASE_NS: u64 = 3_600_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// The same frames come so often, seconds apart: buckets run out, and fill again.
const MOMENTS: [u64; 5] = [0, 0, 0, 1, 61];
/// Random policies, beside those of the vectors.
const RANDOM: u64 = 40;

pub struct Subject {
    host: HostTables,
    oracle: Judge,
    services: HashMap<u32, String>,
    owners: HashMap<u32, String>,
}

/// The policies of the vectors, then random ones.
pub fn subjects() -> Vec<Subject> {
    let vectors = seeds::vectors().into_iter().map(|file| {
        let mut policy = Policy::from_toml(&file.policy).expect("the oracle reads the vectors' policies");
        policy.host_addresses.clone_from(&file.host_addresses);
        Subject::new(&file.policy, &policy)
    });
    let random = (0..RANDOM).map(|seed| {
        let budgets = if seed.is_multiple_of(2) {
            Budgets::None
        } else {
            Budgets::Whole
        };
        let policy = random::run(seed, 0, budgets).policy;
        Subject::new(&policy.to_toml(), &policy)
    });
    vectors.chain(random).collect()
}

impl Subject {
    fn new(text: &str, policy: &Policy) -> Self {
        let root = std::path::PathBuf::from("policy.toml");
        let files = MemoryFiles::new([(root.clone(), text.as_bytes().to_vec())]);
        let loaded = load_from(&files, &root, &LoadContext::at(jiff::Timestamp::UNIX_EPOCH));
        let checked = loaded.policy.expect("the policy is free of faults");
        let (numbers, _) = Numbers::default().assign((&checked, &Pushed::default()), None, u32::MAX);
        let end = |expires: jiff::Timestamp| {
            let left = expires.as_nanosecond() - i128::from(START_NS);
            u64::try_from(i128::from(BASE_NS) + left).unwrap_or(0)
        };
        let addresses = policy.host_addresses.iter().copied();
        let host_addresses: Vec<IpNet> = addresses.map(IpNet::from).collect();
        let around = Surroundings {
            host_addresses: &host_addresses,
            end: &end,
            pushed: &Pushed::default(),
            grows: None,
        };
        let compiled = compile(&checked, &numbers, &around).expect("the policy fits the tables");
        let by_hash: HashMap<_, _> = numbers.owners().collect();
        let owners = checked.clients.iter().map(|client| owner_name(&client.name));
        Self {
            services: numbers
                .services()
                .map(|(name, number)| (number, name.to_string()))
                .collect(),
            owners: owners
                .filter_map(|name| Some((*by_hash.get(&owner_hash(&name))?, name)))
                .collect(),
            host: HostTables::new(compiled),
            oracle: Judge::new(policy),
        }
    }

    /// Panics where the two disagree about one of the frames, which share the buckets, dry or for good.
    pub fn compare<'a>(&self, frames: impl Iterator<Item = &'a [u8]> + Clone) {
        self.host.refill();
        let mut oracle = self.oracle.clone();
        for moment in MOMENTS {
            // Half a second away from every end, which comes at a whole one.
            let passed = moment * SECOND + SECOND / 2;
            self.host.now.set(Nanos(BASE_NS + passed));
            for frame in frames.clone() {
                let wanted = oracle.judge(frame, START_NS + passed);
                for effect in [Effect::Dry, Effect::Commit] {
                    self.host.effect.set(effect);
                    let mut packet = Packet::default();
                    let got = pipeline::judge(frame, &self.host, &mut packet);
                    let same = got.verdict.name() == wanted.verdict.as_str()
                        && got.reason.name() == wanted.reason
                        && self.services.get(&got.service) == wanted.service.as_ref()
                        && self.owners.get(&got.owner) == wanted.owner.as_ref();
                    assert!(
                        same,
                        "the oracle: {wanted:?}; the decision ({effect:?}): {got:?}, {packet:?}; {frame:02x?}"
                    );
                }
            }
        }
    }
}
