//! Where a file of the log ends before its time, as far as it can be told.

use super::*;
use crate::records::verify::{Verified, Verifier};

/// Rotated every few epochs.
fn rotating(folder: &Path, log: &Path) -> Records {
    let small = SinkPolicy {
        rotate_size: 5000,
        ..sink(SinkType::File, log.to_owned())
    };
    let policy = policy(folder, RecordAddresses::Full, vec![small]);
    open(
        &policy,
        &fake(vec![exact([10, 0, 0, 1], 3), exact([10, 0, 0, 2], 4)]),
    )
}

/// Takes the last line off a file.
fn cut_line(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let end = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
    std::fs::write(file, &text[..end]).unwrap();
}

fn verified(files: &[&Path]) -> Result<Verified, String> {
    let mut verifier = Verifier::default();
    for file in files {
        verifier.file(file).map_err(|error| error.to_string())?;
    }
    verifier.end()
}

pub(super) fn is_whole(log: &Path) -> Verified {
    let mut verifier = Verifier::default();
    verifier.file(log).unwrap();
    verifier.end().unwrap()
}

#[test]
fn rotated_file_shows_by_itself_that_its_end_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("drops.jsonl");
    let mut records = rotating(folder.path(), &log);
    while read::files(&log).unwrap().len() < 3 {
        records.write();
    }
    records.stop();
    let files = read::files(&log).unwrap();
    let [first, second, last] = [0, 1, 2].map(|at| files[at].as_path());
    assert_eq!(verified(&[first, second, last]).unwrap().unvouched, 0);
    for file in [first, second, last] {
        assert_eq!(verified(&[file]).unwrap().unvouched, 0);
    }
    // Its last checkpoint, then its last record.
    for _ in 0..2 {
        cut_line(second);
        let why = verified(&[second]).unwrap_err();
        assert!(why.contains("its end was cut off"), "{why}");
    }
    // The log itself goes on: its name promises nothing.
    cut_line(last);
    assert!(verified(&[last]).unwrap().unvouched > 0);
}

#[test]
fn checkpoints_are_followed_from_file_to_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("drops.jsonl");
    let policy = policy(
        folder.path(),
        RecordAddresses::Full,
        vec![sink(SinkType::File, log.clone())],
    );
    let mut records = open(&policy, &fake(vec![exact([10, 0, 0, 1], 3)]));
    records.write();
    records.checkpoint();
    // As logrotate does; what is moved away gets a checkpoint more.
    let moved = folder.path().join("drops.jsonl.1");
    std::fs::rename(&log, &moved).unwrap();
    records.reopen();
    records.write();
    records.stop();
    assert_eq!(lines(&moved).len(), 3);
    assert_eq!(verified(&[&moved, &log]).unwrap().records, 3);
    cut_line(&moved);
    assert!(verified(&[&moved]).is_ok(), "nothing in it says that it went on");
    let why = verified(&[&moved, &log]).unwrap_err();
    assert!(why.contains("lines were cut off there"), "{why}");
}
