//! `keyfence detach`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::engine;
use crate::kernel::pins::{PinError, Pins};
use crate::records::last::Last;

const AFTER_HELP: &str = "\
Says what becomes open, then asks; where there is no terminal to ask on, it needs --yes. Works with the daemon dead.

Exit codes:
  0  detached, or nothing was attached
  1  failed
  4  not confirmed

Example:
  keyfence detach --yes";

/// Take the filter off the interfaces: every packet passes again
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file, for the instance's name
    #[arg(long, value_name = "FILE", default_value = super::POLICY_FILE)]
    pub(crate) policy: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// The BPF file system
    #[arg(long, value_name = "DIR", default_value = super::BPF_FS)]
    pub(crate) bpf_fs: PathBuf,
    /// The instance, where the policy file cannot be read or names another
    #[arg(long, value_name = "NAME", value_parser = instance_name)]
    pub(crate) instance: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let instance = match &arguments.instance {
        Some(name) => name.clone(),
        None => instance_of(&arguments.policy)?,
    };
    let failed = |error: PinError| Failure::new(Exit::Failed, error);
    let pins = Pins::to_clear(&arguments.bpf_fs, &instance).map_err(failed)?;
    let linked = pins.linked().map_err(failed)?;
    if linked.is_empty() && !pins.root().exists() {
        shell.say(&format!("instance {instance} filters nothing"));
        return Ok(Exit::Done);
    }
    let names = if linked.is_empty() {
        String::from("no interface")
    } else {
        linked.join(", ")
    };
    let open = format!("instance {instance} filters {names}: after this, every packet there passes");
    if !arguments.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new(Exit::Refused, format!("{open}. Say --yes to do it")));
        }
        shell.say(&format!("{open}. Go on? [y/N]"));
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        if read.is_err() || !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Failure::new(Exit::Refused, "not confirmed: nothing was changed"));
        }
    }
    let last = Last::before(&pins, &arguments.policy, &instance);
    for line in last.write_after(|| pins.clear().map_err(failed))? {
        shell.say(&line);
    }
    shell.say(&format!("detached: every packet on {names} passes"));
    Ok(Exit::Done)
}

/// What the policy admits as a name.
fn instance_name(text: &str) -> Result<String, String> {
    let rest = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    let first = |character: char| character.is_ascii_alphanumeric();
    if text.len() <= 63 && text.starts_with(first) && text.chars().all(rest) {
        return Ok(text.to_owned());
    }
    Err("a name is a letter or digit, then up to 62 of letters, digits, `.`, `_` and `-`".to_owned())
}

fn instance_of(file: &std::path::Path) -> Result<String, Failure> {
    let loaded = engine::load_policy(file);
    loaded.policy.map(|policy| policy.daemon.instance).ok_or_else(|| {
        let file = file.display();
        Failure::new(
            Exit::Failed,
            format!("{file} cannot be read as a policy; name the instance with --instance"),
        )
    })
}
