//! The second layer: whether a key may be used for a service from an address. Pure: no IO, no clock.
//!
//! An address listed for one key must not serve another key. `key` and `address` read what a gateway sends, `rules`
//! is the policy's part of the answer, and `judge` joins it with the bindings of the key. Limits are not judged and
//! no token is taken.

pub(super) mod address;
pub(super) mod key;
pub(super) mod rules;
#[cfg(test)]
pub(super) mod tests;

/// What one entry (a binding, or a client of the policy) says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The publisher's name; empty for a client of the policy.
    pub(crate) publisher: String,
    /// It names the service.
    pub(crate) service: bool,
    /// One of its prefixes holds the address.
    pub(crate) address: bool,
    /// The source port is in its range, or is not known.
    pub(crate) port: bool,
    /// Its lease is over.
    pub(crate) ended: bool,
}

/// Why a request is answered as it is; the words of `Keyfence-Reason` and of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Allowed,
    /// No key, or one that nobody listed.
    Unknown,
    /// The address is denied, or the key is not listed for this service.
    Denied,
    /// What lists it here has ended.
    Ended,
    /// The key is listed, but not from this address (or source port).
    Address,
}

impl Reason {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Reason::Allowed => "allowed",
            Reason::Unknown => "unknown",
            Reason::Denied => "denied",
            Reason::Ended => "ended",
            Reason::Address => "address",
        }
    }
}

/// An answer's content. Empty texts are what is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) reason: Reason,
    pub(crate) credential: String,
    pub(crate) publisher: String,
}

/// Joins what the entries of a credential say. Any that admits is enough: one entry never hides another.
pub(crate) fn judge(credential: &str, entries: &[Facts], denied: bool) -> Judgement {
    let said = |reason, publisher: &str| Judgement {
        reason,
        credential: credential.to_owned(),
        publisher: publisher.to_owned(),
    };
    let Some(first) = entries.first() else {
        return Judgement {
            reason: Reason::Unknown,
            credential: String::new(),
            publisher: String::new(),
        };
    };
    if denied {
        return said(Reason::Denied, &first.publisher);
    }
    let here: Vec<&Facts> = entries.iter().filter(|facts| facts.service).collect();
    if let Some(admits) = here
        .iter()
        .find(|facts| facts.address && facts.port && !facts.ended)
    {
        return said(Reason::Allowed, &admits.publisher);
    }
    let holding = || here.iter().filter(|facts| facts.address);
    if let Some(ended) = holding().next()
        && holding().all(|facts| facts.ended)
    {
        return said(Reason::Ended, &ended.publisher);
    }
    match here.first() {
        Some(elsewhere) => said(Reason::Address, &elsewhere.publisher),
        None => said(Reason::Denied, &first.publisher),
    }
}
