//! `keyfence capture`: judged packets from the daemon, as pcapng to a file or a pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use filter_common::verdict::{Reason, Verdict};
use serde_json::json;

use super::client::{self, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::Shell;
use super::words::{count, thousands};
use crate::policy::units::{Unit, count_from_text, duration_from_text};

mod blocks;

use blocks::{Blocks, Totals};

const AFTER_HELP: &str = "\
Each packet is captured as the filter saw it, with what was decided as its comment: verdict=drop reason=unlisted \
service=payments owner=client/acme. Wireshark and tshark show it, and filter by it: frame.comment contains \"unlisted\". \
The filter judges no packet otherwise for being captured. What is wanted but comes faster than --rate, or than the file \
is written, is not taken, and counted. Ctrl-C ends a capture with its statistics. Frames hold what others send: only \
operators may capture, and the audit log tells of it. docs/CAPTURE.md has the format.

Exit codes:
  0  captured until the end that was asked for
  1  failed, or cut short: the daemon stopped, or the file could not be written
  2  wrong usage
  5  the daemon is not reachable

Examples:
  keyfence capture -w drops.pcapng --verdict drop
  keyfence capture -w unlisted.pcapng --reason unlisted --service payments --count 1000
  keyfence capture -w - --source 198.51.100.0/24 | wireshark -k -i -
  keyfence capture -w - --sample 100 --duration 1m | tshark -r - -T fields -e frame.comment";

/// Capture judged packets, with the verdict and its reason, to a pcapng file
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Where to: a new file, or a pipe; - is standard output
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    file: PathBuf,
    /// Overwrite a file that is there
    #[arg(long)]
    force: bool,
    /// Only from this address or prefix
    #[arg(long, value_name = "ADDR", value_parser = source)]
    source: Option<String>,
    /// Only what was decided for this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only these verdicts: pass, drop, observe
    #[arg(long, value_name = "VERDICT", value_delimiter = ',', value_parser = verdict)]
    verdict: Vec<String>,
    /// Only these reasons, such as unlisted,limit-grant
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = reason)]
    reason: Vec<String>,
    /// One of N packets that are wanted, at random
    #[arg(long, value_name = "N")]
    sample: Option<u32>,
    /// At most so many packets a second (default 1000), and as many at once
    #[arg(long, value_name = "PACKETS", value_parser = plain)]
    rate: Option<u64>,
    /// At most so many bytes of a frame (default and most: 65000)
    #[arg(long, value_name = "BYTES")]
    snap: Option<u32>,
    /// End after so many packets
    #[arg(long, value_name = "PACKETS", value_parser = plain)]
    count: Option<u64>,
    /// End after this time, as in 30s or 10m (default 1h, at most 24h)
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    duration: Option<u64>,
    /// End before the file is larger, as in 100MB (default 1GB)
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    size: Option<u64>,
    #[command(flatten)]
    daemon: SocketArguments,
    /// Tell the totals at the end as one JSON object: on standard output, or on standard error with -w -
    #[arg(long)]
    json: bool,
}

fn source(text: &str) -> Result<String, String> {
    let prefix = crate::policy::prefix::prefix_from_text(text);
    prefix
        .map(|prefix| prefix.to_string())
        .map_err(|_| "an address or a prefix without host bits".to_owned())
}

fn word(text: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("one of {}", known.join(", ")))
}

fn verdict(text: &str) -> Result<String, String> {
    word(text, &Verdict::ALL.map(Verdict::name))
}

fn reason(text: &str) -> Result<String, String> {
    word(text, &Reason::ALL.map(Reason::name))
}

fn plain(text: &str) -> Result<u64, String> {
    count_from_text(text, Unit::Plain).map_err(|fault| fault.to_string())
}

fn bytes(text: &str) -> Result<u64, String> {
    count_from_text(text, Unit::Bytes).map_err(|fault| fault.to_string())
}

fn seconds(text: &str) -> Result<u64, String> {
    let duration: Duration = duration_from_text(text).map_err(|fault| fault.to_string())?;
    match (duration.as_secs(), duration.subsec_nanos()) {
        (0, _) | (_, 1..) => Err("whole seconds, at least one".to_owned()),
        (seconds, 0) => Ok(seconds),
    }
}

impl Arguments {
    fn path(&self) -> String {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let list = |words: &[String]| (!words.is_empty()).then(|| words.join(","));
        let query = client::query(&[
            ("source", self.source.clone()),
            ("service", self.service.clone()),
            ("verdict", list(&self.verdict)),
            ("reason", list(&self.reason)),
            ("sample", number(self.sample.map(u64::from))),
            ("rate", number(self.rate)),
            ("snap", number(self.snap.map(u64::from))),
            ("count", number(self.count)),
            ("seconds", number(self.duration)),
            ("bytes", number(self.size)),
        ]);
        format!("/v1/capture{query}")
    }

    fn is_piped(&self) -> bool {
        self.file.as_os_str() == "-"
    }
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let piped = arguments.is_piped();
    if piped && io::stdout().is_terminal() {
        let text = "standard output is a terminal: name a file with -w FILE, or pipe it, as in `keyfence capture -w - | \
                    wireshark -k -i -`";
        return Err(Failure::new(Exit::Usage, text));
    }
    if !piped && !arguments.force && is_file(arguments) {
        return Err(exists(arguments));
    }
    // A file is made only when the daemon has begun.
    let mut blocks: Option<Blocks<Box<dyn Write>>> = None;
    let opened = || -> Result<Blocks<Box<dyn Write>>, Failure> {
        let output: Box<dyn Write> = match piped {
            true => Box::new(io::stdout().lock()),
            false => Box::new(create(arguments)?),
        };
        if !piped {
            shell.say(&format!(
                "capturing to {}; Ctrl-C ends it",
                arguments.file.display()
            ));
        }
        Ok(Blocks::new(output))
    };
    let ended = client::stream(&arguments.daemon.socket, &arguments.path(), &mut |bytes| {
        let blocks = match &mut blocks {
            Some(blocks) => blocks,
            none => none.insert(opened()?),
        };
        match blocks.push(bytes) {
            Ok(()) => Ok(true),
            // Wireshark was closed.
            Err(error) if piped && error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::new(
                Exit::Failed,
                format!("{} cannot be written: {error}", arguments.file.display()),
            )),
        }
    });
    let Some(blocks) = blocks else {
        return ended.map(|()| Exit::Done);
    };
    let totals = blocks.totals();
    tell(&totals, arguments, shell)?;
    ended?;
    match totals.ended.as_deref() {
        Some("stopping" | "fault") => Ok(Exit::Failed),
        _ => Ok(Exit::Done),
    }
}

/// Frames hold what others send: the file is its owner's alone.
fn create(arguments: &Arguments) -> Result<File, Failure> {
    let path = &arguments.file;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    // A pipe or a device is there already, and takes what it is given.
    match path.try_exists().unwrap_or(false) && (arguments.force || !is_file(arguments)) {
        true => options.truncate(true),
        false => options.create_new(true),
    };
    options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(arguments),
        _ => Failure::new(Exit::Failed, format!("{}: {error}", path.display())),
    })
}

fn is_file(arguments: &Arguments) -> bool {
    arguments.file.metadata().is_ok_and(|found| found.is_file())
}

fn exists(arguments: &Arguments) -> Failure {
    let file = arguments.file.display();
    Failure::new(
        Exit::Failed,
        format!(
            "{file} is there already, and is left as it is; name a new file, or say --force to overwrite it"
        ),
    )
}

fn tell(totals: &Totals, arguments: &Arguments, shell: &Shell) -> Result<(), Failure> {
    if arguments.json {
        let object = json!({
            "schema": 1,
            "file": arguments.file,
            "ended": totals.ended,
            "packets": totals.delivered,
            "bytes": totals.bytes,
            "judged": totals.judged,
            "wanted": totals.wanted,
            "unsampled": totals.unsampled(),
            "over_rate": totals.over(),
            "no_room": totals.lost,
        });
        match arguments.is_piped() {
            true => shell.say(&object.to_string()),
            false => shell.write(&format!("{object}\n"))?,
        }
        return Ok(());
    }
    let packets = count(
        usize::try_from(totals.delivered).unwrap_or(usize::MAX),
        "packet",
        "packets",
    );
    let why = match totals.ended.as_deref() {
        Some("count") => "--count is reached",
        Some("size") => "--size is reached",
        Some("duration") => "--duration is over",
        Some("asked") => "as asked",
        Some("stopping") => "the daemon stops",
        Some("fault") => "the daemon could not read its counts: see its log",
        _ => "cut short: the statistics are those of the last seconds",
    };
    shell.say(&format!(
        "{packets} captured of {} wanted and {} judged; ended: {why}",
        thousands(totals.wanted),
        thousands(totals.judged)
    ));
    let mut not_taken = Vec::new();
    for (number, what) in [
        (totals.unsampled(), "left out by sampling"),
        (totals.over(), "beyond --rate"),
        (totals.lost, "without room, since this reader was too slow"),
    ] {
        if number > 0 {
            not_taken.push(format!("{} {what}", thousands(number)));
        }
    }
    if !not_taken.is_empty() {
        shell.say(&format!("not taken: {}", not_taken.join(", ")));
    }
    Ok(())
}
