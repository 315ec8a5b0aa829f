//! One batch or full sync at a time a publisher.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::refusal::{Code, Refusal};
use super::requests::Answer;
use super::shared::Shared;

/// What a publisher has under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Batch,
    Sync,
}

/// The place of a batch or a sync; given back when it is dropped.
pub(super) struct StreamGuard {
    shared: Arc<Shared>,
    publisher: String,
}

impl StreamGuard {
    pub(super) fn take(shared: &Arc<Shared>, publisher: &str, stream: Stream) -> Answer<StreamGuard> {
        let mut streams = lock(&shared.streams);
        match streams.get(publisher) {
            Some(Stream::Batch) => {
                let detail = "a batch of this publisher is running: wait for its end";
                return Err(Refusal::new(Code::BatchRunning, detail));
            }
            Some(Stream::Sync) => {
                let detail = "a sync of this publisher is running: wait for its end";
                return Err(Refusal::new(Code::SyncRunning, detail));
            }
            None => streams.insert(publisher.to_owned(), stream),
        };
        Ok(StreamGuard {
            shared: Arc::clone(shared),
            publisher: publisher.to_owned(),
        })
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        lock(&self.shared.streams).remove(&self.publisher);
    }
}

pub(crate) type Streams = Mutex<HashMap<String, Stream>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
