//! `keyfence doctor`: what of this host stands in the filter's way, or goes past it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::client;
use super::exit::{Exit, Failure};
use super::shell::{Shell, Tone};
use crate::doctor::{self, Finding, Host, InForce, Machine, Severity, State, definitions};
use crate::engine;

/// A daemon that runs answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// The instance of a policy that says none.
const INSTANCE: &str = "main";

const AFTER_HELP: &str = "\
Looks at the kernel, the interfaces and what holds their XDP hook, the ways by which services are reached unjudged \
(other interfaces, other addresses, tunnels, ports published by NAT), the clocks, and whether the daemon runs. Changes \
nothing. It sees more as root, and names what it could not look at. docs/DOCTOR.md lists all that it finds.

Exit codes:
  0  nothing is wrong; notes may be there
  1  failed
  2  wrong usage
  6  something is wrong: an error or a warning was found

Examples:
  keyfence doctor
  keyfence doctor --json | jq '.findings[] | select(.severity == \"error\")'";

/// Look at this host: what stands in the filter's way or goes past it, what that means and what to do
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = super::POLICY_FILE)]
    policy: PathBuf,
    /// The daemon's Unix socket
    #[arg(long, value_name = "PATH", default_value = super::SOCKET)]
    socket: PathBuf,
    /// The BPF file system
    #[arg(long, value_name = "DIR", default_value = super::BPF_FS)]
    bpf_fs: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let loaded = engine::load_policy(&arguments.policy);
    let policy = loaded.policy.as_ref();
    let instance = policy.map_or(INSTANCE, |policy| policy.daemon.instance.as_str());
    let (host, machine) = (Host::read(), Machine::read(policy));
    let in_force = InForce::look(&arguments.bpf_fs, instance);
    let mut found = doctor::examine(policy, &host, &machine, &in_force);
    if policy.is_none() {
        let faults = loaded.unreadable.clone();
        let what = faults.unwrap_or_else(|| format!("{} has faults", arguments.policy.display()));
        found.push(Finding::new(&definitions::POLICY_INVALID, what));
    }
    found.extend(daemon(arguments));
    doctor::sort(&mut found);
    let states = policy.map(|policy| State::of_all(policy, &host, &in_force));
    let states = states.unwrap_or_default();
    if arguments.json {
        let interfaces: Vec<Value> = states.iter().map(State::object).collect();
        let findings: Vec<Value> = found.iter().map(Finding::object).collect();
        let object = json!({
            "schema": 1,
            "kernel": machine.release,
            "interfaces": interfaces,
            "findings": findings,
        });
        shell.write(&format!("{object:#}\n"))?;
    } else {
        shell.write(&page(&machine, &states, &found, shell))?;
    }
    let degraded = found.iter().any(Finding::degrades);
    Ok(if degraded { Exit::Degraded } else { Exit::Done })
}

/// What the daemon says of itself.
fn daemon(arguments: &Arguments) -> Vec<Finding> {
    let asked = client::ask(&arguments.socket, Method::GET, "/v1/status", PATIENCE);
    let status = match asked.map(|body| serde_json::from_str::<Value>(&body)) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            let what = format!("its status cannot be read: {error}");
            return vec![Finding::new(&definitions::DAEMON_UNREACHABLE, what)];
        }
        Err(failure) => return vec![Finding::new(&definitions::DAEMON_UNREACHABLE, failure.text)],
    };
    let reasons = status["not_ready"].as_array().into_iter().flatten();
    reasons
        .filter_map(Value::as_str)
        .map(|reason| Finding::new(&definitions::DAEMON_NOT_READY, reason))
        .collect()
}

fn page(machine: &Machine, states: &[State], found: &[Finding], shell: &Shell) -> String {
    let mut page = format!("Linux {}\n", machine.release);
    // Writing to a String cannot fail, here and below.
    for state in states {
        let State {
            name,
            driver,
            mode,
            mtu,
            queues,
        } = state;
        let mode = mode.word();
        let _ = writeln!(
            page,
            "{name}: driver {driver}, XDP {mode}, MTU {mtu}, receive queues {queues}"
        );
    }
    for finding in found {
        let definition = finding.definition;
        let tone = match definition.severity {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Warning,
            Severity::Note => Tone::Heading,
        };
        let head = shell.paint(tone, &format!("{} {}", definition.severity.word(), definition.id));
        let _ = writeln!(
            page,
            "\n{head}: {}\n  {}\n  Do: {}",
            finding.what, definition.means, definition.fix
        );
    }
    let _ = match found.iter().filter(|finding| finding.degrades()).count() {
        0 => writeln!(page, "\n{}", shell.paint(Tone::Good, "nothing is wrong")),
        wrong => writeln!(
            page,
            "\n{}",
            shell.paint(Tone::Bad, &format!("{wrong} to look at"))
        ),
    };
    page
}
