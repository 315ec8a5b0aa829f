//! What is in force of all that could decide one packet, beside the kernel program's own verdict: for `explain`.
//!
//! A dry run of the program in force: it takes no token and counts nothing. The buckets are read before and after it,
//! until nothing has flowed between.

use std::sync::Arc;

use filter_common::abi::{ICMP_ANSWERS, ICMP_REQUESTS, RunContext, names, run_flags};
use filter_common::parse::{self, Frame, Packet};
use filter_common::source_limit;

use super::Engine;
use super::compile::narrowed;
use super::error::FilterError;
use super::filter::{Filter, read};
use crate::bindings::seam::GrantError;
use crate::compiler::Pushed;
use crate::judge::Names;
use crate::judge::in_force::{By, InForce, Levels, Question, source_of};
use crate::kernel::clock;
use crate::kernel::load::LoadError;
use crate::kernel::run::{FRAME_MIN, RunError, Runner};
use crate::policy::Policy;

/// Busy buckets may move at each try; then the last one is told.
const TRIES_MAX: u32 = 16;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// Ask again, by the policy now in force.
    #[error(transparent)]
    Policy(GrantError),
    #[error("{0}")]
    Failed(String),
}

impl Engine {
    pub(super) fn explain(&mut self, question: &Question) -> Result<InForce, ExplainError> {
        if question.epoch != self.shared.policy_in_force().0 {
            return Err(ExplainError::Policy(GrantError::PolicyChanged));
        }
        if self.filter.kept {
            return Err(ExplainError::Failed(FilterError::Kept.to_string()));
        }
        if question.by != By::EntryOfAll {
            return self.filter.in_force(&self.policy, question);
        }
        let mut question = question.clone();
        question
            .owners
            .extend(self.filter.pushed_holders(&question.frame));
        question.owners.sort_unstable();
        question.owners.dedup();
        self.filter.in_force(&self.policy, &question)
    }
}

impl Filter {
    /// What decides the question's frame, by the policy in force.
    fn in_force(&mut self, policy: &Arc<Policy>, question: &Question) -> Result<InForce, ExplainError> {
        let failed = |error: LoadError| ExplainError::Failed(error.to_string());
        let host_addresses = self.host.clone();
        let policy = match self.narrowed() {
            Some(_) => Arc::new(narrowed(policy, &host_addresses)),
            None => Arc::clone(policy),
        };
        let mut levels = self.levels(&policy, question).map_err(failed)?;
        let mut tries = 0;
        let (now, kernel) = loop {
            let now = clock::monotonic().0;
            let kernel = self.run(question, now).map_err(failed)?;
            let after = self.levels(&policy, question).map_err(failed)?;
            tries += 1;
            if after == levels || tries == TRIES_MAX {
                break (now, kernel);
            }
            levels = after;
        };
        let numbers = read(&self.numbers);
        let services = policy.services.iter().map(|service| &service.name);
        let services = services.filter_map(|name| Some((numbers.service(name)?, name.clone())));
        let owners = question.owners.iter();
        let owners = owners.filter_map(|name| Some((numbers.owner(name)?, name.clone())));
        Ok(InForce {
            pushed: self.pushed_for(question),
            host_addresses,
            generation: self.generation(),
            now,
            wall_offset: clock::wall_offset(),
            levels,
            names: Names::known(services, owners),
            kernel,
            policy: Arc::clone(&policy),
        })
    }

    fn run(
        &mut self,
        Question { frame, by, .. }: &Question,
        now: u64,
    ) -> Result<Result<filter_common::verdict::Judgement, String>, LoadError> {
        if frame.len() < FRAME_MIN {
            return Ok(Err(format!(
                "its test run takes no frame under {FRAME_MIN} bytes"
            )));
        }
        let context = RunContext {
            now,
            flags: run_flags::DRY | run_flags::NO_SOCKETS,
            ..RunContext::default()
        };
        let program = match by {
            By::Judge => self.tables.generation.program(names::JUDGE)?,
            // The entry counts what it has no judge for.
            _ if self.misled() => return Ok(Err("packets go to no judge of this daemon".to_owned())),
            By::Entry | By::EntryOfAll => self.entry.program(),
        };
        match Runner::default().judge(program, frame, context) {
            Ok(judgement) => Ok(Ok(judgement)),
            Err(error @ (RunError::TooLong | RunError::Refused(_) | RunError::NoAnswer)) => {
                Ok(Err(error.to_string()))
            }
        }
    }

    /// Whose bindings hold a frame's source: looks at all of them.
    fn pushed_holders(&self, frame: &[u8]) -> Vec<String> {
        let Some(source) = source_of(frame) else {
            return Vec::new();
        };
        let grantees = self.tables.grantees.iter();
        let holding = grantees.filter(|grantee| {
            let mut sources = grantee.sources.iter();
            sources.any(|prefix| prefix.contains(&source))
        });
        let mut owners: Vec<String> = holding.map(|grantee| grantee.credential.to_string()).collect();
        owners.sort_unstable();
        owners
    }

    /// Of those asked about what is pushed, and the denies that hold the source.
    fn pushed_for(&self, question: &Question) -> Pushed {
        let source = source_of(&question.frame);
        let numbers = read(&self.numbers);
        let grantees = question
            .owners
            .iter()
            .filter_map(|owner| self.tables.grantees.get(numbers.owner(owner), owner));
        let holds = |sources: &[ipnet::IpNet]| {
            source.is_some_and(|source| sources.iter().any(|prefix| prefix.contains(&source)))
        };
        let denies = self
            .tables
            .denies
            .iter()
            .filter(|(_, (sources, _))| holds(sources));
        Pushed::of(
            grantees.cloned(),
            denies.map(|(name, (sources, end))| (name.clone(), sources.clone(), *end)),
        )
    }

    fn levels(&mut self, policy: &Policy, question: &Question) -> Result<Levels, LoadError> {
        let numbers = read(&self.numbers);
        let owners = question.owners.iter().filter_map(|name| {
            let used = self.state.owner(numbers.owner(name)?)?;
            Some((name.clone(), used.buckets))
        });
        let shared =
            |name: &String, number: Option<u32>| Some((name.clone(), self.state.shared_words(number?)?));
        let services = policy.services.iter();
        let services = services.filter_map(|service| shared(&service.name, numbers.service(&service.name)));
        let publishers = policy.publishers.iter();
        let publishers = publishers.filter_map(|entry| shared(&entry.name, numbers.publisher(&entry.name)));
        let icmp =
            [ICMP_ANSWERS, ICMP_REQUESTS].map(|number| self.state.shared_words(number).unwrap_or_default());
        let levels = Levels {
            owners: owners.collect(),
            services: services.collect(),
            publishers: publishers.collect(),
            icmp,
            source: Vec::new(),
            observed: self.observed(),
        };
        drop(numbers);
        let mut packet = Packet::default();
        let lines = self.tables.generation.source_lines();
        if lines == 0 || parse::parse(question.frame.as_slice(), &mut packet) != Frame::Ip {
            return Ok(levels);
        }
        let source = (0..3).map(|unit| {
            let (line, _) = source_limit::line(source_limit::tag(&packet), unit, lines);
            self.tables.generation.source_line(line)
        });
        Ok(Levels {
            source: source.collect::<Result<_, _>>()?,
            ..levels
        })
    }
}
