//! Programs of the lab: each started in its namespace, bound to this process's life, and stopped in time.
//! A program is started by way of the hidden command `lab-exec`, which enters the namespace, asks the kernel for a
//! SIGTERM when its parent dies (also by SIGKILL), and becomes the program.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Pid, getpid, getppid},
};

use super::{
    names::{Host, namespace_file},
    signals,
};

/// This program, also where a build has replaced its file meanwhile.
pub(super) const OURSELVES: &str = "/proc/self/exe";
/// How long a program may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Of a log, shown where its program failed.
const LOG_LINES_MAX: usize = 20;

/// The arguments of `lab-exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArguments {
    /// Who started it: where that is not its parent any more, it ends at once.
    #[arg(long)]
    parent: i32,
    #[arg(long)]
    namespace: Option<String>,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes the program.
pub(crate) fn exec(arguments: &ExecArguments) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM).context("cannot be bound to the lab's life")?;
    ensure!(
        getppid() == Pid::from_raw(arguments.parent),
        "the lab is gone already"
    );
    if let Some(namespace) = &arguments.namespace {
        let file = namespace_file(namespace);
        let file = File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {namespace}"))?;
    }
    signals::release()?;
    let program = &arguments.program;
    let error = Command::new(program).args(&arguments.arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// A command that will run on this machine of the lab, or on this host itself; without input and apart from the
/// terminal's signals.
pub(super) fn command(host: Option<Host>, program: &Path) -> Command {
    let mut command = Command::new(OURSELVES);
    command.arg0("keyfence-lab").arg("lab-exec");
    command.args(["--parent", &getpid().to_string()]);
    if let Some(host) = host {
        command.args(["--namespace", host.namespace()]);
    }
    command.arg("--").arg(program);
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// A program that runs. Dropped, it is stopped.
pub(super) struct Running {
    name: &'static str,
    child: Child,
    /// Where its standard error goes.
    log: PathBuf,
}

impl Running {
    /// Starts it; its log is made anew.
    pub(super) fn start(name: &'static str, log: PathBuf, command: &mut Command) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let child = command.stderr(file).spawn();
        let child = child.with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Fails where the program has ended, with the end of its log.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot look after a program")? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}){}", self.name, self.tail()),
        }
    }

    /// Waits for its end, as long as the patience lasts.
    pub(super) fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + patience;
        loop {
            let status = self.child.try_wait().context("cannot look after a program")?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks it to end, and ends it where it does not. True where it ended by itself.
    pub(super) fn stop(&mut self) -> Result<bool> {
        if self.child.try_wait()?.is_some() {
            return Ok(true);
        }
        send(self.child.id(), Signal::SIGTERM);
        if self.wait(END_PATIENCE)?.is_some() {
            return Ok(true);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(false)
    }

    fn tail(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What does not end here is found in its namespace, and ended, when that is removed.
        drop(self.stop());
    }
}

/// The end of a log, to be added to a message.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let lines = &lines[lines.len().saturating_sub(LOG_LINES_MAX)..];
    if lines.is_empty() {
        return String::from(" and said nothing");
    }
    format!("; the end of its log:\n  {}", lines.join("\n  "))
}

/// A process that is gone already is what was wanted.
pub(super) fn send(process: u32, signal: Signal) {
    if let Ok(process) = i32::try_from(process) {
        _ = kill(Pid::from_raw(process), signal);
    }
}

/// The processes of this machine that the test picks, by their folder in /proc.
pub(super) fn find(picks: impl Fn(&Path) -> bool) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = std::process::id();
    entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(process, folder)| *process != ours && picks(folder))
        .map(|(process, _)| process)
        .collect()
}

/// Ends processes that nobody here started: first as a terminal that closes would, since a shell may be among
/// them. Returns when they are gone, or when nothing more can be done.
pub(super) fn end(processes: &[u32]) {
    for (signal, patience) in [
        (Signal::SIGHUP, Duration::from_millis(300)),
        (Signal::SIGTERM, Duration::from_millis(1_500)),
        (Signal::SIGKILL, END_PATIENCE),
    ] {
        let alive = |process: &&u32| Path::new("/proc").join(process.to_string()).exists();
        for process in processes.iter().filter(alive) {
            send(*process, signal);
        }
        let end = Instant::now() + patience;
        while processes.iter().any(|process| alive(&process)) {
            if Instant::now() >= end {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ended_shows_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason >&2; exit 3"]);
        let mut running = Running::start("sh", folder.path().join("log"), &mut command).unwrap();
        running.wait(END_PATIENCE).unwrap();
        let error = running.check().unwrap_err().to_string();
        assert!(
            error.contains("sh ended (exit status: 3)") && error.contains("the reason"),
            "{error}"
        );
    }

    #[test]
    fn a_program_is_stopped_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        let running = Running::start("sleep", folder.path().join("log"), command.arg("60")).unwrap();
        let process = Path::new("/proc").join(running.id().to_string());
        assert!(process.exists());
        drop(running);
        assert!(!process.exists());
    }

    #[test]
    fn a_long_log_is_cut_to_its_end() {
        let log: String = (0..100).map(|line| format!("line {line}\n")).collect();
        let tail = tail(&log);
        assert!(tail.contains("line 99") && !tail.contains("line 79\n"), "{tail}");
    }
}
