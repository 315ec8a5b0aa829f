//! What the tests share: a judge that shares no code with the program, the program held beside it, and what live
//! tests stand on.
#![deny(unsafe_code)]

pub mod cases;
pub mod command;
pub mod harness;
pub mod oracle;
pub mod pcap;
pub mod replay;
pub mod subject;
pub mod vector_captures;
