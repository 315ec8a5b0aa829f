//! Changes that the tables in force have no part or no room for, in real maps: they leave what was, and are a generation's.

use std::net::IpAddr;

use filter_common::abi::names;
use ipnet::IpNet;

use super::live::Stop;
use super::live_tests::{all, binding, policy, policy_from, stage, stage as fresh};
use crate::bindings::seam::Change;
use crate::compiler::Pushed;
use crate::policy::Policy;

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
