//! `keyfence top`: a live view of who passes and who is refused, on a terminal or as a stream of objects.
//!
//! The daemon is asked once an interval and computes the rates; here they are sorted, filtered and drawn. The terminal is
//! given back as it was, however this ends.

mod answer;
mod draw;
mod screen;
mod state;
mod table;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use hyper::Method;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::answer::Top;
use self::screen::Screen;
use self::state::{Next, State};
use super::client::{self, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::Shell;
use super::stop::{self, Stop};

/// The daemon needs a moment between two looks, and nobody reads faster.
const INTERVAL_MIN: Duration = Duration::from_millis(500);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// A daemon that is busy answers late, and is waited for beside the keys.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon a key, a signal and an answer are seen.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Typed ahead of the drawing; more waits in the terminal.
const EVENTS_WAITING_MAX: usize = 64;

const AFTER_HELP: &str = "\
Keys: 1 to 5 choose a view, s sorts by the next column, r turns the order, / filters, p pauses, ? shows all keys, q quits.

Sources are those refused in the records' interval so far, shown as the records show them. Rates are of the time since \
the look before. A bucket that is nearly empty is near its limit.

Exit codes:
  0  ended by its user, or nobody reads any more
  1  failed
  2  wrong usage
  5  the daemon is not reachable

Examples:
  keyfence top
  keyfence top --interval 5s
  keyfence top --json | jq -c '.sources[:3]'";

/// Watch live who passes and who is refused, and which limits are near
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// How often the daemon is asked, from 500ms to 1m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Owners, sources and buckets that are asked for, each the busiest so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    daemon: SocketArguments,
    /// No terminal: one JSON object a line, each interval, until interrupted
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let span = crate::policy::units::duration_from_text(text).ok();
    span.filter(|span| (INTERVAL_MIN..=INTERVAL_MAX).contains(span))
        .ok_or_else(|| "a time from 500ms to 1m".to_owned())
}

/// What is asked again and again.
#[derive(Clone)]
struct Question {
    socket: PathBuf,
    path: String,
}

impl Question {
    fn ask(&self) -> Result<String, Failure> {
        client::ask(Path::new(&self.socket), Method::GET, &self.path, PATIENCE)
    }

    fn top(&self) -> Result<Top, Failure> {
        let unread = |error| {
            let text = format!("the daemon's answer is not understood: {error}; is it of another version?");
            Failure::new(Exit::Failed, text)
        };
        serde_json::from_str(&self.ask()?).map_err(unread)
    }
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let question = Question {
        socket: arguments.daemon.socket.clone(),
        path: format!("/v1/top?limit={}", arguments.limit),
    };
    let stop = Stop::listen()?;
    if arguments.json {
        return stream(&question, arguments.interval, &stop, shell);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let fix = "`keyfence top` needs a terminal for its input and output; for programs there is --json";
        return Err(Failure::new(Exit::Failed, fix));
    }
    // Before the terminal is taken: a daemon that cannot be asked is told of on a line.
    let mut state = State::new(question.top()?);
    watch(&mut state, news(question, arguments.interval), &stop, shell)
}

fn stream(question: &Question, interval: Duration, stop: &Stop, shell: &Shell) -> Result<Exit, Failure> {
    loop {
        let answer = question.ask()?;
        shell.write(&format!("{}\n", answer.trim_end()))?;
        if stop.comes_within(interval) || stop::reader_left() {
            return Ok(Exit::Done);
        }
    }
}

/// Asks on a thread of its own, so that keys never wait for the daemon.
fn news(question: Question, interval: Duration) -> Receiver<Result<Top, Failure>> {
    let (tell, news) = sync_channel(1);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(interval);
            // Nobody looks any more.
            if tell.send(question.top()).is_err() {
                return;
            }
        }
    });
    news
}

/// What is typed, as it is typed. crossterm 0.29 reads a terminal that is gone for ever (its `event/source/unix/mio.rs`
/// leaves its loop at no end of file): on a thread of its own it holds up nobody, and goes with the process.
fn events() -> Receiver<Event> {
    let (tell, events) = sync_channel(EVENTS_WAITING_MAX);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if tell.send(event).is_err() {
                return;
            }
        }
    });
    events
}

fn watch(
    state: &mut State,
    news: Receiver<Result<Top, Failure>>,
    stop: &Stop,
    shell: &Shell,
) -> Result<Exit, Failure> {
    let mut screen = Screen::open()?;
    let events = events();
    let mut changed = true;
    loop {
        for told in news.try_iter() {
            state.take(told);
            changed = true;
        }
        if changed && screen.draw(state, shell.colour_output).is_err() {
            // The terminal is gone.
            return Ok(Exit::Done);
        }
        changed = false;
        if stop.comes_within(Duration::ZERO) || stop::reader_left() {
            return Ok(Exit::Done);
        }
        match events.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                if state.key(key) == Next::Quit {
                    return Ok(Exit::Done);
                }
                changed = true;
            }
            Ok(_) => changed = true,
            // As above.
            Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Done),
        }
    }
}
