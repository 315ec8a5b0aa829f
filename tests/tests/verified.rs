//! The kernel program's size: the instructions the verifier walks through with everything switched on, and the
//! deepest stack. Printed, and written to target/verified.toml, which tidy compares with filter-ebpf/verified.toml.
//!
//! The kernel tells the instructions of a loaded program. The stack it tells only in its log, which aya asks for
//! after a refusal alone, so the stack is read from the object: what each function touches below its frame pointer,
//! rounded up as the verifier does, summed over the deepest chain of calls.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;

use aya_obj::Object;
use aya_obj::generated::bpf_insn;
use filter_common::abi::names;
use filter_user::kernel::OBJECT;
use keyfence_tests::oracle::vectors::START_NS;
use keyfence_tests::subject::{Subject, folder};

/// What the kernel gives all frames of a chain of calls.
const STACK_MAX: u32 = 512;
/// The verifier rounds frames up to this.
const FRAME_STEP: u32 = 32;

/// Every rule and every limit switched on.
const EVERYTHING: &str = r#"version = 1
[filter]
interfaces = ["eth0"]
other-traffic = "drop"
other-address = "drop"
fragments = "listed"
ping = "listed"
non-ip = "drop"
[filter.icmp-limit]
packets = { rate = 1000, burst = 2000 }
[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
source-ports = ["1024-2047", "4096-65535"]
services = ["*"]
limit = { packets = { rate = 1000, burst = 2000 }, bytes = { rate = "10MB", burst = "1MB" }, connections = { rate = "100/m", burst = 20 } }
[[client]]
name = "branch"
sources = ["198.51.100.7"]
services = ["*"]
expires = 2027-01-31T00:00:00Z
[[deny]]
name = "abuse"
sources = ["198.51.100.66"]
[[management]]
name = "ssh"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [22]
"#;

fn policy(services: usize) -> String {
    let mut text = String::from(EVERYTHING);
    for number in 0..services {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[service]]\nname = \"s{number}\"\naddress = [\"203.0.113.10\", \"2001:db8::10\"]\nprotocol = [\"tcp\", \"udp\"]\n\
             ports = [{}]\nlimit = {{ packets = {{ rate = 1000, burst = 2000 }}, bytes = {{ rate = \"10MB\", burst = \"1MB\" }}, \
             connections = {{ rate = 100, burst = 20 }} }}\n",
            10_000 + number
        );
    }
    text
}

#[test]
fn the_verified_instructions_and_the_stack_are_told() {
    let mut instructions = 0;
    for services in [1, 1024] {
        let subject =
            Subject::recording(&policy(services), &[], START_NS).unwrap_or_else(|error| panic!("{error}"));
        let verified = subject.verified_instructions();
        println!("verified: {verified} instructions with {services} services");
        instructions = instructions.max(verified);
    }
    let stack = stack_of(names::JUDGE);
    println!("verified: {stack} bytes of stack");
    assert!(instructions > 1000 && (64..=STACK_MAX).contains(&stack));

    let root = folder().parent().expect("a workspace");
    let recorded =
        std::fs::read_to_string(root.join("filter-ebpf/verified.toml")).expect("there are figures");
    for (name, now) in [("instructions", instructions), ("stack", stack)] {
        let line = recorded
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        let before: u32 = line
            .and_then(|number| number.parse().ok())
            .expect("the figures are numbers");
        let grown = i64::from(now) * 100 / i64::from(before) - 100;
        println!("verified: {name} {grown:+} % of what filter-ebpf/verified.toml says");
    }
    let place =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), std::path::PathBuf::from);
    let place = place.join("verified.toml");
    let text = format!("instructions = {instructions}\nstack = {stack}\n");
    std::fs::write(&place, text).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
}

/// The deepest chain of calls of a program.
fn stack_of(program: &str) -> u32 {
    let mut object = Object::parse(OBJECT).expect("the object is the build's own");
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_calls(&sections)
        .expect("the object's calls are in it");
    let key = object.programs[program].function_key();
    let frames = frames(&object.functions[&key].instructions);
    deepest(&frames, 0, &mut BTreeMap::new())
}

/// One function: what it uses of the stack, and whom it calls, by the first instruction.
#[derive(Debug, Default)]
struct Frame {
    bytes: u32,
    calls: BTreeSet<usize>,
}

fn deepest(frames: &BTreeMap<usize, Frame>, at: usize, known: &mut BTreeMap<usize, u32>) -> u32 {
    if let Some(bytes) = known.get(&at) {
        return *bytes;
    }
    let frame = &frames[&at];
    let below = frame
        .calls
        .iter()
        .map(|callee| deepest(frames, *callee, known))
        .max();
    let bytes = frame.bytes.max(1).next_multiple_of(FRAME_STEP) + below.unwrap_or(0);
    known.insert(at, bytes);
    bytes
}

// Encodings of `linux/bpf.h`.
const MOVE: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
const CALL: u8 = 0x85;
const LOAD_IMMEDIATE: u8 = 0x18;
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNCTION: u8 = 4;
const FRAME_POINTER: u8 = 10;

/// All functions of a linked program, by their first instruction.
fn frames(instructions: &[bpf_insn]) -> BTreeMap<usize, Frame> {
    let targets = |(at, instruction): (usize, &bpf_insn)| {
        let is_call = instruction.code == CALL && instruction.src_reg() == PSEUDO_CALL;
        let is_callback = instruction.code == LOAD_IMMEDIATE && instruction.src_reg() == PSEUDO_FUNCTION;
        (is_call || is_callback)
            .then(|| at.checked_add_signed(instruction.imm as isize + 1))
            .flatten()
    };
    let starts: BTreeSet<usize> = instructions
        .iter()
        .enumerate()
        .filter_map(targets)
        .chain([0])
        .collect();
    let mut frames = BTreeMap::new();
    let mut frame = Frame::default();
    let mut start = 0;
    // Registers that hold the frame pointer, on the way to an address below it.
    let mut copies = [false; 16];
    for (at, instruction) in instructions.iter().enumerate() {
        if at != start && starts.contains(&at) {
            frames.insert(start, std::mem::take(&mut frame));
            (start, copies) = (at, [false; 16]);
        }
        frame.calls.extend(targets((at, instruction)));
        let (target, source) = (instruction.dst_reg(), instruction.src_reg());
        let below = match instruction.code & 7 {
            // Loads: through the source.
            1 if source == FRAME_POINTER => i32::from(instruction.off),
            // Stores: through the target.
            2 | 3 if target == FRAME_POINTER => i32::from(instruction.off),
            7 if instruction.code == ADD_IMMEDIATE && copies[target as usize] => instruction.imm,
            _ => 0,
        };
        frame.bytes = frame.bytes.max(below.min(0).unsigned_abs());
        if matches!(instruction.code & 7, 0 | 1 | 4 | 7) {
            copies[target as usize] = instruction.code == MOVE && source == FRAME_POINTER;
        }
    }
    frames.insert(start, frame);
    frames
}

#[test]
fn the_stack_is_the_deepest_chain_of_calls() {
    let instruction = |code, target, source, off, imm| {
        let mut instruction = bpf_insn {
            code,
            off,
            imm,
            ..unset()
        };
        instruction.set_dst_reg(target);
        instruction.set_src_reg(source);
        instruction
    };
    let program = [
        // *(u64 *)(r10 - 40) = r1; call 3; exit
        instruction(0x7b, FRAME_POINTER, 1, -40, 0),
        instruction(CALL, 0, PSEUDO_CALL, 0, 1),
        instruction(0x95, 0, 0, 0, 0),
        // r2 = r10; r2 += -33; r1 += -500; exit
        instruction(MOVE, 2, FRAME_POINTER, 0, 0),
        instruction(ADD_IMMEDIATE, 2, 0, 0, -33),
        instruction(ADD_IMMEDIATE, 1, 0, 0, -500),
        instruction(0x95, 0, 0, 0, 0),
    ];
    assert_eq!(deepest(&frames(&program), 0, &mut BTreeMap::new()), 64 + 64);
}

fn unset() -> bpf_insn {
    bpf_insn {
        code: 0,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    }
}
