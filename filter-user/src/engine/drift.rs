//! Whether the kernel's tables in force are as the engine wrote them: read back a slice at a time, beside its work.
//!
//! A pass ends with the generation that it began with, also where another has come into force: its tables are held, and
//! generations that follow each other faster than a pass takes would never be looked at. What it finds is shown until the
//! next pass, and keeps the daemon from being ready while that generation is in force: the next is written whole. It is
//! mended by nothing else, since whoever changed the tables may do so again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::snapshot::{Drift, TableDrift};
use crate::kernel::written::{Place, ReadBack};

/// From the start of a read-back to the next.
const PERIOD: Duration = Duration::from_secs(5);
/// A read-back takes about this long, however much there is to read.
const SPREAD: Duration = Duration::from_secs(2);
/// Bytes between two pauses: a fraction of a millisecond.
const SLICE_BYTES: usize = 1 << 20;
/// It takes at most this share of one CPU's time: with very many sources it lasts longer instead.
const SHARE: u32 = 20;
/// But no pause is longer: a slice that had to wait for the CPU, or slept with the machine, has not used it.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What is named where packets go to another program than the engine's.
const OTHER_JUDGE: &str = filter_common::abi::names::GENERATION;

type Generation = (u64, Arc<ReadBack>);

/// The generation in force, as who reads it back sees it.
#[derive(Default)]
pub(super) struct TablesInForce(RwLock<Option<Generation>>);

impl TablesInForce {
    /// Puts a generation in force by `swap`; nobody looks in between.
    pub(super) fn put<E>(
        &self,
        generation: u64,
        tables: Arc<ReadBack>,
        swap: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut slot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        swap()?;
        *slot = Some((generation, tables));
        Ok(())
    }

    fn now(&self) -> Option<Generation> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn number(&self) -> Option<u64> {
        let slot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(|(number, _)| *number)
    }

    /// Whether packets go to another judge than the one of this generation, which is in force still.
    pub(super) fn misled(&self, generation: u64) -> bool {
        let slot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some((now, tables)) if *now == generation => tables.judges().is_ok_and(|judges| !judges),
            _ => false,
        }
    }
}

impl Drift {
    /// Why the daemon is not ready, where this is the generation in force.
    pub(super) fn sentence(&self, in_force: Option<u64>) -> Option<String> {
        if self.entries == 0 || self.generation != in_force {
            return None;
        }
        Some(format!(
            "entries of the kernel's tables are not as this daemon wrote them ({}): another program has changed \
             them; find it, then `keyfence reload` writes them anew",
            self.listed()
        ))
    }

    /// What was found that another generation has mended.
    pub(super) fn past(&self) -> String {
        format!(
            "entries of the kernel's tables were not as this daemon wrote them ({}): another program had changed \
             them, and a new generation has taken their place; find it",
            self.listed()
        )
    }

    fn listed(&self) -> String {
        let tables: Vec<String> = self
            .tables
            .iter()
            .map(|of| format!("{} of {}", of.entries, of.table))
            .collect();
        tables.join(", ")
    }
}

/// Reads back what is in force, again and again: on other threads, whoever polls this.
pub(super) async fn read_back(shared: Arc<Shared>) {
    loop {
        let started = Instant::now();
        if let Some(generation) = shared.in_force.now()
            && let Some(found) = pass(&shared.in_force, generation).await
        {
            shared.drifted(found);
            tokio::time::sleep(PERIOD.saturating_sub(started.elapsed())).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// All tables of a generation once; `None` where the daemon stops.
async fn pass(in_force: &TablesInForce, (generation, tables): Generation) -> Option<Drift> {
    let mut found = BTreeMap::<&'static str, u64>::new();
    let steps = u32::try_from(tables.steps(SLICE_BYTES)).unwrap_or(u32::MAX);
    let pause = SPREAD / steps.max(1);
    let mut place = Some(Place::default());
    while let Some(from) = place {
        let tables = Arc::clone(&tables);
        let slice = move || {
            let started = Instant::now();
            let mut differing = Vec::new();
            let next = tables.step(from, SLICE_BYTES, |table| differing.push(table));
            (next, differing, started.elapsed())
        };
        let (next, differing, took) = tokio::task::spawn_blocking(slice).await.ok()?;
        place = next;
        for table in differing {
            *found.entry(table).or_default() += 1;
        }
        tokio::time::sleep(pause.max((took * SHARE).min(PAUSE_MAX))).await;
    }
    if in_force.misled(generation) {
        found.insert(OTHER_JUDGE, 1);
    }
    Some(Drift {
        generation: Some(generation),
        entries: found.values().sum(),
        tables: found
            .into_iter()
            .map(|(table, entries)| TableDrift { table, entries })
            .collect(),
        checked_at: Some(jiff::Timestamp::now()),
    })
}
