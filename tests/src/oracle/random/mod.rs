//! Policies and frames from a seed: the same seed gives the same, on every machine.
//!
//! Addresses and ports come from a small world, so that frames meet the policy. Judges nothing.

mod frame;
mod mutate;
mod policy;

pub use frame::frame;
pub use policy::policy;

use super::policy::Policy;
use super::vectors::START_NS;

const SECOND: u64 = 1_000_000_000;

/// Which limits a random policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budgets {
    None,
    /// Every token takes a whole number of nanoseconds, and frames come at whole seconds after the first:
    /// whoever counts in nanoseconds, or in ticks that divide a second, agrees to the packet.
    Whole,
    /// Any rate, and any time: only who counts exactly agrees.
    Any,
}

/// A small generator (Vigna, splitmix64): enough for tests, and its state is one number to print.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number under `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound.max(1) as u64) as usize
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn byte(&mut self) -> u8 {
        self.word() as u8
    }

    pub fn port(&mut self) -> u16 {
        self.word() as u16
    }

    /// One of a list that is not empty.
    pub fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

/// A policy and frames to judge by it, each at its time (nanoseconds since 1970, never going back).
#[derive(Clone, Debug)]
pub struct Run {
    pub seed: u64,
    pub policy: Policy,
    pub frames: Vec<(u64, Vec<u8>)>,
}

/// A whole run from one seed.
pub fn run(seed: u64, frames: usize, budgets: Budgets) -> Run {
    let policy = policy(seed, budgets);
    let mut rng = Rng::new(seed ^ 0x6b65_7966_656e_6365);
    // Half a second away from every end, which comes at a whole one: a clock of ticks agrees.
    let mut now_ns = START_NS + SECOND / 2;
    let mut all: Vec<(u64, Vec<u8>)> = Vec::with_capacity(frames);
    for _ in 0..frames {
        if rng.chance(3) {
            now_ns += match budgets {
                Budgets::Any => rng.word() % (2 * SECOND),
                Budgets::None | Budgets::Whole => (1 + rng.word() % 2) * SECOND,
            };
        }
        // Now and then the same frame again, so that small bursts run out.
        let bytes = match all.last() {
            Some((_, last)) if rng.chance(15) => last.clone(),
            _ => frame(&mut rng, &policy),
        };
        all.push((now_ns, bytes));
    }
    Run {
        seed,
        policy,
        frames: all,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::oracle::judge::{Answer, Judge};

    const REFUSALS: [&str; 13] = [
        "malformed",
        "denied",
        "unlisted",
        "source-port",
        "ended",
        "limit-grant",
        "limit-service",
        "limit-source",
        "limit-icmp",
        "fragment",
        "icmp",
        "other",
        "non-ip",
    ];
    const PASSES: [&str; 7] = [
        "allowed",
        "management",
        "essential",
        "other",
        "non-ip",
        "icmp",
        "fragment",
    ];

    #[test]
    fn the_same_seed_gives_the_same_run_and_another_gives_another() {
        let (one, same, other) = (
            run(7, 50, Budgets::Any),
            run(7, 50, Budgets::Any),
            run(8, 50, Budgets::Any),
        );
        assert_eq!(one.policy, same.policy);
        assert_eq!(one.frames, same.frames);
        assert_ne!(one.frames, other.frames);
    }

    #[test]
    fn frames_are_long_enough_for_the_kernels_test_run() {
        assert!(
            run(1, 20_000, Budgets::None)
                .frames
                .iter()
                .all(|(_, frame)| frame.len() >= 14)
        );
    }

    #[test]
    fn every_reason_that_can_be_reached_is_reached_and_nothing_panics() {
        let mut counts: BTreeMap<(Answer, &str), u64> = BTreeMap::new();
        let (mut frames, mut asked) = (0, std::time::Duration::ZERO);
        for seed in 0..500 {
            let budgets = [Budgets::None, Budgets::Whole, Budgets::Any][seed as usize % 3];
            let run = run(seed, 400, budgets);
            let mut judge = Judge::new(&run.policy);
            let start = std::time::Instant::now();
            for (now_ns, frame) in &run.frames {
                let verdict = judge.judge(frame, *now_ns);
                *counts.entry((verdict.verdict, verdict.reason)).or_default() += 1;
                frames += 1;
            }
            asked += start.elapsed();
        }
        for ((answer, reason), count) in &counts {
            println!("{:8} {reason:14} {count}", answer.as_str());
        }
        println!(
            "{frames} frames judged in {asked:?}: {:.0} a second",
            frames as f64 / asked.as_secs_f64()
        );
        let passes = PASSES.iter().map(|reason| (Answer::Pass, *reason));
        let refusals = [Answer::Drop, Answer::Observe].into_iter();
        let refusals = refusals.flat_map(|answer| REFUSALS.iter().map(move |reason| (answer, *reason)));
        let expected: BTreeSet<_> = passes.chain(refusals).collect();
        assert_eq!(counts.keys().copied().collect::<BTreeSet<_>>(), expected);
    }
}
