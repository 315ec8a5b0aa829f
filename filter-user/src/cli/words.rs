//! Numbers as people read them: thousands apart, and each with the word for one or for many.

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

/// A rate or a measure, which is never negative, as people read it: whole.
#[allow(clippy::cast_sign_loss, reason = "clamped to what is not negative")]
pub(super) fn whole(number: f64) -> u64 {
    number.round().max(0.0) as u64
}

/// `3 ms`, `2.4 s`; never nothing.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{} ms", whole(seconds * 1e3).max(1))
    } else {
        format!("{seconds:.1} s")
    }
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
        let shown = [0.0, 0.0034, 0.9, 12.34].map(seconds);
        assert_eq!(shown, ["1 ms", "3 ms", "900 ms", "12.3 s"]);
    }
}
