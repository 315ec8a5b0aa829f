//! Observing for a while: what would be dropped passes until the kernel ends it, whatever becomes of the daemon. And
//! detaching by the daemon.

use std::fs::{Permissions, set_permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Output;

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Daemon, Policy, Probe, SERVER, STRANGER, Sender, Sink, Site, keyfence, output, until,
};
use serde_json::Value;

fn policy() -> Policy {
    let entries = "[[deny]]\nname = \"abuse\"\nsources = [\"10.77.0.3\"]\n\
                   [[service]]\nname = \"other\"\nprotocol = \"udp\"\nports = [9100]\n";
    Policy::new(Attach::Native, Probe::ENTRIES).and(entries)
}

fn run(site: &Site, words: &[&str]) -> Output {
    let mut command = keyfence();
    command.args(words).arg("--socket").arg(site.socket());
    output(&mut command)
}

fn observe(site: &Site, words: &[&str]) -> String {
    let arguments = [&["observe", "--reason", "a test"][..], words].concat();
    let output = run(site, &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout).expect("text")
}

fn stranger(site: &Site, port: u16) -> Sender {
    let to = SocketAddr::new(SERVER.v4.into(), port);
    Sender::open(&site.outside, IpAddr::V4(STRANGER.v4), to)
}

/// Somebody is there, so that no error comes back.
fn sink(site: &Site) -> Sink {
    Sink::open(&site.server, SocketAddr::new(SERVER.v4.into(), 9100))
}

/// Sends until a packet of the stranger's is judged so.
fn until_judged(site: &Site, service: &str, port: u16, verdict: Verdict) {
    let mut sender = stranger(site, port);
    let count = || site.counters().packets(service, verdict, Reason::Unlisted);
    let before = count();
    until(&format!("a stranger to {service} is {verdict:?}"), || {
        sender.send();
        (count() > before).then_some(())
    });
}

fn observing(daemon: &Daemon) -> Vec<Option<String>> {
    let status = daemon.status();
    let all = status["observing"].as_array().expect("a list");
    all.iter()
        .map(|one| one["service"].as_str().map(str::to_owned))
        .collect()
}

/// The kernel's verdict and the reference's, of a stranger's packet.
fn explained(daemon: &Daemon, port: u16) -> [Value; 2] {
    let path = format!("/v1/explain?from=10.77.0.66:4000&to=10.77.0.1:{port}/udp");
    let answer = daemon.get(&path).expect("it answers").body;
    let object: Value = serde_json::from_str(&answer).expect("JSON");
    [&object["kernel"]["verdict"], &object["reference"]["verdict"]].map(Value::clone)
}

#[test]
fn service_is_observed_until_the_kernel_ends_it_with_the_daemon_dead() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    let _sink = sink(&site);
    probe.assert_filtered();
    let said = observe(&site, &["--for", "1h", "--service", "probe"]);
    assert!(said.starts_with("service probe is observed until "), "{said}");
    probe.assert_open();
    assert_eq!(observing(&daemon), [Some("probe".to_owned())]);
    until_judged(&site, "probe", Probe::PORT, Verdict::Observe);
    until_judged(&site, "other", 9100, Verdict::Drop);
    assert_eq!(explained(&daemon, Probe::PORT), ["observe", "observe"]);
    assert_eq!(explained(&daemon, 9100), ["drop", "drop"]);

    // Neither another policy nor another daemon ends it.
    daemon.reload();
    until_judged(&site, "probe", Probe::PORT, Verdict::Observe);
    daemon.kill();
    until_judged(&site, "probe", Probe::PORT, Verdict::Observe);
    let daemon = Daemon::start_again(&site);
    assert_eq!(observing(&daemon), [Some("probe".to_owned())]);
    until_judged(&site, "probe", Probe::PORT, Verdict::Observe);

    // Shorter, and nobody is there to end it.
    observe(&site, &["--for", "3s", "--service", "probe"]);
    probe.assert_open();
    daemon.kill();
    until_judged(&site, "probe", Probe::PORT, Verdict::Drop);
    probe.assert_filtered();
    let daemon = Daemon::start_again(&site);
    assert_eq!(observing(&daemon), []);
}

#[test]
fn everything_is_observed_until_it_is_ended() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let denied = |verdict| site.counters().packets("", verdict, Reason::Denied);
    let to = SocketAddr::new(SERVER.v4.into(), 9100);
    let _sink = sink(&site);
    let mut abuse = Sender::open(&site.outside, "10.77.0.3".parse().expect("an address"), to);
    let said = observe(&site, &["--for", "1h"]);
    assert!(said.starts_with("everything is observed until "), "{said}");
    until_judged(&site, "other", 9100, Verdict::Observe);
    until("a denied source passes", || {
        abuse.send();
        (denied(Verdict::Observe) > 0).then_some(())
    });
    let status = run(&site, &["status"]);
    let page = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(page.contains("everything is observed until"), "{page}");
    let said = observe(&site, &["--for", "0s"]);
    assert_eq!(said, "nothing is observed for a while any more\n");
    until_judged(&site, "other", 9100, Verdict::Drop);
    assert_eq!(observing(&daemon), []);
    let log = String::from_utf8(run(&site, &["audit", "show"]).stdout).expect("text");
    assert_eq!(log.matches("observe").count(), 2, "{log}");
    let wrong = run(
        &site,
        &["observe", "--for", "1h", "--service", "none", "--reason", "a"],
    );
    assert_eq!(wrong.status.code(), Some(1));
}

#[test]
fn daemon_takes_the_filter_off_and_tells_its_audit_log() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    let socket = site.socket().display().to_string();
    let unconfirmed = Daemon::detach(&site, &["--socket", &socket]);
    assert_eq!(unconfirmed.code, Some(4), "{}", unconfirmed.log);
    probe.assert_filtered();
    let detached = Daemon::detach(&site, &["--yes", "--socket", &socket]);
    assert_eq!(detached.code, Some(0), "{}", detached.log);
    probe.assert_open();
    let log = String::from_utf8(run(&site, &["audit", "show"]).stdout).expect("text");
    assert!(log.contains("detach") && log.contains("srv0"), "{log}");
    until("the daemon is unready", || {
        let answer = daemon.get("/readyz")?;
        (answer.status == 503 && answer.body.contains("srv0")).then_some(())
    });
}

/// An operator who is not root sees none of the pins: the daemon is asked. Without it, the folders are told to be another's,
/// and not to be removed.
#[test]
fn operator_who_is_not_root_detaches_by_the_daemon_alone() {
    let site = Site::new();
    let operators = "operators = [\"root\", \"daemon\"]";
    let daemon = Daemon::start(&site, &policy().daemon(operators));
    set_permissions(site.folder(), Permissions::from_mode(0o755)).expect("the folder is ours");
    set_permissions(site.socket(), Permissions::from_mode(0o666)).expect("the socket is ours");
    let detach = |instance: &str| {
        let mut command = keyfence();
        command.args(["detach", "--yes", "--instance", instance, "--socket"]);
        command.arg(site.socket()).arg("--bpf-fs").arg(site.bpf.path());
        let output = output(command.uid(1).gid(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    let (code, said) = detach("main");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("srv0"), "{said}");
    probe.assert_open();
    daemon.kill();
    let daemon = Daemon::start_again(&site);
    probe.assert_filtered();
    let other = Daemon::detach(&site, &["--yes", "--instance", "other"]);
    assert_eq!(other.code, Some(0), "{}", other.log);
    assert!(
        other.log.contains("still in force: instance main"),
        "{}",
        other.log
    );
    daemon.kill();
    let (code, said) = detach("main");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("another user (root)") && said.contains("an operator"),
        "{said}"
    );
    assert!(!said.contains("remove"), "{said}");
    probe.assert_filtered();
}

/// A policy of its own file, beside the daemon's; its plan, and all that the command says of it.
fn planned(site: &Site, policy: &Policy) -> (Value, String) {
    let file = site.folder().join("next.toml");
    std::fs::write(&file, policy.text(&site.socket())).expect("a temporary folder can be written");
    let file = file.to_str().expect("temporary folders have plain names");
    let ended = |words: &[&str]| {
        let output = run(site, words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (json, _) = ended(&["plan", "--json", file]);
    let (shown, said) = ended(&["plan", file]);
    let plan = serde_json::from_str(&json).expect("the plan is JSON");
    (plan, shown + &said)
}

/// Source, service and reason of those that it would cut, without an owner.
fn cut(plan: &Value) -> Vec<[&str; 3]> {
    let cut = plan["cut"].as_array().expect("a list").iter();
    let nobodys = cut.filter(|one| one["owner"].is_null());
    nobodys
        .map(|one| {
            [&one["source"], &one["services"][0], &one["reason"]].map(|text| text.as_str().unwrap_or(""))
        })
        .collect()
}

#[test]
fn plan_names_who_is_only_observed_and_what_would_open() {
    let site = Site::new();
    let observing = policy().filter("mode = \"observe\"");
    let daemon = Daemon::start(&site, &observing);
    let mut probe = Probe::open(&site);
    let _sink = sink(&site);
    probe.assert_open();
    until_judged(&site, "other", 9100, Verdict::Observe);

    let stranger = format!("{}/32", STRANGER.v4);
    let (plan, shown) = planned(&site, &policy());
    assert_eq!(cut(&plan), [[stranger.as_str(), "other", "unlisted"]], "{plan:#}");
    assert_eq!(plan["cut"][0]["services"][1], "probe", "{plan:#}");
    assert_eq!(plan["counts"]["cut"], 1);
    assert!(
        shown.contains("1 source would be cut whose owner sent traffic in the last day")
            && shown.contains(&stranger)
    );
    let client = format!(
        "[[client]]\nname = \"more\"\nsources = [\"{stranger}\"]\nservices = [\"probe\", \"other\"]\n"
    );
    let (plan, _) = planned(&site, &policy().and(&client));
    assert_eq!(cut(&plan), [[""; 3]; 0], "it is listed by then");

    // What an operator observes for a while is not for good.
    site.write(&policy());
    daemon.reload();
    probe.assert_filtered();
    let other = policy().filter("ping = \"drop\"");
    assert_eq!(cut(&planned(&site, &other).0), [[""; 3]; 0], "it is cut already");
    observe(&site, &["--for", "1h", "--service", "probe"]);
    probe.assert_open();
    let (plan, _) = planned(&site, &other);
    assert_eq!(cut(&plan), [[stranger.as_str(), "probe", "unlisted"]]);

    // The way back to observing is said, and taken.
    let (plan, shown) = planned(&site, &observing);
    assert!(
        plan["warnings"][0]
            .as_str()
            .is_some_and(|said| said.starts_with("this opens the filter"))
    );
    assert!(shown.contains("warning: this opens the filter"), "{shown}");
    site.write(&observing);
    let reload = run(&site, &["reload"]);
    let said = String::from_utf8_lossy(&reload.stderr);
    assert_eq!(reload.status.code(), Some(0), "{said}");
    assert!(said.contains("warning: this opens the filter"), "{said}");
    until_judged(&site, "other", 9100, Verdict::Observe);
}
