//! Runs the kernels under qemu, all at once, and keeps what they print. Software emulation, on purpose: the same
//! everywhere, and never a way into the host's own kernel.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Programs, image, kernels::Kernel};
use crate::{progress, setup::emulator};

/// A kernel takes about 100 s beside the other on a core of 2020; the bound is for machines that share theirs.
const PATIENCE: Duration = Duration::from_secs(420);
const MEMORY: &str = "512M";
const TAIL_LINES_MAX: usize = 40;
/// `panic=-1`: a kernel that panics ends at once, by qemu's `-no-reboot`.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1";

/// One kernel, what it boots, and what it printed.
pub(super) struct Machine {
    pub(super) kernel: Kernel,
    pub(super) folder: PathBuf,
    started: Instant,
    ended: Option<Ended>,
}

struct Ended {
    after: Duration,
    fault: Option<String>,
}

impl Machine {
    /// Makes its folder anew, with all that it boots.
    pub(super) fn new(folder: &Path, kernel: Kernel, programs: &Programs, vectors: &Path) -> Result<Self> {
        let folder = folder.join(kernel.series);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(folder.join("image"), image::build(&kernel, programs, vectors)?)?;
        Ok(Self {
            kernel,
            folder,
            started: Instant::now(),
            ended: None,
        })
    }

    fn start(&mut self) -> Result<Child> {
        let mut qemu = emulator::command().context("qemu is missing")?;
        let own = File::create(self.folder.join("qemu.log"))?;
        let serial = |name: &str| format!("file:{}", self.folder.join(name).display());
        self.started = Instant::now();
        qemu.args([
            "-accel", "tcg", "-cpu", "max", "-m", MEMORY, "-display", "none", "-net", "none",
        ])
        .args([
            "-no-reboot",
            "-serial",
            &serial("console"),
            "-serial",
            &serial("answers"),
        ])
        .args(["-append", KERNEL_ARGUMENTS, "-kernel"])
        .arg(self.kernel.image())
        .arg("-initrd")
        .arg(self.folder.join("image"))
        .stdin(Stdio::null())
        .stdout(own.try_clone()?)
        .stderr(own)
        .spawn()
        .context("cannot start qemu")
    }

    /// Whether it still runs; past its time it is ended.
    fn goes_on(&mut self, child: &mut Child) -> Result<bool> {
        if self.ended.is_some() {
            return Ok(false);
        }
        let after = self.started.elapsed();
        let fault = match child.try_wait().context("cannot wait for qemu")? {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("qemu: {status}: {}", self.tail("qemu.log"))),
            None if after < PATIENCE => return Ok(true),
            None => {
                child.kill().context("cannot end qemu")?;
                child.wait().context("cannot wait for qemu")?;
                Some(format!("it did not end in {} s", PATIENCE.as_secs()))
            }
        };
        self.ended = Some(Ended { after, fault });
        Ok(false)
    }

    /// What it is at.
    fn at(&self) -> String {
        let text = self.answers().unwrap_or_default();
        let last = text.lines().rev().find_map(|line| line.strip_prefix("@@ "));
        format!("{}: {}", self.kernel.series, last.unwrap_or("booting"))
    }

    pub(super) fn answers(&self) -> Result<String> {
        let path = self.folder.join("answers");
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.ended
            .iter()
            .filter_map(|ended| ended.fault.clone())
            .collect()
    }

    pub(super) fn seconds(&self) -> f64 {
        self.ended.as_ref().map_or(0.0, |ended| ended.after.as_secs_f64())
    }

    pub(super) fn console_tail(&self) -> String {
        self.tail("console")
    }

    fn tail(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..];
        tail.iter()
            .map(|line| format!("  | {}\n", line.trim_end()))
            .collect()
    }
}

/// Runs all to their ends.
pub(super) fn run(machines: &mut [Machine]) -> Result<()> {
    let releases: Vec<&str> = machines
        .iter()
        .map(|machine| machine.kernel.release.as_str())
        .collect();
    let heading = format!("Booting Linux {}", releases.join(" and "));
    let mut children = Vec::new();
    for machine in machines.iter_mut() {
        children.push(machine.start()?);
    }
    progress::watch(&heading, || {
        let mut at = Vec::new();
        for (machine, child) in machines.iter_mut().zip(&mut children) {
            if machine.goes_on(child)? {
                at.push(machine.at());
            }
        }
        Ok((!at.is_empty()).then(|| at.join("; ")))
    })
}
