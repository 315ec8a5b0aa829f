//! The log moved by others, and rotated by itself.

use super::*;

/// Of the file or of what it was rotated to: a rotation leaves a checkpoint alone in the new one.
fn last_sequence(log: &Path) -> u64 {
    let name = log.file_name().expect("a name").to_string_lossy();
    let files = fs::read_dir(log.parent().expect("a folder"))
        .expect("a folder")
        .flatten();
    let ours = files.filter(|entry| entry.file_name().to_string_lossy().starts_with(&*name));
    let last = |entry: fs::DirEntry| records(&entry.path()).pop()?["event"]["sequence"].as_u64();
    ours.filter_map(last).max().unwrap_or(0)
}

#[test]
fn log_is_followed_where_it_is_moved_and_rotated_within_its_bounds() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut wire = Wire::open(&site);
    flood(&mut wire, 0, 100);
    caught_up(&site, &[&site.drops()]);
    // As logrotate does.
    let moved = site.folder().join("api.drops.jsonl.1");
    fs::rename(site.drops(), &moved).expect("it is there");
    daemon.signal(Signal::SIGHUP);
    flood(&mut wire, 0, 200);
    let found = caught_up(&site, &[&moved, &site.drops()]);
    assert_in_order(&found);
    let last = lines(&moved).pop().expect("lines");
    assert_eq!(last["keyfence"]["kind"], "checkpoint");
    daemon.end(Signal::SIGTERM);
    assert_eq!(verify(&[&moved, &site.drops()]).0, Some(0));
    assert_eq!(
        verify(&[&site.drops(), &moved]).0,
        Some(0),
        "as a shell orders them"
    );

    let small = site.folder().join("small.jsonl");
    let sink = format!(
        "[[sink]]\npath = \"{}\"\nrotate-size = \"1MB\"\nkeep-size = \"3MB\"\n",
        small.display()
    );
    let daemon = Daemon::start(&site, &policy().and(&sink));
    for round in 0..5 {
        let before = last_sequence(&small);
        flood(&mut wire, round * 1000, 1000);
        until("they are written", || {
            (last_sequence(&small) >= before + 1000).then_some(())
        });
    }
    daemon.end(Signal::SIGTERM);
    let sizes: Vec<u64> = fs::read_dir(site.folder())
        .expect("a folder")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("small.jsonl"))
        .map(|entry| entry.metadata().expect("it is there").len())
        .collect();
    assert!(sizes.len() > 1, "{sizes:?}");
    let rotated = fs::read_dir(site.folder())
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path());
    let rotated = rotated.filter(|path| path.to_string_lossy().contains("small.jsonl."));
    let rotated = rotated.min().expect("it was rotated");
    assert_eq!(verify(&[&rotated]).0, Some(0));
    let text = fs::read_to_string(&rotated).expect("lines");
    let cut = text
        .trim_end()
        .rfind('\n')
        .expect("more lines than its last checkpoint")
        + 1;
    fs::write(&rotated, &text[..cut]).expect("it is ours");
    let (code, told) = verify(&[&rotated]);
    assert!(
        code == Some(6) && told["why"].as_str().is_some_and(|why| why.contains("cut off")),
        "{told}"
    );
    assert!(
        sizes.iter().sum::<u64>() <= 3_000_000 && sizes.iter().all(|size| *size <= 1_001_000),
        "{sizes:?}"
    );
}
