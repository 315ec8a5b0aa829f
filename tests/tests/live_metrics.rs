//! The metrics as Prometheus' own linter reads them.

use std::io::Write as _;
use std::process::Stdio;

use keyfence_tests::harness::{Attach, Daemon, Policy, Probe, Site, system};

#[test]
fn scrape_of_a_working_daemon_passes_promtool() {
    let site = Site::new();
    let policy = Policy::new(Attach::Auto, Probe::ENTRIES);
    let daemon = Daemon::start(&site, &policy);
    Probe::open(&site).assert_filtered();
    site.write_text("version = = 1");
    daemon.reload_in_vain();
    let page = daemon.scrape();
    for family in [
        "keyfence_packets_total",
        "keyfence_bytes_total",
        "keyfence_interface_packets_total",
        "keyfence_table_entries",
        "keyfence_table_capacity",
        "keyfence_http_requests_total",
        "keyfence_http_request_duration_seconds_bucket",
        "keyfence_policy_info",
        "keyfence_policy_reload_success",
        "keyfence_filter_attached",
        "keyfence_generation",
        "keyfence_build_info",
    ] {
        assert!(
            page.lines().any(|line| line.starts_with(family)),
            "{family} is not in\n{page}"
        );
    }
    let mut lint = system("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be started");
    let mut input = lint.stdin.take().expect("it is piped");
    input.write_all(page.as_bytes()).expect("promtool reads all");
    drop(input);
    let output = lint.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn what_a_service_has_counted_stays_when_it_leaves_the_policy() {
    let site = Site::new();
    let more = "[[service]]\nname = \"more\"\nprotocol = \"udp\"\nports = [9]\n";
    let daemon = Daemon::start(&site, &Policy::new(Attach::Auto, Probe::ENTRIES));
    Probe::open(&site).assert_filtered();
    let series = "keyfence_packets_total{service=\"probe\",verdict=\"drop\",reason=\"unlisted\"}";
    let before = daemon.metric(series);
    assert!(before > 0.0);
    site.write(&Policy::new(Attach::Auto, more));
    daemon.reload();
    assert_eq!(daemon.metric(series), before);
    assert_eq!(daemon.metric("keyfence_source_limit_shared_packets_total"), 0.0);
}
