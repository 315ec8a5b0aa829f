//! The policy file put in force by whoever may, as SIGHUP does.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Context;
use super::around;
use super::policy::policies;
use super::problem::Problem;
use super::who::Who;
use crate::policies::{By, Via};
use crate::policy::model::Mode;

/// What `POST /v1/reload` answers.
#[derive(Serialize)]
struct Reloaded {
    schema: u32,
    detail: String,
    generation: u64,
    hash: String,
    mode: Option<Mode>,
    /// The mode before, where it was another.
    mode_was: Option<Mode>,
    services: usize,
    clients: usize,
    /// The policy's, one a line, with its place.
    warnings: Vec<String>,
}

pub(super) async fn reload(
    context: &Arc<Context>,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    let by = By {
        actor: Some(who.operator(context).await?),
        via: Via::Reload,
    };
    let connections = around::of_reload(context, request, body).await?;
    tracing::info!(peer = who.peer.describe(), "reload asked for");
    let mode_before = context.view.snapshot().mode;
    let applied = policies(context)?.reload(by, connections).await?.applied;
    let now = context.view.snapshot();
    let reloaded = Reloaded {
        schema: 1,
        detail: applied.detail,
        generation: now.generation,
        hash: now.policy.hash.clone(),
        mode: now.mode,
        mode_was: mode_before.filter(|before| now.mode != Some(*before)),
        services: now.services.len(),
        clients: applied.clients,
        warnings: applied.warnings,
    };
    Ok(axum::Json(reloaded).into_response())
}
