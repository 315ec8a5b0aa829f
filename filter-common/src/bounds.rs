//! Every bound of the filter, in one place, with the relations between them checked when it is compiled.
//!
//! A bound is a size cap; a *limit* is a rate and lives in `limit`.

/// Services of a policy: bits of a service row.
pub const SERVICES_MAX: u32 = 1024;
/// 64-bit words of the widest service row.
pub const ROW_WORDS_MAX: u32 = SERVICES_MAX / 64;
/// Publishers of a policy.
pub const PUBLISHERS_MAX: u32 = 256;
/// Buckets in a line of the sources' own: one cache line.
pub const SOURCE_WAYS: u32 = 4;
/// Interfaces of a policy.
pub const INTERFACES_MAX: u32 = 64;
/// Port ranges of one entry.
pub const PORT_RANGES_MAX: u32 = 64;
/// Distinct combinations of protocol, ports and address that management entries may have: bits of a mask.
pub const MANAGEMENT_MAX: u32 = 64;
/// Owners whose grants one source address may hold at once: the walk over them is bounded in the kernel.
pub const OWNERS_PER_SOURCE_MAX: u32 = 256;
/// Grants tried for one packet (SPEC 3.10).
pub const TRIES_MAX: u32 = 8;
/// VLAN tags that are skipped.
pub const VLAN_TAGS_MAX: u32 = 2;
/// IPv6 extension headers that are walked.
pub const EXTENSIONS_MAX: u32 = 8;
/// Attempts of one packet to take from a bucket that other CPUs take from at the same time.
pub const BUCKET_ATTEMPTS_MAX: u32 = 4;
/// A frame longer than this was merged from several (generic mode only): its length field may be 0.
pub const FRAME_UNMERGED_MAX: u32 = 65_535;
/// Distinct sets of services that share a port, and the like: rows of the row table.
pub const ROWS_MAX: u32 = 65_535;
/// Records of one interval at most.
pub const RECORDS_MAX: u32 = 65_536;
/// Distinct keys of an interval that are sure to have a record of their own: half the lines, since a key may be in
/// two buckets alone.
pub const RECORD_KEYS: u32 = RECORD_SLOTS / 2;
/// Lines of the drop accounting, and the buckets they stand in: of each half.
pub const RECORD_SLOTS: u32 = RECORD_BUCKETS * RECORD_WAYS;
pub const RECORD_BUCKETS: u32 = 4096;
/// Lines of a bucket: the bytes of the word that says which are taken.
pub const RECORD_WAYS: u32 = 8;
/// Source prefixes by reason that packets are counted under where their key finds no line.
pub const RECORD_PREFIXES: u32 = RECORDS_MAX - RECORD_SLOTS - crate::records::REST;

/// No offset that a header can have lies beyond: Ethernet, two tags, IPv6 and eight of the longest extension
/// headers, with room for a transport header.
pub const HEADER_OFFSET_MAX: u32 = 0x7fff;

const _: () = assert!(SERVICES_MAX.is_multiple_of(64));
const _: () = assert!(TRIES_MAX <= OWNERS_PER_SOURCE_MAX && TRIES_MAX.is_power_of_two());
const _: () = assert!(14 + 4 * VLAN_TAGS_MAX + 40 + EXTENSIONS_MAX * 2048 + 60 <= HEADER_OFFSET_MAX);
const _: () = assert!(MANAGEMENT_MAX == u64::BITS);
const _: () = assert!(RECORD_BUCKETS.is_power_of_two() && RECORD_WAYS == 8);
