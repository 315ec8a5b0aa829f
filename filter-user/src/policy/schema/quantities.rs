//! Readers of quantities: counts, bytes, durations, instants.
//!
//! Each takes its bounds from the key and records a fault where the value is none of its kind.

use std::time::Duration;

use toml::de::{DeInteger, DeValue};

use crate::policy::bounds::EXPIRY_WARNING_DAYS;
use crate::policy::keys::{Key, Kind};
use crate::policy::schema::values::plain_text;
use crate::policy::schema::{Value, Walk};
use crate::policy::suggest::quoted;
use crate::policy::units::{QuantityFault, Unit, count_from_text, duration_from_text, duration_text};

pub(crate) fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

pub(crate) fn count(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<u64> {
    let (min, max, unit) = match key.kind {
        Kind::Count { min, max } => (min, max, Unit::Plain),
        Kind::Bytes { min, max } => (min, max, Unit::Bytes),
        _ => (0, u64::MAX, Unit::Plain),
    };
    let number = quantity(walk, key, value, unit)?;
    match u64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Some(number),
        _ => {
            let message = format!("`{}` is {number}", key.name);
            walk.error(value, "out-of-bounds", message, format!("write {min} to {max}"));
            None
        }
    }
}

/// A whole number, written as one or as text with a unit; bounds are the caller's.
pub(crate) fn quantity(walk: &mut Walk<'_>, key: &Key, value: &Value<'_>, unit: Unit) -> Option<i128> {
    match value.get_ref() {
        DeValue::Integer(number) => {
            let number = integer(number);
            if number.is_none() {
                walk.error(
                    value,
                    "bad-quantity",
                    format!("`{}` is too large", key.name),
                    "write a smaller number",
                );
            }
            number
        }
        DeValue::String(text) => match count_from_text(text, unit) {
            Ok(number) => Some(i128::from(number)),
            Err(fault) => {
                bad_quantity(walk, key, value, text, &fault, unit);
                None
            }
        },
        _ => {
            walk.wrong_type(
                key,
                value,
                "a whole number",
                "write a number or text such as \"500k\"",
            );
            None
        }
    }
}

pub(crate) fn bad_quantity(
    walk: &mut Walk<'_>,
    key: &Key,
    value: &Value<'_>,
    text: &str,
    fault: &QuantityFault,
    unit: Unit,
) {
    let units = if unit == Unit::Bytes {
        "k, M, G, Ki, Mi, Gi, with B or bit"
    } else {
        "k, M, G, Ki, Mi, Gi"
    };
    let fix = match fault {
        QuantityFault::UnknownUnit {
            suggestion: Some(suggestion),
            ..
        } => {
            format!("did you mean `{suggestion}`?")
        }
        QuantityFault::UnknownUnit { unit, .. } if unit.starts_with('/') => {
            "a rate is of a second, a minute or an hour: write /s, /m or /h".to_owned()
        }
        QuantityFault::UnknownUnit { .. } | QuantityFault::BytesUnit => format!("units are {units}"),
        QuantityFault::NotWhole => "write what comes to a whole number".to_owned(),
        QuantityFault::TooLarge => "write a smaller number".to_owned(),
        _ => "write a number or text such as \"500k\"".to_owned(),
    };
    walk.error(
        value,
        "bad-quantity",
        format!("`{}`: {} {fault}", key.name, quoted(text)),
        fix,
    );
}

pub(crate) fn duration(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Duration> {
    let (min, max) = if let Kind::Duration { min, max } = key.kind {
        (min, max)
    } else {
        (0, u64::MAX)
    };
    bounded_duration(walk, key, value, min, max)
}

pub(crate) fn bounded_duration(
    walk: &mut Walk<'_>,
    key: &Key,
    value: &Value<'_>,
    seconds_min: u64,
    seconds_max: u64,
) -> Option<Duration> {
    if let DeValue::Integer(number) = value.get_ref() {
        walk.wrong_type(key, value, "a duration", format!("write \"{number}s\""));
        return None;
    }
    let text = plain_text(walk, key, value)?;
    let duration = match duration_from_text(text) {
        Ok(duration) => duration,
        Err(fault) => {
            let fix = match &fault {
                QuantityFault::UnknownUnit {
                    suggestion: Some(unit),
                    ..
                } => format!("did you mean `{unit}`?"),
                QuantityFault::UnitOrder => "write d, h, m, s, ms in this order, each once".to_owned(),
                _ => "write text such as \"90s\" or \"1h30m\"; units are ms, s, m, h, d".to_owned(),
            };
            let message = format!("`{}`: {} {fault}", key.name, quoted(text));
            walk.error(value, "bad-duration", message, fix);
            return None;
        }
    };
    let (min, max) = (Duration::from_secs(seconds_min), Duration::from_secs(seconds_max));
    if !(min..=max).contains(&duration) {
        let message = format!("`{}` is {}", key.name, duration_text(duration));
        let fix = format!("write {} to {}", duration_text(min), duration_text(max));
        walk.error(value, "out-of-bounds", message, fix);
        return None;
    }
    Some(duration)
}

/// An instant: a date and time with an offset. One that is past or near is a warning.
pub(crate) fn expires(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<jiff::Timestamp> {
    let example = "write a date and time with offset, such as 2027-01-31T00:00:00Z";
    let DeValue::Datetime(written) = value.get_ref() else {
        let fix = if value.get_ref().is_str() {
            "write it without quotes, such as 2027-01-31T00:00:00Z"
        } else {
            example
        };
        walk.wrong_type(key, value, "a date and time with offset", fix);
        return None;
    };
    if written.offset.is_none() || written.date.is_none() || written.time.is_none() {
        let fix = if written.date.is_some() && written.time.is_some() && written.offset.is_none() {
            format!("write {written}Z if UTC is meant")
        } else {
            example.to_owned()
        };
        walk.error(
            value,
            "local-date-time",
            format!("{written} names no instant"),
            fix,
        );
        return None;
    }
    let instant = written.to_string().parse::<jiff::Timestamp>().ok();
    // jiff's last instant lies two days before the year's end, so that every offset has a local time for it.
    let last_days = written
        .date
        .is_some_and(|date| (date.year, date.month) == (9999, 12) && date.day >= 30);
    let instant = instant.or(last_days.then_some(jiff::Timestamp::MAX));
    let Some(instant) = instant.filter(|instant| *instant >= jiff::Timestamp::UNIX_EPOCH) else {
        walk.error(
            value,
            "out-of-bounds",
            format!("{written} is out of range"),
            "write a date from 1970 to 9999",
        );
        return None;
    };
    warn_of_end(walk, value, instant);
    Some(instant)
}

fn warn_of_end(walk: &mut Walk<'_>, value: &Value<'_>, instant: jiff::Timestamp) {
    const DAY_SECONDS: i64 = 86_400;
    let left_seconds = instant.as_second().saturating_sub(walk.context.now.as_second());
    if instant <= walk.context.now {
        let message = format!("the entry ended at {instant}");
        walk.warning(
            value,
            "expired",
            message,
            "remove the entry or give it a later end",
        );
    } else if left_seconds <= EXPIRY_WARNING_DAYS * DAY_SECONDS {
        let left = match left_seconds / DAY_SECONDS {
            0 => "within a day".to_owned(),
            1 => "in 1 day".to_owned(),
            days => format!("in {days} days"),
        };
        walk.warning(
            value,
            "expires-soon",
            format!("the entry ends {left}"),
            "give it a later end if it is still needed",
        );
    }
}
