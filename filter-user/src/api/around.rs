//! What a reload and a rollback may bring along: the connections that the caller hangs on, and whether these matter.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Context;
use super::body;
use super::problem::{Code, Problem};
use crate::bindings::refusal::{self, FieldFault};
use crate::policies::Terms;
use crate::policies::guard::{Connection, PEERS_MAX};

/// How long an applied policy may wait to be confirmed.
const CONFIRM_SECONDS: std::ops::RangeInclusive<f64> = 0.001..=86_400.0;
const HOLDER_BYTES_MAX: usize = 256;

/// Code, pointer, detail and fix.
pub(super) type Fault = (&'static str, &'static str, &'static str, &'static str);

/// Without a body, none of it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {
    #[serde(default)]
    connections: Vec<Connection>,
}

/// What a confirmation is to be of stands in the query: nothing that is sent is passed over.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmBody {}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    confirm_seconds: Option<f64>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    connections: Vec<Connection>,
}

pub(super) async fn of_reload(
    context: &Context,
    request: &Parts,
    body: &mut Body,
) -> Result<Vec<Connection>, Problem> {
    let form = "{\"connections\": […]}, or none";
    let sent: ReloadBody = read(context, request, body, form).await?;
    refuse(connections_fault(&sent.connections))?;
    Ok(sent.connections)
}

pub(super) async fn of_confirm(context: &Context, request: &Parts, body: &mut Body) -> Result<(), Problem> {
    let form = "empty: the policy that is meant is named by the parameter `hash`";
    let ConfirmBody {} = read(context, request, body, form).await?;
    Ok(())
}

pub(super) async fn of_rollback(
    context: &Context,
    request: &Parts,
    body: &mut Body,
) -> Result<Terms, Problem> {
    let form = "{\"confirm_seconds\": 60, \"force\": false, \"connections\": […]}, or none";
    let sent: RollbackBody = read(context, request, body, form).await?;
    refuse(confirm_fault(sent.confirm_seconds).or(connections_fault(&sent.connections)))?;
    Ok(Terms {
        base: None,
        confirm: sent.confirm_seconds.map(Duration::from_secs_f64),
        force: sent.force,
        connections: sent.connections,
    })
}

async fn read<T: DeserializeOwned + Default>(
    context: &Context,
    request: &Parts,
    body: &mut Body,
    form: &str,
) -> Result<T, Problem> {
    if body.is_end_stream() {
        return Ok(T::default());
    }
    let bounds = &context.bounds;
    let bytes = body::whole(&request.headers, body, bounds.line_timeout, bounds.body_bytes_max).await?;
    body::object(&bytes).map_err(|_| {
        let detail = format!("the body is {form}");
        Problem::new(Code::Refused(refusal::Code::Invalid), detail)
    })
}

fn refuse(fault: Option<Fault>) -> Result<(), Problem> {
    fault.map_or(Ok(()), |fault| {
        Err(Problem {
            errors: vec![told(fault)],
            ..Problem::new(Code::Refused(refusal::Code::Invalid), "the request has faults")
        })
    })
}

pub(super) fn told((code, pointer, detail, fix): Fault) -> FieldFault {
    FieldFault {
        code,
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
        fix: fix.to_owned(),
    }
}

pub(super) fn confirm_fault(seconds: Option<f64>) -> Option<Fault> {
    let wrong = seconds.is_some_and(|seconds| !CONFIRM_SECONDS.contains(&seconds));
    wrong.then_some((
        "range",
        "/confirm_seconds",
        "the time to confirm is 0.001 to 86400 seconds",
        "leave it out to apply for good",
    ))
}

pub(super) fn connections_fault(connections: &[Connection]) -> Option<Fault> {
    let is_v4 = |address: &SocketAddr| address.ip().to_canonical().is_ipv4();
    let two_families = |connection: &Connection| is_v4(&connection.from) != is_v4(&connection.to);
    let long = |connection: &Connection| {
        let held_by = connection.held_by.as_ref();
        held_by.is_some_and(|held_by| held_by.len() > HOLDER_BYTES_MAX)
    };
    let fault = if connections.len() > PEERS_MAX {
        (
            "too-many",
            "at most 1024 connections are looked at",
            "send one of each peer",
        )
    } else if connections.iter().any(two_families) {
        (
            "families",
            "both ends of a connection are of one address family",
            "send the addresses as the kernel has them",
        )
    } else if connections.iter().any(long) {
        (
            "too-long",
            "`held_by` has at most 256 bytes",
            "name the program and its number",
        )
    } else {
        return None;
    };
    let (code, detail, fix) = fault;
    Some((code, "/connections", detail, fix))
}
