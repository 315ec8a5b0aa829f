//! A filter of another layout is succeeded: the policy's is made beside it and judges nothing until it is whole; then
//! the interfaces go over, one step each, and what was there before goes.
//!
//! What both layouts have in common is shared by both from the start, so nothing is copied and nothing counted is lost;
//! what they do not is told. Until the last step a fault leaves in force what was.

use std::fs::File;
use std::sync::Arc;

use filter_common::abi::Meta;
use filter_common::abi::parts::{LIMITS, PARTS};
use nix::fcntl::Flock;

use super::Options;
use super::build::{Around, Next, Wanted};
use super::compile::Occasion;
use super::error::FilterError;
use super::fill::owners_max;
use super::filter::Filter;
use super::start::{Inherited, judging, stand_in};
use crate::bindings::seam::Many;
use crate::compiler::{Keep, Numbers, Pushed};
use crate::kernel::attach::Entry;
use crate::kernel::pins::{PinError, Pins};
use crate::kernel::state::Limits;
use crate::kernel::switch::Switch;
use crate::policy::Policy;

impl Filter {
    /// Whether a start would be refused since the filter there is of a newer layout, or of none: changes nothing.
    pub fn refuse_newer(options: &Options, policy: &Policy) -> Result<(), FilterError> {
        match Pins::of(&options.bpf_fs, &policy.daemon.instance)?.look() {
            Err(PinError::Newer { .. }) if options.downgrade => Ok(()),
            looked => Ok(looked.map(drop)?),
        }
    }

    /// Puts a policy in force in the place of a filter of another layout.
    pub(super) fn succeed(
        (before, lock): (Pins, Flock<File>),
        options: &Options,
        (policy, pushed): (&Arc<Policy>, Pushed),
        around: Around,
        theirs: Meta,
    ) -> Result<Self, FilterError> {
        let pins = before.beside();
        let made = Self::beside(&before, options, (policy, pushed), around, theirs);
        let filter = match made {
            Ok(filter) => filter,
            Err(error) => {
                if let Err(error) = pins.give_up(&before) {
                    tracing::error!("what was made beside the filter in force stays: {error}");
                }
                return Err(error);
            }
        };
        // Nobody else takes either folder for his before both are what they are to be.
        drop(lock);
        tracing::info!(
            generation = filter.number,
            "the filter of layout {} has given way to one of this program's",
            theirs.layout_version
        );
        Ok(filter)
    }

    fn beside(
        before: &Pins,
        options: &Options,
        (policy, pushed): (&Arc<Policy>, Pushed),
        around: Around,
        theirs: Meta,
    ) -> Result<Self, FilterError> {
        let pins = before.beside();
        let same = pins.begin(before, &theirs)?;
        for (part, _) in PARTS.iter().zip(same).filter(|(_, same)| !same) {
            let version = theirs.layout_version;
            tracing::warn!(
                "of the filter of layout {version} not everything can go on: {}",
                part.lost
            );
        }
        let lock = pins
            .lock()?
            .ok_or_else(|| FilterError::Instance(policy.daemon.instance.clone()))?;
        // Where the owners' table is taken over, it has its size.
        let (numbers, _) = Numbers::default().assign((policy, &pushed), None, u32::MAX);
        let mut generation = stand_in(&pins, options, owners_max(policy, &numbers))?;
        let armed = Switch::pinned(before);
        let limits = same[LIMITS].then(|| Limits::pinned(&before.generation(judging(armed, theirs))));
        let mut filter = Self::over(Inherited {
            entry: Entry::create(&mut generation, &pins)?,
            generation,
            limits: limits.flatten().unwrap_or_default(),
            number: armed.map_or(theirs.generation, |armed| armed.standby.max(theirs.generation)),
            jiffy_zero: theirs.jiffy_zero,
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
        let parted = filter.put(next, None)?;

        filter.pins.share_links(before)?;
        filter.entry.take_links(&filter.pins)?;
        if let (Some(was), now) = (before.entry_program(), filter.entry.id()?) {
            let hooks = choice.interfaces.iter_mut();
            hooks.for_each(|interface| interface.hook.replace(was, now));
        }
        filter.attach(policy, &choice, Occasion::of_start(options))?;
        filter.pins = filter.pins.clone().succeed(before)?;
        filter.detach_the_rest();
        parted.let_go();
        Ok(filter)
    }
}
