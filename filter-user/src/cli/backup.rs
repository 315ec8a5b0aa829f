//! `keyfence backup` and `keyfence restore`: copies of the store, made and put back by the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::bind::parsed;
use super::client::{self, Call, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::Shell;
use super::words::thousands;

/// A store of millions of bindings takes its time; the daemon gives up at the same time.
const PATIENCE: Duration = Duration::from_secs(605);

const AFTER_BACKUP: &str = "\
Online: bindings go on changing meanwhile, and the copy is of one moment. The daemon writes it, so the folder must be \
one that it may write, and be there; `backups` in its own state folder is made. The caller must be an operator.

Exit codes:
  0  the copy is there
  1  refused or failed
  2  wrong usage
  5  the daemon is not reachable

Example:
  keyfence backup /var/lib/keyfence/backups/monday";

/// Write a consistent copy of the bindings' store
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_BACKUP)]
pub(crate) struct Arguments {
    /// Where to; it must not exist
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let path = absolute(&arguments.path)?;
    let body = json!({ "path": path });
    let status = ask("/v1/backup", body, &arguments.daemon)?;
    told(&status, "the copy is of", arguments.json, shell)
}

const AFTER_RESTORE: &str = "\
Puts a backup in place of what is there, under a new store id: watchers list anew. The daemon reads it, so the file must be \
where it may, and its user's: `install -d -o keyfence -g keyfence -m 700 /var/lib/keyfence/backups` on a new host, then \
`install -o keyfence -g keyfence -m 600 COPY /var/lib/keyfence/backups/NAME`. Its bindings stay suspended until \
their publisher has synced, since a backup may hold what was revoked after it; --trust puts them in force at once. \
Denies that were made since the backup are kept: of one name, what either denies, until the later of both ends. So are \
deletions with a row version, which --trust takes back where the backup has the binding. The caller must be an operator.

Where the store could not be read, the kernel keeps what it has until the next `keyfence reload`, and with it what is \
restored comes into force.

Exit codes:
  0  restored and in force
  1  refused or failed
  2  wrong usage
  5  the daemon is not reachable
  6  restored, and in force only with the next `keyfence reload`

Example:
  keyfence restore /var/lib/keyfence/backups/monday";

/// Put a copy in place of the bindings' store
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_RESTORE)]
pub(crate) struct RestoreArguments {
    /// The copy
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Its bindings are in force at once
    #[arg(long)]
    trust: bool,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn restore(arguments: &RestoreArguments, shell: &Shell) -> Result<Exit, Failure> {
    let path = absolute(&arguments.path)?;
    let body = json!({ "path": path, "trust": arguments.trust });
    let status = ask("/v1/restore", body, &arguments.daemon)?;
    let exit = told(&status, "restored:", arguments.json, shell)?;
    for line in suspended(&status).into_iter().chain(kept(&status)) {
        shell.say(&line);
    }
    if status["in_force"] == false {
        shell.say("not in force yet, the kernel keeps what it has: now `keyfence reload`");
        return Ok(Exit::Degraded);
    }
    Ok(exit)
}

/// What waits for its publisher, a line each.
fn suspended(status: &Value) -> Vec<String> {
    let publishers = status["bindings"]["publishers"].as_array().into_iter().flatten();
    let lines = publishers.filter_map(|publisher| {
        let (name, count) = (publisher["name"].as_str()?, publisher["suspended"].as_u64()?);
        let (bindings, it) = match count {
            0 => return None,
            1 => ("1 binding is".to_owned(), "it"),
            many => (format!("{} bindings are", thousands(many)), "them"),
        };
        Some(format!(
            "{bindings} suspended until {name} has synced (PUT /v1/bindings); --trust puts {it} in force at once"
        ))
    });
    lines.collect()
}

/// What was kept of the store before.
fn kept(status: &Value) -> Option<String> {
    let count = |what: &str| status["kept"][what].as_u64().unwrap_or(0);
    let (denies, deletions) = (count("denies"), count("deletions"));
    (denies + deletions > 0).then(|| {
        format!(
            "kept of the store before, beyond what the backup has: denies: {} (`keyfence deny --list`), deletions with a \
             row version: {}",
            thousands(denies),
            thousands(deletions)
        )
    })
}

/// The daemon has a working folder of its own.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(path);
    absolute.map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))
}

fn ask(path: &str, body: Value, daemon: &SocketArguments) -> Result<Value, Failure> {
    let call = Call {
        method: Method::POST,
        path: path.to_owned(),
        body: Some(body),
    };
    parsed(&client::send(&daemon.socket, call, PATIENCE)?)
}

fn told(status: &Value, what: &str, as_json: bool, shell: &Shell) -> Result<Exit, Failure> {
    if as_json {
        shell.write(&format!("{status}\n"))?;
    } else {
        let store = status["bindings"]["store"].as_str().unwrap_or("?");
        let revision = &status["bindings"]["revision"];
        shell.write(&format!("{what} store {store}, revision {revision}\n"))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_the_store_before_is_told() {
        let told = kept(&json!({ "kept": { "denies": 1_200, "deletions": 0 } })).unwrap();
        assert!(
            told.contains("denies: 1,200 (") && told.ends_with("row version: 0"),
            "{told}"
        );
        assert_eq!(kept(&json!({ "kept": { "denies": 0, "deletions": 0 } })), None);
    }

    #[test]
    fn what_waits_for_its_publisher_is_told() {
        let status = json!({ "bindings": { "publishers": [
            { "name": "gateway", "suspended": 1_200 }, { "name": "other", "suspended": 0 }] } });
        assert_eq!(
            suspended(&status),
            [
                "1,200 bindings are suspended until gateway has synced (PUT /v1/bindings); --trust puts them in force at once"
            ]
        );
    }
}
