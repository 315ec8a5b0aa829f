//! The tables and their walk: filter-user's own source, without the rest of its crate.

#[path = "../../../../filter-user/src/compiler/homes.rs"]
mod homes;
#[path = "../../../../filter-user/src/compiler/host.rs"]
pub mod host;
#[path = "../../../../filter-user/src/compiler/prefixes.rs"]
pub mod prefixes;
#[path = "../../../../filter-user/src/compiler/runs.rs"]
pub mod runs;
#[path = "../../../../filter-user/src/compiler/tables.rs"]
mod tables;

pub use tables::{Compiled, Key, Room};
