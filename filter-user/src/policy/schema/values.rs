//! Readers of single values: text, names, words, counts, durations, prefixes, ports, dates, credentials.
//!
//! Each takes its bounds from the key and records a fault where the value is none of its kind.

use std::time::Duration;

use ipnet::IpNet;
use toml::de::{DeInteger, DeValue};

use crate::policy::bounds::{EXPIRY_WARNING_DAYS, NAME_BYTES_MAX};
use crate::policy::keys::{Key, Kind};
use crate::policy::model::{Addresses, PortRange, Protocols};
use crate::policy::prefix::{merged, prefix_from_text};
use crate::policy::schema::{Value, Walk};
use crate::policy::source::Placed;
use crate::policy::suggest::{is_unprintable, nearest, quoted};
use crate::policy::units::{QuantityFault, Unit, count_from_text, duration_from_text, duration_text};
use crate::policy::words::Word;

pub(crate) fn boolean(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<bool> {
    if let DeValue::Boolean(boolean) = value.get_ref() {
        return Some(*boolean);
    }
    walk.wrong_type(key, value, "true or false", "write true or false, without quotes");
    None
}

/// Any text: borrowed, unchecked.
pub(crate) fn plain_text<'v>(walk: &mut Walk<'_>, key: &Key, value: &'v Value<'_>) -> Option<&'v str> {
    if let DeValue::String(text) = value.get_ref() {
        return Some(text.as_ref());
    }
    let fix = match value.get_ref() {
        DeValue::Integer(number) => format!("write \"{number}\""),
        _ => "write it between quotes".to_owned(),
    };
    walk.wrong_type(key, value, "text", fix);
    None
}

/// Text without control characters, not empty, within the key's bound.
pub(crate) fn text(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<String> {
    let bytes_max = if let Kind::Text { bytes_max } = key.kind {
        bytes_max
    } else {
        256
    };
    bounded_text(walk, key, value, bytes_max)
}

pub(crate) fn bounded_text(
    walk: &mut Walk<'_>,
    key: &Key,
    value: &Value<'_>,
    bytes_max: usize,
) -> Option<String> {
    let text = plain_text(walk, key, value)?;
    if text.is_empty() {
        walk.error(
            value,
            "out-of-bounds",
            format!("`{}` is empty", key.name),
            "write something or leave it out",
        );
        return None;
    }
    if text.len() > bytes_max {
        let message = format!("`{}` has {} bytes", key.name, text.len());
        walk.error(
            value,
            "out-of-bounds",
            message,
            format!("write at most {bytes_max}"),
        );
        return None;
    }
    if text.chars().any(|c| is_unprintable(c) && c != '\n' && c != '\t') {
        let message = format!("`{}` has a control character in it", key.name);
        walk.error(value, "control-character", message, "remove it");
        return None;
    }
    Some(text.to_owned())
}

/// An absolute path.
pub(crate) fn path(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<std::path::PathBuf> {
    let text = text(walk, key, value)?;
    if !text.starts_with('/') || text.contains('\n') {
        let message = format!("`{}` is not an absolute path", key.name);
        walk.error(value, "bad-path", message, "write a path that begins with /");
        return None;
    }
    Some(text.into())
}

pub(crate) fn name(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<String> {
    let text = plain_text(walk, key, value)?;
    checked_name(walk, value, text)
}

pub(crate) fn checked_name(walk: &mut Walk<'_>, value: &Value<'_>, text: &str) -> Option<String> {
    if check_name(text) {
        return Some(text.to_owned());
    }
    walk.error(
        value,
        "bad-name",
        format!("{} is no name", quoted(text)),
        bad_name_fix(),
    );
    None
}

pub(crate) fn bad_name_fix() -> String {
    format!("write 1 to {NAME_BYTES_MAX} of A-Z, a-z, 0-9, `.`, `_` and `-`, a letter or digit first")
}

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`
pub(crate) fn check_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

pub(crate) fn one_of<T: Word>(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<T> {
    let text = plain_text(walk, key, value)?;
    let word = T::named(text);
    if word.is_none() {
        unknown_word(walk, key.name, value, text, T::NAMES);
    }
    word
}

pub(crate) fn unknown_word(walk: &mut Walk<'_>, what: &str, value: &Value<'_>, text: &str, known: &[&str]) {
    let fix = match nearest(text, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("write one of {}", known.join(", ")),
    };
    walk.error(
        value,
        "unknown-word",
        format!("{} is no `{what}`", quoted(text)),
        fix,
    );
}

/// The items of a list whose length is within the key's bounds.
pub(crate) fn list<T>(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
    mut item: impl FnMut(&mut Walk<'_>, &Value<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let (min, max) = if let Kind::List { min, max, .. } = key.kind {
        (min, max)
    } else {
        (0, usize::MAX)
    };
    let DeValue::Array(array) = value.get_ref() else {
        let fix = match walk.source.file.text.get(value.span()) {
            Some(written) if written.len() < 60 && !matches!(value.get_ref(), DeValue::Table(_)) => {
                format!("write [{written}]")
            }
            _ => "write it between [ and ]".to_owned(),
        };
        walk.wrong_type(key, value, "a list", fix);
        return None;
    };
    if array.len() < min {
        let message = format!("`{}` is empty", key.name);
        walk.error(value, "empty-list", message, "name at least one");
        return None;
    }
    if let Some(surplus) = array.get(max) {
        let message = format!("`{}` has {} items", key.name, array.len());
        walk.error(surplus, "too-many", message, format!("write at most {max}"));
    }
    Some(
        array
            .iter()
            .take(max)
            .filter_map(|value| item(walk, value))
            .collect(),
    )
}

/// A list of text items, each with its place.
pub(crate) fn texts(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
    mut item: impl FnMut(&mut Walk<'_>, &Value<'_>, &str) -> Option<String>,
) -> Option<Vec<Placed<String>>> {
    list(walk, key, value, |walk, value| {
        let text = plain_text(walk, key, value)?;
        let text = item(walk, value, text)?;
        Some(Placed {
            value: text,
            place: walk.place(value.span()),
        })
    })
}

/// Records every item that stands in its list already; keeps the first of each.
pub(crate) fn without_repeats(
    walk: &mut Walk<'_>,
    what: &str,
    items: Vec<Placed<String>>,
) -> Vec<Placed<String>> {
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        if seen.insert(item.value.clone()) {
            kept.push(item);
        } else {
            let message = format!("{what} {} is named twice", quoted(&item.value));
            walk.faults.error(item.place, "repeated", message, "remove one");
        }
    }
    kept
}

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

pub(crate) fn prefixes(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
) -> Option<Vec<Placed<IpNet>>> {
    list(walk, key, value, |walk, value| {
        let text = plain_text(walk, key, value)?;
        let prefix = prefix(walk, value, text)?;
        Some(Placed {
            value: prefix,
            place: walk.place(value.span()),
        })
    })
}

fn prefix(walk: &mut Walk<'_>, value: &Value<'_>, text: &str) -> Option<IpNet> {
    match prefix_from_text(text) {
        Ok(prefix) => Some(prefix),
        Err(fault) => {
            walk.error(value, fault.code(), prefix_message(text, &fault), fault.fix());
            None
        }
    }
}

/// Text that is an address is shown as it is, other text is quoted.
pub(crate) fn prefix_message(text: &str, fault: &crate::policy::prefix::PrefixFault) -> String {
    match fault {
        crate::policy::prefix::PrefixFault::HostBits { .. } => format!("{text} {fault}"),
        _ => format!("{} {fault}", quoted(text)),
    }
}

pub(crate) fn addresses(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Addresses> {
    match value.get_ref() {
        DeValue::String(text) if text == "host" => Some(Addresses::Host),
        DeValue::String(text) => {
            let prefix = prefix(walk, value, text)?;
            Some(Addresses::Prefixes(vec![prefix]))
        }
        DeValue::Array(array) if array.is_empty() => {
            let message = format!("`{}` is empty", key.name);
            walk.error(
                value,
                "empty-list",
                message,
                "name at least one, or leave it out for every address",
            );
            None
        }
        DeValue::Array(array) => {
            if let Some(host) = array.iter().find(|item| item.get_ref().as_str() == Some("host")) {
                let message = "`host` stands alone, not in a list";
                walk.error(
                    host,
                    "bad-prefix",
                    message,
                    format!("write {} = \"host\"", key.name),
                );
                return None;
            }
            let prefixes = prefixes(walk, key, value)?;
            Some(Addresses::Prefixes(merged(
                prefixes.into_iter().map(|prefix| prefix.value).collect(),
            )))
        }
        _ => {
            walk.wrong_type(
                key,
                value,
                "a list of prefixes or \"host\"",
                "write [\"203.0.113.10\"]",
            );
            None
        }
    }
}

pub(crate) fn protocols(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Protocols> {
    let mut protocols = Protocols {
        tcp: false,
        udp: false,
    };
    if let DeValue::Array(array) = value.get_ref()
        && array.is_empty()
    {
        walk.error(
            value,
            "empty-list",
            "`protocol` is empty",
            "name at least one of tcp and udp",
        );
        return None;
    }
    let single = std::slice::from_ref(value);
    let items = value.get_ref().as_array().map_or(single, |array| &**array);
    for item in items {
        let DeValue::String(text) = item.get_ref() else {
            walk.wrong_type(
                key,
                item,
                "tcp, udp or a list of both",
                "write \"tcp\", \"udp\" or [\"tcp\", \"udp\"]",
            );
            continue;
        };
        match text.as_ref() {
            "tcp" => protocols.tcp = true,
            "udp" => protocols.udp = true,
            other => unknown_word(walk, key.name, item, other, &["tcp", "udp"]),
        }
    }
    Some(protocols)
}

/// Ranges in the order written. `port_min` is 1 for destinations, 0 for sources.
pub(crate) fn ports(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
    port_min: u16,
) -> Option<Vec<Placed<PortRange>>> {
    list(walk, key, value, |walk, value| {
        let range = port_range(walk, key, value, port_min)?;
        Some(Placed {
            value: range,
            place: walk.place(value.span()),
        })
    })
}

fn port_range(walk: &mut Walk<'_>, key: &Key, value: &Value<'_>, port_min: u16) -> Option<PortRange> {
    let (first, last) = match value.get_ref() {
        DeValue::Integer(number) => {
            let port = integer(number).unwrap_or(i128::MAX);
            (port, port)
        }
        DeValue::String(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let Some(range) = port_number(first).zip(port_number(last)) else {
                let fix = "write a port such as 443 or a range such as \"8443-8450\"";
                walk.error(
                    value,
                    "bad-port",
                    format!("{} is no port or range", quoted(text)),
                    fix,
                );
                return None;
            };
            range
        }
        _ => {
            walk.wrong_type(
                key,
                value,
                "a list of ports and ranges",
                "write [443, \"8443-8450\"]",
            );
            return None;
        }
    };
    checked_range(walk, value, first, last, port_min)
}

fn checked_range(
    walk: &mut Walk<'_>,
    value: &Value<'_>,
    first: i128,
    last: i128,
    port_min: u16,
) -> Option<PortRange> {
    for port in [first, last] {
        if port < i128::from(port_min) || port > i128::from(u16::MAX) {
            let message = format!("port {port} is out of range");
            walk.error(
                value,
                "port-out-of-range",
                message,
                format!("write {port_min} to {}", u16::MAX),
            );
            return None;
        }
    }
    if first > last {
        let message = format!("the range {first}-{last} is backward");
        walk.error(
            value,
            "backward-range",
            message,
            format!("write \"{last}-{first}\""),
        );
        return None;
    }
    Some(PortRange {
        first: u16::try_from(first).ok()?,
        last: u16::try_from(last).ok()?,
    })
}

fn port_number(text: &str) -> Option<i128> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Sorted; overlapping and adjacent ranges are one.
pub(crate) fn merged_ports(ports: &[Placed<PortRange>]) -> Vec<PortRange> {
    let mut ranges: Vec<PortRange> = ports.iter().map(|port| port.value).collect();
    ranges.sort_unstable();
    let mut kept: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match kept.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => kept.push(range),
        }
    }
    kept
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

/// Whether text has the shape of a secret that some issuer hands out.
pub(crate) fn looks_like_a_key(text: &str) -> bool {
    let is_token = |part: &str| {
        part.len() >= 4
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'='))
    };
    let jwt =
        text.starts_with("eyJ") && text.split('.').count() >= 3 && text.split('.').take(2).all(is_token);
    const PREFIXES: [&str; 21] = [
        "sk_",
        "sk-",
        "rk_",
        "pk_live_",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "xoxp-",
        "xoxa-",
        "xapp-",
        "AIza",
        "ya29.",
        "shpat_",
        "npm_",
        "pypi-",
        "dop_v1_",
    ];
    let aws = ["AKIA", "ASIA"].iter().any(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| {
            rest.len() >= 12 && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        })
    });
    jwt || aws || PREFIXES.iter().any(|prefix| text.starts_with(prefix)) || text.contains("PRIVATE KEY")
}
