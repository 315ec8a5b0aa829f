//! "Did you mean …?": the known word nearest to a mistyped one, and how foreign text is quoted in messages.

use crate::policy::secret::is_key;

/// Longer words are no slip of the finger.
const WORD_CHARS_MAX: usize = 64;
/// How much of foreign text a message shows.
const QUOTE_CHARS_MAX: usize = 80;

/// The candidate nearest to `word`, if it is near enough to be meant; of equals the first.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word
        .chars()
        .take(WORD_CHARS_MAX + 1)
        .flat_map(char::to_lowercase)
        .collect();
    if word.is_empty() || word.len() > WORD_CHARS_MAX {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        // A third of the word may be wrong: `surces` is `sources`, `foo` is nothing.
        let distance_max = (word.len().max(other.len()) / 3).max(1);
        if word.len().abs_diff(other.len()) > distance_max {
            continue;
        }
        let distance = edit_distance(&word, &other);
        if distance <= distance_max && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Foreign text between backquotes: control characters escaped, long text cut, keys not at all.
pub(crate) fn quoted(text: &str) -> String {
    if is_key(text) {
        return "what looks like a key".to_owned();
    }
    let mut shown: String = text.chars().take(QUOTE_CHARS_MAX).flat_map(escaped).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// Whether a terminal would act on the character instead of showing it: control characters and those that
/// reorder text.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn escaped(c: char) -> Vec<char> {
    if is_unprintable(c) {
        c.escape_unicode().collect()
    } else {
        vec![c]
    }
}

/// Insertions, removals, changes and swaps of neighbours.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let change = last[j] + usize::from(x != y);
            let mut least = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let words = ["sources", "source-ports", "services", "name"];
        assert_eq!(nearest("surces", words), Some("sources"));
        assert_eq!(nearest("source_ports", words), Some("source-ports"));
        assert_eq!(nearest("Services", words), Some("services"));
        assert_eq!(nearest("nmae", words), Some("name"));
        assert_eq!(nearest("protocol", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest(&"s".repeat(10_000), words), None);
    }

    #[test]
    fn quotes_show_no_control_character_and_no_long_text() {
        assert_eq!(quoted("eth0"), "`eth0`");
        assert_eq!(quoted("a\u{1b}[2Jb"), "`a\\u{1b}[2Jb`");
        assert_eq!(quoted(&"x".repeat(200)).chars().count(), QUOTE_CHARS_MAX + 3);
    }
}
