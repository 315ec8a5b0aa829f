//! What concerns the whole host rather than one binding: why an address passes or not, the audit log, backups.

use std::net::IpAddr;
use std::path::PathBuf;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{self, NDJSON};
use super::problem::{Code, Problem};
use super::query::Query;
use super::who::Who;
use super::{Backing, Context, drops};
use crate::bindings::refusal;
use crate::bindings::requests::{BindingView, LIST_ITEMS_MAX, List, State};
use crate::policy::model::{Client, Policy, ServiceSet};

/// Bindings that hold one address and are shown; what is beyond is said.
const SHOWN_MAX: usize = 1_000;
/// Lines of the audit log in one answer.
const AUDIT_LINES_MAX: usize = 1_000;

pub(super) async fn why(context: &Context, request: &Parts) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let address: Option<IpAddr> = query.parsed("address", "an IP address");
    query.close()?;
    let Some(address) = address.map(|address| address.to_canonical()) else {
        return Err(Problem::new(
            Code::BadQuery,
            "`address` is required: an IP address",
        ));
    };
    let backing = backing(context)?;
    let (held, more) = bindings_at(backing, address).await?;
    let (_, policy) = backing.grants.policy();
    let mut grants: Vec<Value> = policy
        .clients
        .iter()
        .filter_map(|client| client_at(&policy, client, address))
        .collect();
    grants.extend(held.iter().map(|binding| binding_at(backing, binding, address)));
    let mut denies: Vec<String> = policy
        .denies
        .iter()
        .filter(|deny| deny.sources.iter().any(|source| source.prefix.contains(&address)))
        .map(|deny| deny.name.clone())
        .collect();
    let pushed = backing.bindings.denies().into_iter();
    denies.extend(
        pushed
            .filter(|deny| deny.sources.iter().any(|source| source.contains(&address)))
            .map(|deny| deny.name),
    );
    let management: Vec<&str> = policy
        .management
        .iter()
        .filter(|entry| {
            entry
                .sources
                .iter()
                .any(|source| source.prefix.contains(&address))
        })
        .map(|entry| entry.name.as_str())
        .collect();
    let answer = json!({
        "schema": 1,
        "address": address,
        "sentence": sentence(address, &grants, &denies, &management),
        "grants": grants,
        "more_grants": more,
        "denies": denies,
        "management": management,
        "drops": drops::of_last_hour(context, address).await,
    });
    Ok(axum::Json(answer).into_response())
}

fn backing(context: &Context) -> Result<&Backing, Problem> {
    let missing = || Problem::new(Code::Starting, "the bindings are not there yet");
    context.backing.as_ref().ok_or_else(missing)
}

/// The bindings whose sources hold the address, and whether there are more than are shown.
async fn bindings_at(backing: &Backing, address: IpAddr) -> Result<(Vec<BindingView>, bool), Problem> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let list = List {
            source: Some(IpNet::from(address)),
            limit: Some(LIST_ITEMS_MAX),
            after: after.take(),
            ..List::default()
        };
        let page = backing.bindings.list(list).await?;
        found.extend(page.items);
        match page.next {
            Some(next) if found.len() < SHOWN_MAX => after = Some(next),
            more => return Ok((found, more.is_some())),
        }
    }
}

fn client_at(policy: &Policy, client: &Client, address: IpAddr) -> Option<Value> {
    let holds = client
        .sources
        .iter()
        .map(|source| source.prefix)
        .find(|prefix| prefix.contains(&address))?;
    let services: Vec<&str> = match &client.services {
        ServiceSet::All => policy
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect(),
        ServiceSet::Some(some) => some
            .iter()
            .filter_map(|at| policy.services.get(*at))
            .map(|service| service.name.as_str())
            .collect(),
    };
    Some(json!({
        "owner": format!("client/{}", client.name),
        "prefix": holds,
        "services": services,
        "state": if client.enabled { "active" } else { "disabled" },
        "ends_at": client.expires,
    }))
}

fn binding_at(backing: &Backing, binding: &BindingView, address: IpAddr) -> Value {
    let owner = format!("binding/{}/{}", binding.publisher, binding.credential);
    let used = backing.grants.used(&owner);
    json!({
        "owner": owner,
        "prefix": binding.sources.iter().find(|prefix| prefix.contains(&address)),
        "services": binding.services,
        "source_ports": binding.source_ports,
        "state": binding.state,
        "suspended_because": binding.suspended_because,
        "ends_at": binding.ends_at,
        "last_seen": binding.last_seen,
        "packets": used.map(|used| used.packets),
        "bytes": used.map(|used| used.bytes),
    })
}

/// The answer in one sentence: the first rule that decides, as in the judgement of packets.
fn sentence(address: IpAddr, grants: &[Value], denies: &[String], management: &[&str]) -> String {
    if let [deny, ..] = denies {
        return format!("{address} is denied by `{deny}`: its packets are dropped, whatever lists it.");
    }
    let in_force = |grant: &&Value| {
        [State::Active.as_str(), State::Held.as_str()].contains(&grant["state"].as_str().unwrap_or_default())
    };
    let owners: Vec<&str> = grants
        .iter()
        .filter(in_force)
        .filter_map(|grant| grant["owner"].as_str())
        .collect();
    let beside = match management {
        [] => String::new(),
        entries => format!(" It is management by `{}`.", entries.join("`, `")),
    };
    match (owners.as_slice(), grants.len()) {
        ([], 0) => {
            format!("{address} is listed nowhere: its packets to services are dropped as `unlisted`.{beside}")
        }
        ([], _) => format!("{address} is listed, but nothing that lists it is in force.{beside}"),
        ([one], _) => format!("{address} is listed by {one}.{beside}"),
        ([one, more @ ..], _) => format!("{address} is listed by {one} and {} more.{beside}", more.len()),
    }
}

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
    let invalid = |detail: &str| Problem::new(Code::Refused(refusal::Code::Invalid), detail);
    let copy: Copy = serde_json::from_slice(&body)
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
    let status = bindings.restore(&actor, copy.path, copy.trust).await?;
    Ok(axum::Json(json!({ "schema": 1, "bindings": status })).into_response())
}
