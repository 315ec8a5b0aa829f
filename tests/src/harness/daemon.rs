//! The daemon under test: started, asked, signalled, killed; its log is shown when the test fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::http::{self, Answer};
use super::policy::Policy;
use super::program::{keyfence, keyfence_path, output};
use super::site::Site;
use super::wait::until;

/// What it says on standard error, of all of a site.
const LOG: &str = "daemon.log";

/// A running daemon of a site's policy file; killed when this goes. What it attached stays until the site goes.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

/// A daemon that did not stay.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub log: String,
}

impl Daemon {
    /// Starts one with this policy, and waits until it is ready. What an earlier one of the site had in force goes.
    pub fn start(site: &Site, policy: &Policy) -> Self {
        site.write(policy);
        let daemon = Self::start_again(site);
        if daemon.status()["policy"]["file_differs"] == true {
            daemon.reload();
        }
        daemon
    }

    /// Starts one with the policy file as it is, and waits until it is ready: in force is what was last.
    pub fn start_again(site: &Site) -> Self {
        Self::start_with(site, &[])
    }

    /// The same with more arguments.
    pub fn start_with(site: &Site, arguments: &[&str]) -> Self {
        Self::start_as(site, Self::command(site).args(arguments))
    }

    /// The same by a command of one's own.
    pub fn start_as(site: &Site, command: &mut Command) -> Self {
        Self::spawn(site, command).ready()
    }

    /// Starts one of another instance, with files of its own, and waits until it is ready.
    pub fn elsewhere(site: &Site, instance: &str, policy: &Policy) -> Self {
        let file = |end: &str| site.folder().join(format!("{instance}{end}"));
        let policy = policy.clone().daemon(&format!("instance = \"{instance}\""));
        let (path, socket) = (file(".toml"), file(".sock"));
        fs::write(&path, policy.text(&socket)).expect("a temporary folder can be written");
        let mut command = site.server.command(keyfence_path());
        command.arg("run").arg("--policy").arg(path);
        command.arg("--bpf-fs").arg(site.bpf.path());
        command.arg("--state").arg(file("-state"));
        let mut daemon = Self::spawn(site, &mut command);
        daemon.socket = socket;
        daemon.ready()
    }

    /// Starts one that has something to say before it is ready; waits until it answers.
    pub fn start_unready(site: &Site) -> Self {
        Self::start_unready_as(site, &mut Self::command(site))
    }

    /// The same by a command of one's own.
    pub fn start_unready_as(site: &Site, command: &mut Command) -> Self {
        let daemon = Self::spawn(site, command);
        until("the daemon answers", || daemon.get("/readyz"));
        daemon
    }

    fn ready(mut self) -> Self {
        until("the daemon is ready", || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the daemon ended ({status})");
            }
            self.get("/readyz").filter(|answer| answer.status == 200)
        });
        self
    }

    /// `keyfence run` in the server's namespace.
    pub fn command(site: &Site) -> Command {
        Self::command_of(site, &keyfence_path())
    }

    /// The same of another build.
    pub fn command_of(site: &Site, program: &Path) -> Command {
        let mut command = site.server.command(program);
        command.args(Self::arguments(site));
        command
    }

    pub fn arguments(site: &Site) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        vec![
            "run".into(),
            "--policy".into(),
            path(&site.policy_file()),
            "--bpf-fs".into(),
            path(site.bpf.path()),
            "--state".into(),
            path(&site.state()),
        ]
    }

    fn spawn(site: &Site, command: &mut Command) -> Self {
        let log = site.folder().join(LOG);
        let file = File::options().create(true).append(true).open(&log);
        let file = file.expect("a temporary folder can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        Self {
            child,
            log,
            socket: site.socket(),
        }
    }

    /// Runs a daemon that must not stay, to its end.
    pub fn refused(site: &Site, command: &mut Command) -> Ended {
        // Before it begins: it may be at its end before this process goes on.
        let before = fs::metadata(site.folder().join(LOG)).map_or(0, |log| log.len() as usize);
        let mut daemon = Self::spawn(site, command);
        let status = daemon.wait();
        Ended {
            code: status.code(),
            log: daemon.log().get(before..).unwrap_or_default().to_owned(),
        }
    }

    /// The command that a refused start names between backticks: the first with `mv`.
    pub fn way_back(ended: &Ended) -> Command {
        let named = ended.log.split('`').skip(1).step_by(2);
        let way = named.into_iter().find(|command| command.starts_with("mv "));
        let way = way.unwrap_or_else(|| panic!("no way back is named: {}", ended.log));
        let mut command = Command::new("sh");
        command.args(["-ec", way]);
        command
    }

    /// `keyfence detach` of a site's instance, with nobody to answer its question.
    pub fn detach(site: &Site, arguments: &[&str]) -> Ended {
        let mut command = keyfence();
        command.args(["detach", "--policy"]).arg(site.policy_file());
        command.arg("--bpf-fs").arg(site.bpf.path());
        let output = output(command.args(arguments).stdin(Stdio::null()));
        Ended {
            code: output.status.code(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that daemons of this site have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An answer of its listener, if it gives one.
    pub fn get(&self, path: &str) -> Option<Answer> {
        http::get(&self.socket, path).ok()
    }

    /// A request with a body of JSON, null being none; `None` where nobody answers.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        if body.is_null() {
            return self.ask_with(method, path, "");
        }
        let kind = "Content-Type: application/json\r\n";
        http::ask(&self.socket, method, path, kind, &body.to_string()).ok()
    }

    /// A request with a body of lines.
    pub fn ask_lines(&self, method: &str, path: &str, lines: &str) -> Option<Answer> {
        let kind = "Content-Type: application/x-ndjson\r\n";
        http::ask(&self.socket, method, path, kind, lines).ok()
    }

    /// A request without a body, with these header lines.
    pub fn ask_with(&self, method: &str, path: &str, headers: &str) -> Option<Answer> {
        http::ask(&self.socket, method, path, headers, "").ok()
    }

    pub fn status(&self) -> Value {
        let answer = self.get("/v1/status").expect("a ready daemon answers");
        serde_json::from_str(&answer.body).expect("the status is JSON")
    }

    pub fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().expect("a number")
    }

    /// A page of metrics.
    pub fn scrape(&self) -> String {
        let answer = self.get("/metrics").expect("a ready daemon answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// One sample: name and labels as the page has them.
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.scrape();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("{series} is not in the metrics:\n{page}"));
        value.parse().expect("values are numbers")
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(id), signal).expect("the daemon runs");
    }

    /// Lets it read its policy file again; returns as soon as the file is in force, and written down as confirmed: one that is
    /// killed before goes back.
    pub fn reload(&self) {
        let before = self.generation();
        self.signal(Signal::SIGHUP);
        until("the policy is in force", || {
            let status = self.status();
            let ok = status["policy"]["reload_ok"] == true;
            (ok && status["generation"].as_u64() > Some(before)).then_some(())
        });
        until("the policy is on disk", || {
            let answer = self.get("/v1/policy/history")?;
            let history: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
            let mut entries = history["items"].as_array()?.iter();
            let confirmed = entries.find(|entry| entry["state"] == "confirmed")?;
            (confirmed["hash"] == history["in_force"]).then_some(())
        });
    }

    /// Lets it read a policy file that it must refuse; returns when it has.
    pub fn reload_in_vain(&self) {
        self.signal(Signal::SIGHUP);
        until("the policy is refused", || {
            (self.metric("keyfence_policy_reload_success") == 0.0).then_some(())
        });
    }

    /// As a crash does.
    pub fn kill(mut self) {
        self.child.kill().expect("the daemon runs");
        self.wait();
    }

    /// As a service manager or a terminal does.
    pub fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        until("the daemon has ended", || {
            self.child.try_wait().expect("it is our child")
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the daemon's threads:\n{}", threads(self.child.id()));
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the daemon's log:\n{}---", self.log());
        }
    }
}

/// What each thread of a process waits for in the kernel; nothing of one that has ended.
fn threads(id: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let of = |task: fs::DirEntry| {
        let read = |what: &str| fs::read_to_string(task.path().join(what)).unwrap_or_default();
        format!(
            "{}: {}\n{}",
            read("comm").trim_end(),
            read("wchan"),
            read("stack")
        )
    };
    tasks.map(of).collect()
}
