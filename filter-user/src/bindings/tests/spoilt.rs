//! What stands where the store should be, and is none.

use super::fixture::*;
use crate::bindings::requests::State;

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
