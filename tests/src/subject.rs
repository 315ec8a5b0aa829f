//! The program under test: one policy, judged by its reference on the host and by the kernel program itself.
//!
//! Needs root for the kernel: `Subject::new` fails with the reason, it never goes on without.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use filter_common::abi::{RunContext, names, run_flags};
use filter_common::parse::Packet;
use filter_common::pipeline;
use filter_common::units::Nanos;
use filter_common::verdict::Judgement;
use filter_user::compiler::host::HostTables;
use filter_user::compiler::{Compiled, Numbers, Pushed, Surroundings, compile, owner_hash, owner_name};
use filter_user::kernel::load::{Generation, KernelLog, Setting};
use filter_user::kernel::records::Accounting;
use filter_user::kernel::run::Runner;
use filter_user::kernel::state::State;
use filter_user::policy::{self, Colour, LoadContext, MemoryFiles, Policy};
use ipnet::IpNet;

/// Where the filter's clock stands when the test's clock stands at its start: an hour after boot.
const BASE_NS: u64 = 3_600_000_000_000;

/// One answer, in the words of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: &'static str,
    pub reason: &'static str,
    pub service: Option<String>,
    pub owner: Option<String>,
}

/// One policy in both judges, buckets full.
pub struct Subject {
    host: HostTables,
    kernel: Option<Generation>,
    runner: Runner,
    start_ns: u64,
    services: HashMap<u32, String>,
    owners: HashMap<u32, String>,
}

impl Subject {
    /// `start_ns` is the wall clock, from 1970, at which the frames begin.
    pub fn new(text: &str, host_addresses: &[IpAddr], start_ns: u64) -> Result<Self, String> {
        Self::load(text, host_addresses, start_ns, false)
    }

    /// The same with the drop accounting on, as the daemon has it.
    pub fn recording(text: &str, host_addresses: &[IpAddr], start_ns: u64) -> Result<Self, String> {
        Self::load(text, host_addresses, start_ns, true)
    }

    fn load(text: &str, host_addresses: &[IpAddr], start_ns: u64, records: bool) -> Result<Self, String> {
        let mut subject = Self::on_host(text, host_addresses, start_ns)?;
        let setting = Setting {
            interfaces: &[],
            pins: None,
            owners_max: 1,
            log: KernelLog::Off,
            records,
        };
        let generation = Generation::load(subject.host.compiled(), setting);
        subject.kernel = Some(generation.map_err(|error| error.to_string())?);
        Ok(subject)
    }

    /// Without the kernel: no root needed.
    pub fn on_host(text: &str, host_addresses: &[IpAddr], start_ns: u64) -> Result<Self, String> {
        let policy = parse(text)?;
        let (numbers, _) = Numbers::default().assign((&policy, &Pushed::default()), None, u32::MAX);
        let end = |expires: jiff::Timestamp| {
            let left = expires.as_nanosecond() - i128::from(start_ns);
            u64::try_from(i128::from(BASE_NS) + left).unwrap_or(0)
        };
        let host_addresses: Vec<IpNet> = host_addresses.iter().copied().map(IpNet::from).collect();
        let around = Surroundings {
            host_addresses: &host_addresses,
            end: &end,
            pushed: &Pushed::default(),
            grows: None,
        };
        let compiled = compile(&policy, &numbers, &around).map_err(|error| error.to_string())?;
        let owners = policy.clients.iter().map(|client| owner_name(&client.name));
        let by_hash: HashMap<_, _> = numbers.owners().collect();
        let owners = owners.filter_map(|name| Some((*by_hash.get(&owner_hash(&name))?, name)));
        Ok(Self {
            services: numbers
                .services()
                .map(|(name, number)| (number, name.to_string()))
                .collect(),
            owners: owners.collect(),
            host: HostTables::new(compiled),
            kernel: None,
            runner: Runner::default(),
            start_ns,
        })
    }

    /// The reference's answer.
    pub fn host(&self, frame: &[u8], now_ns: u64) -> Answer {
        self.host.now.set(Nanos(self.clock(now_ns)));
        let mut packet = Packet::default();
        self.answer(&pipeline::judge(frame, &self.host, &mut packet))
    }

    /// The kernel program's answer.
    pub fn kernel(&mut self, frame: &[u8], now_ns: u64) -> Result<Answer, String> {
        let now = self.clock(now_ns);
        let generation = self.kernel.as_mut().ok_or("loaded without the kernel")?;
        let judge = generation
            .program(names::JUDGE)
            .map_err(|error| error.to_string())?;
        let context = RunContext {
            now,
            flags: run_flags::NO_SOCKETS,
            ..RunContext::default()
        };
        let judgement = self
            .runner
            .judge(judge, frame, context)
            .map_err(|error| error.to_string())?;
        Ok(self.answer(&judgement))
    }

    /// What the kernel program has counted: the verdicts' counters and the drop accounting.
    pub fn counted(&self) -> Result<(State, Accounting), String> {
        let generation = self.kernel.as_ref().ok_or("loaded without the kernel")?;
        let state = State::of(generation).map_err(|error| error.to_string())?;
        let accounting = Accounting::of(generation).map_err(|error| error.to_string())?;
        Ok((state, accounting))
    }

    /// How many instructions the verifier looked at.
    pub fn verified_instructions(&self) -> u32 {
        self.kernel
            .as_ref()
            .map_or(0, |generation| generation.verified_instructions)
    }

    pub fn compiled(&self) -> &Compiled {
        self.host.compiled()
    }

    /// By number.
    pub fn services(&self) -> &HashMap<u32, String> {
        &self.services
    }

    /// By number.
    pub fn owners(&self) -> &HashMap<u32, String> {
        &self.owners
    }

    /// The filter's clock at a moment of the wall clock.
    pub fn clock(&self, now_ns: u64) -> u64 {
        BASE_NS + (now_ns - self.start_ns)
    }

    fn answer(&self, judgement: &Judgement) -> Answer {
        Answer {
            verdict: judgement.verdict.name(),
            reason: judgement.reason.name(),
            service: self.services.get(&judgement.service).cloned(),
            owner: self.owners.get(&judgement.owner).cloned(),
        }
    }
}

/// A policy that stands alone; its faults as text.
pub fn parse(text: &str) -> Result<Policy, String> {
    let root = PathBuf::from("policy.toml");
    let files = MemoryFiles::new([(root.clone(), text.as_bytes().to_vec())]);
    let loaded = policy::load_from(&files, &root, &LoadContext::at(jiff::Timestamp::UNIX_EPOCH));
    match &loaded.policy {
        Some(policy) => Ok(policy.clone()),
        None => Err(policy::render(&loaded, Colour::Never)),
    }
}

/// The tests' own folder.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
