//! Problem documents (RFC 9457): every refusal of the listeners.
//!
//! `Code` is closed: its slug is the `code` member and the end of `type`, both stable; the detail is for people
//! and never quotes what a caller sent.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::bindings::refusal::{self, FieldFault, Refusal};

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Malformed,
    TargetTooLong,
    HeadTooLarge,
    NotFound,
    MethodNotAllowed,
    NotAnOperator,
    TooLarge,
    ReloadInvalid,
    ReloadRefused,
    ReloadFailed,
    PolicyPending,
    NothingPending,
    NoEarlierPolicy,
    CountersUnreadable,
    RecordsUnreadable,
    CaptureFailed,
    CapturesMax,
    OperationFailed,
    NotImplemented,
    Busy,
    Timeout,
    BadQuery,
    GatewayMisconfigured,
    SlowBody,
    WrongMedia,
    RateExceeded,
    Starting,
    Draining,
    /// Of the bindings.
    Refused(refusal::Code),
}

impl Code {
    /// Those of the listeners themselves; `refusal::Code::ALL` are the others.
    pub const ALL: [Code; 28] = [
        Code::Malformed,
        Code::TargetTooLong,
        Code::HeadTooLarge,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::NotAnOperator,
        Code::TooLarge,
        Code::ReloadInvalid,
        Code::ReloadRefused,
        Code::ReloadFailed,
        Code::PolicyPending,
        Code::NothingPending,
        Code::NoEarlierPolicy,
        Code::CountersUnreadable,
        Code::RecordsUnreadable,
        Code::CaptureFailed,
        Code::CapturesMax,
        Code::OperationFailed,
        Code::NotImplemented,
        Code::Busy,
        Code::Timeout,
        Code::BadQuery,
        Code::GatewayMisconfigured,
        Code::SlowBody,
        Code::WrongMedia,
        Code::RateExceeded,
        Code::Starting,
        Code::Draining,
    ];

    pub const fn slug(self) -> &'static str {
        match self {
            Code::Malformed => "malformed",
            Code::TargetTooLong => "target-too-long",
            Code::HeadTooLarge => "head-too-large",
            Code::NotFound => "not-found",
            Code::MethodNotAllowed => "method-not-allowed",
            Code::NotAnOperator => "not-an-operator",
            Code::TooLarge => "too-large",
            Code::ReloadInvalid => "policy-invalid",
            Code::ReloadRefused => "policy-refused",
            Code::ReloadFailed => "reload-failed",
            Code::PolicyPending => "policy-pending",
            Code::NothingPending => "nothing-pending",
            Code::NoEarlierPolicy => "no-earlier-policy",
            Code::CountersUnreadable => "counters-unreadable",
            Code::RecordsUnreadable => "records-unreadable",
            Code::CaptureFailed => "capture-failed",
            Code::CapturesMax => "captures-max",
            Code::OperationFailed => "operation-failed",
            Code::NotImplemented => "not-implemented",
            Code::Busy => "busy",
            Code::Timeout => "timeout",
            Code::BadQuery => "bad-query",
            Code::GatewayMisconfigured => "gateway-misconfigured",
            Code::SlowBody => "slow-body",
            Code::WrongMedia => "unsupported-media-type",
            Code::RateExceeded => "rate-exceeded",
            Code::Starting => "starting",
            Code::Draining => "draining",
            Code::Refused(code) => code.slug(),
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Code::Malformed => "The request is malformed",
            Code::TargetTooLong => "The request's target is too long",
            Code::HeadTooLarge => "The request's head is too large",
            Code::NotFound => "There is nothing at this path",
            Code::MethodNotAllowed => "The path does not answer this method",
            Code::NotAnOperator => "The caller is not an operator",
            Code::TooLarge => "The body is too large",
            Code::ReloadInvalid => "The policy is invalid",
            Code::ReloadRefused => "A guard refused the policy",
            Code::ReloadFailed => "The policy could not be applied",
            Code::PolicyPending => "A policy waits to be confirmed",
            Code::NothingPending => "No policy waits to be confirmed",
            Code::NoEarlierPolicy => "There is no policy to go back to",
            Code::CountersUnreadable => "The kernel's counters cannot be read",
            Code::RecordsUnreadable => "The log of drops cannot be read",
            Code::CaptureFailed => "The capture cannot begin",
            Code::CapturesMax => "As many captures run as may",
            Code::OperationFailed => "What was asked could not be done",
            Code::NotImplemented => "This build does not do this yet",
            Code::Busy => "Too much is under way",
            Code::Timeout => "The answer took too long",
            Code::BadQuery => "The query cannot be read",
            Code::GatewayMisconfigured => "The gateway is not set up for this",
            Code::SlowBody => "The body came too slowly",
            Code::WrongMedia => "The body is of a type that is not taken here",
            Code::RateExceeded => "The caller asks more often than it may",
            Code::Starting => "The daemon is starting",
            Code::Draining => "The daemon is stopping",
            Code::Refused(code) => code.title(),
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Code::Malformed => StatusCode::BAD_REQUEST,
            Code::TargetTooLong => StatusCode::URI_TOO_LONG,
            Code::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::NotAnOperator => StatusCode::FORBIDDEN,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::ReloadInvalid => StatusCode::UNPROCESSABLE_ENTITY,
            Code::ReloadRefused
            | Code::PolicyPending
            | Code::NothingPending
            | Code::NoEarlierPolicy
            | Code::CapturesMax => StatusCode::CONFLICT,
            Code::ReloadFailed
            | Code::CountersUnreadable
            | Code::RecordsUnreadable
            | Code::CaptureFailed
            | Code::OperationFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Code::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Code::BadQuery | Code::GatewayMisconfigured => StatusCode::BAD_REQUEST,
            Code::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Code::WrongMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::RateExceeded => StatusCode::TOO_MANY_REQUESTS,
            Code::Busy | Code::Timeout | Code::Starting | Code::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Code::Refused(code) => match StatusCode::from_u16(code.status()) {
                Ok(status) => status,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

#[derive(Debug)]
pub struct Problem {
    pub code: Code,
    pub detail: String,
    /// Where it is not the code's.
    pub title: Option<&'static str>,
    /// The methods that the path answers, for a 405.
    pub allow: Option<Box<str>>,
    /// Each fault of a body's fields.
    pub errors: Vec<FieldFault>,
    /// Members of their own, such as the revocations that a sync would make.
    pub members: Vec<(&'static str, Value)>,
    /// Where the caller may try again, and when.
    pub retry_after_seconds: Option<u32>,
}

/// Seconds until a caller may try again what the daemon was too busy for.
const RETRY_AFTER_SECONDS: u32 = 1;

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        let later = code.status() == StatusCode::SERVICE_UNAVAILABLE;
        Problem {
            code,
            detail: detail.into(),
            title: None,
            allow: None,
            errors: Vec::new(),
            members: Vec::new(),
            retry_after_seconds: later.then_some(RETRY_AFTER_SECONDS),
        }
    }

    pub fn to_json(&self) -> String {
        let mut document = Map::new();
        let slug = self.code.slug();
        document.insert("type".to_owned(), format!("urn:keyfence:problem:{slug}").into());
        document.insert("title".to_owned(), self.title.unwrap_or(self.code.title()).into());
        document.insert("status".to_owned(), self.code.status().as_u16().into());
        document.insert("code".to_owned(), slug.into());
        document.insert("detail".to_owned(), self.detail.as_str().into());
        if !self.errors.is_empty() {
            let errors = serde_json::to_value(&self.errors).expect("texts always have a JSON form");
            document.insert("errors".to_owned(), errors);
        }
        for (name, value) in &self.members {
            document.insert((*name).to_owned(), value.clone());
        }
        Value::Object(document).to_string()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        Problem {
            title: refusal.title(),
            errors: refusal.errors,
            members: refusal.members,
            retry_after_seconds: refusal.retry_after_seconds,
            ..Problem::new(Code::Refused(refusal.code), refusal.detail)
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(&*allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_the_members_of_rfc_9457_and_a_stable_code() {
        let text = Problem::new(Code::NotImplemented, "this build does not do drops yet").to_json();
        let document: Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "type": "urn:keyfence:problem:not-implemented",
            "title": "This build does not do this yet",
            "status": 501,
            "code": "not-implemented",
            "detail": "this build does not do drops yet",
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn refusal_of_the_bindings_keeps_its_members_faults_and_wait() {
        let refusal = Refusal::new(refusal::Code::MassRevocation, "too many").with("revocations", 7);
        let problem = Problem::from(refusal);
        let document: Value = serde_json::from_str(&problem.to_json()).unwrap();
        assert_eq!(
            (&document["revocations"], &document["code"]),
            (&7.into(), &"mass-revocation".into())
        );
        let starting = Problem::from(Refusal::new(refusal::Code::Starting, "wait")).into_response();
        assert_eq!(starting.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn codes_have_slugs_of_their_own() {
        let mut slugs: Vec<_> = Code::ALL.iter().map(|code| code.slug()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Code::ALL.len());
    }
}
