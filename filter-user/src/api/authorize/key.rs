//! Where a request's key stands: the headers of `[credentials] header`, or an id that the gateway proved.
//!
//! A key is never stored, logged or echoed: it is lent to the bindings, who fingerprint it.

use axum::http::HeaderName;

use super::fields::Fields;
use crate::bindings::requests::AskedKey;
use crate::policy::model::Credentials;

/// The header of a proved id, taken on listeners with `assert`.
pub(crate) const ASSERTED: HeaderName = HeaderName::from_static("keyfence-credential");

/// Stands for no key at all. No listed credential is its fingerprint's key: an empty one is never taken.
pub(crate) const NONE: AskedKey<'static> = AskedKey::Asserted("");

/// A header of `[credentials] header`, and the scheme that its value begins with.
#[derive(Clone, Debug)]
struct Place {
    header: HeaderName,
    scheme: Option<String>,
}

/// Where keys stand, in the policy's order.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    places: Vec<Place>,
}

impl Keys {
    pub(crate) fn new(credentials: &Credentials) -> Keys {
        let places = credentials.header.iter().filter_map(|written| {
            let (header, scheme) = match written.split_once(": ") {
                Some((header, scheme)) => (header, Some(scheme.to_owned())),
                None => (written.as_str(), None),
            };
            // The policy has checked that it is a name.
            let header = HeaderName::from_bytes(header.as_bytes()).ok()?;
            Some(Place { header, scheme })
        });
        Keys {
            places: places.collect(),
        }
    }

    /// None where the request carries no key, an empty one, or one header twice with different values.
    pub(crate) fn of_request<'h>(
        &self,
        headers: &'h (impl Fields + ?Sized),
        may_assert: bool,
    ) -> Option<AskedKey<'h>> {
        if may_assert && headers.has(&ASSERTED) {
            let asserted = single(headers, &ASSERTED)?;
            return std::str::from_utf8(asserted).ok().map(AskedKey::Asserted);
        }
        self.key(headers).map(AskedKey::Secret)
    }

    /// What a 401 asks for (RFC 9110, 11.6.1).
    pub(crate) fn challenge(&self) -> &str {
        let schemes = self.places.iter().find_map(|place| place.scheme.as_deref());
        schemes.unwrap_or("ApiKey")
    }

    /// The first header of the policy that is there decides, also where it is empty.
    fn key<'h>(&self, headers: &'h (impl Fields + ?Sized)) -> Option<&'h [u8]> {
        for place in &self.places {
            if !headers.has(&place.header) {
                continue;
            }
            let Some(scheme) = &place.scheme else {
                return single(headers, &place.header);
            };
            let mut all = headers.all(&place.header);
            if all.any(|value| has_scheme(value, scheme)) {
                let value = single(headers, &place.header)?;
                let key = value.get(scheme.len()..)?.trim_ascii();
                return (!key.is_empty()).then_some(key);
            }
        }
        None
    }
}

/// The header's value where all its lines agree on one that is not empty.
fn single<'h>(headers: &'h (impl Fields + ?Sized), name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.all(name).map(<[u8]>::trim_ascii);
    let first = values.next().filter(|value| !value.is_empty())?;
    values.all(|value| value == first).then_some(first)
}

/// Schemes are compared without case (RFC 9110, 11.1).
fn has_scheme(value: &[u8], scheme: &str) -> bool {
    let value = value.trim_ascii();
    let Some((start, rest)) = value.split_at_checked(scheme.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(scheme.as_bytes()) && rest.first().is_none_or(|byte| *byte == b' ')
}
