//! Changes that the tables in force have no part or no room for, in real maps: they leave what was, and are a generation's.

use std::net::IpAddr;
use std::sync::Arc;

use filter_common::abi::names;
use ipnet::IpNet;

use super::live::Stop;
use super::live_tests::{all, binding, policy, policy_from, stage, stage as fresh};
use crate::bindings::seam::{Change, Grantee, Terms};
use crate::compiler::Pushed;
use crate::policy::Policy;
use crate::policy::bounds::{PORT_SETS_FEW, PORT_SETS_KEPT, PORT_SETS_MAX};
use crate::policy::model::PortRange;

/// A policy with nothing but what is needed to push.
fn bare() -> Policy {
    let text = r#"version = 1
[filter]
interfaces = ["eth0"]
management-none = true
[[service]]
name = "b"
protocol = "udp"
ports = [443]
[[publisher]]
name = "gateway"
user = "root"
services = ["b"]
environments = ["production"]
"#;
    policy_from(text)
}

#[test]
fn first_prefix_of_its_kind_takes_a_generation_and_the_next_ones_none() {
    let policy = bare();
    let asked = ["10.1.2.3", "10.1.3.3", "fd00::1", "fd01::1", "2400::1"]
        .map(|text| IpNet::from(text.parse::<IpAddr>().unwrap()));
    let mut first = stage(&policy, &Pushed::default());
    let before = first.said(&asked);
    let sources = ["fd00::/40", "2000::/4"];
    for source in sources {
        let put = Change::Put(binding("one", &[source]));
        assert_eq!(first.change(&put), Err(Stop::Generation), "{source}");
        let deny = Change::Deny {
            name: "deny".to_owned(),
            sources: vec![source.parse().unwrap()],
            end: u64::MAX,
        };
        assert_eq!(first.change(&deny), Err(Stop::Generation), "{source}");
    }
    assert_eq!(first.said(&asked), before, "nothing of it was done");
    // What may be pushed by most has its part from the start.
    let narrow = binding("narrow", &["10.1.2.0/24", "fd00::/64", "fd01::/48"]);
    first.change(&Change::Put(narrow.clone())).unwrap();
    let narrow = Pushed::of([narrow], []);
    assert_eq!(first.said(&asked), stage(&policy, &narrow).said(&asked));
    let mut pushed = Pushed::of([binding("one", &sources)], []);
    let mut next = stage(&policy, &pushed);
    for change in [
        Change::Remove {
            owner: binding("one", &[]).credential,
        },
        Change::Put(binding("two", &["10.1.3.0/24", "fd01::/40", "2400::/6"])),
    ] {
        next.change(&change).unwrap();
        pushed.change(change);
    }
    assert_eq!(next.said(&asked), stage(&policy, &pushed).said(&asked));
}

#[test]
fn change_that_finds_no_room_leaves_what_was() {
    let policy = policy();
    let all = all();
    let mut pushed = Pushed::default();
    let mut stage = stage(&policy, &pushed);
    // Each makes the run of its /16 anew, which grows.
    let puts = (0..u16::MAX).map(|n| {
        Change::Put(binding(
            &format!("key-{n}"),
            &[&format!("10.9.{}.{}/29", n / 32, n % 32 * 8)],
        ))
    });
    let mut made = 0u32;
    let mut change = |change: Change| {
        let stop = stage.change(&change).err();
        match &stop {
            None => pushed.change(change),
            Some(stop) => assert_eq!(*stop, Stop::Generation),
        }
        stop.is_none()
    };
    for put in puts {
        if !change(put) {
            break;
        }
        made += 1;
        // Every other is removed again, so that what is left is not all alike.
        let owner = format!("binding/gateway/key-{}", made - 1).into();
        if made.is_multiple_of(2) && !change(Change::Remove { owner }) {
            break;
        }
    }
    assert!((100..8192).contains(&made), "{made}");
    assert_eq!(stage.tables.fill.half_used(), Some(names::RANGES_V4));
    let asked: Vec<IpNet> = (0..made)
        .map(|n| IpNet::from(IpAddr::from([10, 9, (n / 32) as u8, (n % 32 * 8) as u8])))
        .chain(all)
        .collect();
    // Too much to be told.
    assert!(stage.said(&asked) == fresh(&policy, &pushed).said(&asked));
}

/// A grant with these source ports.
pub(super) fn with_ports(ranges: &[(u16, u16)], grantee: Grantee) -> Grantee {
    let range = |(first, last): &(u16, u16)| PortRange {
        first: *first,
        last: *last,
    };
    let terms = Terms {
        source_ports: ranges.iter().map(range).collect(),
        ..Terms::clone(&grantee.terms)
    };
    Grantee {
        terms: Arc::new(terms),
        ..grantee
    }
}

/// One with a set of source ports of its own, of which each number has another.
fn with_own_ports(number: u32) -> Grantee {
    let source = format!("10.{}.{}.9/32", number >> 8, number & 255);
    let port = number as u16 + 3;
    with_ports(
        &[(1, 1), (port, port)],
        binding(&format!("key-{number}"), &[&source]),
    )
}

/// What the table of sets says of itself.
fn port_sets(stage: &super::live_tests::Stage) -> (u64, u64) {
    let mut shown = stage.tables.fill.shown().into_iter();
    let table = shown.find(|table| table.table == names::PORT_SETS).unwrap();
    (table.entries, table.capacity)
}

#[test]
fn sets_of_ports_find_room_in_the_tables_in_force_and_make_room_when_they_go() {
    let policy = policy();
    let before = with_own_ports(5_000);
    let mut stage = stage(&policy, &Pushed::of([before.clone()], []));
    let mut pushed = Pushed::of([before], []);
    let most = u64::from(PORT_SETS_MAX);
    assert_eq!(port_sets(&stage), (1, most));
    let mut made = 1;
    for number in 0..1_000 {
        let put = Change::Put(with_own_ports(number));
        match stage.change(&put) {
            Ok(_) => pushed.change(put),
            Err(stop) => {
                assert_eq!(stop, Stop::Generation);
                break;
            }
        }
        made += 1;
    }
    // Few have asked for any: there is room for 256 more.
    assert_eq!((made, port_sets(&stage)), (257, (257, most)));
    assert_eq!(stage.tables.fill.half_used(), Some(names::PORT_SETS));
    // What is said again takes no room; who says it last, gives it up last.
    let again = with_ports(&[(8, 8), (1, 1)], binding("again", &["10.200.0.1/32"]));
    let gone = |grantee: &Grantee| Change::Remove {
        owner: grantee.credential.clone(),
    };
    let changes = [
        Change::Put(again.clone()),
        gone(&with_own_ports(5)),
        gone(&again),
        Change::Put(with_own_ports(700)),
        // Other ports for one that is there, whose own are free for the next.
        Change::Put(with_ports(&[(1, 2), (9, 9)], with_own_ports(5_000))),
    ];
    let counts = [257, 257, 256, 257];
    for (change, count) in changes[..4].iter().zip(counts) {
        stage.change(change).unwrap();
        assert_eq!(port_sets(&stage).0, count, "{change:?}");
    }
    assert_eq!(
        stage.change(&changes[4]),
        Err(Stop::Generation),
        "old and new at once"
    );
    changes[..4]
        .iter()
        .for_each(|change| pushed.change(change.clone()));
    let leaves = gone(&with_own_ports(6));
    for change in [leaves, changes[4].clone()] {
        stage.change(&change).unwrap();
        pushed.change(change);
    }
    assert_eq!(port_sets(&stage).0, 256);
    assert!(stage.said(&all()) == fresh(&policy, &pushed).said(&all()));
}

#[test]
fn sets_of_ports_beyond_the_bound_are_told_before_anything_is_made() {
    let policy = policy();
    let most = PORT_SETS_MAX - PORT_SETS_KEPT;
    let mut stage = stage(&policy, &Pushed::of((0..most).map(with_own_ports), []));
    let put = |number| Change::Put(with_own_ports(number));
    let gone = |number| Change::Remove {
        owner: with_own_ports(number).credential,
    };
    let kept = Stop::Kept(names::PORT_SETS, most.into());
    assert!(PORT_SETS_FEW < most);
    let fits = |changes: &[Change]| stage.tables.port_sets_fit(&stage.numbers, changes);
    assert_eq!(fits(&[put(most)]), Err(kept.clone()));
    assert_eq!(fits(&[put(most), gone(3)]), Ok(()), "all of it together tells");
    assert_eq!(fits(&[put(3), gone(4)]), Ok(()));
    let beyond: Vec<Change> = (most..=PORT_SETS_MAX).map(put).collect();
    let needed = u64::from(PORT_SETS_MAX) + 1;
    let full = Stop::Full(names::PORT_SETS, needed, PORT_SETS_MAX.into());
    assert_eq!(fits(&beyond), Err(full));
    // One by one, with others between that take no set.
    let alone = Change::Put(binding("alone", &["10.9.0.1/32"]));
    let told = stage
        .tables
        .sift(&stage.numbers, &[put(most), alone, put(most + 1), put(7)]);
    let owner = |number| with_own_ports(number).credential;
    assert_eq!(told, [(owner(most), kept.clone()), (owner(most + 1), kept)]);
}
