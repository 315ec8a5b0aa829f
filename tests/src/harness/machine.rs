//! A machine that boots: a real systemd in systemd-nspawn, in a network namespace of the test's.
//!
//! Its files are this host's own, with what a test adds laid over them in memory; all of it goes with one process.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use super::namespace::{Namespace, require_root};
use super::program::{keyfence_path, output, run, static_path, system};
use super::wait::until;

/// What is reached when everything asked for has been started: nothing else of this host's is.
const TARGET: &str = "\
[Unit]
Requires=basic.target
After=basic.target network-pre.target
Wants=network-pre.target
AllowIsolate=yes
";
/// Nothing of this host's own, and nothing that would be written to a disk.
const JOURNAL: &str = "[Journal]\nStorage=volatile\n";
/// Lays what is added over this host's files, and boots.
const BOOT: &str = r#"set -eu
added=$1; bpf=$2; network=$3
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
cp -a "$added/." /mnt/upper
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
exec systemd-nspawn --quiet --directory=/mnt/root --machine=keyfence-test --register=no --keep-unit --boot \
    --link-journal=no --console=pipe --capability=all --system-call-filter='bpf perf_event_open' \
    --bind="$bpf:/sys/fs/bpf" --network-namespace-path="$network" systemd.unit=trial.target
"#;

/// Files to be added to a machine before it boots.
#[derive(Debug)]
pub struct Files(TempDir);

/// A booted machine; switched off when this goes.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    log: PathBuf,
    /// Its first process, as this host numbers it.
    leader: u32,
    _files: TempDir,
}

impl Files {
    pub fn new() -> Self {
        require_root();
        let files = Self(tempfile::tempdir().expect("a temporary folder can be made"));
        files.write("etc/systemd/system/trial.target", TARGET);
        files.write("etc/systemd/journald.conf.d/trial.conf", JOURNAL);
        // Not what this host boots into, nor what it does by the clock.
        for unit in ["timers.target", "systemd-journal-flush.service"] {
            let path = files.path(&format!("etc/systemd/system/{unit}"));
            std::os::unix::fs::symlink("/dev/null", path).expect("a temporary folder can be written");
        }
        files
    }

    /// Where a file of the machine is until it boots; its folders are made.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let folder = path.parent().expect("files are in folders");
        fs::create_dir_all(folder).expect("a temporary folder can hold others");
        path
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a temporary folder can be written");
    }

    /// A copy of one of this host's, for everybody to read; a program for everybody to run.
    pub fn copy(&self, from: &Path, name: &str) {
        let path = self.path(name);
        fs::copy(from, &path).unwrap_or_else(|error| panic!("{} cannot be copied: {error}", from.display()));
        let mode = fs::metadata(from).expect("it was copied").permissions().mode();
        let open = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).expect("it is ours");
    }

    /// All that an installation brings, with the program under test.
    pub fn install(&self) {
        run(Command::new(packaging("stage"))
            .arg(keyfence_path())
            .arg(self.0.path()));
    }

    /// A Debian package of the program under test, as this file.
    pub fn package(&self, version: &str, name: &str) {
        self.packed(("deb", "0"), &keyfence_path(), version, |_| name.to_owned());
    }

    /// A tarball of the static program, in this folder, named as it is released.
    pub fn tarball(&self, version: &str, folder: &str) {
        let name = |made: &Path| {
            let name = made.file_name().expect("a file has a name");
            format!("{folder}/{}", name.display())
        };
        self.packed(("tar", "1"), &static_path(), version, name);
    }

    /// By the same scripts as a release, compressed as little as can be.
    fn packed(
        &self,
        (kind, level): (&str, &str),
        program: &Path,
        version: &str,
        name: impl FnOnce(&Path) -> String,
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let tree = folder.path().join("tree");
        run(Command::new(packaging("stage")).arg(program).arg(&tree));
        let mut build = Command::new(packaging("build"));
        build
            .env("KEYFENCE_PACK_LEVEL", level)
            .arg(kind)
            .arg(&tree)
            .arg(version)
            .arg(folder.path());
        let made = run(&mut build);
        let made = Path::new(made.trim_end());
        self.copy(made, &name(made));
    }

    /// Boots a machine with these units wanted, in a network namespace, before a BPF file system.
    pub fn boot(self, units: &[&str], network: &Namespace, bpf: &Path) -> Machine {
        for unit in units {
            let wants = self.path(&format!("etc/systemd/system/trial.target.wants/{unit}"));
            std::os::unix::fs::symlink(format!("/lib/systemd/system/{unit}"), wants).expect("it is new");
        }
        // As systemd mounts it.
        fs::set_permissions(bpf, fs::Permissions::from_mode(0o700)).expect("it is ours");
        // Others must get past it: the machine's root has its mode.
        fs::set_permissions(self.0.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        system("systemd-nspawn"); // Says which package it is of where it is missing.
        let log = self.0.path().with_extension("log");
        let file = File::create(&log).expect("a temporary folder can be written");
        let errors = file.try_clone().expect("a file can be held twice");
        // One process that takes all others with it, however this test ends.
        let mut command = system("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
        ]);
        command.args(["--mount-proc", "sh", "-c", BOOT, "sh"]);
        command.arg(self.0.path()).arg(bpf).arg(network.path());
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let mut machine = Machine {
            child,
            log,
            leader: 0,
            _files: self.0,
        };
        machine.leader = until("systemd is started", || machine.find_leader());
        until("the machine has booted", || {
            let state = machine.run(&["systemctl", "is-active", "trial.target"]);
            state.status.success().then_some(())
        });
        machine
    }
}

fn packaging(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config/package")
        .join(script)
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// The one that runs systemd, of the processes below ours.
    fn find_leader(&mut self) -> Option<u32> {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("systemd-nspawn ended ({status})");
        }
        let status = |id: u32| fs::read_to_string(format!("/proc/{id}/status")).ok();
        let field = |id: u32, name: &str| -> Option<String> {
            let status = status(id)?;
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(value.trim().to_owned())
        };
        let parent = |id: u32| field(id, "PPid:")?.parse::<u32>().ok();
        let ids = fs::read_dir("/proc").ok()?.flatten();
        let mut ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.find(|id| {
            let ours = std::iter::successors(Some(*id), |id| parent(*id)).any(|id| id == self.child.id());
            ours && field(*id, "Name:").as_deref() == Some("systemd")
        })
    }

    /// Where this host finds a path of the machine.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    /// A command in the machine, as its root.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = system("nsenter");
        command.arg(format!("--target={}", self.leader));
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// How a command in the machine ended.
    pub fn run(&self, words: &[&str]) -> Output {
        output(&mut self.command(words))
    }

    /// What a command in the machine printed, which must succeed.
    pub fn ask(&self, words: &[&str]) -> String {
        let ended = self.run(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let (said, complaint) = (text(&ended.stdout), text(&ended.stderr));
        assert!(
            ended.status.success(),
            "{words:?}: {}: {said}{complaint}",
            ended.status
        );
        said
    }

    /// What dpkg said, which must succeed.
    pub fn dpkg(&self, words: &[&str]) -> String {
        // This host may forbid packages to start services; the machine is one that does not.
        self.ask(&["rm", "--force", "/usr/sbin/policy-rc.d"]);
        self.ask(&[&["env", "DEBIAN_FRONTEND=noninteractive", "dpkg"], words].concat())
    }

    /// One property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.ask(&["systemctl", "show", "--value", "--property", property, unit])
    }

    /// A field of a process' status in /proc.
    pub fn status_of(&self, process: &str, field: &str) -> String {
        let status = self.ask(&["cat", &format!("/proc/{process}/status")]);
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap_or_else(|| panic!("no {field} in {status}"))
            .trim()
            .to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- systemd-nspawn:\n{}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
            if self.leader != 0 {
                let journal = output(&mut self.command(&["journalctl", "--no-pager", "--lines=120"]));
                eprintln!(
                    "--- the journal:\n{}---",
                    String::from_utf8_lossy(&journal.stdout)
                );
            }
        }
        // All of the machine's processes go with this one.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}
