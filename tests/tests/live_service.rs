//! Keyfence as a service of a real systemd: before the network, as its own user, in its sandbox; killed, stopped,
//! hung, reloaded, and never a moment unfiltered.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use keyfence_tests::harness::{
    Attach, Daemon, Files, INSIDE, Machine, Policy, Probe, Site, StopOnDrop, get, until,
};

const UNIT: &str = "keyfence.service";
const POLICY: &str = "/etc/keyfence/keyfence.toml";
/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF, as in /proc.
const RIGHTS: &str = "000000c000001000";
const NONE: &str = "0000000000000000";

fn repository(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// As the images of clouds have it: it is behind the network, and before what services are behind.
const EARLY: &str = "early.service";
const EARLY_UNIT: &str = "[Unit]\nDefaultDependencies=no\nAfter=network-pre.target\nWants=network-pre.target\n\
                          Before=sysinit.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";

/// With all that the package brings.
fn installed(site: &Site, policy: &str) -> Files {
    let files = Files::new();
    files.install();
    files.write(&POLICY[1..], policy);
    // A hung daemon is to be found while a test waits.
    files.write(
        "etc/systemd/system/keyfence.service.d/trial.conf",
        "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=1s\n",
    );
    assert!(!site.pins("main").exists(), "nothing is filtered yet");
    files
}

fn boot(site: &Site, policy: &str) -> Machine {
    installed(site, policy).boot(&[UNIT], &site.server, site.bpf.path())
}

/// With the default folders and listeners.
fn policy(interface: &str) -> String {
    format!(
        "version = 1\n[filter]\ninterfaces = [\"{interface}\"]\n{}[records]\ninterval = \"1s\"\n",
        Probe::ENTRIES
    )
}

fn process(machine: &Machine) -> String {
    machine.show(UNIT, "MainPID")
}

fn is_active(machine: &Machine) -> bool {
    machine.show(UNIT, "ActiveState") == "active"
}

fn generation(machine: &Machine) -> u64 {
    let status = machine.ask(&["keyfence", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("the status is JSON");
    status["generation"].as_u64().expect("a number")
}

/// The code of an answer of its default listener.
fn code(machine: &Machine, path: &str) -> String {
    let url = format!("http://keyfence{path}");
    let words = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--unix-socket",
        "/run/keyfence/api.sock",
    ];
    let ended = machine.run(&[&words[..], &[&url]].concat());
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

#[test]
fn service_filters_before_the_network_with_no_right_too_many() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let files = installed(&site, &policy(INSIDE));
    files.write(&format!("usr/lib/systemd/system/{EARLY}"), EARLY_UNIT);
    let machine = files.boot(&[UNIT, EARLY], &site.server, site.bpf.path());
    probe.assert_filtered();
    let moment = |unit: &str| -> u64 {
        let moment = machine.show(unit, "ActiveEnterTimestampMonotonic");
        moment.parse().expect("microseconds since the boot")
    };
    assert!(is_active(&machine) && moment(UNIT) > 0);
    assert!(
        moment(UNIT) <= moment("network-pre.target"),
        "the network comes later"
    );
    assert!(moment(UNIT) <= moment(EARLY), "nor before what else is early");
    let circles = machine.run(&["systemd-analyze", "verify", UNIT, EARLY]);
    let circles = String::from_utf8_lossy(&circles.stderr).into_owned();
    assert!(!circles.contains("ordering cycle"), "{circles}");
    assert_eq!(machine.show(UNIT, "StatusText"), format!("filters {INSIDE}"));
    assert_eq!(code(&machine, "/readyz"), "200");

    let id = process(&machine);
    let user = machine.ask(&["id", "-u", "keyfence"]);
    assert_eq!(machine.status_of(&id, "Uid:"), [user.as_str(); 4].join("\t"));
    for (set, rights) in [
        ("CapEff:", RIGHTS),
        ("CapPrm:", RIGHTS),
        ("CapBnd:", RIGHTS),
        ("CapInh:", NONE),
        ("CapAmb:", NONE),
    ] {
        assert_eq!(machine.status_of(&id, set), rights, "{set}");
    }
    assert_eq!(machine.status_of(&id, "NoNewPrivs:"), "1");
    assert_eq!(
        machine.status_of(&id, "Seccomp:"),
        "2",
        "system calls are filtered"
    );

    assert_in_its_place(&machine, &id, &user);
}

/// Whoever is in the daemon's place, as its user, opens, writes and executes what is configured and nothing else.
fn assert_in_its_place(machine: &Machine, id: &str, user: &str) {
    let inside = |words: &[&str]| {
        let target = format!("--target={id}");
        let enter = [
            "nsenter", &target, "--mount", "--setuid", user, "--setgid", user, "--",
        ];
        let ended = machine.run(&[&enter[..], words].concat());
        (
            ended.status.code(),
            String::from_utf8_lossy(&ended.stderr).into_owned(),
        )
    };
    let (code, said) = inside(&["/usr/bin/keyfence", "check", POLICY]);
    assert_eq!(
        code,
        Some(0),
        "what is configured can be read and executed: {said}"
    );
    for (words, why) in [
        (
            &["/usr/bin/keyfence", "check", "/etc/shadow"][..],
            "Permission denied",
        ),
        (
            &["/usr/bin/keyfence", "check", "/home/policy.toml"],
            "Permission denied",
        ),
        (
            &[
                "/usr/bin/keyfence",
                "init",
                "--output",
                "/etc/keyfence/other.toml",
            ],
            "Permission denied",
        ),
        (
            &["/usr/bin/keyfence", "init", "--output", "/tmp/../usr/other.toml"],
            "Read-only file system",
        ),
        (&["/bin/sh", "-c", "true"], "Permission denied"),
        (&["/usr/bin/ls"], "Permission denied"),
    ] {
        let (code, said) = inside(words);
        assert!(
            code != Some(0) && said.contains(why),
            "{words:?}: {code:?}: {said}"
        );
    }
    // Of the BPF file system it sees its own folder; what is around that is none.
    let mounts = machine.ask(&["cat", &format!("/proc/{id}/mountinfo")]);
    let kind = |path: &str| {
        let at = format!(" {path} ");
        let last = mounts.lines().rfind(|line| line.contains(&at));
        let kind = last.and_then(|line| line.split_once(" - ")?.1.split(' ').next());
        kind.map(str::to_owned)
    };
    assert_eq!(kind("/sys/fs/bpf").as_deref(), Some("tmpfs"));
    assert_eq!(kind("/sys/fs/bpf/keyfence").as_deref(), Some("bpf"));
}

/// The filter is the kernel's: whatever becomes of the daemon, and systemd sees to it that there is one again.
#[test]
fn service_that_dies_hangs_or_stops_leaves_no_packet_unfiltered() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let machine = boot(&site, &policy(INSIDE));
    let again = |what: &str, before: &str| {
        until(what, || {
            let now = process(&machine);
            (is_active(&machine) && now != before && now != "0").then_some(now)
        })
    };
    let first = process(&machine);
    machine.ask(&["kill", "-KILL", &first]);
    probe.assert_filtered();
    let second = again("another is started after the kill", &first);
    probe.assert_filtered();
    machine.ask(&["kill", "-STOP", &second]);
    probe.assert_filtered();
    let third = again("another is started in place of one that hangs", &second);
    probe.assert_filtered();
    assert_eq!(machine.show(UNIT, "NRestarts"), "2");

    // A fault changes nothing, and whoever asked sees it.
    machine.ask(&[
        "sh",
        "-c",
        &format!("cp {POLICY} /var/tmp/good; echo 'ports = [0]' >>{POLICY}"),
    ]);
    let ended = machine.run(&["systemctl", "reload", UNIT]);
    assert!(!ended.status.success());
    let journal = machine.ask(&["journalctl", "--no-pager", "--unit", UNIT]);
    assert!(
        journal.contains("keyfence.toml:"),
        "the fault is in the journal with its place"
    );
    assert_eq!(process(&machine), third);
    probe.assert_filtered();
    machine.ask(&[
        "sh",
        "-c",
        &format!("sed 's/10.77.0.2/10.77.0.0\\/24/' /var/tmp/good >{POLICY}"),
    ]);
    machine.ask(&["systemctl", "reload", UNIT]);
    probe.assert_open();
    machine.ask(&["cp", "/var/tmp/good", POLICY]);
    let before = generation(&machine);
    machine.ask(&["kill", "-HUP", &third]);
    until("the signal is followed", || {
        (is_active(&machine) && generation(&machine) > before).then_some(())
    });
    probe.assert_filtered();

    machine.ask(&["systemctl", "stop", UNIT]);
    probe.assert_filtered();
    machine.ask(&["systemctl", "start", UNIT]);
    machine.ask(&["systemctl", "restart", UNIT]);
    probe.assert_filtered();
    machine.ask(&["keyfence", "detach", "--yes"]);
    probe.assert_open();
    // The folder that root took away with it is there again for the next start.
    machine.ask(&["systemctl", "restart", UNIT]);
    probe.assert_filtered();
}

/// Whoever asks while the daemon is another waits for the next one: nobody is refused.
#[test]
fn restart_of_the_service_fails_no_request() {
    let site = Site::new();
    let machine = boot(&site, &policy(INSIDE));
    let socket = machine.path("/run/keyfence/api.sock");
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let refused = thread::scope(|scope| {
        let stopper = StopOnDrop(&stop);
        let asking = scope.spawn(|| {
            let mut refused = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match get(&socket, "/livez") {
                    Ok(answer) if answer.status == 200 => drop(asked.fetch_add(1, Ordering::Relaxed)),
                    other => refused.push(format!("{other:?}")),
                }
            }
            refused
        });
        for _ in 0..3 {
            let before = asked.load(Ordering::Relaxed);
            machine.ask(&["systemctl", "restart", UNIT]);
            until("requests are answered again", || {
                (asked.load(Ordering::Relaxed) > before + 10).then_some(())
            });
        }
        drop(stopper);
        asking.join().expect("it only asks")
    });
    assert!(
        refused.is_empty(),
        "{} of {}: {refused:?}",
        refused.len(),
        asked.into_inner()
    );
    // Stopped, nobody is there, and nothing is in the way of the next start.
    machine.ask(&["systemctl", "stop", UNIT]);
    assert!(get(&socket, "/livez").is_err());
    machine.ask(&["systemctl", "start", UNIT]);
    assert_eq!(code(&machine, "/readyz"), "200");
}

#[test]
fn host_that_boots_without_an_interface_is_filtered_as_soon_as_it_comes() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let machine = boot(&site, &policy(&format!("{INSIDE}\", \"late0")));
    assert!(is_active(&machine), "nothing of the boot waits for it");
    probe.assert_filtered();
    assert_eq!(code(&machine, "/readyz"), "503");
    let status = machine.show(UNIT, "StatusText");
    assert!(
        status.starts_with("not ready:") && status.contains("late0"),
        "{status}"
    );
    site.server.ip("link add late0 type veth peer name late1");
    until("the daemon is ready", || {
        (code(&machine, "/readyz") == "200").then_some(())
    });
    assert!(site.server.ip("link show dev late0").contains("xdp"));
    until("systemd knows", || {
        (machine.show(UNIT, "StatusText") == format!("filters {INSIDE}, late0")).then_some(())
    });
    // By hand, where somebody reads the answer, such a start is refused.
    machine.ask(&["systemctl", "stop", UNIT]);
    site.server.ip("link del late0");
    let ended = machine.run(&["keyfence", "run"]);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    probe.assert_filtered();
}

/// Rights are given up also where nobody but the daemon itself sees to it.
#[test]
fn daemon_that_root_starts_keeps_three_rights() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Auto, Probe::ENTRIES));
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.id()))
        .unwrap()
        .flatten();
    let tasks: Vec<String> = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .collect();
    assert!(tasks.len() > 2);
    for status in tasks.iter().chain([&status]) {
        for line in [
            format!("CapEff:\t{RIGHTS}"),
            format!("CapPrm:\t{RIGHTS}"),
            format!("CapBnd:\t{RIGHTS}"),
            format!("CapInh:\t{NONE}"),
            format!("CapAmb:\t{NONE}"),
            "NoNewPrivs:\t1".to_owned(),
        ] {
            assert!(status.contains(&line), "{line}: {status}");
        }
    }
    daemon.reload();
}

/// Root by hand, in a folder of somebody else's: what is configured goes on working, and the log says at what price.
#[test]
fn root_keeps_the_right_to_another_users_files_where_it_needs_them() {
    let site = Site::new();
    site.write(&Policy::new(Attach::Auto, Probe::ENTRIES));
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(site.folder(), own).unwrap();
    std::os::unix::fs::chown(site.folder(), Some(65534), Some(65534)).unwrap();
    let daemon = Daemon::start_again(&site);
    assert!(
        daemon.log().contains("keeps CAP_DAC_OVERRIDE"),
        "{}",
        daemon.log()
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    assert!(status.contains("CapEff:\t000000c000001002"), "{status}");
    daemon.reload();
}

#[test]
fn exposure_of_the_unit_is_below_the_goal() {
    let mut command = std::process::Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=25"]);
    command.arg(repository("config/systemd/keyfence.service"));
    let output = command
        .output()
        .expect("systemd-analyze is of the package systemd");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{}", said.lines().last().unwrap_or_default());
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
