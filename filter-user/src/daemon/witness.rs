//! Tells the kernel of the state folder that its filter goes on with, behind every change of it that is on disk: a start
//! that finds an older folder then knows.

use std::sync::Arc;

use tokio::sync::watch;

use crate::bindings::Bindings;
use crate::bindings::witness::{PolicyTold, Witness};
use crate::kernel::witness::WitnessMap;
use crate::policies::Policies;

/// Goes on as long as the daemon runs, where the kernel has a map for it.
pub(super) fn follow(map: Option<Arc<WitnessMap>>, bindings: &Bindings, policies: &Policies) {
    if let Some(map) = map {
        tokio::spawn(tell(map, bindings.clone(), policies.told()));
    }
}

/// As long as something of the folder counts as lost, what the kernel knows is the better
/// knowledge, and stays.
async fn tell(map: Arc<WitnessMap>, bindings: Bindings, mut policies: watch::Receiver<Option<PolicyTold>>) {
    let mut revisions = bindings.follow();
    let (mut told, mut fails) = (None, false);
    loop {
        revisions.mark_unchanged();
        let store = bindings.told();
        let policy = policies.borrow_and_update().clone();
        let now = store.zip(policy).map(|(store, policy)| Witness { store, policy });
        if let Some(witness) = now.filter(|now| told.as_ref() != Some(now)) {
            let written = map.write(&witness);
            match &written {
                Ok(()) => told = Some(witness),
                Err(_) if fails => {}
                Err(error) => tracing::error!(
                    "the kernel cannot be told how far the state folder is, so an older one may go unnoticed: {error}"
                ),
            }
            fails = written.is_err();
        }
        let changed = tokio::select! {
            changed = revisions.changed() => changed,
            changed = policies.changed() => changed,
        };
        // Whoever would tell more is gone.
        if changed.is_err() {
            return;
        }
    }
}
