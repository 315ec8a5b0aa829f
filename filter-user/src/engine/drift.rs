//! Whether the kernel's tables in force are as the engine wrote them: read back a slice at a time, beside its work.
//!
//! What it finds is shown and counted until the next generation, which is written whole: mended by nothing else, since
//! whoever changed the tables may do so again.

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

    fn is(&self, generation: u64) -> bool {
        let slot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().is_some_and(|(now, _)| *now == generation)
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

/// What the last read-back found, and of which generation.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) generation: u64,
    pub(super) drift: Drift,
}

impl Drift {
    /// Why the daemon is not ready, where there is any.
    pub(super) fn sentence(&self) -> Option<String> {
        if self.entries == 0 {
            return None;
        }
        let tables: Vec<String> = self
            .tables
            .iter()
            .map(|of| format!("{} of {}", of.entries, of.table))
            .collect();
        Some(format!(
            "entries of the kernel's tables are not as this daemon wrote them ({}): another program has changed \
             them; find it, then `keyfence reload` writes them anew",
            tables.join(", ")
        ))
    }
}

/// Reads back what is in force, again and again: on other threads, whoever polls this.
pub(super) async fn read_back(shared: Arc<Shared>) {
    loop {
        let started = Instant::now();
        if let Some(generation) = shared.in_force.now()
            && let Some(found) = pass(&shared.in_force, generation).await
        {
            shared.found(found);
            tokio::time::sleep(PERIOD.saturating_sub(started.elapsed())).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// All tables of a generation once; `None` where another came into force meanwhile.
async fn pass(in_force: &TablesInForce, (generation, tables): Generation) -> Option<Found> {
    let mut found = BTreeMap::<&'static str, u64>::new();
    let steps = u32::try_from(tables.steps(SLICE_BYTES)).unwrap_or(u32::MAX);
    let pause = SPREAD / steps.max(1);
    let mut place = Some(Place::default());
    while let Some(from) = place {
        if !in_force.is(generation) {
            return None;
        }
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
        tokio::time::sleep(pause.max(took * SHARE)).await;
    }
    if in_force.misled(generation) {
        found.insert(OTHER_JUDGE, 1);
    }
    in_force.is(generation).then(|| Found {
        generation,
        drift: Drift {
            entries: found.values().sum(),
            tables: found
                .into_iter()
                .map(|(table, entries)| TableDrift { table, entries })
                .collect(),
            checked_at: Some(jiff::Timestamp::now()),
        },
    })
}
