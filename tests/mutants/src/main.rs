//! `keyfence-mutants FILE`: ends with 0 where every case of the file is judged as it says, with 1 where one is not.
#![deny(unsafe_code)]

use std::process::ExitCode;

use keyfence_mutants::{cases, check};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: keyfence-mutants FILE");
        return ExitCode::from(2);
    };
    let groups = match std::fs::read(&path) {
        Ok(bytes) => cases::read(&bytes),
        Err(error) => {
            eprintln!("cannot read {}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let Some(groups) = groups else {
        eprintln!("{} is no file of cases", path.display());
        return ExitCode::from(2);
    };
    match check::all(groups) {
        Ok(frames) => {
            println!("{frames} frames");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            println!("{fault}");
            ExitCode::FAILURE
        }
    }
}
