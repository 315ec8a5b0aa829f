//! What stands where the store should be, and is none.

use std::path::Path;
use std::sync::Arc;

use super::fixture::*;
use crate::bindings::requests::State;
use crate::bindings::seam::Effective as _;
use crate::bindings::witness::StoreTold;

/// An empty file is what a full disk leaves; a folder and a pipe are a hand's doing; half a file's pages are a disk's.
#[tokio::test]
async fn whatever_stands_in_the_stores_place_is_an_alarm_and_no_new_store() {
    type Spoil = fn(&std::path::Path);
    let spoil: [(&str, Spoil); 4] = [
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("folder", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
        ("pipe", |path| {
            std::fs::remove_file(path).unwrap();
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("damaged inside", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let noise = (0..).map(|number: usize| (number.wrapping_mul(2_654_435_761) >> 13) as u8);
            let inside = bytes.len().min(45_056);
            for (byte, noise) in bytes[12_288..inside].iter_mut().zip(noise) {
                *byte = noise;
            }
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        let f = start();
        f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
        let (folder, clock) = f.stop().await;
        spoil(&folder.path().join("bindings.redb"));
        let f = start_in(folder, clock, POLICY);
        let status = f.bindings.status();
        assert!(
            status.alarms[0].contains("publishers must sync"),
            "{what}: {status:?}"
        );
        assert!(f.bindings.is_lost(), "{what}");
    }
}

#[tokio::test]
async fn store_that_was_put_back_is_an_alarm_and_lets_in_nobody_until_publishers_sync() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let (folder, clock) = f.stop().await;
    let (path, aside) = (folder.path().join("bindings.redb"), folder.path().join("aside"));
    std::fs::copy(&path, &aside).unwrap();
    let f = start_in(folder, clock, POLICY);
    assert!(!f.bindings.is_lost());
    f.delete("key-1", None).await.unwrap();
    f.put("key-2", &body("192.0.2.2", 600)).await.unwrap();
    let before = f.bindings.status();
    let (folder, clock) = f.stop().await;

    std::fs::copy(&aside, &path).unwrap();
    let f = start_in(folder, clock, POLICY);
    let status = f.bindings.status();
    assert!(f.bindings.is_lost());
    let alarm =
        "the store of bindings is older than the audit log: it ends with revision 1, and the log tells of 3";
    assert!(status.alarms[0].contains(alarm), "{status:?}");
    assert_ne!(
        status.store, before.store,
        "revisions of the same store name the same"
    );
    assert!(status.revision > before.revision);
    assert_eq!(
        f.state("gateway", "key-1"),
        State::Suspended,
        "who was revoked since is not let in"
    );
    let (folder, clock) = f.stop().await;

    // Not forgotten by another start, and not told a second time.
    let f = start_in(folder, clock, POLICY);
    assert!(f.bindings.is_lost());
    assert_eq!(f.bindings.status().store, status.store);
    assert_eq!(f.state("gateway", "key-1"), State::Suspended);
    let (folder, _) = f.stop().await;
    let log = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    assert_eq!(log.matches("\"older-store\"").count(), 1, "{log}");
}

#[tokio::test]
async fn store_of_an_older_release_that_was_gone_back_to_is_taken_with_a_word() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let (folder, clock) = f.stop().await;
    let (path, aside) = (folder.path().join("bindings.redb"), folder.path().join("aside"));
    std::fs::copy(&path, &aside).unwrap();
    let f = start_in(folder, clock, POLICY);
    f.put("key-2", &body("192.0.2.2", 600)).await.unwrap();
    let before = f.bindings.status();
    let (folder, clock) = f.stop().await;

    std::fs::rename(&path, path.with_extension("redb.newer")).unwrap();
    std::fs::copy(&aside, &path).unwrap();
    let f = start_in(folder, clock, POLICY);
    let status = f.bindings.status();
    assert!(!f.bindings.is_lost() && status.alarms.is_empty(), "{status:?}");
    assert!(status.store != before.store && status.revision > before.revision);
    assert_eq!(f.state("gateway", "key-1"), State::Active);
    assert!(f.bindings.get("gateway", "key-2").is_err());
}

/// What the kernel would be told by now.
fn told(f: &Fixture) -> StoreTold {
    f.bindings.told().unwrap()
}

/// A daemon over a filter that was told this.
fn start_over(folder: Arc<tempfile::TempDir>, clock: Arc<FakeClock>, told: &StoreTold) -> Fixture {
    start_told((folder, clock), POLICY, Some(told.clone()))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from)
        .unwrap()
        .flatten()
        .filter(|file| file.path().is_file())
    {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Puts files of a copy in the place of what a folder has.
fn put_back(folder: &Path, copy: &Path, files: &[&str]) {
    for file in files {
        std::fs::copy(copy.join(file), folder.join(file)).unwrap();
    }
}

const STORE: &str = "bindings.redb";
const LOG: &str = "audit.jsonl";

/// Alone with a log that is gone, and with the log that it had.
#[tokio::test]
async fn store_that_is_older_than_the_kernel_is_an_alarm_though_no_log_tells_of_it() {
    for with_log in [false, true] {
        let f = start();
        f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
        let (folder, clock) = f.stop().await;
        let (state, older) = (folder.path().to_owned(), folder.path().join("older"));
        copy(&state, &older);
        let f = start_in(folder, clock, POLICY);
        f.delete("key-1", None).await.unwrap();
        f.put("key-2", &body("192.0.2.2", 600)).await.unwrap();
        let before = told(&f);
        let (folder, clock) = f.stop().await;
        let right = folder.path().join("right");
        copy(&state, &right);

        put_back(&state, &older, &[STORE]);
        match with_log {
            true => put_back(&state, &older, &[LOG]),
            false => std::fs::remove_file(state.join(LOG)).unwrap(),
        }
        let mut f = start_over(folder, clock, &before);
        let found = f.bindings.status();
        for _ in 0..3 {
            let status = f.bindings.status();
            assert!(f.bindings.is_lost());
            let alarm =
                "older than the filter in the kernel: it ends with revision 1, and the kernel was told of 3";
            assert!(
                status.alarms.iter().any(|text| text.contains(alarm)),
                "{status:?}"
            );
            assert!(
                status.store != before.id && status.store == found.store,
                "{status:?}"
            );
            assert!(status.revision > before.revision);
            assert_eq!(f.state("gateway", "key-1"), State::Suspended);
            assert_eq!(f.bindings.told(), None, "the kernel knows better");
            let (folder, clock) = f.stop().await;
            f = start_over(folder, clock, &before);
        }
        let (folder, clock) = f.stop().await;
        let log = std::fs::read_to_string(state.join(LOG)).unwrap();
        assert_eq!(log.matches("\"older-store\"").count(), 1, "{log}");
        assert!(log.contains("\"by\":\"kernel\""), "{log}");
        // The log that the store knew is gone as well, and it is not told again what it told.
        assert_eq!(log.contains("\"cut\""), !with_log, "{log}");
        assert!(!log.contains("\"recovered\""), "{log}");

        // The right one is no alarm at all.
        put_back(&state, &right, &[STORE, LOG]);
        let f = start_over(folder, clock, &before);
        assert!(!f.bindings.is_lost() && f.bindings.status().alarms.is_empty());
        assert_eq!(told(&f), before);
    }
}

#[tokio::test]
async fn answered_alarm_is_told_to_the_kernel_and_no_crash_before_that_raises_it_again() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let newer = StoreTold {
        revision: 9,
        ..told(&f)
    };
    let (folder, clock) = f.stop().await;
    let f = start_over(folder, clock, &newer);
    let mut follow = f.bindings.follow();
    assert_eq!(f.bindings.told(), None);
    // As a reload ends.
    f.bindings.applied(1, &policy(POLICY));
    follow.changed().await.unwrap();
    while f.bindings.is_lost() {
        follow.changed().await.unwrap();
    }
    let now = told(&f);
    assert!(now.id != newer.id && now.revision > newer.revision);
    let (mut folder, mut clock) = f.stop().await;
    for known in [&newer, &now] {
        let f = start_over(folder, clock, known);
        assert!(
            !f.bindings.is_lost() && f.bindings.status().alarms.is_empty(),
            "{known:?}"
        );
        (folder, clock) = f.stop().await;
    }
}

#[tokio::test]
async fn store_of_another_folder_is_an_alarm_unless_nothing_was_ever_pushed() {
    let other = StoreTold {
        id: "0123456789abcdef".to_owned(),
        revision: 0,
    };
    let f = start();
    let (folder, clock) = f.stop().await;
    let f = start_over(folder, clock, &other);
    assert!(!f.bindings.is_lost(), "neither is older");
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let mine = told(&f);
    let (folder, clock) = f.stop().await;

    let f = start_over(folder, clock, &other);
    let status = f.bindings.status();
    assert!(f.bindings.is_lost());
    let alarm = format!(
        "({}) is not the one that the filter in the kernel was made with ({})",
        mine.id, other.id
    );
    assert!(status.alarms[0].contains(&alarm), "{status:?}");
    assert_eq!(f.state("gateway", "key-1"), State::Suspended);
    let (folder, _) = f.stop().await;
    let log = std::fs::read_to_string(folder.path().join(LOG)).unwrap();
    assert_eq!(log.matches("\"other-store\"").count(), 1, "{log}");
}

#[tokio::test]
async fn store_that_is_not_there_is_missed_by_the_kernel_alone_if_something_was_pushed() {
    for (revision, is_missed) in [(0, false), (5, true)] {
        let f = start();
        let (folder, clock) = f.stop().await;
        for file in [STORE, LOG] {
            std::fs::remove_file(folder.path().join(file)).unwrap();
        }
        let known = StoreTold {
            id: "0123456789abcdef".to_owned(),
            revision,
        };
        let mut f = start_over(folder, clock, &known);
        for _ in 0..2 {
            assert_eq!(f.bindings.is_lost(), is_missed);
            let alarms = f.bindings.status().alarms;
            let is_told = alarms
                .iter()
                .any(|text| text.contains("the store of bindings is not there"));
            assert_eq!(is_told, is_missed, "{alarms:?}");
            let (folder, clock) = f.stop().await;
            f = start_over(folder, clock, &known);
        }
    }
}

/// A kill may come before the kernel is told of any of them.
#[tokio::test]
async fn restores_in_a_row_raise_no_alarm_and_what_they_replaced_does() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let backup = f.folder.path().join("backup");
    f.bindings.backup(&operator(), backup.clone()).await.unwrap();
    let mut told_of = vec![told(&f)];
    for _ in 0..3 {
        f.bindings
            .restore(&operator(), backup.clone(), true)
            .await
            .unwrap();
        told_of.push(told(&f));
    }
    let last = told(&f);
    let (mut folder, mut clock) = f.stop().await;
    for known in &told_of {
        let f = start_over(folder, clock, known);
        assert!(
            !f.bindings.is_lost() && f.bindings.status().alarms.is_empty(),
            "{known:?}"
        );
        assert_eq!(told(&f), last);
        (folder, clock) = f.stop().await;
    }
    let files = std::fs::read_dir(folder.path()).unwrap().flatten();
    let replaced = files
        .map(|file| file.path())
        .filter(|path| path.to_string_lossy().contains("replaced-"));
    let replaced = replaced.max().unwrap();
    std::fs::copy(replaced, folder.path().join(STORE)).unwrap();
    std::fs::remove_file(folder.path().join(LOG)).unwrap();
    assert!(start_over(folder, clock, &last).bindings.is_lost());
}

#[tokio::test]
async fn store_that_cannot_be_read_and_was_answered_is_the_next_one_of_the_kernels() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let known = told(&f);
    let (folder, clock) = f.stop().await;
    let path = folder.path().join(STORE);
    std::fs::write(&path, vec![0x5a; 65_536]).unwrap();
    std::fs::remove_file(folder.path().join(LOG)).unwrap();
    let f = start_over(folder, clock, &known);
    assert!(f.bindings.is_lost());
    let mut follow = f.bindings.follow();
    f.bindings.applied(1, &policy(POLICY));
    while f.bindings.is_lost() {
        follow.changed().await.unwrap();
    }
    assert_ne!(told(&f).id, known.id);
    // Before the kernel was told.
    let (folder, clock) = f.stop().await;
    assert!(!start_over(folder, clock, &known).bindings.is_lost());
}

#[tokio::test]
async fn store_that_was_gone_back_to_is_known_to_whoever_was_told_of_the_newer() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let newer = StoreTold {
        revision: 9,
        ..told(&f)
    };
    let (folder, clock) = f.stop().await;
    let path = folder.path().join(STORE);
    std::fs::write(path.with_extension("redb.newer"), "").unwrap();
    let f = start_over(folder, clock, &newer);
    assert!(!f.bindings.is_lost() && f.bindings.status().alarms.is_empty());
    assert_eq!(f.state("gateway", "key-1"), State::Active);
    let now = told(&f);
    assert!(now.id != newer.id && now.revision > newer.revision);
    // The operator is done with the newer one, and the kernel was not told yet.
    let (folder, clock) = f.stop().await;
    std::fs::remove_file(path.with_extension("redb.newer")).unwrap();
    assert!(!start_over(folder, clock, &newer).bindings.is_lost());
}
