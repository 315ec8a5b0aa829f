//! The decision and the layout of the kernel's tables.
//!
//! Runs on the host and in the kernel from one source: no IO, no clock, no allocation. A packet reads top to
//! bottom: parse, classify, limit, verdict, account (see `pipeline`). Tables, packet bytes, the clock and the
//! socket look-up are behind traits, which the kernel program and the host implement.
#![cfg_attr(not(any(test, feature = "user")), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod account;
pub mod admit;
pub mod bounds;
pub mod capture;
pub mod charge;
pub mod classify;
#[cfg(test)]
mod double;
pub mod limit;
pub mod lookup;
pub mod parse;
pub mod pipeline;
pub mod records;
pub mod source_limit;
pub mod target;
pub mod units;
pub mod verdict;
