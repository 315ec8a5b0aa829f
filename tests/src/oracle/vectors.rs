//! The vector files: a policy in Keyfence's own syntax, frames, and the answers worked out by hand.
//!
//! Reads and writes them; judges nothing. One file is one judge with full buckets at the start: its cases come
//! in order, and time never goes back.

use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// `at_ms` counts from here: 2026-11-01T00:00:00Z.
pub const START_NS: u64 = 1_793_491_200 * 1_000_000_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorFile {
    /// What the file is about, and the rule it belongs to.
    pub about: String,
    /// What `address = "host"` stands for.
    #[serde(default)]
    pub host_addresses: Vec<IpAddr>,
    /// A policy file of SPEC 2, whole.
    pub policy: String,
    #[serde(default, rename = "case")]
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A sentence, alone of its kind in its file.
    pub name: String,
    /// How the frame was built.
    pub what: String,
    /// The sentence of SPEC that says so.
    pub why: String,
    /// Hex.
    pub frame: String,
    /// So many zero bytes follow the hex: for frames too long to be written down.
    #[serde(default)]
    pub zeros: usize,
    /// The frame comes so often at this moment, with the same answer each time.
    #[serde(default = "once")]
    pub times: u64,
    /// Milliseconds after `START_NS`.
    #[serde(default)]
    pub at_ms: u64,
    pub verdict: String,
    pub reason: String,
    /// "" for none.
    #[serde(default)]
    pub service: String,
    /// "" for none.
    #[serde(default)]
    pub owner: String,
}

fn once() -> u64 {
    1
}

impl Case {
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        let digits = self.frame.as_bytes();
        if !digits.len().is_multiple_of(2) {
            return Err(format!("{}: an odd number of hex digits", self.name));
        }
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).map_err(|error| error.to_string())?;
            u8::from_str_radix(text, 16).map_err(|error| format!("{}: {text}: {error}", self.name))
        };
        let mut bytes = digits.chunks(2).map(byte).collect::<Result<Vec<u8>, String>>()?;
        bytes.resize(bytes.len() + self.zeros, 0);
        Ok(bytes)
    }

    pub fn now_ns(&self) -> u64 {
        START_NS + self.at_ms * 1_000_000
    }
}

impl VectorFile {
    pub fn read(path: &Path) -> Result<VectorFile, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The file's text, in one fixed form.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "about = {}", text(&self.about));
        if !self.host_addresses.is_empty() {
            let all: Vec<String> = self.host_addresses.iter().map(|a| text(&a.to_string())).collect();
            let _ = writeln!(out, "host_addresses = [{}]", all.join(", "));
        }
        let _ = writeln!(out, "policy = '''\n{}'''", self.policy);
        for case in &self.cases {
            let _ = writeln!(
                out,
                "\n[[case]]\nname = {}\nwhat = {}",
                text(&case.name),
                text(&case.what)
            );
            let _ = writeln!(out, "why = {}\nframe = {}", text(&case.why), text(&case.frame));
            for (key, value, usual) in [
                ("zeros", case.zeros as u64, 0),
                ("times", case.times, 1),
                ("at_ms", case.at_ms, 0),
            ] {
                if value != usual {
                    let _ = writeln!(out, "{key} = {value}");
                }
            }
            let _ = writeln!(
                out,
                "verdict = {}\nreason = {}",
                text(&case.verdict),
                text(&case.reason)
            );
            let _ = writeln!(
                out,
                "service = {}\nowner = {}",
                text(&case.service),
                text(&case.owner)
            );
        }
        out
    }
}

fn text(value: &str) -> String {
    toml::Value::from(value).to_string()
}

/// The vector files of a folder, sorted by name.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
