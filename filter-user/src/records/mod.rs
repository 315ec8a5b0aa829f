//! The drop log: what the kernel counted under its records' keys, written down for good.
//!
//! Once an interval the kernel's halves are swapped; the old one becomes a batch of lines, which goes to every sink and
//! is noted as written only then. Exactly once in files, at least once with the same id elsewhere. Decides nothing about
//! packets, and no packet waits for it. docs/RECORDS.md has the format.

pub mod address;
pub mod capture;
mod document;
mod kernel;
pub mod last;
mod ledger;
mod line;
pub mod live;
pub mod observed;
pub mod read;
mod sink;
mod sought;
#[cfg(test)]
mod tests;
pub mod verify;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use filter_common::records::Record;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::bindings::requests::AuditHead;
use crate::kernel::records::Epoch;
use crate::metrics::Metrics;
use crate::policy::model::{Policy, SinkType};
use address::{Pseudonyms, Veil};
pub use kernel::{Kernel, KernelNames};
use ledger::Snapshot;
use line::{Batch, Names};
use sink::Sink;

/// How often a checkpoint is written.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// What is no file may hold the others up for so long; then its records count as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Asked to write at once what has been dropped so far; further ones wait with their senders.
const REQUESTS_WAITING_MAX: usize = 16;
/// What is asked to be written at once is, but not more often.
const FLUSH_EVERY: Duration = Duration::from_millis(250);

/// Where records come from: the kernel's tables, behind a seam for tests.
pub trait Source: Send {
    fn is_new(&self) -> bool;
    fn begin(&self, now: u64, seed: u64, first_sequence: u64);
    fn pending(&self) -> Option<Epoch>;
    fn end_epoch(&self, now: u64);
    fn quiet(&self) -> std::io::Result<()>;
    fn read(&self, epoch: u64) -> Vec<Record>;
    fn finish(&self, epoch: &Epoch, records: u64, packets: [u64; 2]);
    /// Packets dropped and observed in all records that are written, and the next record's number.
    fn written(&self) -> ([u64; 2], u64);
    /// The first epoch of these tables.
    fn began(&self) -> u64;
    /// Packets dropped and observed, as the verdicts' counters have them.
    fn counters(&self) -> Result<[u64; 2], String>;
    /// The last line of the audit log, for the checkpoints.
    fn audit_head(&self) -> AuditHead;
}

/// Names for the numbers in records.
pub trait Naming: Send {
    fn service(&self, number: u32) -> Option<String>;
    /// Of all owners in a batch at once: whoever knows no name by its number goes through all names.
    fn owners(&self, numbers: &HashSet<u32>) -> HashMap<u32, String>;
    fn interface(&self, number: u32) -> Option<String>;
}

/// What the records show of themselves.
#[derive(Debug, Default)]
pub struct Figures {
    /// Why sinks cannot be written, a sentence each.
    failing: Mutex<Vec<String>>,
    /// The first file that records go to.
    pub file: Option<PathBuf>,
    /// What stands for addresses in the log, where any was ever made.
    pub pseudonyms: Option<Pseudonyms>,
}

impl Figures {
    pub fn failing(&self) -> Vec<String> {
        self.failing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Asked of the records by others.
enum Request {
    /// Write what has been dropped so far.
    Flush(oneshot::Sender<()>),
    /// Open the files again.
    Reopen,
}

/// How others ask.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    pub figures: Arc<Figures>,
    /// What is going on now; `None` where nobody looks into the kernel.
    pub live: Option<Arc<live::Live>>,
}

impl Handle {
    /// Returns when what was dropped before is in the log, or could not be written.
    pub async fn flush(&self) {
        let (answer, done) = oneshot::channel();
        // A receiver that is gone is a daemon that stops: all is written by then.
        if self.requests.send(Request::Flush(answer)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// A log that was moved away is left, and its path opened anew.
    pub async fn reopen(&self) {
        // As above.
        let _ = self.requests.send(Request::Reopen).await;
    }
}

/// The one owner of the kernel's tables and of the sinks.
pub struct Records {
    source: Box<dyn Source>,
    naming: Box<dyn Naming>,
    names: Names,
    sinks: Vec<Sink>,
    batch: Option<Batch>,
    interval: Duration,
    veil: Veil,
    checkpoint_due: Instant,
    requests: mpsc::Receiver<Request>,
    figures: Arc<Figures>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("{path}: {error}: it holds the key of the addresses in records")]
    Key { path: String, error: std::io::Error },
    #[error("/proc/sys/kernel/random/boot_id: {0}")]
    Boot(std::io::Error),
}

impl Records {
    /// Opens the sinks of a policy. A sink that cannot be opened is told of and tried again: nothing is lost meanwhile.
    pub fn open(
        policy: &Policy,
        source: Box<dyn Source>,
        naming: Box<dyn Naming>,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Handle), RecordsError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(RecordsError::Boot)?;
        let names = Names::new(&policy.daemon.instance, boot.trim());
        let mut sinks: Vec<Sink> = policy.sinks.iter().map(|sink| Sink::of(sink, &names)).collect();
        for (at, sink) in sinks.iter_mut().enumerate() {
            sink.label = format!("{}-{at}", policy.sinks[at].kind.as_str());
            metrics.sink(&sink.label);
        }
        let veil = Veil::of(policy.records.addresses, &policy.daemon.state)?;
        let files = policy.sinks.iter().filter(|sink| sink.kind == SinkType::File);
        let pseudonyms = match &veil {
            Veil::Hmac(pseudonyms) => Some(pseudonyms.clone()),
            // Older lines may have some: where these cannot be told, who asks for an address is told so.
            _ => Pseudonyms::kept(&policy.daemon.state).unwrap_or_else(|error| {
                tracing::warn!("the key of earlier pseudonyms cannot be read: {error}");
                None
            }),
        };
        let figures = Arc::new(Figures {
            file: files.map(|sink| sink.path.clone()).next(),
            pseudonyms,
            ..Figures::default()
        });
        let (sender, requests) = mpsc::channel(REQUESTS_WAITING_MAX);
        let mut records = Self {
            source,
            naming,
            names,
            sinks,
            batch: None,
            interval: policy.records.interval,
            veil,
            checkpoint_due: Instant::now() + CHECKPOINT_EVERY,
            requests,
            figures: Arc::clone(&figures),
            metrics,
        };
        records.begin();
        Ok((
            records,
            Handle {
                requests: sender,
                figures,
                live: None,
            },
        ))
    }

    /// Numbers go on where the log's end has them, also where the kernel's tables are new.
    fn begin(&mut self) {
        for sink in &mut self.sinks {
            sink.open();
        }
        if self.source.is_new() {
            let last = self.sinks.iter().map(Sink::last_sequence).max();
            let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), now());
            self.source.begin(now(), seed, last.unwrap_or(0) + 1);
        }
    }

    /// Writes once an interval until told to stop, and what is left then.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        let mut asked = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => tokio::task::block_in_place(|| self.write()),
                request = self.requests.recv(), if asked => match request {
                    Some(Request::Flush(answer)) => {
                        waiting.push(answer);
                        tokio::time::sleep(FLUSH_EVERY).await;
                        while let Ok(request) = self.requests.try_recv() {
                            match request {
                                Request::Flush(answer) => waiting.push(answer),
                                Request::Reopen => tokio::task::block_in_place(|| self.reopen()),
                            }
                        }
                        tokio::task::block_in_place(|| self.write());
                        for answer in waiting.drain(..) {
                            // Who asked may have gone.
                            let _ = answer.send(());
                        }
                    }
                    Some(Request::Reopen) => tokio::task::block_in_place(|| self.reopen()),
                    // Nobody is left to ask.
                    None => asked = false,
                },
                // An error means that the stopper itself is gone: stop as well.
                _ = stop.changed() => break,
            }
        }
        tokio::task::block_in_place(|| self.stop());
    }

    /// One step: ends the interval, unless the one before is not written everywhere yet, and writes what is pending.
    pub fn write(&mut self) {
        if self.source.pending().is_none() {
            self.source.end_epoch(now());
        }
        if let Some(epoch) = self.source.pending() {
            self.write_epoch(&epoch);
        }
        if Instant::now() >= self.checkpoint_due {
            self.checkpoint();
        }
        for sink in &self.sinks {
            self.metrics.sink_waits(&sink.label, sink.failing().is_some());
        }
        let failing = self.sinks.iter().filter_map(Sink::failing).collect();
        *self
            .figures
            .failing
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = failing;
    }

    fn write_epoch(&mut self, epoch: &Epoch) {
        if let Err(error) = self.source.quiet() {
            tracing::error!("the drop accounting does not come to rest, its records wait: {error}");
            return;
        }
        let known = self.batch.take().filter(|batch| batch.epoch == epoch.number);
        let batch = known.unwrap_or_else(|| {
            let records = self.source.read(epoch.number);
            self.names.batch(epoch, records, &self.veil, self.naming.as_ref())
        });
        let at = self.snapshot();
        let mut everywhere = true;
        for sink in &mut self.sinks {
            let Err(error) = sink.deliver(&batch, &at) else {
                continue;
            };
            if sink.is_file() || sink.failing_for() < PATIENCE {
                everywhere = false;
                continue;
            }
            let given_up = sink.give_up(&batch);
            self.metrics.records_lost(&sink.label, given_up);
            tracing::error!(sink = sink.label, records = given_up, "lost: {error}");
        }
        if everywhere {
            let count = batch.lines.len() as u64;
            self.source.finish(epoch, count, batch.packets());
            let overflow = batch.lines.iter().filter(|line| line.overflow).count() as u64;
            self.metrics.records_written(count - overflow, overflow);
        } else {
            self.batch = Some(batch);
        }
    }

    fn snapshot(&self) -> Snapshot {
        let (sums, next) = self.source.written();
        let counters = self.source.counters();
        if let Err(error) = &counters {
            tracing::error!("the counters cannot be read for a checkpoint: {error}");
        }
        Snapshot {
            now: timestamp(now()),
            counters: counters.ok(),
            sums,
            next,
            began: self.source.began(),
            audit: self.source.audit_head(),
        }
    }

    /// Says in every sink what it has had since the last one.
    fn checkpoint(&mut self) {
        let at = self.snapshot();
        for sink in &mut self.sinks {
            sink.checkpoint(&at);
        }
        self.checkpoint_due = Instant::now() + CHECKPOINT_EVERY;
    }

    fn reopen(&mut self) {
        let at = self.snapshot();
        for sink in &mut self.sinks {
            sink.reopen(&at);
        }
    }

    fn stop(&mut self) {
        self.write();
        self.checkpoint();
    }
}

/// The wall clock in nanoseconds since 1970.
fn now() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0)
}

fn timestamp(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::MAX)
}
