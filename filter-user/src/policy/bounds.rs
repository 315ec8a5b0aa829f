//! Every bound of the policy file, in one place: what is past one of them is a fault, never cut silently.

pub const VERSION: i128 = 1;

pub const FILE_BYTES_MAX: usize = 64 << 20;
pub const FILES_MAX: usize = 10_000;
/// Of all files together, so that many files below their own bound cannot exhaust memory either.
pub const TOTAL_BYTES_MAX: usize = 1 << 30;
/// Past this size only the first syntax error of a file is shown: recovery keeps every error in memory.
pub const RECOVERY_BYTES_MAX: usize = 1 << 20;

pub const SERVICES_MAX: usize = 1_024;
pub const INTERFACES_MAX: usize = 64;
pub const PORT_RANGES_MAX: usize = 64;
/// Distinct sets of source ports of more than one range, pushed ones among them: 8 KiB each in the kernel.
pub const PORT_SETS_MAX: u32 = 4_096;
/// So many of them are for the policy and for publishers that have few: nobody keeps all others from having any.
pub const PORT_SETS_KEPT: u32 = 512;
/// As many as are few.
pub const PORT_SETS_FEW: u32 = 64;
pub const SOURCES_MAX: usize = 10_000_000;

pub const NAME_BYTES_MAX: usize = 63;
pub const NOTE_BYTES_MAX: usize = 4_096;
pub const LABELS_MAX: usize = 16;
pub const LABEL_KEY_BYTES_MAX: usize = 64;
pub const LABEL_VALUE_BYTES_MAX: usize = 256;

/// Packets or connections a second.
pub const RATE_MAX: u64 = 1_000_000_000;
pub const BYTES_RATE_MAX: u64 = 1_000_000_000_000;
pub const BURST_MAX: u64 = 1 << 40;
/// A bucket that takes longer to fill would let the kernel's clock arithmetic wrap.
pub const REFILL_SECONDS_MAX: u64 = 5 * 365 * 86_400;
/// A burst below this much of its rate starves a client that sends evenly.
pub const BURST_MILLISECONDS_MIN: u64 = 20;

pub const EXPIRY_WARNING_DAYS: i64 = 30;

/// Diagnostics kept of each severity; more are counted.
pub const DIAGNOSTICS_KEPT_MAX: usize = 10_000;
/// Diagnostics shown by a rendering; the rest is counted in its last line.
pub const DIAGNOSTICS_SHOWN_MAX: usize = 1_000;

/// How many entries that hold one source are compared with it, before a further warning is given up.
pub const COVER_CANDIDATES_MAX: usize = 64;

const _: () = assert!(PORT_SETS_FEW < PORT_SETS_KEPT && PORT_SETS_KEPT < PORT_SETS_MAX);
const _: () = assert!(FILE_BYTES_MAX <= TOTAL_BYTES_MAX);
const _: () = assert!(DIAGNOSTICS_SHOWN_MAX <= DIAGNOSTICS_KEPT_MAX);
// Spans are kept in 32 bits.
const _: () = assert!(FILE_BYTES_MAX < u32::MAX as usize);
