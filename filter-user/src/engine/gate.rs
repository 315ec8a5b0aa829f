//! What a policy must pass before it is run: free of faults, enforced by this build, doing what it expects.

use std::path::Path;

use crate::judge::both::JudgeError;
use crate::judge::expect;
use crate::policy::{self, Colour, DiskFiles, Files, LoadContext, Loaded, Policy};

/// Reads a policy file with what the host says of itself.
pub fn load_policy(file: &Path) -> Loaded {
    load_policy_from(&DiskFiles, file)
}

/// The same of files that are no host's.
pub fn load_policy_from(files: &dyn Files, root: &Path) -> Loaded {
    let context = LoadContext {
        now: jiff::Timestamp::now(),
        ephemeral_ports: ephemeral_ports(),
    };
    policy::load_from(files, root, &context)
}

/// The range the kernel picks local ports from.
fn ephemeral_ports() -> (u16, u16) {
    let fallback = (32_768, 60_999);
    let Ok(text) = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else {
        return fallback;
    };
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        _ => fallback,
    }
}

/// What stands in the way of running a policy: its faults, or what it writes that this build does not enforce.
pub fn refusal(loaded: &Loaded) -> Option<String> {
    let Some(policy) = &loaded.policy else {
        return Some(policy::render(loaded, Colour::Never));
    };
    let missing: Vec<String> = policy::not_enforced(policy)
        .into_iter()
        .map(|missing| {
            format!(
                "{}:{}: {}",
                missing.origin.file, missing.origin.line, missing.what
            )
        })
        .collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "this build does not enforce everything that the policy writes, and does not run it:\n  {}\n\
         take these out, or run a release that enforces them",
        missing.join("\n  ")
    ))
}

/// What of a policy's own expectations does not hold, as text; `None` where all do. Blocks while the kernel verifies.
pub fn unexpected(policy: &Policy) -> Result<Option<String>, JudgeError> {
    let faults = expect::expects(policy, jiff::Timestamp::now())?.faults();
    if faults.is_empty() {
        return Ok(None);
    }
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Ok(Some(format!(
        "the policy does not do what it expects:\n  {}",
        faults.join("\n  ")
    )))
}
