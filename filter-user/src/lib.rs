//! Keyfence's one program, as a library so that tests can hold its parts.
#![deny(unsafe_code)]

pub mod compiler;
pub mod kernel;
pub mod policy;
