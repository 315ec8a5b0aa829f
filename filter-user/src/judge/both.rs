//! The reference on the host and, where this process may load one, the kernel program: asked the same, without taking
//! a token or counting.

use filter_common::abi::{RunContext, run_flags};
use filter_common::limit::Effect;
use filter_common::parse::{self, Frame, Packet};
use filter_common::pipeline;
use filter_common::units::Nanos;
use filter_common::verdict::Judgement;
use ipnet::IpNet;
use thiserror::Error;

use super::copy::KernelCopy;
use super::reading::{Reader, Reading};
use super::{BASE_NS, Bench, Names, names_host};
use crate::compiler::host::HostTables;
use crate::compiler::{CompileError, Pushed};
use crate::kernel::addresses;
use crate::kernel::clock::monotonic_end;
use crate::kernel::load::LoadError;
use crate::kernel::run::{FRAME_MIN, RunError};
use crate::policy::Policy;

#[derive(Debug, Error)]
pub enum JudgeError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("the host's addresses cannot be read: {0}")]
    HostAddresses(std::io::Error),
}

/// A policy in both judges, buckets full.
pub struct Both<'a> {
    policy: &'a Policy,
    pushed: Pushed,
    pub names: Names,
    host_addresses: Vec<IpNet>,
    host: HostTables,
    kernel: Result<KernelCopy, String>,
}

/// What both say of one frame.
pub struct Answers {
    pub reference: Judgement,
    /// `Err` is why it was not asked.
    pub kernel: Result<Judgement, String>,
}

impl Answers {
    /// Whether none contradicts the other.
    pub fn agree(&self) -> bool {
        self.kernel.as_ref().is_ok_and(|kernel| *kernel == self.reference) || self.kernel.is_err()
    }
}

impl<'a> Both<'a> {
    /// `now` is the wall clock, which ends are told by; `"host"` means this host.
    pub fn new(policy: &'a Policy, now: jiff::Timestamp) -> Result<Self, JudgeError> {
        let host_addresses = if names_host(policy) {
            addresses::read_blocking().map_err(JudgeError::HostAddresses)?
        } else {
            Vec::new()
        };
        let end = |end| monotonic_end(end, now.as_nanosecond() - i128::from(BASE_NS));
        let pushed = Pushed::default();
        let bench = Bench::new(policy, &host_addresses, &end, &pushed)?;
        let kernel = match KernelCopy::load(&bench.compiled) {
            Ok(copy) => Ok(copy),
            Err(error @ LoadError::NotPermitted(_)) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let host = HostTables::new(bench.compiled);
        host.now.set(Nanos(BASE_NS));
        host.effect.set(Effect::Dry);
        Ok(Self {
            policy,
            pushed,
            names: bench.names,
            host_addresses,
            host,
            kernel,
        })
    }

    /// Why the kernel program is not asked, if it is not.
    pub fn kernel_missing(&self) -> Option<&str> {
        self.kernel.as_ref().err().map(String::as_str)
    }

    pub fn ask(&mut self, frame: &[u8]) -> Result<Answers, JudgeError> {
        let mut packet = Packet::default();
        let reference = pipeline::judge(frame, &self.host, &mut packet);
        let kernel = match &mut self.kernel {
            Err(why) => Err(why.clone()),
            Ok(_) if frame.len() < FRAME_MIN => {
                Err(format!("its test run takes no frame under {FRAME_MIN} bytes"))
            }
            Ok(copy) => match copy.judge(frame, context()) {
                Ok(judgement) => Ok(judgement),
                Err(RunError::TooLong) => Err(RunError::TooLong.to_string()),
                Err(error) => return Err(error.into()),
            },
        };
        Ok(Answers { reference, kernel })
    }

    /// The rules read aloud for a frame, and what was read of it.
    pub fn read(&self, frame: &[u8]) -> (Reading, Frame, Packet) {
        let mut packet = Packet::default();
        let kind = parse::parse(frame, &mut packet);
        let reader = Reader {
            policy: self.policy,
            pushed: &self.pushed,
            names: &self.names,
            host: &self.host,
            host_addresses: &self.host_addresses,
        };
        (reader.read(kind, &packet), kind, packet)
    }
}

/// As the reference has it: its clock, no token, no socket.
fn context() -> RunContext {
    RunContext {
        now: BASE_NS,
        flags: run_flags::DRY | run_flags::NO_SOCKETS,
        ..RunContext::default()
    }
}
