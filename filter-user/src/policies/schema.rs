//! The schema that kept policies are written in: older ones are read as they are and written anew by `Store::migrate`,
//! newer ones stop a start.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(super) const SCHEMA: u32 = if cfg!(feature = "next-layout") { 2 } else { 1 };
/// Behind it stands the schema of a folder that was copied aside.
const ASIDE: &str = "policy.schema-";

#[derive(Serialize, Deserialize)]
pub(super) struct Written<T> {
    pub(super) schema: u32,
    #[serde(flatten)]
    pub(super) what: T,
}

/// Why a file's content cannot be had.
#[derive(Debug)]
pub(super) enum Unread {
    Newer(u32),
    Fault(String),
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unread::Newer(schema) => {
                write!(
                    f,
                    "it is of schema {schema}, and this release reads up to {SCHEMA}"
                )
            }
            Unread::Fault(why) => f.write_str(why),
        }
    }
}

/// What a file holds, and in which schema it was written.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, u32), Unread> {
    let fault = |error: serde_json::Error| Unread::Fault(error.to_string());
    let written: Written<Map<String, Value>> = serde_json::from_slice(bytes).map_err(fault)?;
    if written.schema > SCHEMA {
        return Err(Unread::Newer(written.schema));
    }
    let mut what = written.what;
    for from in written.schema..SCHEMA {
        step(from, &mut what).map_err(Unread::Fault)?;
    }
    let what = serde_json::from_value(Value::Object(what)).map_err(fault)?;
    Ok((what, written.schema))
}

/// What is of one schema becomes what the next one wants.
fn step(from: u32, what: &mut Map<String, Value>) -> Result<(), String> {
    match from {
        // Made up, for tests of upgrades.
        #[cfg(feature = "next-layout")]
        1 => {
            // Of an entry.
            if what.contains_key("via") {
                what.insert("schema_before".to_owned(), 1.into());
            }
            Ok(())
        }
        _ => {
            let _ = what;
            Err(format!("schema {from} is of no release"))
        }
    }
}

/// Where a folder of an older schema is copied to.
pub(super) fn aside(folder: &Path, schema: u32) -> PathBuf {
    let aside = folder.with_file_name(format!("{ASIDE}{schema}"));
    let now = jiff::Timestamp::now().as_millisecond();
    match aside.exists() {
        true => folder.with_file_name(format!("{ASIDE}{schema}-{now}")),
        false => aside,
    }
}

/// How to go on with an older release, a sentence.
pub(super) fn way_back(folder: &Path) -> String {
    let newer = folder.with_extension("newer");
    let mut command = format!("mv {} {}", folder.display(), newer.display());
    let listed = folder.parent().and_then(|parent| fs::read_dir(parent).ok());
    let copies = listed.into_iter().flatten().filter_map(|file| {
        let file = file.ok()?;
        let name = file.file_name().into_string().ok()?;
        let schema = name.strip_prefix(ASIDE)?.split('-').next()?;
        let is_read = schema.parse().is_ok_and(|schema: u32| schema <= SCHEMA);
        Some((
            is_read.then(|| file.metadata().ok()?.modified().ok())??,
            file.path(),
        ))
    });
    match copies.max() {
        Some((_, aside)) => {
            command = format!("{command} && cp -pr {} {}", aside.display(), folder.display());
            format!("to go back to what was in force before that: `{command}`")
        }
        None => format!("to begin with the policy file: `{command}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_copy_that_this_release_reads_is_the_way_back() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("policy");
        assert!(way_back(&folder).starts_with("to begin with the policy file"));
        let first = aside(&folder, SCHEMA);
        fs::create_dir(&first).unwrap();
        let second = aside(&folder, SCHEMA);
        assert_ne!(first, second);
        // Of a later upgrade, from a schema that this release does not read.
        fs::create_dir(state.path().join("policy.schema-99")).unwrap();
        let way = way_back(&folder);
        assert!(
            way.contains(&format!("cp -pr {} {}", first.display(), folder.display())),
            "{way}"
        );
    }

    #[test]
    fn schema_of_no_release_is_a_fault_and_a_newer_one_is_told_as_such() {
        let read = |text: &str| read::<Map<String, Value>>(text.as_bytes());
        assert!(matches!(read("{\"schema\": 99}"), Err(Unread::Newer(99))));
        let text = format!("{{\"schema\": {SCHEMA}, \"a\": 1}}");
        assert_eq!(read(&text).unwrap().1, SCHEMA);
        assert!(matches!(read("{\"schema\": 0}"), Err(Unread::Fault(why)) if why.contains("no release")));
    }
}
