//! Runs a long command and shows that it goes on: one moving line on a terminal, plain lines elsewhere.
//! What the command prints is kept back, and its tail shown only where it fails.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, IsTerminal, Read},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// The lines kept to show where a command fails.
const TAIL_LINES_MAX: usize = 40;
/// The lines in flight between the readers and the display; a full channel slows the command down a little.
const CHANNEL_LINES_MAX: usize = 256;
/// Off a terminal, how often a line says that it still goes on.
const STILL_EVERY: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(250);
const SPINNER_EVERY: Duration = Duration::from_millis(120);

/// Runs the command under this heading. Its standard input is empty: nothing may ask.
pub(crate) fn run(heading: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let display = Display::start(heading);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let (sender, lines) = mpsc::sync_channel(CHANNEL_LINES_MAX);
    let readers = [
        child.stdout.take().map(|pipe| forward(pipe, sender.clone())),
        child.stderr.take().map(|pipe| forward(pipe, sender)),
    ];
    let mut tail = VecDeque::with_capacity(TAIL_LINES_MAX);
    let mut shown = started;
    loop {
        match lines.recv_timeout(STILL_EVERY) {
            Ok(line) => {
                display.line(&line);
                if tail.len() == TAIL_LINES_MAX {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if shown.elapsed() >= STILL_EVERY {
            display.still(started.elapsed(), tail.back().map_or("", String::as_str));
            shown = Instant::now();
        }
    }
    let status = child.wait().context("cannot wait for the command")?;
    for reader in readers.into_iter().flatten() {
        // A reader only forwards lines; it ended, since the channel is closed.
        drop(reader.join());
    }
    display.end(heading, started.elapsed(), status.success());
    if !status.success() {
        let tail: Vec<String> = tail.into_iter().map(|line| format!("  | {line}")).collect();
        bail!(
            "{heading}: {status}; the command was\n  {command:?}\nand its output ended with\n{}",
            tail.join("\n")
        );
    }
    Ok(())
}

/// Shows what `poll` says under this heading, until it has nothing more to say.
pub(crate) fn watch(heading: &str, mut poll: impl FnMut() -> Result<Option<String>>) -> Result<()> {
    let started = Instant::now();
    let display = Display::start(heading);
    let mut shown = started;
    while let Some(line) = poll()? {
        display.line(&line);
        if shown.elapsed() >= STILL_EVERY {
            display.still(started.elapsed(), &line);
            shown = Instant::now();
        }
        thread::sleep(POLL_EVERY);
    }
    display.end(heading, started.elapsed(), true);
    Ok(())
}

/// Sends each line of the pipe, also of one that only returns the carriage, as apt's own progress does.
fn forward(pipe: impl Read + Send + 'static, lines: SyncSender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line);
            let last = text.trim_end().rsplit('\r').next().unwrap_or_default().to_owned();
            if !last.is_empty() && lines.send(last).is_err() {
                return;
            }
        }
    })
}

enum Display {
    Spinner(ProgressBar),
    Plain { heading: String },
}

impl Display {
    fn start(heading: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            eprintln!("{heading} ...");
            return Self::Plain {
                heading: heading.to_owned(),
            };
        }
        let style = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}");
        let spinner = ProgressBar::new_spinner()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
            .with_prefix(heading.to_owned());
        spinner.enable_steady_tick(SPINNER_EVERY);
        Self::Spinner(spinner)
    }

    fn line(&self, line: &str) {
        if let Self::Spinner(spinner) = self {
            spinner.set_message(line.to_owned());
        }
    }

    fn still(&self, elapsed: Duration, line: &str) {
        if let Self::Plain { heading } = self {
            eprintln!("{heading} ... {} s: {}", elapsed.as_secs(), line.trim());
        }
    }

    fn end(&self, heading: &str, elapsed: Duration, succeeded: bool) {
        if let Self::Spinner(spinner) = self {
            spinner.finish_and_clear();
        }
        let outcome = if succeeded { "done" } else { "FAILED" };
        eprintln!("{heading}: {outcome} in {:.1} s", elapsed.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_that_fails_shows_the_end_of_its_output() {
        let script =
            "i=0; while [ $i -lt 100 ]; do echo out $i; i=$((i+1)); done; echo the reason >&2; exit 3";
        let error = run("Trying", &mut shell(script)).unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("the reason"),
            "{error}"
        );
        assert!(
            error.contains("out 99") && !error.contains("  | out 1\n"),
            "{error}"
        );
    }

    #[test]
    fn a_command_that_succeeds_is_silent() {
        run("Trying", &mut shell("echo much; echo more >&2")).unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run("Trying", &mut Command::new("no-such-program-here")).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program-here"));
    }
}
