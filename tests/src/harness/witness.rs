//! State folders that are put back, and what the filter in the kernel was told of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::bpffs;
use super::program::run;
use super::site::Site;
use super::wait::until;

impl Site {
    /// Where the filter of the instance `main` has it pinned; where no generation is being made.
    pub fn witness(&self) -> PathBuf {
        let mut all = self.bpf.list("keyfence/main").into_iter();
        let found = all.find(|path| path.ends_with("WITNESS"));
        found.expect("it is pinned beside the tables")
    }

    /// The revision of the store that it tells, and the number of the policy.
    pub fn told(&self) -> (u64, u64) {
        let dumped: Value = bpffs::dump(&self.witness());
        let bytes = dumped[0]["value"].as_array().expect("a value's bytes").iter();
        let bytes: Vec<u8> = bytes
            .map(|byte| byte.as_str().expect("as text").trim_start_matches("0x"))
            .map(|byte| u8::from_str_radix(byte, 16).expect("in hexadecimal"))
            .collect();
        let words = bytes.as_chunks::<8>().0.iter();
        let words: Vec<u64> = words.map(|word| u64::from_ne_bytes(*word)).collect();
        // Behind the magic word and the format.
        (words[2], words[3])
    }

    /// Waits until the kernel was told of so much.
    pub fn has_told(&self, revision: u64, policy: u64) {
        until("the kernel is told", || {
            let (known, number) = self.told();
            (known >= revision && number >= policy).then_some(())
        });
    }

    /// A copy of the state folder as it is.
    pub fn copy_of_state(&self, name: &str) -> PathBuf {
        let to = self.folder().join(name);
        copy(&self.state(), &to);
        to
    }

    /// A copy in the place of the state folder.
    pub fn put_back(&self, copied: &Path) {
        copy(copied, &self.state());
    }
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("it is ours");
    }
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}
