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

/// Writes two records to each of these logs, one after the other, as a policy that changes its path does.
fn written_in_turn(folder: &Path, logs: &[&Path]) {
    let source = fake(vec![exact([10, 0, 0, 1], 3), exact([10, 0, 0, 2], 4)]);
    for log in logs {
        let mut records = open(&to(folder, log), &source);
        // A minute without any record has one as well.
        records.checkpoint();
        records.write();
        records.stop();
    }
}

#[test]
fn log_that_is_taken_up_again_behind_another_is_begun_anew_and_each_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let [log, other] = ["drops.jsonl", "other.jsonl"].map(|name| folder.path().join(name));
    written_in_turn(folder.path(), &[&log, &log, &other, &log, &log]);
    let files = read::files(&log).unwrap();
    let [before, after] = [0, 1].map(|at| files[at].as_path());
    assert_eq!((files.len(), after), (2, log.as_path()));
    let records = |log: &Path| {
        let Verified { first, last, .. } = is_whole(log);
        (first.unwrap(), last.unwrap())
    };
    let (first, last) = records(before);
    let (other_first, other_last) = records(&other);
    let (next, _) = records(after);
    assert_eq!((first, other_first, next), (1, last + 1, other_last + 1));
    assert!(verified(&[before, other.as_path(), after]).is_ok());
    let why = verified(&[before, after]).unwrap_err();
    assert!(why.contains("in a file that is not named"), "{why}");
    // What is cut off at the seam shows still, whatever is named beside it.
    cut_line(before);
    for files in [&[before][..], &[before, after], &[before, other.as_path(), after]] {
        assert!(verified(files).is_err(), "{files:?}");
    }
}

#[test]
fn log_that_is_cut_while_it_is_written_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("drops.jsonl");
    let mut records = open(&to(folder.path(), &log), &fake(vec![exact([10, 0, 0, 1], 3)]));
    records.write();
    records.write();
    cut_line(&log);
    records.write();
    records.stop();
    assert_eq!(read::files(&log).unwrap().len(), 1);
    let why = verified(&[&log]).unwrap_err();
    assert!(why.contains("lines are missing"), "{why}");
}

#[test]
fn log_that_was_left_behind_its_last_checkpoint_promises_none_when_it_is_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let [log, other] = ["drops.jsonl", "other.jsonl"].map(|name| folder.path().join(name));
    let source = fake(vec![exact([10, 0, 0, 1], 3)]);
    let mut records = open(&to(folder.path(), &log), &source);
    records.write();
    // Killed.
    drop(records);
    for log in [&other, &log] {
        let mut records = open(&to(folder.path(), log), &source);
        records.write();
        records.stop();
    }
    let files = read::files(&log).unwrap();
    let [before, after] = [0, 1].map(|at| files[at].as_path());
    assert_eq!((files.len(), is_whole(before).unvouched), (2, 1));
    assert!(verified(&[before, other.as_path(), after]).is_ok());
}

fn to(folder: &Path, log: &Path) -> Policy {
    policy(
        folder,
        RecordAddresses::Full,
        vec![sink(SinkType::File, log.to_owned())],
    )
}
