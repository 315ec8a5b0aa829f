//! `keyfence plan`: what a policy file would change against what is in force.

use std::path::PathBuf;

use super::client::SocketArguments;
use super::exit::{Exit, Failure};
use super::policy;
use super::shell::Shell;

const AFTER_HELP: &str = "\
Nothing is changed. The file and what it includes are read with the caller's rights and sent to the daemon, which tries \
each `[[expect]]` in the kernel program. Sources that sent traffic in the last day and would be cut are listed, and \
bindings that would be suspended; a warning says where `keyfence apply` would refuse the policy for a connection that stands. \
The caller must be one of `[daemon] operators` (default: root).

Exit codes:
  0  told
  1  failed, or the caller is no operator
  2  wrong usage
  3  the policy is invalid, or an `[[expect]]` differs
  5  the daemon is not reachable
  6  with --exit-code: it would change something

Examples:
  keyfence plan
  keyfence plan keyfence.toml --exit-code";

/// Show what a policy file would change, and whom it would cut
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(value_name = "FILE", default_value = super::POLICY_FILE)]
    file: PathBuf,
    /// End with 6 where it would change something
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object: the plan, or the problem
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let mut body = policy::body(&arguments.file, arguments.json, shell)?;
    body["connections"] = policy::held(shell);
    let asked = ("/v1/policy/plan", Some(body));
    let plan = policy::ask(&arguments.daemon.socket, asked, arguments.json, shell)?;
    if !arguments.json {
        policy::warn(&plan, shell);
        shell.write(&policy::page(&plan, shell))?;
    }
    match arguments.exit_code && plan["differs"] == true {
        true => Ok(Exit::Degraded),
        false => Ok(Exit::Done),
    }
}
