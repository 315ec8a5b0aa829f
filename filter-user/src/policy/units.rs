//! Quantities as people write them: counts (`500k`), bytes (`10MB`, `80Mbit`), rates (`100/m`), durations
//! (`1h30m`), percentages. Text in, exact whole numbers out: what does not come to a whole number is a fault.
//!
//! Never knows which key it reads: bounds are the caller's.

use std::time::Duration;

/// Longer text is no quantity: it is refused before any arithmetic.
const TEXT_BYTES_MAX: usize = 40;

/// What a count counts: only bytes may be written with `B` or `bit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Plain,
    Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityFault {
    #[error("is not a number")]
    NotANumber,
    #[error("has the unknown unit `{unit}`")]
    UnknownUnit {
        unit: String,
        suggestion: Option<String>,
    },
    #[error("counts in bytes or bits, where packets, connections or entries are counted")]
    BytesUnit,
    #[error("does not come to a whole number")]
    NotWhole,
    #[error("is too large")]
    TooLarge,
    #[error("has no unit")]
    NoUnit,
    #[error("has its units out of order")]
    UnitOrder,
}

/// A whole number times a fraction: `mantissa * factor / divisor`, exact.
struct Scaled {
    numerator: u128,
    divisor: u128,
}

/// `"500k"`, `"1.5M"`, `"10MB"`, `"80Mbit"`: a whole count.
pub(crate) fn count_from_text(text: &str, unit: Unit) -> Result<u64, QuantityFault> {
    let scaled = scaled_from_text(text, unit)?;
    whole(scaled.numerator, scaled.divisor)
}

/// `"100/m"`, `"80Mbit/s"`, `"500k"`: tokens and the seconds in which they are gained. Where a second does
/// not give a whole number of tokens, a minute or an hour may (`4bit` is 30 bytes a minute).
pub(crate) fn rate_from_text(text: &str, unit: Unit) -> Result<(u64, u32), QuantityFault> {
    let (count, per_seconds) = match text.split_once('/') {
        None => (text, 1),
        Some((count, "s")) => (count, 1),
        Some((count, "m")) => (count, 60),
        Some((count, "h")) => (count, 3600),
        Some((_, other)) => {
            let suggestion = per_suggestion(other);
            return Err(QuantityFault::UnknownUnit {
                unit: format!("/{}", cut(other)),
                suggestion,
            });
        }
    };
    let scaled = scaled_from_text(count, unit)?;
    for seconds in [1, 60, 3600] {
        if seconds < per_seconds {
            continue;
        }
        let numerator = scaled.numerator * u128::from(seconds / per_seconds);
        if numerator.is_multiple_of(scaled.divisor) {
            return Ok((whole(numerator, scaled.divisor)?, seconds));
        }
    }
    Err(QuantityFault::NotWhole)
}

/// `"1h30m"`, `"250ms"`: units from the longest to the shortest, each at most once.
pub(crate) fn duration_from_text(text: &str) -> Result<Duration, QuantityFault> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(QuantityFault::NotANumber);
    }
    let mut rest = text;
    let mut milliseconds: u64 = 0;
    let mut unit_before = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| QuantityFault::NotANumber)?;
        let unit_milliseconds = duration_unit(unit)?;
        if unit_milliseconds >= unit_before {
            return Err(QuantityFault::UnitOrder);
        }
        unit_before = unit_milliseconds;
        let part = number
            .checked_mul(unit_milliseconds)
            .ok_or(QuantityFault::TooLarge)?;
        milliseconds = milliseconds.checked_add(part).ok_or(QuantityFault::TooLarge)?;
        rest = tail;
    }
    Ok(Duration::from_millis(milliseconds))
}

/// The shortest text that reads back as the same duration.
pub(crate) fn duration_text(duration: Duration) -> String {
    const UNITS: [(&str, u128); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, milliseconds) in UNITS {
        if rest >= milliseconds {
            text.push_str(&format!("{}{unit}", rest / milliseconds));
            rest %= milliseconds;
        }
    }
    text
}

/// `"10%"`, `"0.5%"`.
pub(crate) fn percent_from_text(text: &str) -> Result<f64, QuantityFault> {
    let number = text.strip_suffix('%').ok_or(QuantityFault::NoUnit)?;
    let plain = !number.is_empty()
        && number.len() <= TEXT_BYTES_MAX
        && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !plain {
        return Err(QuantityFault::NotANumber);
    }
    number.parse().map_err(|_| QuantityFault::NotANumber)
}

fn duration_unit(unit: &str) -> Result<u64, QuantityFault> {
    Ok(match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(QuantityFault::NoUnit),
        other => {
            let suggestion = match other.to_ascii_lowercase().as_str() {
                "sec" | "secs" | "second" | "seconds" => Some("s"),
                "min" | "mins" | "minute" | "minutes" => Some("m"),
                "hour" | "hours" => Some("h"),
                "day" | "days" => Some("d"),
                _ => None,
            };
            let suggestion = suggestion.map(str::to_owned);
            return Err(QuantityFault::UnknownUnit {
                unit: cut(other),
                suggestion,
            });
        }
    })
}

fn scaled_from_text(text: &str, unit: Unit) -> Result<Scaled, QuantityFault> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(QuantityFault::NotANumber);
    }
    let number_bytes = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, suffix) = text.split_at(number_bytes);
    let (digits, decimals) = match number.split_once('.') {
        None => (number.to_owned(), 0),
        Some((whole, decimals)) if !whole.is_empty() && !decimals.is_empty() => {
            (format!("{whole}{decimals}"), decimals.len())
        }
        Some(_) => return Err(QuantityFault::NotANumber),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityFault::NotANumber);
    }
    // 18 digits times 2^30 times 3,600 fit 128 bits with room to spare.
    if digits.len() > 18 {
        return Err(QuantityFault::TooLarge);
    }
    let mantissa: u128 = digits.parse().map_err(|_| QuantityFault::NotANumber)?;
    let (factor, divisor) = suffix_factor(suffix, unit)?;
    let decimals = u32::try_from(decimals).map_err(|_| QuantityFault::TooLarge)?;
    Ok(Scaled {
        numerator: mantissa * factor,
        divisor: divisor * 10u128.pow(decimals),
    })
}

fn suffix_factor(suffix: &str, unit: Unit) -> Result<(u128, u128), QuantityFault> {
    let (prefix, divisor, of_bytes) = if let Some(prefix) = suffix.strip_suffix("bit") {
        (prefix, 8, true)
    } else if let Some(prefix) = suffix.strip_suffix('B') {
        (prefix, 1, true)
    } else {
        (suffix, 1, false)
    };
    let factor = match prefix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => {
            let suggestion = suffix_suggestion(suffix, unit);
            return Err(QuantityFault::UnknownUnit {
                unit: cut(suffix),
                suggestion,
            });
        }
    };
    if of_bytes && unit == Unit::Plain {
        return Err(QuantityFault::BytesUnit);
    }
    Ok((factor, divisor))
}

/// The unit that differs from what was written only by case and blanks.
fn suffix_suggestion(suffix: &str, unit: Unit) -> Option<String> {
    let wanted = suffix.trim().to_ascii_lowercase();
    let ends: &[&str] = if unit == Unit::Bytes {
        &["", "B", "bit"]
    } else {
        &[""]
    };
    let candidates = ["k", "M", "G", "Ki", "Mi", "Gi", ""]
        .iter()
        .flat_map(|prefix| ends.iter().map(move |end| format!("{prefix}{end}")));
    candidates
        .filter(|candidate| !candidate.is_empty())
        .find(|c| c.to_ascii_lowercase() == wanted)
}

fn per_suggestion(per: &str) -> Option<String> {
    let first = per.trim().to_ascii_lowercase().chars().next()?;
    matches!(first, 's' | 'm' | 'h').then(|| format!("/{first}"))
}

fn whole(numerator: u128, divisor: u128) -> Result<u64, QuantityFault> {
    if !numerator.is_multiple_of(divisor) {
        return Err(QuantityFault::NotWhole);
    }
    u64::try_from(numerator / divisor).map_err(|_| QuantityFault::TooLarge)
}

fn cut(text: &str) -> String {
    text.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_take_powers_of_1000_and_of_1024() {
        for (text, expected) in [
            ("0", 0),
            ("7", 7),
            ("500k", 500_000),
            ("1.5M", 1_500_000),
            ("2G", 2_000_000_000),
            ("4Ki", 4096),
            ("1Mi", 1 << 20),
            ("1Gi", 1 << 30),
        ] {
            assert_eq!(count_from_text(text, Unit::Plain), Ok(expected), "{text}");
            assert_eq!(count_from_text(text, Unit::Bytes), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bytes_take_bytes_and_bits_that_come_to_whole_bytes() {
        for (text, expected) in [
            ("10MB", 10_000_000),
            ("1MiB", 1 << 20),
            ("80Mbit", 10_000_000),
            ("8bit", 1),
            ("1Kibit", 128),
            ("3kB", 3000),
        ] {
            assert_eq!(count_from_text(text, Unit::Bytes), Ok(expected), "{text}");
            assert_eq!(
                count_from_text(text, Unit::Plain),
                Err(QuantityFault::BytesUnit),
                "{text}"
            );
        }
        assert_eq!(count_from_text("4bit", Unit::Bytes), Err(QuantityFault::NotWhole));
        assert_eq!(count_from_text("1.5", Unit::Bytes), Err(QuantityFault::NotWhole));
    }

    #[test]
    fn other_text_is_no_count() {
        for text in [
            "", "k", "-1", "+1", "1 k", "1_000", "1.", ".5", "1.2.3", "0x10", "1e3", "١",
        ] {
            assert!(count_from_text(text, Unit::Bytes).is_err(), "{text}");
        }
        let huge = "9".repeat(19);
        assert_eq!(count_from_text(&huge, Unit::Plain), Err(QuantityFault::TooLarge));
        let fault = count_from_text("500K", Unit::Plain);
        let expected = QuantityFault::UnknownUnit {
            unit: "K".into(),
            suggestion: Some("k".into()),
        };
        assert_eq!(fault, Err(expected));
    }

    #[test]
    fn rates_are_a_second_a_minute_or_an_hour() {
        assert_eq!(rate_from_text("500k", Unit::Plain), Ok((500_000, 1)));
        assert_eq!(rate_from_text("100/m", Unit::Plain), Ok((100, 60)));
        assert_eq!(rate_from_text("5/h", Unit::Plain), Ok((5, 3600)));
        assert_eq!(rate_from_text("80Mbit/s", Unit::Bytes), Ok((10_000_000, 1)));
        assert_eq!(rate_from_text("4bit", Unit::Bytes), Ok((30, 60)));
        assert_eq!(rate_from_text("0.5", Unit::Plain), Ok((30, 60)));
        assert_eq!(
            rate_from_text("1bit/h", Unit::Bytes),
            Err(QuantityFault::NotWhole)
        );
        assert!(rate_from_text("100/min", Unit::Plain).is_err());
        assert!(rate_from_text("100/", Unit::Plain).is_err());
    }

    #[test]
    fn durations_combine_units_in_falling_order() {
        for (text, milliseconds) in [
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("90d", 7_776_000_000),
            ("0s", 0),
            ("1s500ms", 1500),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(duration_from_text(text), Ok(duration), "{text}");
            assert_eq!(duration_text(duration), text);
        }
        assert_eq!(duration_from_text("30m1h"), Err(QuantityFault::UnitOrder));
        assert_eq!(duration_from_text("1h1h"), Err(QuantityFault::UnitOrder));
        assert_eq!(duration_from_text("10"), Err(QuantityFault::NoUnit));
        for text in [
            "",
            "h",
            "1.5h",
            "-1s",
            "1 s",
            "10sec",
            "99999999999999999999s",
            "600000000000000d",
        ] {
            assert!(duration_from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_need_their_sign() {
        assert_eq!(percent_from_text("10%"), Ok(10.0));
        assert_eq!(percent_from_text("0.5%"), Ok(0.5));
        assert_eq!(percent_from_text("10"), Err(QuantityFault::NoUnit));
        for text in ["%", "-1%", "1e1%", "inf%", "1.1.1%"] {
            assert_eq!(percent_from_text(text), Err(QuantityFault::NotANumber), "{text}");
        }
    }
}
