//! What concerns the whole host rather than one binding: the audit log and backups.

use std::path::PathBuf;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Context;
use super::body::{self, NDJSON};
use super::operate::about_request;
use super::problem::Problem;
use super::query::Query;
use super::who::Who;
use crate::bindings::refusal::{self, Refusal};
use crate::bindings::requests::Restored;

/// Lines of the audit log in one answer.
const AUDIT_LINES_MAX: usize = 1_000;

pub(super) async fn audit(context: &Context, who: &Who, request: &Parts) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let from = query.parsed("from", "a line, from 1 on").unwrap_or(1u64);
    let limit = query
        .parsed("limit", "a number from 1 to 1000")
        .unwrap_or(AUDIT_LINES_MAX);
    if !(1..=AUDIT_LINES_MAX).contains(&limit) {
        query.fault("limit", "a number from 1 to 1000");
    }
    if from == 0 {
        query.fault("from", "a line, from 1 on");
    }
    query.close()?;
    let bindings = context.bindings()?;
    who.operator(context).await?;
    let lines = bindings.audit_lines(from, limit).await?;
    let text: String = lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect();
    let kind = HeaderValue::from_static(NDJSON);
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Where the daemon writes or reads a copy of its store: a path of the daemon's own file system.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Copy {
    path: PathBuf,
    /// Of a restore: its bindings are in force at once.
    #[serde(default)]
    trust: bool,
}

async fn copy(context: &Context, request: &Parts, body: &mut Body) -> Result<Copy, Problem> {
    let body = body::json(&request.headers, body, context.bounds.line_timeout).await?;
    let invalid = |detail: &str| Problem::from(about_request(Refusal::new(refusal::Code::Invalid, detail)));
    let copy: Copy = body::object(&body)
        .map_err(|_| invalid("the body is {\"path\": \"/…\"}, for a restore also \"trust\""))?;
    if !copy.path.is_absolute() {
        return Err(invalid("`path` is absolute: the daemon has a folder of its own"));
    }
    Ok(copy)
}

pub(super) async fn backup(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    Query::of(&request.uri).close()?;
    let bindings = context.bindings()?;
    let actor = who.operator(context).await?;
    let copy = copy(context, request, body).await?;
    let status = bindings.backup(&actor, copy.path).await?;
    Ok(axum::Json(json!({ "schema": 1, "bindings": status })).into_response())
}

pub(super) async fn restore(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    Query::of(&request.uri).close()?;
    let bindings = context.bindings()?;
    let actor = who.operator(context).await?;
    let copy = copy(context, request, body).await?;
    let Restored { status, kept } = bindings.restore(&actor, copy.path, copy.trust).await?;
    let in_force = !bindings.is_kept();
    let answer = json!({ "schema": 1, "bindings": status, "in_force": in_force, "kept": kept });
    Ok(axum::Json(answer).into_response())
}
