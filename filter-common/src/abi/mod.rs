//! The layout of what the kernel and the daemon share: map names, values, the run context of test runs.
//!
//! Pinned state outlives the program that made it, so every change here that an older or newer program would
//! misread raises `LAYOUT_VERSION`.

pub mod names;
pub mod parts;
#[cfg(feature = "user")]
mod pod;

use crate::parse::Packet;
use crate::verdict::Judgement;

/// Version of the pinned layout: maps, their shapes, and what their numbers mean.
pub const LAYOUT_VERSION: u32 = if cfg!(feature = "next-layout") { 6 } else { 5 };
/// First word of `Meta`, and of a run context: "KEYFENCE" in ASCII.
pub const MAGIC: u64 = u64::from_be_bytes(*b"KEYFENCE");

/// Says what a pin directory holds: read before anything else there is touched. Its own shape stays over all layouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    pub magic: u64,
    pub layout_version: u32,
    /// Over the sizes of all shared values: a forgotten version bump is found too.
    pub layout_checksum: u32,
    /// Rises with each swap.
    pub generation: u64,
    /// The monotonic time at jiffy 0, wrapped, as the first daemon measured it; 0 where none did.
    pub jiffy_zero: u64,
    /// Of each of `parts::PARTS`: since which version it is as it is here; 0 is not told.
    pub since: [u32; 8],
}

/// Until when the generation in force is in force, unless somebody confirms it: the entry program reads it for each
/// packet, so that it needs no daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Switch {
    /// Nanoseconds of the coarse monotonic clock, from which on packets go to the one that stands by; 0 is never.
    pub deadline: u64,
    /// The number of the generation that stands by.
    pub standby: u64,
}

/// Where a judge stands in `GENERATION`.
pub mod slots {
    pub const IN_FORCE: u32 = 0;
    /// The one that comes back where the one in force is not confirmed in time; else empty.
    pub const STANDBY: u32 = 1;
}

/// A token bucket's limit in bucket time: see `limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Limit {
    /// Price of a token, scaled up by `shift`; 0 is no limit.
    pub cost: u64,
    /// What the whole burst is worth.
    pub span: u64,
    pub shift: u32,
    pub reserved: u32,
}

/// The limits of one level; those that are not set are `Limit::NONE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LimitSet {
    pub packets: Limit,
    pub bytes: Limit,
    pub connections: Limit,
}

/// What is known of a source, where it is more than that one owner holds grants there: see `lookup::Value`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Source {
    /// Which management combinations may be reached from here.
    pub management: u64,
    /// Until when it is denied, monotonic nanoseconds; 0 is not at all, `u64::MAX` for good.
    pub denied_until: u64,
    /// Where its owners start in `GRANTS`: longest prefix first, then by the owner's name, each once. The number
    /// itself where there is one owner.
    pub owners_start: u32,
    pub owners_length: u32,
}

/// What is known of a destination address: the value behind its class number; class 0 is "no listed prefix".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Class {
    /// Which management combinations have this address.
    pub management: u64,
    /// The services of each protocol at this address, as row numbers; row 0 is empty.
    pub tcp_row: u32,
    pub udp_row: u32,
    pub any_row: u32,
    pub flags: u32,
}

/// For each row of a class: whether all its services only observe.
pub mod class_flags {
    pub const TCP_OBSERVED: u32 = 1;
    pub const UDP_OBSERVED: u32 = 2;
    pub const ANY_OBSERVED: u32 = 4;
}

/// An owner's grant, as one generation has it: everything of a grant but its prefix is its owner's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// Monotonic nanoseconds; `u64::MAX` is no end.
    pub end: u64,
    /// Number in `LIMITS`; 0 is no limit.
    pub limits: u32,
    /// The row of its services.
    pub row: u32,
    pub source_port_first: u16,
    pub source_port_last: u16,
    /// Number in `PORT_SETS` where one range is not enough; 0 is none.
    pub port_set: u32,
    /// Whose bindings share a limit: its place among the shared buckets; 0 is none.
    pub publisher: u32,
    pub flags: u32,
}

pub mod owner_flags {
    /// Its limits are of packets alone: most are.
    pub const PACKETS_ONLY: u32 = 1;
}

/// What an owner has used and done, kept over generations and restarts. One cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OwnerState {
    /// The owner's name, hashed: how a restarted daemon finds the numbers again; 0 is a free number.
    pub name_hash: [u8; 16],
    pub packets: u64,
    pub bytes: u64,
    /// Monotonic nanoseconds of the last packet that passed, 0 for none.
    pub last_seen: u64,
    /// Bucket words: packets, bytes, connections.
    pub buckets: [u64; 3],
}

/// A service's limits and mode, as one generation has them; of an ICMP limit, a publisher or the sources' own limit
/// the limits alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    pub flags: u32,
    /// Number in `LIMITS`; 0 is no limit.
    pub limits: u32,
}

pub mod service_flags {
    pub const OBSERVE: u32 = 1;
}

/// What a service has used, kept over generations and restarts; behind the services stand the ICMP limits, then the
/// publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceState {
    /// The service's or publisher's name, zero-filled; empty is a free number.
    pub name: [u8; 64],
    pub buckets: [u64; 3],
    /// Until when what it refuses is observed and passes, monotonic nanoseconds; 0 is not at all.
    pub observe_until: u64,
    pub reserved: [u64; 4],
}

impl Default for ServiceState {
    fn default() -> Self {
        Self {
            name: [0; 64],
            buckets: [0; 3],
            observe_until: 0,
            reserved: [0; 4],
        }
    }
}

/// Errors and echo replies, then echo requests and fragments.
pub const ICMP_ANSWERS: u32 = crate::bounds::SERVICES_MAX;
pub const ICMP_REQUESTS: u32 = crate::bounds::SERVICES_MAX + 1;
/// Publishers start here.
pub const PUBLISHERS_START: u32 = crate::bounds::SERVICES_MAX + 2;
/// Where the limit of the sources' own buckets stands; it has no bucket here.
pub const SOURCE_LIMIT: u32 = PUBLISHERS_START + crate::bounds::PUBLISHERS_MAX;
/// Whose word says until when everything is observed: the entry that has no bucket.
pub const EVERYTHING: u32 = SOURCE_LIMIT;
/// Who share buckets: services, ICMP, publishers; and one entry more.
pub const SERVICE_ENTRIES: u32 = SOURCE_LIMIT + 1;

/// One bucket of one source's own: whose it is, and its word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SourceBucket {
    pub tag: u64,
    pub word: u64,
}

/// Buckets that share a cache line: a source's own is one of them.
pub type SourceLine = [SourceBucket; crate::bounds::SOURCE_WAYS as usize];

/// One verdict's count on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// Which half of the drop accounting packets go to, and what of it is written down already: see `records`. The kernel
/// reads the first line alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RecordHead {
    /// The epoch in force; its lowest bit is the half. 0 before the first.
    pub epoch: u64,
    /// Of the hashes: nobody outside knows which keys share a bucket.
    pub seed: u64,
    /// The last epoch whose records are written down everywhere: its half may be cleared.
    pub drained: u64,
    /// Packets dropped and observed that stood in counters which have been cleared since, for another service.
    pub forgotten: [u64; 2],
    /// The first epoch of these tables.
    pub began: u64,
    pub reserved: [u64; 2],
    /// Of the epochs that the halves hold.
    pub epochs: [RecordEpoch; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RecordEpoch {
    /// Of the epoch's first record.
    pub first_sequence: u64,
    /// Wall-clock nanoseconds since 1970.
    pub started: u64,
    /// Packets dropped and observed in all records of the epochs before.
    pub sums: [u64; 2],
    pub reserved: [u64; 4],
}

/// What a CPU holds while it judges a packet, and what it found, until the next one: in a map, since the calls between
/// the stages pass only numbers, so that the verifier judges a stage by what can stand here and not by each way it came
/// about, and so that a capture can read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Desk {
    pub packet: Packet,
    /// Of a packet whose source several owners hold.
    pub source: Source,
    pub run_flags: u32,
    pub run_now: u64,
    pub judgement: Judgement,
    #[cfg(feature = "next-layout")]
    pub more: u64,
}

/// Handed in by the caller of a test run, in front of the frame, where no packet can reach; the judge answers
/// in its place. Live frames have no metadata, and never come from the loopback device that test runs use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RunContext {
    pub magic: u64,
    /// The clock of this run, monotonic nanoseconds; 0 is the kernel's own.
    pub now: u64,
    pub flags: u32,
    pub reserved: [u32; 3],
}

pub mod run_flags {
    /// Take no token, count nothing.
    pub const DRY: u32 = 1;
    /// Look at no socket.
    pub const NO_SOCKETS: u32 = 2;
    /// Answer with a `ClockAnswer`.
    pub const CLOCK: u32 = 4;
}

/// The judge's answer to a test run, where the run context was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RunAnswer {
    pub magic: u64,
    pub verdict: u32,
    pub reason: u32,
    pub service: u32,
    pub owner: u32,
    pub bytes: u32,
    pub reserved: u32,
}

/// How the kernel program tells the time, in the place of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClockAnswer {
    pub magic: u64,
    pub jiffies: u64,
    /// Nanoseconds of the kernel's monotonic clock, read right after.
    pub monotonic: u64,
    /// What a packet would be judged by.
    pub now: u64,
}

const _: () = assert!(size_of::<ClockAnswer>() == size_of::<RunAnswer>());
// Test runs take metadata in multiples of 4 up to 32 bytes on the oldest kernel.
const _: () = assert!(size_of::<RunContext>() == 32 && size_of::<RunAnswer>() == 32);
const _: () = assert!(size_of::<Meta>() == 64);
const _: () = assert!(size_of::<Switch>() == 16);
const _: () = assert!(size_of::<Limit>() == 24);
const _: () = assert!(size_of::<LimitSet>() == 72);
const _: () = assert!(size_of::<Source>() == 24);
const _: () = assert!(size_of::<Class>() == 24);
const _: () = assert!(size_of::<Owner>() == 32);
const _: () = assert!(size_of::<OwnerState>() == 64);
const _: () = assert!(size_of::<Service>() == 8);
const _: () = assert!(size_of::<SourceLine>() == 64);
const _: () = assert!(size_of::<ServiceState>() == 128);
const _: () = assert!(size_of::<Count>() == 16);
const _: () = assert!(size_of::<RecordHead>() == 192);
const _: () = assert!(size_of::<Desk>() == if cfg!(feature = "next-layout") { 112 } else { 104 });

/// Over the sizes and the bounds that shape the maps.
pub const LAYOUT_CHECKSUM: u32 = {
    let parts = [
        size_of::<Meta>(),
        size_of::<Switch>(),
        size_of::<OwnerState>(),
        size_of::<ServiceState>(),
        size_of::<Count>(),
        size_of::<RunContext>(),
        size_of::<RecordHead>(),
        size_of::<Desk>(),
        crate::bounds::RECORD_SLOTS as usize,
        crate::bounds::RECORD_PREFIXES as usize,
        crate::records::LINE_WORDS,
        crate::account::COUNTERS as usize,
        SERVICE_ENTRIES as usize,
        crate::bounds::INTERFACES_MAX as usize,
        crate::verdict::Reason::ALL.len(),
    ];
    // FNV-1a.
    let mut hash = 0x811c_9dc5u32;
    let mut index = 0;
    while index < parts.len() {
        hash = (hash ^ parts[index] as u32).wrapping_mul(0x0100_0193);
        index += 1;
    }
    hash
};
