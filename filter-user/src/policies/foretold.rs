//! What a plan says beforehand of what `apply` would refuse or warn of, and of what no list of sources can show.

use std::sync::Arc;

use super::change::owners_lacking;
use super::guard::{self, Connection};
use super::{Checked, Inner, PolicyError};
use crate::engine;
use crate::policy::Policy;
use crate::policy::model::{Mode, PassDrop};

/// How a plan begins what it says of connections that the guard protects.
pub const REFUSED: &str = "`keyfence apply` would refuse it: ";

impl Inner {
    /// Sentences; `sent` are the connections that the caller hangs on.
    pub(super) async fn foretell(&self, checked: &Checked, sent: Vec<Connection>) -> Vec<String> {
        let (epoch, in_force) = self.grants.policy();
        let planned = &checked.policy;
        let mut said: Vec<String> = owners_lacking(planned, &self.view.snapshot())
            .into_iter()
            .collect();
        said.extend(closes(&in_force, planned));
        if self.in_force() == checked.hash {
            return said;
        }
        if let Some(lacking) = engine::lacking_interfaces(planned).await {
            said.push(format!("`keyfence apply` would fail: {lacking}"));
        }
        let found = guard::look(&self.bindings, &in_force, (epoch + 1, planned), sent).await;
        if !found.cut.is_empty() {
            let refused = PolicyError::Refused(found.cut);
            said.push(format!("{REFUSED}{refused}"));
        }
        said.extend(found.unseen);
        said
    }
}

/// Packets to no service that pass are in no record: whom this cuts cannot be listed.
fn closes(old: &Arc<Policy>, new: &Arc<Policy>) -> Option<String> {
    let closes = new.filter.mode == Mode::Enforce
        && new.filter.other_traffic == PassDrop::Drop
        && old.filter.other_traffic == PassDrop::Pass;
    closes.then(|| {
        "all that is for no service is dropped from then on (other-traffic), but for connections that stand (reply); nothing \
         has recorded who sends it: under mode = \"observe\" it would be"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{LoadContext, MemoryFiles, load_from};

    fn policy(filter: &str) -> Arc<Policy> {
        let text = format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nmanagement-none = true\n{filter}\n\
             [[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [443]\n"
        );
        let root = std::path::PathBuf::from("policy.toml");
        let files = MemoryFiles::new([(root.clone(), text.into_bytes())]);
        let loaded = load_from(
            &files,
            &root,
            &LoadContext::at("2026-06-01T00:00:00Z".parse().unwrap()),
        );
        let told: Vec<String> = loaded.diagnostics.iter().map(|d| d.to_string()).collect();
        Arc::new(loaded.policy.unwrap_or_else(|| panic!("{told:#?}")))
    }

    #[test]
    fn what_is_for_no_service_and_is_dropped_from_then_on_is_told() {
        let (open, shut) = (
            policy("other-traffic = \"pass\""),
            policy("other-traffic = \"drop\""),
        );
        let observed = policy("other-traffic = \"drop\"\nmode = \"observe\"");
        assert!(closes(&open, &shut).unwrap().contains("for no service"));
        assert_eq!(closes(&open, &observed), None);
        assert_eq!(closes(&observed, &shut), None, "the log of drops has who sent it");
        assert_eq!(closes(&shut, &open), None);
    }
}
