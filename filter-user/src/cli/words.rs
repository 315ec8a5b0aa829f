//! Numbers as people read them: thousands apart, and each with the word for one or for many.

use std::time::Duration;

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1 file`, `2,000 files`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    format!("{} {word}", thousands(number as u64))
}

/// `3 ms`, `2.4 s`; never nothing.
pub(super) fn time(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis().max(1))
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

/// So many in that time, a second: `20,000`.
pub(super) fn rate(number: u64, took: Duration) -> String {
    let rate = u128::from(number) * 1_000_000 / took.as_micros().max(1);
    thousands(u64::try_from(rate).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_have_their_word() {
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), shown);
        }
        let files = |number| count(number, "file", "files");
        assert_eq!(
            (files(0), files(1), files(2000)),
            ("0 files".into(), "1 file".into(), "2,000 files".into())
        );
    }

    #[test]
    fn time_is_never_nothing() {
        let shown = [0, 3_400, 900_000, 12_340_000].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(shown, ["1 ms", "3 ms", "900 ms", "12.3 s"]);
        assert_eq!(rate(3_000, Duration::from_millis(1500)), "2,000");
        assert_eq!(rate(0, Duration::ZERO), "0");
    }
}
