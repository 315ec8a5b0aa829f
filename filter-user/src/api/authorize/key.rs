//! Which credential a request carries: the key of its headers as a fingerprint, or an id that the gateway proved.
//!
//! A key is never stored, logged or echoed: it is read from the header and only its fingerprint leaves this module.

use axum::http::{HeaderMap, HeaderName};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::policy::model::{Credentials, Scheme};

/// The header of a proved id, taken on listeners with `assert`.
pub(crate) const ASSERTED: HeaderName = HeaderName::from_static("keyfence-credential");
/// The shortest secret that is taken: as long as its digest (RFC 2104, 3).
const SECRET_BYTES_MIN: usize = 32;

/// A header of `[credentials] header`, and the scheme that its value begins with.
#[derive(Clone, Debug)]
struct Place {
    header: HeaderName,
    scheme: Option<String>,
}

/// Where keys stand and how they are fingerprinted.
#[derive(Clone)]
pub(crate) struct Keys {
    places: Vec<Place>,
    /// Of hmac-sha256, with their ids, keyed; the first is for new fingerprints, all are tried.
    secrets: Vec<(String, Hmac<Sha256>)>,
}

/// Why the keys of requests cannot be read as the policy wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    #[error(
        "the secret {id} of [credentials] secret-files ({path}): {error}; the daemon must be able to read it"
    )]
    Unreadable { id: String, path: String, error: String },
    #[error(
        "the secret {id} of [credentials] secret-files ({path}) has {length} bytes; write at least 32 random ones \
         (`head -c 32 /dev/urandom | base64`)"
    )]
    Short { id: String, path: String, length: usize },
}

impl Keys {
    /// `secrets` are the contents of `secret-files`, in their order.
    pub(crate) fn new(credentials: &Credentials, secrets: &[Vec<u8>]) -> Result<Keys, KeysError> {
        let places = credentials.header.iter().filter_map(|written| {
            let (header, scheme) = match written.split_once(": ") {
                Some((header, scheme)) => (header, Some(scheme.to_owned())),
                None => (written.as_str(), None),
            };
            // The policy has checked that it is a name.
            let header = HeaderName::from_bytes(header.as_bytes()).ok()?;
            Some(Place { header, scheme })
        });
        let mut keyed = Vec::new();
        if credentials.scheme == Scheme::HmacSha256 {
            for ((id, path), secret) in credentials.secret_files.iter().zip(secrets) {
                let secret = secret.trim_ascii_end();
                if secret.len() < SECRET_BYTES_MIN {
                    return Err(KeysError::Short {
                        id: id.clone(),
                        path: path.display().to_string(),
                        length: secret.len(),
                    });
                }
                let mac = Hmac::new_from_slice(secret).expect("a key of HMAC may have any length");
                keyed.push((id.clone(), mac));
            }
        }
        Ok(Keys {
            places: places.collect(),
            secrets: keyed,
        })
    }

    /// The credentials that the request may stand for; none where it carries no key, an empty one, or one header
    /// twice with different values.
    pub(crate) fn of_request(&self, headers: &HeaderMap, may_assert: bool) -> Vec<String> {
        if may_assert && headers.contains_key(ASSERTED) {
            let asserted = single(headers, &ASSERTED).and_then(|value| std::str::from_utf8(value).ok());
            return asserted.map(str::to_owned).into_iter().collect();
        }
        match self.key(headers) {
            Some(key) => self.fingerprints(key),
            None => Vec::new(),
        }
    }

    /// The first header of the policy that is there decides, also where it is empty.
    fn key<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        for place in &self.places {
            if !headers.contains_key(&place.header) {
                continue;
            }
            let Some(scheme) = &place.scheme else {
                return single(headers, &place.header);
            };
            let all = headers.get_all(&place.header);
            if all.iter().any(|value| has_scheme(value.as_bytes(), scheme)) {
                let value = single(headers, &place.header)?;
                let key = value.get(scheme.len()..)?.trim_ascii();
                return (!key.is_empty()).then_some(key);
            }
        }
        None
    }

    fn fingerprints(&self, key: &[u8]) -> Vec<String> {
        if self.secrets.is_empty() {
            return vec![format!("sha256:{}", hex(&Sha256::digest(key)))];
        }
        let keyed = |(id, mac): &(String, Hmac<Sha256>)| {
            let digest = mac.clone().chain_update(key).finalize().into_bytes();
            format!("hmac-sha256:{id}:{}", hex(&digest))
        };
        self.secrets.iter().map(keyed).collect()
    }
}

/// Whether two credentials are the same; the time it takes tells only their lengths.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// The header's value where all its lines agree on one that is not empty.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers
        .get_all(name)
        .iter()
        .map(|value| value.as_bytes().trim_ascii());
    let first = values.next().filter(|value| !value.is_empty())?;
    values.all(|value| value == first).then_some(first)
}

/// Schemes are compared without case (RFC 9110, 11.1).
fn has_scheme(value: &[u8], scheme: &str) -> bool {
    let value = value.trim_ascii();
    let rest = value.get(scheme.len()..);
    value.len() >= scheme.len()
        && value[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes())
        && rest.is_some_and(|rest| rest.is_empty() || rest[0] == b' ')
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}
