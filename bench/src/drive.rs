//! Drives a program by the kernel's test run: another source address in the frame at each run, and the thread's own CPU
//! time for the measure, since the kernel's figure is whole nanoseconds and knows no interruptions.

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Map, ProgramArray};
use aya::programs::{ProgramFd, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun};
use filter_user::kernel;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::frame;
use crate::population::Wire;

/// Keeps this thread on one CPU, whose own counters and positions it uses.
pub(crate) fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(last_cpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}

/// The one it stays on.
pub(crate) fn last_cpu() -> Result<usize> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let last = online.trim().rsplit([',', '-']).next();
    last.unwrap_or_default().parse().context("no CPU is online")
}

/// CPU time of the calling thread, in nanoseconds.
pub(crate) fn cpu_time() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok((time.tv_sec() * 1_000_000_000 + time.tv_nsec()).cast_unsigned())
}

/// The driver, with one list of addresses.
pub(crate) struct Driver {
    ebpf: Ebpf,
    program: &'static str,
    frame: Vec<u8>,
}

impl Driver {
    pub(crate) fn new(object: &[u8], addresses: &[Wire], is_v6: bool) -> Result<Self> {
        let program = if is_v6 { "drive_v6" } else { "drive_v4" };
        let mut ebpf = load(object, addresses, 0)?;
        for name in [program, "empty"] {
            xdp(&mut ebpf, name)?.load()?;
        }
        let frame = frame::tcp(is_v6);
        Ok(Self { ebpf, program, frame })
    }

    /// The program that does nothing.
    pub(crate) fn empty(&mut self) -> Result<ProgramFd> {
        Ok(xdp(&mut self.ebpf, "empty")?.fd()?.try_clone()?)
    }

    pub(crate) fn target(&mut self, program: &ProgramFd) -> Result<()> {
        let map = self.ebpf.map_mut("TARGET").context("no map TARGET")?;
        let mut slot: ProgramArray<_> = map.try_into()?;
        Ok(slot.set(0, program, 0)?)
    }

    /// Runs the target so many times, and answers the CPU time a packet.
    pub(crate) fn run(&mut self, packets: u32) -> Result<f64> {
        self.run_named(self.program, packets)
    }

    /// The program that does nothing, without the driver.
    pub(crate) fn run_bare(&mut self, packets: u32) -> Result<f64> {
        self.run_named("empty", packets)
    }

    fn run_named(&mut self, name: &str, packets: u32) -> Result<f64> {
        let mut out = vec![0; self.frame.len()];
        let program = xdp(&mut self.ebpf, name)?;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            data_out: Some(&mut out),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let before = cpu_time()?;
        let result = program.test_run(options)?;
        let spent = cpu_time()? - before;
        ensure!(result.return_value != 0, "the driver gave up: XDP_ABORTED");
        Ok(spent as f64 / f64::from(packets))
    }
}

/// The benchmark's kernel programs with these addresses; `checksum` is that of the frame's IPv4 header without source.
pub(crate) fn load(object: &[u8], addresses: &[Wire], checksum: u32) -> Result<Ebpf> {
    ensure!(
        addresses.len().is_power_of_two(),
        "the driver takes a power of two of addresses"
    );
    let mask = addresses.len() as u32 - 1;
    let ebpf = EbpfLoader::new()
        .override_global("MASK", &mask, true)
        .override_global("CHECKSUM_BASE", &checksum, true)
        .map_max_entries("ADDRESSES", addresses.len() as u32)
        .load(object)?;
    match ebpf.map("ADDRESSES") {
        Some(Map::Array(map)) => kernel::fill(map, addresses)?,
        _ => bail!("the benchmark's kernel program has no array ADDRESSES"),
    }
    Ok(ebpf)
}

pub(crate) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}
