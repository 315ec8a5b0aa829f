//! Targets for libFuzzer: any bytes to the parser, the decision and the policy file. Reads the modules they need as
//! its own. Never run by itself: `cargo xtask fuzz` compiles it with libFuzzer's counters.
#![deny(unsafe_code)]
// Parts of other crates, of which the targets use only some.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the modules are other crates' own"
)]

pub mod bindings;
#[path = "../../../filter-user/src/compiler/mod.rs"]
pub mod compiler;
#[path = "../../src/oracle/mod.rs"]
pub mod oracle;
#[path = "../../../filter-user/src/policy/mod.rs"]
pub mod policy;

pub mod seeds;
pub mod subject;
