//! A trial copy of an operator's policy: the same services, clients and entries on one interface, observing unless
//! told otherwise, with all that the daemon leaves behind inside the lab's folder. The policy itself is only read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use super::{
    ground,
    names::{self, INSTANCE},
};

/// What a file that is included may hold (SPEC, 2).
const INCLUDED: [&str; 5] = ["service", "client", "deny", "management", "expect"];
/// What would write or listen outside of the lab's folder.
const LEFT_OUT: [&str; 4] = ["expect", "records", "sink", "listener"];

/// What drops do in the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Observe,
    Enforce,
}

impl Mode {
    const fn word(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// Writes the copy into the lab's folder and says what is other in it.
pub(super) fn write(policy: &Path, interface: &str, mode: Mode) -> Result<String> {
    let root = read(policy)?;
    let folder = policy.parent().unwrap_or(Path::new(""));
    let included = included(&root, folder)?;
    let mut whole = merge((policy.to_owned(), root), included)?;
    carry_sources(&mut whole)?;
    adapt(&mut whole.table, interface, mode)?;
    let text = toml::to_string(&whole.table).context("the copy cannot be written as TOML")?;
    ground::write(&names::policy(), &text)?;
    Ok(said(policy, interface, mode))
}

fn said(policy: &Path, interface: &str, mode: Mode) -> String {
    format!(
        "The trial runs a copy of {}: {}\n\
         In it, and nowhere else: interfaces = [\"{interface}\"]; mode = \"{}\" for the filter and every service; its \
         included files merged; instance, state and one Unix socket in {}; on-exit = \"detach\"; drops are \
         written to {} alone; no expects or other listeners.",
        policy.display(),
        names::policy().display(),
        mode.word(),
        names::FOLDER,
        names::drops().display(),
    )
}

fn read(file: &Path) -> Result<Table> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.parse()
        .with_context(|| format!("{} is no TOML", file.display()))
}

/// The files that the policy includes, by the bytes of their paths.
fn included(root: &Table, folder: &Path) -> Result<Vec<(PathBuf, Table)>> {
    let mut files = Vec::new();
    for pattern in root
        .get("include")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let pattern = pattern
            .as_str()
            .context("include holds something that is no text")?;
        let whole = format!(
            "{}{pattern}",
            glob::Pattern::escape(&format!("{}/", folder.display()))
        );
        for file in glob::glob_with(&whole, GLOB_OPTIONS).with_context(|| format!("include {pattern:?}"))? {
            files.push(file.with_context(|| format!("include {pattern:?}"))?);
        }
    }
    files.sort();
    files.dedup();
    files
        .into_iter()
        .map(|file| Ok((file.clone(), read(&file)?)))
        .collect()
}

/// As the daemon reads patterns: `*` stays within a folder and passes over hidden files.
const GLOB_OPTIONS: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// A policy in one table, and for each client the folder that its sources-file is relative to.
struct Whole {
    table: Table,
    client_folders: Vec<PathBuf>,
}

fn merge((root_file, mut table): (PathBuf, Table), included: Vec<(PathBuf, Table)>) -> Result<Whole> {
    table.remove("include");
    let folder = |file: &Path| file.parent().unwrap_or(Path::new("")).to_owned();
    let clients = |table: &Table| table.get("client").and_then(Value::as_array).map_or(0, Vec::len);
    let mut client_folders = vec![folder(&root_file); clients(&table)];
    for (file, more) in included {
        client_folders.extend(vec![folder(&file); clients(&more)]);
        for (key, value) in more {
            let (true, Value::Array(entries)) = (INCLUDED.contains(&key.as_str()), value) else {
                bail!("{}: `{key}` has no place in an included file", file.display());
            };
            let all = table.entry(&key).or_insert_with(|| Value::Array(Vec::new()));
            let all = all
                .as_array_mut()
                .with_context(|| format!("`{key}` is no list of tables"))?;
            all.extend(entries);
        }
    }
    Ok(Whole {
        table,
        client_folders,
    })
}

/// A sources-file is read from below the policy's folder: the copy takes its own along.
fn carry_sources(whole: &mut Whole) -> Result<()> {
    let clients = whole.table.get_mut("client").and_then(Value::as_array_mut);
    for (at, (client, folder)) in clients
        .into_iter()
        .flatten()
        .zip(&whole.client_folders)
        .enumerate()
    {
        let Some(file) = client.get_mut("sources-file") else {
            continue;
        };
        let from = folder.join(file.as_str().context("a sources-file is no text")?);
        let name = format!("sources-{at}.txt");
        fs::copy(&from, names::file(&name)).with_context(|| format!("cannot copy {}", from.display()))?;
        *file = Value::String(name);
    }
    Ok(())
}

/// The part that needs no disk: what is other in the copy.
fn adapt(policy: &mut Table, interface: &str, mode: Mode) -> Result<()> {
    let filter = policy
        .entry("filter")
        .or_insert_with(|| Value::Table(Table::new()));
    let filter = filter.as_table_mut().context("`filter` is no table")?;
    filter.insert("interfaces".into(), Value::Array(vec![interface.into()]));
    filter.insert("mode".into(), mode.word().into());
    let services = policy.get_mut("service").and_then(Value::as_array_mut);
    for service in services.into_iter().flatten().filter_map(Value::as_table_mut) {
        service.remove("mode");
    }
    for key in LEFT_OUT {
        policy.remove(key);
    }
    let mut daemon = Table::new();
    daemon.insert("instance".into(), INSTANCE.into());
    daemon.insert("state".into(), names::state().display().to_string().into());
    daemon.insert("on-exit".into(), "detach".into());
    policy.insert("daemon".into(), Value::Table(daemon));
    let mut listener = Table::new();
    let address = format!("unix:{}", names::socket().display());
    listener.insert("address".into(), address.into());
    listener.insert("group".into(), "root".into());
    listener.insert(
        "roles".into(),
        Value::Array(vec!["read".into(), "metrics".into()]),
    );
    policy.insert("listener".into(), Value::Array(vec![Value::Table(listener)]));
    let mut sink = Table::new();
    sink.insert("path".into(), names::drops().display().to_string().into());
    policy.insert("sink".into(), Value::Array(vec![Value::Table(sink)]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = r#"
version = 1
include = ["clients.d/*.toml"]
[filter]
interfaces = ["eth0", "eth1"]
mode = "enforce"
other-traffic = "drop"
[[service]]
name = "web"
protocol = "tcp"
ports = [443]
mode = "enforce"
[[client]]
name = "a"
sources = ["192.0.2.1"]
services = ["web"]
expires = 2027-01-31T00:00:00Z
[[expect]]
from = "192.0.2.1:1"
to = "203.0.113.1:443/tcp"
verdict = "pass"
[daemon]
instance = "main"
state = "/var/lib/keyfence"
operators = ["root"]
[[sink]]
type = "stdout"
[[listener]]
address = "tcp:127.0.0.1:9469"
roles = ["metrics"]
"#;

    fn adapted(mode: Mode) -> Table {
        let mut table: Table = ROOT.parse().unwrap();
        adapt(&mut table, "eth7", mode).unwrap();
        table
    }

    #[test]
    fn the_copy_observes_on_one_interface_also_where_a_service_enforces() {
        let table = adapted(Mode::Observe);
        assert_eq!(table["filter"]["mode"].as_str(), Some("observe"));
        assert_eq!(
            table["filter"]["interfaces"].as_array().unwrap(),
            &["eth7".into()]
        );
        assert_eq!(table["filter"]["other-traffic"].as_str(), Some("drop"));
        assert!(table["service"][0].get("mode").is_none());
        assert_eq!(adapted(Mode::Enforce)["filter"]["mode"].as_str(), Some("enforce"));
    }

    #[test]
    fn the_copy_leaves_nothing_outside_the_labs_folder() {
        let table = adapted(Mode::Observe);
        let daemon = table["daemon"].as_table().unwrap();
        assert_eq!(daemon["instance"].as_str(), Some(INSTANCE));
        assert_eq!(daemon["on-exit"].as_str(), Some("detach"));
        assert!(table["sink"].as_array().unwrap().len() == 1 && !table.contains_key("expect"));
        assert_eq!(table["listener"].as_array().unwrap().len(), 1);
        let text = toml::to_string(&table).unwrap();
        assert!(text.contains("expires = 2027-01-31T00:00:00Z"), "{text}");
        assert!(!text.contains("/var/"), "{text}");
    }

    #[test]
    fn included_files_are_merged_and_their_clients_know_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let clients = folder.path().join("clients.d");
        fs::create_dir(&clients).unwrap();
        fs::write(folder.path().join("policy.toml"), ROOT).unwrap();
        fs::write(
            clients.join("b.toml"),
            "[[client]]\nname = \"b\"\nsources-file = \"b.txt\"\n",
        )
        .unwrap();
        fs::write(clients.join(".b.toml.swp"), "not toml").unwrap();
        let root = read(&folder.path().join("policy.toml")).unwrap();
        let files = included(&root, folder.path()).unwrap();
        let whole = merge((folder.path().join("policy.toml"), root), files).unwrap();
        assert_eq!(whole.table["client"].as_array().unwrap().len(), 2);
        assert_eq!(whole.client_folders, [folder.path().to_owned(), clients]);
        assert!(!whole.table.contains_key("include"));
    }

    #[test]
    fn an_included_file_holds_entries_only() {
        let more: Table = "[daemon]\ninstance = \"x\"\n".parse().unwrap();
        let merged = merge(("a.toml".into(), Table::new()), vec![("b.toml".into(), more)]);
        let error = merged.err().unwrap().to_string();
        assert!(error.starts_with("b.toml: `daemon`"), "{error}");
    }
}
