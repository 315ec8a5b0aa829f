//! `keyfence version`.

use serde_json::json;

use super::exit::{Exit, Failure};
use super::shell::Shell;
use filter_common::abi::LAYOUT_VERSION;

/// Which `version = …` of a policy file this build reads.
const POLICY_VERSION: u32 = 1;

const AFTER_HELP: &str = "\
Exit codes:
  0  shown
  2  wrong usage

Example:
  keyfence version --json | jq .layout_version";

/// Show the versions of the program, of the policy file and of the kernel tables
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    shell.write(&text(arguments.json, LAYOUT_VERSION))?;
    Ok(Exit::Done)
}

fn text(as_json: bool, layout_version: u32) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if as_json {
        let object = json!({
            "schema": 1,
            "version": version,
            "policy_version": POLICY_VERSION,
            "layout_version": layout_version,
        });
        format!("{object}\n")
    } else {
        format!("keyfence {version} (policy version {POLICY_VERSION}, table layout {layout_version})\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_tell_the_same() {
        let object: serde_json::Value = serde_json::from_str(&text(true, 3)).unwrap();
        assert_eq!(
            (&object["schema"], &object["layout_version"]),
            (&json!(1), &json!(3))
        );
        let line = text(false, 3);
        assert!(
            line.contains(object["version"].as_str().unwrap()) && line.contains("table layout 3"),
            "{line}"
        );
    }
}
