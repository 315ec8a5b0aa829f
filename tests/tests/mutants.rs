//! Holds the proof by mutants to account: its cases are right for the decision as it is, its loop finds what is
//! wrong, and no survivor is left without a reason.
//!
//! `KEYFENCE_WRITE_CASES=FOLDER cargo test --workspace --test mutants cases` writes the cases there, for
//! `cargo xtask mutants`.

use std::path::PathBuf;

use keyfence_mutants::{cases, check};
use keyfence_tests::cases::{broken, random, vectors};
use keyfence_tests::subject::folder;

const RANDOM_SEEDS: std::ops::Range<u64> = 1..41;
const RANDOM_FRAMES_EACH: usize = 500;

#[test]
fn the_cases_hold_for_the_decision_as_it_is_with_every_count_dry_and_with_connections() {
    let mut vectors = vectors(&folder().join("vectors")).expect("the vectors are cases");
    vectors.extend(broken().expect("broken tables are cases"));
    let random = random(RANDOM_SEEDS, RANDOM_FRAMES_EACH).expect("random frames are cases");
    if let Some(target) = std::env::var_os("KEYFENCE_WRITE_CASES").map(PathBuf::from) {
        std::fs::create_dir_all(&target).expect("the folder can be made");
        for (name, groups) in [("vectors", &vectors), ("random", &random)] {
            std::fs::write(target.join(name), cases::write(groups)).expect("the cases can be written");
        }
    }
    for (what, groups) in [("vectors", vectors), ("random", random)] {
        let files = groups.len();
        match check::all(groups) {
            Ok(frames) => println!("{what}: {files} policies, {frames} frames, each counted as it must be"),
            Err(fault) => panic!("{what}: {fault}"),
        }
    }
}
