//! What looks like a secret key: refused as a credential, never quoted, masked where files with faults are
//! shown.

/// Beginnings of keys that issuers hand out.
const PREFIXES: [&str; 22] = [
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
    "hf_",
];
/// With fewer characters after its beginning, text elsewhere than in a credential may be a name.
const TAIL_BYTES_MIN: usize = 16;

/// Whether a credential has the shape of a key instead of an id.
pub(crate) fn looks_like_a_key(text: &str) -> bool {
    is_jwt(text) || is_aws(text) || tail(text).is_some() || text.contains("PRIVATE KEY")
}

/// Whether text that stands anywhere is all but certainly a key.
pub(crate) fn is_key(text: &str) -> bool {
    is_jwt(text) || is_aws(text) || tail(text).is_some_and(|tail| tail.len() >= TAIL_BYTES_MIN)
}

/// The parts of a text that are keys, as spans of bytes.
pub(crate) fn keys_in(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+' | b'/');
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            let start = at + rest.iter().position(is_part).unwrap_or(rest.len());
            let rest = &text.as_bytes()[start..];
            let end = start + rest.iter().position(|b| !is_part(b)).unwrap_or(rest.len());
            at = end;
            // Both ends stand beside ASCII, so they are boundaries of characters.
            if text.get(start..end).is_some_and(is_key) {
                return Some(start..end);
            }
        }
        None
    })
}

fn tail(text: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix))
}

fn is_jwt(text: &str) -> bool {
    let is_token = |part: &str| {
        part.len() >= 4
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let mut parts = text.split('.');
    text.starts_with("eyJ")
        && parts.by_ref().take(2).filter(|part| is_token(part)).count() == 2
        && parts.next().is_some()
}

fn is_aws(text: &str) -> bool {
    ["AKIA", "ASIA"]
        .iter()
        .filter_map(|prefix| text.strip_prefix(prefix))
        .any(|rest| rest.len() >= 12 && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_known_shapes_and_ids_have_not() {
        for key in [
            "sk_live_1",
            "ghp_x",
            "AKIAIOSFODNN7EXAMPLE",
            "eyJhbGciOi.eyJzdWIi.c2ln",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert!(looks_like_a_key(key), "{key}");
        }
        for id in ["key-1", "skate", "AKIA-7", "eyJ.x.y", "app@example.org"] {
            assert!(!looks_like_a_key(id), "{id}");
        }
        assert!(!is_key("sk-web") && is_key("sk-0123456789abcdef"));
    }

    #[test]
    fn keys_are_found_in_text() {
        let text = "a = [\"ghp_0123456789abcdef\"] # ä AKIAIOSFODNN7EXAMPLE";
        let found: Vec<&str> = keys_in(text).map(|span| &text[span]).collect();
        assert_eq!(found, ["ghp_0123456789abcdef", "AKIAIOSFODNN7EXAMPLE"]);
        assert_eq!(keys_in("name = \"sk-web\"").count(), 0);
    }
}
