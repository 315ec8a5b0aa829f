//! `keyfence replay`: frames of captures judged by a policy, in a copy of the kernel program of its own.
//!
//! `files` finds, `capture` reads, `judge` judges, `output` and `summary` show. Touches no interface, no daemon and no
//! live bucket.

mod capture;
mod clock;
mod count;
mod files;
mod input;
mod output;
mod pcapng;
mod progress;
mod summary;

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Stdout};
use std::path::PathBuf;

use filter_common::abi::{Owner, RunContext, run_flags};
use filter_common::bounds::FRAME_UNMERGED_MAX;
use filter_common::parse::{self, Frame as Parsed, Packet};
use ipnet::IpNet;

use self::capture::{Capture, Record, Why};
use self::clock::Clock;
use self::count::Counts;
use self::files::Named;
use self::output::Lines;
use self::progress::Progress;
use self::summary::About;
use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::bindings::grantees_of_lines;
use crate::bindings::refusal::Refusal;
use crate::compiler::Pushed;
use crate::engine;
use crate::judge::copy::KernelCopy;
use crate::judge::{self, Bench};
use crate::kernel::load::LoadError;
use crate::kernel::run::RunError;
use crate::policy::model::Attach;
use crate::policy::{self, Policy};

const AFTER_HELP: &str = "\
Every frame runs through the kernel program itself, with buckets of its own that are full at each file's start. Time \
follows the capture. A frame that cannot be judged, or a file that cannot be read, has verdict null and the reason in \
`skipped`. A frame above 65,535 bytes whose packet has length 0 is taken for one that generic mode merged, unless the \
policy says attach = \"native\": then it is malformed.

Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.

Exit codes:
  0  done (frames and files may have been skipped: each says why)
  1  failed, or no file could be read
  2  wrong usage
  3  the policy is invalid

Examples:
  keyfence replay --policy keyfence.toml incident.pcap
  keyfence replay --policy keyfence.toml --json captures/ > verdicts.jsonl";

/// Judge captured frames by a policy, touching no interface
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = super::POLICY_FILE)]
    pub(crate) policy: PathBuf,
    /// One JSON object a frame, then a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// What `address = "host"` means, an address or a prefix; may be given more than once
    #[arg(long, value_name = "ADDR", value_parser = host_address)]
    pub(crate) host_address: Vec<IpNet>,
    /// Bindings to judge by as well, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) bindings: Option<PathBuf>,
    /// pcap and pcapng files; a folder means all in it
    #[arg(value_name = "CAPTURE", required = true)]
    pub(crate) captures: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let loaded = engine::load_policy(&arguments.policy);
    let Some(policy) = &loaded.policy else {
        return Err(super::run::invalid(&loaded, shell));
    };
    if judge::names_host(policy) && arguments.host_address.is_empty() {
        shell.say("warning: the policy says address = \"host\", and no --host-address is given: it holds no address");
    }
    let pushed = pushed(arguments, policy)?;
    let mut replay = Replay::new(arguments, policy, &pushed)?;
    let named = files::find(&arguments.captures);
    let bytes = named.iter().map(|named| named.bytes).sum();
    let lines_on_terminal = arguments.json && io::stdout().is_terminal();
    let mut progress = Progress::new(bytes, lines_on_terminal);
    for file in &named {
        match replay.file(file, &mut progress) {
            Ok(()) => {}
            // Who reads the lines has seen enough.
            Err(Stop::Output(error)) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Done),
            Err(Stop::Output(error)) => return Err(unwritten(error)),
            Err(Stop::Kernel(error)) => return Err(Failure::new(Exit::Failed, error)),
        }
        progress.file_done(file.bytes);
    }
    let about = About {
        policy: &arguments.policy.display().to_string(),
        hash: &loaded.hash,
        names: &replay.bench.names,
        took: progress.done(),
    };
    if !arguments.json {
        shell.write(&summary::page(&replay.counts, &about, shell))?;
        return ended(&replay.counts);
    }
    let written = replay.lines.end(&summary::object(&replay.counts, &about));
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(unwritten(error)),
        _ => ended(&replay.counts),
    }
}

/// What is skipped is no failure; where nothing can be read of all that was named, that is one.
fn ended(counts: &Counts) -> Result<Exit, Failure> {
    if !counts.nothing_readable() {
        return Ok(Exit::Done);
    }
    let why = match counts.files.is_empty() {
        true => "nothing was judged: there is no file in what was named",
        false => "nothing was judged: none of the files can be read, see `skipped`",
    };
    Err(Failure::new(Exit::Failed, why))
}

/// The bindings to judge by. Their leases begin with each file.
fn pushed(arguments: &Arguments, policy: &Policy) -> Result<Pushed, Failure> {
    let Some(file) = &arguments.bindings else {
        return Ok(Pushed::default());
    };
    let unreadable = |error| Failure::new(Exit::Failed, format!("{}: {error}", file.display()));
    let bytes = std::fs::read(file).map_err(unreadable)?;
    let (grantees, bad) = grantees_of_lines(policy, &bytes, judge::BASE_NS);
    if bad.is_empty() {
        return Ok(Pushed::of(grantees, []));
    }
    let lines: Vec<String> = bad
        .iter()
        .map(|(line, refusal)| format!("{}:{line}: {}", file.display(), fault(refusal)))
        .collect();
    Err(Failure::new(Exit::Failed, lines.join("\n")))
}

/// A refusal in words, its faults of fields with it.
fn fault(refusal: &Refusal) -> String {
    let faults = refusal
        .errors
        .iter()
        .map(|fault| format!("{}: {}; {}", fault.pointer, fault.detail, fault.fix));
    let faults: Vec<String> = faults.collect();
    if faults.is_empty() {
        refusal.detail.clone()
    } else {
        faults.join(", ")
    }
}

fn host_address(text: &str) -> Result<IpNet, String> {
    policy::prefix_from_text(text).map_err(|fault| format!("it {fault}; {}", fault.fix()))
}

fn unwritten(error: io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("standard output cannot be written: {error}"),
    )
}

/// What ends a replay before its last file.
enum Stop {
    Output(io::Error),
    Kernel(LoadError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What is held over all files.
struct Replay {
    bench: Bench,
    kernel: KernelCopy,
    attach: Attach,
    /// Owners whose grants end, by number.
    ending: Vec<(u32, jiff::Timestamp)>,
    lines: Lines<Stdout>,
    counts: Counts,
}

impl Replay {
    fn new(arguments: &Arguments, policy: &Policy, pushed: &Pushed) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error);
        let unended = Clock::default();
        let bench = Bench::new(policy, &arguments.host_address, &|end| unended.end(end), pushed)
            .map_err(|error| super::run::uncompilable(&error))?;
        let kernel = KernelCopy::load(&bench.compiled).map_err(|error| failed(&error))?;
        Ok(Self {
            ending: bench.ending(policy),
            kernel,
            attach: policy.filter.attach,
            lines: Lines::new(arguments.json.then(io::stdout), &bench.names),
            counts: Counts::default(),
            bench,
        })
    }

    /// Judges what is in a file.
    fn file(&mut self, named: &Named, progress: &mut Progress) -> Result<(), Stop> {
        let name = named.path.display().to_string();
        self.lines.begin(&name);
        self.counts.begin(&name);
        if let Some(why) = &named.skipped {
            return Ok(self.skip_file(why)?);
        }
        let opened = File::open(&named.path).map_err(|error| Why::from(files::cannot_be_read(&error)));
        let mut capture = match opened.and_then(Capture::open) {
            Ok(capture) => capture,
            Err(why) => return Ok(self.skip_file(&why)?),
        };
        let mut clock = Clock::default();
        let mut number = 0;
        self.kernel.refill().map_err(Stop::Kernel)?;
        self.write_ends(&clock)?;
        loop {
            let taken = capture.taken();
            let record = match capture.next() {
                Ok(record) => record,
                Err(error) => return Ok(self.skip_file(&files::cannot_be_read(&error))?),
            };
            number += 1;
            let (stamp, unfit) = match &record {
                // None is left out silently.
                Record::End if number == 1 => return Ok(self.skip_file(count::NO_FRAME)?),
                Record::End => return Ok(()),
                Record::Broken { frame: false, why } => return Ok(self.skip_file(why)?),
                Record::Broken { frame: true, why } => return Ok(self.skip_frame(number, why)?),
                Record::Unread(why, stamp) => (*stamp, Some(why.clone())),
                Record::Frame(frame) => (frame.stamp, frame.unfit()),
            };
            if clock.follow(stamp) {
                self.write_ends(&clock)?;
            }
            match (record, unfit) {
                (Record::Frame(frame), None) => self.frame(number, frame.bytes, &clock)?,
                (_, why) => self.skip_frame(number, &why.unwrap_or_default())?,
            }
            progress.frame(taken);
        }
    }

    fn frame(&mut self, number: u64, bytes: &[u8], clock: &Clock) -> io::Result<()> {
        let context = RunContext {
            now: clock.now(),
            flags: run_flags::NO_SOCKETS,
            ..RunContext::default()
        };
        let bytes = match self.attach {
            Attach::Native => unmerged(bytes),
            Attach::Auto | Attach::Generic => bytes,
        };
        match self.kernel.judge(bytes, context) {
            Ok(judgement) => {
                let mut packet = Packet::default();
                let source =
                    matches!(parse::parse(bytes, &mut packet), Parsed::Ip).then_some(packet.source.octets());
                self.counts.judged(&judgement, source);
                self.lines.judged(number, &judgement)
            }
            Err(RunError::TooLong) => self.skip_frame(number, crate::kernel::run::TOO_LONG),
            Err(error) => self.skip_frame(number, &error.to_string()),
        }
    }

    fn skip_frame(&mut self, number: u64, why: &str) -> io::Result<()> {
        self.counts.frame_skipped(number, why);
        self.lines.skipped(Some(number), why)
    }

    fn skip_file(&mut self, why: &str) -> io::Result<()> {
        self.counts.file_skipped(why);
        self.lines.skipped(None, why)
    }

    /// Ends by the clock of the file at hand.
    fn write_ends(&self, clock: &Clock) -> Result<(), Stop> {
        let ended = |(number, end): &(u32, jiff::Timestamp)| {
            let owner = self.bench.compiled.owners.get(*number as usize)?;
            let end = clock.end(*end);
            Some((*number, Owner { end, ..*owner }))
        };
        let owners: Vec<_> = self.ending.iter().filter_map(ended).collect();
        self.kernel.write_owners(&owners).map_err(Stop::Kernel)
    }
}

/// A frame as a driver would hand it on. In generic mode alone, one that the host merged has length 0 and ends at the
/// frame's end (rule 3.2): cut to where no merged frame ends, it is judged as the short frame that it claims to be.
fn unmerged(frame: &[u8]) -> &[u8] {
    let length = |frame: &[u8]| {
        let mut packet = Packet::default();
        parse::parse(frame, &mut packet);
        packet.length
    };
    match frame.get(..FRAME_UNMERGED_MAX as usize) {
        // A packet that grows with its frame has no length of its own.
        Some(cut) if length(&[frame, &[0]].concat()) != length(frame) => cut,
        _ => frame,
    }
}
