//! Records of drops as real programs take them: rsyslog on the local socket, and systemd's journal.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use keyfence_tests::harness::frames::{self, SYN};
use keyfence_tests::harness::{
    Attach, Daemon, Policy, SERVER, STRANGER, Site, Wire, keyfence_path, output, system, until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SERVICE: &str = "[[service]]\nname = \"api\"\nprotocol = \"tcp\"\nports = [7000]\n";

/// A daemon whose sockets of the host are its own: mounts that nobody else sees, and a program that goes with it.
fn daemon_beside(site: &Site, program: &str) -> Daemon {
    let script = format!("set -e; {program}; exec \"$@\"");
    let mut command = site.server.command(system("unshare").get_program());
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.arg(keyfence_path()).args(Daemon::arguments(site));
    Daemon::start_as(site, &mut command)
}

fn drop_some(site: &Site) {
    let mut wire = Wire::open(site);
    for port in 0..10 {
        let frame = frames::tcp(
            IpAddr::V4(STRANGER.v4),
            port,
            IpAddr::V4(SERVER.v4),
            7000 + port % 2,
            SYN,
        );
        wire.send(&frame);
    }
}

/// What stood in the text behind a word, as JSON.
fn record(text: &str) -> Option<Value> {
    let line = text.lines().find(|line| line.contains("\"unlisted\""))?;
    serde_json::from_str(&line[line.find('{')?..]).ok()
}

fn assert_is_ours(record: &Value) {
    assert_eq!(record["source"]["ip"], STRANGER.v4.to_string());
    assert_eq!(record["network"]["packets"], 5);
    assert_eq!(record["event"]["reason"], "unlisted");
}

#[test]
fn rsyslog_takes_records() {
    let site = Site::new();
    let log = site.folder().join("syslog");
    let config = site.folder().join("rsyslog.conf");
    let text = format!(
        "module(load=\"imuxsock\" SysSock.Name=\"/dev/log\" SysSock.UseSpecialParser=\"off\" SysSock.ParseHostname=\"on\")\n\
         template(name=\"whole\" type=\"string\" string=\"%app-name% %procid% %msgid% %syslogfacility-text% %msg%\\n\")\n\
         action(type=\"omfile\" file=\"{}\" template=\"whole\")\n",
        log.display()
    );
    fs::write(&config, text).expect("a temporary folder can be written");
    let policy = Policy::new(Attach::Auto, SERVICE).and("[[sink]]\ntype = \"syslog\"\n");
    site.write(&policy);
    let folder = site.folder().display();
    let program = format!(
        "mount -t tmpfs none /dev; mknod /dev/null c 1 3; mknod /dev/urandom c 1 9; \
         {} -n -f {folder}/rsyslog.conf -i {folder}/rsyslog.pid > {folder}/rsyslog.log 2>&1 & \
         for try in $(seq 100); do test -S /dev/log && break; sleep 0.1; done",
        system("rsyslogd").get_program().display()
    );
    let daemon = daemon_beside(&site, &program);
    drop_some(&site);
    let said = until("rsyslog has the record", || {
        let text = fs::read_to_string(&log).ok()?;
        record(&text).map(|record| (record, text))
    });
    assert_is_ours(&said.0);
    let ours = said
        .1
        .lines()
        .find(|line| line.contains("unlisted"))
        .expect("it was found");
    assert!(
        ours.starts_with("keyfence ") && ours.contains(" drops daemon "),
        "{ours}"
    );
    // Records go to no file that could be asked.
    let drops = daemon.get("/v1/drops").expect("the daemon answers");
    let problem: Value = serde_json::from_str(&drops.body).expect("a problem is JSON");
    let is_problem = |status: u16, code: &str| drops.status == status && problem["code"] == code;
    assert!(is_problem(501, "not-implemented"), "{problem}");
    let id = fs::read_to_string(site.folder().join("rsyslog.pid")).expect("it writes its id");
    daemon.end(Signal::SIGTERM);
    output(system("kill").arg(id.trim()));
}

#[test]
fn journald_takes_records() {
    let site = Site::new();
    let run = site.folder().join("run");
    fs::create_dir_all(run.join("systemd/journal")).expect("a temporary folder can hold others");
    fs::create_dir_all(run.join("log/journal")).expect("a temporary folder can hold others");
    let policy = Policy::new(Attach::Auto, SERVICE).and("[[sink]]\ntype = \"journald\"\n");
    site.write(&policy);
    let folder = site.folder().display();
    let journald = PathBuf::from("/lib/systemd/systemd-journald");
    assert!(
        journald.exists(),
        "{} is missing: install systemd",
        journald.display()
    );
    let program = format!(
        "mount --bind {folder}/run /run; {} > {folder}/journald.log 2>&1 & echo $! > {folder}/journald.pid; \
         for try in $(seq 100); do test -S /run/systemd/journal/socket && break; sleep 0.1; done",
        journald.display()
    );
    let daemon = daemon_beside(&site, &program);
    drop_some(&site);
    let entry = until("the journal has the record", || {
        let mut command = system("journalctl");
        command
            .arg("-D")
            .arg(run.join("log/journal"))
            .args(["-o", "json", "KEYFENCE_LOG=drops"]);
        let text = String::from_utf8_lossy(&output(&mut command).stdout).into_owned();
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries
            .filter_map(|entry| Some((record(entry["MESSAGE"].as_str()?)?, entry)))
            .next()
    });
    assert_is_ours(&entry.0);
    assert_eq!(entry.1["SYSLOG_IDENTIFIER"], "keyfence");
    let id = fs::read_to_string(site.folder().join("journald.pid")).expect("its id was written");
    daemon.end(Signal::SIGTERM);
    output(system("kill").arg(id.trim()));
}
