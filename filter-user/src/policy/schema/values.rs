//! Readers of single values: text, paths, names, words, and lists of them.
//!
//! Each takes its bounds from the key and records a fault where the value is none of its kind.

use std::collections::HashSet;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::policy::bounds::NAME_BYTES_MAX;
use crate::policy::keys::{Key, Kind};
use crate::policy::schema::{Value, Walk};
use crate::policy::source::Placed;
use crate::policy::suggest::{is_unprintable, nearest, quoted};
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
pub(crate) fn path(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<PathBuf> {
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
            // Of credentials nothing is quoted: one of them may be a key.
            Some(written)
                if written.len() < 60
                    && key.name != "credentials"
                    && !matches!(value.get_ref(), DeValue::Table(_)) =>
            {
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
    let mut seen = HashSet::new();
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
