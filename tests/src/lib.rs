//! What the tests share: the harness for live ones, and a judge that shares no code with the program.
#![deny(unsafe_code)]

pub mod harness;
