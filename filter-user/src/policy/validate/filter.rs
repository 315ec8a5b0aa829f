//! The filter as a whole: interfaces that stand on one another, and the way back in.

use crate::policy::model::{Mode, PassDrop};
use crate::policy::schema::{Draft, FilterDraft, is_glob};
use crate::policy::source::Placed;
use crate::policy::suggest::quoted;
use crate::policy::validate::Judge;

impl Judge<'_> {
    pub(crate) fn filter(&mut self, draft: &Draft) {
        let Some(filter) = &draft.filter else { return };
        self.stacked_interfaces(&filter.interfaces);
        self.icmp_connections(filter);
        if draft.management.is_empty() && !draft.incomplete && !filter.filter.management_none {
            self.no_management(filter);
        }
    }

    /// A packet would be judged, and charged, twice. Which interfaces a glob takes in is known on the host only.
    fn stacked_interfaces(&mut self, interfaces: &[Placed<String>]) {
        for upper in interfaces.iter().filter(|interface| !is_glob(&interface.value)) {
            let lower = interfaces
                .iter()
                .find(|lower| !is_glob(&lower.value) && stands_on(&upper.value, &lower.value));
            if let Some(lower) = lower {
                let message = format!(
                    "{} stands on {}: its packets would be judged twice",
                    quoted(&upper.value),
                    quoted(&lower.value)
                );
                self.faults.error(
                    upper.place,
                    "stacked-interfaces",
                    message,
                    "name only one of the two",
                );
            }
        }
    }

    fn icmp_connections(&mut self, filter: &FilterDraft) {
        if filter.filter.icmp_limit.connections.is_some() {
            let message = "a limit of connections does nothing in `icmp-limit`";
            self.faults.warning(
                filter.icmp_limit,
                "connections-of-icmp",
                message,
                "limit packets or bytes",
            );
        }
    }

    fn no_management(&mut self, filter: &FilterDraft) {
        let fix = "add [[management]] with the addresses that you administer this host from";
        if filter.filter.mode == Mode::Enforce && filter.filter.other_traffic == PassDrop::Drop {
            let message = "other traffic is dropped and no management entry leads back in";
            let fix = format!("{fix}, or set management-none = true in [filter]");
            self.faults
                .error(filter.other_traffic, "no-management", message, fix);
        } else {
            let message = "there is no management entry: a service or a deny may lock you out";
            self.faults.warning(filter.place, "no-management", message, fix);
        }
    }
}

/// `eth0.100` on `eth0`.
fn stands_on(upper: &str, lower: &str) -> bool {
    upper
        .strip_prefix(lower)
        .is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}
