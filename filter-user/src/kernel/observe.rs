//! Reads of a pinned filter without its daemon: what is attached, and how full the tables are.

use filter_common::abi::names;

use super::load::{Generation, LoadError};
use crate::compiler::Compiled;

/// Fill of the tables whose size follows the policy.
pub fn fill(
    compiled: &Compiled,
    generation: &Generation,
    owners: u64,
) -> Result<Vec<(&'static str, u64, u64)>, LoadError> {
    let used = [
        (names::SOURCES_V4, compiled.sources_v4.len() as u64),
        (names::SOURCES_V6, compiled.sources_v6.len() as u64),
        (names::ADDRESSES, compiled.addresses.len() as u64),
        (names::GRANTS, compiled.grants.len() as u64),
        (names::OWNER_STATE, owners),
    ];
    used.into_iter()
        .map(|(table, entries)| {
            let capacity = generation.map(table)?.info()?.max_entries();
            Ok((table, entries, u64::from(capacity)))
        })
        .collect()
}
