//! What changes cost: a whole policy compiled, loaded and put in force; one binding more or less; memory a source.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use aya::maps::{Map, ProgramArray};
use filter_common::abi::names;
use filter_user::bindings::seam::{Change, Grantee, Terms};
use filter_user::compiler::{Pushed, binding_name};
use filter_user::engine::{Earlier, Filter, Finding, Options};
use filter_user::kernel::load::KernelLog;
use filter_user::policy::Policy as Checked;
use ipnet::IpNet;
use keyfence_tests::harness::{Attach, Daemon, INSIDE, Policy, Site};
use keyfence_tests::subject;

use crate::Effort;
use crate::figures::{Bulk, DaemonMemory, Single, Spread, Wider};
use crate::population::Population;
use crate::progress::Progress;
use crate::scenario::{self, Feature, Loaded, Owners, Records};
use crate::selection::Kind;

/// Bindings put and removed one at a time.
const CHANGES: usize = 2000;
const PUBLISHER: &str = "api";

/// Compile, load and swap, and the kernel's memory, both for a client's sources and for bindings of one source each.
pub(crate) fn bulk(size: usize, effort: Effort, progress: &Progress) -> Result<Vec<Bulk>> {
    let population = Population::new(Kind::HostsV4, size);
    let mut figures = Vec::new();
    for owners in [Owners::Client, Owners::Binding] {
        let what = format!("updates at {}, {}", crate::short(size), owners.name());
        let policy = scenario::policy(Feature::Whole, &population.sources, owners)?;
        let none = scenario::compiled(&scenario::policy(
            Feature::Whole,
            &population.sources[..1],
            owners,
        )?)?;
        let before = bytes(&Loaded::ours(&none, Records::On)?)?;
        let mut in_force = Loaded::ours(&none, Records::On)?;
        let (mut compile, mut load, mut swap, mut whole) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        let mut kernel = 0;
        for round in 0..effort.rounds {
            progress.step(&format!("{what}: round {} of {}", round + 1, effort.rounds));
            let started = Instant::now();
            let compiled = scenario::compiled(&policy)?;
            compile.push(milliseconds(started));
            let loading = Instant::now();
            let mut loaded = Loaded::ours(&compiled, Records::On)?;
            load.push(milliseconds(loading));
            let swapping = Instant::now();
            put_in_force(&mut in_force, &mut loaded)?;
            swap.push(milliseconds(swapping));
            whole.push(milliseconds(started));
            kernel = bytes(&loaded)?;
        }
        figures.push(Bulk {
            sources: size,
            owners,
            compile_ms: Spread::of(compile),
            load_ms: Spread::of(load),
            swap_ms: Spread::of(swap),
            whole_ms: Spread::of(whole),
            kernel_bytes_a_source: kernel.saturating_sub(before) as f64 / size as f64,
        });
    }
    Ok(figures)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// As the daemon does it: one store, in the slot that the entry program jumps through.
fn put_in_force(of: &mut Loaded, next: &mut Loaded) -> Result<()> {
    let judge = next.generation.program(names::JUDGE)?.fd()?.try_clone()?;
    let map = of.generation.ebpf.map_mut(names::GENERATION);
    let mut slot: ProgramArray<_> = map.context("no map GENERATION")?.try_into()?;
    Ok(slot.set(0, &judge, 0)?)
}

/// What the kernel says its maps take.
fn bytes(loaded: &Loaded) -> Result<u64> {
    let mut sum = 0;
    for (name, map) in loaded.generation.ebpf.maps() {
        let (Map::Array(data) | Map::PerCpuArray(data) | Map::ProgramArray(data)) = map else {
            continue;
        };
        let file = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes = line.and_then(|line| line.trim().parse::<u64>().ok());
        sum += bytes.with_context(|| format!("the kernel does not say what {name} takes"))?;
    }
    Ok(sum)
}

/// Single bindings put and removed in the engine's tables in force, beside as many bindings as said.
pub(crate) fn single(size: usize, progress: &Progress) -> Result<Single> {
    progress.step(&format!("single updates beside {} bindings", crate::short(size)));
    let site = Site::raw();
    site.server.inside(|| -> Result<Single> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(change_each(&site, size))
    })
}

async fn change_each(site: &Site, size: usize) -> Result<Single> {
    let population = Population::new(Kind::HostsV4, size + CHANGES);
    let policy = Arc::new(publishing()?);
    let terms = Arc::new(Terms {
        publisher: PUBLISHER.into(),
        services: [scenario::SERVICE.into()].into(),
        source_ports: Box::default(),
        limit: policy.publishers[0].limit_default,
    });
    let grantee = |(number, net): (usize, &IpNet)| Grantee {
        credential: format!("key-{number}").into(),
        sources: [*net].into(),
        terms: Arc::clone(&terms),
        end: u64::MAX,
    };
    // Every so many-th is left out, to be put later: as random as the others.
    let apart = population.sources.len() / CHANGES;
    let all = population.sources.iter().enumerate().map(grantee);
    let (late, early): (Vec<_>, Vec<_>) = all.enumerate().partition(|(at, _)| at % apart == 0);
    let early = early.into_iter().map(|(_, grantee)| grantee);
    let late: Vec<Grantee> = late
        .into_iter()
        .map(|(_, grantee)| grantee)
        .take(CHANGES)
        .collect();
    let options = Options {
        await_interfaces: false,
        downgrade: false,
        policy_file: site.policy_file(),
        bpf_fs: site.bpf.path().to_owned(),
        owners_at_least: 0,
        kernel_log: KernelLog::Off,
    };
    let mut filter = Filter::start(
        Finding::of(&options, &policy).await?,
        &policy,
        (Pushed::of(early, []), None, Earlier::Known),
    )
    .await?;
    let [put_us, remove_us] = turns(&mut filter, late.iter().map(turn))?;
    Ok(Single {
        bindings: size,
        changes: CHANGES,
        put_us,
        remove_us,
        wider: wider(&mut filter, &late)?,
    })
}

fn turn(grantee: &Grantee) -> [Change; 2] {
    let owner = binding_name(grantee);
    [Change::Put(grantee.clone()), Change::Remove { owner }]
}

/// Prefixes bound and denied where these bindings would be.
fn wider(filter: &mut Filter, places: &[Grantee]) -> Result<Vec<Wider>> {
    let bind = |length| {
        let bound = move |grantee: &Grantee| {
            let sources = [around(&grantee.sources[0], length)?].into();
            Ok(turn(&Grantee {
                sources,
                ..grantee.clone()
            }))
        };
        places.iter().map(bound).collect::<Result<Vec<_>>>()
    };
    let deny = |grantee: &Grantee| {
        let name = grantee.credential.to_string();
        let deny = Change::Deny {
            name: name.clone(),
            sources: vec![around(&grantee.sources[0], 24)?],
            end: u64::MAX,
        };
        Ok([deny, Change::Undeny { name }])
    };
    let kinds = [
        ("a binding of a /24", bind(24)?),
        ("a binding of a /64", bind(64)?),
        (
            "a deny of a /24",
            places.iter().map(deny).collect::<Result<Vec<_>>>()?,
        ),
    ];
    let measured = kinds.into_iter().map(|(what, changes)| {
        let [put_us, remove_us] = turns(filter, changes.into_iter())?;
        Ok(Wider {
            what: what.to_owned(),
            put_us,
            remove_us,
        })
    });
    measured.collect()
}

/// Something put and removed, again and again: how long each took.
fn turns(filter: &mut Filter, changes: impl Iterator<Item = [Change; 2]>) -> Result<[Percentiles; 2]> {
    let mut spent = [Vec::new(), Vec::new()];
    for turn in changes {
        for (change, spent) in turn.into_iter().zip(&mut spent) {
            let started = Instant::now();
            filter
                .change(vec![change].into())
                .map_err(|error| anyhow!("{error:?}"))?;
            spent.push(started.elapsed());
        }
    }
    Ok(spent.map(Percentiles::of))
}

/// A prefix with an IPv4 address in it, or as random an IPv6 prefix.
fn around(net: &IpNet, length: u8) -> Result<IpNet> {
    let address = match net.addr() {
        IpAddr::V4(address) if length > 32 => {
            let bits = u128::from(address.to_bits());
            IpAddr::from((0x2001_0db8 << 96 | bits << 64).to_be_bytes())
        }
        address => address,
    };
    Ok(IpNet::new(address, length)?.trunc())
}

/// The benchmark's policy with somebody who pushes.
fn publishing() -> Result<Checked> {
    let text = format!(
        "version = 1\n[filter]\ninterfaces = [\"{INSIDE}\"]\nattach = \"native\"\nmanagement-none = true\n\
         [[service]]\nname = \"{service}\"\naddress = [\"203.0.113.10\"]\nprotocol = \"tcp\"\nports = [443]\n\
         [[publisher]]\nname = \"{PUBLISHER}\"\nuser = \"root\"\nservices = [\"{service}\"]\n\
         bindings-max = 10000000\nwidest-prefix = {{ ipv4 = 24, ipv6 = 64 }}\nlimit-default = {{ packets = {{ rate = 1000, burst = 1000 }} }}\n",
        service = scenario::SERVICE
    );
    subject::parse(&text).map_err(|faults| anyhow!("the benchmark's own policy has faults:\n{faults}"))
}

pub(crate) use crate::figures::Percentiles;

impl Percentiles {
    pub(crate) fn of(mut spent: Vec<Duration>) -> Self {
        spent.sort_unstable();
        let at = |percent: usize| {
            let at = (spent.len() * percent / 100).min(spent.len().saturating_sub(1));
            spent.get(at).map_or(f64::NAN, |spent| spent.as_secs_f64() * 1e6)
        };
        Self {
            half: at(50),
            of_99: at(99),
            most: at(100),
        }
    }
}

/// The daemon's own memory with a client of so many sources, from a file of addresses, and how long it takes to read
/// and apply that file again.
pub(crate) fn daemon(size: usize, progress: &Progress) -> Result<DaemonMemory> {
    progress.step(&format!("the daemon with {} sources", crate::short(size)));
    let population = Population::new(Kind::HostsV4, size);
    let site = Site::raw();
    let policy = Policy::new(
        Attach::Native,
        &format!(
            "[[service]]\nname = \"{service}\"\nprotocol = \"tcp\"\nports = [443]\n\
             [[client]]\nname = \"c\"\nsources-file = \"sources\"\nservices = [\"{service}\"]\n\
             limit = {{ packets = {{ rate = 1000, burst = 1000 }} }}\n",
            service = scenario::SERVICE
        ),
    );
    let policy = policy.filter("management-none = true");
    let sources = |nets: &[IpNet]| -> Result<()> {
        let lines: Vec<String> = nets.iter().map(|net| net.addr().to_string()).collect();
        Ok(fs::write(site.folder().join("sources"), lines.join("\n"))?)
    };
    sources(&population.sources[..1])?;
    let daemon = Daemon::start(&site, &policy);
    let before = Memory::of(daemon.id())?;
    drop(daemon);
    sources(&population.sources)?;
    let daemon = Daemon::start_again(&site);
    let started = Memory::of(daemon.id())?;
    let reloading = Instant::now();
    daemon.reload();
    let reload_ms = milliseconds(reloading);
    let reloaded = Memory::of(daemon.id())?;
    let a_source = |memory: &Memory| memory.own.saturating_sub(before.own) as f64 / size as f64;
    Ok(DaemonMemory {
        sources: size,
        empty_bytes: before.own,
        bytes_a_source: a_source(&started),
        bytes_a_source_after_reload: a_source(&reloaded),
        peak_bytes: reloaded.peak,
        reload_ms,
    })
}

/// Of a process: what is its own, without the kernel's tables that it has mapped, and the most it had in all.
pub(crate) struct Memory {
    pub(crate) own: u64,
    peak: u64,
    /// All that is resident now.
    resident: u64,
}

impl Memory {
    /// The most that was its own, if the rest was as it is now.
    pub(crate) fn own_peak(&self) -> u64 {
        self.peak.saturating_sub(self.resident - self.own)
    }

    pub(crate) fn of(process: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/status"))?;
        let kilobytes = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            Ok(number.with_context(|| format!("/proc has no {name}"))? * 1024)
        };
        Ok(Self {
            own: kilobytes("RssAnon:")?,
            peak: kilobytes("VmHWM:")?,
            resident: kilobytes("VmRSS:")?,
        })
    }
}
