//! Names of maps and programs as the kernel sees them (15 characters at most).

/// Entry program, attached to every interface: goes on to the generation in force.
pub const ENTRY: &str = "keyfence";
/// The judge: one instance a generation.
pub const JUDGE: &str = "judge";

// Kept over generations and restarts.
pub const META: &str = "META";
/// Its name and that of `META` stay, whatever the layout: where neither is pinned, a start knows that nothing judges.
pub const GENERATION: &str = "GENERATION";
pub const SWITCH: &str = "SWITCH";
pub const COUNTERS: &str = "COUNTERS";
pub const INTERFACES: &str = "INTERFACES";
pub const OWNER_STATE: &str = "OWNER_STATE";
pub const SERVICE_STATE: &str = "SERVICE_STATE";
// The drop accounting: both halves of each, behind each other.
pub const RECORD_HEAD: &str = "RECORD_HEAD";
pub const RECORD_TAGS: &str = "RECORD_TAGS";
pub const RECORD_LINES: &str = "RECORD_LINES";
pub const RECORD_MORE: &str = "RECORD_MORE";
pub const RECORD_SPILLS: &str = "RECORD_SPILLS";
/// One for all generations, so that a capture need not know which one has judged.
pub const DESK: &str = "DESK";
/// Those that are pinned once and reused by every generation.
pub const PERSISTENT: [&str; 13] = [
    META,
    GENERATION,
    SWITCH,
    COUNTERS,
    INTERFACES,
    OWNER_STATE,
    SERVICE_STATE,
    RECORD_HEAD,
    RECORD_TAGS,
    RECORD_LINES,
    RECORD_MORE,
    RECORD_SPILLS,
    DESK,
];

/// Where a judge goes on to the captures: held by the daemon alone, so that it is empty when that is gone.
pub const CAPTURE_GATE: &str = "CAPTURE";
/// The program of a capture, and its maps beside the desk: in an object of their own.
pub const CAPTURE: &str = "capture";
pub const CAPTURE_WANTED: &str = "WANTED";
pub const CAPTURE_FRAMES: &str = "FRAMES";
pub const CAPTURE_SCRATCH: &str = "SCRATCH";
pub const CAPTURE_COUNTS: &str = "COUNTS";
pub const CAPTURE_NEXT: &str = "NEXT";

/// What the program keeps in words of its own: its clock's constants.
pub const DATA: &str = ".bss";

// Made anew for each generation. Sources first: gate, single addresses and prefixes of each family.
pub const GATE_V4: &str = "GATE_V4";
pub const HOSTS_V4: &str = "HOSTS_V4";
pub const TOP_V4: &str = "TOP_V4";
pub const RANGES_V4: &str = "RANGES_V4";
pub const GATE_V6: &str = "GATE_V6";
pub const HOSTS_V6: &str = "HOSTS_V6";
pub const BLOCKS_V6: &str = "BLOCKS_V6";
pub const TOP_V6: &str = "TOP_V6";
pub const RANGES_V6: &str = "RANGES_V6";
/// What the sources' values mean where it is more than one owner.
pub const SOURCES: &str = "SOURCES";
// Destinations, IPv4 as ::ffff:a.b.c.d: the same tables as IPv6 sources have.
pub const GATE_TO: &str = "GATE_TO";
pub const HOSTS_TO: &str = "HOSTS_TO";
pub const BLOCKS_TO: &str = "BLOCKS_TO";
pub const TOP_TO: &str = "TOP_TO";
pub const RANGES_TO: &str = "RANGES_TO";
pub const CLASSES: &str = "CLASSES";
pub const PORTS: &str = "PORTS";
pub const PORT_MASKS: &str = "PORT_MASKS";
pub const ROWS: &str = "ROWS";
pub const GRANTS: &str = "GRANTS";
pub const OWNERS: &str = "OWNERS";
pub const PORT_SETS: &str = "PORT_SETS";
pub const LIMITS: &str = "LIMITS";
pub const SERVICES: &str = "SERVICES";
/// The sources' own buckets.
pub const SOURCE_STATE: &str = "SOURCE_STATE";
pub const GENERATIONAL: [&str; 25] = [
    GATE_V4,
    HOSTS_V4,
    TOP_V4,
    RANGES_V4,
    GATE_V6,
    HOSTS_V6,
    BLOCKS_V6,
    TOP_V6,
    RANGES_V6,
    SOURCES,
    GATE_TO,
    HOSTS_TO,
    BLOCKS_TO,
    TOP_TO,
    RANGES_TO,
    CLASSES,
    PORTS,
    PORT_MASKS,
    ROWS,
    GRANTS,
    OWNERS,
    PORT_SETS,
    LIMITS,
    SERVICES,
    SOURCE_STATE,
];
