//! A storm: policies, bindings, kills, restarts, upgrades between two builds and back, links that come and go, a full
//! disk and a clock that jumps, in any order, while a listed client and a stranger send all the time.
//!
//! Two minutes; `KEYFENCE_STORM=long` has a quarter of an hour. `KEYFENCE_STORM_SEED` repeats an order.

mod actions;
mod links;
mod policies;
mod upgrades;

use std::time::{Duration, Instant};

use keyfence_tests::harness::{Site, StopOnDrop, Traffic};

use actions::{Storm, Take};

const SHORT: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(900);

fn lasts() -> Duration {
    match std::env::var("KEYFENCE_STORM").as_deref() {
        Ok("long") => LONG,
        _ => SHORT,
    }
}

fn seed() -> u64 {
    let given = std::env::var("KEYFENCE_STORM_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("KEYFENCE_STORM_SEED is a number"));
    given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 7)
}

#[test]
fn nothing_that_happens_around_the_filter_lets_a_stranger_in_or_shuts_a_client_out() {
    let seed = seed();
    println!("KEYFENCE_STORM_SEED={seed}");
    let site = Site::new();
    let mut storm = Storm::begin(&site, seed);
    let traffic = Traffic::open(&site);
    let until = Instant::now() + lasts();
    let mut taken = [0u32; Take::ALL.len()];
    std::thread::scope(|scope| {
        let senders = scope.spawn(|| traffic.run(&site));
        let stop = StopOnDrop(&traffic.over);
        let calm = storm.held();
        // Each at least once, then in any order.
        for take in Take::ALL {
            storm.take(take, &traffic);
            taken[take as usize] += 1;
        }
        while Instant::now() < until {
            let take = storm.any();
            storm.take(take, &traffic);
            taken[take as usize] += 1;
        }
        storm.settle();
        let after = storm.held();
        drop(stop);
        let sent = senders
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let taken: Vec<String> = Take::ALL
            .iter()
            .zip(taken)
            .map(|(take, times)| format!("{take:?} {times}"))
            .collect();
        println!(
            "{}; {} packets of the client, {} of the stranger; {} of a stranger passed between link-up and attach of \
             {} interfaces; held before {calm:?}, after {after:?}",
            taken.join(", "),
            sent.listed,
            sent.strangers,
            storm.passed_in_gaps,
            storm.interfaces_made,
        );
        traffic.assert_none_misjudged(&site, &sent);
        storm.assert_nothing_acknowledged_is_lost();
        assert!(after.is_no_more_than(&calm), "before {calm:?}, after {after:?}");
    });
}
