//! The second layer: whether a key may be used for a service from an address.
//!
//! An address listed for one key must not serve another key. `key` and `address` read what a gateway sends, the
//! bindings judge, and the answer is what every gateway understands: 200, 401, 403, or 400 where the gateway itself is
//! set up wrongly. Limits are not judged and no token is taken. The query and the body are ignored.

pub(super) mod address;
mod fields;
mod idle;
pub(super) mod key;
pub(super) mod quick;
#[cfg(test)]
pub(super) mod tests;

use std::borrow::Cow;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use self::address::Addresses;
use self::fields::Fields;
use self::key::Keys;
use super::Context;
use super::problem::{Code, Problem};
use super::query::decoded;
use super::who::Who;
use crate::bindings::requests::{Ask, Authorized, Verdict};
use crate::policy::model::{Authorize, Credentials};

const VERDICT: HeaderName = HeaderName::from_static("keyfence-verdict");
const CREDENTIAL: HeaderName = HeaderName::from_static("keyfence-credential");
const PUBLISHER: HeaderName = HeaderName::from_static("keyfence-publisher");
const REASON: HeaderName = HeaderName::from_static("keyfence-reason");
const PREFIX: &str = "/v1/authorize/";
/// The paths, as the table of routes has them.
pub(super) const PATH: &str = "/v1/authorize/{service}";
pub(super) const PATH_BELOW: &str = "/v1/authorize/{service}/{*rest}";

/// `[credentials]` and `[authorize]`, as requests ask them. Read at start only.
#[derive(Debug)]
pub(super) struct Gateways {
    keys: Keys,
    addresses: Addresses,
    reason_header: bool,
}

impl Gateways {
    pub(super) fn new(credentials: &Credentials, authorize: &Authorize) -> Gateways {
        Gateways {
            keys: Keys::new(credentials),
            addresses: Addresses::new(authorize),
            reason_header: authorize.reason_header,
        }
    }
}

/// An answer without a verdict.
enum Unasked {
    Starting,
    /// The proxy sends what it should not.
    Misconfigured(String),
}

/// A verdict as a gateway hears it.
struct Decided<'p> {
    service: Cow<'p, str>,
    status: StatusCode,
    /// In the metrics.
    result: &'static str,
    said: Said,
}

/// What became of a request: the answer's headers.
struct Said {
    verdict: &'static str,
    reason: &'static str,
    credential: String,
    publisher: String,
}

impl Said {
    const NOTHING: Said = Said {
        verdict: "",
        reason: "",
        credential: String::new(),
        publisher: String::new(),
    };
}

pub(super) fn answer(context: &Context, who: &Who, request: &Parts) -> Response {
    let decided = decide(context, who, request.uri.path(), &request.headers);
    let reason_header = (context.backing.as_ref()).is_some_and(|backing| backing.gateways.reason_header);
    let decided = match decided {
        Ok(decided) => decided,
        Err(Unasked::Starting) => {
            let problem = Problem::new(Code::Starting, "the bindings are not there yet");
            return with_headers(problem.into_response(), &Said::NOTHING, false);
        }
        Err(Unasked::Misconfigured(detail)) => {
            context.metrics.authorized("", "misconfigured");
            let refused = Problem::new(Code::GatewayMisconfigured, detail).into_response();
            return with_headers(refused, &Said::NOTHING, reason_header);
        }
    };
    context.metrics.authorized(&decided.service, decided.result);
    let mut response = decided.status.into_response();
    if let Some(challenge) = decided.challenge(context)
        && let Ok(challenge) = HeaderValue::from_str(challenge)
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    with_headers(response, &decided.said, reason_header)
}

/// An answer to a gateway that came from elsewhere: it has the headers of every answer, and they say nothing.
pub(super) fn unanswered(response: Response) -> Response {
    match response.headers().contains_key(VERDICT) {
        true => response,
        false => with_headers(response, &Said::NOTHING, false),
    }
}

/// What a request comes to; says and counts nothing.
fn decide<'p>(
    context: &Context,
    who: &Who,
    path: &'p str,
    headers: &(impl Fields + ?Sized),
) -> Result<Decided<'p>, Unasked> {
    let backing = context.backing.as_ref().ok_or(Unasked::Starting)?;
    let gateways = &backing.gateways;
    let misconfigured = |detail: &str| Unasked::Misconfigured(detail.to_owned());
    let path = path.strip_prefix(PREFIX).unwrap_or_default();
    let service = path.split('/').next().unwrap_or_default();
    let service = match service.contains('%') {
        true => {
            Cow::Owned(decoded(service).ok_or_else(|| misconfigured("the service in the path is no text"))?)
        }
        false => Cow::Borrowed(service),
    };
    let (address, source_port) = gateways
        .addresses
        .address(headers)
        .and_then(|address| Ok((address, address::port(headers)?)))
        .map_err(|fault| misconfigured(&fault.to_string()))?;
    // No key is judged as one that nobody listed: the service must exist, and may observe.
    let key = gateways.keys.of_request(headers, who.listener.assert);
    let authorized = backing.bindings.authorize(&Ask {
        service: &service,
        key: key.unwrap_or(key::NONE),
        address,
        source_port,
        observing: context.view.observes(&service),
    });
    if authorized.verdict == Verdict::NoSuchService {
        return Err(misconfigured("the service in the path is none of the policy"));
    }
    let (status, result, said) = outcome(authorized);
    Ok(Decided {
        service,
        status,
        result,
        said,
    })
}

impl Decided<'_> {
    fn challenge<'c>(&self, context: &'c Context) -> Option<&'c str> {
        let unknown = self.status == StatusCode::UNAUTHORIZED;
        let backing = context.backing.as_ref().filter(|_| unknown)?;
        Some(backing.gateways.keys.challenge())
    }
}

/// Status, `result` in the metrics, and what the headers say.
fn outcome(authorized: Authorized) -> (StatusCode, &'static str, Said) {
    let observes = authorized.observe && authorized.verdict != Verdict::Allowed;
    let (status, result) = match authorized.verdict {
        Verdict::Allowed => (StatusCode::OK, "allowed"),
        Verdict::Unknown if observes => (StatusCode::OK, "observe-unknown"),
        Verdict::Denied if observes => (StatusCode::OK, "observe-denied"),
        Verdict::Ended if observes => (StatusCode::OK, "observe-ended"),
        Verdict::Address if observes => (StatusCode::OK, "observe-address"),
        Verdict::Unknown => (StatusCode::UNAUTHORIZED, "unknown"),
        Verdict::Denied => (StatusCode::FORBIDDEN, "denied"),
        Verdict::Ended => (StatusCode::FORBIDDEN, "ended"),
        Verdict::Address => (StatusCode::FORBIDDEN, "address"),
        Verdict::NoSuchService => (StatusCode::BAD_REQUEST, "misconfigured"),
    };
    let verdict = match (status, observes) {
        (_, true) => "observe",
        (StatusCode::OK, false) => "pass",
        _ => "drop",
    };
    let said = Said {
        verdict,
        reason: authorized.verdict.as_str(),
        credential: authorized.credential,
        publisher: authorized.publisher,
    };
    (status, result, said)
}

fn with_headers(mut response: Response, said: &Said, reason_header: bool) -> Response {
    let headers = response.headers_mut();
    set(headers, VERDICT, said.verdict);
    set(headers, CREDENTIAL, &said.credential);
    set(headers, PUBLISHER, &said.publisher);
    if reason_header {
        set(headers, REASON, said.reason);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(in_header(value)).unwrap_or(HeaderValue::from_static(""));
    headers.insert(name, value);
}

/// A credential that cannot stand in a header is left out: its header is then empty.
fn in_header(value: &str) -> &str {
    let stands = |byte: u8| (b' '..=b'~').contains(&byte);
    if value.bytes().all(stands) { value } else { "" }
}
