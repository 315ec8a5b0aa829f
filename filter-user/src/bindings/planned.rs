//! The bindings under a policy that is only planned: which would be suspended, and whom the others would admit.

use std::sync::Arc;

use ipnet::IpNet;

use super::Bindings;
use super::model::allowance::PolicyView;
use super::model::row::Row;
use super::model::view::{self, state, suspended};
use super::requests::State;
use super::seam::LeftOut;
use crate::policy::Policy;

/// A binding that has not ended.
pub struct Planned<'a> {
    pub publisher: &'a str,
    pub credential: &'a str,
    /// Under the policy in force.
    pub state: State,
    /// Why it would have no grant, if it would have none.
    pub suspended: Option<String>,
    row: &'a Row,
    view: &'a PolicyView,
}

impl Planned<'_> {
    pub fn owner(&self) -> String {
        view::owner(self.publisher, self.credential).to_string()
    }

    pub fn sources(&self) -> &[IpNet] {
        &self.row.content.sources
    }

    /// Those that the planned policy has it reach, as long as it is not suspended.
    pub fn services(&self) -> &[Box<str>] {
        let allowance = self.view.publisher(self.publisher);
        let services = allowance.and_then(|allowance| allowance.resolve(&self.row.content.services));
        services.map_or(&[], |services| services)
    }
}

impl Bindings {
    /// Each binding that has not ended, as it would stand with those of `left` left out. Blocks for as long as all of them
    /// take.
    pub fn each_under(&self, policy: &Arc<Policy>, left: &[LeftOut], mut each: impl FnMut(&Planned<'_>)) {
        let shared = &self.shared;
        let now = shared.clock.now();
        let in_force = shared.view.load_full();
        let planned = PolicyView::new(in_force.epoch + 1, Arc::clone(policy));
        let revision = |left: &LeftOut| {
            let (publisher, credential) = view::named(&left.owner)?;
            let row = shared.memory.get(publisher, credential)?;
            Some((row.revision, left.lacks.clone()))
        };
        planned.leave_out(left.iter().filter_map(revision));
        for shelf in shared.memory.shelves() {
            let facts = shelf.facts();
            shelf.each(|credential, row| {
                let (state, _) = state(&in_force, &shelf.publisher, facts, row, now.boot_ms);
                if state != State::Ended {
                    each(&Planned {
                        publisher: &shelf.publisher,
                        credential,
                        state,
                        suspended: suspended(&planned, &shelf.publisher, facts, row),
                        row,
                        view: &planned,
                    });
                }
            });
        }
    }
}
