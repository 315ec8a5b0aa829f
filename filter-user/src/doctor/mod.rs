//! What of this host stands in the filter's way, or beside it: looked at, and told with what it means and what to do.
//!
//! `host` looks and changes nothing; the others judge what was seen, and are pure. Each finding is of one definition,
//! which docs/DOCTOR.md lists. For `keyfence doctor`, and for whoever applies a policy.

mod coverage;
pub mod definitions;
mod filter;
mod host;
mod interfaces;
mod machine;
mod published;
#[cfg(test)]
mod tests;

pub use definitions::{Definition, Severity, reference};
pub use filter::{Held, InForce};
pub use host::Host;
pub use interfaces::{Mode, State};
pub use machine::Machine;

use serde_json::{Value, json};

use crate::policy::Policy;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub definition: &'static Definition,
    /// What and where.
    pub what: String,
}

impl Finding {
    pub fn new(definition: &'static Definition, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { definition, what }
    }

    /// Whether the filter, or what it promises, is less than the policy wants.
    pub fn degrades(&self) -> bool {
        self.definition.severity != Severity::Note
    }

    pub fn object(&self) -> Value {
        let Definition {
            id,
            severity,
            means,
            fix,
        } = self.definition;
        json!({"id": id, "severity": severity.word(), "what": self.what, "means": means, "do": fix})
    }
}

/// What reaches services past the filter: other interfaces, addresses that no service names, devices that unwrap, ports
/// that NAT publishes.
pub fn past_the_filter(policy: &Policy, host: &Host) -> Vec<Finding> {
    let filtered = host.filtered(policy);
    let mut found = coverage::unfiltered(policy, host, &filtered);
    found.extend(coverage::unserved(policy, host, &filtered));
    found.extend(coverage::unwraps(host, &filtered));
    found.extend(published::findings(policy, &host.published));
    found
}

/// All of it: the machine, what is in force, the interfaces, and what goes past them. Worst first.
pub fn examine(policy: Option<&Policy>, host: &Host, machine: &Machine, in_force: &InForce) -> Vec<Finding> {
    let mut found = machine.findings(policy);
    found.extend(in_force.findings());
    if let Some(policy) = policy {
        found.extend(interfaces::findings(policy, host, in_force));
        found.extend(past_the_filter(policy, host));
    } else {
        found.extend(coverage::unwraps(host, &[]));
    }
    let unseen = host.unseen.iter().chain(&machine.unseen);
    found.extend(unseen.map(|unseen| Finding::new(&definitions::NOT_LOOKED, unseen)));
    sort(&mut found);
    found
}

/// Worst first, else in the order they were found in.
pub fn sort(found: &mut [Finding]) {
    found.sort_by_key(|finding| finding.definition.severity);
}
