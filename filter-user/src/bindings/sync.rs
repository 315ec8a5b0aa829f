//! Full syncs while they are read: each line is judged and compared as it comes, and only what differs is kept.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::batch::{Stream, StreamGuard};
use super::lines::{self, Body, Line, LineFault, Splitter};
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

/// A full sync that is being read; dropped before `finish` it changes nothing.
pub struct SyncInput {
    shared: Arc<Shared>,
    view: Arc<PolicyView>,
    splitter: Splitter,
    job: Box<SyncJob>,
    /// The line that was read last; blank ones count.
    at: u64,
    /// The count of the line `end`.
    end: Option<u64>,
    faults: Vec<FieldFault>,
    refusal: Option<Refusal>,
    _guard: StreamGuard,
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
            at: 0,
            end: None,
            faults: Vec::new(),
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
            tokio::task::yield_now().await;
        }
        self.splitter = splitter;
        Ok(())
    }

    /// The body's end: the stream is the publisher's whole set now, or nothing has changed.
    pub async fn finish(mut self) -> Answer<SyncSummary> {
        let mut splitter = std::mem::take(&mut self.splitter);
        splitter.finish(|number, line| self.line(number, line));
        if let Some(refusal) = self.refusal {
            return Err(Refusal {
                errors: self.faults,
                ..refusal
            });
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
        let (reply, answer) = oneshot::channel();
        self.job.reply = Some(reply);
        self.shared.send(Job::Sync(self.job))?;
        answer.await.map_err(|_| lost())?
    }

    fn line(&mut self, number: u64, line: Option<&[u8]>) {
        self.at = number;
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
                if !self.job.named.add(&credential) {
                    self.fault(FieldFault {
                        code: "repeated-credential",
                        pointer: "/credential".to_owned(),
                        detail: "the credential has a line already".to_owned(),
                        fix: "write it once".to_owned(),
                    });
                    return;
                }
                self.shared.memory.share(&mut body.content);
                self.compare(credential, Wanted::from(body));
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
                    self.fault(error);
                }
            }
        }
    }

    fn fault(&mut self, fault: FieldFault) {
        let line = self.at;
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(FieldFault {
                detail: format!("line {line}: {}", fault.detail),
                ..fault
            });
        }
        let all = Refusal::of_faults(self.faults.clone());
        self.refusal = Some(all.with("line", line));
    }

    /// Keeps what differs from what is in force.
    fn compare(&mut self, credential: Credential, wanted: Wanted) {
        let shelf = self.shared.memory.shelf_for(&self.job.options.publisher);
        let same = shelf.get(&credential).is_some_and(|row| {
            row.etag == wanted.etag
                && row.row_version == wanted.row_version
                && row.end.is_none()
                && wanted.lease_ms.is_none()
                && row.told != Told::Ended
        });
        match same {
            // Should it change before the end of the sync, that write is newer, and stays.
            true => self.job.unchanged += 1,
            false => self.job.puts.push((self.at, credential, wanted)),
        }
    }
}
