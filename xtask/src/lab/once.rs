//! `--once`: plays for some seconds, then holds what the clients saw, what the daemon counted, and what the servers
//! received against each other and against the policy.

use std::{fs, time::Duration};

use anyhow::Result;

use super::{
    machines::{self, Machines, Stopped},
    names::{GREEDY_LIMIT_PER_SECOND, Host},
    signals::Signals,
    table::{self, Paint, Sample, grouped},
    traffic::Report,
};

/// Bursts are used up, and every machine is at its rate.
const WARM_UP: Duration = Duration::from_millis(1_500);
const SECONDS: u32 = 5;
/// How far from its limit a client may be held over these seconds, in parts of a hundred.
const HELD_PERCENT: u64 = 2;

/// A statement, what was measured, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) measured: String,
    pub(super) holds: bool,
}

impl Check {
    pub(super) fn new(what: &'static str, measured: String, holds: bool) -> Self {
        Self {
            what,
            measured,
            holds,
        }
    }
}

/// Everything that was seen, for the checks.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// At the begin and the end of the seconds that are measured.
    from: Sample,
    to: Sample,
    /// After all traffic has ended.
    last: Sample,
    /// By the server of the datagrams.
    received: u64,
    /// By the web server: a line each.
    access: String,
}

pub(super) fn play(machines: &mut Machines, signals: &Signals) -> Result<Vec<Check>> {
    pause(machines, signals, WARM_UP)?;
    let from = machines.sample()?;
    let mut before = from.clone();
    for _ in 0..SECONDS {
        pause(machines, signals, Duration::from_secs(1))?;
        let now = machines.sample()?;
        println!("{}", table::line(&before, &now));
        before = now;
    }
    let events = machines.end_traffic()?;
    let seen = Seen {
        from,
        to: before,
        last: machines.sample()?,
        received: events.number("received"),
        access: fs::read_to_string(machines::access_file()).unwrap_or_default(),
    };
    println!();
    print!("{}", table::verdicts(None, &seen.last.counters, Paint::Plain));
    Ok(checks(&seen))
}

fn pause(machines: &mut Machines, signals: &Signals, duration: Duration) -> Result<()> {
    if signals.pause(duration) {
        return Err(Stopped.into());
    }
    machines.check()
}

fn checks(seen: &Seen) -> Vec<Check> {
    let [listed, greedy, stranger] = &seen.last.reports;
    vec![
        answered("acme gets 200 over IPv4", listed, "answered_v4"),
        answered("acme gets 200 over IPv6", listed, "answered_v6"),
        none_failed(listed),
        held(seen),
        timed_out(stranger),
        unanswered(stranger),
        reached(&seen.access, listed),
        judged_greedy(seen, greedy),
        passed_greedy(seen, greedy),
        judged_stranger(seen, stranger),
        sums(seen),
    ]
}

fn answered(what: &'static str, listed: &Report, name: &str) -> Check {
    let answered = listed.number(name);
    Check::new(what, format!("{answered} answers"), answered > 0)
}

fn none_failed(listed: &Report) -> Check {
    let answered = listed.number("answered_v4") + listed.number("answered_v6");
    let requests = listed.number("requests");
    let holds = requests > 0 && answered == requests;
    Check::new(
        "acme loses nothing",
        format!("{answered} of {requests} requests answered"),
        holds,
    )
}

fn held(seen: &Seen) -> Check {
    let passed = |sample: &Sample| sample.counters.packets("events", "pass", "allowed");
    let packets = passed(&seen.to) - passed(&seen.from).min(passed(&seen.to));
    let span = seen.to.at.saturating_sub(seen.from.at).as_nanos().max(1);
    // In tenths of a packet a second.
    let rate = u64::try_from(u128::from(packets) * 10_000_000_000 / span).unwrap_or(u64::MAX);
    let (limit, away) = (
        GREEDY_LIMIT_PER_SECOND * 10,
        rate.abs_diff(GREEDY_LIMIT_PER_SECOND * 10),
    );
    let hundredths = away * 10_000 / limit;
    let measured = format!(
        "{}.{}/s for a limit of {}/s: {}.{:02} % off over {SECONDS} s",
        grouped(rate / 10),
        rate % 10,
        grouped(GREEDY_LIMIT_PER_SECOND),
        hundredths / 100,
        hundredths % 100
    );
    Check::new(
        "greedy is held to its limit within 2 %",
        measured,
        away * 100 <= limit * HELD_PERCENT,
    )
}

fn timed_out(stranger: &Report) -> Check {
    let (connects, timed_out) = (stranger.number("connects"), stranger.number("timed_out"));
    let measured = format!("{timed_out} of {connects} time-outs");
    Check::new(
        "the stranger's connects time out",
        measured,
        connects > 0 && timed_out == connects,
    )
}

fn unanswered(stranger: &Report) -> Check {
    let (sent, answered) = (stranger.number("sent"), stranger.number("answered"));
    let measured = format!("{answered} of {} answered", grouped(sent));
    Check::new(
        "the stranger's datagrams are not answered",
        measured,
        sent > 0 && answered == 0,
    )
}

/// The web server's own word on who came through.
fn reached(access: &str, listed: &Report) -> Check {
    let answered = listed.number("answered_v4") + listed.number("answered_v6");
    let of_acme = |line: &&str| {
        let address = line.split(' ').next().unwrap_or_default();
        [Host::Client.v4(), Host::Client.v6()].contains(&address)
    };
    let (acme, all) = (access.lines().filter(of_acme).count(), access.lines().count());
    let measured = format!("{acme} requests of acme, {} of others", all - acme);
    let holds = acme == all && u64::try_from(acme).is_ok_and(|acme| acme == answered);
    Check::new("only acme reached nginx", measured, holds)
}

/// Each datagram that was sent is counted once, passed or refused; what the cable itself lost nobody could judge.
fn judged_greedy(seen: &Seen, greedy: &Report) -> Check {
    let counters = &seen.last.counters;
    let (passed, refused) = (
        counters.packets("events", "pass", "allowed"),
        counters.packets("events", "drop", "limit-grant"),
    );
    let measured = format!(
        "{} sent = {} allowed + {} limit-grant{}",
        grouped(greedy.number("sent")),
        grouped(passed),
        grouped(refused),
        lost(greedy)
    );
    let holds = greedy.number("sent") == passed + refused + greedy.number("lost");
    Check::new("each datagram of greedy is counted once", measured, holds)
}

fn passed_greedy(seen: &Seen, greedy: &Report) -> Check {
    let passed = seen.last.counters.packets("events", "pass", "allowed");
    let answered = greedy.number("answered");
    let measured = format!(
        "{} allowed, {} received, {} answered",
        grouped(passed),
        grouped(seen.received),
        grouped(answered)
    );
    let holds = passed > 0 && passed == seen.received && passed == answered;
    Check::new("what is counted as allowed arrives", measured, holds)
}

fn judged_stranger(seen: &Seen, stranger: &Report) -> Check {
    let dropped = seen.last.counters.packets("events", "drop", "unlisted");
    let sent = stranger.number("sent");
    let measured = format!(
        "{} sent = {} unlisted{}",
        grouped(sent),
        grouped(dropped),
        lost(stranger)
    );
    let (most, least) = (sent, sent.saturating_sub(stranger.number("lost")));
    // The cable may also have lost connects.
    let holds = (least..=most).contains(&dropped);
    Check::new("each datagram of the stranger is dropped", measured, holds)
}

fn lost(report: &Report) -> String {
    match report.number("lost") {
        0 => String::new(),
        lost => format!(" + {} lost on its cable", grouped(lost)),
    }
}

/// Two tables in the kernel, counted apart.
fn sums(seen: &Seen) -> Check {
    let (passed, passed_on) = seen.last.counters.sums("pass");
    let (dropped, dropped_on) = seen.last.counters.sums("drop");
    let measured = format!(
        "pass {} = {}, drop {} = {}",
        grouped(passed),
        grouped(passed_on),
        grouped(dropped),
        grouped(dropped_on)
    );
    let holds = passed == passed_on && dropped == dropped_on;
    Check::new("counters by reason and by interface agree", measured, holds)
}

/// The table at the end, and whether all holds.
pub(super) fn summary(checks: &[Check], paint: Paint) -> (String, bool) {
    let mut rows = vec![["", "check", "measured"]];
    rows.extend(checks.iter().map(|check| {
        let word = if check.holds { "ok" } else { "FAILED" };
        [word, check.what, &*check.measured]
    }));
    let failed = checks.iter().filter(|check| !check.holds).count();
    let mut text = table::plain(&rows, paint);
    text += &match failed {
        0 => format!("All {} checks hold.\n", checks.len()),
        failed => format!("{failed} of {} checks FAILED.\n", checks.len()),
    };
    (text, failed == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in which all is well.
    fn good() -> Seen {
        let mut seen = Seen::default();
        seen.from.at = Duration::from_secs(1);
        seen.from.counters.count("events", "pass", "allowed", 1_000);
        seen.to.at = Duration::from_secs(6);
        seen.to.counters.count("events", "pass", "allowed", 11_010);
        let last = &mut seen.last;
        last.counters.count("events", "pass", "allowed", 12_000);
        last.counters.count("events", "drop", "limit-grant", 36_000);
        last.counters.count("events", "drop", "unlisted", 3_000);
        last.counters.count_interface("lab-greedy", "pass", 12_000);
        last.counters.count_interface("lab-greedy", "drop", 36_000);
        last.counters.count_interface("lab-stranger", "drop", 3_000);
        last.reports = [
            "requests=4 answered_v4=2 answered_v6=2",
            "sent=48000 answered=12000 lost=0",
            "connects=9 timed_out=9 connected=0 sent=3000 answered=0 lost=0",
        ]
        .map(Report::parse);
        seen.received = 12_000;
        seen.access = "198.51.100.7 200\n2001:db8:ac::7 200\n".repeat(2);
        seen
    }

    fn failed(seen: &Seen) -> Vec<&'static str> {
        let checks = checks(seen);
        checks
            .iter()
            .filter(|check| !check.holds)
            .map(|check| check.what)
            .collect()
    }

    #[test]
    fn a_run_in_which_all_is_well_holds() {
        assert_eq!(failed(&good()), [""; 0]);
        let (text, holds) = summary(&checks(&good()), Paint::Plain);
        assert!(holds && text.ends_with("All 11 checks hold.\n"), "{text}");
        assert!(
            text.contains("2,002.0/s for a limit of 2,000/s: 0.10 % off over 5 s"),
            "{text}"
        );
    }

    #[test]
    fn a_client_held_two_percent_off_holds_and_one_more_packet_fails() {
        for (packets, holds) in [(10_200, true), (9_800, true), (10_202, false), (9_798, false)] {
            let mut seen = good();
            seen.to
                .counters
                .count("events", "pass", "allowed", 1_000 + packets);
            assert_eq!(failed(&seen).is_empty(), holds, "{packets} packets");
        }
    }

    #[test]
    fn each_fault_is_named() {
        for (report, text, what) in [
            (
                0,
                "requests=4 answered_v4=4 answered_v6=0",
                "acme gets 200 over IPv6",
            ),
            (0, "requests=5 answered_v4=2 answered_v6=2", "acme loses nothing"),
            (
                1,
                "sent=48001 answered=12000",
                "each datagram of greedy is counted once",
            ),
            (
                1,
                "sent=48000 answered=11999",
                "what is counted as allowed arrives",
            ),
            (
                2,
                "connects=9 timed_out=8 sent=3000",
                "the stranger's connects time out",
            ),
            (
                2,
                "connects=9 timed_out=9 sent=3000 answered=1",
                "the stranger's datagrams are not answered",
            ),
            (
                2,
                "connects=9 timed_out=9 sent=3001",
                "each datagram of the stranger is dropped",
            ),
        ] {
            let mut seen = good();
            seen.last.reports[report] = Report::parse(text);
            assert_eq!(failed(&seen), [what]);
        }
        let mut seen = good();
        seen.access += "203.0.113.13 200\n";
        assert_eq!(failed(&seen), ["only acme reached nginx"]);
        let mut seen = good();
        seen.last.counters.count_interface("lab-greedy", "drop", 1);
        assert_eq!(failed(&seen), ["counters by reason and by interface agree"]);
    }

    #[test]
    fn what_the_cable_lost_nobody_could_judge() {
        let mut seen = good();
        seen.last.reports[1] = Report::parse("sent=48005 answered=12000 lost=5");
        seen.last.reports[2] = Report::parse("connects=9 timed_out=9 sent=3001 answered=0 lost=2");
        assert_eq!(failed(&seen), [""; 0]);
    }

    #[test]
    fn a_failed_check_fails_the_run() {
        let (text, holds) = summary(&[Check::new("a thing", "no".to_owned(), false)], Paint::Plain);
        assert!(
            !holds && text.contains("FAILED  a thing  no") && text.ends_with("1 of 1 checks FAILED.\n"),
            "{text}"
        );
    }
}
