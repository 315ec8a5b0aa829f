//! The limits of owners, services and publishers as the kernel counts them, each distinct set once.

use std::collections::HashMap;

use filter_common::abi::{Limit, LimitSet};

use super::CompileError;
use crate::policy::model::Limits;

/// The distinct sets of limits of a generation; number 0 is none.
pub struct LimitTable {
    pub entries: Vec<LimitSet>,
    numbers: HashMap<[(u64, u64, u32); 3], u32>,
}

fn identity(set: &LimitSet) -> [(u64, u64, u32); 3] {
    [set.packets, set.bytes, set.connections].map(|l| (l.cost, l.span, l.shift))
}

impl Default for LimitTable {
    fn default() -> Self {
        Self {
            entries: vec![LimitSet::default()],
            numbers: HashMap::new(),
        }
    }
}

/// Limits as the kernel has them.
pub fn limit_set(limits: &Limits) -> Result<LimitSet, CompileError> {
    let mut table = LimitTable::default();
    let number = table.number(limits, "a binding")?;
    Ok(table.entries[number as usize])
}

impl LimitTable {
    /// Of what a compile gave.
    pub fn of(entries: Vec<LimitSet>) -> Self {
        let numbers = (1..)
            .zip(entries.iter().skip(1))
            .map(|(number, set)| (identity(set), number));
        Self {
            numbers: numbers.collect(),
            entries,
        }
    }

    /// The number of a level's limits.
    pub fn number(&mut self, limits: &Limits, what: &str) -> Result<u32, CompileError> {
        if *limits == Limits::default() {
            return Ok(0);
        }
        let made = |limit: Option<crate::policy::model::Limit>, make: Make| match limit {
            None => Ok(Limit::NONE),
            Some(limit) => make(limit.rate, limit.per_seconds, limit.burst)
                .ok_or_else(|| CompileError::Limit(what.into())),
        };
        let set = LimitSet {
            packets: made(limits.packets, Limit::of_tokens)?,
            bytes: made(limits.bytes, Limit::of_bytes)?,
            connections: made(limits.connections, Limit::of_tokens)?,
        };
        Ok(*self.numbers.entry(identity(&set)).or_insert_with(|| {
            self.entries.push(set);
            (self.entries.len() - 1) as u32
        }))
    }
}

type Make = fn(u64, u32, u64) -> Option<Limit>;
