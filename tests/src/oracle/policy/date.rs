//! RFC 3339 in UTC to and from nanoseconds since 1970.

use toml::value::{Date, Datetime, Offset, Time};

const DAY: u64 = 86_400;
const NANOS: u64 = 1_000_000_000;

/// The moment in UTC, with a fraction only where there is one.
pub(super) fn write(ns: u64) -> String {
    let (days, seconds, fraction) = (ns / NANOS / DAY, ns / NANOS % DAY, ns % NANOS);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if fraction == 0 {
        String::new()
    } else {
        format!(".{fraction:09}")
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// None before 1970 or without date, time and offset.
pub(super) fn read(moment: &Datetime) -> Option<u64> {
    let (date, time, offset) = (moment.date?, moment.time?, moment.offset?);
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let seconds = i64::try_from(days(&date)? * DAY + seconds(&time)).ok()? - minutes * 60;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(NANOS)?
        .checked_add(u64::from(time.nanosecond.unwrap_or(0)))
}

fn seconds(time: &Time) -> u64 {
    u64::from(time.hour) * 3600 + u64::from(time.minute) * 60 + u64::from(time.second.unwrap_or(0))
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn year_days(year: u64) -> u64 {
    if leap(year) { 366 } else { 365 }
}

fn days(date: &Date) -> Option<u64> {
    let (year, month) = (u64::from(date.year), u64::from(date.month));
    if year < 1970 {
        return None;
    }
    let years: u64 = (1970..year).map(year_days).sum();
    let months: u64 = (1..month).map(|month| month_days(year, month)).sum();
    Some(years + months + u64::from(date.day) - 1)
}

fn civil(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= year_days(year) {
        days -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while days >= month_days(year, month) {
        days -= month_days(year, month);
        month += 1;
    }
    (year, month, days + 1)
}
