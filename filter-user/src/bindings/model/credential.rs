//! Credentials: a key's id or its fingerprint, never the key.

use hmac::{Hmac, Mac as _};
use regex::Regex;
use sha2::{Digest as _, Sha256};

use crate::policy::secret::looks_like_a_key;

/// Ids are at most this long, whatever the pattern says: they are keys of the store.
pub(crate) const CREDENTIAL_BYTES_MAX: usize = 256;

const FINGERPRINT_HEX: usize = 64;

/// What is wrong with a credential: code, detail and fix. Never quotes it.
pub(crate) fn fault(text: &str, id_pattern: &Regex) -> Option<(&'static str, String, &'static str)> {
    const FIX: &str =
        "send the key's id, or its fingerprint: sha256: or hmac-sha256:KEYID: and 64 lower-case hex digits";
    if text.is_empty() || text.len() > CREDENTIAL_BYTES_MAX {
        let detail = format!("a credential has 1 to {CREDENTIAL_BYTES_MAX} bytes");
        return Some(("bad-credential", detail, FIX));
    }
    if looks_like_a_key(text) {
        let detail = "this looks like a key itself: it must never leave the application".to_owned();
        return Some(("looks-like-a-key", detail, FIX));
    }
    // In capitals it was meant as one, and none would ever be found under it.
    let lower = text.to_ascii_lowercase();
    if let Some(meant) = ["sha256:", "hmac-sha256:"]
        .iter()
        .find(|prefix| lower.starts_with(**prefix))
    {
        let rest = text.strip_prefix(meant).unwrap_or_default();
        let hex = match text.starts_with("hmac-") {
            true => keyed(rest).unwrap_or_default(),
            false => rest,
        };
        let is_hex = hex.len() == FINGERPRINT_HEX
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let detail = || "a fingerprint is its scheme in lower case and 64 lower-case hex digits".to_owned();
        return (!is_hex).then(|| ("bad-fingerprint", detail(), FIX));
    }
    // A control character in a name would break lines of logs and headers, whatever the pattern admits.
    if text.chars().any(char::is_control) || !id_pattern.is_match(text) {
        let detail = "the id does not match [credentials] id-pattern".to_owned();
        return Some(("bad-credential", detail, FIX));
    }
    None
}

/// The digits of `KEYID:` and 64 of them. No secret's id has control characters, and none is without one.
fn keyed(rest: &str) -> Option<&str> {
    let (id, hex) = rest.split_once(':')?;
    (!id.is_empty() && !id.chars().any(char::is_control)).then_some(hex)
}

/// How keys are fingerprinted: each with every secret, and plainly.
#[derive(Default)]
pub(crate) struct Fingerprints(Vec<(String, Hmac<Sha256>)>);

impl Fingerprints {
    /// With these secrets, by their ids.
    pub(crate) fn new(secrets: Vec<(String, Vec<u8>)>) -> Fingerprints {
        let keyed = |(id, secret): (String, Vec<u8>)| {
            let mac = Hmac::new_from_slice(&secret).expect("HMAC takes keys of any length");
            (id, mac)
        };
        Fingerprints(secrets.into_iter().map(keyed).collect())
    }

    /// Every fingerprint that the key may be stored as. The plain one too where there are secrets: whoever changes over to
    /// them does so publisher by publisher, and a plain one that is listed is listed on purpose.
    pub(crate) fn of<'k>(&'k self, key: &'k [u8]) -> impl Iterator<Item = String> + 'k {
        let keyed = self.0.iter().map(move |(id, mac)| {
            let tag = mac.clone().chain_update(key).finalize().into_bytes();
            fingerprint(&["hmac-sha256:", id, ":"], &tag)
        });
        let plain = move || fingerprint(&["sha256:"], &Sha256::digest(key));
        keyed.chain(std::iter::once_with(plain))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(id, _)| id.as_str())
    }
}

/// Under which secret a credential is a fingerprint; `None` where it is a plain one, or an id.
pub(crate) fn secret_id(credential: &str) -> Option<&str> {
    let (id, _) = credential.strip_prefix("hmac-sha256:")?.rsplit_once(':')?;
    Some(id)
}

/// One allocation: a text that grows asks for the heap's lock, and so for whoever holds it beside.
fn fingerprint(scheme: &[&str], digest: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let length: usize = scheme.iter().map(|part| part.len()).sum();
    let mut text = Vec::with_capacity(length + digest.len() * 2);
    for part in scheme {
        text.extend_from_slice(part.as_bytes());
    }
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    text.extend(digits.map(|digit| DIGITS[usize::from(digit)]));
    String::from_utf8(text).expect("its parts are texts, and digits are ASCII")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    fingerprint(&[], bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<&'static str> {
        let pattern = Regex::new("^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$").unwrap();
        fault(text, &pattern).map(|(code, _, _)| code)
    }

    #[test]
    fn ids_and_fingerprints_are_credentials_and_keys_are_not() {
        let hash = "0f".repeat(32);
        for good in [
            "key-1",
            "app@example.org",
            &format!("sha256:{hash}"),
            &format!("hmac-sha256:k2:{hash}"),
        ] {
            assert_eq!(code(good), None, "{good}");
        }
        for key in [
            "sk_live_1",
            "ghp_x",
            "AKIAIOSFODNN7EXAMPLE",
            "eyJhbGciOi.eyJzdWIi.c2ln",
        ] {
            assert_eq!(code(key), Some("looks-like-a-key"), "{key}");
        }
        for bad in [
            "sha256:00",
            &format!("sha256:{}", "0F".repeat(32)),
            &format!("hmac-sha256:{hash}"),
            &format!("SHA256:{hash}"),
            &format!("HMAC-sha256:k2:{hash}"),
            &format!("hmac-sha256::{hash}"),
            &format!("hmac-sha256:k\u{7}:{hash}"),
        ] {
            assert_eq!(code(bad), Some("bad-fingerprint"), "{bad}");
        }
        for bad in ["", "-x", "a b", "a\nb", &"x".repeat(300)] {
            assert_eq!(code(bad), Some("bad-credential"), "{bad}");
        }
    }

    #[test]
    fn fingerprints_are_those_of_the_published_test_vectors() {
        // FIPS 180-2 B.1, and RFC 4231 test case 2.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let plain = Fingerprints::default();
        let of = |known: &Fingerprints, key: &[u8]| -> Vec<String> { known.of(key).collect() };
        assert_eq!(of(&plain, b"abc"), [format!("sha256:{abc}")]);
        let keyed = Fingerprints::new(vec![
            ("k2".into(), b"Jefe".to_vec()),
            ("k1".into(), b"x".to_vec()),
        ]);
        let tags = of(&keyed, b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(tags[0], format!("hmac-sha256:k2:{expected}"));
        assert_eq!(tags.len(), 3);
        assert_eq!(
            tags[1..].iter().map(|tag| secret_id(tag)).collect::<Vec<_>>(),
            [Some("k1"), None]
        );
        assert_eq!(tags[2..], of(&plain, b"what do ya want for nothing?"));
        assert_eq!(secret_id("key-1"), None);
    }
}
