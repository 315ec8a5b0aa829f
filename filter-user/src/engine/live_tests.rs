//! Changes made entry by entry, in real maps, against a compile of the same from nothing: each address has the same
//! management, denies and owners in the same order, and each owner the same grant.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::fill::Fill;
use super::live::{Live, Stop};
use super::tables::{Occasion, compile};
use crate::bindings::seam::{Change, Grantee};
use crate::compiler::{Numbers, Pushed};
use crate::kernel::edit::Granted;
use crate::kernel::load::{Generation, KernelLog, Setting};
use crate::kernel::state::State;
use crate::policy::model::{Limit, Limits, PortRange};
use crate::policy::{LoadContext, MemoryFiles, Policy, load_from};

const POLICY: &str = r#"version = 1
[filter]
interfaces = ["eth0"]
[[management]]
name = "ssh"
sources = ["10.0.0.3", "10.0.0.64/26", "fd00::3"]
protocol = "tcp"
ports = [22]
[[service]]
name = "a"
protocol = "tcp"
ports = [443]
[[service]]
name = "b"
protocol = "udp"
ports = [443]
[[client]]
name = "wide"
sources = ["10.0.0.0/8", "10.0.0.2", "fd00::/32", "fd00::2"]
services = ["a"]
[[client]]
name = "host"
sources = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "fd00:0:1::1"]
services = ["b"]
[[client]]
name = "middle"
sources = ["10.0.0.0/28", "fd00::/64"]
services = ["a"]
[[deny]]
name = "some"
sources = ["10.0.0.4", "10.0.0.2", "fd00::4/126"]
[[publisher]]
name = "gateway"
user = "root"
services = ["a", "b"]
environments = ["production"]
"#;

pub(super) fn policy() -> Policy {
    let root = Path::new("keyfence.toml");
    let files = MemoryFiles::new([(root.to_owned(), POLICY.as_bytes().to_vec())]);
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    load_from(&files, root, &LoadContext::at(now)).policy.unwrap()
}

/// Few enough to meet often, inside and outside of the policy's prefixes.
fn address() -> impl Strategy<Value = IpNet> {
    let v4 = (
        prop_oneof![Just([10, 0, 0]), Just([10, 0, 1]), Just([192, 0, 2])],
        0u8..8,
    )
        .prop_map(|([a, b, c], last)| IpNet::from(std::net::IpAddr::from([a, b, c, last])));
    let v6 = (0u16..2, 0u16..2, 0u16..8).prop_map(|(block, network, last)| {
        let address = [0xfd00 + block, 0, network, 0, 0, 0, 0, last];
        IpNet::from(std::net::IpAddr::from(address))
    });
    prop_oneof![v4, v6]
}

fn grantee() -> impl Strategy<Value = Grantee> {
    let ports = prop_oneof![Just(vec![]), Just(vec![(1, 9)]), Just(vec![(1, 9), (20, 30)])];
    let sources = proptest::collection::btree_set(address(), 1..5);
    (0u8..12, sources, 1u8..4, ports, 0u64..3, 1u64..100).prop_map(
        |(name, sources, services, ports, burst, end)| {
            let named = [("a", 1), ("b", 2)].iter().filter(|(_, bit)| services & bit != 0);
            let range = |(first, last)| PortRange { first, last };
            Grantee {
                publisher: "gateway".to_owned(),
                credential: format!("binding/gateway/key-{name}"),
                sources: sources.into_iter().collect(),
                services: named.map(|(name, _)| (*name).to_owned()).collect(),
                source_ports: ports.into_iter().map(range).collect(),
                limit: Limits {
                    packets: (burst > 0).then_some(Limit {
                        rate: 1,
                        per_seconds: 1,
                        burst,
                    }),
                    ..Limits::default()
                },
                end,
            }
        },
    )
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let owner = |name: u8| format!("binding/gateway/key-{name}");
    prop_oneof![
        4 => grantee().prop_map(Change::Put),
        2 => (0u8..12).prop_map(move |name| Change::Remove { owner: owner(name) }),
        1 => (0u8..12, 1u64..100).prop_map(move |(name, end)| Change::End { owner: owner(name), end }),
    ]
}

/// All that a table says, by names instead of numbers.
#[derive(Debug, PartialEq)]
struct Said {
    addresses: BTreeMap<IpNet, (u64, u64, Vec<String>)>,
    owners: BTreeMap<String, Granted>,
}

/// Tables of the test's own, in the kernel.
pub(super) struct Tables {
    pub(super) live: Live,
    pub(super) state: State,
    pub(super) numbers: Numbers,
    pub(super) generation: Generation,
}

pub(super) fn tables(policy: &Policy, pushed: &Pushed) -> Tables {
    let (mut numbers, _) = Numbers::default().assign((policy, pushed), None, u32::MAX);
    let (compiled, _) = compile((policy, pushed), &numbers, &[], Occasion::Start).unwrap();
    let setting = Setting {
        interfaces: &[],
        pins: None,
        owners_max: 10_000,
        log: KernelLog::Off,
        records: false,
    };
    let mut generation = Generation::load(&compiled, setting)
        .unwrap_or_else(|error| panic!("this test puts tables into the kernel: run it as root ({error})"));
    let state = State::of(&generation).unwrap();
    let fill = Arc::new(Fill::of(&compiled, pushed.grantees.len(), 10_000));
    let live = Live::new(
        &mut generation,
        compiled,
        &mut numbers,
        (policy, pushed, &fill),
        10_000,
    )
    .unwrap();
    Tables {
        live,
        state,
        numbers,
        generation,
    }
}

impl Tables {
    pub(super) fn change(&mut self, pushed: &Pushed, change: &Change) -> Result<(), Stop> {
        match change {
            Change::Put(grantee) => {
                let before = pushed.grantees.get(&grantee.credential);
                self.live
                    .put(&mut self.numbers, &self.state, before, grantee)
                    .map(drop)
            }
            Change::Remove { owner } => match pushed.grantees.get(owner) {
                Some(before) => self.live.remove(&self.numbers, owner, before),
                None => Ok(()),
            },
            Change::End { owner, end } if pushed.grantees.contains_key(owner) => {
                self.live.end(&self.numbers, owner, *end)
            }
            _ => Ok(()),
        }
    }

    fn said(&self, asked: &[IpNet], pushed: &Pushed) -> Said {
        let addresses = asked.iter().map(|address| (*address, self.live.said(address)));
        let owners = pushed.grantees.keys().map(|name| {
            let number = self.numbers.owner(name).unwrap();
            (name.clone(), self.live.granted(number))
        });
        Said {
            addresses: addresses.collect(),
            owners: owners.collect(),
        }
    }
}

#[test]
fn entries_changed_in_place_say_what_a_compile_from_nothing_says() {
    let policy = policy();
    let all: Vec<IpNet> = ["10.0.0", "10.0.1", "192.0.2"]
        .iter()
        .flat_map(|start| (0..8).map(move |last| format!("{start}.{last}/32").parse().unwrap()))
        .chain((0..32).map(|n: u16| {
            let address = [0xfd00 + n / 16, 0, n / 8 % 2, 0, 0, 0, 0, n % 8];
            IpNet::from(std::net::IpAddr::from(address))
        }))
        .collect();
    let mut runner = TestRunner::new(Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    });
    // What was pushed before the tables were made, a prefix among it, and what is changed in them.
    let before = proptest::collection::vec(grantee(), 0..6);
    let changes = proptest::collection::vec(change(), 1..40);
    let tested = runner.run(&(before, changes), |(before, changes)| {
        let mut pushed = Pushed::of(before, []);
        let wide = Grantee {
            publisher: "gateway".to_owned(),
            credential: "binding/gateway/key-5x".to_owned(),
            sources: ["10.0.0.0/24", "10.0.0.5/32", "fd00::/64", "fd00::5/128"]
                .map(|net| net.parse().unwrap())
                .into(),
            services: vec!["b".to_owned()],
            source_ports: Vec::new(),
            limit: Limits::default(),
            end: u64::MAX,
        };
        pushed.change(Change::Put(wide));
        let mut tables = tables(&policy, &pushed);
        for change in changes {
            tables.change(&pushed, &change).unwrap();
            pushed.change(change);
        }
        let fresh = self::tables(&policy, &pushed);
        prop_assert_eq!(tables.said(&all, &pushed), fresh.said(&all, &pushed));
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}
