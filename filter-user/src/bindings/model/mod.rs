//! What a binding is: its content, its lease, its row version, and what a write makes of them.
//!
//! Pure: no runtime, no clock, no file; time is an argument. Strict where people and programs write, canonical inside.

pub(crate) mod allowance;
pub(crate) mod body;
pub(crate) mod content;
pub(crate) mod credential;
pub(crate) mod decide;
pub(crate) mod json;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod owned;
pub(crate) mod prefixes;
pub(crate) mod row;
mod terms;
pub(crate) mod view;
