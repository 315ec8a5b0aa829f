//! A second opinion: a naive judge written straight from SPEC 3, and frames to try it on.
//!
//! It shares no code with the decision. Where the decision looks up, the oracle loops; where the decision
//! approximates, the oracle counts exactly. A disagreement means that one of the two, or SPEC, is wrong.
//!
//! Flow: `policy` (and `vectors`, `random`, `captures` for frames) -> `judge` over `packet` and `bucket` -> verdict.

pub mod bucket;
pub mod captures;
pub mod frames;
pub mod judge;
pub mod packet;
pub mod policy;
pub mod random;
pub mod vectors;

#[cfg(test)]
mod catalog;
