//! The operator's policies over HTTP: plan, apply, confirm, rollback, reload, history. It translates; `policies` decides.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::Context;
use super::around::{self, Fault, confirm_fault, connections_fault, told};
use super::body;
use super::problem::{Code, Problem};
use super::query::Query;
use super::who::Who;
use crate::bindings::refusal::{self, FieldFault};
use crate::engine::apply::Pending;
use crate::policies::guard::Connection;
use crate::policies::plan::Plan;
use crate::policies::{Back, By, Done, Policies, PolicyError, PolicyText, Terms, TextFault, Via};
use crate::policy::model::Mode;

const NAME_BYTES_MAX: usize = 4_096;
const HASH_BYTES_MAX: usize = 64;
const FILES_MAX: usize = crate::policy::bounds::FILES_MAX;

/// A policy as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    root: String,
    #[serde(deserialize_with = "each_once")]
    files: BTreeMap<String, String>,
    base: Option<String>,
    confirm_seconds: Option<f64>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    connections: Vec<Connection>,
}

/// A file that is named twice is a fault, and not the last of the two.
fn each_once<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Files;
    impl<'de> Visitor<'de> for Files {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("texts by file names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut files = BTreeMap::new();
            while let Some((name, text)) = map.next_entry::<String, String>()? {
                if files.insert(name, text).is_some() {
                    return Err(serde::de::Error::custom("a file is named twice"));
                }
            }
            Ok(files)
        }
    }
    from.deserialize_map(Files)
}

impl Sent {
    async fn read(context: &Context, request: &Parts, body: &mut Body) -> Result<Sent, Problem> {
        let bounds = &context.bounds;
        let bytes = body::whole(
            &request.headers,
            body,
            bounds.operate_timeout,
            bounds.policy_bytes_max,
        )
        .await?;
        // As large as all sources: elsewhere.
        let parsed = tokio::task::spawn_blocking(move || body::object::<Sent>(&bytes)).await;
        let parsed = parsed.map_err(|error| Problem::new(Code::ReloadFailed, error.to_string()))?;
        let sent = parsed.map_err(|error| {
            // The error's own text may quote what was sent.
            let (line, column) = (error.line(), error.column());
            match error.classify() {
                serde_json::error::Category::Data => Problem::new(
                    Code::Refused(refusal::Code::Invalid),
                    format!(
                        "the body is {{\"root\": \"keyfence.toml\", \"files\": {{\"keyfence.toml\": \"…\"}}, …}} as in \
                         `/openapi.json`, each member once; it is not at line {line}, column {column}"
                    ),
                ),
                _ => Problem::new(
                    Code::Malformed,
                    format!("the body is no JSON at line {line}, column {column}"),
                ),
            }
        })?;
        let faults = sent.faults();
        match faults.is_empty() {
            true => Ok(sent),
            false => Err(Problem {
                errors: faults,
                ..Problem::new(Code::Refused(refusal::Code::Invalid), "the request has faults")
            }),
        }
    }

    fn faults(&self) -> Vec<FieldFault> {
        let checks = [
            self.names_fault(),
            self.base_fault().or(confirm_fault(self.confirm_seconds)),
            connections_fault(&self.connections),
        ];
        checks.into_iter().flatten().map(told).collect()
    }

    fn names_fault(&self) -> Option<Fault> {
        let named = PolicyText {
            root: self.root.clone(),
            folder: None,
            files: self
                .files
                .keys()
                .map(|name| (name.clone(), String::new()))
                .collect(),
        };
        let long = |name: &String| name.len() > NAME_BYTES_MAX;
        match named.fault() {
            Some(TextFault::Root) => Some((
                "no-root",
                "/root",
                "the root is none of the files",
                "send its text in `files`, under the same name",
            )),
            Some(TextFault::Path) => Some((
                "path",
                "/files",
                "a file's name is no path below the root's folder",
                "name files relative to the root's folder, without `.` and `..`",
            )),
            None if self.files.len() > FILES_MAX => Some((
                "too-many",
                "/files",
                "a policy has at most 10000 files",
                "put several entries into one file",
            )),
            None if self.files.keys().any(long) => Some((
                "too-long",
                "/files",
                "a file's name has more than 4096 bytes",
                "put it into a folder with a shorter name",
            )),
            None => None,
        }
    }

    fn base_fault(&self) -> Option<Fault> {
        let long = self.base.as_ref().is_some_and(|base| base.len() > HASH_BYTES_MAX);
        long.then_some((
            "too-long",
            "/base",
            "a policy's hash has at most 64 digits",
            "send the hash that a plan or the status names",
        ))
    }

    fn text(self) -> (PolicyText, Terms) {
        let text = PolicyText {
            root: self.root,
            folder: None,
            files: self.files,
        };
        let terms = Terms {
            base: self.base,
            confirm: self.confirm_seconds.map(Duration::from_secs_f64),
            force: self.force,
            connections: self.connections,
        };
        (text, terms)
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Problem {
        let detail = error.to_string();
        match error {
            PolicyError::Invalid(_) => Problem::new(Code::ReloadInvalid, detail),
            PolicyError::Refused(cut) => Problem {
                members: vec![("connections", json!(cut))],
                ..Problem::new(Code::ReloadRefused, detail)
            },
            PolicyError::Changed { in_force } => Problem {
                members: vec![("in_force", in_force.into())],
                ..Problem::new(Code::Refused(refusal::Code::PolicyChanged), detail)
            },
            PolicyError::OtherPending { pending } => Problem {
                members: vec![("waiting", pending.into())],
                ..Problem::new(Code::Refused(refusal::Code::PolicyChanged), detail)
            },
            PolicyError::Pending(pending) => Problem {
                members: vec![("pending", json!(pending))],
                ..Problem::new(Code::PolicyPending, detail)
            },
            PolicyError::NoWayBack => Problem::new(Code::ReloadRefused, detail),
            PolicyError::NothingPending | PolicyError::TrialOver { .. } => {
                Problem::new(Code::NothingPending, detail)
            }
            PolicyError::NothingEarlier => Problem::new(Code::NoEarlierPolicy, detail),
            PolicyError::Full(_) => Problem::new(Code::Refused(refusal::Code::StoreFull), detail),
            PolicyError::Failed(_) => Problem::new(Code::ReloadFailed, detail),
        }
    }
}

/// An operator's request, and who it is.
async fn by(context: &Context, who: &Who, query: Query, via: Via) -> Result<By, Problem> {
    query.close()?;
    let actor = who.operator(context).await?;
    Ok(By {
        actor: Some(actor),
        via,
    })
}

pub(super) fn policies(context: &Context) -> Result<&Policies, Problem> {
    let policies = context
        .backing
        .as_ref()
        .and_then(|backing| backing.policies.as_ref());
    policies.ok_or_else(|| Problem::new(Code::Starting, "the daemon is starting: ask again"))
}

pub(super) async fn plan(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    by(context, who, Query::of(&request.uri), Via::Apply).await?;
    let policies = policies(context)?;
    let _turn = context.policy_bodies.acquire().await;
    let (text, terms) = Sent::read(context, request, body).await?.text();
    let plan = policies.plan(text, terms).await?;
    Ok(axum::Json(plan).into_response())
}

/// What is in force now, and what changed.
#[derive(Serialize)]
struct Applied {
    #[serde(flatten)]
    plan: Plan,
    detail: String,
    generation: u64,
    mode: Option<Mode>,
    /// The mode before, where it was another.
    mode_was: Option<Mode>,
    pending: Option<Pending>,
}

pub(super) async fn apply(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    let by = by(context, who, Query::of(&request.uri), Via::Apply).await?;
    let policies = policies(context)?;
    let _turn = context.policy_bodies.acquire().await;
    let (text, terms) = Sent::read(context, request, body).await?.text();
    tracing::info!(peer = who.peer.describe(), "a policy is to be applied");
    let mode_before = context.view.snapshot().mode;
    let Done {
        plan,
        applied,
        pending,
    } = policies.apply(text, terms, by).await?;
    let now = context.view.snapshot();
    let applied = Applied {
        plan,
        detail: applied.detail,
        generation: now.generation,
        mode: now.mode,
        mode_was: mode_before.filter(|before| now.mode != Some(*before)),
        pending,
    };
    Ok(axum::Json(applied).into_response())
}

pub(super) async fn confirm(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let named = query.text("hash");
    let by = by(context, who, query, Via::Apply).await?;
    around::of_confirm(context, request, body).await?;
    let hash = policies(context)?.confirm(named, by).await?;
    let generation = context.view.snapshot().generation;
    Ok(axum::Json(json!({ "schema": 1, "hash": hash, "generation": generation })).into_response())
}

/// What is in force again.
#[derive(Serialize)]
struct RolledBack {
    schema: u32,
    hash: String,
    generation: u64,
    mode: Option<Mode>,
    /// The mode before, where it was another.
    mode_was: Option<Mode>,
    warnings: Vec<String>,
    pending: Option<Pending>,
}

pub(super) async fn rollback(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    // Who repeats after a lost answer does not go forth again.
    let base = query.text("base");
    let by = by(context, who, query, Via::Rollback).await?;
    let terms = around::of_rollback(context, request, body).await?;
    tracing::info!(peer = who.peer.describe(), "a rollback is asked for");
    let mode_before = context.view.snapshot().mode;
    let back = policies(context)?.rollback(by, Terms { base, ..terms }).await?;
    let Back {
        hash,
        warnings,
        pending,
    } = back;
    let now = context.view.snapshot();
    let rolled_back = RolledBack {
        schema: 1,
        hash,
        generation: now.generation,
        mode: now.mode,
        mode_was: mode_before.filter(|before| now.mode != Some(*before)),
        warnings,
        pending,
    };
    Ok(axum::Json(rolled_back).into_response())
}

pub(super) async fn history(context: &Context, request: &Parts) -> Result<Response, Problem> {
    Query::of(&request.uri).close()?;
    let (items, unreadable) = policies(context)?.history().await;
    let policy = &context.view.snapshot().policy;
    let answer = json!({
        "schema": 1,
        "in_force": policy.hash,
        "pending": policy.pending,
        "items": items,
        "unreadable": unreadable,
    });
    Ok(axum::Json(answer).into_response())
}
