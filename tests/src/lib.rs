//! What the tests share: a judge that shares no code with the program, and the program held beside it.
#![deny(unsafe_code)]

pub mod cases;
pub mod oracle;
pub mod subject;
