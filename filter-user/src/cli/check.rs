//! `keyfence check`.

use std::path::PathBuf;

use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::engine;
use crate::policy::{self, Colour};

const AFTER_HELP: &str = "\
Needs no root, no network and no interface. Faults and warnings of all files are shown at once, each with file, \
line, column and how to fix it.

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
    loaded.diagnostics.extend(missing);
    let exit = if loaded.policy.is_some() {
        Exit::Done
    } else {
        Exit::PolicyInvalid
    };
    if arguments.json {
        shell.write(&format!("{:#}\n", policy::check_report_json(&loaded)))?;
        return Ok(exit);
    }
    let colour = if shell.colour_errors {
        Colour::Always
    } else {
        Colour::Never
    };
    if !loaded.diagnostics.is_empty() {
        shell.say(&policy::render(&loaded, colour));
    }
    if let Some(policy) = &loaded.policy {
        let sources: usize = policy.clients.iter().map(|client| client.sources.len()).sum();
        shell.write(&format!(
            "{}: valid: {} services, {} clients with {sources} sources, {} denies, {} management entries\n",
            arguments.file.display(),
            policy.services.len(),
            policy.clients.len(),
            policy.denies.len(),
            policy.management.len(),
        ))?;
    }
    Ok(exit)
}
