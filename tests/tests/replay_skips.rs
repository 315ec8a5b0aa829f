//! What `keyfence replay` cannot judge: each frame and file is a line that says why; what it refuses to do at all.

use keyfence_tests::command::{run, run_without_rights};
use keyfence_tests::pcap::{KINDS, Pcap, Pcapng};
use keyfence_tests::replay::{POLICY, START, folder, lines, listed, said, stranger, write};
use serde_json::{Value, json};

#[test]
fn what_cannot_be_judged_is_a_line_that_says_why() {
    let folder = folder(POLICY);
    let whole = listed(60);
    let mut mixed = Pcap::default()
        .frame(START, &whole)
        .record(START, 30, 60, &whole[..30]);
    mixed = mixed
        .frame(START, &whole[..13])
        .frame(START, &[])
        .frame(START, &listed(80_000))
        .frame(START, &whole);
    mixed = mixed.record(START, 60, 60, &whole[..20]);
    write(&folder, "mixed.pcap", &mixed.bytes);
    write(
        &folder,
        "cooked.pcap",
        &Pcap::new(KINDS[0], (2, 4), 113).frame(START, &whole).bytes,
    );
    let mut half = Pcap::default().frame(START, &whole).bytes;
    half.extend([0; 7]);
    write(&folder, "half.pcap", &half);
    let claims = Pcap::default().record(START, u32::MAX, u32::MAX, &whole);
    write(&folder, "claims.pcap", &claims.bytes);
    let (found, summary) = lines(
        &folder,
        &["mixed.pcap", "cooked.pcap", "half.pcap", "claims.pcap"],
    );
    let ends = "the file ends inside the record";
    assert_eq!(
        said(&found),
        [
            "allowed",
            "cut by the snap length",
            "under 14 bytes",
            "under 14 bytes",
            "too long for the kernel's test run",
            "allowed",
            ends,
            "link type 113 is not Ethernet",
            "allowed",
            ends,
            ends,
        ]
    );
    let skipped = json!({ "file": "mixed.pcap", "frame": 2, "verdict": null, "reason": null, "service": null,
        "owner": null, "skipped": "cut by the snap length" });
    assert_eq!(found[1], skipped);
    assert_eq!(found[6]["frame"], 7);
    assert_eq!(summary["skipped"]["frames"]["under 14 bytes"], 2);
    assert_eq!(summary["frames"], 11);
}

#[test]
fn files_that_cannot_be_read_are_one_line_each_and_a_failure_where_no_other_can() {
    let folder = folder(POLICY);
    let files = unreadable();
    for (name, bytes, why) in &files {
        write(&folder, name, bytes);
        let ended = run(
            folder.path(),
            &["replay", "--json", "--policy", "policy.toml", name],
        );
        // A capture without a frame can be read.
        let exit = if *name == "none.pcap" { 0 } else { 1 };
        assert_eq!(ended.exit, exit, "{name}: {}", ended.errors);
        assert_eq!(ended.errors.contains("nothing was judged"), exit == 1, "{name}");
        let mut lines = ended.lines();
        let summary = lines.pop().expect("there is a summary")["summary"].take();
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        assert_eq!(
            (&lines[0]["file"], &lines[0]["frame"]),
            (&json!(name), &Value::Null),
            "{name}"
        );
        assert_eq!(lines[0]["verdict"], Value::Null, "{name}");
        assert!(
            lines[0]["skipped"].as_str().unwrap().contains(why),
            "{name}: {}",
            lines[0]
        );
        assert_eq!(
            (&summary["files"], &summary["frames"]),
            (&json!(1), &json!(0)),
            "{name}"
        );
    }
    write(
        &folder,
        "good.pcap",
        &Pcap::default().frame(START, &stranger()).bytes,
    );
    let (beside, _) = lines(&folder, &["gone.pcap", "good.pcap"]);
    assert!(
        beside[0]["skipped"].as_str().unwrap().contains("cannot be read"),
        "{beside:?}"
    );
    // So is a folder of which nothing can be read, or that is empty.
    write(&folder, "sub/notes.txt", b"no capture at all");
    std::fs::create_dir(folder.path().join("bare")).expect("the folder can be written");
    for (name, lines) in [("sub", 1), ("bare", 0)] {
        let ended = run(
            folder.path(),
            &["replay", "--json", "--policy", "policy.toml", name],
        );
        assert_eq!(
            (ended.exit, ended.lines().len()),
            (1, lines + 1),
            "{name}: {}",
            ended.errors
        );
    }
    assert_eq!(lines(&folder, &["sub", "good.pcap"]).0.len(), 2);
}

/// An interface block whose second length is not the first.
fn torn() -> Vec<u8> {
    let mut bytes = Pcapng::new(false, (1, 0)).interface(1, 0).bytes;
    *bytes.last_mut().expect("it is not empty") ^= 1;
    bytes
}

#[test]
fn packet_blocks_of_pcapng_are_read_as_they_say() {
    let folder = folder(POLICY);
    let frame = listed(61);
    let pcapng = Pcapng::new(true, (1, 2))
        .interface(1, 0)
        .interface(1, 30)
        .interface(105, 0);
    let pcapng = pcapng
        .simple(61, &frame)
        .enhanced(1, START, 61, &frame[..30])
        .enhanced(2, START, 61, &frame);
    let pcapng = pcapng
        .enhanced(7, START, 61, &frame)
        .enhanced(0, START, 61, &frame);
    let mut bytes = pcapng.bytes;
    // A second section of the other byte order, with interfaces of its own.
    let second = Pcapng::new(false, (1, 0))
        .simple(61, &frame)
        .interface(1, 20)
        .simple(61, &frame[..20]);
    bytes.extend(second.packet(0, START, &frame).bytes);
    write(&folder, "a.pcapng", &bytes);
    let (lines, _) = lines(&folder, &["a.pcapng"]);
    assert_eq!(
        said(&lines),
        [
            "allowed",
            "cut by the snap length",
            "link type 105 is not Ethernet",
            "of an interface that is not described",
            "allowed",
            "of an interface that is not described",
            "cut by the snap length",
            "allowed",
        ]
    );
}

#[test]
fn frames_larger_than_a_page_are_judged() {
    let folder = folder(POLICY);
    let mut pcap = Pcap::default();
    for length in [1514, 3_500, 4_096, 9_014, 20_000, 65_549, 70_000] {
        pcap = pcap.frame(START, &listed(length));
    }
    write(&folder, "large.pcap", &pcap.bytes);
    let (lines, summary) = lines(&folder, &["large.pcap"]);
    assert_eq!(said(&lines), ["allowed"; 7]);
    assert_eq!(summary["skipped"]["frames"], json!({}));
}

#[test]
fn what_is_not_possible_is_refused_with_its_exit_code() {
    let folder = folder(POLICY);
    write(
        &folder,
        "a.pcap",
        &Pcap::default().frame(START, &stranger()).bytes,
    );
    write(&folder, "bad.toml", b"version = 1\n[filter]\ninterfaces = []\n");
    write(
        &folder,
        "b.jsonl",
        b"{\"credential\": \"k\", \"sources\": [\"192.0.2.1/24\"]}\n",
    );
    for (arguments, exit, why) in [
        (
            ["--policy", "policy.toml", "--bindings", "b.jsonl"],
            1,
            "b.jsonl:1: ",
        ),
        (["--policy", "bad.toml", "--color", "never"], 3, "invalid"),
    ] {
        let ended = run(
            folder.path(),
            &[&["replay"], &arguments[..], &["a.pcap"]].concat(),
        );
        assert_eq!(ended.exit, exit, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(why), "{arguments:?}: {}", ended.errors);
        assert_eq!(ended.output, "", "{arguments:?}");
    }
    assert_eq!(run(folder.path(), &["replay"]).exit, 2);
}

#[test]
fn without_rights_it_says_what_it_needs() {
    let folder = folder(POLICY);
    write(
        &folder,
        "a.pcap",
        &Pcap::default().frame(START, &stranger()).bytes,
    );
    let ended = run_without_rights(folder.path(), &["replay", "--policy", "policy.toml", "a.pcap"]);
    assert_eq!(ended.exit, 1, "{}", ended.errors);
    assert!(
        ended.errors.contains("run as root or with CAP_BPF"),
        "{}",
        ended.errors
    );
}

/// Name, bytes, and a part of what must be said of it.
fn unreadable() -> [(&'static str, Vec<u8>, &'static str); 13] {
    let frame = listed(60);
    [
        ("none.pcap", Pcap::default().bytes, "no frame in it"),
        (
            "old.pcap",
            Pcap::new(KINDS[0], (1, 4), 1).frame(START, &frame).bytes,
            "pcap version 1.4",
        ),
        (
            "new.pcap",
            Pcap::new(KINDS[2], (2, 5), 1).frame(START, &frame).bytes,
            "pcap version 2.5",
        ),
        (
            "new.pcapng",
            Pcapng::new(false, (2, 0)).interface(1, 0).bytes,
            "pcapng version 2.0",
        ),
        (
            "minor.pcapng",
            Pcapng::new(true, (1, 1)).interface(1, 0).bytes,
            "pcapng version 1.1",
        ),
        (
            "modified.pcap",
            [&[0x34, 0xcd, 0xb2, 0xa1][..], &[0; 40]].concat(),
            "modified pcap",
        ),
        ("packed.pcap.gz", vec![0x1f, 0x8b, 8, 0, 0], "gzip"),
        (
            "notes.txt",
            b"no capture at all".to_vec(),
            "neither pcap nor pcapng",
        ),
        ("three", vec![0xd4, 0xc3, 0xb2], "neither pcap nor pcapng"),
        ("empty", Vec::new(), "an empty file"),
        (
            "header.pcap",
            Pcap::default().bytes[..20].to_vec(),
            "ends inside its header",
        ),
        (
            "block.pcapng",
            Pcapng::new(false, (1, 0)).interface(1, 0).bytes[..40].to_vec(),
            "ends inside a block",
        ),
        ("torn.pcapng", torn(), "two lengths differ"),
    ]
}
