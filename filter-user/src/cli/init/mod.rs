//! `keyfence init`: a first policy from what this host shows of itself.
//!
//! `host` reads, `render` writes; what is written is valid, in observe mode, and drops nothing.

mod host;
mod render;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_HELP: &str = "\
Interfaces that are up become the filter's, listening sockets become services, and the peer of the session that this runs in, \
which is found under sudo as well, becomes a management entry, which is never dropped; where there is none, whoever is \
connected to an SSH server stands there as a comment. The policy is in observe mode: it drops nothing until you say so. Run it \
as root to see the names of the programs that listen.

Exit codes:
  0  written
  1  failed; a file that exists is never overwritten
  2  wrong usage

Examples:
  keyfence init
  sudo keyfence init --output /etc/keyfence/keyfence.toml";

/// Write a first, commented policy from this host, in observe mode
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// A new file; without it, standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let host = host::Host::read();
    let policy = render::policy(&host);
    match &arguments.output {
        None => shell.write(&policy)?,
        Some(file) => {
            write_new(file, &policy)?;
            let file = file.display();
            shell.say(&way_back(&host));
            shell.say(&format!(
                "{file} is written; review it, then `keyfence check {file}`"
            ));
        }
    }
    Ok(Exit::Done)
}

/// Whoever has a connection to an SSH server here.
pub(super) fn ssh_peers() -> Vec<IpAddr> {
    host::ssh_peers().into_iter().collect()
}

/// Who is let in for ever is told, and who is not.
fn way_back(host: &host::Host) -> String {
    let listed = |peers: &BTreeSet<(IpAddr, u16)>| {
        let peers: BTreeSet<String> = peers.iter().map(|(peer, _)| peer.to_string()).collect();
        peers.into_iter().collect::<Vec<_>>().join(", ")
    };
    if !host.sessions.is_empty() {
        return format!("management, never denied nor limited: {}", listed(&host.sessions));
    }
    let seen = match host.strangers.is_empty() {
        true => String::new(),
        false => format!(
            "; {} connected to an SSH server of this host, which may be anybody's doing, and stand in the file as a comment",
            listed(&host.strangers)
        ),
    };
    format!(
        "management: nobody, as this command hangs on no session from elsewhere{seen}: write your own network there"
    )
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
    let written = new.write_all(policy.as_bytes());
    let written = written
        .and_then(|()| for_service(&new, file))
        .and_then(|()| new.sync_all());
    written.map_err(|error| {
        // Half a policy is worse than none; the first error is the one to tell.
        let _ = std::fs::remove_file(file);
        fault(error)
    })
}

/// Where the service looks for it, its group may read it, whatever the umask of who writes it.
fn for_service(new: &std::fs::File, file: &Path) -> std::io::Result<()> {
    if file.parent() != Path::new(super::POLICY_FILE).parent() || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    match nix::unistd::Group::from_name(super::service::USER)? {
        Some(group) => readable_by(new, group.gid),
        None => Ok(()),
    }
}

fn readable_by(new: &std::fs::File, group: nix::unistd::Gid) -> std::io::Result<()> {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    std::os::unix::fs::fchown(new, None, Some(group.as_raw()))?;
    // No bit less than the umask leaves: a copy of it is to be the service's to read as well.
    let mode = new.metadata()?.permissions().mode() | 0o040;
    new.set_permissions(Permissions::from_mode(mode & 0o777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_may_read_what_is_written_for_it() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let file = tempfile::tempfile().unwrap();
        let sys = nix::unistd::Group::from_name("sys").unwrap().unwrap();
        for (left, becomes) in [(0o600, 0o640), (0o644, 0o644)] {
            file.set_permissions(std::fs::Permissions::from_mode(left))
                .unwrap();
            readable_by(&file, sys.gid).unwrap();
            let found = file.metadata().unwrap();
            assert_eq!((found.mode() & 0o777, found.gid()), (becomes, sys.gid.as_raw()));
        }
    }

    #[test]
    fn commented_publisher_and_listeners_are_what_the_daemon_would_take() {
        let page = render::policy(&host::Host::default());
        let from = page.find("# [[publisher]]").unwrap();
        let lines = page[from..].lines().map(|line| line.trim_start_matches("# "));
        let shown: Vec<&str> = lines.filter(|line| !line.starts_with("Where")).collect();
        let read = |text: String| {
            let files = crate::policy::MemoryFiles::new([("p.toml".into(), text.into_bytes())]);
            let context = crate::policy::LoadContext::at(jiff::Timestamp::UNIX_EPOCH);
            let loaded = crate::policy::load_from(&files, Path::new("p.toml"), &context);
            assert_eq!(loaded.errors, 0);
            loaded.policy.unwrap()
        };
        let full = read(format!("{page}{}", shown.join("\n")));
        assert_eq!(full.publishers[0].environments, ["production"]);
        let default = read(page);
        assert_eq!(full.listeners.len(), default.listeners.len());
        for (written, default) in full.listeners.iter().zip(&default.listeners) {
            assert_eq!(
                (&written.address, &written.roles),
                (&default.address, &default.roles)
            );
        }
    }

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
        let host = host::Host::read();
        let policy = render::policy(&host);
        let table: toml::Table = policy.parse().unwrap_or_else(|error| panic!("{error}\n{policy}"));
        assert_eq!(table["version"].as_integer(), Some(1));
        assert_eq!(table["filter"]["mode"].as_str(), Some("observe"));
        println!("{policy}");
    }
}
