//! A filter of another layout is succeeded: the policy's is made beside it and judges nothing until it is whole; then
//! the interfaces go over, one step each, and what was there before goes.
//!
//! What both layouts have in common is shared by both from the start, so nothing is copied and nothing counted is lost;
//! what they do not is told. Until the last step a fault leaves in force what was.
//!
//! The same is done where pins of a filter are missing, since that cannot be taken over either, and where its table of
//! owners is too small, since a map cannot grow.

use std::fs::File;
use std::sync::Arc;

use filter_common::abi::Meta;
use filter_common::abi::parts::{LIMITS, PARTS};
use nix::fcntl::Flock;

use super::build::{Around, Next, Wanted};
use super::compile::Occasion;
use super::error::FilterError;
use super::fill::owners_max;
use super::filter::Filter;
use super::start::{Inherited, judging, stand_in, witness_of};
use super::{Earlier, Options};
use crate::bindings::seam::Many;
use crate::compiler::{Keep, Numbers, Pushed};
use crate::kernel::attach::Entry;
use crate::kernel::grown::Grown;
use crate::kernel::pins::{Found, PinError, Pins};
use crate::kernel::state::Limits;
use crate::kernel::switch::Switch;
use crate::policy::Policy;

impl Filter {
    /// Whether a start would be refused since the filter there is another daemon's, or of a newer layout, or of none: changes
    /// nothing.
    pub fn refuse_start(options: &Options, policy: &Policy) -> Result<(), FilterError> {
        let pins = Pins::of(&options.bpf_fs, &policy.daemon.instance)?;
        if pins.root().exists() && pins.lock()?.is_none() {
            return Err(FilterError::Instance(policy.daemon.instance.clone()));
        }
        match pins.look() {
            Err(PinError::Newer { .. } | PinError::Unmarked { .. }) if options.downgrade => Ok(()),
            looked => Ok(looked.map(drop)?),
        }
    }

    /// Puts a policy in force in the place of a filter that cannot be taken over.
    pub(super) fn succeed(
        (before, lock): (Pins, Flock<File>),
        options: &Options,
        (policy, pushed): (&Arc<Policy>, Pushed),
        around: Around,
        found: Found,
    ) -> Result<Self, FilterError> {
        let (pins, judged, whose) = (before.beside(), before.judges(), whose(&before, found));
        if !judged {
            tracing::error!("{whose} drops every packet until another has taken its place");
        }
        let made = Self::beside(&before, options, (policy, pushed), around, (found, &whose));
        let filter = match made {
            Ok(filter) => filter,
            Err(error) => {
                let given_up = match judged {
                    true => pins.give_up(&before),
                    false => pins.go_through(&before),
                };
                if let Err(error) = given_up {
                    tracing::error!("what was made beside the filter in force stays: {error}");
                }
                return Err(error);
            }
        };
        // Nobody else takes either folder for his before both are what they are to be.
        drop(lock);
        tracing::info!(
            generation = filter.number,
            "{whose} has given way to one of this program's"
        );
        Ok(filter)
    }

    fn beside(
        before: &Pins,
        options: &Options,
        (policy, pushed): (&Arc<Policy>, Pushed),
        around: Around,
        (found, whose): (Found, &str),
    ) -> Result<Self, FilterError> {
        let (pins, theirs, grows) = (before.beside(), theirs(found), matches!(found, Found::Ours(_)));
        let same = pins.begin(before, &theirs, grows)?;
        for (part, _) in PARTS.iter().zip(same).filter(|(_, same)| !same) {
            tracing::warn!("of {whose} not everything can go on: {}", part.lost);
        }
        let lock = pins
            .lock()?
            .ok_or_else(|| FilterError::Instance(policy.daemon.instance.clone()))?;
        // Where the owners' table is taken over, it has its size.
        let (numbers, _) = Numbers::default().assign((policy, &pushed), None, u32::MAX);
        let mut generation = stand_in(
            &pins,
            options,
            owners_max(policy, &numbers, options.owners_at_least),
        )?;
        let mut grown = grows.then(|| Grown::of(before, &generation)).transpose()?;
        let armed = Switch::pinned(before);
        let limits = same[LIMITS].then(|| Limits::pinned(&before.generation(judging(armed, theirs))));
        if limits.as_ref().is_some_and(Option::is_none) {
            tracing::warn!("of {whose} not everything can go on: {}", PARTS[LIMITS].lost);
        }
        let mut filter = Self::over(Inherited {
            entry: Entry::create(&mut generation, &pins)?,
            generation,
            limits: limits.flatten().unwrap_or_default(),
            number: armed.map_or(theirs.generation, |armed| armed.standby.max(theirs.generation)),
            jiffy_zero: theirs.jiffy_zero,
            witness: witness_of(before, theirs.generation),
            maps: before.maps(),
            log: options.kernel_log,
            pins,
            lock,
        })?;
        let wanted = Wanted {
            policy: Arc::clone(policy),
            before: Vec::new(),
            keep: Keep::Least,
            occasion: Occasion::of_start(options),
            many: Many::default(),
        };
        let ground = filter.ground(Arc::default())?;
        let mut next = Next::make(wanted, (pushed, None), around, ground)?;
        // No interface leads here before there is something to go to.
        let mut choice = std::mem::take(&mut next.around.choice);
        grown.iter_mut().for_each(Grown::follow);
        let parted = filter.put(next, None)?;

        let was = before.program_in_force();
        filter.pins.share_links(before)?;
        // What was taken up to here is owed before the first packet goes by the larger table.
        grown.iter_mut().for_each(Grown::follow);
        filter.entry.take_links(&filter.pins)?;
        if let (Some(was), now) = (was, filter.entry.id()?) {
            let hooks = choice.interfaces.iter_mut();
            hooks.for_each(|interface| interface.hook.replace(was, now));
        }
        filter.attach(policy, &choice, Occasion::of_start(options))?;
        grown.map(Grown::end).transpose()?;
        filter.pins = filter.pins.clone().succeed(before)?;
        filter.detach_the_rest();
        parted.let_go();
        Ok(filter)
    }
}

/// Whether a filter that cannot be taken over may be succeeded: what judges goes on unless all is known of what it had
/// in force. What does not is no loss.
pub(super) fn may_give_way(pins: &Pins, found: Found, earlier: Earlier) -> Result<(), FilterError> {
    let torn = matches!(found, Found::Torn(_));
    match torn {
        true if !pins.judges() => return Ok(()),
        // It may be what is missing: the links have it still.
        true => {}
        false => pins.check_program()?,
    }
    match earlier {
        Earlier::Known | Earlier::NewStore | Earlier::Nothing => Ok(()),
        Earlier::NoPolicy | Earlier::NoPushes if torn => {
            Err(FilterError::UnknownAndTorn(pins.missing().join(", ")))
        }
        Earlier::NoPolicy | Earlier::NoPushes => Err(FilterError::Unknown(theirs(found).layout_version)),
    }
}

fn theirs(found: Found) -> Meta {
    match found {
        Found::Ours(meta) | Found::Other(meta) | Found::Torn(meta) => meta,
        Found::Nothing | Found::Half => Meta::default(),
    }
}

fn whose(before: &Pins, found: Found) -> String {
    match (found, theirs(found).layout_version) {
        (Found::Ours(_), _) => String::from("the filter whose table of owners is too small"),
        (Found::Torn(_), _) => format!(
            "the filter whose pins are missing ({})",
            before.missing().join(", ")
        ),
        (_, 0) => String::from("the filter of an unknown layout"),
        (_, version) => format!("the filter of layout {version}"),
    }
}
