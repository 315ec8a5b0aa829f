//! The drop accounting's maps: the kernel's side of `filter_common::records`.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd, atomic_xchg};

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use filter_common::abi::RecordHead;
use filter_common::parse::Packet;
use filter_common::records::{self, Key, LINE_WORDS, Memory, PREFIX_WORDS, Sighting, Words};
use filter_common::verdict::Judgement;

use crate::tables::desk;

#[btf_map]
static RECORD_HEAD: Array<RecordHead, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static RECORD_TAGS: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static RECORD_LINES: Array<[u64; LINE_WORDS], 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static RECORD_MORE: Array<[u64; PREFIX_WORDS], 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static RECORD_SPILLS: Array<[u64; 2], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// 0: nobody reads records of this copy.
#[unsafe(no_mangle)]
static RECORDS: Global<u32> = Global::new(0);

/// Counts a packet that was dropped or observed. The packet stands on the desk too.
#[inline(always)]
pub fn record(packet: &Packet, judgement: &Judgement, interface: u32) {
    if RECORDS.load() == 0 {
        return;
    }
    let key = Key::of(packet, judgement, interface);
    records::record(&Maps, &key, Sighting::of(packet, judgement.bytes));
}

struct Maps;

impl Memory for Maps {
    type Words = Shared;

    #[inline(always)]
    fn epoch(&self) -> u64 {
        head(0)
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        head(1)
    }

    #[inline(always)]
    fn tags(&self, index: u32) -> Option<Shared> {
        Some(Shared(RECORD_TAGS.get_ptr_mut(index)?))
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<Shared> {
        Some(Shared(RECORD_LINES.get_ptr_mut(index)?.cast()))
    }

    #[inline(always)]
    fn more(&self, index: u32) -> Option<Shared> {
        Some(Shared(RECORD_MORE.get_ptr_mut(index)?.cast()))
    }

    #[inline(always)]
    fn spill(&self, index: u32) -> Option<Shared> {
        Some(Shared(RECORD_SPILLS.get_ptr_mut(index)?.cast()))
    }

    #[inline(always)]
    fn elsewhere(&self, key: &Key, sighting: Sighting) {
        record_elsewhere(key.words[4], key.words[5], sighting.bytes);
    }

    #[inline(always)]
    fn put_down(&self, index: u32, count: u64) {
        put_down(index, count);
    }
}

/// A word of the head's first line: the epoch, the seed.
#[inline(always)]
fn head(word: usize) -> u64 {
    let Some(head) = RECORD_HEAD.get_ptr(0) else {
        return 0;
    };
    let word = head.cast::<u64>().wrapping_add(word);
    // SAFETY: an aligned word of the map's only value; the daemon writes it whole.
    unsafe { core::ptr::read_volatile(word) }
}

/// The rest of the key stands on the desk, as the packet's own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn record_elsewhere(attribution: u64, meta: u64, bytes: u32) -> u32 {
    let Some(desk) = desk() else { return 0 };
    let packet = &desk.packet;
    let key = Key {
        words: [
            packet.source.upper,
            packet.source.lower,
            packet.destination.upper,
            packet.destination.lower,
            attribution,
            meta,
        ],
    };
    records::add_elsewhere(&Maps, &key, Sighting::of(packet, bytes));
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn put_down(index: u32, count: u64) -> u32 {
    records::put_down(&Maps, index, count);
    0
}

/// Words of one value, shared by all CPUs. The word's number is a constant at each call.
struct Shared(*mut u64);

impl Shared {
    #[inline(always)]
    fn at(&self, word: usize) -> *mut u64 {
        self.0.wrapping_add(word)
    }
}

impl Words for Shared {
    #[inline(always)]
    fn load(&self, word: usize) -> u64 {
        // SAFETY: an aligned word of a live map value; other CPUs write it whole.
        unsafe { core::ptr::read_volatile(self.at(word)) }
    }

    #[inline(always)]
    fn store(&self, word: usize, value: u64) {
        // SAFETY: an aligned word of a live map value.
        unsafe { core::ptr::write_volatile(self.at(word), value) };
    }

    #[inline(always)]
    fn add(&self, word: usize, value: u64) -> u64 {
        // SAFETY: an aligned word of a live map value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.at(word), value) }
    }

    #[inline(always)]
    fn or(&self, word: usize, bits: u64) {
        // SAFETY: an aligned word of a live map value.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(self.at(word), bits) };
    }

    #[inline(always)]
    fn swap(&self, word: usize, value: u64) -> u64 {
        // SAFETY: an aligned word of a live map value.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(self.at(word), value) }
    }

    #[inline(always)]
    fn compare_exchange(&self, word: usize, old: u64, new: u64) -> Result<(), u64> {
        // SAFETY: an aligned word of a live map value.
        let (seen, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.at(word),
                old,
                new,
            )
        };
        if done { Ok(()) } else { Err(seen) }
    }

    #[inline(always)]
    fn store_second_half(&self, word: usize, value: u16) {
        let half = self.at(word).cast::<u16>().wrapping_add(1);
        // SAFETY: two aligned bytes inside a word of a live map value.
        unsafe { core::ptr::write_volatile(half, value) };
    }
}
