//! Whether the kernel judges as it should: every ten seconds known frames are run through the pinned program and the
//! tables in force, and the reference is asked the same.
//!
//! Dry runs: no token is taken, nothing is counted. What differs is an alarm until a round finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ExplainError;
use super::shared::Shared;
use super::snapshot::{Canary, View as _};
use crate::judge::canary::{Known, frames};
use crate::judge::in_force::{By, InForce, Question, explained, holders, source_of};
use crate::judge::names_host;
use crate::kernel::addresses;
use crate::policy::Policy;

/// From a round to the next.
const PERIOD: Duration = Duration::from_secs(10);
/// What differs is asked again: packets change buckets, and requests bindings, between two looks.
const TRIES_MAX: u32 = 3;
/// Of those that differ, so many are named.
const NAMED_MAX: usize = 4;

/// What the last round found, and in which generation.
#[derive(Clone, Debug, Default)]
pub(super) struct Sung {
    pub(super) generation: u64,
    pub(super) canary: Canary,
}

impl Canary {
    /// Why the daemon is not ready, where there is any.
    pub(super) fn sentence(&self) -> Option<String> {
        let named: Vec<&str> = self
            .differing
            .iter()
            .take(NAMED_MAX)
            .map(String::as_str)
            .collect();
        let more = match self.differing.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        (!named.is_empty()).then(|| {
            format!(
                "the kernel's program judges known packets wrongly ({}{more}): find who has changed its tables or \
                 programs, then `keyfence reload`",
                named.join("; ")
            )
        })
    }
}

/// Round after round, whoever polls this.
pub(super) async fn sing(shared: Arc<Shared>) {
    let mut known_owners = Owners::default();
    loop {
        // A round that a new policy has overtaken says nothing.
        if let Some(sung) = round(&shared, &mut known_owners).await {
            shared.sung(sung);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whose bindings hold the frames' sources, as far as a difference has shown it.
type Owners = BTreeMap<IpAddr, BTreeSet<String>>;

async fn round(shared: &Arc<Shared>, owners: &mut Owners) -> Option<Sung> {
    let (epoch, policy) = shared.policy_in_force();
    let host = if names_host(&policy) {
        addresses::of_interfaces().await.unwrap_or_default()
    } else {
        Vec::new()
    };
    let mut sung = Sung::default();
    for known in frames(&policy, &host) {
        let (generation, differs) = ask(shared, (epoch, &policy), &known, owners).await?;
        if sung.generation != 0 && sung.generation != generation {
            return None;
        }
        sung.generation = generation;
        sung.canary.frames += 1;
        sung.canary.differing.extend(differs);
    }
    sung.canary.checked_at = Some(jiff::Timestamp::now());
    Some(sung)
}

/// The generation that was asked, and what differs; `None` where the policy has changed, or the daemon stops.
async fn ask(
    shared: &Arc<Shared>,
    (epoch, policy): (u64, &Arc<Policy>),
    known: &Known,
    owners: &mut Owners,
) -> Option<(u64, Option<String>)> {
    let source = source_of(&known.frame);
    let listed: Vec<String> = source.map(|source| holders(policy, source)).unwrap_or_default();
    let mut tries = 0;
    loop {
        tries += 1;
        let pushed = source
            .and_then(|source| owners.get(&source))
            .into_iter()
            .flatten();
        let question = Question {
            frame: known.frame.clone(),
            epoch,
            owners: listed.iter().chain(pushed).cloned().collect(),
            by: if tries == 1 { By::Entry } else { By::EntryOfAll },
        };
        let in_force = match shared.explain(question).await {
            Ok(in_force) => in_force,
            Err(ExplainError::Policy(_)) => return None,
            Err(ExplainError::Failed(why)) => {
                // Whatever is in the way is told by itself, and the status tells of the last round.
                tracing::debug!("known frames could not be run through the kernel's program: {why}");
                return None;
            }
        };
        if let (Some(source), 2..) = (source, tries) {
            owners.insert(
                source,
                in_force
                    .pushed
                    .grantees
                    .keys()
                    .map(|name| name.to_string())
                    .collect(),
            );
        }
        let generation = in_force.generation;
        let asked = known.clone();
        let compared = tokio::task::spawn_blocking(move || compare(&asked, &in_force)).await;
        let differs = compared.ok()?;
        if differs.is_none() || tries == TRIES_MAX {
            return Some((generation, differs));
        }
    }
}

/// How the kernel's answer differs from the reference's.
fn compare(known: &Known, in_force: &InForce) -> Option<String> {
    let what = &known.what;
    match explained(&known.frame, None, in_force) {
        Ok(told) => match &told.kernel {
            Ok(kernel) if kernel.agrees(&told.reference) => None,
            Ok(kernel) => Some(format!("{what} is {kernel} and should be {}", told.reference)),
            Err(why) => Some(format!("{what}: {why}")),
        },
        Err(error) => Some(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_up_to_a_bound() {
        let of = |count: usize| Canary {
            differing: (0..count).map(|number| format!("frame {number}")).collect(),
            ..Canary::default()
        };
        assert_eq!(of(0).sentence(), None);
        let one = of(1).sentence().unwrap();
        assert!(one.contains("wrongly (frame 0): find"), "{one}");
        let many = of(6).sentence().unwrap();
        assert!(many.contains("frame 3; and 2 more)"), "{many}");
    }
}
