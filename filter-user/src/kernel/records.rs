//! The drop accounting as the daemon reads it: swaps the halves, waits until the old one is quiet, reads, clears.
//!
//! Exact over kills: an epoch's half is untouched from the moment it is quiet until `finish` has noted that its records
//! are written down everywhere; only then it is cleared. Whoever is killed before finds the same half again and makes
//! the same records of it, in the same order and with the same numbers; whoever is killed after clears it again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use filter_common::abi::{RecordEpoch, RecordHead, names};
use filter_common::bounds::{RECORD_BUCKETS, RECORD_SLOTS};
use filter_common::records::{
    LINE_WORDS, MORE, PREFIX_WORDS, Record, RecordKey, SPILLS, read_line, read_more,
};
use filter_common::verdict::Verdict;

use super::kept::Kept;
use super::load::{Generation, LoadError};
use super::memory::Memory;
use super::pins::Pins;
use super::raw::Barrier;

/// Entries of the maps, both halves.
pub(super) const SIZES: [(&str, u32); 4] = [
    (names::RECORD_TAGS, 2 * RECORD_BUCKETS),
    (names::RECORD_LINES, 2 * RECORD_SLOTS),
    (names::RECORD_MORE, 2 * MORE),
    (names::RECORD_SPILLS, 2 * SPILLS),
];

// Where the fields stand among the words of the head; the layouts are `repr(C)`.
const EPOCH: usize = std::mem::offset_of!(RecordHead, epoch) / 8;
const SEED: usize = std::mem::offset_of!(RecordHead, seed) / 8;
const DRAINED: usize = std::mem::offset_of!(RecordHead, drained) / 8;
const FORGOTTEN: usize = std::mem::offset_of!(RecordHead, forgotten) / 8;
const BEGAN: usize = std::mem::offset_of!(RecordHead, began) / 8;
const EPOCHS: usize = std::mem::offset_of!(RecordHead, epochs) / 8;
const FIRST_SEQUENCE: usize = std::mem::offset_of!(RecordEpoch, first_sequence) / 8;
const STARTED: usize = std::mem::offset_of!(RecordEpoch, started) / 8;
const SUMS: usize = std::mem::offset_of!(RecordEpoch, sums) / 8;

/// The head alone, for whoever clears counters.
#[derive(Clone)]
pub(super) struct Head(Arc<Memory<RecordHead>>);

impl Head {
    pub(super) fn of(kept: &Kept<'_>) -> Result<Self, LoadError> {
        Ok(Self(Arc::new(kept.memory(names::RECORD_HEAD)?)))
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        let words = self.0.words(0).expect("an array has at least one value");
        &words[word]
    }

    /// Packets that a counter about to be cleared has counted, dropped or observed.
    pub(super) fn forget(&self, observed: bool, packets: u64) {
        self.word(FORGOTTEN + usize::from(observed))
            .fetch_add(packets, Ordering::SeqCst);
    }

    pub(super) fn forgotten(&self) -> [u64; 2] {
        [0, 1].map(|verdict| self.word(FORGOTTEN + verdict).load(Ordering::SeqCst))
    }
}

/// The tables of the drop accounting. One process at a time has them: the one that holds the instance's lock.
pub struct Accounting {
    head: Head,
    tags: Memory<u64>,
    lines: Memory<[u64; LINE_WORDS]>,
    more: Memory<[u64; PREFIX_WORDS]>,
    spills: Memory<[u64; 2]>,
    barrier: Barrier,
}

/// What is known of an epoch beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    pub number: u64,
    /// Of its first record.
    pub first_sequence: u64,
    /// Wall-clock nanoseconds since 1970.
    pub started: u64,
    pub ended: u64,
    /// Packets dropped and observed in all records before it.
    pub sums: [u64; 2],
}

impl Accounting {
    pub fn of(generation: &Generation) -> Result<Self, LoadError> {
        Self::by(&Kept::By(generation))
    }

    /// As the pins have it, for whoever holds no generation. These must be of this layout.
    pub fn pinned(pins: &Pins) -> Result<Self, LoadError> {
        Self::by(&Kept::Pinned(pins))
    }

    fn by(kept: &Kept<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            head: Head::of(kept)?,
            tags: kept.memory(names::RECORD_TAGS)?,
            lines: kept.memory(names::RECORD_LINES)?,
            more: kept.memory(names::RECORD_MORE)?,
            spills: kept.memory(names::RECORD_SPILLS)?,
            barrier: Barrier::new()
                .map_err(|error| LoadError::Object(format!("the drop accounting: {error}")))?,
        })
    }

    fn epoch(&self) -> u64 {
        self.head.word(EPOCH).load(Ordering::SeqCst)
    }

    fn of_epoch(&self, epoch: u64, word: usize) -> &AtomicU64 {
        let half = (epoch & 1) as usize;
        self.head
            .word(EPOCHS + half * size_of::<RecordEpoch>() / 8 + word)
    }

    /// Whether nobody has begun to read these tables.
    pub fn is_new(&self) -> bool {
        self.epoch() == 0
    }

    /// Begins to read new tables. What packets have left there meanwhile is the first epoch's.
    pub fn begin(&self, now: u64, seed: u64, first_sequence: u64) {
        // The half that packets go to is the first already. Epochs last a second or longer: none has a number twice,
        // even where the tables are made anew within a boot.
        let epoch = (now / 1_000_000_000).max(2) & !1;
        self.head.word(SEED).store(seed, Ordering::SeqCst);
        self.of_epoch(epoch, FIRST_SEQUENCE)
            .store(first_sequence, Ordering::SeqCst);
        self.of_epoch(epoch, STARTED).store(now, Ordering::SeqCst);
        self.head.word(BEGAN).store(epoch, Ordering::SeqCst);
        self.head.word(DRAINED).store(epoch - 1, Ordering::SeqCst);
        self.head.word(EPOCH).store(epoch, Ordering::SeqCst);
    }

    /// The epoch that has ended and is not written down yet.
    pub fn pending(&self) -> Option<Epoch> {
        let ended = self.epoch() - 1;
        let of = |word| self.of_epoch(ended, word).load(Ordering::SeqCst);
        (self.head.word(DRAINED).load(Ordering::SeqCst) < ended).then(|| Epoch {
            number: ended,
            first_sequence: of(FIRST_SEQUENCE),
            started: of(STARTED),
            ended: self.of_epoch(ended + 1, STARTED).load(Ordering::SeqCst),
            sums: [of(SUMS), of(SUMS + 1)],
        })
    }

    /// Packets dropped and observed in all records that are written down, and the number of the next record.
    pub fn written(&self) -> ([u64; 2], u64) {
        let epoch = self.pending().map_or_else(|| self.epoch(), |epoch| epoch.number);
        let of = |word| self.of_epoch(epoch, word).load(Ordering::SeqCst);
        ([of(SUMS), of(SUMS + 1)], of(FIRST_SEQUENCE))
    }

    /// The first epoch of these tables.
    pub fn began(&self) -> u64 {
        self.head.word(BEGAN).load(Ordering::SeqCst)
    }

    /// Packets dropped and observed that no counter has any more.
    pub fn forgotten(&self) -> [u64; 2] {
        self.head.forgotten()
    }

    /// Ends the epoch in force, unless it holds nothing. Not while one is pending.
    pub fn end_epoch(&self, now: u64) {
        assert!(
            self.pending().is_none(),
            "a pending epoch's half is not the next one's"
        );
        let epoch = self.epoch();
        if self.is_empty(epoch) {
            // A packet that comes meanwhile began a moment earlier than is said then.
            self.of_epoch(epoch, STARTED).store(now, Ordering::SeqCst);
            return;
        }
        // As a killed daemon may have left it.
        self.clear(epoch + 1);
        self.of_epoch(epoch + 1, STARTED).store(now, Ordering::SeqCst);
        self.head.word(EPOCH).store(epoch + 1, Ordering::SeqCst);
    }

    /// Without a key in the lines there is none elsewhere.
    fn is_empty(&self, epoch: u64) -> bool {
        let half = (epoch & 1) as usize * RECORD_BUCKETS as usize;
        (half..half + RECORD_BUCKETS as usize).all(|bucket| load::<u64, 1>(&self.tags, bucket) == [0])
    }

    /// Waits until every packet has left that went to the half of an epoch that has ended.
    pub fn quiet(&self) -> io::Result<()> {
        self.barrier.wait()
    }

    /// What a quiet half holds: the same, in the same order, each time.
    pub fn read(&self, epoch: u64) -> Vec<Record> {
        let half = (epoch & 1) as u32;
        let spill = |index: u32| load(&self.spills, (half * SPILLS + index) as usize);
        let line = |slot: u32| load(&self.lines, (half * RECORD_SLOTS + slot) as usize);
        let lines = (0..RECORD_SLOTS).filter_map(|slot| read_line(line(slot), spill(slot)));
        let more = (0..MORE).filter_map(|place| {
            let words = load(&self.more, (half * MORE + place) as usize);
            read_more(place, words, spill(RECORD_SLOTS + place))
        });
        lines.chain(more).collect()
    }

    /// The epoch in force, when it began, and what its half holds so far: packets go on adding to it meanwhile, so it is
    /// for looking at, and no sum.
    pub fn so_far(&self) -> (u64, u64, Vec<Record>) {
        let epoch = self.epoch();
        let started = self.of_epoch(epoch, STARTED).load(Ordering::SeqCst);
        (epoch, started, self.read(epoch))
    }

    /// All records of the pending epoch are written down, so many with these packets dropped and observed.
    pub fn finish(&self, epoch: &Epoch, records: u64, packets: [u64; 2]) {
        let next = epoch.number + 1;
        let of = |word| self.of_epoch(next, word);
        of(FIRST_SEQUENCE).store(epoch.first_sequence + records, Ordering::SeqCst);
        of(SUMS).store(epoch.sums[0] + packets[0], Ordering::SeqCst);
        of(SUMS + 1).store(epoch.sums[1] + packets[1], Ordering::SeqCst);
        self.head.word(DRAINED).store(epoch.number, Ordering::SeqCst);
        self.clear(epoch.number);
    }

    fn clear(&self, epoch: u64) {
        let half = (epoch & 1) as usize;
        clear(&self.tags, half, RECORD_BUCKETS);
        clear(&self.lines, half, RECORD_SLOTS);
        clear(&self.more, half, MORE);
        clear(&self.spills, half, SPILLS);
    }

    /// Keys with a line of their own in the epoch in force.
    pub fn keys(&self) -> u64 {
        let half = (self.epoch() & 1) as usize * RECORD_BUCKETS as usize;
        let used = |bucket| load::<u64, 1>(&self.tags, bucket)[0] & 0x8080_8080_8080_8080;
        (half..half + RECORD_BUCKETS as usize)
            .map(|bucket| u64::from(used(bucket).count_ones()))
            .sum()
    }
}

/// Packets dropped and observed in records.
pub fn packets(records: &[Record]) -> [u64; 2] {
    let mut sums = [0, 0];
    for record in records {
        let (Record::Exact {
            key: RecordKey { verdict, .. },
            tally,
            ..
        }
        | Record::Overflow { verdict, tally, .. }) = record;
        sums[usize::from(*verdict == Verdict::Observe)] += tally.packets;
    }
    sums
}

fn load<T: aya::Pod, const N: usize>(memory: &Memory<T>, index: usize) -> [u64; N] {
    let words = memory.words(index).expect("the maps were made with these sizes");
    std::array::from_fn(|word| words[word].load(Ordering::Relaxed))
}

fn clear<T: aya::Pod>(memory: &Memory<T>, half: usize, entries: u32) {
    let first = half * entries as usize;
    for entry in first..first + entries as usize {
        for word in memory.words(entry).into_iter().flatten() {
            // Untouched pages stay untouched.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}
