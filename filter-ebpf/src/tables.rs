//! The only map access: the kernel's side of `filter_common::lookup::Tables`.
//!
//! Sizes written here are the least; the loader sets those that the policy needs.

mod used;

use core::borrow::Borrow;
use core::cell::Cell;
use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_md};
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use filter_common::abi::{
    Class, Count, Desk, LimitSet, Meta, Owner, OwnerState, SERVICE_ENTRIES, Service, ServiceState, Source,
    SourceLine, Switch, run_flags,
};
use filter_common::account::{COUNTERS as COUNTERS_LENGTH, SHARED_SOURCES};
use filter_common::admit;
use filter_common::bounds::{INTERFACES_MAX, SOURCE_WAYS};
use filter_common::charge::{self, Charge};
use filter_common::classify::{self, Grants, Walk};
use filter_common::limit::Effect;
use filter_common::lookup::prefixes::find_v6;
use filter_common::lookup::{Config, GrantTables, Port, Tables};
use filter_common::parse::{Packet, Protocol};
use filter_common::pipeline::{self, Outcome};
use filter_common::source_limit;
use filter_common::target::{self, REMEMBERED, Remembered, Target};
use filter_common::units::Nanos;

use self::used::{OwnUsed, Word, word};
use crate::prefixes::To;
#[cfg(not(feature = "lpm-trie"))]
use crate::prefixes::source_value;
#[cfg(feature = "lpm-trie")]
use crate::reference::source_value;
use crate::{account, clock, sockets};

// Kept over generations and restarts.
#[btf_map]
pub static META: Array<Meta, 1> = Array::new();
#[btf_map]
pub static GENERATION: ProgramArray<2> = ProgramArray::new();
#[btf_map]
static SWITCH: Array<Switch, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// The captures under way: empty, and then no more than a jump that the kernel writes out of the code.
#[btf_map]
pub static CAPTURE: ProgramArray<1> = ProgramArray::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<Count, { COUNTERS_LENGTH as usize }> = PerCpuArray::new();
#[btf_map]
pub static INTERFACES: PerCpuArray<[u64; 4], { INTERFACES_MAX as usize + 1 }> = PerCpuArray::new();
#[btf_map]
static OWNER_STATE: Array<OwnerState, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static SERVICE_STATE: Array<ServiceState, { SERVICE_ENTRIES as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();
#[btf_map]
static DESK: PerCpuArray<Desk, 1> = PerCpuArray::new();

// Of one generation.
#[btf_map]
static SOURCES: Array<Source, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static CLASSES: Array<Class, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static PORTS: Array<u64, 131_072, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static PORT_MASKS: Array<u64, 3, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static ROWS: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static GRANTS: Array<u32, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static OWNERS: Array<Owner, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static PORT_SETS: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static LIMITS: Array<LimitSet, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static SERVICES: Array<Service, { SERVICE_ENTRIES as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static SOURCE_STATE: Array<SourceLine, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Where packets went lately, by this generation's tables.
#[btf_map]
static TARGETS: PerCpuArray<Remembered, REMEMBERED> = PerCpuArray::new();

/// The walk under way on this CPU: in a map, since the verifier must not believe what it sees of one step.
#[btf_map]
static WALK: PerCpuArray<Walk, 1> = PerCpuArray::new();

// Constants of one generation: what is off is pruned by the verifier.
#[unsafe(no_mangle)]
static CONFIG_FLAGS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static ROW_WORDS: Global<u32> = Global::new(1);
#[unsafe(no_mangle)]
static SOURCE_LINES: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static INTERFACE_COUNT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static INTERFACE_NUMBERS: Global<[u32; INTERFACES_MAX as usize]> =
    Global::new([0; INTERFACES_MAX as usize]);

/// The tables of the generation, and what a test run asked for. `IN_STAGE` for the stages that are calls of their own:
/// these have less stack, and ask for the time by a call.
pub struct KernelTables<const IN_STAGE: bool> {
    ctx: *mut xdp_md,
    run_flags: u32,
    /// Read once a packet: 0 until then.
    now: Cell<u64>,
}

impl<const IN_STAGE: bool> KernelTables<IN_STAGE> {
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md, run_flags: u32, now: u64) -> Self {
        Self {
            ctx,
            run_flags,
            now: Cell::new(now),
        }
    }

    /// For a stage that is a call of its own; the packet stands there already.
    #[inline(always)]
    fn on_the_desk(&self, source: &Source) {
        if let Some(desk) = desk() {
            desk.source = *source;
            desk.run_now = self.now.get();
        }
    }

    #[inline(always)]
    fn clock_from_the_desk(&self) {
        if let Some(desk) = desk() {
            self.now.set(desk.run_now);
        }
    }
}

/// Whether the time is over in which the generation in force had to be confirmed.
#[inline(always)]
pub fn is_unconfirmed() -> bool {
    let Some(switch) = SWITCH.get_ptr(0) else {
        return false;
    };
    // SAFETY: a value of the map: the daemon writes the word whole.
    let deadline = unsafe { core::ptr::read_volatile(&raw const (*switch).deadline) };
    // The clock is asked only while one is to be confirmed.
    deadline != 0 && clock::coarse() >= deadline
}

/// This CPU's desk.
#[inline(always)]
pub fn desk() -> Option<&'static mut Desk> {
    let desk = DESK.get_ptr_mut(0)?;
    // SAFETY: this CPU's own value, any bytes of which the program wrote itself or are zero (both are values of
    // the type); XDP does not interrupt itself, and each stage holds one reference at a time.
    Some(unsafe { &mut *desk })
}

/// Rules 6 to 8 for what names no service.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unserved(ctx: *mut xdp_md, class_number: u32, port_row: u32) -> u64 {
    let Some(desk) = desk() else {
        return Outcome::INTERNAL.pack();
    };
    let tables = KernelTables::<true>::new(ctx, desk.run_flags, desk.run_now);
    let outcome = pipeline::unserved(&tables, &desk.packet, &desk.source, class_number, port_row);
    // The clock, where it was read, serves the accounts too.
    desk.run_now = tables.now.get();
    outcome.pack()
}

/// Rule 8.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fragment(row: u32, observed: u32) -> u64 {
    let Some(desk) = desk() else {
        return Outcome::INTERNAL.pack();
    };
    let tables = KernelTables::<true>::new(core::ptr::null_mut(), desk.run_flags, desk.run_now);
    let outcome = admit::fragment(&tables, &desk.packet, &desk.source, row, observed != 0);
    desk.run_now = tables.now.get();
    outcome.pack()
}

/// Looks up where the packet goes, and remembers it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_target(place: u32) -> u32 {
    let Some(desk) = desk() else { return 0 };
    let tables = KernelTables::<true>::new(core::ptr::null_mut(), desk.run_flags, desk.run_now);
    let (Some(target), Some(known)) = (target::find(&tables, &desk.packet), TARGETS.get_ptr_mut(place))
    else {
        return 0;
    };
    // SAFETY: this CPU's own value, of this type; nothing holds a reference to it.
    unsafe { known.write(Remembered::of(&desk.packet, target)) };
    1
}

/// Rule 11, where something is observed for a while.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn observed(outcome: u64) -> u64 {
    let Some(desk) = desk() else { return outcome };
    let tables = KernelTables::<true>::new(core::ptr::null_mut(), desk.run_flags, desk.run_now);
    pipeline::observed(&tables, Outcome::unpack(outcome)).pack()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn clock() -> u64 {
    clock::now()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn service_in_both(first_row: u32, second_row: u32) -> u32 {
    classify::service(&Maps, first_row, second_row)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn owner_pays(number: u32, bytes: u32, connections: u32, now: u64, run_flags: u32) -> u32 {
    let tables = KernelTables::<true>::new(core::ptr::null_mut(), run_flags, now);
    u32::from(charge::owner_pays(
        &tables,
        number,
        Charge { bytes, connections },
        Nanos(now),
    ))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn shared_pays(number: u32, bytes: u32, connections: u32, now: u64, run_flags: u32) -> u32 {
    let tables = KernelTables::<true>::new(core::ptr::null_mut(), run_flags, now);
    u32::from(charge::shared_pays(
        &tables,
        number,
        Charge { bytes, connections },
        Nanos(now),
    ))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn source_pays(bytes: u32, connections: u32, now: u64, run_flags: u32) -> u32 {
    let Some(desk) = desk() else { return 0 };
    let tables = KernelTables::<true>::new(core::ptr::null_mut(), run_flags, now);
    u32::from(source_limit::pays(
        &tables,
        &desk.packet,
        Charge { bytes, connections },
        Nanos(now),
    ))
}

/// Rules 9 and 10 where several owners hold grants.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn service_of_many(number: u32) -> u64 {
    let Some(desk) = desk() else {
        return Outcome::INTERNAL.pack();
    };
    let tables = KernelTables::<true>::new(core::ptr::null_mut(), desk.run_flags, desk.run_now);
    let outcome = admit::service_of_many(&tables, &desk.packet, &desk.source, number);
    desk.run_now = tables.now.get();
    outcome.pack()
}

/// The maps alone, without a packet.
struct Maps;

impl GrantTables for Maps {
    #[inline(always)]
    fn row_words(&self) -> u32 {
        ROW_WORDS.load()
    }

    #[inline(always)]
    fn row_word(&self, row: u32, word: u32) -> u64 {
        ROWS.get(row * self.row_words() + word).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn owner_number(&self, position: u32) -> Option<u32> {
        GRANTS.get(position).copied()
    }

    #[inline(always)]
    fn owner(&self, number: u32) -> Option<&Owner> {
        OWNERS.get(number)
    }

    #[inline(always)]
    fn port_set_word(&self, set: u32, word: u32) -> u64 {
        PORT_SETS
            .get(set * filter_common::lookup::PORT_SET_WORDS + word)
            .copied()
            .unwrap_or(0)
    }
}

/// One step of a walk, called by the kernel's loop.
extern "C" fn walk_step(position: u32, _: *mut c_void) -> u64 {
    let Some(walk) = WALK.get_ptr_mut(0) else { return 1 };
    // SAFETY: this CPU's own value, written before the loop began.
    let walk = unsafe { &mut *walk };
    walk.step(&Maps, position);
    0
}

#[inline(always)]
fn walk_all(length: u32) {
    let step = walk_step as *const () as *mut c_void;
    // SAFETY: the callback has the helper's shape and takes no context.
    unsafe { bpf_loop(length, step, core::ptr::null_mut(), 0) };
}

impl<const IN_STAGE: bool> GrantTables for KernelTables<IN_STAGE> {
    #[inline(always)]
    fn row_words(&self) -> u32 {
        Maps.row_words()
    }

    #[inline(always)]
    fn row_word(&self, row: u32, word: u32) -> u64 {
        Maps.row_word(row, word)
    }

    #[inline(always)]
    fn owner_number(&self, position: u32) -> Option<u32> {
        Maps.owner_number(position)
    }

    #[inline(always)]
    fn owner(&self, number: u32) -> Option<&Owner> {
        OWNERS.get(number)
    }

    #[inline(always)]
    fn port_set_word(&self, set: u32, word: u32) -> u64 {
        Maps.port_set_word(set, word)
    }
}

impl<const IN_STAGE: bool> Tables for KernelTables<IN_STAGE> {
    type Bucket<'b>
        = Word
    where
        Self: 'b;
    type Used<'b>
        = OwnUsed
    where
        Self: 'b;

    #[inline(always)]
    fn config(&self) -> Config {
        Config {
            flags: CONFIG_FLAGS.load(),
        }
    }

    #[inline(always)]
    fn effect(&self) -> Effect {
        if self.run_flags & run_flags::DRY != 0 {
            Effect::Dry
        } else {
            Effect::Commit
        }
    }

    #[inline(always)]
    fn now(&self) -> Nanos {
        if self.now.get() == 0 {
            self.now.set(if IN_STAGE { clock() } else { clock::now() });
        }
        Nanos(self.now.get())
    }

    #[inline(always)]
    fn value(&self, packet: &Packet) -> u32 {
        source_value(packet)
    }

    #[inline(always)]
    fn source(&self, number: u32) -> Option<&Source> {
        SOURCES.get(number)
    }

    #[inline(always)]
    fn class_number(&self, packet: &Packet) -> u32 {
        find_v6(&To, packet.destination.upper, packet.destination.lower)
    }

    #[inline(always)]
    fn class(&self, number: u32) -> Option<&Class> {
        CLASSES.get(number)
    }

    #[inline(always)]
    fn port(&self, index: u32) -> Port {
        match PORTS.get(index) {
            Some(word) => Port::unpack(*word),
            None => Port::NONE,
        }
    }

    #[inline(always)]
    fn management_ports(&self, number: u32) -> u64 {
        PORT_MASKS.get(number).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn unserved(&self, _: &Packet, source: &Source, class_number: u32, port_row: u32) -> Outcome {
        self.on_the_desk(source);
        let outcome = Outcome::unpack(unserved(self.ctx, class_number, port_row));
        self.clock_from_the_desk();
        outcome
    }

    #[inline(always)]
    fn service_in_both(&self, first_row: u32, second_row: u32) -> u32 {
        service_in_both(first_row, second_row)
    }

    #[inline(always)]
    fn owner_pays(&self, number: u32, charge: Charge, now: Nanos) -> bool {
        owner_pays(number, charge.bytes, charge.connections, now.0, self.run_flags) != 0
    }

    #[inline(always)]
    fn shared_pays(&self, number: u32, charge: Charge, now: Nanos) -> bool {
        shared_pays(number, charge.bytes, charge.connections, now.0, self.run_flags) != 0
    }

    #[inline(always)]
    fn source_pays(&self, _: &Packet, charge: Charge, now: Nanos) -> bool {
        // The packet stands on the desk.
        source_pays(charge.bytes, charge.connections, now.0, self.run_flags) != 0
    }

    #[inline(always)]
    fn fragment(&self, _: &Packet, source: &Source, row: u32, observed: bool) -> Outcome {
        self.on_the_desk(source);
        let outcome = Outcome::unpack(fragment(row, u32::from(observed)));
        self.clock_from_the_desk();
        outcome
    }

    #[inline(always)]
    fn service_of_many(&self, _: &Packet, source: &Source, number: u32) -> Outcome {
        self.on_the_desk(source);
        let outcome = Outcome::unpack(service_of_many(number));
        self.clock_from_the_desk();
        outcome
    }

    #[inline(always)]
    fn source_lines(&self) -> u32 {
        SOURCE_LINES.load()
    }

    #[inline(always)]
    fn source_bucket(&self, line: u32, way: u32) -> Option<(Word, Word)> {
        let ways = SOURCE_STATE.get_ptr_mut(line)?.cast::<u64>();
        // Two words a way: the tag, then the bucket's.
        let tag = ways.wrapping_add((way & (SOURCE_WAYS - 1)) as usize * 2);
        Some((Word(tag), Word(tag.wrapping_add(1))))
    }

    #[inline(always)]
    fn count_shared_source(&self) {
        account::count(SHARED_SOURCES, 0);
    }

    /// By the kernel's own loop, which the verifier follows once however long the list is.
    #[inline(always)]
    fn walk<R>(&self, walk: Walk, then: impl FnOnce(&Grants) -> R) -> R {
        let Some(place) = WALK.get_ptr_mut(0) else {
            return then(&Grants::NONE);
        };
        // SAFETY: this CPU's own value, of this type; XDP does not interrupt itself.
        unsafe { place.write(walk) };
        walk_all(walk.length);
        // SAFETY: written above; no step runs any more.
        let place = unsafe { &mut *place };
        if place.goes_again() {
            walk_all(place.length);
        }
        then(&place.found)
    }

    #[inline(always)]
    fn limits(&self, number: u32) -> Option<&LimitSet> {
        LIMITS.get(number)
    }

    #[inline(always)]
    fn service(&self, number: u32) -> Option<&Service> {
        SERVICES.get(number)
    }

    /// The packet stands on the desk.
    #[inline(always)]
    fn target(&self, packet: &Packet) -> Option<impl Borrow<Target> + '_> {
        let place = target::place(packet);
        // SAFETY: this CPU's own value, any bytes of which the program wrote itself or are zero.
        let known = unsafe { &*TARGETS.get_ptr(place as u32)? };
        if !known.is_of(packet) && find_target(place as u32) == 0 {
            return None;
        }
        Some(&known.target)
    }

    #[inline(always)]
    fn owner_used(&self, number: u32) -> Option<OwnUsed> {
        OWNER_STATE.get_ptr_mut(number).map(OwnUsed)
    }

    #[inline(always)]
    fn service_bucket(&self, number: u32, level: u32) -> Option<Word> {
        let state = SERVICE_STATE.get_ptr_mut(number)?;
        // SAFETY: a value of the map, of this type; only a field is addressed.
        let buckets = unsafe { &raw mut (*state).buckets };
        Some(word(buckets, level))
    }

    #[inline(always)]
    fn observes_any(&self) -> bool {
        clock::observes_any()
    }

    #[inline(always)]
    fn observe_until(&self, number: u32) -> u64 {
        let Some(state) = SERVICE_STATE.get_ptr(number) else {
            return 0;
        };
        // SAFETY: a value of the map, of this type; only a field is addressed.
        let until = unsafe { &raw const (*state).observe_until };
        // SAFETY: an aligned word, which the daemon writes whole.
        unsafe { core::ptr::read_volatile(until) }
    }

    #[inline(always)]
    fn observed(&self, outcome: Outcome) -> Outcome {
        Outcome::unpack(observed(outcome.pack()))
    }

    #[inline(always)]
    fn is_reply(&self, packet: &Packet) -> bool {
        if self.run_flags & run_flags::NO_SOCKETS != 0 {
            return false;
        }
        match packet.protocol {
            Protocol::Tcp => sockets::tcp_connection(self.ctx, packet),
            Protocol::Udp => sockets::udp_connection(self.ctx, packet),
            _ => false,
        }
    }

    #[inline(always)]
    fn count(&self, index: u32, bytes: u32) {
        account::count(index, bytes);
    }

    #[inline(always)]
    fn count_interface(&self, verdict: u8) {
        account::count_interface(XdpContext::new(self.ctx).ingress_ifindex() as u32, verdict);
    }
}
