//! What packets and read-backs see of tables in force while entries are changed, in real maps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use filter_common::abi::{RunContext, names, run_flags};
use filter_common::verdict::Verdict;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::live_tests::{Stage, binding, change, policy, stage, with_services};
use crate::bindings::seam::{Change, Grantee, Terms};
use crate::compiler::Pushed;
use crate::judge::frame::{Flow, build};
use crate::kernel::load::Generation;
use crate::kernel::run::Runner;
use crate::kernel::written::{Place, ReadBack};
use crate::policy::model::{ExpectProtocol, Limit, Limits, PortRange};

fn grantee(services: &[&str], ports: (u16, u16), packets: Option<u64>) -> Grantee {
    let limit = |burst| Limit {
        rate: 1,
        per_seconds: 3600,
        burst,
    };
    Grantee {
        credential: "binding/gateway/key-1".into(),
        sources: ["192.0.2.1/32", "192.0.2.7/32"]
            .map(|net| net.parse().unwrap())
            .into(),
        terms: Arc::new(Terms {
            publisher: "gateway".into(),
            services: services.iter().map(|name| (*name).into()).collect(),
            source_ports: [PortRange {
                first: ports.0,
                last: ports.1,
            }]
            .into(),
            limit: Limits {
                packets: packets.map(limit),
                ..Limits::default()
            },
        }),
        end: u64::MAX,
    }
}

/// A packet to service `a`.
fn packet(from: &str, port: u16) -> Vec<u8> {
    packet_to("203.0.113.10", from, port)
}

fn packet_v6(from: &str, port: u16) -> Vec<u8> {
    packet_to("2001:db8:ffff::10", from, port)
}

fn packet_to(to: &str, from: &str, port: u16) -> Vec<u8> {
    let flow = Flow {
        from: (from.parse().unwrap(), port),
        to: (to.parse().unwrap(), 443),
        protocol: ExpectProtocol::Tcp,
    };
    build(&flow).unwrap()
}

/// Judges frames in turn until told to stop; how many passed.
fn judged(generation: &mut Generation, frames: &[Vec<u8>], stop: &AtomicBool, all: &AtomicU64) -> u64 {
    let mut runner = Runner::default();
    let judge = generation.program(names::JUDGE).unwrap();
    let context = RunContext {
        flags: run_flags::NO_SOCKETS,
        ..RunContext::default()
    };
    let mut passed = 0;
    for frame in frames.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let judgement = runner.judge(judge, frame, context).unwrap();
        passed += u64::from(judgement.verdict == Verdict::Pass);
        all.fetch_add(1, Ordering::Relaxed);
    }
    passed
}

/// Makes changes over and over, each of which is to succeed, while packets are judged on another CPU; how many there
/// were, and how many of them passed.
fn judged_while(pushed: &Pushed, changes: &[Change], frames: &[Vec<u8>], rounds: u32) -> (u64, u64) {
    let Stage {
        mut tables,
        state,
        numbers,
    } = stage(&policy(), pushed);
    let other = stage(&policy(), pushed).tables.generation;
    let mut generation = std::mem::replace(&mut tables.generation, other);
    let (stop, all) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let judging = scope.spawn(|| judged(&mut generation, frames, &stop, &all));
        let mut made = 0;
        while made < rounds || all.load(Ordering::Relaxed) < 10_000 {
            for change in changes {
                tables.change(&numbers, &state, change.clone()).unwrap();
            }
            made += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let passed = judging.join().unwrap();
        (all.load(Ordering::Relaxed), passed)
    })
}

#[test]
fn source_whose_prefixes_change_owners_is_listed_all_the_time() {
    let put = |name, sources: &[&str]| Change::Put(with_services(["a"], binding(name, sources)));
    let remove = |name| Change::Remove {
        owner: binding(name, &[]).credential,
    };
    // From one prefix to a longer, a shorter, one around the other, and back; always one more before one less.
    let changes = [
        put("one", &["192.0.2.0/24", "2400:5::/64"]),
        put("one", &["192.0.2.1/32", "2400:5::1/128"]),
        put("two", &["192.0.0.0/14", "2400:5::/40"]),
        remove("one"),
        put("one", &["192.0.2.0/25", "2400:5::/96"]),
        put(
            "two",
            &["192.0.2.0/30", "192.0.0.0/15", "2400:5::/48", "2400::/20"],
        ),
        remove("one"),
        put("two", &["192.0.2.0/23", "2400:5::/63"]),
        put("one", &["192.0.2.0/24", "2400:5::/64"]),
        remove("two"),
    ];
    let frames = [packet("192.0.2.1", 250), packet_v6("2400:5::1", 250)];
    let mut pushed = Pushed::default();
    pushed.change(changes[0].clone());
    let (all, passed) = judged_while(&pushed, &changes, &frames, 200);
    assert_eq!(passed, all);
}

#[test]
fn source_whose_denies_change_is_denied_all_the_time() {
    let deny = |name: &str, sources: &[&str]| Change::Deny {
        name: name.to_owned(),
        sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
        end: u64::MAX,
    };
    let undeny = |name: &str| Change::Undeny {
        name: name.to_owned(),
    };
    let changes = [
        deny("one", &["192.0.2.0/24", "2400:5::/64"]),
        deny("two", &["192.0.2.1/32", "2400:5::1/128"]),
        deny("one", &["192.0.0.0/15", "2400:5::/36"]),
        undeny("two"),
        deny("two", &["192.0.2.0/31", "2400:5::/127"]),
        undeny("one"),
        deny("one", &["192.0.2.0/24", "2400:5::/64"]),
        undeny("two"),
    ];
    let frames = [packet("192.0.2.1", 250), packet_v6("2400:5::1", 250)];
    let all = ["192.0.2.1/32", "192.0.2.0/24", "2400:5::/64", "2400:5::1/128"];
    let granted = with_services(["a"], binding("all", &all));
    let mut pushed = Pushed::of([granted], []);
    pushed.change(changes[0].clone());
    let (all, passed) = judged_while(&pushed, &changes, &frames, 200);
    assert_eq!((passed, all >= 10_000), (0, true));
}

/// Puts one after the other in force while packets are judged on another CPU; how many of them passed.
fn passed_while(puts: [Grantee; 2], frames: &[Vec<u8>], packets: u64) -> u64 {
    let pushed = Pushed::of([puts[0].clone()], []);
    let Stage {
        mut tables,
        state,
        numbers,
    } = stage(&policy(), &pushed);
    // Changes need its maps alone.
    let other = stage(&policy(), &pushed).tables.generation;
    let mut generation = std::mem::replace(&mut tables.generation, other);
    let (stop, all) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let judging = scope.spawn(|| judged(&mut generation, frames, &stop, &all));
        for put in puts.iter().cycle().skip(1) {
            // Numbers run out before packets do: the next generation has more.
            if tables.change(&numbers, &state, Change::Put(put.clone())).is_err() {
                break;
            }
        }
        while all.load(Ordering::Relaxed) < packets {
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        judging.join().unwrap()
    })
}

#[test]
fn packet_sees_an_owners_terms_as_they_were_or_as_they_are() {
    // The one has the service without the port, the other the port without the service.
    let puts = [grantee(&["a"], (1, 100), None), grantee(&["b"], (200, 300), None)];
    let frames = [packet("192.0.2.1", 250), packet("192.0.2.7", 250)];
    assert_eq!(passed_while(puts, &frames, 1), 0, "a mixture of both lets it in");
}

#[test]
fn changed_terms_keep_the_bucket_to_the_packet() {
    const BURST: u64 = 2000;
    let puts = [
        grantee(&["a"], (1, 300), Some(BURST)),
        grantee(&["a"], (200, 400), Some(BURST)),
    ];
    let frames = [packet("192.0.2.1", 250), packet("192.0.2.7", 250)];
    assert_eq!(passed_while(puts, &frames, 4 * BURST), BURST);
}

fn differing(tables: &ReadBack) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut place = Some(Place::default());
    while let Some(from) = place {
        place = tables.step(from, 4096, |table| found.push(table));
    }
    found
}

#[test]
fn read_back_finds_a_foreign_hand_and_never_a_change_of_ours() {
    let policy = policy();
    let mut stage = stage(&policy, &Pushed::default());
    let read_back = ReadBack::of(&stage.tables.generation).unwrap();
    let mut runner = TestRunner::deterministic();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut found = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                found.extend(differing(&read_back));
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            found
        });
        let mut changes = 0;
        while changes < 3000 || rounds.load(Ordering::Relaxed) < 3 {
            let change = change().new_tree(&mut runner).unwrap().current();
            // What finds no room is none.
            let _ = stage.change(&change);
            changes += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(reading.join().unwrap(), [""; 0]);
    });
    let owners = [(1, filter_common::abi::Owner::default())];
    stage.tables.generation.write_owners(&owners).unwrap();
    assert_eq!(differing(&read_back), [names::OWNERS]);
}
