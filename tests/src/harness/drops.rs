//! Services that drop, and the log of drops as tests read it: line by line, and what its records add up to.

use std::fs;
use std::path::Path;

use filter_common::verdict::Verdict;
use serde_json::Value;

use super::counters::Counts;
use super::program::{keyfence, output};
use super::site::Site;
use super::wait::until;

/// Two services: one that drops what it refuses, and one that observes.
pub const SERVICES: &str = r#"
[[service]]
name = "api"
protocol = ["tcp", "udp"]
ports = [7000]
[[service]]
name = "tried"
protocol = "udp"
ports = [7001]
mode = "observe"
"#;

/// All whole lines.
pub fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |at| &text[..at]);
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    whole.lines().map(read).collect()
}

/// All but the checkpoints.
pub fn records(log: &Path) -> Vec<Value> {
    let is_record = |line: &Value| line["keyfence"]["kind"] != "checkpoint";
    lines(log).into_iter().filter(is_record).collect()
}

/// Packets dropped and observed.
pub fn sums(records: &[Value]) -> [u64; 2] {
    let mut sums = [0, 0];
    for record in records {
        let verdict = usize::from(record["keyfence"]["verdict"] == "observe");
        sums[verdict] += record["network"]["packets"].as_u64().expect("a number");
    }
    sums
}

/// The same, as the counters have them.
pub fn counted(counts: &Counts) -> [u64; 2] {
    let mut sums = [0, 0];
    for (label, tally) in &counts.0 {
        if label.verdict != Verdict::Pass {
            sums[usize::from(label.verdict == Verdict::Observe)] += tally.packets;
        }
    }
    sums
}

/// Waits until the log has all that the counters have.
pub fn caught_up(site: &Site, logs: &[&Path]) -> Vec<Value> {
    until("the log has what the counters have", || {
        let records: Vec<Value> = logs.iter().flat_map(|log| records(log)).collect();
        (sums(&records) == counted(&site.counters())).then_some(records)
    })
}

/// Numbers without a gap, from 1 on.
pub fn assert_in_order(records: &[Value]) {
    for (number, record) in (1..).zip(records) {
        assert_eq!(record["event"]["sequence"], number, "{record}");
    }
}

/// What `keyfence drops verify` ends with, and says.
pub fn verify(arguments: &[&Path]) -> (Option<i32>, Value) {
    let output = output(keyfence().args(["drops", "verify", "--json"]).args(arguments));
    let text = String::from_utf8_lossy(&output.stdout);
    (
        output.status.code(),
        serde_json::from_str(&text).unwrap_or(Value::Null),
    )
}
