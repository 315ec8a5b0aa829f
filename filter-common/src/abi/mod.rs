//! The layout of what the kernel and the daemon share: map names, values, the run context of test runs.
//!
//! Pinned state outlives the program that made it, so every change here that an older or newer program would
//! misread raises `LAYOUT_VERSION`.

#[cfg(feature = "user")]
mod pod;

/// Version of the pinned layout: maps, their shapes, and what their numbers mean.
pub const LAYOUT_VERSION: u32 = 1;
/// First word of `Meta`, and of a run context: "KEYFENCE" in ASCII.
pub const MAGIC: u64 = u64::from_be_bytes(*b"KEYFENCE");

/// Names of maps and programs as the kernel sees them (15 characters at most).
pub mod names {
    /// Entry program, attached to every interface: goes on to the generation in force.
    pub const ENTRY: &str = "keyfence";
    /// The judge: one instance a generation.
    pub const JUDGE: &str = "judge";

    // Kept over generations and restarts.
    pub const META: &str = "META";
    pub const GENERATION: &str = "GENERATION";
    pub const COUNTERS: &str = "COUNTERS";
    pub const INTERFACES: &str = "INTERFACES";
    pub const OWNER_STATE: &str = "OWNER_STATE";
    pub const SERVICE_STATE: &str = "SERVICE_STATE";
    /// Those that are pinned once and reused by every generation.
    pub const PERSISTENT: [&str; 6] = [META, GENERATION, COUNTERS, INTERFACES, OWNER_STATE, SERVICE_STATE];

    // Made anew for each generation.
    pub const SOURCES_V4: &str = "SOURCES_V4";
    pub const SOURCES_V6: &str = "SOURCES_V6";
    pub const ADDRESSES: &str = "ADDRESSES";
    pub const CLASSES: &str = "CLASSES";
    pub const PORTS: &str = "PORTS";
    pub const PORT_MASKS: &str = "PORT_MASKS";
    pub const ROWS: &str = "ROWS";
    pub const GRANTS: &str = "GRANTS";
    pub const OWNERS: &str = "OWNERS";
    pub const PORT_SETS: &str = "PORT_SETS";
    pub const LIMITS: &str = "LIMITS";
    pub const SERVICES: &str = "SERVICES";
    pub const GENERATIONAL: [&str; 12] = [
        SOURCES_V4, SOURCES_V6, ADDRESSES, CLASSES, PORTS, PORT_MASKS, ROWS, GRANTS, OWNERS, PORT_SETS,
        LIMITS, SERVICES,
    ];
}

/// Says what a pin directory holds: read before anything else there is touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    pub magic: u64,
    pub layout_version: u32,
    /// Over the sizes of all shared values: a forgotten version bump is found too.
    pub layout_checksum: u32,
    /// Rises with each swap.
    pub generation: u64,
    pub reserved: [u64; 5],
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

/// What is known of a source: the value of the longest listed prefix that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Source {
    /// Which management combinations may be reached from here: a 64-bit mask, low half first (the tables that
    /// hold this value align it to 4 bytes).
    pub management: [u32; 2],
    /// Where its owners start in `GRANTS`: longest prefix first, then by the owner's name, each once.
    pub owners_start: u32,
    pub owners_length: u16,
    pub flags: u16,
}

impl Source {
    #[inline(always)]
    pub const fn management_mask(&self) -> u64 {
        self.management[0] as u64 | (self.management[1] as u64) << 32
    }

    pub const fn split_mask(mask: u64) -> [u32; 2] {
        [mask as u32, (mask >> 32) as u32]
    }
}

pub mod source_flags {
    pub const DENIED: u16 = 1;
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
    pub packets: Limit,
    /// Numbers in `LIMITS`; 0 is no limit.
    pub bytes_limit: u32,
    pub connections_limit: u32,
    /// The row of its services.
    pub row: u32,
    pub source_port_first: u16,
    pub source_port_last: u16,
    /// Number in `PORT_SETS` where one range is not enough; 0 is none.
    pub port_set: u32,
    /// Whose bindings share a limit; 0 is none.
    pub publisher: u32,
    pub reserved: u64,
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

/// A service's limits and mode, as one generation has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    pub flags: u32,
    /// Numbers in `LIMITS`: packets, bytes, connections; 0 is no limit.
    pub limits: [u32; 3],
}

pub mod service_flags {
    pub const OBSERVE: u32 = 1;
}

/// What a service has used, kept over generations and restarts. The two entries after the last service are the
/// ICMP limits: errors and echo replies, then echo requests and fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceState {
    /// The service's name, zero-filled; empty is a free number.
    pub name: [u8; 64],
    pub buckets: [u64; 3],
    pub reserved: [u64; 5],
}

impl Default for ServiceState {
    fn default() -> Self {
        Self {
            name: [0; 64],
            buckets: [0; 3],
            reserved: [0; 5],
        }
    }
}

/// Where the ICMP limits stand behind the services.
pub const ICMP_ANSWERS: u32 = crate::bounds::SERVICES_MAX;
pub const ICMP_REQUESTS: u32 = crate::bounds::SERVICES_MAX + 1;
pub const SERVICE_ENTRIES: u32 = crate::bounds::SERVICES_MAX + 2;

/// One verdict's count on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// What one record of the drop log is about: packets with equal keys share a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RecordKey {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub service: u32,
    pub owner: u32,
    pub interface: u32,
    pub destination_port: u16,
    pub protocol: u8,
    pub reason: u8,
    pub verdict: u8,
    pub reserved: [u8; 7],
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

// Test runs take metadata in multiples of 4 up to 32 bytes on the oldest kernel.
const _: () = assert!(size_of::<RunContext>() == 32 && size_of::<RunAnswer>() == 32);
const _: () = assert!(size_of::<Meta>() == 64);
const _: () = assert!(size_of::<Limit>() == 24);
const _: () = assert!(size_of::<Source>() == 16);
const _: () = assert!(size_of::<Class>() == 24);
const _: () = assert!(size_of::<Owner>() == 64);
const _: () = assert!(size_of::<OwnerState>() == 64);
const _: () = assert!(size_of::<Service>() == 16);
const _: () = assert!(size_of::<ServiceState>() == 128);
const _: () = assert!(size_of::<Count>() == 16);
const _: () = assert!(size_of::<RecordKey>() == 56);

/// Over the sizes and the bounds that shape the maps.
pub const LAYOUT_CHECKSUM: u32 = {
    let parts = [
        size_of::<Meta>(),
        size_of::<OwnerState>(),
        size_of::<ServiceState>(),
        size_of::<Count>(),
        size_of::<RunContext>(),
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
