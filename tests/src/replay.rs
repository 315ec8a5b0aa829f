//! What the tests of `keyfence replay` share: a policy, frames of those it lists and of a stranger, and the lines.

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Ended, run};
use crate::pcap::tcp;

pub const SECOND: u64 = 1_000_000_000;
/// 2026-11-22T00:00:00Z.
pub const START: u64 = 1_795_305_600 * SECOND;
pub const LISTED: [u8; 4] = [198, 51, 100, 7];
pub const STRANGER: [u8; 4] = [203, 0, 113, 9];
pub const SERVER: [u8; 4] = [203, 0, 113, 10];

pub const POLICY: &str = r#"
version = 1
[filter]
interfaces = ["eth0"]
management-none = true
[[service]]
name = "payments"
protocol = "tcp"
ports = [443]
[[client]]
name = "acme"
sources = ["198.51.100.0/24"]
services = ["payments"]
"#;

pub fn folder(policy: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    write(&folder, "policy.toml", policy.as_bytes());
    folder
}

pub fn write(folder: &TempDir, name: &str, bytes: &[u8]) {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("the folder can be written");
    std::fs::write(path, bytes).expect("the folder can be written");
}

pub fn replay(folder: &TempDir, arguments: &[&str]) -> Ended {
    let ended = run(
        folder.path(),
        &[&["replay", "--json", "--policy", "policy.toml"], arguments].concat(),
    );
    assert_eq!(ended.exit, 0, "{}", ended.errors);
    ended
}

/// Every line but the summary, and the summary.
pub fn lines(folder: &TempDir, arguments: &[&str]) -> (Vec<Value>, Value) {
    let mut lines = replay(folder, arguments).lines();
    let last = lines.pop().expect("there is a summary");
    assert_eq!(last["schema"], 1);
    (lines, last["summary"].clone())
}

pub fn listed(length: usize) -> Vec<u8> {
    tcp(LISTED, SERVER, 443, length)
}

pub fn stranger() -> Vec<u8> {
    tcp(STRANGER, SERVER, 443, 60)
}

/// The reasons, or why a frame was skipped.
pub fn said(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| {
            line["reason"]
                .as_str()
                .or(line["skipped"].as_str())
                .expect("a reason or why not")
        })
        .collect()
}
