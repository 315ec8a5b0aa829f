//! `keyfence check`.

use std::path::PathBuf;
use std::sync::Arc;

use filter_common::abi::names;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::at_start;
use super::exit::{Exit, Failure};
use super::shell::Shell;
use super::words::count;
use crate::compiler::CompileError;
use crate::compiler::Pushed;
use crate::compiler::port_sets::are_set;
use crate::engine;
use crate::judge::Bench;
use crate::judge::both::JudgeError;
use crate::judge::expect::{self, Outcome, Tried};
use crate::policy::model::{Client, Origin};
use crate::policy::{self, Colour, Loaded, Policy};

const AFTER_HELP: &str = "\
Needs no root, no network and no interface. Each `[[expect]]` is tried by the reference on the host and, as root or \
with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, by the kernel program. Faults and \
warnings of all files are shown at once, each with file, line, column and how to fix it.

Exit codes:
  0  valid (there may be warnings)
  1  a file cannot be read
  2  wrong usage
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
        Some(policy) => tried(policy),
        None => Ok(Tried::default()),
    };
    let tried = match tried {
        Ok(tried) => tried,
        Err(JudgeError::Compile(error)) => {
            uncompilable(&mut loaded, &error);
            Tried::default()
        }
        Err(error) => return Err(Failure::new(Exit::Failed, error)),
    };
    let differing = tried.faults();
    let valid = loaded.policy.is_some() && differing.is_empty();
    loaded.errors += differing.len();
    for fault in &differing {
        let fix = "correct what it expects, or the entries that decide it; `keyfence explain` shows which";
        let (origin, message) = (&fault.origin, fault.message.clone());
        let shown = policy::entry_error(&loaded, origin, "expect-differs", message, fix);
        loaded.diagnostics.extend(shown);
    }
    let exit = match (valid, loaded.unreadable.is_some()) {
        (true, _) => Exit::Done,
        // Nothing was read: that says nothing of a policy.
        (false, true) => Exit::Failed,
        (false, false) => Exit::PolicyInvalid,
    };
    let lacking = match &loaded.policy {
        Some(policy) => {
            let files = loaded.files.iter();
            let files = files.filter_map(|file| std::path::absolute(&*file.name).ok());
            let files: Vec<PathBuf> = files.collect();
            at_start::lacking(files.iter().map(PathBuf::as_path), policy)
        }
        None => Vec::new(),
    };
    if arguments.json {
        let mut report = policy::check_report_json(&loaded);
        report["valid"] = valid.into();
        report["lacking_at_start"] = lacking.into();
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
    match (&loaded.unreadable, loaded.errors) {
        (Some(why), _) => shell.complain(why),
        (None, 0) if loaded.diagnostics.is_empty() => {}
        (None, 0) => shell.say(&policy::render(&loaded, colour)),
        (None, _) => shell.complain(&policy::render(&loaded, colour)),
    }
    for lacking in &lacking {
        shell.say(&format!("warning: {lacking}"));
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

/// What it expects, of tables that it has on any host.
fn tried(policy: &Policy) -> Result<Tried, JudgeError> {
    Bench::new(policy, &[], &|_| u64::MAX, &Pushed::default())?;
    expect::expects(policy, jiff::Timestamp::now())
}

/// Makes of a policy without tables one with an error at the entry that is too much.
fn uncompilable(loaded: &mut Loaded, error: &CompileError) {
    let Some(policy) = loaded.policy.take() else {
        return;
    };
    let root = loaded.files.first().map(|root| Origin {
        file: Arc::clone(&root.name),
        line: 1,
    });
    let Some(origin) = entry_of(&policy, error).or(root) else {
        return;
    };
    let fix = "`keyfence run` and `reload` refuse it";
    loaded.errors += 1;
    let shown = policy::entry_error(loaded, &origin, "no-tables", error.to_string(), fix);
    loaded.diagnostics.extend(shown);
}

/// The last entry that has a part in it, where one can be told.
fn entry_of(policy: &Policy, error: &CompileError) -> Option<Origin> {
    let client = |name: &str| policy.clients.iter().rfind(|client| client.name == name);
    let service = |name: &str| policy.services.iter().rfind(|service| service.name == name);
    let origin = match error {
        CompileError::OwnersPerSource { prefix, .. } => {
            let prefix: IpNet = prefix.parse().ok()?;
            let holds = |client: &&Client| {
                client.enabled && client.sources.iter().any(|s| s.prefix.contains(&prefix))
            };
            &policy.clients.iter().rfind(holds)?.origin
        }
        CompileError::TableFull {
            table: "management", ..
        } => &policy.management.last()?.origin,
        CompileError::TableFull {
            table: names::PORT_SETS,
            ..
        } => {
            let has_set = |client: &&Client| client.enabled && are_set(&client.source_ports);
            &policy.clients.iter().rfind(has_set)?.origin
        }
        CompileError::Limit(what) => match what.split_once(' ')? {
            ("client", name) => &client(name)?.origin,
            ("service", name) => &service(name)?.origin,
            _ => return None,
        },
        CompileError::Overlap { second, .. } => &service(second)?.origin,
        CompileError::TableFull { .. } | CompileError::Unnumbered(_) => return None,
    };
    Some(origin.clone())
}

fn summary(policy: &Policy, valid: bool) -> String {
    let sources: usize = policy.clients.iter().map(|client| client.sources.len()).sum();
    format!(
        "{}: {}, {} with {}, {}, {}",
        if valid { "valid" } else { "not what it expects" },
        count(policy.services.len(), "service", "services"),
        count(policy.clients.len(), "client", "clients"),
        count(sources, "source", "sources"),
        count(policy.denies.len(), "deny", "denies"),
        count(policy.management.len(), "management entry", "management entries"),
    )
}

fn expectations(tried: &Tried) -> String {
    let (all, differing) = (tried.outcomes.len(), tried.faults().len());
    let who = match &tried.kernel_missing {
        None => String::from("by the reference on the host and by the kernel program"),
        Some(why) => format!("by the reference on the host; the kernel program was not asked: {why}"),
    };
    let all_of = count(all, "expect holds", "expects hold");
    format!("{} of {all_of}, {who}", all - differing)
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
