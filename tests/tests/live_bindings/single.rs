//! One binding: listed by a PUT, cut by a DELETE, ended by the kernel.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{PATIENCE, SERVER, STRANGER, connect, until};
use serde_json::{Value, json};

use super::stage::{STRANGER4, STREAM_PORT, Stage, binding, policy};

const STRANGER6: IpAddr = IpAddr::V6(STRANGER.v6);
/// How late a lease may end: two ticks of the slowest clock that kernels are built with, and one turn of a loaded
/// machine's scheduler.
const LATE_MAX: Duration = Duration::from_millis(20 + 250);

#[test]
fn stranger_is_listed_by_one_put_and_cut_by_one_delete() {
    let mut stage = Stage::new();
    for (source, prefixes) in [
        (STRANGER4, &["10.77.0.66", "10.77.0.0/24"][..]),
        (STRANGER6, &["fd77::42", "fd77::/64"][..]),
    ] {
        assert!(!stage.passes(source), "{source} is a stranger");
        for prefix in prefixes {
            stage.bind("key-1", &[prefix]);
            assert!(stage.passes(source), "{source} as {prefix}");
            stage.unbind("key-1");
            assert!(!stage.passes(source), "{source} as {prefix}");
        }
    }
    let counts = stage.site.counters();
    assert_eq!(
        counts.packets("api", Verdict::Drop, Reason::Unlisted),
        6,
        "{counts:?}"
    );
    assert_eq!(counts.packets("", Verdict::Drop, Reason::Internal), 0);
}

#[test]
fn bindings_and_denies_make_no_generation() {
    let stage = Stage::new();
    let before = stage.daemon().generation();
    stage.bind("key-1", &["10.77.0.66", "fd77::42"]);
    stage.bind("key-1", &["10.77.0.66"]);
    stage.bind("key-2", &["10.77.0.66"]);
    stage.unbind("key-1");
    stage.unbind("key-2");
    stage.bind("key-3", &["10.77.9.0/24", "fd77:0:0:9::/64", "fd77:0:9::/48"]);
    stage.bind("key-3", &["10.77.9.128/25"]);
    let deny = json!({ "sources": ["10.77.9.0/24", "fd77:0:9::/48"], "reason": "a test" });
    stage.done("PUT", "/v1/denies/wide", &deny);
    stage.done("DELETE", "/v1/denies/wide", &Value::Null);
    stage.unbind("key-3");
    assert_eq!(stage.daemon().generation(), before);
}

#[test]
fn room_for_prefixes_is_made_before_there_is_none() {
    let stage = Stage::new();
    let before = stage.daemon().generation();
    // Each makes the ranges of its /16 anew, and there are more of them each time.
    for n in 0..260 {
        let source = format!("10.9.{}.{}/29", n / 32, n % 32 * 8);
        stage.bind(&format!("key-{n}"), &[&source]);
    }
    until("tables with more room are in force", || {
        (stage.daemon().generation() > before).then_some(())
    });
}

#[test]
fn put_of_other_sources_moves_the_grant() {
    let mut stage = Stage::new();
    let other: IpAddr = [10, 77, 0, 99].into();
    stage.settle(other);
    stage.bind("key-1", &["10.77.0.66"]);
    assert_eq!(stage.passing(&[STRANGER4, other], 9000), [true, false]);
    stage.bind("key-1", &["10.77.0.99"]);
    assert_eq!(stage.passing(&[STRANGER4, other], 9000), [false, true]);
    stage.bind("key-1", &["10.77.0.64/26"]);
    assert_eq!(stage.passing(&[STRANGER4, other], 9000), [true, true]);
    stage.bind("key-1", &["10.77.0.66"]);
    assert_eq!(stage.passing(&[STRANGER4, other], 9000), [true, false]);
}

#[test]
fn delete_cuts_an_open_connection() {
    let stage = Stage::new();
    let to = SocketAddr::new(SERVER.v4.into(), STREAM_PORT);
    let listener = stage
        .site
        .server
        .inside(|| TcpListener::bind(to))
        .expect("the port is free");
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("one connects");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time can be set");
        let mut line = [0; 5];
        stream.read_exact(&mut line).expect("the first line arrives");
        stream.write_all(&line).expect("it is answered");
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .expect("a time can be set");
        stream.read(&mut line).map_err(|error| error.kind())
    });
    let mut body = binding(&["10.77.0.66"]);
    body["services"] = json!(["stream"]);
    stage.put("key-1", &body);
    let mut stream = connect(&stage.site.outside, STRANGER4, to, PATIENCE).expect("it is listed");
    let mut answer = [0; 5];
    stream.write_all(b"first").expect("the connection is open");
    stream.read_exact(&mut answer).expect("it is answered");
    assert_eq!(&answer, b"first");
    stage.unbind("key-1");
    stream.write_all(b"later").expect("the kernel buffers it");
    let heard = echo.join().expect("the echo ends");
    assert!(heard.is_err(), "after the DELETE {heard:?} arrived");
    let dropped = stage
        .site
        .counters()
        .packets("stream", Verdict::Drop, Reason::Unlisted);
    assert!(dropped > 0);
}

/// Sends until a packet is dropped; when that was.
fn ends(stage: &mut Stage, source: IpAddr) -> Instant {
    until("the lease ends", || (!stage.passes(source)).then(Instant::now))
}

#[test]
fn lease_ends_on_time_with_the_daemon_killed() {
    let mut stage = Stage::new();
    let mut body = binding(&["10.77.0.66", "fd77::/64"]);
    body["lease_seconds"] = json!(2);
    let asked = Instant::now();
    stage.put("key-1", &body);
    let answered = Instant::now();
    stage.kill();
    assert!(stage.passes(STRANGER4) && stage.passes(STRANGER6));
    let ended = ends(&mut stage, STRANGER4);
    let lease = Duration::from_secs(2);
    assert!(ended >= asked + lease, "{:?} early", asked + lease - ended);
    assert!(
        ended <= answered + lease + LATE_MAX,
        "{:?} late",
        ended - answered - lease
    );
    assert!(!stage.passes(STRANGER6));
    let counts = stage.site.counters();
    assert!(
        counts.packets("api", Verdict::Drop, Reason::Ended) > 0,
        "{counts:?}"
    );
    // Ended it stays, and a PUT brings it back.
    stage.start_again();
    assert!(!stage.passes(STRANGER4));
    until("its end is told", || {
        (stage.state("key-1") == "ended").then_some(())
    });
    stage.put("key-1", &body);
    assert!(stage.passes(STRANGER4) && stage.passes(STRANGER6));
}

#[test]
fn renewal_makes_a_lease_last() {
    let mut stage = Stage::new();
    let mut body = binding(&["10.77.0.66"]);
    body["lease_seconds"] = json!(1);
    let first = stage.put("key-1", &body);
    let put = Instant::now();
    body["lease_seconds"] = json!(3);
    let renewed = stage.put("key-1", &body);
    assert_eq!(first["etag"], renewed["etag"], "a renewal is no new content");
    let ended = ends(&mut stage, STRANGER4);
    assert!(ended - put >= Duration::from_secs(3), "{:?}", ended - put);
    until("its end is told", || {
        (stage.state("key-1") == "ended").then_some(())
    });
    // Over its end, by the same PUT.
    stage.put("key-1", &body);
    assert!(stage.passes(STRANGER4));
}

#[test]
fn renewal_after_a_restart_past_the_end_is_in_force() {
    let mut stage = Stage::new();
    let mut body = binding(&["10.77.0.66"]);
    for _ in 0..5 {
        body["lease_seconds"] = json!(1);
        stage.put("key-1", &body);
        stage.kill();
        ends(&mut stage, STRANGER4);
        // The first that the daemon hears is the renewal, before it has told of the end.
        stage.daemon = Some(keyfence_tests::harness::Daemon::start_unready(&stage.site));
        body["lease_seconds"] = json!(600);
        until("the daemon takes it", || {
            let answer = stage.daemon().ask("PUT", "/v1/bindings/key-1", &body)?;
            (answer.status == 200).then_some(())
        });
        assert!(stage.passes(STRANGER4));
    }
}

#[test]
fn authorize_answers_as_the_kernel_judges() {
    let mut stage = Stage::with(&policy());
    // The fingerprint of `secret-1`.
    let credential = "sha256:f7e7c36e458e80e6b6a2c67d0a9ec09bd718dadd7bfa8d6bf6e7ad526e46c2f7";
    let other: IpAddr = [10, 77, 0, 99].into();
    stage.settle(other);
    stage.bind(credential, &["10.77.0.66"]);
    stage.bind("key-2", &["10.77.0.99"]);
    let asked = |stage: &Stage, key: &str, address: IpAddr| {
        let headers = format!("X-Api-Key: {key}\r\nKeyfence-Client-Address: {address}\r\n");
        let answer = stage.daemon().ask_with("GET", "/v1/authorize/api", &headers);
        answer.expect("the daemon answers").status
    };
    assert!(stage.passes(STRANGER4));
    assert_eq!(asked(&stage, "secret-1", STRANGER4), 200);
    // The kernel knows no keys: another's address passes there, and is refused here.
    assert!(stage.passes(other));
    assert_eq!(asked(&stage, "secret-1", other), 403);
    assert_eq!(asked(&stage, "secret-2", STRANGER4), 401);
    let deny = json!({ "sources": ["10.77.0.66"], "seconds": 600, "reason": "a test" });
    stage.done("PUT", "/v1/denies/abuse", &deny);
    assert!(!stage.passes(STRANGER4));
    assert_eq!(asked(&stage, "secret-1", STRANGER4), 403);
    stage.done("DELETE", "/v1/denies/abuse", &Value::Null);
    assert!(stage.passes(STRANGER4));
    assert_eq!(asked(&stage, "secret-1", STRANGER4), 200);
    stage.unbind(credential);
    assert!(!stage.passes(STRANGER4));
    assert_eq!(asked(&stage, "secret-1", STRANGER4), 401);
}
