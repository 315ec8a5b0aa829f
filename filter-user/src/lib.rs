//! Keyfence's one program, as a library so that tests can hold its parts.
#![deny(unsafe_code)]

#[cfg(all(feature = "next-layout", not(debug_assertions)))]
compile_error!("the feature next-layout is for tests alone: build without it");

pub mod api;
pub mod bindings;
#[cfg(test)]
mod cases;
pub mod cli;
pub mod compiler;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod judge;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod policies;
pub mod policy;
pub mod records;
mod sockets;
mod sys;
