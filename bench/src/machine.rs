//! What the figures were measured on.

use std::fs;
use std::process::Command;

use crate::figures::Machine;

/// The machine as it is now; `load_after` is the run's to write.
pub(crate) fn describe() -> Machine {
    let load = load();
    Machine {
        kernel: kernel(),
        processor: processor(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        load_before: load,
        load_after: load,
        mitigations: mitigations(),
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        commit: commit(),
    }
}

/// Its version, without what a builder appends.
fn kernel() -> String {
    let release = read("/proc/sys/kernel/osrelease");
    release.split(['-', '+']).next().unwrap_or_default().to_owned()
}

/// The load average over the last minute.
pub(crate) fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |model| model.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}

/// Those that make a call or a return in the kernel cost more.
fn mitigations() -> Vec<String> {
    let names = ["retbleed", "spec_rstack_overflow", "spectre_v2"];
    let line = |name: &str| {
        let text = read(&format!("/sys/devices/system/cpu/vulnerabilities/{name}"));
        (!text.is_empty()).then(|| format!("{name}: {text}"))
    };
    names.into_iter().filter_map(line).collect()
}

fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}
