//! The machine: its kernel, whether that takes the program, and its clocks.

use std::path::Path;
use std::time::SystemTime;

use super::{Finding, definitions as all};
use crate::compiler::Pushed;
use crate::judge::{BASE_NS, Bench, copy::KernelCopy, names_host};
use crate::kernel::load::LoadError;
use crate::kernel::{addresses, clock, tick};
use crate::policy::Policy;

/// The oldest kernel that this is made for.
const OLDEST: (u32, u32) = (6, 1);
/// Files' stamps and the clock are read one after the other.
const STAMP_SLACK_SECONDS: u64 = 1;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// As `uname -r` says it.
    pub release: String,
    /// Why the kernel does not take the program.
    pub(super) refused: Option<String>,
    pub(super) interpreted: bool,
    pub(super) jiffies: bool,
    pub(super) synchronised: Option<bool>,
    /// A file of the state that is from the future.
    pub(super) from_future: Option<String>,
    pub(super) unseen: Vec<String>,
}

impl Machine {
    /// Loads the program with the policy's tables, as a start would, and lets go of it. Not for a task of a runtime.
    pub fn read(policy: Option<&Policy>) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned());
        let mut machine = Self {
            release: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
            interpreted: text("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|set| set == "0"),
            jiffies: tick::are_usable(),
            synchronised: clock::is_synchronised(),
            ..Self::default()
        };
        if let Some(policy) = policy {
            match load(policy) {
                Ok(()) => {}
                Err(Load::Unseen(why)) => machine
                    .unseen
                    .push(format!("whether the kernel takes the program: {why}")),
                Err(Load::Refused(why)) => machine.refused = Some(why),
            }
            machine.from_future = from_future(&policy.daemon.state);
        }
        machine
    }

    pub(super) fn findings(&self, policy: Option<&Policy>) -> Vec<Finding> {
        let mut found = Vec::new();
        if release(&self.release).is_some_and(|release| release < OLDEST) {
            found.push(Finding::new(&all::KERNEL_OLD, format!("Linux {}", self.release)));
        }
        if let Some(why) = &self.refused {
            found.push(Finding::new(&all::PROGRAM_REFUSED, why));
        }
        if self.interpreted {
            found.push(Finding::new(&all::JIT_OFF, "net.core.bpf_jit_enable is 0"));
        }
        if !self.jiffies {
            found.push(Finding::new(
                &all::CLOCK_COARSE,
                "ticks do not follow the monotonic clock",
            ));
        }
        if self.synchronised == Some(false) && policy.is_some_and(follows_wall_clock) {
            let what = "the kernel says that its clock is not synchronised";
            found.push(Finding::new(&all::CLOCK_UNSYNCHRONISED, what));
        }
        if let Some(file) = &self.from_future {
            found.push(Finding::new(&all::CLOCK_BACK, file));
        }
        found
    }
}

/// Whether anything of it ends by the wall clock.
fn follows_wall_clock(policy: &Policy) -> bool {
    !policy.publishers.is_empty() || policy.clients.iter().any(|client| client.expires.is_some())
}

/// Major and minor of `6.1.0-18-amd64`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

enum Load {
    Unseen(String),
    Refused(String),
}

fn load(policy: &Policy) -> Result<(), Load> {
    let host = if names_host(policy) {
        let read = addresses::read_blocking();
        read.map_err(|error| Load::Unseen(format!("the host's addresses: {error}")))?
    } else {
        Vec::new()
    };
    let now = jiff::Timestamp::now().as_nanosecond() - i128::from(BASE_NS);
    let end = |end| clock::monotonic_end(end, now);
    let bench = Bench::new(policy, &host, &end, &Pushed::default());
    let bench = bench.map_err(|error| Load::Refused(error.to_string()))?;
    match KernelCopy::load(&bench.compiled) {
        Ok(_) => Ok(()),
        Err(error @ LoadError::NotPermitted(_)) => Err(Load::Unseen(error.to_string())),
        Err(error) => Err(Load::Refused(error.to_string())),
    }
}

/// A file in the state's folder that was written later than now.
fn from_future(state: &Path) -> Option<String> {
    let now = SystemTime::now();
    std::fs::read_dir(state).ok()?.flatten().find_map(|entry| {
        let written = entry.metadata().ok()?.modified().ok()?;
        let ahead = written.duration_since(now).ok()?.as_secs();
        (ahead > STAMP_SLACK_SECONDS)
            .then(|| format!("{} was written {ahead} s from now", entry.path().display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_compared() {
        assert_eq!(release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(release("5.15.0"), Some((5, 15)));
        assert!(release("5.15.0") < Some(OLDEST) && release("6.12.3+deb13") > Some(OLDEST));
        assert_eq!(release("unknown"), None);
    }

    #[test]
    fn file_from_the_future_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("audit.jsonl")).unwrap();
        assert_eq!(from_future(folder.path()), None);
        let later = SystemTime::now() + std::time::Duration::from_secs(3600);
        file.set_modified(later).unwrap();
        let told = from_future(folder.path()).unwrap();
        assert!(told.contains("audit.jsonl was written 3"), "{told}");
    }

    #[test]
    fn machine_that_lacks_something_is_told_of_each() {
        let machine = Machine {
            release: "5.10.0".into(),
            refused: Some("no".into()),
            interpreted: true,
            synchronised: Some(false),
            from_future: Some("audit.jsonl".into()),
            ..Machine::default()
        };
        let found = machine.findings(None);
        let ids: Vec<&str> = found.iter().map(|finding| finding.definition.id).collect();
        assert_eq!(
            ids,
            [
                "kernel-old",
                "program-refused",
                "jit-off",
                "clock-coarse",
                "clock-back"
            ]
        );
    }
}
