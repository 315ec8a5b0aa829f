//! The end of a log as an earlier daemon left it: how far it is, and what its next checkpoint is about.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use serde::Deserialize;

use super::Reached;
use crate::records::ledger::Ledger;

/// What is read at first; doubled until it holds what is looked for.
const WINDOW_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    event: Event,
    keyfence: Own,
}

#[derive(Default, Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    #[serde(default)]
    sequence: u64,
}

#[derive(Deserialize)]
struct Own {
    kind: String,
}

/// What stands at the end of a log.
#[derive(Default)]
pub(super) struct Tail {
    /// Of the whole lines; what follows was torn.
    pub(super) length: u64,
    /// The lines behind the last checkpoint.
    pub(super) ledger: Ledger,
    pub(super) reached: Option<Reached>,
}

pub(super) fn read(file: &File) -> io::Result<Tail> {
    let length = file.metadata()?.len();
    let mut window = WINDOW_BYTES;
    loop {
        let start = length.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(length - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        if let Some(tail) = understood(&bytes, start) {
            return Ok(tail);
        }
        window *= 2;
    }
}

/// `None`: more has to be read.
fn understood(bytes: &[u8], start: u64) -> Option<Tail> {
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    // Unless the window begins with the file, its first line may be a part of one.
    let first = match start {
        0 => 0,
        _ => bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(whole, |at| at + 1),
    };
    let mut reached = None;
    let mut since = Vec::new();
    let mut previous = None;
    for line in bytes[first.min(whole)..whole]
        .split_inclusive(|byte| *byte == b'\n')
        .rev()
    {
        // What no Keyfence wrote is for `drops verify` to tell of.
        let Ok(head) = serde_json::from_slice::<Head>(line) else {
            continue;
        };
        if head.keyfence.kind == "checkpoint" {
            previous.get_or_insert(line);
        } else {
            let sequence = head.event.sequence;
            let epoch = head.event.id.rfind('/').map_or("", |at| &head.event.id[..=at]);
            reached.get_or_insert(Reached {
                epoch: epoch.to_owned(),
                sequence,
            });
            if previous.is_none() {
                since.push((sequence, line));
            }
        }
        if previous.is_some() && reached.is_some() {
            break;
        }
    }
    if start > 0 && (previous.is_none() || reached.is_none()) {
        return None;
    }
    let mut ledger = Ledger::default();
    if let Some(line) = previous {
        ledger.checkpointed(line);
    }
    for (sequence, line) in since.into_iter().rev() {
        ledger.found(sequence, line);
    }
    Some(Tail {
        length: start + whole as u64,
        ledger,
        reached,
    })
}
