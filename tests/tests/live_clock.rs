//! By what the kernel program tells the time: its jiffies against the monotonic clock that leases end by.

use filter_common::abi::names;
use filter_user::compiler::Compiled;
use filter_user::kernel::clock;
use filter_user::kernel::load::{Generation, KernelLog, Setting};
use filter_user::kernel::run::Runner;
use filter_user::kernel::tick::Jiffy;

fn judge() -> Generation {
    let empty = Compiled {
        row_words: 1,
        ..Compiled::default()
    };
    let setting = Setting {
        interfaces: &[],
        pins: None,
        owners_max: 1,
        log: KernelLog::Off,
        records: false,
    };
    Generation::load(&empty, setting).unwrap_or_else(|error| panic!("{error} (this test needs root)"))
}

fn monotonic() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    (time.tv_sec() * 1_000_000_000 + time.tv_nsec()).cast_unsigned()
}

/// Of the program, with the coarse clock before and after.
fn read(generation: &mut Generation) -> (u64, u64, u64) {
    let before = clock::monotonic().0;
    let now = Runner::default()
        .clock(generation.program(names::JUDGE).expect("a judge"))
        .expect("the judge answers")
        .now;
    (before, now, clock::monotonic().0)
}

#[test]
fn jiffies_tell_the_monotonic_time_to_two_ticks() {
    let mut generation = judge();
    let jiffy = generation
        .wind(0)
        .unwrap()
        .expect("a kernel with high-resolution timers");
    let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
    let mut seen = 0;
    let mut last = 0;
    while std::time::Instant::now() < until {
        let (before, now, _) = read(&mut generation);
        // The coarse clock may be as late as jiffies are: nothing is ahead of the monotonic one itself.
        let after = monotonic();
        assert!(now >= last, "{now} after {last}");
        assert!(
            now + 2 * jiffy.nanos >= before && now <= after + jiffy.nanos / 4,
            "{before} {now} {after}: a tick is {}",
            jiffy.nanos
        );
        last = now;
        seen += 1;
    }
    assert!(seen > 100, "{seen} readings");
    assert_eq!(generation.wind(jiffy.zero).unwrap(), Some(jiffy), "measured once");
}

#[test]
fn a_clock_that_is_lost_is_found_out_and_measured_anew() {
    let mut generation = judge();
    let jiffy = generation
        .wind(0)
        .unwrap()
        .expect("a kernel with high-resolution timers");
    assert!(!generation.rewind(jiffy).unwrap());
    let wrong = Jiffy {
        zero: jiffy.zero.wrapping_add(1_000_000_000),
        ..jiffy
    };
    assert!(generation.rewind(wrong).unwrap(), "a second off");
    for _ in 0..100 {
        let (before, now, after) = read(&mut generation);
        assert!((before..=after).contains(&now), "the coarse clock itself");
    }
    let again = generation.wind(wrong.zero).unwrap().unwrap();
    let apart = again.zero.abs_diff(jiffy.zero);
    assert!(
        apart < jiffy.nanos / 4,
        "{apart} ns apart from what was measured before"
    );
}
