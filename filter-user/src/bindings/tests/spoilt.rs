//! What stands where the store should be, and is none.

use super::fixture::*;

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
