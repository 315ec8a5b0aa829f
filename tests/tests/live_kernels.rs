//! The oldest kernel that is supported and the one of Debian 13, booted under qemu: every vector and live packets.

use std::process::Command;

use keyfence_tests::subject::folder;

const SERIES: [&str; 2] = ["6.1", "6.12"];
/// The vectors are there: fewer would be a run that left some out.
const FRAMES_MIN: u32 = 3_000;

/// The number before these words.
fn count(line: &str, words: &str) -> u32 {
    let before = line.split_once(words).map(|(before, _)| before);
    let number = before.and_then(|before| before.rsplit(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number of{words} in {line:?}"))
}

#[test]
fn the_supported_kernels_judge_every_vector_and_filter_vlan_bond_and_bridge() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["xtask", "vm"])
        .current_dir(folder().join(".."))
        // The one built with these tests: no second build, which a test has no time for.
        .env("KEYFENCE_VECTOR_CAPTURES", env!("CARGO_BIN_EXE_vector-captures"))
        .output()
        .expect("cargo starts");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}\n{errors}", output.status);
    for series in SERIES {
        let begin = format!("linux {series}.");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&begin)).collect();
        let [line] = lines[..] else {
            panic!("not one line of {series}: {text}")
        };
        assert!(count(line, " frames") >= FRAMES_MIN, "{line}");
        assert_eq!(count(line, " disagreements"), 0, "{line}");
        assert!(count(line, " live checks") > 0, "{line}");
        assert_eq!(count(line, " failed"), 0, "{line}");
    }
}
