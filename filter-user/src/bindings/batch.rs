//! Batches: any number of lines, decided in their order, a chunk a commit; failures are told beside the others.
//!
//! The input never waits for whoever reads the output: what is not read is counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::guard::{Stream, StreamGuard, lock};
use super::lines::{self, Body, Line, LineFault, Splitter};
use super::memory::Shelf;
use super::model::owned::Credential;
use super::outlook::Outlook;
use super::refusal::{Code, Refusal};
use super::requests::{Actor, Answer, BatchLine, BatchSummary, Conditions, LineFailure, Outcome};
use super::shared::Shared;
use super::writer::LINES_A_CHUNK;
use super::writer::job::{BindingJob, Done, LineReply, Op, Reply};
use super::{Bindings, allowance_of, lost};

/// Failures that wait for the reader.
const FAILURES_KEPT_MAX: usize = 1_000;

/// A batch that is being read. Never waits for whoever reads the answers.
pub struct BatchInput {
    shared: Arc<Shared>,
    actor: Arc<Actor>,
    publisher: Arc<str>,
    shelf: Arc<Shelf>,
    splitter: Splitter,
    chunk: Vec<BindingJob>,
    state: Arc<State>,
    outlook: Outlook,
    /// Given back before the end is told: who has read it may begin the next at once.
    guard: Option<StreamGuard>,
}

/// The answers of a batch, while it is being read.
pub struct BatchOutput {
    state: Arc<State>,
    progress: bool,
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    /// For the reader of the output.
    told: Notify,
    /// For the input's end: all is decided.
    decided: Notify,
}

#[derive(Default)]
struct Inner {
    failures: VecDeque<LineFailure>,
    /// Lines that the writer has, in their order.
    waiting: VecDeque<u64>,
    summary: BatchSummary,
    /// The number of the line that was read last; blank ones count.
    last: u64,
    /// The count of the line `end`.
    end: Option<u64>,
    /// Up to which line all are decided, where that was not told yet.
    done: u64,
    done_told: u64,
    /// The highest that a decided line got.
    revision: u64,
    finished: Option<Finish>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// The summary is still to be told.
    Whole,
    Told,
    /// The input was dropped.
    Broken,
}

impl Bindings {
    /// Begins a batch: one batch or sync at a time a publisher.
    pub fn batch(&self, actor: &Actor, publisher: &str, progress: bool) -> Answer<(BatchInput, BatchOutput)> {
        self.shared.judge_phase()?;
        allowance_of(&self.shared.view.load(), publisher)?;
        let guard = StreamGuard::take(&self.shared, publisher, Stream::Batch)?;
        let state = Arc::new(State::default());
        let input = BatchInput {
            shared: Arc::clone(&self.shared),
            actor: Arc::new(actor.clone()),
            publisher: publisher.into(),
            shelf: self.shared.memory.shelf_for(publisher),
            splitter: Splitter::default(),
            chunk: Vec::new(),
            state: Arc::clone(&state),
            outlook: Outlook::default(),
            guard: Some(guard),
        };
        Ok((input, BatchOutput { state, progress }))
    }
}

impl BatchInput {
    /// The body has so many bytes in all, as far as its sender has said.
    pub fn is_of(&mut self, bytes: u64) {
        self.outlook.is_of(bytes);
    }

    /// The next bytes of the body, cut anywhere. Waits while too much is undecided, never for a reader.
    pub async fn push(&mut self, bytes: &[u8]) -> Answer<()> {
        let mut splitter = std::mem::take(&mut self.splitter);
        // A piece at a time, so that a large body does not become one large list of jobs.
        for piece in bytes.chunks(super::requests::LINE_BYTES_MAX) {
            splitter.push(piece, |number, line| self.line(number, line));
            self.look_ahead(piece.len());
            if self.chunk.len() >= LINES_A_CHUNK {
                self.send().await?;
            }
        }
        self.splitter = splitter;
        // What is slow to come is not kept waiting for a full chunk.
        if !self.chunk.is_empty()
            && let Ok(room) = self.shared.chunks.try_reserve()
        {
            room.send(std::mem::take(&mut self.chunk));
        }
        Ok(())
    }

    /// The body's end: returns when every line is decided.
    pub async fn finish(mut self) -> Answer<()> {
        let mut splitter = std::mem::take(&mut self.splitter);
        splitter.finish(|number, line| self.line(number, line));
        self.send().await?;
        loop {
            let decided = self.state.decided.notified();
            {
                let mut inner = lock(&self.state.inner);
                if inner.waiting.is_empty() {
                    self.guard = None;
                    inner.summary.complete = inner.end == Some(inner.summary.lines);
                    inner.summary.revision = *self.shared.published.borrow();
                    inner.finished = Some(Finish::Whole);
                    self.state.told.notify_one();
                    return Ok(());
                }
            }
            tokio::select! {
                () = decided => {}
                // The writer has stopped: what it has dropped is never decided.
                () = self.shared.chunks.closed() => return Err(lost()),
            }
        }
    }

    async fn send(&mut self) -> Answer<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.shared.chunks.send(chunk).await.map_err(|_| lost())
    }

    /// Has room made for what is likely to come.
    fn look_ahead(&mut self, bytes: usize) {
        self.outlook.bytes(bytes);
        let (shared, publisher, shelf) = (&self.shared, &self.publisher, &self.shelf);
        let most = || {
            let view = shared.view.load();
            let most = view
                .publisher(publisher)
                .map_or(0, |allowance| allowance.publisher.bindings_max);
            most.saturating_sub(shelf.len())
        };
        self.outlook.tell(most, shared.grants.get());
    }

    fn line(&mut self, number: u64, line: Option<&[u8]>) {
        let view = self.shared.view.load();
        let read = match allowance_of(&view, &self.publisher) {
            Ok(allowance) => lines::read(line, Body::Batch, &self.shared, &view, allowance),
            Err(refusal) => Err(LineFault {
                credential: None,
                refusal,
            }),
        };
        let mut inner = lock(&self.state.inner);
        if let (Ok(Line::End { count }), None) = (&read, inner.end) {
            inner.end = Some(*count);
            return;
        }
        inner.summary.lines += 1;
        inner.last = number;
        let line = match read {
            Ok(_) if inner.end.is_some() => {
                let refusal = Refusal::new(Code::Malformed, "this line stands after the end");
                return inner.fail(number, None, &refusal, &self.state.told);
            }
            Err(fault) => {
                return inner.fail(number, fault.credential, &fault.refusal, &self.state.told);
            }
            Ok(line) => line,
        };
        let Some((credential, op)) = op_of(line, view.epoch, &self.shared) else {
            return;
        };
        inner.waiting.push_back(number);
        drop(inner);
        if let Op::Put { wanted, .. } = &op {
            let is_new = || self.shelf.get(&credential).is_none();
            self.outlook.put(&wanted.content.sources, is_new);
        }
        self.chunk.push(BindingJob {
            publisher: Arc::clone(&self.publisher),
            credential,
            op,
            actor: Some(Arc::clone(&self.actor)),
            reply: Reply::Line(Arc::clone(&self.state) as Arc<dyn LineReply>, number),
        });
    }
}

/// What the writer is to do for a line; nothing for the end.
fn op_of(line: Line, epoch: u64, shared: &Shared) -> Option<(Credential, Op)> {
    let conditions = Conditions::default();
    Some(match line {
        Line::Put { credential, mut body } => {
            shared.memory.share(&mut body.content);
            let put = Op::Put {
                wanted: body,
                epoch,
                conditions,
            };
            (credential, put)
        }
        Line::Renew {
            credential,
            lease_ms,
            row_version,
        } => {
            let renew = Op::Renew {
                lease_ms,
                row_version,
                epoch,
            };
            (credential, renew)
        }
        Line::Delete {
            credential,
            row_version,
        } => {
            let delete = Op::Delete {
                row_version,
                conditions,
            };
            (credential, delete)
        }
        Line::End { .. } => return None,
    })
}

impl Drop for BatchInput {
    fn drop(&mut self) {
        self.guard = None;
        let mut inner = lock(&self.state.inner);
        if inner.finished.is_none() {
            inner.finished = Some(Finish::Broken);
        }
        drop(inner);
        self.state.told.notify_one();
    }
}

impl Inner {
    fn fail(&mut self, line: u64, credential: Option<String>, refusal: &Refusal, told: &Notify) {
        self.summary.failed += 1;
        if self.failures.len() < FAILURES_KEPT_MAX {
            self.failures.push_back(LineFailure {
                line,
                credential,
                status: refusal.code.status(),
                code: refusal.code.slug(),
                detail: refusal.detail.clone(),
                errors: refusal.errors.clone(),
            });
        } else {
            self.summary.failures_not_shown += 1;
        }
        self.settle();
        told.notify_one();
    }

    fn settle(&mut self) {
        self.done = match self.waiting.front() {
            Some(first) => first - 1,
            None => self.last,
        };
    }
}

impl LineReply for State {
    fn decided(&self, line: u64, credential: &str, answer: Answer<Done>) {
        let mut inner = lock(&self.inner);
        // Lines are decided in their order; where not, none is lost.
        match inner.waiting.front() == Some(&line) {
            true => drop(inner.waiting.pop_front()),
            false => inner.waiting.retain(|waiting| *waiting != line),
        }
        let revision = match &answer {
            Ok(Done::Put { row, .. }) => row.revision,
            Ok(Done::Delete { revision, .. }) => *revision,
            _ => 0,
        };
        inner.revision = inner.revision.max(revision);
        let summary = &mut inner.summary;
        match answer {
            Err(refusal) => inner.fail(line, Some(credential.to_owned()), &refusal, &self.told),
            Ok(Done::Put { outcome, .. }) => match outcome {
                Outcome::Created | Outcome::Changed => summary.changed += 1,
                Outcome::Renewed => summary.renewed += 1,
                Outcome::Unchanged => summary.unchanged += 1,
            },
            Ok(Done::Delete { removed: true, .. }) => summary.changed += 1,
            Ok(_) => summary.unchanged += 1,
        }
        inner.settle();
        if inner.waiting.is_empty() {
            self.decided.notify_one();
        }
        self.told.notify_one();
    }
}

impl BatchOutput {
    /// `None` after the summary, and where the input was dropped before its end.
    pub async fn next(&mut self) -> Option<BatchLine> {
        loop {
            let told = self.state.told.notified();
            {
                let mut inner = lock(&self.state.inner);
                if let Some(failure) = inner.failures.pop_front() {
                    return Some(BatchLine::Failure(failure));
                }
                if matches!(inner.finished, Some(Finish::Told | Finish::Broken)) {
                    return None;
                }
                // Before the summary too: the last commit is told as every other.
                if self.progress && inner.done > inner.done_told {
                    inner.done_told = inner.done;
                    let revision = inner.revision;
                    return Some(BatchLine::Progress {
                        done: inner.done,
                        revision,
                    });
                }
                if inner.finished.is_some() {
                    inner.finished = Some(Finish::Told);
                    let summary = inner.summary.clone();
                    return Some(BatchLine::Summary { summary });
                }
            }
            told.await;
        }
    }
}
