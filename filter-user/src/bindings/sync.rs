//! Full syncs while they are read: each line is judged as it comes and compared beside that, and only what differs is
//! kept.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::guard::{Stream, StreamGuard};
use super::lines::{self, Body, Line, LineFault, Splitter};
use super::memory::Shelf;
use super::model::allowance::PolicyView;
use super::model::body::Wanted;
use super::model::owned::Credential;
use super::model::row::Told;
use super::refusal::{Code, FieldFault, Refusal};
use super::requests::{Actor, Answer, SyncOptions, SyncSummary};
use super::shared::Shared;
use super::writer::job::Job;
use super::writer::sync::{Named, SyncJob};
use super::{Bindings, allowance_of, lost};

/// Faults that a refusal names; one is enough to refuse it all.
const FAULTS_TOLD_MAX: usize = 64;
/// Lines that are compared at once, beside the reading of the next: to start that takes some ten microseconds.
const COMPARED_AT_ONCE: usize = 256;

/// A full sync that is being read; dropped before `finish` it changes nothing.
pub struct SyncInput {
    shared: Arc<Shared>,
    view: Arc<PolicyView>,
    splitter: Splitter,
    job: Box<SyncJob>,
    /// Lines that are to be compared, with their numbers.
    puts: Vec<(u64, Credential, Wanted)>,
    /// All lines before these; nothing before the first.
    compared: Option<JoinHandle<Compared>>,
    /// The count of the line `end`.
    end: Option<u64>,
    /// The first, with their lines, and the last line that has one.
    faults: Vec<(u64, FieldFault)>,
    last_fault: u64,
    refusal: Option<Refusal>,
    _guard: StreamGuard,
}

/// What differs from what is in force, and what does not.
#[derive(Default)]
struct Compared {
    named: Named,
    puts: Vec<(u64, Credential, Wanted)>,
    unchanged: u64,
    /// Lines of credentials that had one already: the first, and the last.
    repeated: Vec<u64>,
    last_repeated: u64,
}

impl Bindings {
    /// Begins a full sync: one batch or sync at a time a publisher.
    pub fn sync(&self, actor: &Actor, options: SyncOptions) -> Answer<SyncInput> {
        self.shared.judge_phase()?;
        let view = self.shared.view.load_full();
        allowance_of(&view, &options.publisher)?;
        let guard = StreamGuard::take(&self.shared, &options.publisher, Stream::Sync)?;
        let revision = *self.shared.published.borrow();
        let as_of = options.as_of.unwrap_or(revision);
        if as_of > revision {
            let detail = format!("as_of is {as_of}, and the store is at {revision}: is it another store's?");
            return Err(Refusal::new(Code::Gone, detail));
        }
        Ok(SyncInput {
            job: Box::new(SyncJob {
                actor: Arc::new(actor.clone()),
                as_of,
                epoch: view.epoch,
                options,
                puts: Vec::new(),
                unchanged: 0,
                named: Named::default(),
                lines: 0,
                reply: None,
            }),
            shared: Arc::clone(&self.shared),
            view,
            splitter: Splitter::default(),
            puts: Vec::new(),
            compared: None,
            end: None,
            faults: Vec::new(),
            last_fault: 0,
            refusal: None,
            _guard: guard,
        })
    }
}

impl SyncInput {
    /// The next bytes of the body, cut anywhere. A fault is told by `finish`.
    pub async fn push(&mut self, bytes: &[u8]) -> Answer<()> {
        let mut splitter = std::mem::take(&mut self.splitter);
        for piece in bytes.chunks(super::requests::LINE_BYTES_MAX) {
            splitter.push(piece, |number, line| self.line(number, line));
            if self.puts.len() >= COMPARED_AT_ONCE {
                self.compare().await?;
            }
            tokio::task::yield_now().await;
        }
        self.splitter = splitter;
        Ok(())
    }

    /// The body's end: the stream is the publisher's whole set now, or nothing has changed.
    pub async fn finish(mut self) -> Answer<SyncSummary> {
        let mut splitter = std::mem::take(&mut self.splitter);
        splitter.finish(|number, line| self.line(number, line));
        self.compare().await?;
        let compared = self.compared().await?;
        if let Some(refusal) = self.refusal(&compared) {
            return Err(refusal);
        }
        match self.end {
            Some(count) if count == self.job.lines => {}
            Some(count) => {
                let detail = format!("the end says {count} lines, {} came", self.job.lines);
                return Err(Refusal::new(Code::SyncIncomplete, detail));
            }
            None => {
                let detail = "the line {\"op\": \"end\", \"count\": N} is missing";
                return Err(Refusal::new(Code::SyncIncomplete, detail));
            }
        }
        (self.job.named, self.job.puts) = (compared.named, compared.puts);
        self.job.unchanged = compared.unchanged;
        let (reply, answer) = oneshot::channel();
        self.job.reply = Some(reply);
        self.shared.send(Job::Sync(self.job))?;
        answer.await.map_err(|_| lost())?
    }

    fn line(&mut self, number: u64, line: Option<&[u8]>) {
        let read = allowance_of(&self.view, &self.job.options.publisher)
            .map_err(|refusal| LineFault {
                credential: None,
                refusal,
            })
            .and_then(|allowance| lines::read(line, Body::Sync, &self.shared, &self.view, allowance));
        if let (Ok(Line::End { count }), None) = (&read, self.end) {
            self.end = Some(*count);
            return;
        }
        self.job.lines += 1;
        if self.end.is_some() {
            let refusal = Refusal::new(Code::SyncIncomplete, "lines stand after the end");
            self.refusal.get_or_insert(refusal);
            return;
        }
        match read {
            Ok(Line::Put { credential, mut body }) => {
                self.shared.memory.share(&mut body.content);
                self.puts.push((number, credential, body));
            }
            Ok(_) => {}
            Err(fault) if fault.refusal.errors.is_empty() => {
                let at_line = format!("line {number}: {}", fault.refusal.detail);
                self.refusal.get_or_insert(Refusal {
                    detail: at_line,
                    ..fault.refusal
                });
            }
            Err(fault) => {
                for error in fault.refusal.errors {
                    self.fault(number, error);
                }
            }
        }
    }

    fn fault(&mut self, line: u64, fault: FieldFault) {
        self.last_fault = self.last_fault.max(line);
        if self.faults.len() < FAULTS_TOLD_MAX {
            let detail = format!("line {line}: {}", fault.detail);
            self.faults.push((line, FieldFault { detail, ..fault }));
        }
    }

    /// Why it is refused, where it is: faults of fields go before all else.
    fn refusal(&mut self, compared: &Compared) -> Option<Refusal> {
        // Those that were read; the first of all are among these and the repeated ones.
        let mut faults = std::mem::take(&mut self.faults);
        for line in &compared.repeated {
            self.fault(
                *line,
                FieldFault {
                    code: "repeated-credential",
                    pointer: "/credential".to_owned(),
                    detail: "the credential has a line already".to_owned(),
                    fix: "write it once".to_owned(),
                },
            );
        }
        faults.append(&mut self.faults);
        faults.sort_by_key(|(line, _)| *line);
        let last = self.last_fault.max(compared.last_repeated);
        let faults: Vec<FieldFault> = faults.into_iter().map(|(_, fault)| fault).collect();
        match faults.is_empty() {
            true => self.refusal.take(),
            false => {
                let told = faults.into_iter().take(FAULTS_TOLD_MAX).collect();
                Some(Refusal::of_faults(told).with("line", last))
            }
        }
    }

    /// Begins to compare what has been read.
    async fn compare(&mut self) -> Answer<()> {
        let mut compared = self.compared().await?;
        let puts = std::mem::take(&mut self.puts);
        let shelf = self.shared.memory.shelf_for(&self.job.options.publisher);
        self.compared = Some(spawn_blocking(move || {
            for (line, credential, body) in puts {
                compared.add(line, credential, body, &shelf);
            }
            compared
        }));
        Ok(())
    }

    /// What has been compared so far.
    async fn compared(&mut self) -> Answer<Compared> {
        match self.compared.take() {
            Some(compared) => compared.await.map_err(|_| lost()),
            None => Ok(Compared::default()),
        }
    }
}

impl Compared {
    /// Keeps what differs from what is in force.
    fn add(&mut self, line: u64, credential: Credential, wanted: Wanted, shelf: &Shelf) {
        if !self.named.add(&credential) {
            self.last_repeated = line;
            if self.repeated.len() < FAULTS_TOLD_MAX {
                self.repeated.push(line);
            }
            return;
        }
        let same = shelf.get(&credential).is_some_and(|row| {
            row.content == wanted.content
                && row.row_version == wanted.row_version
                && row.end.is_none()
                && wanted.lease_ms.is_none()
                && row.told != Told::Ended
        });
        match same {
            // Should it change before the end of the sync, that write is newer, and stays.
            true => self.unchanged += 1,
            false => self.puts.push((line, credential, wanted)),
        }
    }
}
