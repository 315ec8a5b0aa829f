//! The vectors for a kernel that runs elsewhere: writes them as captures, and holds the answers to them.
#![deny(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use keyfence_tests::vector_captures::{Comparison, groups};

const USAGE: &str =
    "vector-captures write FOLDER     a folder a policy: policy.toml, host-addresses, captures
vector-captures compare FOLDER   holds FOLDER/GROUP.jsonl, what replay printed, to the vectors";
const FAULTS_SHOWN_MAX: usize = 40;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["write", folder] => write(Path::new(folder)),
        ["compare", folder] => compare(Path::new(folder)),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<(), String> {
    groups()?
        .iter()
        .try_for_each(|group| group.write(&folder.join(&group.name)))
}

fn compare(folder: &Path) -> Result<(), String> {
    let mut comparison = Comparison::default();
    for group in groups()? {
        let path = folder.join(format!("{}.jsonl", group.name));
        match fs::read_to_string(&path) {
            Ok(lines) => comparison.add(&group, &lines),
            Err(error) => comparison
                .disagreements
                .push(format!("{}: {error}", path.display())),
        }
    }
    println!("{comparison}");
    let faults = &comparison.disagreements;
    if faults.is_empty() {
        return Ok(());
    }
    Err(faults[..faults.len().min(FAULTS_SHOWN_MAX)].join("\n"))
}
