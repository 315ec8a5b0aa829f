//! A larger table of owners in the place of one that is in force: each keeps its number, and what it has counted and taken.

use std::sync::atomic::Ordering;

use filter_common::abi::{OwnerState, names};

use super::clock;
use super::kept::Kept;
use super::load::{Generation, LoadError};
use super::memory::Memory;
use super::pins::Pins;
use super::raw::Barrier;
use super::state::{OWNER_BUCKETS, OWNER_BYTES, OWNER_PACKETS, OWNER_SEEN};

const WORDS: usize = size_of::<OwnerState>() / 8;

/// Both tables, until packets go by the larger one.
pub struct Grown {
    was: Memory<OwnerState>,
    now: Memory<OwnerState>,
    /// What was there when it was looked at last.
    looked: Vec<[u64; WORDS]>,
    /// And when that was.
    at: u64,
}

impl Grown {
    /// All that is in the table pinned there is in the generation's as well.
    pub fn of(before: &Pins, generation: &Generation) -> Result<Self, LoadError> {
        let was: Memory<OwnerState> = Kept::Pinned(before).memory(names::OWNER_STATE)?;
        let now: Memory<OwnerState> = Kept::By(generation).memory(names::OWNER_STATE)?;
        let at = clock::monotonic().units();
        let looked = (0..was.entries())
            .filter_map(|number| {
                let there = was.words(number)?.iter();
                let (mut looked, to) = ([0; WORDS], now.words(number)?);
                for ((there, looked), to) in there.zip(&mut looked).zip(to) {
                    *looked = there.load(Ordering::Relaxed);
                    to.store(*looked, Ordering::Relaxed);
                }
                Some(looked)
            })
            .collect();
        Ok(Self { was, now, looked, at })
    }

    /// Packets go by the larger table: the last that went by the other have left.
    pub fn end(mut self) -> Result<(), LoadError> {
        let waited = Barrier::new().and_then(|barrier| barrier.wait());
        waited.map_err(|error| LoadError::Object(format!("waiting for the last packets: {error}")))?;
        self.follow();
        Ok(())
    }

    /// Adds what was counted and taken in the smaller table since, for whoever has his number still.
    pub fn follow(&mut self) {
        let looked_at = std::mem::replace(&mut self.at, clock::monotonic().units());
        for (number, looked) in self.looked.iter_mut().enumerate() {
            let (Some(was), Some(now)) = (self.was.words(number), self.now.words(number)) else {
                continue;
            };
            if (0..OWNER_PACKETS).any(|at| now[at].load(Ordering::Relaxed) != looked[at]) {
                continue;
            }
            for at in OWNER_PACKETS..WORDS {
                let there = was[at].load(Ordering::Relaxed);
                match at {
                    _ if there == looked[at] => {}
                    OWNER_PACKETS | OWNER_BYTES => {
                        now[at].fetch_add(there.wrapping_sub(looked[at]), Ordering::Relaxed);
                    }
                    OWNER_SEEN => {
                        now[at].fetch_max(there, Ordering::Relaxed);
                    }
                    // A bucket's word is the time at which it is full again, so what was taken puts it off: from both tables,
                    // where packets went by both.
                    _ => {
                        let taken = there.saturating_sub(looked[at].max(looked_at));
                        let owed = |word: u64| word.max(looked_at) + taken;
                        let word = now[at]
                            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(owed(word)));
                        debug_assert!(word.is_ok(), "it never gives up");
                    }
                }
                looked[at] = there;
            }
        }
    }
}

const _: () = assert!(OWNER_PACKETS == 2 && OWNER_SEEN < WORDS && OWNER_BUCKETS + 3 == WORDS);
