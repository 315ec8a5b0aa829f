//! The lab while it runs: the daemon and what is behind it, the traffic, and the samples taken of them.
//! Parts are started in the order of their need and stopped in the reverse order.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdin, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    ground::{self, Ground},
    metrics::{self, Counters},
    names::{self, Host, SERVER_V4, SERVER_V6, WEB_PORT},
    network,
    process::{self, OURSELVES, Running},
    signals::Signals,
    table::Sample,
    traffic::{Report, Role},
};
use crate::workspace;

/// The daemon compiles, loads and attaches within a second; on a loaded machine it may take several.
const READY_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A connect that nobody answers must run out, and last answers come in.
const TRAFFIC_PATIENCE: Duration = Duration::from_secs(10);

const POLICY: &str = include_str!("policy.toml");

/// The policy as it is shown: what it says, without the daemon's own part.
pub(super) fn policy_shown() -> String {
    let lines = POLICY.lines().take_while(|line| *line != "[daemon]");
    let lines: Vec<String> = lines.map(|line| format!("  | {line}")).collect();
    lines.join("\n").trim_end_matches("\n  | ").to_owned()
}

/// What was asked for by a signal, while something was waited for.
#[derive(Debug)]
pub(super) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped by a signal")
    }
}

impl std::error::Error for Stopped {}

/// The four machines at work. Dropped, all is stopped; fields in the order in which they are.
pub(super) struct Machines {
    traffic: [Generator; 3],
    events: Generator,
    daemon: Running,
    web: Running,
    began: Instant,
}

impl Machines {
    pub(super) fn start(
        ground: &Ground,
        keyfence: &Path,
        access_log: AccessLog,
        signals: &Signals,
    ) -> Result<Self> {
        network::build()?;
        ground::write(&names::policy(), POLICY)?;
        // Both serve before anyone sends: what comes to a closed port is let through, and nobody receives it.
        let mut web = start_web(access_log)?;
        let mut events = Generator::start(Host::Server, Role::Events)?;
        // nginx writes its file once it listens; the other speaks once it does.
        await_part(&mut web, signals, || Ok(nginx_file().exists()))?;
        let newest = Arc::clone(&events.newest);
        await_part(&mut events.running, signals, || {
            Ok(newest_of(&newest) != Report::default())
        })?;
        let mut daemon = start_daemon(Some(Host::Server), ground, keyfence)?;
        await_ready(&mut daemon, signals)?;
        let traffic = [
            Generator::start(Host::Client, Role::Listed)?,
            Generator::start(Host::Greedy, Role::Greedy)?,
            Generator::start(Host::Stranger, Role::Stranger)?,
        ];
        Ok(Self {
            traffic,
            events,
            daemon,
            web,
            began: Instant::now(),
        })
    }

    pub(super) fn daemon(&self) -> u32 {
        self.daemon.id()
    }

    /// Fails where a part that must run does not.
    pub(super) fn check(&mut self) -> Result<()> {
        self.daemon.check()?;
        self.web.check()?;
        self.events.running.check()?;
        for generator in &mut self.traffic {
            generator.running.check()?;
        }
        Ok(())
    }

    pub(super) fn sample(&self) -> Result<Sample> {
        let counters = Counters::read(&names::socket())?;
        Ok(Sample {
            at: self.began.elapsed(),
            counters,
            reports: [0, 1, 2].map(|guest: usize| self.traffic[guest].report()),
        })
    }

    /// Ends the traffic and waits until all of it has been judged and answered: the sample after it, and what the
    /// server of the datagrams received, are exact.
    pub(super) fn end_traffic(&mut self) -> Result<Report> {
        for generator in &mut self.traffic {
            generator.tell_to_end();
        }
        for generator in &mut self.traffic {
            generator.end()?;
        }
        self.events.tell_to_end();
        self.events.end()?;
        Ok(self.events.report())
    }

    /// Ends the daemon, which takes the filter off. True where it ended by itself, and well.
    pub(super) fn end_daemon(&mut self) -> Result<bool> {
        self.daemon.stop()
    }
}

/// Whether the web server writes down who reached it. A lab that stays up would fill the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessLog {
    Written,
    Off,
}

fn start_web(access_log: AccessLog) -> Result<Running> {
    let config = names::file("nginx.conf");
    ground::write(&config, &nginx_config(access_log))?;
    let nginx = workspace::program("nginx").context("the program nginx is missing")?;
    let mut command = process::command(Some(Host::Server), &nginx);
    command
        .arg("-c")
        .arg(&config)
        .args(["-p", names::FOLDER, "-e", "stderr"]);
    Running::start("nginx", names::file("nginx.log"), command.stdout(Stdio::null()))
}

/// All its files are in the lab's folder. One process: it needs no other user, and nothing outlives it.
fn nginx_config(access_log: AccessLog) -> String {
    let folder = names::FOLDER;
    let access_log = match access_log {
        AccessLog::Written => format!("{} who", access_file().display()),
        AccessLog::Off => String::from("off"),
    };
    let temporary: Vec<String> = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("    {what}_temp_path {folder}/nginx-{what};"))
        .into();
    format!(
        "daemon off;
master_process off;
pid {};
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    log_format who '$remote_addr $status';
    access_log {access_log};
{}
    default_type text/plain;
    server {{
        listen {SERVER_V4}:{WEB_PORT};
        listen [{SERVER_V6}]:{WEB_PORT};
        location / {{ return 200 \"Hello $remote_addr, the policy lists you.\\n\"; }}
    }}
}}
",
        nginx_file().display(),
        temporary.join("\n")
    )
}

fn nginx_file() -> PathBuf {
    names::file("nginx.pid")
}

/// Who reached the web server: a line each of address and status.
pub(super) fn access_file() -> PathBuf {
    names::file("access.log")
}

/// `keyfence run` with the policy in the lab's folder.
pub(super) fn start_daemon(host: Option<Host>, ground: &Ground, keyfence: &Path) -> Result<Running> {
    let mut command = process::command(host, keyfence);
    command.arg("run").arg("--policy").arg(names::policy());
    command.arg("--bpf-fs").arg(ground.bpf_fs());
    command.args(["--log-format", "text"]).stdout(Stdio::null());
    Running::start("keyfence run", names::daemon_log(), &mut command)
}

/// Waits until the daemon says that all is in force.
pub(super) fn await_ready(daemon: &mut Running, signals: &Signals) -> Result<()> {
    await_part(daemon, signals, || metrics::is_ready(&names::socket()))
}

/// Waits until a part that was started is as it should be.
fn await_part(part: &mut Running, signals: &Signals, is_ready: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + READY_PATIENCE;
    loop {
        part.check()?;
        match is_ready() {
            Ok(true) => return Ok(()),
            Ok(false) | Err(_) if Instant::now() < end => {}
            Ok(false) => bail!(
                "{} is not ready after {} s",
                part.name(),
                READY_PATIENCE.as_secs()
            ),
            Err(error) => return Err(error.context(format!("{} does not answer", part.name()))),
        }
        if signals.pause(LOOK_EVERY) {
            return Err(Stopped.into());
        }
    }
}

/// A machine's traffic, and the newest that it said of itself.
struct Generator {
    /// Closed, it ends; so it does when this process dies.
    input: Option<ChildStdin>,
    running: Running,
    reader: Option<thread::JoinHandle<()>>,
    newest: Arc<Mutex<Report>>,
}

impl Generator {
    fn start(host: Host, role: Role) -> Result<Self> {
        let mut command = process::command(Some(host), Path::new(OURSELVES));
        command.args(["lab-traffic", role.name()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let log = names::file(&format!("traffic-{}.log", role.name()));
        let mut running = Running::start(role.name(), log, &mut command)?;
        let input = running.child().stdin.take();
        let output = running
            .child()
            .stdout
            .take()
            .context("a generator has no output")?;
        let newest = Arc::new(Mutex::new(Report::default()));
        let kept = Arc::clone(&newest);
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = Report::parse(&line);
            }
        });
        Ok(Self {
            input,
            running,
            reader: Some(reader),
            newest,
        })
    }

    fn report(&self) -> Report {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell_to_end(&mut self) {
        self.input = None;
    }

    /// Waits for its end and its last line.
    fn end(&mut self) -> Result<()> {
        if self.running.wait(TRAFFIC_PATIENCE)?.is_none() {
            bail!("a traffic generator does not end");
        }
        if let Some(reader) = self.reader.take() {
            // It only keeps lines, and its pipe is closed.
            drop(reader.join());
        }
        Ok(())
    }
}

fn newest_of(newest: &Mutex<Report>) -> Report {
    newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::names::{EVENTS_PORT, GREEDY_LIMIT_PER_SECOND, GUESTS, INSTANCE, METRICS};

    #[test]
    fn the_policy_says_what_the_lab_plays() {
        let policy: toml::Table = POLICY.parse().unwrap();
        let clients = policy["client"].as_array().unwrap();
        for (client, guest) in clients.iter().zip(GUESTS) {
            assert_eq!(client["name"].as_str(), Some(guest.shown()));
            assert_eq!(client["sources"][0].as_str(), Some(guest.v4()));
        }
        let rate = clients[1]["limit"]["packets"]["rate"].as_integer();
        assert_eq!(rate, i64::try_from(GREEDY_LIMIT_PER_SECOND).ok());
        for (service, port) in policy["service"]
            .as_array()
            .unwrap()
            .iter()
            .zip([WEB_PORT, EVENTS_PORT])
        {
            assert_eq!(service["ports"][0].as_integer(), Some(i64::from(port)));
            assert_eq!(service["address"][0].as_str(), Some(SERVER_V4));
            assert_eq!(service["address"][1].as_str(), Some(SERVER_V6));
        }
        assert_eq!(policy["daemon"]["instance"].as_str(), Some(INSTANCE));
        assert_eq!(policy["daemon"]["on-exit"].as_str(), Some("detach"));
        let socket = format!("unix:{}", names::socket().display());
        assert_eq!(policy["listener"][0]["address"].as_str(), Some(&*socket));
        assert_eq!(
            policy["listener"][1]["address"].as_str(),
            Some(&*format!("tcp:{METRICS}"))
        );
    }

    #[test]
    fn what_is_shown_of_the_policy_ends_before_the_daemons_part() {
        let shown = policy_shown();
        assert!(
            shown.contains("rate = 2000") && !shown.contains("[daemon]"),
            "{shown}"
        );
        assert!(shown.ends_with("ports    = [22]"), "{shown}");
    }

    #[test]
    fn the_web_server_keeps_to_the_labs_folder() {
        let config = nginx_config(AccessLog::Written);
        let of_folder = config.matches("/run/keyfence-lab/").count();
        assert_eq!(
            config.matches('/').count(),
            of_folder * 3 + "text/plain".matches('/').count() + 1
        );
        assert!(nginx_config(AccessLog::Off).contains("access_log off;"));
    }
}
