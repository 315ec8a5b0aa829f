//! What opens the filter by hand: `POST /v1/observe` and `POST /v1/detach`. For operators, each told to the audit log.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::body;
use super::problem::{Code, Problem};
use super::query::Query;
use super::who::Who;
use crate::bindings::Bindings;
use crate::bindings::refusal::{self, About, FieldFault, Refusal};
use crate::bindings::requests::{Actor, AuditNote};
use crate::engine::snapshot::ObserveError;

/// A day: what is to be open for longer belongs into the policy.
const SECONDS_MAX: u64 = 86_400;
const REASON_CHARACTERS_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Observe {
    seconds: u64,
    #[serde(default)]
    service: Option<String>,
    reason: String,
}

impl Observe {
    fn faults(&self) -> Vec<FieldFault> {
        let mut faults = Vec::new();
        if self.seconds > SECONDS_MAX {
            let fix = "observe for a shorter time, or write `mode = \"observe\"` in the policy";
            faults.push(fault(
                "out-of-range",
                "/seconds",
                "86400 seconds (a day) at most",
                fix,
            ));
        }
        let length = self.reason.chars().count();
        if self.reason.trim().is_empty() || length > REASON_CHARACTERS_MAX {
            let detail = "a text of 1 to 1024 characters, for the audit log";
            faults.push(fault("out-of-range", "/reason", detail, "say why"));
        }
        faults
    }
}

fn fault(code: &'static str, pointer: &str, detail: &str, fix: &str) -> FieldFault {
    FieldFault {
        code,
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
        fix: fix.to_owned(),
    }
}

/// No binding is meant.
pub(super) fn about_request(refusal: Refusal) -> Refusal {
    Refusal {
        about: About::Request,
        ..refusal
    }
}

pub(super) async fn observe(
    context: &Arc<Context>,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    Query::of(&request.uri).close()?;
    let bindings = context.bindings()?;
    let actor = who.operator(context).await?;
    let body = body::json(&request.headers, body, context.bounds.line_timeout).await?;
    let invalid = || {
        let detail = "the body is {\"seconds\": 900, \"service\": \"NAME\" or null, \"reason\": \"…\"}";
        Problem::from(about_request(Refusal::new(refusal::Code::Invalid, detail)))
    };
    let asked: Observe = body::object(&body).map_err(|_| invalid())?;
    let faults = asked.faults();
    if !faults.is_empty() {
        return Err(about_request(Refusal::of_faults(faults)).into());
    }
    match context.view.observe(asked.service.clone(), asked.seconds).await {
        Ok(()) => {}
        Err(ObserveError::NoSuchService(_)) => {
            let fix = "name a service of the policy in force, or leave it out for everything";
            let fault = fault("unknown-service", "/service", "there is no such service", fix);
            return Err(about_request(Refusal::of_faults(vec![fault])).into());
        }
        Err(ObserveError::Failed(detail)) => return Err(Problem::new(Code::OperationFailed, detail)),
    }
    let members = json!({"service": asked.service, "seconds": asked.seconds, "reason": asked.reason});
    tell(bindings, actor, "observe", members).await;
    let observing = &context.view.snapshot().observing;
    Ok(axum::Json(json!({ "schema": 1, "observing": observing })).into_response())
}

pub(super) async fn detach(context: &Arc<Context>, who: &Who, request: &Parts) -> Result<Response, Problem> {
    Query::of(&request.uri).close()?;
    let actor = who.operator(context).await?;
    let detached = context.view.detach().await;
    let interfaces = detached.map_err(|detail| Problem::new(Code::OperationFailed, detail))?;
    if let Ok(bindings) = context.bindings() {
        tell(bindings, actor, "detach", json!({ "interfaces": interfaces })).await;
    }
    Ok(axum::Json(json!({ "schema": 1, "interfaces": interfaces })).into_response())
}

/// It is done: where the disk refuses the line, the log says so.
async fn tell(bindings: &Bindings, actor: Actor, what: &'static str, members: Value) {
    let members = match members {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    let note = AuditNote {
        actor: Some(actor),
        what,
        members,
    };
    if let Err(refusal) = bindings.audit(note).await {
        tracing::error!("the audit log does not tell of this {what}: {}", refusal.detail);
    }
}
