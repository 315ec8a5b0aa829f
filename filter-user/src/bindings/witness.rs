//! What the filter in the kernel was told last of what is kept on disk: by it a start notices a state folder that is
//! older than the filter, or another's. `kernel::witness` has the map.

use std::path::Path;

use tokio::sync::watch;

use super::{Bindings, audit};

/// What was durable, and in force, when it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    pub store: StoreTold,
    pub policy: PolicyTold,
}

/// The store of bindings: its id, and a revision that it had reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreTold {
    pub id: String,
    pub revision: u64,
}

/// The policy in force: the number of its entry in the history, and its hash; 0 and nothing where none was written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyTold {
    pub number: u64,
    pub hash: String,
}

/// The policy that the audit log of this state folder tells of last as in force; its number is 0 where no line has one.
/// None where the log's end tells of none.
pub fn policy_told(folder: &Path) -> Option<PolicyTold> {
    let (hash, number) = audit::policy_told(&audit::path_in(folder))?;
    Some(PolicyTold { number, hash })
}

impl Bindings {
    /// What the filter in the kernel may be told of the store: what is durable of it; nothing as long as the kernel may hold
    /// what another one held.
    pub fn told(&self) -> Option<StoreTold> {
        // Before the id: of a store that is restored meanwhile, too low a revision is told, which misleads nobody.
        let revision = *self.shared.published.borrow();
        let id = self.shared.store_id.load().as_ref().clone();
        (!self.is_lost()).then_some(StoreTold { id, revision })
    }

    /// Says whenever that may be something else.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.shared.published.subscribe()
    }
}
