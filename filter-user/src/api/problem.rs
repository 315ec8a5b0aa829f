//! Problem documents (RFC 9457): every refusal of the listeners.
//!
//! `Code` is closed: its slug is the `code` member and the end of `type`, both stable; the detail is for people
//! and never quotes what a caller sent.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

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
    CountersUnreadable,
    NotImplemented,
    Busy,
    Timeout,
}

impl Code {
    pub const ALL: [Code; 14] = [
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
        Code::CountersUnreadable,
        Code::NotImplemented,
        Code::Busy,
        Code::Timeout,
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
            Code::CountersUnreadable => "counters-unreadable",
            Code::NotImplemented => "not-implemented",
            Code::Busy => "busy",
            Code::Timeout => "timeout",
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
            Code::CountersUnreadable => "The kernel's counters cannot be read",
            Code::NotImplemented => "This build does not do this yet",
            Code::Busy => "The listener has as many connections as it takes",
            Code::Timeout => "The answer took too long",
        }
    }

    pub const fn status(self) -> StatusCode {
        match self {
            Code::Malformed => StatusCode::BAD_REQUEST,
            Code::TargetTooLong => StatusCode::URI_TOO_LONG,
            Code::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::NotAnOperator => StatusCode::FORBIDDEN,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::ReloadInvalid => StatusCode::UNPROCESSABLE_ENTITY,
            Code::ReloadRefused => StatusCode::CONFLICT,
            Code::ReloadFailed | Code::CountersUnreadable => StatusCode::INTERNAL_SERVER_ERROR,
            Code::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Busy | Code::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[derive(Debug)]
pub struct Problem {
    pub code: Code,
    pub detail: String,
    /// The methods that the path answers, for a 405.
    pub allow: Option<String>,
}

#[derive(Serialize)]
struct Document<'p> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'p str,
}

/// Seconds until a caller may try again what the daemon was too busy for.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem {
            code,
            detail: detail.into(),
            allow: None,
        }
    }

    pub fn to_json(&self) -> String {
        let document = Document {
            kind: format!("urn:keyfence:problem:{}", self.code.slug()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.slug(),
            detail: &self.detail,
        };
        serde_json::to_string(&document).expect("numbers and texts always have a JSON form")
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
        if self.code.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
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
        assert_eq!(
            text,
            r#"{"type":"urn:keyfence:problem:not-implemented","title":"This build does not do this yet","status":501,"code":"not-implemented","detail":"this build does not do drops yet"}"#
        );
    }

    #[test]
    fn codes_have_slugs_of_their_own() {
        let mut slugs: Vec<_> = Code::ALL.iter().map(|code| code.slug()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Code::ALL.len());
    }
}
