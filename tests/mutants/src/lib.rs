//! The vectors' frames against the decision alone: tables compiled beforehand, walked by the reference's own walker,
//! so that a changed decision is built and tried in seconds. Knows no policy, no compiler and no kernel.
//!
//! Flow: keyfence-tests writes `cases`; `cargo xtask mutants` builds this crate over a changed `filter-common` and
//! runs it on them.
#![deny(unsafe_code)]

pub mod cases;
pub mod check;
pub mod compiler;
