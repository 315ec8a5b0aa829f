//! A copy of the kernel program with tables of its own: loaded and asked by test runs, known to no interface.

use filter_common::abi::{Owner, RunContext, names};
use filter_common::verdict::Judgement;

use crate::compiler::Compiled;
use crate::kernel::load::{Generation, KernelLog, LoadError, Setting};
use crate::kernel::run::{RunError, Runner};
use crate::kernel::state::State;

/// Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; goes when it is dropped.
pub struct KernelCopy {
    generation: Generation,
    state: State,
    runner: Runner,
}

impl KernelCopy {
    pub fn load(compiled: &Compiled) -> Result<Self, LoadError> {
        let setting = Setting {
            interfaces: &[],
            pins: None,
            owners_max: 1,
            log: KernelLog::Off,
            records: false,
        };
        let mut generation = Generation::load(compiled, setting)?;
        // A missing judge is a fault of the build, and told here rather than at the first frame.
        generation.program(names::JUDGE)?;
        Ok(Self {
            state: State::of(&generation)?,
            generation,
            runner: Runner::default(),
        })
    }

    pub fn judge(&mut self, frame: &[u8], context: RunContext) -> Result<Judgement, RunError> {
        let program = self.generation.program(names::JUDGE);
        let program = program.map_err(|error| RunError::Refused(error.to_string()))?;
        self.runner.judge(program, frame, context)
    }

    /// Fills every bucket.
    pub fn refill(&self) -> Result<(), LoadError> {
        self.state.refill();
        self.generation.refill_sources()
    }

    /// Puts owners with other ends in place of those of the same numbers.
    pub fn write_owners(&self, owners: &[(u32, Owner)]) -> Result<(), LoadError> {
        self.generation.write_owners(owners)
    }
}
