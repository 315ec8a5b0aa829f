//! The drop log of a real daemon: every packet that was dropped or observed is in it once, whatever becomes of the
//! daemon, the disk and the file; and a log that somebody touched shows it.

mod hidden;
mod rotation;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use keyfence_tests::harness::drops::{
    SERVICES, assert_in_order, caught_up, counted, lines, records, sums, verify,
};
use keyfence_tests::harness::frames::{self, SYN};
use keyfence_tests::harness::{
    Attach, Daemon, LISTED, Policy, SERVER, STRANGER, Site, Tiny, Wire, keyfence, output, until,
};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::Value;

const ENTRIES: &str = r#"
[[client]]
name = "acme"
sources = ["10.77.0.2"]
services = ["*"]
limit = { packets = { rate = "1/h", burst = 1 } }
[[deny]]
name = "abuse"
sources = ["10.66.0.0/16"]
"#;

fn policy() -> Policy {
    Policy::new(Attach::Auto, SERVICES).and(ENTRIES)
}

fn source(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a0a_0000 + number).into()
}

const SERVER4: IpAddr = IpAddr::V4(SERVER.v4);

/// Of so many sources, for three reasons.
fn flood(wire: &mut Wire, first: u32, count: u32) {
    for number in first..first + count {
        let frame = match number % 4 {
            0 => frames::udp(source(number), 9, SERVER4, 7001, b"tried"),
            1 => frames::tcp(Ipv4Addr::from(0x0a42_0000 + number).into(), 9, SERVER4, 7000, SYN),
            _ => frames::tcp(source(number), number as u16, SERVER4, 7000, SYN),
        };
        wire.send(&frame);
    }
}

#[test]
fn records_add_up_to_the_counters_over_kills_and_restarts() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut wire = Wire::open(&site);
    flood(&mut wire, 0, 3000);
    // In the midst of an interval, then of a write, then while nobody is there.
    daemon.kill();
    flood(&mut wire, 2000, 4000);
    let daemon = Daemon::start_again(&site);
    flood(&mut wire, 0, 500);
    until("something is written", || {
        (!records(&site.drops()).is_empty()).then_some(())
    });
    daemon.kill();
    flood(&mut wire, 9000, 1000);
    let daemon = Daemon::start_again(&site);
    flood(&mut wire, 0, 100);
    assert!(daemon.end(Signal::SIGTERM).success());
    let found = records(&site.drops());
    assert_eq!(sums(&found), counted(&site.counters()));
    assert_eq!(sums(&found).iter().sum::<u64>(), 8600);
    assert_in_order(&found);
    assert!(found.iter().all(|record| record["keyfence"]["kind"] == "record"));
    let last = lines(&site.drops()).pop().expect("a checkpoint at the stop");
    let own = &last["keyfence"];
    assert_eq!(own["kind"], "checkpoint");
    assert_eq!(own["counters"], own["sums"]);
    let (code, verified) = verify(&[&site.drops()]);
    assert_eq!(
        (code, &verified["packets"], &verified["unvouched"]),
        (Some(0), &8600.into(), &0.into())
    );
}

/// More sources than the table has lines, the daemon killed in between, all in one interval.
#[test]
fn flood_is_in_the_log_to_the_packet() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy().and("[records]\ninterval = \"10m\"\n"));
    let mut wire = Wire::open(&site);
    flood(&mut wire, 0, 40_000);
    daemon.kill();
    flood(&mut wire, 30_000, 35_000);
    let daemon = Daemon::start_again(&site);
    flood(&mut wire, 20_000, 30_000);
    assert!(daemon.end(Signal::SIGTERM).success());
    let found = records(&site.drops());
    assert_eq!(sums(&found), counted(&site.counters()));
    assert_in_order(&found);
    let overflow: Vec<&Value> = found
        .iter()
        .filter(|record| record["keyfence"]["kind"] == "overflow")
        .collect();
    // The sources are of two networks, and dropped or observed for three reasons.
    assert!((1..=8).contains(&overflow.len()), "{overflow:?}");
    let networks = ["10.10.0.0/16", "10.11.0.0/16", "10.66.0.0/16"];
    let of_network = |record: &&Value| {
        networks
            .iter()
            .any(|network| record["source"]["address"] == *network)
    };
    assert!(overflow.iter().all(of_network), "{overflow:?}");
    assert!(found.len() > 16_384 && found.len() <= 65_536);
    assert_eq!(verify(&[&site.drops()]).0, Some(0));
}

#[test]
fn record_says_who_was_dropped_where_and_why() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut wire = Wire::open(&site);
    let listed = IpAddr::V4(LISTED.v4);
    for port in [1000, 1000, 1001] {
        wire.send(&frames::tcp(IpAddr::V4(STRANGER.v4), port, SERVER4, 7000, SYN));
    }
    wire.send(&frames::udp(
        IpAddr::V6(STRANGER.v6),
        5,
        IpAddr::V6(SERVER.v6),
        7001,
        b"six",
    ));
    wire.send(&frames::udp(listed, 5, SERVER4, 7000, b"first"));
    wire.send(&frames::udp(listed, 5, SERVER4, 7000, b"second"));
    wire.send(&frames::ethernet(frames::IPV4, &[0x45; 10]));
    let answer = until("the daemon tells of all", || {
        let answer = daemon.get("/v1/drops")?;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        (answer["matched"]["records"] == 4).then_some(answer)
    });
    let of = |reason: &str| {
        let records = answer["records"].as_array().expect("an array");
        let found = records
            .iter()
            .find(|record| record["event"]["reason"] == reason && record["keyfence"]["verdict"] == "drop");
        found
            .unwrap_or_else(|| panic!("{reason} is not in {answer}"))
            .clone()
    };
    let unlisted = of("unlisted");
    assert_eq!(unlisted["source"]["ip"], STRANGER.v4.to_string());
    assert_eq!(unlisted["source"]["port"], Value::Null);
    assert_eq!(unlisted["destination"]["ip"], SERVER.v4.to_string());
    assert_eq!(unlisted["destination"]["port"], 7000);
    assert_eq!(unlisted["network"]["transport"], "tcp");
    assert_eq!(unlisted["network"]["type"], "ipv4");
    assert_eq!(unlisted["network"]["packets"], 3);
    assert_eq!(unlisted["network"]["bytes"], 120);
    assert_eq!(unlisted["observer"]["ingress"]["interface"]["name"], "srv0");
    assert_eq!(unlisted["rule"]["name"], "api");
    assert_eq!(unlisted["event"]["action"], "dropped");
    let own = &unlisted["keyfence"];
    assert_eq!(
        (&own["source_port_first"], &own["source_port_last"]),
        (&1000.into(), &1001.into())
    );
    assert_eq!(
        (&own["source_ports_min"], &own["tcp_flags"]),
        (&2.into(), &2.into())
    );
    let limited = of("limit-grant");
    assert_eq!(limited["keyfence"]["owner"], "client/acme");
    assert_eq!(limited["source"]["port"], 5);
    let malformed = of("malformed");
    assert_eq!(
        (&malformed["source"], &malformed["rule"]),
        (&Value::Null, &Value::Null)
    );
    let mut records = answer["records"].as_array().expect("an array").iter();
    let observed = records.find(|record| record["event"]["action"] == "observed");
    assert_eq!(
        observed.expect("it was observed")["source"]["ip"],
        STRANGER.v6.to_string()
    );
    is_told_in_every_way(&site, &daemon);
}

fn is_told_in_every_way(site: &Site, daemon: &Daemon) {
    let why = daemon
        .get(&format!("/v1/why?address={}", STRANGER.v4))
        .expect("an answer");
    let why: Value = serde_json::from_str(&why.body).expect("JSON");
    assert_eq!(why["drops"]["unlisted"], 3);

    let socket = site.socket();
    let ask = |arguments: &[&str]| {
        let output = output(keyfence().args(arguments).arg("--socket").arg(&socket));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = ask(&["drops", "--reason", "unlisted", "--since", "1h"]);
    assert!(
        shown.contains("10.77.0.1:7000/tcp") && shown.contains("2 records"),
        "{shown}"
    );
    let top: Value =
        serde_json::from_str(&ask(&["drops", "--top", "1", "--json", "--service", "api"])).expect("JSON");
    assert_eq!(top["top"][0]["source"], STRANGER.v4.to_string());
    let learned = ask(&["learn", "--since", "24h", "--service", "api"]);
    assert!(
        learned.contains("[[client]]") && learned.contains(&STRANGER.v4.to_string()),
        "{learned}"
    );
    let status = daemon.status();
    let table = status["tables"]
        .as_array()
        .expect("an array")
        .iter()
        .find(|table| table["table"] == "RECORDS");
    assert_eq!(table.expect("its size is in the status")["capacity"], 16_384);
    assert_eq!(daemon.metric("keyfence_records_lost_total{sink=\"file-0\"}"), 0.0);
}

/// Nobody is left to write what the kernel has counted: the command does, to the packet.
#[test]
fn detach_without_a_daemon_writes_what_nobody_had() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy().and("[records]\ninterval = \"10m\"\n"));
    let mut wire = Wire::open(&site);
    flood(&mut wire, 0, 400);
    daemon.kill();
    flood(&mut wire, 200, 300);
    let counted = counted(&site.counters());
    let mut detach = keyfence();
    detach
        .args(["detach", "--yes", "--policy"])
        .arg(site.policy_file());
    let detached = output(detach.arg("--bpf-fs").arg(site.bpf.path()));
    let said = String::from_utf8_lossy(&detached.stderr);
    assert!(
        detached.status.success() && said.contains("recorded what nobody had: 700 packets"),
        "{said}"
    );
    let found = records(&site.drops());
    assert_eq!((sums(&found), counted.iter().sum::<u64>()), (counted, 700));
    assert_in_order(&found);
    assert!(
        found.iter().any(|record| record["rule"]["name"] == "api"),
        "{found:?}"
    );
    let (code, verified) = verify(&[&site.drops()]);
    assert_eq!((code, &verified["unvouched"]), (Some(0), &0.into()));
}

#[test]
fn log_that_somebody_touched_does_not_match() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    flood(&mut Wire::open(&site), 0, 40);
    caught_up(&site, &[&site.drops()]);
    daemon.end(Signal::SIGTERM);
    let text = fs::read_to_string(site.drops()).expect("there is a log");
    let lines: Vec<&str> = text.lines().collect();
    let count = lines.len();
    assert!(count > 40, "{text}");
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        change(&mut lines);
        let path = site.folder().join("changed.jsonl");
        fs::write(&path, lines.concat()).expect("a temporary folder can be written");
        verify(&[&path])
    };
    assert_eq!(changed(&|_| {}).0, Some(0));
    assert_eq!(
        changed(&|lines| lines[3] = lines[3].replace("\"bytes\":", "\"bytes\":1")).0,
        Some(6)
    );
    assert_eq!(changed(&|lines| drop(lines.remove(5))).0, Some(6));
    assert_eq!(changed(&|lines| lines.swap(7, 8)).0, Some(6));
    assert_eq!(changed(&|lines| lines.insert(4, lines[4].clone())).0, Some(6));
    assert_eq!(changed(&|lines| lines[2] = "\n".to_owned()).0, Some(6));
    assert_eq!(
        changed(&|lines| lines[count - 1] =
            lines[count - 1].replace("\"sums\":{\"drop\":3", "\"sums\":{\"drop\":4"))
        .0,
        Some(6)
    );
    // What a kill tore is no fault; the daemon writes the line again.
    let (code, torn) = changed(&|lines| {
        let half = lines[count - 2][..50].to_owned();
        lines.truncate(count - 2);
        lines.push(half);
    });
    assert_eq!((code, &torn["torn_bytes"]), (Some(0), &50.into()));
}

#[test]
fn full_disk_loses_no_count_and_no_daemon() {
    let site = Site::new();
    let disk = Tiny::mount(site.folder().join("disk"), "64k");
    let log = disk.path().join("drops.jsonl");
    let sink = format!("[[sink]]\npath = \"{}\"\n", log.display());
    let daemon = Daemon::start(&site, &policy().and(&sink));
    let mut wire = Wire::open(&site);
    flood(&mut wire, 0, 1000);
    until("the disk is full", || {
        daemon.log().contains("takes no records").then_some(())
    });
    flood(&mut wire, 500, 1000);
    assert_eq!(daemon.get("/livez").map(|answer| answer.status), Some(200));
    assert_eq!(daemon.metric("keyfence_records_waiting{sink=\"file-0\"}"), 1.0);
    let ready = || daemon.get("/readyz").expect("the daemon answers");
    assert!(ready().body.contains("records wait for the sink file-0"));
    assert_eq!(ready().status, 503);
    let whole = records(&log);
    assert!(sums(&whole).iter().sum::<u64>() < 2000);
    mount(
        Some("tmpfs"),
        disk.path(),
        Some("tmpfs"),
        MsFlags::MS_REMOUNT,
        Some("size=16m"),
    )
    .expect("root can mount");
    let found = caught_up(&site, &[&log]);
    assert_in_order(&found);
    until("the daemon is ready", || (ready().status == 200).then_some(()));
    assert!(daemon.end(Signal::SIGTERM).success());
    assert_eq!(verify(&[&log]).0, Some(0));
}
