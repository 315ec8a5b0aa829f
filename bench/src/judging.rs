//! A packet's cost in the kernel's test run: ours, ours with the kernel's trie, and the floors, side by side.

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramFd;
use filter_common::abi::names;
use filter_common::account;
use filter_common::verdict::{Reason, Verdict};

use crate::Effort;
use crate::drive::{self, Driver};
use crate::figures::{Exhausted, Featured, Judged, Spread, Traffic, Variant};
use crate::population::{Population, Wire};
use crate::progress::Progress;
use crate::scenario::{self, Feature, Loaded, Owners, Records};
use crate::selection::Kind;

/// The only service has the first number.
const SERVICE_NUMBER: u32 = 0;
/// More than this take memory for policies of one client each that few machines have.
const BINDINGS_MAX: usize = 1_000_000;
/// The owners on one source that are tried in turn.
const OWNERS: [usize; 4] = [1, 2, 4, 8];
const EXHAUSTED_SOURCES: usize = 1000;

/// The kernel's side of the benchmark.
pub(crate) struct Objects {
    /// Driver, sender and programs that do nothing.
    pub(crate) bench: Vec<u8>,
    /// The filter with the kernel's tries, and the parser alone.
    pub(crate) reference: Vec<u8>,
}

/// One of those that are run in turn, behind the driver of its traffic.
struct Candidate<'a> {
    traffic: Traffic,
    what: Candidacy<'a>,
}

#[derive(Clone, Copy)]
enum Candidacy<'a> {
    /// The program that does nothing, without the driver.
    Bare,
    /// One that judges nothing.
    Floor(&'a ProgramFd),
    /// Whose counter must grow by each packet.
    Judge(&'a Judge),
}

/// A generation with its program.
struct Judge {
    loaded: Loaded,
    program: ProgramFd,
}

impl Judge {
    fn of(mut loaded: Loaded) -> Result<Self> {
        let program = loaded.generation.program(names::JUDGE)?.fd()?.try_clone()?;
        Ok(Self { loaded, program })
    }
}

/// A driver for each kind of traffic.
struct Drivers(Vec<(Traffic, Driver)>);

impl Drivers {
    fn new(objects: &Objects, population: &Population, traffic: &[Traffic]) -> Result<Self> {
        let driver = |traffic: &Traffic| {
            let addresses = addresses(population, *traffic);
            let driver = Driver::new(&objects.bench, &addresses, population.kind.is_v6())?;
            Ok((*traffic, driver))
        };
        Ok(Self(traffic.iter().map(driver).collect::<Result<_>>()?))
    }

    fn of(&mut self, wanted: Traffic) -> Result<&mut Driver> {
        let found = self.0.iter_mut().find(|(traffic, _)| *traffic == wanted);
        Ok(&mut found.context("no driver for this traffic")?.1)
    }
}

#[derive(Clone, Copy)]
struct Expected {
    verdict: Verdict,
    reason: Reason,
}

fn expected(traffic: Traffic) -> Expected {
    match traffic {
        Traffic::Hit => Expected {
            verdict: Verdict::Pass,
            reason: Reason::Allowed,
        },
        Traffic::Stranger | Traffic::FewStrangers => Expected {
            verdict: Verdict::Drop,
            reason: Reason::Unlisted,
        },
    }
}

/// Hits and strangers, over every size and kind.
pub(crate) fn run(
    objects: &Objects,
    kinds: &[Kind],
    sizes: &[usize],
    effort: Effort,
    progress: &Progress,
) -> Result<Vec<Judged>> {
    drive::stay_on_one_cpu()?;
    let mut judged = Vec::new();
    for kind in kinds {
        for size in sizes {
            progress.step(&format!(
                "{} {}: making the population",
                crate::short(*size),
                kind.name()
            ));
            let population = Population::new(*kind, *size);
            for owners in [Owners::Client, Owners::Binding] {
                let wanted = owners == Owners::Client || (*kind == Kind::HostsV4 && *size <= BINDINGS_MAX);
                if wanted {
                    judged.extend(cells(objects, &population, owners, effort, progress)?);
                }
            }
        }
    }
    Ok(judged)
}

fn cells(
    objects: &Objects,
    population: &Population,
    owners: Owners,
    effort: Effort,
    progress: &Progress,
) -> Result<Vec<Judged>> {
    let (kind, sources) = (population.kind, population.sources.len());
    let what = format!("{} {}, {}", crate::short(sources), kind.name(), owners.name());
    progress.step(&format!("{what}: compiling and loading"));
    let compiled = {
        let policy = scenario::policy(Feature::Whole, &population.sources, owners)?;
        scenario::compiled(&policy)?
    };
    let judge = |records| Judge::of(Loaded::ours(&compiled, records)?);
    let (ours, recorded) = (judge(Records::Off)?, judge(Records::On)?);
    progress.step(&format!("{what}: filling the kernel's tries"));
    let judge = |records| Judge::of(Loaded::reference(&objects.reference, &compiled, records)?);
    let (mut trie, trie_recorded) = (judge(Records::Off)?, judge(Records::On)?);
    drop(compiled);
    let parse = trie.loaded.generation.program("parse_only")?;
    parse.load()?;
    let parse = parse.fd()?.try_clone()?;
    let mut drivers = Drivers::new(objects, population, &Traffic::ALL)?;
    let empty = drivers.of(Traffic::Hit)?.empty()?;
    let variants = [
        (Variant::Bare, Candidacy::Bare),
        (Variant::Empty, Candidacy::Floor(&empty)),
        (Variant::Parse, Candidacy::Floor(&parse)),
        (Variant::Keyfence, Candidacy::Judge(&ours)),
        (Variant::Recorded, Candidacy::Judge(&recorded)),
        (Variant::Trie, Candidacy::Judge(&trie)),
        (Variant::TrieRecorded, Candidacy::Judge(&trie_recorded)),
    ];
    let mut candidates = Vec::new();
    for traffic in Traffic::ALL {
        // Of few strangers only what their records cost is asked.
        let wanted = |variant| match traffic {
            Traffic::Hit | Traffic::Stranger => true,
            Traffic::FewStrangers => matches!(variant, Variant::Keyfence | Variant::Recorded),
        };
        for (variant, what) in variants.into_iter().filter(|(variant, _)| wanted(*variant)) {
            candidates.push((variant, Candidate { traffic, what }));
        }
    }
    let spreads = interleaved(&mut drivers, &candidates, effort, |round| {
        progress.step(&format!("{what}: round {round} of {}", effort.rounds));
    })?;
    let judged = spreads.into_iter().zip(&candidates);
    let judged = judged.map(|(ns, (variant, candidate))| Judged {
        sources,
        kind,
        owners,
        traffic: candidate.traffic,
        variant: *variant,
        ns,
    });
    Ok(judged.collect())
}

fn addresses(population: &Population, traffic: Traffic) -> Vec<Wire> {
    match traffic {
        Traffic::Hit => population.hits(),
        Traffic::Stranger => population.strangers(),
        Traffic::FewStrangers => population.few_strangers(),
    }
}

/// The filter with one feature more or less.
pub(crate) fn features(
    objects: &Objects,
    sizes: &[usize],
    effort: Effort,
    progress: &Progress,
) -> Result<Vec<Featured>> {
    drive::stay_on_one_cpu()?;
    let mut featured = Vec::new();
    for size in sizes {
        let what = format!("features at {}", crate::short(*size));
        progress.step(&format!("{what}: compiling and loading"));
        let population = Population::new(Kind::HostsV4, *size);
        let mut judges = Vec::new();
        for feature in Feature::ALL {
            let policy = scenario::policy(feature, &population.sources, Owners::Client)?;
            let loaded = Loaded::ours(&scenario::compiled(&policy)?, feature.records())?;
            judges.push((feature, Judge::of(loaded)?));
        }
        let mut drivers = Drivers::new(objects, &population, &Traffic::ALL)?;
        let mut candidates = Vec::new();
        for traffic in Traffic::ALL {
            for (feature, judge) in &judges {
                let what = Candidacy::Judge(judge);
                candidates.push((*feature, Candidate { traffic, what }));
            }
        }
        let spreads = interleaved(&mut drivers, &candidates, effort, |round| {
            progress.step(&format!("{what}: round {round} of {}", effort.rounds));
        })?;
        let cells = spreads.into_iter().zip(&candidates);
        featured.extend(cells.map(|(ns, (feature, candidate))| Featured {
            sources: *size,
            feature: *feature,
            traffic: candidate.traffic,
            ns,
        }));
    }
    Ok(featured)
}

/// One source, several owners: what each further grant costs whose limit is exhausted.
pub(crate) fn exhausted(objects: &Objects, effort: Effort, progress: &Progress) -> Result<Vec<Exhausted>> {
    drive::stay_on_one_cpu()?;
    progress.step("exhausted grants");
    let population = Population::new(Kind::HostsV4, EXHAUSTED_SOURCES);
    let mut judges = Vec::new();
    for owners in OWNERS {
        let policy = scenario::exhausted(owners, &population.sources)?;
        let loaded = Loaded::ours(&scenario::compiled(&policy)?, Records::Off)?;
        judges.push((owners, Judge::of(loaded)?));
    }
    let mut drivers = Drivers::new(objects, &population, &[Traffic::Hit])?;
    let candidate = |judge| Candidate {
        traffic: Traffic::Hit,
        what: Candidacy::Judge(judge),
    };
    let candidates: Vec<_> = judges
        .iter()
        .map(|(owners, judge)| (*owners, candidate(judge)))
        .collect();
    let spreads = interleaved(&mut drivers, &candidates, effort, |_| ())?;
    let spreads = spreads.into_iter().zip(OWNERS);
    Ok(spreads.map(|(ns, owners)| Exhausted { owners, ns }).collect())
}

/// Each in turn, round after round, so that what the machine does meanwhile meets them all; the first round warms up.
fn interleaved<T>(
    drivers: &mut Drivers,
    candidates: &[(T, Candidate<'_>)],
    effort: Effort,
    say: impl Fn(usize),
) -> Result<Vec<Spread>> {
    let mut values = vec![Vec::new(); candidates.len()];
    for round in 0..=effort.rounds {
        say(round);
        for ((_, candidate), values) in candidates.iter().zip(&mut values) {
            let driver = drivers.of(candidate.traffic)?;
            let ns = one(driver, candidate, effort.packets)?;
            if round > 0 {
                values.push(ns);
            }
        }
    }
    Ok(values.into_iter().map(Spread::of).collect())
}

fn one(driver: &mut Driver, candidate: &Candidate<'_>, packets: u32) -> Result<f64> {
    let judge = match candidate.what {
        Candidacy::Bare => return driver.run_bare(packets),
        Candidacy::Floor(program) => {
            driver.target(program)?;
            return driver.run(packets);
        }
        Candidacy::Judge(judge) => judge,
    };
    let Expected { verdict, reason } = expected(candidate.traffic);
    let index = account::index(verdict, reason, SERVICE_NUMBER);
    let counted = || -> Result<u64> { Ok(judge.loaded.state.count(index)?.packets) };
    judge.loaded.record_in_half_of(candidate.traffic)?;
    driver.target(&judge.program)?;
    let before = counted()?;
    let ns = driver.run(packets)?;
    let judged = counted()? - before;
    ensure!(
        judged == u64::from(packets),
        "of {packets} packets {judged} were judged {} {}: the program under test is wrong, or its counters are",
        verdict.name(),
        reason.name()
    );
    Ok(ns)
}
