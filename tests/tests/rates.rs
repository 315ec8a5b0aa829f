//! Limits to the packet: what the kernel program admits of more than it is asked to, at every level, from one CPU and
//! from two. Time is the test runs' own, so that minutes take milliseconds and every bound is exact; one test goes by
//! the kernel's clock. `KEYFENCE_RATES=long` takes as long as a careful measurement does, which is
//! longer than the suite lets a test run: `KEYFENCE_RATES=long cargo test -p keyfence-tests --test rates`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use filter_common::abi::{RunContext, names, run_flags};
use filter_common::verdict::Verdict;
use filter_user::bindings::seam::{Grantee, Terms};
use filter_user::compiler::{Numbers, Pushed, Surroundings, compile};
use filter_user::judge::frame::{Flow, build};
use filter_user::kernel::load::{Generation, KernelLog, Setting};
use filter_user::kernel::run::{Runner, Xdp};
use filter_user::policy::model::{ExpectProtocol, Limits};
use keyfence_tests::subject;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

const SECOND: u64 = 1_000_000_000;
/// An hour after boot.
const START: u64 = 3600 * SECOND;
/// Offered for each that may pass.
const OVER: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Source,
    Grant,
    Publisher,
    Service,
    Icmp,
}

const LEVELS: [Level; 5] = [
    Level::Source,
    Level::Grant,
    Level::Publisher,
    Level::Service,
    Level::Icmp,
];

/// A policy with this limit at one level and none elsewhere, in the kernel.
fn limited(level: Level, rate: u64, burst: u64) -> Generation {
    let at = |wanted, table: &str| {
        if level == wanted {
            format!("{table} = {{ packets = {{ rate = {rate}, burst = {burst} }} }}\n")
        } else {
            String::new()
        }
    };
    let text = format!(
        "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nmanagement-none = true\nping = \"pass\"\n{source}{icmp}\
         [[service]]\nname = \"api\"\nprotocol = \"udp\"\nports = [443]\n{service}\
         [[client]]\nname = \"c\"\nsources = [\"198.51.100.7\"]\nservices = [\"api\"]\n{grant}\
         [[publisher]]\nname = \"gateway\"\nuser = \"root\"\nservices = [\"api\"]\n\
         environments = [\"production\"]\n{publisher}",
        source = at(Level::Source, "source-limit"),
        icmp = at(Level::Icmp, "icmp-limit"),
        service = at(Level::Service, "limit"),
        grant = at(Level::Grant, "limit"),
        publisher = at(Level::Publisher, "limit"),
    );
    let policy = subject::parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let binding = Grantee {
        credential: "binding/gateway/key-1".into(),
        sources: ["198.51.100.8/32".parse().expect("a prefix")].into(),
        terms: Arc::new(Terms {
            publisher: "gateway".into(),
            services: ["api".into()].into(),
            source_ports: Box::default(),
            limit: Limits::default(),
        }),
        end: u64::MAX,
    };
    let pushed = Pushed::of([binding], []);
    let (numbers, _) = Numbers::default().assign((&policy, &pushed), None, u32::MAX);
    let around = Surroundings {
        host_addresses: &[],
        end: &|_| u64::MAX,
        pushed: &pushed,
        grows: None,
    };
    let compiled = compile(&policy, &numbers, &around).expect("it fits the tables");
    let setting = Setting {
        interfaces: &[],
        pins: None,
        owners_max: 1,
        log: KernelLog::Off,
        records: false,
    };
    Generation::load(&compiled, setting)
        .unwrap_or_else(|error| panic!("this test judges in the kernel: run it as root ({error})"))
}

fn frame(level: Level) -> Vec<u8> {
    let source = if level == Level::Publisher { 8 } else { 7 };
    let protocol = if level == Level::Icmp {
        ExpectProtocol::Icmp
    } else {
        ExpectProtocol::Udp
    };
    let flow = Flow {
        from: ([198, 51, 100, source].into(), 40_000),
        to: ([203, 0, 113, 10].into(), 443),
        protocol,
    };
    build(&flow).expect("both are of one family")
}

/// Whether a packet passes at a moment; 0 is the kernel's now.
fn passes(runner: &mut Runner, judge: &Xdp, frame: &[u8], now: u64) -> bool {
    let context = RunContext {
        now,
        flags: run_flags::NO_SOCKETS,
        ..RunContext::default()
    };
    let judgement = runner.judge(judge, frame, context).expect("it is judged");
    judgement.verdict == Verdict::Pass
}

/// Does the same on so many CPUs at once.
fn on_cpus<T: Send>(cpus: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = (0..cpus)
            .map(|cpu| {
                scope.spawn(move || {
                    let mut set = CpuSet::new();
                    set.set(cpu).expect("CPUs are few");
                    sched_setaffinity(Pid::from_raw(0), &set)
                        .unwrap_or_else(|error| panic!("this test needs {cpus} CPUs: {error}"));
                    work()
                })
            })
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().expect("it ends"))
            .collect()
    })
}

/// How many of so many packets pass, the next so many nanoseconds behind the last.
fn admitted(
    generation: &mut Generation,
    frame: &[u8],
    cpus: usize,
    packets: u64,
    step: u64,
    from: u64,
) -> u64 {
    let judge: &Xdp = generation.program(names::JUDGE).expect("there is a judge");
    let sent = AtomicU64::new(0);
    let passed = on_cpus(cpus, || {
        let mut runner = Runner::default();
        let mut passed = 0;
        loop {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            if number >= packets {
                return passed;
            }
            passed += u64::from(passes(&mut runner, judge, frame, from + number * step));
        }
    });
    passed.into_iter().sum()
}

fn long() -> bool {
    std::env::var("KEYFENCE_RATES").is_ok_and(|length| length == "long")
}

/// Rates, bursts, and for how many milliseconds of the test's time.
fn rates() -> [(u64, u64, u64); 4] {
    let longer = |milliseconds, shorter| if long() { milliseconds } else { shorter };
    [
        (10, 5, 60_000),
        (1_000, 100, longer(60_000, 5_000)),
        (100_000, 1_000, longer(10_000, 100)),
        (1_000_000, 10_000, longer(5_000, 40)),
    ]
}

fn says(level: Level, cpus: usize, rate: u64, after_burst: f64, due: f64) {
    let off = (after_burst / due - 1.0) * 100.0;
    eprintln!("{level:?}, {cpus} CPUs, {rate}/s: {after_burst} of {due:.1} after the burst, {off:+.3} %");
}

fn rate_is_held(level: Level) {
    for (rate, burst, milliseconds) in rates() {
        for cpus in [1, 2] {
            let mut generation = limited(level, rate, burst);
            let frame = frame(level);
            // At one moment the burst, and not a packet more.
            let at_once = admitted(&mut generation, &frame, cpus, OVER * burst + 50, 0, START);
            assert_eq!(at_once, burst, "{level:?}, {cpus} CPUs: a burst at {rate}/s");
            let step = SECOND / (OVER * rate);
            let packets = milliseconds * 1_000_000 / step;
            let passed = admitted(&mut generation, &frame, cpus, packets, step, START + step);
            let due = rate as f64 * (packets * step) as f64 / SECOND as f64;
            says(level, cpus, rate, passed as f64, due);
            assert!(passed as f64 <= due, "{level:?}, {cpus} CPUs: {passed} of {due}");
            let missing = due - passed as f64;
            assert!(
                missing <= (due * 0.01).max(1.0),
                "{level:?}, {cpus} CPUs, {rate}/s: {passed} of {due}"
            );
        }
    }
}

#[test]
fn a_sources_rate_is_held_to_the_packet() {
    rate_is_held(Level::Source);
}

#[test]
fn a_grants_rate_is_held_to_the_packet() {
    rate_is_held(Level::Grant);
}

#[test]
fn a_publishers_rate_is_held_to_the_packet() {
    rate_is_held(Level::Publisher);
}

#[test]
fn a_services_rate_is_held_to_the_packet() {
    rate_is_held(Level::Service);
}

#[test]
fn the_icmp_rate_is_held_to_the_packet() {
    rate_is_held(Level::Icmp);
}

/// The clock that the kernel program reads.
fn coarse() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("every kernel has it");
    u64::try_from(Duration::from(now).as_nanos()).expect("it began at boot")
}

/// What a CPU has sent as fast as it can.
struct Sent {
    passed: u64,
    first: u64,
    /// Tokens that it did not ask for in time.
    unasked: f64,
}

fn greedy(judge: &Xdp, frame: &[u8], (rate, burst): (u64, u64), until: u64) -> Sent {
    let mut runner = Runner::default();
    let (mut passed, mut unasked) = (0, 0.0);
    let first = coarse();
    let mut last = first;
    while last < until {
        passed += u64::from(passes(&mut runner, judge, frame, 0));
        let now = coarse();
        // The machine may stop this test for longer than the burst lasts.
        let filled = (now - last) as f64 * rate as f64 / SECOND as f64;
        unasked += (filled - burst as f64).max(0.0);
        last = now;
    }
    Sent {
        passed,
        first,
        unasked,
    }
}

#[test]
fn rates_are_held_by_the_kernels_clock() {
    let seconds = if long() { 10 } else { 1 };
    for (level, rate) in LEVELS
        .into_iter()
        .flat_map(|level| [(level, 1_000), (level, 50_000)])
    {
        let cpus = if rate > 1_000 { 2 } else { 1 };
        // A tenth of a second: the scheduler may stop a sender that long without costing it a token.
        let burst = rate / 10;
        let mut generation = limited(level, rate, burst);
        let (frame, begun) = (frame(level), coarse());
        let judge: &Xdp = generation.program(names::JUDGE).expect("there is a judge");
        let sent = on_cpus(cpus, || {
            greedy(judge, &frame, (rate, burst), begun + seconds * SECOND)
        });
        let mut passed: u64 = sent.iter().map(|sent| sent.passed).sum();
        // What a sender that was stopped at the end has left.
        let mut runner = Runner::default();
        while passes(&mut runner, judge, &frame, 0) {
            passed += 1;
        }
        let last = coarse();
        let first = sent.iter().map(|sent| sent.first).min().expect("there is a CPU");
        let unasked = sent.iter().map(|sent| sent.unasked).fold(f64::MAX, f64::min);
        let due = rate as f64 * (last - first) as f64 / SECOND as f64;
        let after_burst = passed as f64 - burst as f64;
        says(level, cpus, rate, after_burst, due);
        // A CPU may hear of a tick later than another, and begin and end in the middle of one.
        let tick = 0.01 * rate as f64;
        assert!(after_burst <= due + tick, "{level:?}: {after_burst} of {due}");
        let least = due - unasked - tick - (due * 0.01).max(1.0);
        assert!(
            after_burst >= least,
            "{level:?}, {rate}/s: {after_burst} of {due}, {unasked} not asked for"
        );
    }
}
