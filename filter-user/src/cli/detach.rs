//! `keyfence detach`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use nix::unistd::geteuid;
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
  2  wrong usage
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
    /// The instance, where the policy file names another, or cannot be read and there are several
    #[arg(long, value_name = "NAME", value_parser = instance_name)]
    pub(crate) instance: Option<String>,
    /// The daemon's Unix socket
    #[arg(long, value_name = "PATH", default_value = super::SOCKET)]
    pub(crate) socket: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let instance = match &arguments.instance {
        Some(name) => name.clone(),
        None => instance_of(arguments)?,
    };
    // Who may ask the daemon need not be able to see the pins.
    let asked = asked(&arguments.socket, &instance);
    let linked = match &asked {
        Some(attached) if !attached.is_empty() => attached.clone(),
        _ => match pinned(&arguments.bpf_fs, &instance)? {
            Some((_, linked)) => linked,
            None => {
                shell.say(&nothing(&arguments.bpf_fs, &instance));
                return Ok(Exit::Done);
            }
        },
    };
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
    if (asked.is_none() || !by_daemon(&arguments.socket, shell))
        && let Some((pins, _)) = pinned(&arguments.bpf_fs, &instance)?
    {
        let last = Last::before(&pins, &arguments.policy, &instance);
        for line in last.write_after(|| pins.clear().map_err(not_allowed))? {
            shell.say(&line);
        }
    }
    shell.say(&format!("detached: every packet on {names} passes"));
    Ok(Exit::Done)
}

/// The pins of an instance, and the interfaces that it filters by them; `None` where it filters nothing.
fn pinned(bpf_fs: &Path, instance: &str) -> Result<Option<(Pins, Vec<String>)>, Failure> {
    let pins = Pins::to_clear(bpf_fs, instance).map_err(not_allowed)?;
    let linked = pins.linked().map_err(not_allowed)?;
    let is_there = !linked.is_empty() || pins.root().exists();
    Ok(is_there.then_some((pins, linked)))
}

/// With what becomes of it, where it is for want of a right.
fn not_allowed(error: PinError) -> Failure {
    let text = match geteuid().is_root() {
        true => error.to_string(),
        false => format!(
            "{error}\nWithout the daemon, root or the user whose daemon filters can detach; with it, an operator ([daemon] \
             operators), by --socket"
        ),
    };
    Failure::new(Exit::Failed, text)
}

/// Which others do filter: the name may be wrong.
fn nothing(bpf_fs: &Path, instance: &str) -> String {
    let others = Pins::filtering(bpf_fs);
    match others.as_slice() {
        [] => format!("instance {instance} filters nothing"),
        others => format!(
            "instance {instance} filters nothing; still in force: instance {}",
            others.join(", ")
        ),
    }
}

/// The interfaces that the daemon of this instance filters, if it runs.
fn asked(socket: &Path, instance: &str) -> Option<Vec<String>> {
    let status = client::ask(socket, Method::GET, "/v1/status", PATIENCE).ok()?;
    let status: Value = serde_json::from_str(&status).ok()?;
    if status["instance"] != instance {
        return None;
    }
    let interfaces = status["interfaces"].as_array().into_iter().flatten();
    let attached = interfaces.filter(|interface| interface["attached"] == true);
    let names = attached.filter_map(|interface| interface["name"].as_str());
    Some(names.map(str::to_owned).collect())
}

/// Asks the daemon. Whoever may clear the pins may do so without it.
fn by_daemon(socket: &Path, shell: &Shell) -> bool {
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

/// Of the policy file; where that is broken, as in a lock-out it may be, of the daemon or of the only filter there is.
fn instance_of(arguments: &Arguments) -> Result<String, Failure> {
    let loaded = engine::load_policy(&arguments.policy);
    if let Some(policy) = loaded.policy {
        return Ok(policy.daemon.instance);
    }
    if let Some(name) = running(&arguments.socket) {
        return Ok(name);
    }
    let file = arguments.policy.display();
    let filtering = Pins::filtering(&arguments.bpf_fs);
    let text = match filtering.as_slice() {
        [only] => return Ok(only.clone()),
        [] => format!("{file} cannot be read as a policy; name the instance with --instance"),
        several => format!(
            "{file} cannot be read as a policy; name the instance: --instance {}",
            several.join(", or --instance ")
        ),
    };
    Err(Failure::new(Exit::Failed, text))
}

/// The instance of the daemon that answers.
fn running(socket: &Path) -> Option<String> {
    let status = client::ask(socket, Method::GET, "/v1/status", PATIENCE).ok()?;
    let status: Value = serde_json::from_str(&status).ok()?;
    status["instance"].as_str().map(str::to_owned)
}
