//! The lab as a user starts it: `cargo xtask run` in all its ways, and that nothing of it is left afterwards.
//! Needs root. One lab at a time, also over processes: each test holds a lock.
#![allow(
    clippy::unwrap_used,
    reason = "a test may stop at a surprise: that is its failure"
)]

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const FOLDER: &str = "/run/keyfence-lab";
/// A build may come first.
const PATIENCE: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(15);

/// Held by the test that runs a lab.
fn turn() -> File {
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("live-lab.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// `cargo xtask run`, by the program itself where KEYFENCE_XTASK names it; its id is in both ways that of the lab.
fn lab(arguments: &[&str]) -> Command {
    let mut command = match env::var_os("KEYFENCE_XTASK") {
        Some(program) => Command::new(program),
        None => {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["run", "--quiet", "--package", "xtask", "--"]);
            cargo
        }
    };
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.arg("run").args(arguments).stdin(Stdio::null());
    command
}

/// What bears the lab's name on this machine.
fn left() -> Vec<String> {
    let entries = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries("/run/netns").filter_map(|entry| entry.file_name().into_string().ok());
    let mut left: Vec<String> = names.filter(|name| name.starts_with("keyfence-lab")).collect();
    left.extend(processes());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains("keyfence-lab"))
            .map(str::to_owned),
    );
    let paths = [FOLDER, "/sys/fs/bpf/keyfence/keyfence-lab"];
    left.extend(
        paths
            .iter()
            .filter(|path| Path::new(path).exists())
            .map(|path| (*path).to_owned()),
    );
    let interfaces = entries("/sys/class/net").filter_map(|entry| entry.file_name().into_string().ok());
    left.extend(interfaces.filter(|name| name.starts_with("lab-")));
    left
}

/// Those that the lab starts: all are told a path or a role of it.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines
        .filter(|line| line.contains("/run/keyfence-lab/") || line.contains(" lab-traffic "))
        .collect()
}

fn until(what: &str, patience: Duration, holds: impl Fn() -> bool) {
    let end = Instant::now() + patience;
    while !holds() {
        assert!(
            Instant::now() < end,
            "{what}: not within {} s",
            patience.as_secs()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// A lab that stays up. Killed when a test fails.
struct Up {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Up {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Reads on until a line holds this.
    fn read_until(&mut self, part: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            if read == 0 {
                let mut errors = String::new();
                self.child
                    .stderr
                    .take()
                    .unwrap()
                    .read_to_string(&mut errors)
                    .unwrap();
                panic!("the lab ended before {part:?}: {errors}");
            }
            if line.contains(part) {
                return line;
            }
            assert!(Instant::now() < end, "no {part:?} came");
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// What was printed to its end, and whether it ended well.
    fn end(mut self) -> (String, bool) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        (rest, status.success())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal("-TERM");
            drop(self.child.wait());
        }
    }
}

/// Runs `--once`; answers what it printed, both ways.
fn once() -> (String, String) {
    let output = lab(&["--once"]).output().unwrap();
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{out}\n{error}");
    (out, error)
}

#[test]
fn once_holds_all_its_checks_and_leaves_nothing() {
    let _turn = turn();
    let (out, _) = once();
    for part in [
        "acme gets 200 over IPv4",
        "acme gets 200 over IPv6",
        "greedy is held to its limit within 2 %",
        "the stranger's connects time out",
        "checks hold.",
    ] {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
    assert!(!out.contains("FAILED"), "{out}");
    assert_eq!(left(), [""; 0]);
}

#[test]
fn a_lab_that_stays_up_shows_each_second_and_ends_by_ctrl_c_without_a_trace() {
    let _turn = turn();
    let mut up = Up::start(&mut lab(&[]));
    assert!(
        up.read_until("the metrics")
            .contains("nsenter --net=/run/netns/keyfence-lab-server curl")
    );
    up.read_until("acme: ");
    let line = up.read_until("acme: ");
    assert!(
        line.contains("/s passed") && line.contains("/s dropped"),
        "{line}"
    );
    up.signal("-INT");
    let (rest, well) = up.end();
    assert!(well && rest.contains("Nothing of it is left."), "{rest}");
    assert_eq!(left(), [""; 0]);
}

#[test]
fn a_second_lab_is_refused_and_leaves_the_first_alone() {
    let _turn = turn();
    let mut up = Up::start(&mut lab(&[]));
    up.read_until("acme: ");
    let second = lab(&["--once"]).output().unwrap();
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && error.contains("another lab runs"),
        "{error}"
    );
    up.read_until("acme: ");
    up.signal("-TERM");
    assert!(up.end().1);
    assert_eq!(left(), [""; 0]);
}

#[test]
fn a_lab_that_is_killed_takes_its_processes_along_and_the_next_clears_up_the_rest() {
    let _turn = turn();
    let mut up = Up::start(&mut lab(&[]));
    up.read_until("acme: ");
    up.signal("-KILL");
    assert!(!up.end().1);
    until("its processes end", SOON, || processes().is_empty());
    let stale = left();
    assert!(
        stale.iter().any(|left| left == "keyfence-lab-server"),
        "nothing to clear up: {stale:?}"
    );
    let (_, error) = once();
    assert!(
        error.contains("An earlier lab was killed; removed what it left: "),
        "{error}"
    );
    assert!(error.contains("namespace keyfence-lab-server"), "{error}");
    assert_eq!(left(), [""; 0]);
}

/// Two hosts joined by a cable, apart from this one. Removed when dropped.
struct Cable;

const NEAR: &str = "kf-trial-near";
const FAR: &str = "kf-trial-far";
const POLICY: &str = r#"
version = 1
[filter]
interfaces = ["another"]
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
mode = "enforce"
[[client]]
name = "nobody"
sources = ["192.0.2.77"]
services = ["web"]
"#;

impl Cable {
    fn lay() -> Self {
        let cable = Self;
        for line in [
            format!("netns add {NEAR}"),
            format!("netns add {FAR}"),
            format!("-n {NEAR} link add trial type veth peer name trial netns {FAR}"),
            format!("-n {NEAR} address add 192.0.2.1/24 dev trial"),
            format!("-n {FAR} address add 192.0.2.2/24 dev trial"),
            format!("-n {NEAR} link set trial up"),
            format!("-n {FAR} link set trial up"),
        ] {
            assert!(ip(&line).0, "ip {line}");
        }
        cable
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [NEAR, FAR] {
            ip(&format!("netns delete {namespace}"));
        }
    }
}

fn ip(line: &str) -> (bool, String) {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// The exit code of curl: 7 where the host answered that nobody listens, 28 where it did not answer.
fn connect_from_afar() -> Option<i32> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{FAR}"));
    command.args(["curl", "--silent", "--max-time", "2", "http://192.0.2.1/"]);
    command.status().unwrap().code()
}

/// The same command in the near host's namespace.
fn nearby(inner: &Command) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{NEAR}"));
    command.arg(inner.get_program()).args(inner.get_args());
    command.current_dir(inner.get_current_dir().unwrap());
    command
}

#[test]
fn a_trial_on_an_interface_drops_nothing_unless_told_and_takes_its_filter_off() {
    let _turn = turn();
    let _cable = Cable::lay();
    let policy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live-lab-trial.toml");
    fs::write(&policy, POLICY).unwrap();
    let policy = policy.to_str().unwrap();
    for (more, code) in [(&[][..], 7), (&["--enforce"][..], 28)] {
        let trial = lab(&[&["--interface", "trial", "--policy", policy], more].concat());
        let mut up = Up::start(&mut nearby(&trial));
        up.read_until("The filter is on trial");
        assert_eq!(connect_from_afar(), Some(code), "{more:?}");
        up.signal("-INT");
        let (rest, well) = up.end();
        assert!(well && rest.contains("The filter is off trial again."), "{rest}");
        assert_eq!(connect_from_afar(), Some(7), "the filter is off");
        assert!(!ip(&format!("-n {NEAR} link show trial")).1.contains("xdp"));
        assert_eq!(left(), [""; 0]);
    }
    assert_eq!(
        fs::read_to_string(policy).unwrap(),
        POLICY,
        "the policy itself stays as it is"
    );
}
