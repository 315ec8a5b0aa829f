//! Network namespaces with names of this process, so that tests of two checkouts do not meet.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::program::{output, run, system};

/// Of all names, so that what is left over can be told from what is others'.
pub(super) const PREFIX: &str = "kft-";
const FOLDER: &str = "/run/netns";

/// A namespace; it goes, with all its interfaces, when this does.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        require_root();
        let name = format!(
            "{PREFIX}{}-{}-{role}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        run(system("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace.quiet();
        namespace
    }

    /// No packets but those that a test sends: no router solicitations, no addresses of the kernel's own choice.
    fn quiet(&self) {
        for (key, value) in [
            ("accept_ra", "0"),
            ("accept_dad", "0"),
            ("addr_gen_mode", "1"),
            ("router_solicitations", "0"),
        ] {
            self.sysctl(&format!("net/ipv6/conf/default/{key}"), value);
        }
    }

    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key);
        self.inside(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{} cannot be set: {error}", path.display()));
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is opened to enter it.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// `ip` with words that are parted by spaces.
    pub fn ip(&self, words: &str) -> String {
        run(system("ip").args(["-n", &self.name]).args(words.split(' ')))
    }

    /// A command in here that goes when this test goes. Mounts stay as they are, which `ip netns exec` would hide.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = system("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", self.path().display()));
        command.arg(program.as_ref());
        command
    }

    /// Does something on a thread in here: what sockets it opens stay in here.
    pub fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let done = thread::scope(|scope| {
            let enter = || {
                self.enter();
                work()
            };
            scope.spawn(enter).join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Takes the calling thread in here, for good.
    pub fn enter(&self) {
        let file = File::open(self.path()).expect("a namespace is there as long as its guard");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A guard must not panic; what stays is cleared by the next run.
        output(system("ip").args(["netns", "del", &self.name]));
    }
}

/// Says so where the tests cannot work.
pub(super) fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces and loads programs into the kernel: run it as root"
    );
}

/// Removes the namespaces of test processes that are gone.
pub(super) fn clear_stale() {
    let Ok(entries) = std::fs::read_dir(FOLDER) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_stale(&name) {
            // Another test process may clear at the same time.
            output(system("ip").args(["netns", "del", &name]));
        }
    }
}

/// Whether a name with a process in it is one of ours, and that process gone.
pub(super) fn is_stale(name: &str) -> bool {
    let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    process
        .and_then(|id| id.parse::<u32>().ok())
        .is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists())
}
