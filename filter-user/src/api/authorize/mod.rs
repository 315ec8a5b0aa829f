//! The second layer: whether a key may be used for a service from an address.
//!
//! An address listed for one key must not serve another key. `key` and `address` read what a gateway sends, the
//! bindings judge, and the answer is what every gateway understands: 200, 401, 403, or 400 where the gateway itself is
//! set up wrongly. Limits are not judged and no token is taken. The query and the body are ignored.

pub(super) mod address;
pub(super) mod key;
#[cfg(test)]
pub(super) mod tests;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use self::address::Addresses;
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

/// What became of a request: the answer's headers, and `result` in the metrics.
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
    let Some(backing) = &context.backing else {
        let detail = "the bindings are not there yet";
        return with_headers(
            Problem::new(Code::Starting, detail).into_response(),
            &Said::NOTHING,
            false,
        );
    };
    let gateways = &backing.gateways;
    let misconfigured = |detail: String| {
        context.metrics.authorized("", "misconfigured");
        let refused = Problem::new(Code::GatewayMisconfigured, detail).into_response();
        with_headers(refused, &Said::NOTHING, gateways.reason_header)
    };
    let path = request.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let service = match decoded(path.split('/').next().unwrap_or_default()) {
        Some(service) => service,
        None => return misconfigured("the service in the path is no text".to_owned()),
    };
    let headers = &request.headers;
    let from = gateways
        .addresses
        .address(headers)
        .and_then(|address| Ok((address, address::port(headers)?)));
    let (address, source_port) = match from {
        Ok(from) => from,
        Err(fault) => return misconfigured(fault.to_string()),
    };
    // No key is judged as one that nobody listed: the service must exist, and may observe.
    let key = gateways.keys.of_request(headers, who.listener.assert);
    let authorized = backing.bindings.authorize(&Ask {
        service: &service,
        key: key.unwrap_or(key::NONE),
        address,
        source_port,
    });
    if authorized.verdict == Verdict::NoSuchService {
        return misconfigured("the service in the path is none of the policy".to_owned());
    }
    let (status, result, said) = outcome(authorized);
    context.metrics.authorized(&service, result);
    let mut response = status.into_response();
    if status == StatusCode::UNAUTHORIZED
        && let Ok(challenge) = HeaderValue::from_str(gateways.keys.challenge())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    with_headers(response, &said, gateways.reason_header)
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

/// A credential that cannot stand in a header is left out: its header is then empty.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
    headers.insert(name, value);
}
