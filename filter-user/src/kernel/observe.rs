//! How full the tables are: entries in use beside the most there can be, for status and alarms.

use filter_common::abi::names;
use filter_common::bounds::{RECORD_KEYS, ROWS_MAX};

use super::load::{Generation, LoadError};
use crate::compiler::Compiled;

/// A generation's tables are made as large as the policy needs; what bounds the policy is the bound here too.
const SOURCES_MAX: u64 = 10_000_000;

/// Table, entries, capacity.
pub fn fill(
    compiled: &Compiled,
    generation: &Generation,
    owners: u64,
) -> Result<Vec<(&'static str, u64, u64)>, LoadError> {
    let rows = (compiled.rows.len() / compiled.row_words as usize) as u64;
    let owners_max = generation.map(names::OWNER_STATE)?.info()?.max_entries();
    Ok(vec![
        ("SOURCES_V4", compiled.sources_v4.len() as u64, SOURCES_MAX),
        ("SOURCES_V6", compiled.sources_v6.len() as u64, SOURCES_MAX),
        (names::ROWS, rows, ROWS_MAX.into()),
        (names::OWNER_STATE, owners, u64::from(owners_max) - 1),
        // How many there are is known to those who read them.
        ("RECORDS", 0, u64::from(RECORD_KEYS)),
    ])
}
