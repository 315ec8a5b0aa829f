//! `keyfence drops`: what was dropped and why, from the daemon or from files; and whether a log is whole.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::bind::parsed;
use super::client::{self, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::Shell;
use super::stop::{self, Stop};
use crate::records::address::Pseudonyms;
use crate::records::read::{self, Query, RECORDS_DEFAULT, RECORDS_MAX, Sought};
use crate::records::verify::{self, Verifier, VerifyError};

mod show;

const AFTER_HELP: &str = "\
Each line stands for the packets of one source to one destination in one interval; docs/RECORDS.md tells the fields. \
Without FILE the daemon is asked, which writes first what it has dropped so far, and tells of the last hour unless \
--since says otherwise. Times are RFC 3339, or as in 15m, 24h: so long ago.

Exit codes:
  0  shown, followed until interrupted, or the log is whole
  1  failed
  2  wrong usage
  5  the daemon is not reachable
  6  the log does not match: a line was changed, removed, added or moved

Examples:
  keyfence drops --since 1h --reason unlisted
  keyfence drops --top 20
  keyfence drops --source 198.51.100.0/24 --follow
  keyfence drops --source 198.51.100.7 --key /var/lib/keyfence/records.key drops.jsonl
  keyfence drops verify /var/log/keyfence/drops.jsonl
  keyfence drops verify --checkpoint 5b11618c2e440278 /var/log/keyfence/drops.jsonl";

const AFTER_VERIFY: &str = "\
Exit codes:
  0  the log is whole
  1  failed: a file cannot be read
  2  wrong usage
  6  the log does not match: a line was changed, removed, added or moved

Examples:
  keyfence drops verify /var/log/keyfence/drops.jsonl
  keyfence drops verify --checkpoint 5b11618c2e440278 /var/log/keyfence/drops.jsonl";

/// What was dropped, and why; check the log of it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<What>,
    /// Read these files instead of asking the daemon, the oldest first
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// Only this reason, such as unlisted
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<String>,
    /// The busiest sources instead of records
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20", value_parser = top)]
    top: Option<usize>,
    /// The key of the files' pseudonyms, records.key of the daemon's state folder: finds an address behind its own
    #[arg(long, value_name = "FILE", requires = "files")]
    key: Option<PathBuf>,
    /// The newest records, at most so many
    #[arg(long, value_name = "N", default_value_t = RECORDS_DEFAULT, value_parser = limit)]
    limit: usize,
    /// Go on with each record as it is written, until interrupted
    #[arg(long, conflicts_with_all = ["top", "until", "files"])]
    follow: bool,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object; with --follow one for each record
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Check that files are as they were written, each by itself and one after the other
    #[command(after_help = AFTER_VERIFY)]
    Verify {
        /// The log's files, the oldest first
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// A checkpoint that must be there, by the SHA-256 of its line (8 digits or more), as verify told it earlier
        #[arg(long, value_name = "SHA256", value_parser = super::audit::hash)]
        checkpoint: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Which records.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Not before: RFC 3339, or so long ago, as in 24h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Timestamp>,
    /// Not after, the same
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Timestamp>,
    /// Only from this address or prefix
    #[arg(long, value_name = "ADDR", value_parser = source)]
    pub(super) source: Option<String>,
    /// Only to this service
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
}

/// RFC 3339, or a span before now.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = Timestamp::from_str(text) {
        return Ok(time);
    }
    let span = crate::policy::units::duration_from_text(text)
        .map_err(|_| "a time such as 2026-11-22T12:00:00Z, or so long ago as 15m or 24h".to_owned())?;
    let span = SignedDuration::try_from(span).map_err(|error| error.to_string())?;
    Timestamp::now()
        .checked_sub(span)
        .map_err(|error| error.to_string())
}

fn source(text: &str) -> Result<String, String> {
    Sought::from_str(text).map(|_| text.to_owned())
}

fn reason(text: &str) -> Result<String, String> {
    use filter_common::verdict::Reason;
    let known = Reason::ALL.iter().map(|reason| reason.name());
    match known.clone().find(|name| *name == text) {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!(
            "the reasons are {}",
            known.collect::<Vec<_>>().join(", ")
        )),
    }
}

fn top(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "a number; where a file follows, write --top=20 FILE, or FILE --top".to_owned())
}

fn limit(text: &str) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=RECORDS_MAX).contains(number));
    number.ok_or_else(|| format!("a number from 1 to {RECORDS_MAX}"))
}

/// Asks files, or the daemon where there are none.
pub(super) fn ask(files: &[PathBuf], daemon: &SocketArguments, query: &Query) -> Result<Value, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, error);
    if !files.is_empty() {
        let files = read::named_files(files).map_err(failed)?;
        return read::answer(&files, query).map_err(failed);
    }
    let source = query.source.as_ref().map(|sought| match sought {
        Sought::Net(net) => net.to_string(),
        Sought::Text(text) => text.clone(),
    });
    let path = client::query(&[
        ("since", query.since.map(|time| time.to_string())),
        ("until", query.until.map(|time| time.to_string())),
        ("source", source),
        ("service", query.service.clone()),
        ("reason", query.reason.clone()),
        ("after", query.after.map(|after| after.to_string())),
        ("limit", Some(query.limit.to_string())),
        ("top", Some(query.top.to_string())),
    ]);
    parsed(&client::ask(
        &daemon.socket,
        Method::GET,
        &format!("/v1/drops{path}"),
        client::PATIENCE,
    )?)
}

impl Filter {
    pub(super) fn query(&self) -> Query {
        Query {
            since: self.since,
            until: self.until,
            source: self.source.as_deref().and_then(|text| text.parse().ok()),
            service: self.service.clone(),
            ..Query::default()
        }
    }
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    if let Some(What::Verify {
        files,
        checkpoint,
        json,
    }) = &arguments.verb
    {
        return verify(files, checkpoint.as_deref(), *json, shell);
    }
    let mut query = Query {
        reason: arguments.reason.clone(),
        limit: if arguments.top.is_some() {
            0
        } else {
            arguments.limit
        },
        top: arguments.top.unwrap_or(0),
        ..arguments.filter.query()
    };
    if let Some(key) = &arguments.key {
        let failed = |error| {
            let text = format!(
                "{}: {error}: name the key of the pseudonyms, records.key of the daemon's state folder",
                key.display()
            );
            Failure::new(Exit::Failed, text)
        };
        query.pseudonyms = Some(Pseudonyms::read(key).map_err(failed)?);
    }
    if arguments.follow {
        // What was there before is shown only where it is asked for.
        query.since.get_or_insert_with(Timestamp::now);
        return follow(arguments, query, shell);
    }
    let answer = ask(&arguments.files, &arguments.daemon, &query)?;
    if arguments.json {
        shell.write(&format!("{answer}\n"))?;
    } else {
        shell.write(&show::page(&answer, arguments.top.is_some()))?;
    }
    Ok(Exit::Done)
}

/// How often the daemon is asked.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Ends at a signal, and where nobody reads any more: both are how one stops to follow.
fn follow(arguments: &Arguments, mut query: Query, shell: &Shell) -> Result<Exit, Failure> {
    let stop = Stop::listen()?;
    let mut told = None;
    loop {
        let answer = ask(&[], &arguments.daemon, &query)?;
        if let Some(hint) = answer["hint"].as_str() {
            told.get_or_insert_with(|| shell.say(hint));
        }
        let records = answer["records"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for record in records {
            if arguments.json {
                let mut record = record.clone();
                record["schema"] = 1.into();
                shell.write(&format!("{record}\n"))?;
            } else {
                shell.write(&show::line(record))?;
            }
        }
        let matched = answer["matched"]["records"].as_u64().unwrap_or(0);
        let missed = matched.saturating_sub(records.len() as u64);
        if missed > 0 {
            shell.say(&format!(
                "{missed} more records came at once: --limit shows more, the log has all"
            ));
        }
        query.after = answer["last_sequence"].as_u64().or(query.after);
        if stop.comes_within(FOLLOW_EVERY) || stop::reader_left() {
            return Ok(Exit::Done);
        }
    }
}

/// In the order of their first lines.
fn by_time(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = files.to_vec();
    files.sort_by_key(|file| verify::begins(file));
    files
}

/// All files, one after the other; else which one does not follow, and why.
fn read_all<'f>(
    files: &'f [PathBuf],
    checkpoint: Option<&str>,
) -> Result<Verifier, (&'f PathBuf, VerifyError)> {
    let mut verifier = Verifier::seeking(checkpoint);
    for file in files {
        verifier.file(file).map_err(|error| (file, error))?;
    }
    Ok(verifier)
}

fn verify(
    files: &[PathBuf],
    checkpoint: Option<&str>,
    as_json: bool,
    shell: &Shell,
) -> Result<Exit, Failure> {
    let read = read_all(files, checkpoint).or_else(|broken| match (&broken.1, files) {
        // A shell names them by their letters: that of their writing is tried as well.
        (VerifyError::Broken { .. }, [_, _, ..]) => read_all(&by_time(files), checkpoint).map_err(|_| broken),
        _ => Err(broken),
    });
    let verifier = match read {
        Ok(verifier) => verifier,
        Err((file, VerifyError::Io(error))) => {
            let text = format!("{}: {error}", file.display());
            return Err(Failure::new(Exit::Failed, text));
        }
        Err((file, broken @ VerifyError::Broken { .. })) => {
            if as_json {
                let object = json!({ "schema": 1, "whole": false, "file": file, "why": broken.to_string() });
                shell.write(&format!("{object}\n"))?;
            } else {
                shell.write(&format!("{} does not match: {broken}\n", file.display()))?;
            }
            return Ok(Exit::Degraded);
        }
    };
    let verified = match verifier.end() {
        Ok(verified) => verified,
        Err(sought) => {
            let why = format!(
                "no checkpoint's line has the SHA-256 {sought}: the log was cut or written anew since, or is not in these files"
            );
            if as_json {
                let object = json!({ "schema": 1, "whole": false, "file": null, "why": why });
                shell.write(&format!("{object}\n"))?;
            } else {
                shell.write(&format!("The log does not match: {why}\n"))?;
            }
            return Ok(Exit::Degraded);
        }
    };
    if as_json {
        let mut object = serde_json::to_value(&verified)
            .map_err(|error| Failure::new(Exit::Failed, format!("the answer: {error}")))?;
        object["schema"] = 1.into();
        object["whole"] = true.into();
        shell.write(&format!("{object}\n"))?;
    } else {
        shell.write(&show::whole(&verified))?;
    }
    Ok(Exit::Done)
}
