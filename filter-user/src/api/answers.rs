//! What is answered: health, metrics, status, reload, and the refusals.
//!
//! `answer` wraps every request alike: body bound, time bound, count and duration. Reads of the kernel's maps block
//! and run on threads of their own, few at a time.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::{Code, Problem};
use super::{Context, Peer, routes};
use crate::engine::snapshot::{CounterValues, ReloadError, Snapshot};
use crate::policy::model::Role;

/// What answers a request.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Live,
    Ready,
    Metrics,
    Status,
    Reload,
    /// Documented, but not in this build.
    NotYet(&'static str),
    /// Documented, but the listener has none of these roles.
    RoleLacking(&'static [Role]),
    /// The path answers these methods alone.
    WrongMethod(String),
    Unknown,
}

/// Answers one request within its bounds, and counts it.
pub(super) async fn answer(
    context: Arc<Context>,
    label: &'static str,
    action: Action,
    request: Request,
) -> Response {
    let started = Instant::now();
    // No answer of this build reads a body.
    let (request, _) = request.into_parts();
    let deadline = match action {
        Action::Reload => context.bounds.operate_timeout,
        _ => context.bounds.request_timeout,
    };
    let response = match tokio::time::timeout(deadline, respond(&context, action, &request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!(
                "no answer within {} s; what was asked may still be done: `keyfence status` shows it",
                deadline.as_secs()
            );
            Problem::new(Code::Timeout, detail).into_response()
        }
    };
    context
        .metrics
        .request_answered(label, response.status().as_u16(), started.elapsed());
    response
}

async fn respond(context: &Arc<Context>, action: Action, request: &Parts) -> Response {
    if let Some(problem) = body_fault(context, request) {
        return problem.into_response();
    }
    match action {
        Action::Live => text(StatusCode::OK, "ok\n"),
        Action::Ready => ready(&context.view.snapshot()),
        Action::Metrics => metrics(context).await,
        Action::Status => status(context).await,
        Action::Reload => reload(context, request).await,
        Action::NotYet(what) => {
            Problem::new(Code::NotImplemented, format!("this build does not do {what} yet")).into_response()
        }
        Action::RoleLacking(roles) => role_lacking(roles).into_response(),
        Action::WrongMethod(allow) => {
            let detail = format!("it answers {allow}");
            Problem {
                allow: Some(allow),
                ..Problem::new(Code::MethodNotAllowed, detail)
            }
            .into_response()
        }
        Action::Unknown => Problem::new(
            Code::NotFound,
            "no such path in this version of the API; `/v1/status` names what there is",
        )
        .into_response(),
    }
}

/// What is announced as too large is refused unread; nothing here reads a body yet.
fn body_fault(context: &Context, request: &Parts) -> Option<Problem> {
    let length = request
        .headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse::<u64>()
        .ok()?;
    let max = context.bounds.body_bytes_max;
    (length > max).then(|| Problem::new(Code::TooLarge, format!("a body here has at most {max} bytes")))
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body.into(),
    )
        .into_response()
}

fn ready(snapshot: &Snapshot) -> Response {
    if snapshot.not_ready.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    let lines: String = snapshot
        .not_ready
        .iter()
        .flat_map(|reason| [reason.as_str(), "\n"])
        .collect();
    text(StatusCode::SERVICE_UNAVAILABLE, lines)
}

/// Runs `read` where it may block. The permit goes with it: a caller who leaves does not free a thread that still
/// reads.
async fn read_blocking<T: Send + 'static>(
    context: &Arc<Context>,
    read: impl FnOnce(&Context) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let permit = Arc::clone(&context.reads)
        .acquire_owned()
        .await
        .map_err(|error| error.to_string())?;
    let context = Arc::clone(context);
    let work = move || {
        let result = read(&context);
        drop(permit);
        result
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

async fn metrics(context: &Arc<Context>) -> Response {
    match read_blocking(context, |context| context.metrics.encode(context.view.as_ref())).await {
        Ok(page) => {
            let kind = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
            ([(header::CONTENT_TYPE, kind)], page).into_response()
        }
        Err(reason) => Problem::new(Code::CountersUnreadable, reason).into_response(),
    }
}

/// What `keyfence status` shows.
#[derive(Serialize)]
struct Status<'s> {
    schema: u32,
    #[serde(flatten)]
    snapshot: &'s Snapshot,
    /// Null where they cannot be read: then `counters_error` says why, and the rest still holds.
    counters: Option<CounterValues>,
    counters_error: Option<String>,
    /// What this build answers.
    available: Vec<String>,
}

async fn status(context: &Arc<Context>) -> Response {
    let read = read_blocking(context, |context| {
        Ok((context.view.snapshot(), context.view.counters()))
    })
    .await;
    let (snapshot, counters) = read.unwrap_or_else(|error| (context.view.snapshot(), Err(error)));
    let (counters, counters_error) = match counters {
        Ok(counters) => (Some(counters), None),
        Err(error) => (None, Some(error)),
    };
    let status = Status {
        schema: 1,
        snapshot: &snapshot,
        counters,
        counters_error,
        available: routes::available(),
    };
    axum::Json(status).into_response()
}

/// What `POST /v1/reload` answers.
#[derive(Serialize)]
struct Reloaded {
    schema: u32,
    detail: String,
}

async fn reload(context: &Arc<Context>, request: &Parts) -> Response {
    let peer = request.extensions.get::<Peer>().copied().unwrap_or(Peer::Unknown);
    let asked = Arc::clone(context);
    // The host's databases may be on a network.
    let operator = tokio::task::spawn_blocking(move || peer.is_operator(&asked.operators)).await;
    if !operator.unwrap_or(false) {
        let detail = format!(
            "{} is none of `[daemon] operators`; use sudo, or add the user there",
            peer.describe()
        );
        return Problem::new(Code::NotAnOperator, detail).into_response();
    }
    tracing::info!(peer = peer.describe(), "reload asked for");
    // A task of its own: a caller who leaves does not stop it half-way.
    let result = match tokio::spawn(context.view.reload()).await {
        Ok(result) => result,
        Err(error) => Err(ReloadError::Failed(error.to_string())),
    };
    match result {
        Ok(detail) => axum::Json(Reloaded { schema: 1, detail }).into_response(),
        Err(ReloadError::Invalid(detail)) => Problem::new(Code::ReloadInvalid, detail).into_response(),
        Err(ReloadError::Refused(detail)) => Problem::new(Code::ReloadRefused, detail).into_response(),
        Err(ReloadError::Failed(detail)) => Problem::new(Code::ReloadFailed, detail).into_response(),
    }
}

fn role_lacking(roles: &[Role]) -> Problem {
    let names: Vec<String> = roles
        .iter()
        .map(|role| format!("`{}`", role_name(*role)))
        .collect();
    let detail = format!(
        "this listener does not have the role {} in the policy",
        names.join(" or ")
    );
    Problem::new(Code::NotFound, detail)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Publish => "publish",
        Role::Authorize => "authorize",
        Role::Read => "read",
        Role::Operate => "operate",
        Role::Deny => "deny",
        Role::Metrics => "metrics",
    }
}
