//! Who may do it: tells root from an ordinary user, and goes on by sudo where that is to be had.
//! Never asks for root before it has said what for.

use std::{
    env,
    ffi::OsString,
    io::IsTerminal,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::workspace;

pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// How an ordinary user can become root here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sudo {
    /// Without a password.
    Free,
    /// It will ask for a password, and there is a terminal to ask on.
    Asks,
    Absent,
}

pub(crate) fn sudo() -> Sudo {
    if workspace::program("sudo").is_none() {
        return Sudo::Absent;
    }
    let mut probe = Command::new("sudo");
    probe
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        Sudo::Free
    } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        Sudo::Asks
    } else {
        Sudo::Absent
    }
}

/// Ends where neither root nor a way to it is there, before anything is set up or built.
pub(crate) fn require_way_to_root(command: &str, why: &str) -> Result<()> {
    if !is_root() && sudo() == Sudo::Absent {
        bail!(needs_root(command, why, &as_root()));
    }
    Ok(())
}

/// Returns for root. An ordinary user's command is started again by sudo, or ends with what is needed and why.
pub(crate) fn require_root(command: &str, why: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let line = as_root();
    if sudo() == Sudo::Absent {
        bail!(needs_root(command, why, &line));
    }
    eprintln!("`cargo xtask {command}` needs root: {why}. Going on by sudo:\n  {line}");
    let mut again = Command::new("sudo");
    again
        .arg("env")
        .args(carried_settings())
        .args(["cargo", "xtask"])
        .args(env::args_os().skip(1))
        .current_dir(workspace::root());
    Err(again.exec()).context("cannot start sudo")
}

fn needs_root(command: &str, why: &str, line: &str) -> String {
    format!("`cargo xtask {command}` needs root: {why}.\nRun it as root:\n  {line}")
}

/// This very command, as a shell would have to be given it to run it as root.
fn as_root() -> String {
    let words = |words: Vec<OsString>| {
        let words = words.iter().map(|word| shell_word(&word.to_string_lossy()));
        words.collect::<Vec<_>>().join(" ")
    };
    let arguments = words(env::args_os().skip(1).collect());
    let line = format!("sudo env {} cargo xtask {arguments}", words(carried_settings()));
    line.trim_end().to_owned()
}

/// Root uses this user's Rust and this user's cache, but builds into a folder of its own: files of root among
/// the user's would break the user's next build.
fn carried_settings() -> Vec<OsString> {
    let mut settings = Vec::new();
    let mut carry = |name: &str, value: OsString| {
        let mut setting = OsString::from(name);
        setting.push("=");
        setting.push(value);
        settings.push(setting);
    };
    let home = env::home_dir().unwrap_or_default();
    carry("PATH", env::var_os("PATH").unwrap_or_default());
    carry(
        "RUSTUP_HOME",
        env::var_os("RUSTUP_HOME").unwrap_or_else(|| home.join(".rustup").into()),
    );
    carry(
        "XDG_CACHE_HOME",
        env::var_os("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache").into()),
    );
    carry("CARGO_TARGET_DIR", workspace::target_dir().join("root").into());
    settings
}

/// The word as a shell must be given it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_root_is_told_what_for_and_how() {
        let told = needs_root("run", "it makes namespaces", "sudo cargo xtask run");
        assert!(
            told.starts_with("`cargo xtask run` needs root: it makes namespaces."),
            "{told}"
        );
        assert!(told.ends_with("\n  sudo cargo xtask run"), "{told}");
    }

    #[test]
    fn a_word_is_quoted_only_where_a_shell_would_split_or_change_it() {
        assert_eq!(shell_word("--fast"), "--fast");
        assert_eq!(shell_word("test(=a b)"), "'test(=a b)'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
