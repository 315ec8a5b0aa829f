//! `keyfence check`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::engine;
use crate::judge::expect::{self, Outcome, Tried};
use crate::policy::{self, Colour, Policy};

const AFTER_HELP: &str = "\
Needs no root, no network and no interface. Each `[[expect]]` is tried by the reference on the host and, as root or \
with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, by the kernel program. Faults and \
warnings of all files are shown at once, each with file, line, column and how to fix it.

Exit codes:
  0  valid (there may be warnings)
  1  a file cannot be read
  3  the policy is invalid, or an `[[expect]]` differs

Examples:
  keyfence check
  keyfence check keyfence.toml --json";

/// Say whether a policy file is valid, with all its faults at once
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(value_name = "FILE", default_value = super::POLICY_FILE)]
    pub(crate) file: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let mut loaded = engine::load_policy(&arguments.file);
    let missing = policy::not_enforced_warnings(&loaded);
    let tried = match &loaded.policy {
        Some(policy) => expect::expects(policy, jiff::Timestamp::now()),
        None => Ok(Tried::default()),
    };
    let tried = tried.map_err(|error| Failure::new(Exit::Failed, error))?;
    let differing = tried.faults();
    let valid = loaded.policy.is_some() && differing.is_empty();
    loaded.errors += differing.len();
    for fault in &differing {
        let fix = "correct what it expects, or the entries that decide it; `keyfence explain` shows which";
        let (origin, message) = (&fault.origin, fault.message.clone());
        let shown = policy::entry_error(&loaded, origin, "expect-differs", message, fix);
        loaded.diagnostics.extend(shown);
    }
    let root = arguments.file.display().to_string();
    let unreadable = loaded
        .diagnostics
        .iter()
        .any(|found| found.code == "file-unreadable" && *found.file == *root);
    let exit = match (valid, unreadable) {
        (true, _) => Exit::Done,
        // Nothing was read: that says nothing of a policy.
        (false, true) => Exit::Failed,
        (false, false) => Exit::PolicyInvalid,
    };
    if arguments.json {
        let mut report = policy::check_report_json(&loaded);
        report["valid"] = valid.into();
        report["expects"] = tried.outcomes.iter().map(outcome).collect();
        report["expects_kernel_not_asked"] = tried.kernel_missing.into();
        shell.write(&format!("{report:#}\n"))?;
        return Ok(exit);
    }
    loaded.warnings += missing.len();
    loaded.diagnostics.extend(missing);
    let colour = if shell.colour_errors {
        Colour::Always
    } else {
        Colour::Never
    };
    if !loaded.diagnostics.is_empty() {
        shell.say(&policy::render(&loaded, colour));
    }
    if let Some(policy) = &loaded.policy {
        shell.write(&format!(
            "{}: {}\n",
            arguments.file.display(),
            summary(policy, valid)
        ))?;
        if !tried.outcomes.is_empty() {
            shell.write(&format!("{}\n", expectations(&tried)))?;
        }
    }
    Ok(exit)
}

fn summary(policy: &Policy, valid: bool) -> String {
    let sources: usize = policy.clients.iter().map(|client| client.sources.len()).sum();
    format!(
        "{}: {} services, {} clients with {sources} sources, {} denies, {} management entries",
        if valid { "valid" } else { "not what it expects" },
        policy.services.len(),
        policy.clients.len(),
        policy.denies.len(),
        policy.management.len(),
    )
}

fn expectations(tried: &Tried) -> String {
    let (all, differing) = (tried.outcomes.len(), tried.faults().len());
    let who = match &tried.kernel_missing {
        None => String::from("by the reference on the host and by the kernel program"),
        Some(why) => format!("by the reference on the host; the kernel program was not asked: {why}"),
    };
    format!("{} of {all} expects hold, {who}", all - differing)
}

fn outcome(outcome: &Outcome) -> Value {
    let said = |(verdict, reason): (&str, &str)| json!({ "verdict": verdict, "reason": reason });
    json!({
        "file": outcome.origin.file.as_ref(),
        "line": outcome.origin.line,
        "packet": outcome.packet,
        "expected": { "verdict": outcome.expected.0, "reason": outcome.expected.1 },
        "reference": said(outcome.reference),
        "kernel": outcome.kernel.map(said),
        "holds": outcome.holds(),
    })
}
