//! `keyfence replay` as an operator runs it: what is read, time, buckets, and all captures.

use std::path::Path;

use keyfence_tests::command::run;
use keyfence_tests::oracle::captures;
use keyfence_tests::pcap::{KINDS, Pcap, Pcapng};
use keyfence_tests::replay::{POLICY, SECOND, START, folder, lines, listed, replay, said, stranger, write};
use keyfence_tests::subject;
use serde_json::{Value, json};

#[test]
fn frames_of_every_kind_of_file_are_judged_the_same() {
    let folder = folder(POLICY);
    let mut names = Vec::new();
    for (number, kind) in KINDS.into_iter().enumerate() {
        let pcap = Pcap::new(kind, (2, 4), 1)
            .frame(START, &listed(60))
            .frame(START + 5, &stranger());
        names.push(format!("{number}.pcap"));
        write(&folder, &names[number], &pcap.bytes);
    }
    for (name, big) in [("be.pcapng", true), ("le.pcapng", false)] {
        let pcapng = Pcapng::new(big, (1, 0)).unknown().interface(1, 0);
        let pcapng = pcapng
            .enhanced(0, START, 60, &listed(60))
            .unknown()
            .packet(0, START, &stranger());
        write(&folder, name, &pcapng.bytes);
        names.push(name.to_owned());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (lines, summary) = lines(&folder, &names);
    let mut expected = Vec::new();
    for name in &names {
        expected.push(
            json!({ "file": name, "frame": 1, "verdict": "pass", "reason": "allowed",
            "service": "payments", "owner": "client/acme" }),
        );
        expected.push(
            json!({ "file": name, "frame": 2, "verdict": "drop", "reason": "unlisted",
            "service": "payments", "owner": null }),
        );
    }
    assert_eq!(lines, expected);
    assert_eq!(summary["files"], 6);
    assert_eq!(summary["frames"], 12);
    assert_eq!(summary["verdicts"], json!({ "pass": 6, "drop": 6, "observe": 0 }));
    assert_eq!(summary["reasons"]["drop"], json!({ "unlisted": 6 }));
    assert_eq!(
        summary["services"][0],
        json!({ "service": "payments", "pass": 6, "drop": 6, "observe": 0 })
    );
    assert_eq!(summary["skipped"], json!({ "frames": {}, "files": {} }));
    assert_eq!(summary["top_sources"][0]["source"], "203.0.113.9");
}

#[test]
fn buckets_start_full_at_each_file_and_time_follows_the_stamps_and_never_goes_back() {
    let limited = POLICY.to_owned() + "limit = { packets = { rate = 1, burst = 2 } }\n";
    let folder = folder(&limited);
    let mut pcap = Pcap::default();
    // Two at once and no third; a second later one more; none for a stamp before that; two for two seconds later.
    for at in [0, 0, 0, 1, 0, 1, 3, 2, 3] {
        pcap = pcap.frame(START + at * SECOND, &listed(60));
    }
    write(&folder, "a.pcap", &pcap.bytes);
    write(&folder, "b.pcap", &pcap.bytes);
    let (lines, summary) = lines(&folder, &["a.pcap", "b.pcap"]);
    let a = "allowed";
    let no = "limit-grant";
    let expected = [a, a, no, a, no, no, a, a, no];
    assert_eq!(said(&lines), [expected, expected].concat());
    assert_eq!(lines[2]["owner"], "client/acme");
    assert_eq!(summary["reasons"]["drop"], json!({ "limit-grant": 8 }));
}

#[test]
fn ends_go_by_the_captures_own_clock() {
    let ending = POLICY.to_owned() + "expires = 2026-11-22T00:00:10Z\n";
    let folder = folder(&ending);
    let frame = listed(60);
    let pcap = |start: u64| {
        Pcap::default()
            .frame(start, &frame)
            .frame(start + 9 * SECOND, &frame)
    };
    write(
        &folder,
        "a.pcap",
        &pcap(START)
            .frame(START + 11 * SECOND, &frame)
            .frame(START, &frame)
            .bytes,
    );
    write(&folder, "b.pcap", &pcap(START + 20 * SECOND).bytes);
    write(
        &folder,
        "c.pcap",
        &pcap(START - 5 * SECOND).frame(START + 10 * SECOND, &frame).bytes,
    );
    let (lines, _) = lines(&folder, &["a.pcap", "b.pcap", "c.pcap"]);
    let (a, ended) = ("allowed", "ended");
    assert_eq!(said(&lines), [a, a, ended, ended, ended, ended, a, a, ended]);
}

#[test]
fn end_beyond_what_the_clock_can_count_never_comes() {
    let folder = folder(&(POLICY.to_owned() + "expires = 9999-12-31T23:59:59Z\n"));
    write(
        &folder,
        "a.pcap",
        &Pcap::default().frame(START, &listed(60)).bytes,
    );
    let (lines, _) = lines(&folder, &["a.pcap"]);
    assert_eq!(said(&lines), ["allowed"]);
}

#[test]
fn merged_frames_end_at_the_frames_end_in_generic_mode_alone() {
    let without_length = |length| {
        let mut frame = listed(length);
        frame[16..18].fill(0);
        frame
    };
    // Longer than an unmerged frame, and with a length of its own.
    let mut padded = listed(65_535);
    padded.extend([0; 10]);
    let pcap = Pcap::default()
        .frame(START, &without_length(65_536))
        .frame(START, &without_length(65_535))
        .frame(START, &padded);
    for (attach, merged) in [
        ("auto", "allowed"),
        ("generic", "allowed"),
        ("native", "malformed"),
    ] {
        let filter = format!("[filter]\nattach = {attach:?}");
        let folder = folder(&POLICY.replace("[filter]", &filter));
        write(&folder, "a.pcap", &pcap.bytes);
        let (lines, _) = lines(&folder, &["a.pcap"]);
        assert_eq!(said(&lines), [merged, "malformed", "allowed"], "{attach}");
    }
}

#[test]
fn stamps_far_apart_wrap_nothing() {
    let limited = POLICY.to_owned() + "limit = { packets = { rate = 1, burst = 1 } }\n";
    let folder = folder(&limited);
    let frame = listed(60);
    let far = u64::from(u32::MAX) * SECOND;
    let pcap = Pcap::default()
        .frame(0, &frame)
        .frame(0, &frame)
        .frame(far, &frame)
        .frame(far, &frame);
    write(&folder, "a.pcap", &pcap.bytes);
    let (lines, _) = lines(&folder, &["a.pcap"]);
    assert_eq!(said(&lines), ["allowed", "limit-grant", "allowed", "limit-grant"]);
}

#[test]
fn a_folder_means_all_in_it_in_the_order_of_bytes() {
    let folder = folder(POLICY);
    let capture = Pcap::default().frame(START, &stranger()).bytes;
    for name in [
        "captures/b.pcap",
        "captures/a.pcap",
        "captures/a/z",
        "captures/a/B.pcap",
        "captures/a-1",
    ] {
        write(&folder, name, &capture);
    }
    write(&folder, "captures/README", b"a text");
    let (lines, _) = lines(&folder, &["captures/", "captures/a"]);
    let files: Vec<&str> = lines.iter().map(|line| line["file"].as_str().unwrap()).collect();
    let expected = [
        "captures/README",
        "captures/a-1",
        "captures/a.pcap",
        "captures/a/B.pcap",
        "captures/a/z",
        "captures/b.pcap",
        "captures/a/B.pcap",
        "captures/a/z",
    ];
    assert_eq!(files, expected);
}

#[test]
fn host_means_the_addresses_that_are_given() {
    let host = POLICY.replace("ports = [443]", "ports = [443]\naddress = \"host\"");
    let folder = folder(&host);
    write(
        &folder,
        "a.pcap",
        &Pcap::default().frame(START, &stranger()).bytes,
    );
    let (found, _) = lines(
        &folder,
        &[
            "--host-address",
            "203.0.113.10",
            "--host-address",
            "::1",
            "a.pcap",
        ],
    );
    assert_eq!(said(&found), ["unlisted"]);
    let without = replay(&folder, &["a.pcap"]);
    assert!(without.errors.contains("--host-address"), "{}", without.errors);
    assert_eq!(said(&without.lines()[..1]), ["other"]);
}

#[test]
fn the_summary_for_people_names_verdicts_services_sources_and_what_was_skipped() {
    let folder = folder(POLICY);
    let pcap = Pcap::default()
        .frame(START, &stranger())
        .frame(START, &listed(60))
        .frame(START, &[1; 3]);
    write(&folder, "a.pcap", &pcap.bytes);
    write(&folder, "b.txt", b"a text");
    let ended = run(
        folder.path(),
        &["replay", "--policy", "policy.toml", "a.pcap", "b.txt"],
    );
    assert_eq!((ended.exit, ended.errors.as_str()), (0, ""), "{ended:?}");
    for part in [
        "unlisted",
        "payments",
        "203.0.113.9",
        "a.pcap",
        "judged 2 frames of 2 files in ",
        "under 14 bytes: a.pcap frame 3\n",
        "  b.txt: neither pcap nor pcapng",
    ] {
        assert!(ended.output.contains(part), "{part} is not in\n{}", ended.output);
    }
}

/// Every recorded file is read or said to be unreadable, and no frame is left out: a reader that is not ours counts.
#[test]
fn all_captures_run_through() {
    let root = subject::folder().join("..");
    let Some(captures) = captures::folder(&root).unwrap_or_else(|error| panic!("{error}")) else {
        println!("captures: not given");
        return;
    };
    let captures = captures.canonicalize().unwrap();
    let folder = folder(&POLICY.replace("198.51.100.0/24", "0.0.0.0/0"));
    let (lines, summary) = lines(&folder, &[captures.to_str().unwrap()]);
    let mut told: std::collections::HashMap<&str, (u64, u64)> = std::collections::HashMap::new();
    for line in &lines {
        let counts = told.entry(line["file"].as_str().unwrap()).or_default();
        match line["frame"].as_u64() {
            Some(frame) => {
                counts.0 += 1;
                assert_eq!(frame, counts.0, "{line}");
            }
            None => counts.1 += 1,
        }
        assert_eq!(line["verdict"].is_null(), line["skipped"].is_string(), "{line}");
    }
    let files = captures::files(&captures).unwrap();
    let mut frames = 0;
    for file in &files {
        let name = file.to_str().unwrap();
        let (expected, broken) = captures::read(file);
        let (found, unread) = told
            .get(name)
            .copied()
            .unwrap_or_else(|| panic!("{name} has no line"));
        let other_version = unread == 1 && found == 0 && is_of_another_version(file, &lines);
        assert!(
            found >= expected.len() as u64 || other_version,
            "{name}: {found} of {}",
            expected.len()
        );
        assert!(
            broken.is_some() || found == expected.len() as u64 || other_version,
            "{name}: {found}"
        );
        frames += found;
    }
    println!(
        "captures: {} files, {frames} frames, {}",
        files.len(),
        summary["skipped"]
    );
    assert!(told.len() >= files.len());
}

fn is_of_another_version(file: &Path, lines: &[Value]) -> bool {
    let of_file = lines
        .iter()
        .filter(|line| line["file"].as_str().map(Path::new) == Some(file));
    of_file.into_iter().all(|line| {
        line["skipped"]
            .as_str()
            .is_some_and(|why| why.contains("version"))
    })
}
