//! What a start finds of an earlier daemon's filter: looked at beside the reading of the store, which takes as long.
//!
//! Nothing that judges packets is changed here, so a start may still end behind it.

use std::fs::File;
use std::sync::Arc;

use filter_common::abi::{self, Meta};
use nix::fcntl::Flock;

use super::Options;
use super::error::FilterError;
use super::filter::Filter;
use super::start::{Inherited, judging, stand_in, witness_of};
use crate::kernel::attach::Entry;
use crate::kernel::pins::{Found, PinError, Pins};
use crate::kernel::state::Limits;
use crate::kernel::switch::Switch;
use crate::policy::Policy;

/// Whoever holds it holds the pin folder, wherever its state is kept.
pub struct Finding {
    pub(super) options: Options,
    pub(super) pins: Pins,
    pub(super) there: There,
}

pub(super) enum There {
    Nothing,
    /// What a start has left that ended half-way.
    Half(Flock<File>),
    /// A filter that cannot be taken over: of another layout, or pins of it are missing.
    Other(Flock<File>, Found),
    /// One of this layout, of which nothing is known but what is pinned, and its policy that waited to be confirmed.
    Ours(Box<Filter>, Option<abi::Switch>),
}

impl Finding {
    pub async fn of(options: &Options, policy: &Arc<Policy>) -> Result<Self, FilterError> {
        let (options, policy) = (options.clone(), Arc::clone(policy));
        let looked = tokio::task::spawn_blocking(move || Self::look(options, &policy)).await;
        looked.map_err(|error| FilterError::Panicked(error.to_string()))?
    }

    fn look(options: Options, policy: &Policy) -> Result<Self, FilterError> {
        let pins = Pins::of(&options.bpf_fs, &policy.daemon.instance)?;
        let held = || FilterError::Instance(policy.daemon.instance.clone());
        let lock = match pins.root().exists() {
            true => Some(pins.lock()?.ok_or_else(held)?),
            false => None,
        };
        let found = match pins.look() {
            Err(PinError::Newer { meta, .. }) if options.downgrade => Found::Other(meta),
            Err(PinError::Unmarked { .. }) if options.downgrade => Found::Other(Meta::default()),
            found => found?,
        };
        if lock.is_some() {
            pins.settle()?;
        }
        let there = match (found, lock) {
            (Found::Other(_) | Found::Torn(_), lock) => There::Other(lock.ok_or_else(held)?, found),
            (Found::Ours(meta), lock) => {
                pins.check_shapes()?;
                pins.check_program()?;
                let (filter, armed) = over(&pins, lock.ok_or_else(held)?, &options, meta)?;
                There::Ours(Box::new(filter), armed)
            }
            (Found::Half, Some(lock)) => There::Half(lock),
            (Found::Nothing | Found::Half, _) => There::Nothing,
        };
        Ok(Self { options, pins, there })
    }
}

fn over(
    pins: &Pins,
    lock: Flock<File>,
    options: &Options,
    meta: Meta,
) -> Result<(Filter, Option<abi::Switch>), FilterError> {
    let generation = stand_in(pins, options, 1)?;
    let armed = Switch::of(&generation)?.armed();
    let limits = Limits::pinned(&pins.generation(judging(armed, meta)));
    if limits.is_none() {
        tracing::warn!("the limits in force cannot be read back: buckets whose limit changed start full");
    }
    let maps = pins.maps();
    let filter = Filter::over(Inherited {
        entry: Entry::adopt(pins)?,
        pins: pins.clone(),
        lock,
        generation,
        limits: limits.unwrap_or_default(),
        number: armed.map_or(meta.generation, |armed| armed.standby.max(meta.generation)),
        jiffy_zero: meta.jiffy_zero,
        witness: witness_of(pins, meta.generation),
        maps,
        log: options.kernel_log,
    })?;
    Ok((filter, armed))
}
