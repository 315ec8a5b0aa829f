//! Holds the proof by mutants to account: its cases are right for the decision as it is, its loop finds what is
//! wrong, and no survivor is left without a reason.
//!
//! `KEYFENCE_WRITE_CASES=FOLDER cargo test --workspace --test mutants cases` writes the cases there, for
//! `cargo xtask mutants`.

use std::path::{Path, PathBuf};
use std::process::Command;

use keyfence_mutants::cases::Group;
use keyfence_mutants::{cases, check};
use keyfence_tests::cases::{broken, random, vectors};
use keyfence_tests::subject::folder;

const RANDOM_SEEDS: std::ops::Range<u64> = 1..41;
const RANDOM_FRAMES_EACH: usize = 500;

/// Tried in each run of the tests: so many, chosen by `KEYFENCE_MUTANTS_SEED`.
const SAMPLE: &str = "12";
const SEED: &str = "20261101";

#[test]
fn the_cases_hold_for_the_decision_as_it_is_with_every_count_dry_and_with_connections() {
    let (vectors, random) = both();
    if let Some(target) = std::env::var_os("KEYFENCE_WRITE_CASES").map(PathBuf::from) {
        write(&target, &vectors, &random);
    }
    for (what, groups) in [("vectors", vectors), ("random", random)] {
        let files = groups.len();
        match check::all(groups) {
            Ok(frames) => println!("{what}: {files} policies, {frames} frames, each counted as it must be"),
            Err(fault) => panic!("{what}: {fault}"),
        }
    }
}

fn both() -> (Vec<Group>, Vec<Group>) {
    let mut vectors = vectors(&folder().join("vectors")).expect("the vectors are cases");
    vectors.extend(broken().expect("broken tables are cases"));
    let random = random(RANDOM_SEEDS, RANDOM_FRAMES_EACH).expect("random frames are cases");
    (vectors, random)
}

fn write(target: &Path, vectors: &Vec<Group>, random: &Vec<Group>) {
    std::fs::create_dir_all(target).expect("the folder can be made");
    for (name, groups) in [("vectors", vectors), ("random", random)] {
        std::fs::write(target.join(name), cases::write(groups)).expect("the cases can be written");
    }
}

#[test]
fn a_sample_of_mutants_is_killed_or_known_to_make_no_difference() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    let (vectors, random) = both();
    write(&target, &vectors, &random);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let seed = std::env::var("KEYFENCE_MUTANTS_SEED").unwrap_or_else(|_| SEED.into());
    let output = Command::new(cargo)
        .args(["xtask", "mutants", "--sample", SAMPLE, "--seed", &seed, "--cases"])
        .arg(&target)
        .current_dir(folder().parent().expect("a workspace"))
        .output()
        .expect("cargo can be started");
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "seed {seed}: {out}{error}");
    print!("seed {seed}: {out}");
}

#[test]
fn every_survivor_of_the_last_whole_run_has_its_reason() {
    let document = folder().parent().expect("a workspace").join("docs/MUTANTS.md");
    let document = std::fs::read_to_string(document).expect("the mutants have been run");
    let summary = document
        .lines()
        .find(|line| line.contains(" killed "))
        .expect("there is a summary");
    println!("{summary}");
    let rows: Vec<&str> = document
        .split("## Survivors")
        .nth(1)
        .expect("there is a table")
        .lines()
        .collect();
    assert!(!document.contains("**unexplained**"), "{rows:#?}");
    let survivors = rows
        .iter()
        .filter(|row| row.starts_with("| ") && row.contains('`'));
    for row in survivors {
        let reason = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        assert!(reason.split_whitespace().count() >= 4, "{row}");
    }
}
