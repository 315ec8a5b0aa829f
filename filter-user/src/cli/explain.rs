//! `keyfence explain`: one packet, each rule and its answer, and what the reference and the kernel program say of it.

mod show;

use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::Value;

use super::bind::parsed;
use super::client;
use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::engine;
use crate::judge::asked::{self, Destination, Endpoint, Hex};
use crate::judge::both::{Both, JudgeError};
use crate::judge::told::{Explained, Interface, Said};
use crate::policy;

const AFTER_HELP: &str = "\
Shows each rule and its answer, the entry that matched (with file and line, or the binding), what is in the buckets, and \
the verdict of the kernel program itself. Takes no token and counts nothing.

The running daemon answers, by what is in force. With --policy, a file answers instead: no bindings, and buckets that are \
full. There the kernel program is asked where this may load it: as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.

Exit codes:
  0  judged, whatever the verdict
  1  failed, or the reference and the kernel program do not agree
  2  the packet is not to be understood
  3  the policy is invalid
  5  the daemon is not reachable; with --policy none is asked

Examples:
  keyfence explain --from 198.51.100.7:40000 --to 203.0.113.10:443/tcp
  keyfence explain --policy new.toml --from 198.51.100.7 --to 203.0.113.10/icmp
  keyfence explain --from [2001:db8::7]:40000 --to [2001:db8::1]:53/udp --json";

const USAGE: &str = "\
keyfence explain [OPTIONS] --from <ADDR:PORT> --to <ADDR:PORT/PROTO>
       keyfence explain [OPTIONS] --frame <HEX>";

/// Show how one packet would be judged, and why
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, override_usage = USAGE)]
pub(crate) struct Arguments {
    /// A policy file, in place of what is in force
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub(crate) policy: Option<PathBuf>,
    /// The daemon's Unix socket: a listener of the policy with the role `read`
    #[arg(long, value_name = "PATH", default_value = super::SOCKET)]
    pub(crate) socket: PathBuf,
    /// The packet's source, as in 198.51.100.7:40000 or [2001:db8::7]:40000
    #[arg(long, value_name = "ADDR:PORT", required_unless_present = "frame")]
    pub(crate) from: Option<Endpoint>,
    /// The packet's destination and protocol (tcp, udp, icmp), as in 203.0.113.10:443/tcp
    #[arg(long, value_name = "ADDR:PORT/PROTO", required_unless_present = "frame")]
    pub(crate) to: Option<Destination>,
    /// A whole Ethernet frame instead, in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with_all = ["from", "to"])]
    pub(crate) frame: Option<Hex>,
    /// The interface it arrives on; the default is the policy's first
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let explained = match &arguments.policy {
        Some(file) => by_file(file, arguments, shell)?,
        None => by_daemon(arguments)?,
    };
    if arguments.json {
        shell.write(&format!("{explained:#}\n"))?;
    } else {
        shell.write(&show::page(&explained, shell))?;
    }
    match show::difference(&explained) {
        None => Ok(Exit::Done),
        Some(difference) => Err(Failure::new(Exit::Failed, difference)),
    }
}

/// By what is in force.
fn by_daemon(arguments: &Arguments) -> Result<Value, Failure> {
    let frame = frame(arguments)?;
    let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let query = client::query(&[
        ("frame", Some(digits)),
        ("interface", arguments.interface.clone()),
    ]);
    let path = format!("/v1/explain{query}");
    let answer =
        client::ask(&arguments.socket, Method::GET, &path, client::PATIENCE).map_err(
            |failure| match failure.exit {
                Exit::Unreachable => {
                    failure.or("with `--policy FILE` a file is explained, without the daemon")
                }
                _ => failure,
            },
        )?;
    parsed(&answer)
}

/// By a file, with nothing pushed and all buckets full.
fn by_file(file: &Path, arguments: &Arguments, shell: &Shell) -> Result<Value, Failure> {
    let frame = frame(arguments)?;
    let loaded = engine::load_policy(file);
    let Some(policy) = &loaded.policy else {
        return Err(super::run::invalid(&loaded, shell));
    };
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error);
    for missing in policy::not_enforced(policy) {
        shell.say(&format!(
            "warning: this build does not enforce {}: it is left out here",
            missing.what
        ));
    }
    let mut both = Both::new(policy, jiff::Timestamp::now()).map_err(|error| match error {
        JudgeError::Compile(error) => super::run::uncompilable(&error),
        error => failed(&error),
    })?;
    let answers = both.ask(&frame).map_err(|error| failed(&error))?;
    let (reading, kind, packet) = both.read(&frame);
    let explained = Explained {
        frame: &frame,
        kind,
        packet,
        interface: Interface::of(policy, arguments.interface.as_deref()),
        reading,
        reference: Said::of(&answers.reference, &both.names),
        kernel: answers
            .kernel
            .as_ref()
            .map(|kernel| Said::of(kernel, &both.names))
            .map_err(Clone::clone),
    };
    Ok(explained.object())
}

fn frame(arguments: &Arguments) -> Result<Vec<u8>, Failure> {
    let (from, to) = match arguments {
        Arguments {
            frame: Some(Hex(frame)),
            ..
        } => return Ok(frame.clone()),
        Arguments {
            from: Some(from),
            to: Some(to),
            ..
        } => (from, to),
        _ => return Err(Failure::new(Exit::Usage, "give --from and --to, or --frame")),
    };
    let families = "--from and --to are not of one address family; give two IPv4 or two IPv6 addresses";
    asked::frame(*from, *to).ok_or_else(|| Failure::new(Exit::Usage, families))
}
