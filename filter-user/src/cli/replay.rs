//! `keyfence replay`.

use std::net::IpAddr;
use std::path::PathBuf;

use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_HELP: &str = "\
Every frame runs through the kernel program itself, with buckets of its own that are full at each file's start. Time \
follows the capture. A frame that cannot be judged has verdict null and the reason in `skipped`.

Exit codes:
  0  all files were read (frames may have been skipped)
  1  failed
  3  the policy is invalid

Examples:
  keyfence replay --policy keyfence.toml incident.pcap
  keyfence replay --policy keyfence.toml --json captures/ > verdicts.jsonl";

/// Judge captured frames by a policy, touching no interface
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = super::POLICY_FILE)]
    pub(crate) policy: PathBuf,
    /// One JSON object a frame, then a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// What `address = "host"` means; may be given more than once
    #[arg(long, value_name = "ADDR")]
    pub(crate) host_address: Vec<IpAddr>,
    /// Bindings to judge by as well, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) bindings: Option<PathBuf>,
    /// pcap and pcapng files; a folder means all in it
    #[arg(value_name = "CAPTURE", required = true)]
    pub(crate) captures: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, _shell: &Shell) -> Result<Exit, Failure> {
    let Arguments {
        policy,
        json: _,
        host_address: _,
        bindings: _,
        captures: _,
    } = arguments;
    Err(Failure::new(
        Exit::Failed,
        format!("{}: this build does not replay captures yet", policy.display()),
    ))
}
