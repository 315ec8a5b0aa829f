//! Where lines go: a file, the local syslog, journald, standard output; each remembers how far it is.

mod file;
mod local;
mod tail;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::file::LogFile;
use self::local::{Journald, Stdout, Syslog};
use super::ledger::{Ledger, Snapshot};
use super::line::{Batch, Line, Names};
use crate::policy::model::{self, SinkType};

/// Rotated files of a log are named so.
pub(super) use file::{rotated_behind, siblings};

/// One sink of the policy.
pub(super) struct Sink {
    /// In metrics and messages: the type and its place among the sinks.
    pub(super) label: String,
    output: Output,
    names: Names,
    ledger: Ledger,
    reached: Reached,
    failing: Option<(Instant, String)>,
}

/// The last record that a sink has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reached {
    /// What its epoch's ids begin with.
    epoch: String,
    sequence: u64,
}

enum Output {
    File(LogFile),
    Local(Box<dyn Local>),
}

/// Takes a line at a time, with its newline.
trait Local: Send {
    fn send(&mut self, line: &str) -> io::Result<()>;
}

impl Sink {
    pub(super) fn of(sink: &model::Sink, names: &Names) -> Self {
        let output = match sink.kind {
            SinkType::File => Output::File(LogFile::of(sink)),
            SinkType::Syslog => Output::Local(Box::new(Syslog::new(PathBuf::from(local::SYSLOG)))),
            SinkType::Journald => Output::Local(Box::new(Journald::new(PathBuf::from(local::JOURNALD)))),
            SinkType::Stdout => Output::Local(Box::new(Stdout)),
        };
        Self {
            label: sink.kind.as_str().to_owned(),
            output,
            names: names.clone(),
            ledger: Ledger::default(),
            reached: Reached::default(),
            failing: None,
        }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self.output, Output::File(_))
    }

    /// Opens what can be opened before there is a line; a failure is told of, and tried again with the first.
    pub(super) fn open(&mut self) {
        if let Output::File(file) = &mut self.output {
            let opened = file.open(&mut self.ledger, &mut self.reached);
            self.note(&opened);
        }
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.reached.sequence
    }

    /// All lines that it does not have yet; on an error it has some of them, and knows which.
    pub(super) fn deliver(&mut self, batch: &Batch, at: &Snapshot) -> io::Result<()> {
        let epoch = self.names.epoch_id(batch.epoch);
        let result = match &mut self.output {
            Output::File(file) => file
                .ready(&mut self.ledger, &mut self.reached, &self.names, at)
                .and_then(|()| {
                    let lines = left(batch, &epoch, &self.reached);
                    file.append(
                        lines,
                        &epoch,
                        &mut self.ledger,
                        &mut self.reached,
                        &self.names,
                        at,
                    )
                }),
            Output::Local(local) => {
                let mut sent = Ok(());
                for line in left(batch, &epoch, &self.reached) {
                    sent = local.send(&line.text);
                    if sent.is_err() {
                        break;
                    }
                    self.ledger.add(line);
                    self.reached = Reached {
                        epoch: epoch.clone(),
                        sequence: line.sequence,
                    };
                }
                sent
            }
        };
        self.note(&result);
        result
    }

    /// Goes on behind a batch; answers how many of its lines it does not have.
    pub(super) fn give_up(&mut self, batch: &Batch) -> u64 {
        let epoch = self.names.epoch_id(batch.epoch);
        let left = left(batch, &epoch, &self.reached);
        if let Some(last) = left.last() {
            let lost = left.len() as u64;
            let sequence = last.sequence;
            self.reached = Reached { epoch, sequence };
            return lost;
        }
        0
    }

    pub(super) fn checkpoint(&mut self, at: &Snapshot) {
        let result = match &mut self.output {
            Output::File(file) => file
                .ready(&mut self.ledger, &mut self.reached, &self.names, at)
                .and_then(|()| file.checkpoint(&mut self.ledger, &self.names, at)),
            Output::Local(local) => {
                let line = self.ledger.checkpoint(&self.names, at);
                local
                    .send(&line)
                    .map(|()| self.ledger.checkpointed(line.as_bytes()))
            }
        };
        self.note(&result);
    }

    /// A file that was moved away gets its last checkpoint, and its path another one.
    pub(super) fn reopen(&mut self, at: &Snapshot) {
        if let Output::File(file) = &mut self.output {
            let result = file.reopen(&mut self.ledger, &mut self.reached, &self.names, at);
            self.note(&result);
        }
    }

    fn note(&mut self, result: &io::Result<()>) {
        match (result, &mut self.failing) {
            (Ok(()), failing) => {
                if failing.take().is_some() {
                    tracing::info!(sink = self.label, "takes records again");
                }
            }
            (Err(error), Some((_, why))) => *why = error.to_string(),
            (Err(error), failing) => {
                tracing::error!(
                    sink = self.label,
                    "takes no records, they wait in the kernel: {error}"
                );
                *failing = Some((Instant::now(), error.to_string()));
            }
        }
    }

    pub(super) fn failing(&self) -> Option<String> {
        let (_, why) = self.failing.as_ref()?;
        Some(format!("records wait for the sink {}: {why}", self.label))
    }

    pub(super) fn failing_for(&self) -> Duration {
        self.failing
            .as_ref()
            .map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }
}

/// Lets a syslog sink have its socket elsewhere.
#[cfg(test)]
pub(super) fn test_socket(sink: &mut Sink, path: &std::path::Path) {
    sink.output = Output::Local(Box::new(Syslog::new(path.to_owned())));
}

/// The lines of a batch behind the last that a sink has.
fn left<'a>(batch: &'a Batch, epoch: &str, reached: &Reached) -> &'a [Line] {
    let known = reached.epoch == epoch;
    let from = batch
        .lines
        .partition_point(|line| known && line.sequence <= reached.sequence);
    &batch.lines[from..]
}
