//! What the lab shows of one second: who got through, who was dropped and why. Pure: from two samples to text.

use std::{fmt::Write as _, time::Duration};

use super::{
    metrics::Counters,
    names::{GREEDY_LIMIT_PER_SECOND, GUESTS, Host},
    traffic::Report,
};

/// What daemon and clients say at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// Since the lab began.
    pub(super) at: Duration,
    pub(super) counters: Counters,
    /// In the order of `GUESTS`.
    pub(super) reports: [Report; 3],
}

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Terminal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    Watched,
    Heading,
}

impl Paint {
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Watched => "33",
            Tone::Heading => "1",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Terminal => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The lab's table: each machine, then each answer of the filter.
pub(super) fn live(before: &Sample, now: &Sample, paint: Paint) -> String {
    let span = now.at.saturating_sub(before.at);
    let counted = now.counters.since(&before.counters);
    let mut rows = vec![row([
        "who",
        "the policy",
        "sends",
        "passed/s",
        "dropped/s",
        "observed/s",
        "sees",
    ])];
    for (at, guest) in GUESTS.into_iter().enumerate() {
        let packets = |verdict| rate(counted.on_interface(guest.interface(), verdict), span);
        let seen = now.reports[at].since(&before.reports[at]);
        rows.push(row([
            guest.shown(),
            &listing(guest),
            sends(guest),
            &packets("pass"),
            &packets("drop"),
            &packets("observe"),
            &sees(guest, &seen),
        ]));
    }
    let mut text = columns(&rows, 3..6, paint);
    text.push('\n');
    text += &verdicts(Some((&counted, span)), &now.counters, paint);
    text
}

/// The part that any interface has: each answer of the filter that was ever given; with what was counted in a span,
/// where rates are wanted.
pub(super) fn verdicts(counted: Option<(&Counters, Duration)>, now: &Counters, paint: Paint) -> String {
    let mut rows = vec![row(["service", "verdict", "reason", "packets/s", "packets"])];
    for (judged, total) in now.judged.iter().filter(|(_, total)| **total > 0) {
        let service = if judged.service.is_empty() {
            "(none)"
        } else {
            &judged.service
        };
        let rate = counted.map_or_else(String::new, |(counted, span)| {
            rate(
                counted.packets(&judged.service, &judged.verdict, &judged.reason),
                span,
            )
        });
        rows.push(row([
            service,
            &judged.verdict,
            &judged.reason,
            &rate,
            &grouped(*total),
        ]));
    }
    if rows.len() == 1 {
        return String::from("  no packet yet\n");
    }
    if counted.is_none() {
        for row in &mut rows {
            row.remove(3);
        }
    }
    let numbers = 3..rows[0].len();
    columns(&rows, numbers, paint)
}

/// The same second in one line, where there is no terminal.
pub(super) fn line(before: &Sample, now: &Sample) -> String {
    let span = now.at.saturating_sub(before.at);
    let counted = now.counters.since(&before.counters);
    let mut text = format!("{:>4} s", now.at.as_secs());
    for (at, guest) in GUESTS.into_iter().enumerate() {
        // Writing to a string cannot fail.
        _ = write!(text, "{} {}: ", if at == 0 { "" } else { " |" }, guest.shown());
        for (verdict, word) in [("pass", "passed"), ("drop", "dropped"), ("observe", "observed")] {
            match counted.on_interface(guest.interface(), verdict) {
                0 => {}
                packets => _ = write!(text, "{}/s {word}, ", rate(packets, span)),
            }
        }
        text += &sees(guest, &now.reports[at].since(&before.reports[at]));
    }
    text
}

/// One second on a real interface in one line.
pub(super) fn sums_line(at: Duration, counted: &Counters) -> String {
    let of = |verdict| grouped(counted.sums(verdict).0);
    let (passed, dropped, observed) = (of("pass"), of("drop"), of("observe"));
    format!(
        "{:>4} s | passed {passed}, dropped {dropped}, observed {observed}",
        at.as_secs()
    )
}

fn listing(guest: Host) -> String {
    match guest {
        Host::Server => String::new(),
        Host::Client => String::from("listed"),
        Host::Greedy => format!("listed, {}/s", grouped(GREEDY_LIMIT_PER_SECOND)),
        Host::Stranger => String::from("not listed"),
    }
}

fn sends(guest: Host) -> &'static str {
    match guest {
        Host::Server => "",
        Host::Client => "HTTP",
        Host::Greedy => "UDP, 4 times that",
        Host::Stranger => "TCP, UDP",
    }
}

/// What a client itself saw.
fn sees(guest: Host, seen: &Report) -> String {
    let number = |name| seen.number(name);
    match guest {
        Host::Server => String::new(),
        Host::Client => {
            let answered = number("answered_v4") + number("answered_v6");
            let mut text = format!("{answered} of {} answers 200", number("requests"));
            if let Some(took) = number("microseconds").checked_div(answered) {
                _ = write!(text, ", {}.{} ms", took / 1000, took % 1000 / 100);
            }
            text
        }
        Host::Greedy => format!(
            "{} of {} answers",
            grouped(number("answered")),
            grouped(number("sent"))
        ),
        Host::Stranger => format!(
            "{} of {} time-outs, {} of {} answers",
            number("timed_out"),
            number("connects"),
            number("answered"),
            number("sent")
        ),
    }
}

fn rate(packets: u64, span: Duration) -> String {
    let milliseconds = span.as_millis().max(1);
    let rate = (u128::from(packets) * 1000 + milliseconds / 2) / milliseconds;
    grouped(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// 1234567 as 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Lines the rows up, the first as a heading; columns of numbers end at the right, and none is shown that is 0 in
/// each row.
fn columns(rows: &[Vec<String>], numbers: std::ops::Range<usize>, paint: Paint) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let empty = |column: &usize| numbers.contains(column) && rows[1..].iter().all(|row| row[*column] == "0");
    let shown: Vec<usize> = (0..count).filter(|column| !empty(column)).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for &column in &shown {
            let (cell, width) = (&row[column], widths[column]);
            let padded = if numbers.contains(&column) {
                format!("  {cell:>width$}")
            } else {
                format!("  {cell:<width$}")
            };
            let last = shown.last() == Some(&column);
            let padded = if last { padded.trim_end() } else { &padded };
            line += &match tone(at, column, row, &rows[0], numbers.contains(&column)) {
                Some(tone) => paint.paint(tone, padded),
                None => padded.to_owned(),
            };
        }
        text += &line;
        text.push('\n');
    }
    text
}

/// Green for what passes, red for what is dropped, yellow for what would be.
fn tone(at: usize, column: usize, row: &[String], heading: &[String], is_number: bool) -> Option<Tone> {
    if at == 0 {
        return Some(Tone::Heading);
    }
    if is_number && row[column] == "0" {
        return None;
    }
    match (heading[column].as_str(), row[column].as_str()) {
        ("passed/s", _) | ("verdict", "pass") => Some(Tone::Good),
        ("dropped/s", _) | ("verdict", "drop") => Some(Tone::Bad),
        ("observed/s", _) | ("verdict", "observe") => Some(Tone::Watched),
        _ => None,
    }
}

/// A plain table: for the summary.
pub(super) fn plain<const N: usize>(rows: &[[&str; N]], paint: Paint) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|cells| row(*cells)).collect();
    columns(&rows, 0..0, paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, packets: u64) -> Sample {
        let mut counters = Counters::default();
        for (interface, verdict) in [("lab-client", "pass"), ("lab-stranger", "drop")] {
            counters.count_interface(interface, verdict, packets);
        }
        counters.count("web", "pass", "allowed", packets);
        counters.count("web", "drop", "unlisted", packets / 2);
        counters.count("web", "drop", "ended", 0);
        Sample {
            at: Duration::from_secs(seconds),
            counters,
            reports: [
                Report::parse(&format!(
                    "requests={packets} answered_v4={packets} microseconds={}",
                    packets * 450
                )),
                Report::default(),
                Report::parse(&format!("connects={packets} timed_out={packets}")),
            ],
        }
    }

    #[test]
    fn a_second_shows_who_passed_who_was_dropped_and_why() {
        let expected = "  who       the policy       sends              passed/s  dropped/s  sees
  acme      listed           HTTP                    100          0  100 of 100 answers 200, 0.4 ms
  greedy    listed, 2,000/s  UDP, 4 times that         0          0  0 of 0 answers
  stranger  not listed       TCP, UDP                  0        100  100 of 100 time-outs, 0 of 0 answers

  service  verdict  reason    packets/s  packets
  web      drop     unlisted         50    1,000
  web      pass     allowed         100    2,000
";
        assert_eq!(
            live(&sample(19, 1_900), &sample(20, 2_000), Paint::Plain),
            expected
        );
    }

    #[test]
    fn a_line_shows_the_same_without_a_table() {
        let line = line(&sample(19, 1_900), &sample(21, 2_000));
        assert!(
            line.starts_with("  21 s acme: 50/s passed, 100 of 100 answers 200"),
            "{line}"
        );
        assert!(
            !line.contains('\n') && line.contains("| stranger: 50/s dropped, 100 of 100 time-outs"),
            "{line}"
        );
    }

    #[test]
    fn colours_are_for_terminals_only() {
        let (before, now) = (sample(1, 0), sample(2, 10));
        assert!(!live(&before, &now, Paint::Plain).contains('\x1b'));
        assert!(live(&before, &now, Paint::Terminal).contains("\x1b[32m"));
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn before_the_first_packet_there_is_no_empty_table() {
        let nothing = Counters::default();
        assert_eq!(verdicts(None, &nothing, Paint::Plain), "  no packet yet\n");
    }
}
