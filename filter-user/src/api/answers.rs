//! What is answered: health, metrics, status, reload, and the refusals.
//!
//! `answer` wraps every request alike: body bound, time bound, count and duration. Reads of the kernel's maps block
//! and run on threads of their own, few at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::{Code, Problem};
use super::who::Who;
use super::{
    Context, authorize, body, capture, drops, explain, host, openapi, operate, policy, reload, routes,
    single, stream, top, why,
};
use crate::bindings::requests::StoreStatus;
use crate::engine::snapshot::{CounterValues, Snapshot};
use crate::policy::model::Role;

/// What answers a request.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Live,
    Ready,
    Metrics,
    Status,
    Reload,
    Plan,
    Apply,
    Confirm,
    Rollback,
    History,
    OpenApi,
    Authorize,
    List,
    Put,
    Get,
    Delete,
    Batch,
    Sync,
    Watch,
    Denies,
    PutDeny,
    DeleteDeny,
    Explain,
    Why,
    Drops,
    Top,
    Capture,
    Audit,
    Backup,
    Restore,
    Observe,
    Detach,
    /// Documented, but the listener has none of these roles.
    RoleLacking(&'static [Role]),
    /// The path answers these methods alone; with one of these roles, this listener would answer this one as well.
    WrongMethod(String, &'static [Role]),
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
    let (request, mut body) = request.into_parts();
    let work = respond(&context, &action, &request, &mut body);
    let response = match deadline(&context, &action) {
        None => work.await,
        Some(deadline) => match tokio::time::timeout(deadline, work).await {
            Ok(response) => response,
            Err(_) => {
                let detail = format!(
                    "no answer within {} s; what was asked may still be done: `keyfence status` shows it",
                    deadline.as_secs()
                );
                Problem::new(Code::Timeout, detail).into_response()
            }
        },
    };
    // A gateway may hand its client's length on, without the body.
    if response.status().is_client_error() && !matches!(action, Action::Authorize) {
        body::drain(&mut body).await;
    }
    context
        .metrics
        .request_answered(label, response.status().as_u16(), started.elapsed());
    response
}

/// A full sync is bounded by its lines: each may take its time, however many there are.
fn deadline(context: &Context, action: &Action) -> Option<Duration> {
    match action {
        Action::Sync => None,
        Action::Reload
        | Action::Plan
        | Action::Apply
        | Action::Confirm
        | Action::Rollback
        | Action::Backup
        | Action::Restore
        | Action::Detach => Some(context.bounds.operate_timeout),
        _ => Some(context.bounds.request_timeout),
    }
}

async fn respond(context: &Arc<Context>, action: &Action, request: &Parts, body: &mut Body) -> Response {
    let Some(who) = request.extensions.get::<Arc<Who>>() else {
        return Problem::new(Code::NotFound, "a request without a connection").into_response();
    };
    if let Some(problem) = body_fault(context, action, request) {
        return problem.into_response();
    }
    let answered = match action {
        Action::Live => Ok(text(StatusCode::OK, "ok\n")),
        Action::Ready => Ok(ready(context)),
        Action::Metrics => Ok(metrics(context).await),
        Action::Status => Ok(status(context).await),
        Action::Reload => reload::reload(context, who, request, body).await,
        Action::Plan => policy::plan(context, who, request, body).await,
        Action::Apply => policy::apply(context, who, request, body).await,
        Action::Confirm => policy::confirm(context, who, request, body).await,
        Action::Rollback => policy::rollback(context, who, request, body).await,
        Action::History => policy::history(context, request).await,
        Action::OpenApi => Ok(openapi::answer()),
        Action::Authorize => Ok(authorize::answer(context, who, request)),
        Action::List => single::list(context, who, request).await,
        Action::Put => single::put(context, who, request, body).await,
        Action::Get => single::get(context, who, request).await,
        Action::Delete => single::delete(context, who, request).await,
        Action::Batch => stream::batch(context, who, request, body).await,
        Action::Sync => stream::sync(context, who, request, body).await,
        Action::Watch => stream::watch(context, who, request).await,
        Action::Denies => single::denies(context, request).await,
        Action::PutDeny => single::put_deny(context, who, request, body).await,
        Action::DeleteDeny => single::delete_deny(context, who, request).await,
        Action::Explain => explain::explain(context, request).await,
        Action::Why => why::why(context, who, request).await,
        Action::Drops => drops::drops(context, who, request).await,
        Action::Top => top::top(context, request).await,
        Action::Capture => capture::capture(context, who, request, body).await,
        Action::Audit => host::audit(context, who, request).await,
        Action::Backup => host::backup(context, who, request, body).await,
        Action::Restore => host::restore(context, who, request, body).await,
        Action::Observe => operate::observe(context, who, request, body).await,
        Action::Detach => operate::detach(context, who, request).await,
        Action::RoleLacking(roles) => Err(role_lacking(roles, request.uri.path())),
        Action::WrongMethod(allow, roles) => Err(wrong_method(allow, roles, &request.method)),
        Action::Unknown => Err(Problem::new(
            Code::NotFound,
            "no such path in this version of the API; `/v1/status` names what there is",
        )),
    };
    answered.unwrap_or_else(Problem::into_response)
}

/// What is announced as too large is refused unread. A gateway may hand its client's length on, without the body.
fn body_fault(context: &Context, action: &Action, request: &Parts) -> Option<Problem> {
    if matches!(action, Action::Authorize | Action::Batch | Action::Sync) {
        return None;
    }
    let length = request
        .headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse::<u64>()
        .ok()?;
    let max = match action {
        Action::Plan | Action::Apply => context.bounds.policy_bytes_max,
        _ => context.bounds.body_bytes_max,
    };
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

/// What is in force, and all that makes the daemon unready.
fn pictured(context: &Context) -> Arc<Snapshot> {
    let mut snapshot = context.view.snapshot();
    if let Some(backing) = &context.backing {
        let records = backing.records.as_ref().map(|log| log.figures.failing());
        let reasons = backing.bindings.not_ready().into_iter();
        let reasons: Vec<String> = reasons.chain(records.into_iter().flatten()).collect();
        if !reasons.is_empty() {
            Arc::make_mut(&mut snapshot).not_ready.extend(reasons);
        }
    }
    snapshot
}

fn ready(context: &Context) -> Response {
    let snapshot = pictured(context);
    if snapshot.not_ready.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    let reasons = snapshot.not_ready.iter();
    let lines: String = reasons.flat_map(|reason| [reason.as_str(), "\n"]).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, lines)
}

/// Runs `read` where it may block. The permit goes with it: a caller who leaves does not free a thread that still
/// reads.
pub(super) async fn read_blocking<T: Send + 'static>(
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
    let page = read_blocking(context, |context| {
        let bindings = context.backing.as_ref().map(|backing| backing.bindings.status());
        context.metrics.encode(context.view.as_ref(), bindings.as_ref())
    });
    match page.await {
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
    /// The store of the bindings; null until it is there.
    bindings: Option<StoreStatus>,
}

async fn status(context: &Arc<Context>) -> Response {
    let read = read_blocking(context, |context| {
        let policies = context
            .backing
            .as_ref()
            .and_then(|backing| backing.policies.as_ref());
        // Whoever asks wants to know whether the file is what is in force.
        policies.iter().for_each(|policies| policies.look());
        let bindings = context.backing.as_ref().map(|backing| backing.bindings.status());
        Ok((pictured(context), context.view.counters(), bindings))
    })
    .await;
    let (snapshot, counters, bindings) = read.unwrap_or_else(|error| (pictured(context), Err(error), None));
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
        bindings,
    };
    axum::Json(status).into_response()
}

fn wrong_method(allow: &str, roles: &[Role], method: &Method) -> Problem {
    let more = match roles {
        [] => String::new(),
        roles => format!(
            " on this listener; for {method} add {} to its roles (roles are read at start)",
            routes::role_names(roles)
        ),
    };
    Problem {
        allow: Some(allow.into()),
        ..Problem::new(Code::MethodNotAllowed, format!("it answers {allow}{more}"))
    }
}

fn role_lacking(roles: &[Role], path: &str) -> Problem {
    // The one request that a signal makes as well.
    let otherwise = match path {
        "/v1/reload" => ", or send SIGHUP",
        _ => "",
    };
    let detail = format!(
        "this listener lacks a role for it: add {} to the listener's roles{otherwise} (roles are read at start)",
        routes::role_names(roles)
    );
    Problem::new(Code::NotFound, detail)
}
