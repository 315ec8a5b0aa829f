//! The Debian package on a real systemd: installed, upgraded under traffic, removed, purged.

use std::thread;

use keyfence_tests::harness::{Files, INSIDE, Machine, Probe, Site};

const UNIT: &str = "keyfence.service";
const FIRST: &str = "/opt/keyfence-first.deb";
const SECOND: &str = "/opt/keyfence-second.deb";
const OPTIONS: &str = "/etc/default/keyfence";

fn exists(machine: &Machine, path: &str) -> bool {
    machine.run(&["test", "-e", path]).status.success()
}

#[test]
fn package_installs_upgrades_and_goes_as_an_operator_expects() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let files = Files::new();
    files.package("0.1.0", &FIRST[1..]);
    files.package("0.1.1", &SECOND[1..]);
    let machine = files.boot(&[], &site.server, site.bpf.path());
    let state = |property: &str| machine.show(UNIT, property);

    let said = machine.dpkg(&["--install", FIRST]);
    assert!(said.contains("filters nothing yet"), "{said}");
    assert_eq!(state("UnitFileState"), "enabled");
    // Without a policy it is asked for in vain, and nothing fails.
    machine.ask(&["systemctl", "start", UNIT]);
    assert_eq!(
        (state("ActiveState"), state("ConditionResult")),
        ("inactive".into(), "no".into())
    );
    probe.assert_open();
    machine.ask(&["id", "keyfence"]);

    let policy = format!(
        "version = 1\n[filter]\ninterfaces = [\"{INSIDE}\"]\n{}[records]\ninterval = \"1s\"\n",
        Probe::ENTRIES
    );
    machine.ask(&[
        "sh",
        "-c",
        &format!("cat >/etc/keyfence/keyfence.toml <<'END'\n{policy}END"),
    ]);
    machine.ask(&["systemctl", "start", UNIT]);
    probe.assert_filtered();
    machine.ask(&["sh", "-c", &format!("echo '# ours' >>{OPTIONS}")]);

    // The filter goes on while the daemon is another.
    let before = state("MainPID");
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| machine.dpkg(&["--install", SECOND]));
        while !upgrade.is_finished() {
            probe.assert_filtered();
        }
        upgrade.join().expect("dpkg has succeeded");
    });
    probe.assert_filtered();
    assert_ne!(state("MainPID"), before);
    assert_eq!(state("ActiveState"), "active");
    assert!(
        machine.ask(&["cat", OPTIONS]).ends_with("# ours"),
        "what was changed is kept"
    );

    assert_goes(&machine, &mut probe);
}

fn assert_goes(machine: &Machine, probe: &mut Probe) {
    let said = machine.dpkg(&["--remove", "keyfence"]);
    assert!(said.contains("every packet passes"), "{said}");
    probe.assert_open();
    assert!(!exists(machine, "/usr/bin/keyfence") && !exists(machine, "/sys/fs/bpf/keyfence/main"));
    for kept in [
        "/etc/keyfence/keyfence.toml",
        OPTIONS,
        "/var/lib/keyfence",
        "/var/log/keyfence/drops.jsonl",
    ] {
        assert!(exists(machine, kept), "{kept}");
    }

    // Back again, as it was.
    machine.dpkg(&["--install", SECOND]);
    machine.ask(&["systemctl", "start", UNIT]);
    probe.assert_filtered();
    machine.dpkg(&["--purge", "keyfence"]);
    probe.assert_open();
    for gone in [
        "/etc/keyfence",
        OPTIONS,
        "/var/lib/keyfence",
        "/var/log/keyfence",
        "/run/keyfence",
    ] {
        assert!(!exists(machine, gone), "{gone}");
    }
}

#[test]
fn package_has_nothing_to_be_complained_of() {
    let files = Files::new();
    files.package("0.1.0", &FIRST[1..]);
    let mut lintian = keyfence_tests::harness::system("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root"]);
    let ended = lintian
        .arg(files.path(&FIRST[1..]))
        .output()
        .expect("lintian can be started");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}");
}
