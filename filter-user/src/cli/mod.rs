//! The command line: what is asked, who does it, and with which exit code it ends.
//!
//! Arguments are parsed here and nowhere else; each verb has a file, its arguments and a `run`. Data goes to
//! standard output, all else to standard error.

mod ancestors;
mod apply;
mod at_start;
mod audit;
mod backup;
mod bind;
mod bindings;
mod capture;
mod check;
mod client;
mod confirm;
mod deny;
mod detach;
mod doctor;
mod drops;
mod exit;
mod explain;
mod generate;
mod history;
mod init;
mod learn;
mod observe;
mod past;
mod plan;
mod policy;
mod reload;
mod replay;
mod run;
mod service;
mod shell;
mod status;
mod stop;
#[cfg(test)]
mod tests;
mod top;
mod version;
mod why;
mod words;

use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::exit::{Exit, Failure};
use self::shell::Shell;

/// The default policy file.
pub const POLICY_FILE: &str = "/etc/keyfence/keyfence.toml";
/// Where the policy's default listener is.
pub const SOCKET: &str = "/run/keyfence/api.sock";
/// The BPF file system, where links, maps and programs are pinned.
pub use crate::kernel::pins::BPF_FS_DEFAULT as BPF_FS;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  the policy is invalid
  4  refused by a guard
  5  the daemon is not reachable
  6  differs or degraded";

const EXAMPLES: &str = "\
Examples:
  keyfence init --output keyfence.toml   a first policy from this host, in observe mode
  keyfence check keyfence.toml           is it valid?
  keyfence run --policy keyfence.toml    filter by it
  keyfence plan keyfence.toml            what would a changed file change?
  keyfence apply keyfence.toml           put it in force
  keyfence status                        what is in force, who passes, who is dropped";

/// Keeps strangers off an API at the network layer.
///
/// The kernel drops every packet to a protected service unless its source address is listed in the policy; listed
/// clients are held to their limits.
#[derive(Debug, Parser)]
#[command(name = "keyfence", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// When to use colours; `auto` is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Arguments),
    Check(check::Arguments),
    Plan(plan::Arguments),
    Apply(apply::Arguments),
    Confirm(apply::ConfirmArguments),
    Rollback(apply::RollbackArguments),
    History(history::Arguments),
    Run(run::Arguments),
    Reload(reload::Arguments),
    Status(status::Arguments),
    Explain(explain::Arguments),
    Replay(replay::Arguments),
    Why(why::Arguments),
    Drops(drops::Arguments),
    Learn(learn::Arguments),
    Capture(capture::Arguments),
    Bindings(bindings::Arguments),
    Bind(bind::Arguments),
    Unbind(bind::UnbindArguments),
    Deny(deny::Arguments),
    Undeny(deny::UndenyArguments),
    Top(top::Arguments),
    Audit(audit::Arguments),
    Backup(backup::Arguments),
    Restore(backup::RestoreArguments),
    Observe(observe::Arguments),
    Detach(detach::Arguments),
    Doctor(doctor::Arguments),
    Generate(generate::Arguments),
    Version(version::Arguments),
}

/// The whole program.
pub fn main() -> ExitCode {
    crate::sys::look_names_up_in_files();
    let words: Vec<_> = std::env::args_os().collect();
    // Faults and help of the arguments themselves follow --color as well, so it is looked for first.
    let command = command().color(color_asked(words.iter().map(|word| word.to_string_lossy())));
    let parsed = command
        .try_get_matches_from(words)
        .and_then(|found| Ok((Arguments::from_arg_matches(&found)?, wants_json(&found))));
    let (arguments, json) = match parsed {
        Ok(parsed) => parsed,
        Err(fault) => {
            let exit = if fault.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            // Nobody is left to tell if this cannot be written.
            let _ = fault.print();
            return exit.into();
        }
    };
    let shell = Shell::new(arguments.color);
    match arguments.verb.run(&shell) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if let Some(answer) = failure.answer.as_ref().filter(|_| json) {
                // Who asked for an object and cannot be told has the exit code.
                let _ = shell.write(&format!("{}\n", policy::problem(answer, &failure)));
            }
            shell.complain(&failure.text);
            failure.exit.into()
        }
    }
}

/// Whether the command, or the one below it, was given `--json`.
fn wants_json(found: &clap::ArgMatches) -> bool {
    let own = found.try_get_one::<bool>("json").ok().flatten().copied();
    let below = found.subcommand().is_some_and(|(_, below)| wants_json(below));
    own.unwrap_or(false) || below
}

/// The parser, for `main`, man pages and completions.
fn command() -> clap::Command {
    Arguments::command()
}

impl Verb {
    fn run(self, shell: &Shell) -> Result<Exit, Failure> {
        match self {
            Verb::Init(arguments) => init::run(&arguments, shell),
            Verb::Check(arguments) => check::run(&arguments, shell),
            Verb::Plan(arguments) => plan::run(&arguments, shell),
            Verb::Apply(arguments) => apply::run(&arguments, shell),
            Verb::Confirm(arguments) => apply::confirm(&arguments, shell),
            Verb::Rollback(arguments) => apply::rollback(&arguments, shell),
            Verb::History(arguments) => history::run(&arguments, shell),
            Verb::Run(arguments) => run::run(&arguments, shell),
            Verb::Reload(arguments) => reload::run(&arguments, shell),
            Verb::Status(arguments) => status::run(&arguments, shell),
            Verb::Explain(arguments) => explain::run(&arguments, shell),
            Verb::Replay(arguments) => replay::run(&arguments, shell),
            Verb::Why(arguments) => why::run(&arguments, shell),
            Verb::Drops(arguments) => drops::run(&arguments, shell),
            Verb::Learn(arguments) => learn::run(&arguments, shell),
            Verb::Capture(arguments) => capture::run(&arguments, shell),
            Verb::Bindings(arguments) => bindings::run(&arguments, shell),
            Verb::Bind(arguments) => bind::run(&arguments, shell),
            Verb::Unbind(arguments) => bind::unbind(&arguments, shell),
            Verb::Deny(arguments) => deny::run(&arguments, shell),
            Verb::Undeny(arguments) => deny::undeny(&arguments, shell),
            Verb::Top(arguments) => top::run(&arguments, shell),
            Verb::Audit(arguments) => audit::run(&arguments, shell),
            Verb::Backup(arguments) => backup::run(&arguments, shell),
            Verb::Restore(arguments) => backup::restore(&arguments, shell),
            Verb::Observe(arguments) => observe::run(&arguments, shell),
            Verb::Detach(arguments) => detach::run(&arguments, shell),
            Verb::Doctor(arguments) => doctor::run(&arguments, shell),
            Verb::Generate(arguments) => generate::run(&arguments, shell),
            Verb::Version(arguments) => version::run(&arguments, shell),
        }
    }
}

fn color_asked(words: impl Iterator<Item = impl AsRef<str>>) -> ColorChoice {
    let mut asked = ColorChoice::Auto;
    let mut next_is_color = false;
    for word in words {
        let word = word.as_ref();
        if word == "--" {
            break;
        }
        let value = if next_is_color {
            Some(word)
        } else {
            word.strip_prefix("--color=")
        };
        next_is_color = word == "--color";
        asked = value.and_then(|value| value.parse().ok()).unwrap_or(asked);
    }
    asked
}
