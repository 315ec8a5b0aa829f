//! Changes made entry by entry, in real maps, against a compile of the same from nothing: each address has the same
//! management, denies and owners in the same order, and each owner the same grant.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::compile::{Occasion, compile};
use super::filter::{SharedNumbers, read, shared};
use super::live::Stop;
use super::tables::Tables;
use crate::bindings::seam::{Change, Grantee, Many, Terms};
use crate::cases::cases;
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
[[client]]
name = "far"
sources = ["2001::/16", "2001:db8::/48", "2001:db8:1:1::/64"]
services = ["a"]
[[deny]]
name = "some"
sources = ["10.0.0.4", "10.0.0.2", "10.0.0.16/29", "10.0.0.16", "fd00::4/126", "fd00:0:2::/48", "fd00:0:2::/64"]
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
    let text = match services.contains(&"b") {
        true => POLICY.to_owned(),
        false => POLICY
            .replace("name = \"b\"\nprotocol", "name = \"c\"\nprotocol")
            .replace("services = [\"b\"]", "services = [\"a\"]")
            .replace("services = [\"a\", \"b\"]", "services = [\"a\"]"),
    };
    policy_from(&text)
}

pub(super) fn policy_from(text: &str) -> Policy {
    let root = Path::new("keyfence.toml");
    let files = MemoryFiles::new([(root.to_owned(), text.as_bytes().to_vec())]);
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    load_from(&files, root, &LoadContext::at(now)).policy.unwrap()
}

/// Few enough to meet often, inside and outside of the policy's prefixes.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (
        prop_oneof![Just([10, 0, 0]), Just([10, 0, 1]), Just([192, 0, 2])],
        0u8..8,
    )
        .prop_map(|([a, b, c], last)| IpAddr::from([a, b, c, last]));
    let v6 = (0u16..2, 0u16..3, 0u16..2, 0u16..8).prop_map(|(block, site, network, last)| {
        IpAddr::from([0xfd00 + block, 0, site, network, 0, 0, 0, last])
    });
    prop_oneof![v4, v6]
}

/// Of every kind of length, nested and side by side; single addresses most of all.
fn source() -> impl Strategy<Value = IpNet> {
    let v4 = prop::sample::select(vec![0u8, 7, 8, 15, 16, 17, 23, 24, 28, 29, 30, 31]);
    let v6 = prop::sample::select(vec![
        0u8, 7, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 112, 125, 127,
    ]);
    (address(), v4, v6, any::<bool>()).prop_map(|(address, v4, v6, is_single)| {
        let length = match address {
            _ if is_single => return IpNet::from(address),
            IpAddr::V4(_) => v4,
            IpAddr::V6(_) => v6,
        };
        IpNet::new(address, length).unwrap().trunc()
    })
}

pub(super) fn grantee() -> impl Strategy<Value = Grantee> {
    let ports = prop_oneof![Just(vec![]), Just(vec![(1, 9)]), Just(vec![(1, 9), (20, 30)])];
    let sources = proptest::collection::btree_set(source(), 1..5);
    (0u8..12, sources, 1u8..4, ports, 0u64..3, 1u64..100).prop_map(
        |(name, sources, services, ports, burst, end)| {
            let named = [("a", 1), ("b", 2)].iter().filter(|(_, bit)| services & bit != 0);
            let range = |(first, last)| PortRange { first, last };
            Grantee {
                credential: format!("binding/gateway/key-{name}").into(),
                sources: sources.into_iter().collect(),
                terms: Arc::new(Terms {
                    publisher: "gateway".into(),
                    services: named.map(|(name, _)| (*name).into()).collect(),
                    source_ports: ports.into_iter().map(range).collect(),
                    limit: Limits {
                        packets: (burst > 0).then_some(Limit {
                            rate: 1,
                            per_seconds: 1,
                            burst,
                        }),
                        ..Limits::default()
                    },
                }),
                end,
            }
        },
    )
}

/// The same with these services.
pub(super) fn with_services<'s>(services: impl IntoIterator<Item = &'s str>, grantee: Grantee) -> Grantee {
    let terms = Terms {
        services: services.into_iter().map(Box::from).collect(),
        ..Terms::clone(&grantee.terms)
    };
    Grantee {
        terms: Arc::new(terms),
        ..grantee
    }
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let owner = |name: u8| format!("binding/gateway/key-{name}").into();
    let deny = |name: u8| format!("deny-{name}");
    let sources = proptest::collection::vec(source(), 1..4);
    let end = prop_oneof![Just(1), Just(u64::MAX - 1), Just(u64::MAX)];
    prop_oneof![
        4 => grantee().prop_map(Change::Put),
        2 => (0u8..12).prop_map(move |name| Change::Remove { owner: owner(name) }),
        1 => (0u8..12, 1u64..100).prop_map(move |(name, end)| Change::End { owner: owner(name), end }),
        1 => (0u8..4, sources, end).prop_map(move |(name, sources, end)| Change::Deny {
            name: deny(name),
            sources,
            end,
        }),
        1 => (0u8..4).prop_map(move |name| Change::Undeny { name: deny(name) }),
    ]
}

/// All that a table says, by names instead of numbers.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    addresses: BTreeMap<IpNet, (u64, u64, Vec<String>)>,
    owners: BTreeMap<Arc<str>, Granted>,
    /// Prefixes that an owner names beside one around them, of each family.
    doubled: [Vec<(String, String)>; 2],
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
    let occasion = (Occasion::Start, Many::default());
    let (compiled, _) = compile((policy, pushed), &numbers, &[], occasion).unwrap();
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

    pub(super) fn said(&self, asked: &[IpNet]) -> Said {
        said(&self.tables, &read(&self.numbers), asked)
    }
}

pub(super) fn said(tables: &Tables, numbers: &Numbers, asked: &[IpNet]) -> Said {
    let live = tables.live().unwrap();
    let addresses = asked.iter().copied().zip(live.said(asked));
    let owners = tables.by_name().into_keys();
    let owners = owners.map(|name| (Arc::clone(&name), live.granted(numbers.owner(&name).unwrap())));
    Said {
        addresses: addresses.collect(),
        owners: owners.collect(),
        doubled: live.doubled(),
    }
}

/// All single addresses that changes of these tests may name, and those on both sides of where prefixes end.
pub(super) fn all() -> Vec<IpNet> {
    let v4 = ["10.0.0", "10.0.1", "192.0.2"]
        .iter()
        .flat_map(|start| (0..8).map(move |last| format!("{start}.{last}").parse().unwrap()));
    let v6 = (0..96u16).map(|n| {
        let (block, site, network) = (n / 48, n / 16 % 3, n / 8 % 2);
        IpAddr::from([0xfd00 + block, 0, site, network, 0, 0, 0, n % 8])
    });
    let edges = [
        "0.0.0.1",
        "9.255.255.255",
        "10.0.0.8",
        "10.0.0.15",
        "10.0.0.16",
        "10.0.0.20",
        "10.0.0.31",
        "10.0.0.64",
        "10.0.0.128",
        "10.0.0.255",
        "10.0.2.0",
        "10.0.127.1",
        "10.0.128.1",
        "10.0.255.255",
        "10.1.0.1",
        "10.2.0.0",
        "10.255.255.255",
        "11.0.0.1",
        "12.0.0.1",
        "192.0.3.1",
        "192.0.128.1",
        "192.1.0.1",
        "193.0.0.1",
        "255.255.255.255",
        "::1",
        "2001::1",
        "2001:db8::1",
        "2001:db8:1:1::1",
        "2001:db8:2::",
        "fc00::1",
        "fcff::1",
        "fd00::10",
        "fd00::ffff",
        "fd00::1:0:0:1",
        "fd00:0:0:2::",
        "fd00:0:0:8000::",
        "fd00:0:1:8000::",
        "fd00:0:2:5::",
        "fd00:0:3::",
        "fd00:0:8000::",
        "fd00:1::",
        "fd00:8000::",
        "fd01::10",
        "fd01:8000::",
        "fd02::",
        "fe00::1",
        "ffff::",
    ];
    let edges = edges.iter().map(|address| address.parse().unwrap());
    v4.chain(v6).chain(edges).map(IpNet::from).collect()
}

/// One that no change of these tests touches.
pub(super) fn wide() -> Grantee {
    Grantee {
        credential: "binding/gateway/key-5x".into(),
        sources: ["10.0.0.0/24", "10.0.0.5/32", "fd00::/64", "fd00::5/128"]
            .map(|net| net.parse().unwrap())
            .into(),
        terms: Arc::new(Terms {
            publisher: "gateway".into(),
            services: ["b".into()].into(),
            source_ports: Box::default(),
            limit: Limits::default(),
        }),
        end: u64::MAX,
    }
}

pub(super) fn runner(own: u32) -> TestRunner {
    TestRunner::new(cases(own))
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
        prop_assert_eq!(&stage.tables.by_name(), &pushed.grantees);
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

#[test]
fn what_holds_already_is_no_change_and_another_end_is_one_of_a_prefix_too() {
    let mut stage = stage(&policy(), &Pushed::of([wide()], []));
    assert_eq!(stage.change(&Change::Put(wide())), Ok(None));
    let other = Grantee { end: 77, ..wide() };
    assert_eq!(
        stage.change(&Change::Put(other.clone())),
        Ok(Some(Change::Put(wide())))
    );
    let fresh = self::stage(&policy(), &Pushed::of([other], []));
    assert_eq!(stage.said(&all()), fresh.said(&all()));
}

/// A binding of these sources, by its name.
pub(super) fn binding(name: &str, sources: &[&str]) -> Grantee {
    Grantee {
        credential: format!("binding/gateway/{name}").into(),
        sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
        ..wide()
    }
}
