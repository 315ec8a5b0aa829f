//! Changes made entry by entry, in real maps, against a compile of the same from nothing: each address has the same
//! management, denies and owners in the same order, and each owner the same grant.

use std::collections::BTreeMap;
use std::path::Path;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::compile::{Occasion, compile};
use super::filter::{SharedNumbers, read, shared};
use super::live::Stop;
use super::tables::Tables;
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
    policy_of(&["a", "b"])
}

/// With these of its services alone.
pub(super) fn policy_of(services: &[&str]) -> Policy {
    let root = Path::new("keyfence.toml");
    let text = match services.contains(&"b") {
        true => POLICY.to_owned(),
        false => POLICY
            .replace("name = \"b\"\nprotocol", "name = \"c\"\nprotocol")
            .replace("services = [\"b\"]", "services = [\"a\"]")
            .replace("services = [\"a\", \"b\"]", "services = [\"a\"]"),
    };
    let files = MemoryFiles::new([(root.to_owned(), text.into_bytes())]);
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

pub(super) fn grantee() -> impl Strategy<Value = Grantee> {
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
pub(super) struct Said {
    addresses: BTreeMap<IpNet, (u64, u64, Vec<String>)>,
    owners: BTreeMap<String, Granted>,
}

/// Tables of the test's own, in the kernel.
pub(super) struct Stage {
    pub(super) tables: Tables,
    pub(super) state: State,
    pub(super) numbers: SharedNumbers,
}

pub(super) fn stage(policy: &Policy, pushed: &Pushed) -> Stage {
    stage_over(&Numbers::default(), policy, pushed)
}

/// The same with the numbers that services have: what is said of rows tells them.
pub(super) fn stage_over(known: &Numbers, policy: &Policy, pushed: &Pushed) -> Stage {
    let services = known.services().map(|(name, number)| (name.to_owned(), number));
    let known = Numbers::known(services, []);
    let (mut numbers, _) = known.assign((policy, pushed), None, u32::MAX);
    let (compiled, _) = compile((policy, pushed), &numbers, &[], Occasion::Start).unwrap();
    let setting = Setting {
        interfaces: &[],
        pins: None,
        owners_max: 50_000,
        log: KernelLog::Off,
        records: false,
    };
    let generation = Generation::load(&compiled, setting)
        .unwrap_or_else(|error| panic!("this test puts tables into the kernel: run it as root ({error})"));
    let state = State::of(&generation).unwrap();
    let around = (policy, pushed.clone());
    let tables = Tables::new(generation, compiled, &mut numbers, around, 50_000).unwrap();
    Stage {
        tables,
        state,
        numbers: shared(numbers),
    }
}

impl Stage {
    pub(super) fn change(&mut self, change: &Change) -> Result<Option<Change>, Stop> {
        self.tables.change(&self.numbers, &self.state, change.clone())
    }

    fn said(&self, asked: &[IpNet]) -> Said {
        said(&self.tables, &read(&self.numbers), asked)
    }
}

pub(super) fn said(tables: &Tables, numbers: &Numbers, asked: &[IpNet]) -> Said {
    let live = tables.live().unwrap();
    let addresses = asked.iter().map(|address| (*address, live.said(address)));
    let owners = tables.pushed.grantees.keys().map(|name| {
        let number = numbers.owner(name).unwrap();
        (name.clone(), live.granted(number))
    });
    Said {
        addresses: addresses.collect(),
        owners: owners.collect(),
    }
}

/// All that grantees of these tests may name.
pub(super) fn all() -> Vec<IpNet> {
    ["10.0.0", "10.0.1", "192.0.2"]
        .iter()
        .flat_map(|start| (0..8).map(move |last| format!("{start}.{last}/32").parse().unwrap()))
        .chain((0..32).map(|n: u16| {
            let address = [0xfd00 + n / 16, 0, n / 8 % 2, 0, 0, 0, 0, n % 8];
            IpNet::from(std::net::IpAddr::from(address))
        }))
        .collect()
}

/// With prefixes, which no change of these tests touches.
pub(super) fn wide() -> Grantee {
    Grantee {
        publisher: "gateway".to_owned(),
        credential: "binding/gateway/key-5x".to_owned(),
        sources: ["10.0.0.0/24", "10.0.0.5/32", "fd00::/64", "fd00::5/128"]
            .map(|net| net.parse().unwrap())
            .into(),
        services: vec!["b".to_owned()],
        source_ports: Vec::new(),
        limit: Limits::default(),
        end: u64::MAX,
    }
}

pub(super) fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

#[test]
fn entries_changed_in_place_say_what_a_compile_from_nothing_says() {
    let policy = policy();
    let all = all();
    // What was pushed before the tables were made, a prefix among it, and what is changed in them.
    let before = proptest::collection::vec(grantee(), 0..6);
    let changes = proptest::collection::vec(change(), 1..40);
    let tested = runner(40).run(&(before, changes), |(before, changes)| {
        let mut pushed = Pushed::of(before, []);
        pushed.change(Change::Put(wide()));
        let mut stage = stage(&policy, &pushed);
        for change in changes {
            stage.change(&change).unwrap();
            pushed.change(change);
        }
        prop_assert_eq!(&stage.tables.pushed.grantees, &pushed.grantees);
        let fresh = self::stage(&policy, &pushed);
        prop_assert_eq!(stage.said(&all), fresh.said(&all));
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn changes_that_are_taken_back_leave_what_was() {
    let policy = policy();
    let all = all();
    let before = proptest::collection::vec(grantee(), 0..6);
    let changes = proptest::collection::vec(change(), 1..40);
    let tested = runner(20).run(&(before, changes), |(before, changes)| {
        let pushed = Pushed::of(before, []);
        let mut stage = stage(&policy, &pushed);
        let said = stage.said(&all);
        let mut back = Vec::new();
        for change in changes {
            back.extend(stage.change(&change).unwrap());
        }
        for change in back.into_iter().rev() {
            stage.change(&change).unwrap();
        }
        prop_assert_eq!(stage.said(&all), said);
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}
