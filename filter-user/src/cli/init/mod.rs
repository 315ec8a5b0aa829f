//! `keyfence init`: a first policy from what this host shows of itself.
//!
//! `host` reads, `render` writes; what is written is valid, in observe mode, and drops nothing.

mod host;
mod render;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_HELP: &str = "\
Interfaces that are up become the filter's, listening sockets become services, and the peers of SSH sessions become \
management entries, which are never dropped. The policy is in observe mode: it drops nothing until you say so. Run it \
as root to see the names of the programs that listen.

Exit codes:
  0  written
  1  failed; a file that exists is never overwritten

Examples:
  keyfence init
  sudo -E keyfence init --output /etc/keyfence/keyfence.toml";

/// Write a first, commented policy from this host, in observe mode
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// A new file; without it, standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let policy = render::policy(&host::Host::read());
    match &arguments.output {
        None => shell.write(&policy)?,
        Some(file) => {
            write_new(file, &policy)?;
            let file = file.display();
            shell.say(&format!(
                "{file} is written; review it, then `keyfence check {file}`"
            ));
        }
    }
    Ok(Exit::Done)
}

fn write_new(file: &Path, policy: &str) -> Result<(), Failure> {
    let fault = |error: std::io::Error| {
        let fix = match error.kind() {
            ErrorKind::AlreadyExists => "it is left as it is; name a new file, or remove it",
            ErrorKind::NotFound => "create its folder first",
            _ => "name a file that you may write",
        };
        Failure::new(
            Exit::Failed,
            format!("{} cannot be written: {error}; {fix}", file.display()),
        )
    };
    let mut new = std::fs::File::create_new(file).map_err(fault)?;
    let written = new.write_all(policy.as_bytes()).and_then(|()| new.sync_all());
    written.map_err(|error| {
        // Half a policy is worse than none; the first error is the one to tell.
        let _ = std::fs::remove_file(file);
        fault(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_exists_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keyfence.toml");
        write_new(&file, "version = 1\n").unwrap();
        let failure = write_new(&file, "other").unwrap_err();
        assert!(failure.text.contains("it is left as it is"), "{}", failure.text);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "version = 1\n");
    }

    #[test]
    fn policy_of_this_host_is_toml_in_observe_mode() {
        let policy = render::policy(&host::Host::read());
        let table: toml::Table = policy.parse().unwrap_or_else(|error| panic!("{error}\n{policy}"));
        assert_eq!(table["version"].as_integer(), Some(1));
        assert_eq!(table["filter"]["mode"].as_str(), Some("observe"));
        println!("{policy}");
    }
}
