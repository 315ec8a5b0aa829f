//! The daemon's own figures, under the names that Prometheus' clients give them.

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo as _};
use prometheus::proto::Metric;

use super::definitions::{Definition, Id};
use super::floating;

/// As the kernel tells them at one moment.
pub(super) struct Figures {
    cpu_seconds: f64,
    open_descriptors: u64,
    /// `None` is no limit.
    descriptors_max: Option<u64>,
    virtual_bytes: u64,
    resident_bytes: u64,
    start_seconds: f64,
    threads: u64,
}

impl Figures {
    pub(super) fn read() -> Result<Self, String> {
        Self::of_self().map_err(|error| format!("the daemon's own figures cannot be read: {error}"))
    }

    fn of_self() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            open_descriptors: process.fd_count()? as u64,
            descriptors_max: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(max) => Some(max),
                LimitValue::Unlimited => None,
            },
            virtual_bytes: stat.vsize,
            resident_bytes: stat.rss_bytes().get(),
            start_seconds: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
        })
    }

    /// `None` where it is no metric of the process.
    pub(super) fn values(&self, of: &Definition) -> Option<Vec<Metric>> {
        let value = match of.id {
            Id::ProcessCpu => self.cpu_seconds,
            Id::ProcessDescriptors => self.open_descriptors as f64,
            Id::ProcessDescriptorsMax => self.descriptors_max.map_or(f64::INFINITY, |max| max as f64),
            Id::ProcessVirtual => self.virtual_bytes as f64,
            Id::ProcessResident => self.resident_bytes as f64,
            Id::ProcessStart => self.start_seconds,
            Id::ProcessThreads => self.threads as f64,
            _ => return None,
        };
        Some(vec![floating(of, &[], value)])
    }
}
