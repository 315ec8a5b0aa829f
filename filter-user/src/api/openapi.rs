//! The OpenAPI document: `openapi.json` beside this file, as it is.
//!
//! Written by hand, because requests are read strictly by code of their own; tests hold it to the routes, the codes of
//! problems and what the readers take.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

pub(super) const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn answer() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], DOCUMENT).into_response()
}
