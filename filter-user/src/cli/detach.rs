//! `keyfence detach`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::client::{self, Call};
use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::engine;
use crate::kernel::pins::{PinError, Pins};
use crate::records::last::Last;

/// A daemon that runs answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
Says what becomes open, then asks; where there is no terminal to ask on, it needs --yes. A daemon that runs does it \
(the caller must be an operator) and tells its audit log; it stays, unready, and filters again when it is started anew. \
Works with the daemon dead.

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
    /// The daemon's Unix socket
    #[arg(long, value_name = "PATH", default_value = super::SOCKET)]
    pub(crate) socket: PathBuf,
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
    if !by_daemon(&arguments.socket, &instance, shell) {
        let last = Last::before(&pins, &arguments.policy, &instance);
        for line in last.write_after(|| pins.clear().map_err(failed))? {
            shell.say(&line);
        }
    }
    shell.say(&format!("detached: every packet on {names} passes"));
    Ok(Exit::Done)
}

/// Asks the daemon of this instance, if it runs. Whoever may clear the pins may do so without it.
fn by_daemon(socket: &Path, instance: &str, shell: &Shell) -> bool {
    let Ok(status) = client::ask(socket, Method::GET, "/v1/status", PATIENCE) else {
        return false;
    };
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    if status["instance"] != instance {
        return false;
    }
    let call = Call {
        method: Method::POST,
        path: "/v1/detach".to_owned(),
        body: None,
    };
    match client::send(socket, call, client::PATIENCE) {
        Ok(_) => true,
        Err(failure) => {
            let why = failure.text;
            shell.say(&format!(
                "the daemon does not do it ({why}): its audit log does not tell of this"
            ));
            false
        }
    }
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
