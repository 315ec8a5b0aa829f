//! A packet's cost in the kernel's test run: ours, ours with the kernel's trie, and the floors, side by side.

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use filter_common::abi::names;
use filter_common::account;
use filter_common::verdict::{Reason, Verdict};
use filter_user::kernel::state::State;

use crate::Effort;
use crate::drive::{self, Driver};
use crate::figures::{Exhausted, Featured, Judged, Spread, Traffic, Variant};
use crate::population::{Population, Wire};
use crate::progress::Progress;
use crate::scenario::{self, Feature, Loaded, Owners};
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

/// One of those that are run in turn.
struct Candidate<'a> {
    /// `None`: the program that does nothing, without the driver.
    program: Option<ProgramFd>,
    /// Whose counter must grow by each packet.
    expected: Option<(&'a State, Expected)>,
}

impl<'a> Candidate<'a> {
    fn floor(program: Option<ProgramFd>) -> Self {
        Self {
            program,
            expected: None,
        }
    }

    fn judge(program: &ProgramFd, state: &'a State, traffic: Traffic) -> Result<Self> {
        Ok(Self {
            program: Some(program.try_clone()?),
            expected: Some((state, expected(traffic))),
        })
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
        Traffic::Stranger => Expected {
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
    let mut ours = Loaded::ours(&compiled)?;
    progress.step(&format!("{what}: filling the kernel's trie"));
    let mut trie = Loaded::reference(&objects.reference, &compiled)?;
    drop(compiled);
    let parse = trie.generation.program("parse_only")?;
    parse.load()?;
    let parse = parse.fd()?.try_clone()?;
    let (keyfence, reference) = (judge(&mut ours)?, judge(&mut trie)?);
    let mut judged = Vec::new();
    for traffic in Traffic::BOTH {
        progress.step(&format!("{what}: {}s", traffic.name()));
        let mut driver = Driver::new(&objects.bench, &addresses(population, traffic), kind.is_v6())?;
        let candidates = [
            (Variant::Bare, Candidate::floor(None)),
            (Variant::Empty, Candidate::floor(Some(driver.empty()?))),
            (Variant::Parse, Candidate::floor(Some(parse.try_clone()?))),
            (
                Variant::Keyfence,
                Candidate::judge(&keyfence, &ours.state, traffic)?,
            ),
            (Variant::Trie, Candidate::judge(&reference, &trie.state, traffic)?),
        ];
        let spreads = interleaved(&mut driver, &candidates, effort)?;
        for (ns, (variant, _)) in spreads.into_iter().zip(&candidates) {
            judged.push(Judged {
                sources,
                kind,
                owners,
                traffic,
                variant: *variant,
                ns,
            });
        }
    }
    Ok(judged)
}

fn addresses(population: &Population, traffic: Traffic) -> Vec<Wire> {
    match traffic {
        Traffic::Hit => population.hits(),
        Traffic::Stranger => population.strangers(),
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
        let mut loaded = Vec::new();
        for feature in Feature::ALL {
            let policy = scenario::policy(feature, &population.sources, Owners::Client)?;
            loaded.push(Loaded::with(feature, &scenario::compiled(&policy)?)?);
        }
        let programs: Vec<ProgramFd> = loaded.iter_mut().map(judge).collect::<Result<_>>()?;
        for traffic in Traffic::BOTH {
            progress.step(&format!("{what}: {}s", traffic.name()));
            let mut driver = Driver::new(&objects.bench, &addresses(&population, traffic), false)?;
            let mut candidates = Vec::new();
            for (loaded, program) in loaded.iter().zip(&programs) {
                candidates.push(((), Candidate::judge(program, &loaded.state, traffic)?));
            }
            let spreads = interleaved(&mut driver, &candidates, effort)?;
            featured.extend(
                Feature::ALL
                    .into_iter()
                    .zip(spreads)
                    .map(|(feature, ns)| Featured {
                        sources: *size,
                        feature,
                        traffic,
                        ns,
                    }),
            );
        }
    }
    Ok(featured)
}

/// One source, several owners: what each further grant costs whose limit is exhausted.
pub(crate) fn exhausted(objects: &Objects, effort: Effort, progress: &Progress) -> Result<Vec<Exhausted>> {
    drive::stay_on_one_cpu()?;
    progress.step("exhausted grants");
    let population = Population::new(Kind::HostsV4, EXHAUSTED_SOURCES);
    let mut loaded = Vec::new();
    for owners in OWNERS {
        let policy = scenario::exhausted(owners, &population.sources)?;
        loaded.push(Loaded::ours(&scenario::compiled(&policy)?)?);
    }
    let programs: Vec<ProgramFd> = loaded.iter_mut().map(judge).collect::<Result<_>>()?;
    let mut driver = Driver::new(&objects.bench, &population.hits(), false)?;
    let mut candidates = Vec::new();
    for (loaded, program) in loaded.iter().zip(&programs) {
        candidates.push(((), Candidate::judge(program, &loaded.state, Traffic::Hit)?));
    }
    let spreads = interleaved(&mut driver, &candidates, effort)?;
    Ok(OWNERS
        .into_iter()
        .zip(spreads)
        .map(|(owners, ns)| Exhausted { owners, ns })
        .collect())
}

fn judge(loaded: &mut Loaded) -> Result<ProgramFd> {
    Ok(loaded.generation.program(names::JUDGE)?.fd()?.try_clone()?)
}

/// Each in turn, round after round, so that what the machine does meanwhile meets them all; the first round warms up.
fn interleaved<T>(
    driver: &mut Driver,
    candidates: &[(T, Candidate<'_>)],
    effort: Effort,
) -> Result<Vec<Spread>> {
    let mut values = vec![Vec::new(); candidates.len()];
    for round in 0..=effort.rounds {
        for ((_, candidate), values) in candidates.iter().zip(&mut values) {
            let ns = one(driver, candidate, effort.packets)?;
            if round > 0 {
                values.push(ns);
            }
        }
    }
    Ok(values.into_iter().map(Spread::of).collect())
}

fn one(driver: &mut Driver, candidate: &Candidate<'_>, packets: u32) -> Result<f64> {
    let counted = |candidate: &Candidate<'_>| -> Result<u64> {
        let Some((state, expected)) = candidate.expected else {
            return Ok(0);
        };
        let index = account::index(expected.verdict, expected.reason, SERVICE_NUMBER);
        Ok(state.count(index)?.packets)
    };
    let Some(program) = &candidate.program else {
        return driver.run_bare(packets);
    };
    driver.target(program)?;
    let before = counted(candidate)?;
    let ns = driver.run(packets)?;
    let judged = counted(candidate)? - before;
    if let Some((_, expected)) = candidate.expected {
        ensure!(
            judged == u64::from(packets),
            "of {packets} packets {judged} were judged {} {}: the program under test is wrong, or its counters are",
            expected.verdict.name(),
            expected.reason.name()
        );
    }
    Ok(ns)
}
