//! The targets of tests/fuzz, each for a bounded time: `KEYFENCE_FUZZ_SECONDS`, 20 where it is not set.

use std::process::Command;

use keyfence_tests::subject::folder;

const SECONDS: &str = "20";

fn fuzz(target: &str) {
    let seconds = std::env::var("KEYFENCE_FUZZ_SECONDS").unwrap_or_else(|_| SECONDS.into());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["xtask", "fuzz", target, "--seconds", &seconds])
        .current_dir(folder().parent().expect("a workspace"))
        .output()
        .expect("cargo can be started");
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{error}");
    print!("{out}");
}

#[test]
fn any_bytes_are_parsed_without_a_panic_and_padding_changes_nothing() {
    fuzz("parse");
}

#[test]
fn any_frame_is_judged_as_the_oracle_judges_it() {
    fuzz("decide");
}

#[test]
fn any_bytes_are_read_as_a_policy_without_a_panic() {
    fuzz("policy");
}
