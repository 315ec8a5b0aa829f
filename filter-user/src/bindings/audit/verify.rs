//! `keyfence audit verify`: whether a log is whole, and whether it still holds a head that was told earlier.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{CUT, NO_HASH};
use crate::bindings::model::credential::hex;
use crate::bindings::requests::AuditHead;

/// `,"hash":"` and 64 digits and `"}`.
const HASH_MEMBER_BYTES: usize = 9 + 64 + 2;

/// A log whose chain holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub head: AuditHead,
    /// Bytes after the last whole line: a crash may leave them, and the next start cuts them off.
    pub torn_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the log cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("line {line}: {what}")]
    Broken { line: u64, what: String },
    #[error("line {line}: the change file {} {what}", file.display())]
    ChangeFile { line: u64, file: PathBuf, what: String },
    /// The daemon found lines missing that its store knew of, and wrote this line.
    #[error(
        "line {line} tells that lines behind it were cut off: the log had reached line {reached}; look for copies of its \
         heads, and name a later head to take this cut as known"
    )]
    Cut { line: u64, reached: u64 },
    #[error("no line has the hash {0}: the log was cut or written anew after that head was told")]
    HeadMissing(String),
}

/// Checks every line and the change file of each sync, beside the log; with `head`, that a line has this hash (a prefix
/// of 8 digits or more will do). A cut that the log itself tells of is a fault, unless that head stands behind it.
pub fn verify(path: &Path, head: Option<&str>) -> Result<Verified, VerifyError> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut at = AuditHead {
        line: 0,
        hash: NO_HASH.to_owned(),
    };
    let head = head.map(str::to_ascii_lowercase);
    let mut head_seen = false;
    let mut cut = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.pop() != Some(b'\n') {
            return finish(at, line.len() as u64 + 1, head, head_seen, cut);
        }
        let value;
        (at, value) = next(&at, &line).map_err(|what| VerifyError::Broken {
            line: at.line + 1,
            what,
        })?;
        change_file(path, at.line, &value)?;
        let is_cut = value["what"] == CUT;
        if is_cut && cut.is_none() {
            let reached = value["expected"]["line"].as_u64().unwrap_or(0);
            cut = Some(VerifyError::Cut {
                line: at.line,
                reached,
            });
        }
        let is_head = |head: &String| head.len() >= 8 && at.hash.starts_with(head.as_str());
        if head.as_ref().is_some_and(is_head) {
            head_seen = true;
            cut = None;
        }
    }
    finish(at, 0, head, head_seen, cut)
}

fn finish(
    at: AuditHead,
    torn_bytes: u64,
    head: Option<String>,
    head_seen: bool,
    cut: Option<VerifyError>,
) -> Result<Verified, VerifyError> {
    match (head, cut) {
        (Some(head), _) if !head_seen => Err(VerifyError::HeadMissing(head)),
        (_, Some(cut)) => Err(cut),
        _ => Ok(Verified { head: at, torn_bytes }),
    }
}

/// The head that a line makes, if it follows the one before.
fn next(before: &AuditHead, line: &[u8]) -> Result<(AuditHead, Value), String> {
    let value: Value = serde_json::from_slice(line).map_err(|_| "it is not JSON".to_owned())?;
    let split = line
        .len()
        .checked_sub(HASH_MEMBER_BYTES)
        .ok_or_else(|| "it has no hash".to_owned())?;
    let (body, member) = line.split_at(split);
    let hash = hex(&Sha256::digest(body));
    if member != format!(",\"hash\":\"{hash}\"}}").as_bytes() {
        return Err("its hash is not that of its bytes: it was changed".to_owned());
    }
    if value["previous"].as_str() != Some(&before.hash) {
        return Err("it does not follow the line before: lines were taken out or put in".to_owned());
    }
    if value["line"].as_u64() != Some(before.line + 1) {
        return Err(format!("its number is not {}", before.line + 1));
    }
    let head = AuditHead {
        line: before.line + 1,
        hash,
    };
    Ok((head, value))
}

/// A sync's line has the hash of the file with its changes.
fn change_file(log: &Path, line: u64, value: &Value) -> Result<(), VerifyError> {
    let (Some(name), Some(told)) = (value["file"].as_str(), value["sha256"].as_str()) else {
        return Ok(());
    };
    let file = log.parent().unwrap_or(Path::new("")).join(name);
    let fault = |what: String| VerifyError::ChangeFile {
        line,
        file: file.clone(),
        what,
    };
    // Only what is beside the log is read, whatever a line says.
    if !Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(fault("is none beside the log".to_owned()));
    }
    let hash = hash_of(&file).map_err(|error| fault(format!("cannot be read: {error}")))?;
    match hash == told {
        true => Ok(()),
        false => Err(fault(
            "has not the hash that the line tells: it was changed".to_owned(),
        )),
    }
}

fn hash_of(file: &Path) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let mut hash = Sha256::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&bytes[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Audit, Line};
    use super::*;

    fn written(folder: &Path, lines: usize) -> std::path::PathBuf {
        let path = folder.join("audit.jsonl");
        let mut audit = Audit::open(&path, 0).unwrap();
        for at in 0..lines {
            let line = Line::new("put", None).with("credential", format!("key-{at}"));
            audit.append(&[line.at(at as u64)], 1_000).unwrap();
        }
        path
    }

    #[test]
    fn whole_log_verifies_and_each_kind_of_change_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 5);
        let good = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        let verified = verify(&path, None).unwrap();
        assert_eq!((verified.head.line, verified.torn_bytes), (5, 0));
        let first: Value = serde_json::from_str(lines[0]).unwrap();
        let first = first["hash"].as_str().unwrap();
        assert!(verify(&path, Some(&verified.head.hash)).is_ok() && verify(&path, Some(first)).is_ok());
        let broken = |text: String| {
            std::fs::write(&path, text).unwrap();
            verify(&path, None).unwrap_err().to_string()
        };
        assert!(broken(good.replace("key-2", "key-9")).starts_with("line 3: its hash"));
        assert!(broken(good.replacen(lines[1], "", 1).replacen("\n\n", "\n", 1)).starts_with("line 2: "));
        assert!(broken(lines[1..].join("\n") + "\n").starts_with("line 1: "));
        // A cut log is whole by itself: only the head shows it.
        std::fs::write(&path, lines[..3].join("\n") + "\n").unwrap();
        assert_eq!(verify(&path, None).unwrap().head.line, 3);
        let missing = verify(&path, Some(&verified.head.hash)).unwrap_err();
        assert!(matches!(missing, VerifyError::HeadMissing(_)));
    }

    #[test]
    fn change_file_that_is_missing_or_changed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 1);
        let file = folder.path().join("audit-syncs/sync-2.jsonl");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        std::fs::write(&file, b"{}\n").unwrap();
        let mut audit = Audit::open(&path, 0).unwrap();
        let line = Line::new("sync", None).with("file", "audit-syncs/sync-2.jsonl");
        let line = line.with("sha256", hex(&Sha256::digest(b"{}\n")));
        audit.append(&[line.at(1)], 0).unwrap();
        assert_eq!(verify(&path, None).unwrap().head.line, 2);
        let fault = || verify(&path, None).unwrap_err().to_string();
        std::fs::write(&file, b"{ }\n").unwrap();
        assert!(
            fault().starts_with("line 2: ") && fault().contains("sync-2.jsonl has not"),
            "{}",
            fault()
        );
        std::fs::remove_file(&file).unwrap();
        assert!(fault().contains("sync-2.jsonl cannot be read"), "{}", fault());
        let outside = Line::new("sync", None)
            .with("file", "../secret")
            .with("sha256", "00");
        std::fs::write(&file, b"{}\n").unwrap();
        audit.append(&[outside], 0).unwrap();
        assert!(fault().contains("is none beside the log"), "{}", fault());
    }

    #[test]
    fn line_that_is_gone_or_other_is_missed_wherever_it_stood() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 5);
        let head = |path: &Path| Audit::open(path, 0).unwrap().head();
        let whole = head(&path);
        let good = std::fs::read_to_string(&path).unwrap();
        let first_lines = |count| {
            let lines: Vec<&str> = good.lines().take(count).collect();
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        };
        first_lines(3);
        let third = head(&path);
        assert!(!Audit::open(&path, 0).unwrap().holds(&whole).unwrap());
        std::fs::write(&path, &good).unwrap();
        let mut audit = Audit::open(&path, 0).unwrap();
        assert!(audit.holds(&whole).unwrap() && audit.holds(&third).unwrap());
        let other = AuditHead {
            hash: whole.hash,
            ..third
        };
        assert!(!audit.holds(&other).unwrap());
        std::fs::write(&path, "").unwrap();
        let mut empty = Audit::open(&path, 0).unwrap();
        assert!(!empty.holds(&other).unwrap());
        assert!(empty.holds(&AuditHead::default()).unwrap());
    }

    #[test]
    fn cut_that_the_log_tells_of_is_a_fault_until_a_later_head_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 2);
        let before = verify(&path, None).unwrap().head;
        let mut audit = Audit::open(&path, 0).unwrap();
        let expected = serde_json::json!({"line": 9, "hash": "00"});
        audit
            .append(&[Line::new(CUT, None).with("expected", expected)], 0)
            .unwrap();
        let told = |head: Option<&str>| verify(&path, head).map(|verified| verified.head.line);
        let fault = told(None).unwrap_err();
        assert!(
            matches!(fault, VerifyError::Cut { line: 3, reached: 9 }),
            "{fault}"
        );
        assert!(told(Some(&before.hash)).is_err());
        assert_eq!(told(Some(&audit.head().hash)).unwrap(), 3);
        audit.append(&[Line::new("put", None)], 0).unwrap();
        assert!(told(None).is_err());
        assert_eq!(told(Some(&audit.head().hash)).unwrap(), 4);
    }

    #[test]
    fn revision_is_found_behind_any_number_of_lines_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 3);
        let mut audit = Audit::open(&path, 0).unwrap();
        audit.append(&vec![Line::new("start", None); 200], 0).unwrap();
        let audit = Audit::open(&path, 0).unwrap();
        assert_eq!((audit.head().line, audit.revision), (203, 2));
    }

    #[test]
    fn torn_line_is_cut_off_at_the_next_start_and_the_chain_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 2);
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"line\":3,\"ti");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(verify(&path, None).unwrap().torn_bytes, 13);
        let mut audit = Audit::open(&path, 0).unwrap();
        assert_eq!(audit.head().line, 3, "the line that tells of it");
        assert_eq!(audit.revision, 1);
        audit.append(&[Line::new("put", None)], 0).unwrap();
        assert_eq!(verify(&path, None).unwrap().head, audit.head());
    }
}
