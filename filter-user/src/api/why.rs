//! `GET /v1/why`: what lists or denies an address, when it last passed, and what is left of leases and buckets.

use std::collections::HashMap;
use std::net::IpAddr;

use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::problem::{Code, Problem};
use super::query::Query;
use super::{Backing, Context, drops};
use crate::bindings::requests::{BindingView, LIST_ITEMS_MAX, List, State};
use crate::compiler::owner_name;
use crate::judge::in_force::{self, By, Question};
use crate::judge::told::grant_buckets;
use crate::kernel::clock::wall_offset;
use crate::policy::model::{Client, Limits, Policy, ServiceSet};

/// Bindings that hold one address and are shown; what is beyond is said.
const SHOWN_MAX: usize = 1_000;

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
    let backing = context.backing()?;
    let (held, more) = bindings_at(backing, address, SHOWN_MAX).await?;
    let (epoch, policy) = backing.grants.policy();
    let levels = levels(context, epoch, &policy, &held, address).await;
    let mut grants: Vec<Value> = policy
        .clients
        .iter()
        .filter_map(|client| client_at(&policy, client, address))
        .collect();
    grants.extend(held.iter().map(|binding| binding_at(binding, address)));
    for grant in &mut grants {
        add_use(backing, levels.as_ref().ok(), grant);
    }
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
        // Why the grants have no bucket levels.
        "buckets_error": levels.err(),
        "drops": drops::of_last_hour(context, address).await,
    });
    Ok(axum::Json(answer).into_response())
}

/// The bindings whose sources hold the address, and whether there are more than are shown.
pub(super) async fn bindings_at(
    backing: &Backing,
    address: IpAddr,
    most: usize,
) -> Result<(Vec<BindingView>, bool), Problem> {
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
            Some(next) if found.len() < most => after = Some(next),
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

/// A binding as an owner.
pub(super) fn owner(binding: &BindingView) -> String {
    format!("binding/{}/{}", binding.publisher, binding.credential)
}

fn binding_at(binding: &BindingView, address: IpAddr) -> Value {
    json!({
        "owner": owner(binding),
        "prefix": binding.sources.iter().find(|prefix| prefix.contains(&address)),
        "services": binding.services,
        "source_ports": binding.source_ports,
        "state": binding.state,
        "suspended_because": binding.suspended_because,
        "ends_at": binding.ends_at,
    })
}

/// The buckets of all that holds the address, by owner; `Err` is why they cannot be read.
async fn levels(
    context: &Context,
    epoch: u64,
    policy: &Policy,
    held: &[BindingView],
    address: IpAddr,
) -> Result<HashMap<String, Vec<Value>>, String> {
    let mut owners = in_force::holders(policy, address);
    owners.extend(held.iter().map(owner));
    let question = Question {
        // No packet: the buckets alone are asked for.
        frame: Vec::new(),
        epoch,
        owners,
        by: By::Judge,
    };
    let in_force = context.view.explain(question).await;
    let in_force = in_force.map_err(|error| error.to_string())?;
    let limits = |owner: &str| -> Option<Limits> {
        let grantee = in_force.pushed.grantees.get(owner).map(|grantee| grantee.limit);
        let client = || {
            policy
                .clients
                .iter()
                .find(|client| owner_name(&client.name) == owner)
        };
        grantee.or_else(|| client().map(|client| client.limit))
    };
    let levels = in_force.levels.owners.iter().filter_map(|(owner, words)| {
        let buckets = grant_buckets(owner, &limits(owner)?, *words, in_force.now);
        Some((owner.clone(), buckets))
    });
    Ok(levels.collect())
}

/// What the kernel knows of a grant: what it has passed, when last, and what is in its buckets.
fn add_use(backing: &Backing, levels: Option<&HashMap<String, Vec<Value>>>, grant: &mut Value) {
    let owner = grant["owner"].as_str().unwrap_or_default().to_owned();
    let used = backing.grants.used(&owner);
    let offset = wall_offset();
    let seen = used.filter(|used| used.last_seen != 0).and_then(|used| {
        let wall = i128::from(used.last_seen) + offset;
        jiff::Timestamp::from_nanosecond(wall - wall.rem_euclid(1_000_000_000)).ok()
    });
    let end = grant["ends_at"]
        .as_str()
        .and_then(|end| end.parse::<jiff::Timestamp>().ok());
    let left = end.map(|end| end.duration_since(jiff::Timestamp::now()).as_secs().max(0));
    grant["seconds_left"] = json!(left);
    grant["last_seen"] = json!(seen);
    grant["packets"] = json!(used.map(|used| used.packets));
    grant["bytes"] = json!(used.map(|used| used.bytes));
    grant["buckets"] = json!(levels.map(|levels| levels.get(&owner).cloned().unwrap_or_default()));
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
