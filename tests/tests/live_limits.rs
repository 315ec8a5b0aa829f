//! A listed client who asks for more than its limit gets its limit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Daemon, GREEDY, LISTED, Pace, Policy, SERVER, Sender, Sink, Site, until,
};

const PORT: u16 = 9000;
const RATE: u32 = 1000;
/// Half a second: the machine may stop the sender that long without costing it a token.
const BURST: u32 = 500;
const WATCHED: Duration = Duration::from_secs(5);

fn greedy_is_held_to_its_limit(attach: Attach) {
    let site = Site::new();
    let entries = format!(
        r#"
[[service]]
name = "api"
protocol = "udp"
ports = [{PORT}]
[[client]]
name = "greedy"
sources = ["{}"]
services = ["api"]
limit = {{ packets = {{ rate = {RATE}, burst = {BURST} }} }}
[[client]]
name = "modest"
sources = ["{}"]
services = ["api"]
limit = {{ packets = {{ rate = {RATE}, burst = {BURST} }} }}
"#,
        GREEDY.v4, LISTED.v4
    );
    let _daemon = Daemon::start(&site, &Policy::new(attach, &entries));
    let to = SocketAddr::new(SERVER.v4.into(), PORT);
    let sink = Sink::open(&site.server, to);
    let mut greedy = Sender::open(&site.outside, GREEDY.v4.into(), to);
    let mut modest = Sender::open(&site.outside, LISTED.v4.into(), to);
    let mut pace = Pace::per_second(3 * RATE);
    let start = Instant::now();
    while start.elapsed() < WATCHED {
        greedy.send();
        if greedy.sent().is_multiple_of(6) {
            modest.send();
        }
        pace.wait();
    }
    let took = start.elapsed().as_secs_f64();
    let counted = || {
        let counts = site.counters();
        (counts.of("api") == greedy.sent() + modest.sent()).then_some(counts)
    };
    let counts = until("every packet is judged", counted);
    let allowed = counts.packets("api", Verdict::Pass, Reason::Allowed);
    let arrived = || (sink.count(GREEDY.v4.into()) + sink.count(LISTED.v4.into()) == allowed).then_some(());
    until("what passed arrives", arrived);

    let arrived = sink.count(GREEDY.v4.into());
    let conforming = f64::from(RATE) * took;
    let over_burst = arrived as f64 - f64::from(BURST);
    let error = over_burst / conforming - 1.0;
    eprintln!(
        "{arrived} of {} passed in {took:.3} s: {:+.3} % of the limit",
        greedy.sent(),
        error * 100.0
    );
    assert!(
        greedy.sent() as f64 > 2.0 * conforming,
        "{} packets are not greedy",
        greedy.sent()
    );
    assert!(error.abs() < 0.02, "{:+.2} % off its limit", error * 100.0);
    assert_eq!(
        sink.count(LISTED.v4.into()),
        modest.sent(),
        "who keeps the limit loses nothing"
    );
    assert_eq!(
        counts.packets("api", Verdict::Drop, Reason::LimitGrant),
        greedy.sent() - arrived
    );
}

#[test]
fn greedy_client_is_held_to_its_limit_natively() {
    greedy_is_held_to_its_limit(Attach::Native);
}

#[test]
fn greedy_client_is_held_to_its_limit_generically() {
    greedy_is_held_to_its_limit(Attach::Generic);
}

const SOURCE_BURST: u64 = 5;

fn of_sources(max: u32, burst: u64, more: &str) -> Policy {
    let entries = format!(
        r#"
[[service]]
name = "api"
protocol = "udp"
ports = [{PORT}]
[[client]]
name = "modest"
sources = ["{}"]
services = ["api"]
[[publisher]]
name = "gateway"
user = "root"
services = ["api"]
environments = ["production"]
widest-prefix = {{ ipv4 = 24, ipv6 = 48 }}
{more}"#,
        LISTED.v4
    );
    let limit = format!(
        "source-limit-max = {max}\nsource-limit = {{ packets = {{ rate = \"1/h\", burst = {burst} }} }}"
    );
    Policy::new(Attach::Auto, &entries).filter(&limit)
}

/// What a source has spent stays spent, whatever is changed around it.
#[test]
fn sources_own_bucket_keeps_its_level_over_all_that_changes_the_tables() {
    const MORE: &str = "[[client]]\nname = \"more\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"api\"]\n";
    let site = Site::new();
    let mut daemon = Daemon::start(&site, &of_sources(4096, SOURCE_BURST, ""));
    let to = SocketAddr::new(SERVER.v4.into(), PORT);
    let sink = Sink::open(&site.server, to);
    let mut sender = Sender::open(&site.outside, LISTED.v4.into(), to);
    let mut passed_of = |times: u64| {
        let before = (site.counters().of("api"), sink.count(LISTED.v4.into()));
        (0..times).for_each(|_| sender.send());
        until("every packet is judged", || {
            (site.counters().of("api") == before.0 + times).then_some(())
        });
        let allowed = || site.counters().packets("api", Verdict::Pass, Reason::Allowed);
        until("what passed arrives", || {
            (sink.count(LISTED.v4.into()) == allowed()).then_some(())
        });
        sink.count(LISTED.v4.into()) - before.1
    };
    assert_eq!(passed_of(SOURCE_BURST + 3), SOURCE_BURST);
    let reload = |daemon: &Daemon, policy: &Policy| {
        site.write(policy);
        daemon.reload();
    };
    reload(&daemon, &of_sources(4096, SOURCE_BURST, ""));
    assert_eq!(passed_of(3), 0, "the same file once more");
    reload(&daemon, &of_sources(4096, SOURCE_BURST, MORE));
    assert_eq!(passed_of(3), 0, "a client more");
    let binding =
        serde_json::json!({"sources": ["203.0.113.0/24"], "services": ["api"], "lease_seconds": 600});
    let put = daemon.ask("PUT", "/v1/bindings/wide", &binding);
    assert_eq!(put.expect("the daemon answers").status, 201);
    assert_eq!(passed_of(3), 0, "a prefix pushed");
    daemon.kill();
    daemon = Daemon::start_again(&site);
    assert_eq!(passed_of(3), 0, "a daemon killed and another started");
    reload(&daemon, &of_sources(64, SOURCE_BURST, MORE));
    assert_eq!(passed_of(3), 0, "fewer buckets");
    reload(&daemon, &of_sources(65_536, SOURCE_BURST, MORE));
    assert_eq!(passed_of(3), 0, "more buckets");
    reload(&daemon, &of_sources(65_536, SOURCE_BURST + 2, MORE));
    assert_eq!(passed_of(6), 2, "a larger burst: tokens used stay used");
    reload(&daemon, &of_sources(4096, SOURCE_BURST + 3, MORE));
    assert_eq!(passed_of(6), 1, "a larger burst of another number of buckets");
    daemon.kill();
}
