//! The drop accounting of the kernel program itself, by test runs: what is dropped or observed is in the records, to
//! the packet, whatever comes and whenever the daemon looks.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_common::account;
use filter_common::bounds::{RECORD_KEYS, RECORDS_MAX};
use filter_common::parse::Family;
use filter_common::records::{Record, Tally};
use filter_common::verdict::{Reason, Verdict};
use filter_user::kernel::records::{Accounting, Epoch};
use filter_user::kernel::state::State;
use keyfence_tests::harness::frames;
use keyfence_tests::oracle::vectors::START_NS;
use keyfence_tests::subject::Subject;

const POLICY: &str = r#"version = 1
[filter]
interfaces = ["eth0"]
non-ip = "drop"
[[service]]
name = "web"
address = ["203.0.113.10", "2001:db8::10"]
protocol = ["tcp", "udp"]
ports = [443]
[[service]]
name = "tried"
address = ["203.0.113.10"]
protocol = "udp"
ports = [53]
mode = "observe"
[[client]]
name = "acme"
sources = ["198.51.100.7"]
services = ["*"]
limit = { packets = { rate = 1, burst = 3 } }
[[deny]]
name = "abuse"
sources = ["10.66.0.0/16"]
"#;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

fn web(source: u32, port: u16) -> Vec<u8> {
    frames::tcp(v4(source), port, SERVER, 443, frames::SYN)
}

fn send(subject: &mut Subject, frame: &[u8]) -> &'static str {
    subject.kernel(frame, START_NS).expect("a test run").reason
}

fn start(subject: &Subject) -> (State, Accounting) {
    let (state, accounting) = subject.counted().expect("a copy with maps of its own");
    assert!(accounting.is_new());
    accounting.begin(1_700_000_000_000_000_000, 0x1234_5678_9abc_def1, 1);
    (state, accounting)
}

/// Ends the epoch and reads it; nothing is noted as written yet.
fn drain(accounting: &Accounting) -> (Epoch, Vec<Record>) {
    accounting.end_epoch(1_700_000_010_000_000_000);
    accounting.quiet().expect("a map of maps can be made");
    let epoch = accounting.pending().expect("packets were dropped");
    (epoch, accounting.read(epoch.number))
}

fn tally(record: &Record) -> (Verdict, Reason, Tally) {
    match record {
        Record::Exact { key, tally, .. } => (key.verdict, key.reason, *tally),
        Record::Overflow {
            verdict,
            reason,
            tally,
            ..
        } => (*verdict, *reason, *tally),
    }
}

/// Packets and bytes by verdict and reason, as records have them.
fn sums<'a>(records: impl IntoIterator<Item = &'a Record>) -> HashMap<(Verdict, Reason), (u64, u64)> {
    let mut sums = HashMap::new();
    for record in records {
        let (verdict, reason, tally) = tally(record);
        let sum: &mut (u64, u64) = sums.entry((verdict, reason)).or_default();
        *sum = (sum.0 + tally.packets, sum.1 + tally.bytes);
    }
    sums
}

/// The same as the counters have them.
fn counted(state: &State) -> HashMap<(Verdict, Reason), (u64, u64)> {
    let mut sums = HashMap::new();
    let mut add = |verdict, reason, service| {
        let count = state.count(account::index(verdict, reason, service));
        let count = count.expect("a counter can be read");
        if verdict != Verdict::Pass && count.packets != 0 {
            let sum: &mut (u64, u64) = sums.entry((verdict, reason)).or_default();
            *sum = (sum.0 + count.packets, sum.1 + count.bytes);
        }
    };
    account::general_reasons().for_each(|(verdict, reason)| add(verdict, reason, u32::MAX));
    for service in 0..4 {
        account::service_reasons().for_each(|(verdict, reason)| add(verdict, reason, service));
    }
    sums
}

fn finish(accounting: &Accounting, epoch: &Epoch, records: &[Record]) {
    let packets = filter_user::kernel::records::packets(records);
    accounting.finish(epoch, records.len() as u64, packets);
}

#[test]
fn every_kind_of_drop_has_its_record() {
    let mut subject = Subject::recording(POLICY, &[], START_NS).unwrap_or_else(|error| panic!("{error}"));
    let (state, accounting) = start(&subject);
    let stranger: IpAddr = "2001:db8:bad::1".parse().unwrap();
    let server: IpAddr = "2001:db8::10".parse().unwrap();
    assert_eq!(send(&mut subject, &web(0x0a01_0203, 1000)), "unlisted");
    assert_eq!(send(&mut subject, &web(0x0a01_0203, 1001)), "unlisted");
    let udp = frames::udp(v4(0x0a01_0203), 9, SERVER, 53, b"question");
    assert_eq!(send(&mut subject, &udp), "unlisted");
    assert_eq!(send(&mut subject, &web(0x0a42_0001, 7)), "denied");
    let six = frames::tcp(stranger, 5, server, 443, frames::SYN);
    assert_eq!(send(&mut subject, &six), "unlisted");
    for _ in 0..5 {
        send(&mut subject, &web(0xc633_6407, 40_000));
    }
    // A broken packet and what is no IP at all say nothing of the packets before them.
    assert_eq!(
        send(&mut subject, &frames::ethernet(frames::IPV4, &[0x46; 40])),
        "malformed"
    );
    assert_eq!(send(&mut subject, &frames::ethernet(0x8847, &[0; 46])), "non-ip");
    let (epoch, records) = drain(&accounting);
    assert_eq!(sums(&records), counted(&state));
    assert_eq!(records.len(), 7, "{records:#?}");
    let exact = |wanted| {
        let mut found = records.iter().filter_map(|record| match record {
            Record::Exact { key, tally, ports } if key.reason == wanted => Some((*key, *tally, *ports)),
            _ => None,
        });
        found.next().expect("a record of this reason")
    };
    let (key, tally, _) = exact(Reason::LimitGrant);
    assert_eq!(tally.packets, 2);
    assert_eq!(subject.owners()[&key.owner], "client/acme");
    assert_eq!(subject.services()[&key.service], "web");
    let (key, ..) = exact(Reason::Denied);
    assert_eq!((key.family, key.source.v4()), (Some(Family::V4), 0x0a42_0001));
    let (key, ..) = exact(Reason::NonIp);
    assert_eq!((key.family, key.destination_port, key.protocol), (None, 0, 0));
    assert_eq!(exact(Reason::Malformed).0.family, None);
    let unlisted: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Exact { key, tally, ports } if key.reason == Reason::Unlisted => Some((
                key.verdict,
                key.family,
                key.destination_port,
                tally.packets,
                ports.same,
            )),
            _ => None,
        })
        .collect();
    assert!(
        unlisted.contains(&(Verdict::Drop, Some(Family::V4), 443, 2, false)),
        "{unlisted:?}"
    );
    assert!(
        unlisted.contains(&(Verdict::Observe, Some(Family::V4), 53, 1, true)),
        "{unlisted:?}"
    );
    assert!(
        unlisted.contains(&(Verdict::Drop, Some(Family::V6), 443, 1, true)),
        "{unlisted:?}"
    );
    finish(&accounting, &epoch, &records);
    assert_eq!(accounting.pending(), None);
    accounting.end_epoch(1_700_000_020_000_000_000);
    assert_eq!(accounting.pending(), None, "nothing was dropped since");
}

#[test]
fn as_many_keys_as_are_promised_are_each_exact() {
    let mut subject = Subject::recording(POLICY, &[], START_NS).unwrap_or_else(|error| panic!("{error}"));
    let (state, accounting) = start(&subject);
    for round in 0..2 {
        for number in 0..RECORD_KEYS {
            send(&mut subject, &web(0x0b00_0000 + number, round));
        }
    }
    let (_, records) = drain(&accounting);
    assert_eq!(records.len(), RECORD_KEYS as usize);
    let exact = |record: &Record| matches!(record, Record::Exact { tally, .. } if tally.packets == 2);
    assert!(records.iter().all(exact));
    assert_eq!(sums(&records), counted(&state));
}

/// Killed at any step, what the next daemon reads is the same once more, until it has been noted as written.
#[test]
fn a_flood_is_in_the_records_to_the_packet_over_kills_of_the_daemon() {
    let mut subject = Subject::recording(POLICY, &[], START_NS).unwrap_or_else(|error| panic!("{error}"));
    let (state, mut accounting) = start(&subject);
    let mut all = Vec::new();
    let mut sequence = 1;
    for part in 0..6u32 {
        for number in 0..50_000u32 {
            let source = (part * 50_000 + number).wrapping_mul(0x9e37_79b1);
            let frame = match number % 5 {
                0 => frames::udp(v4(source), 9, SERVER, 53, b"question"),
                1 => {
                    let six =
                        Ipv6Addr::from(u128::from(source) << 90 | 0x2000_u128 << 112 | u128::from(source));
                    let server = "2001:db8::10".parse().unwrap();
                    frames::udp(six.into(), 9, server, 443, b"six")
                }
                _ => web(source, number as u16),
            };
            send(&mut subject, &frame);
        }
        let (epoch, records) = drain(&accounting);
        assert!(records.len() <= RECORDS_MAX as usize);
        assert_eq!(epoch.first_sequence, sequence);
        // Killed while it writes: the next one finds the same.
        drop(accounting);
        let (_, next) = subject.counted().expect("the maps are still there");
        assert!(!next.is_new());
        let again = next.pending().expect("the epoch is not written yet");
        next.quiet().expect("a map of maps can be made");
        assert_eq!((again, next.read(again.number)), (epoch, records.clone()));
        sequence += records.len() as u64;
        finish(&next, &epoch, &records);
        all.extend(records);
        let (written, first) = next.written();
        assert_eq!(
            (written.iter().sum::<u64>(), first),
            (u64::from(part + 1) * 50_000, sequence)
        );
        accounting = next;
    }
    assert_eq!(sums(&all), counted(&state));
    assert!(
        all.iter()
            .any(|record| matches!(record, Record::Overflow { prefix: Some(_), .. }))
    );
}
