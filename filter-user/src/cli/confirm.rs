//! Asks before what may do harm: on a terminal, else `--yes` is the answer.

use std::io::IsTerminal as _;

use super::exit::{Exit, Failure};
use super::shell::Shell;

/// Goes on where a person says so.
pub(super) fn ask(what: &str, shell: &Shell) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Refused, format!("{what}. Say --yes to do it")));
    }
    shell.say(&format!("{what}. Go on? [y/N]"));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failure::new(Exit::Refused, "not confirmed: nothing was changed")),
    }
}
