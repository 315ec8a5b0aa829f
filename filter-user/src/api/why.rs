//! `GET /v1/why`: what lists or denies an address, when it last passed, and what is left of leases and buckets.

use std::collections::HashMap;
use std::net::IpAddr;

use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::problem::{Code, Problem};
use super::query::Query;
use super::who::Who;
use super::{Backing, Context, drops};
use crate::bindings::requests::{BindingView, DenyView, LIST_ITEMS_MAX, List, State};
use crate::compiler::owner_name;
use crate::judge::in_force::{self, By, Question};
use crate::judge::told::grant_buckets;
use crate::kernel::clock::wall_offset;
use crate::policy::model::{Client, Limits, Mode, Policy, ServiceSet};

/// Bindings that hold one address and are shown; what is beyond is said.
const SHOWN_MAX: usize = 1_000;

/// Where nothing judges packets.
const DETACHED: &str = "The filter was detached: every packet passes until the daemon is started again.";

pub(super) async fn why(context: &Context, who: &Who, request: &Parts) -> Result<Response, Problem> {
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
    let denied_by = denied_by(&policy, backing.bindings.denies(), address);
    let denies: Vec<&Value> = denied_by.iter().map(|deny| &deny["name"]).collect();
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
    let [drops, drops_hint] = drops::of_last_hour(context, who, address).await;
    let is_detached = context.view.is_detached();
    let by_policy = sentence(address, &grants, &denied_by, &management, &Modes::of(&policy));
    let answer = json!({
        "schema": 1,
        "address": address,
        "sentence": match is_detached {
            true => format!("{DETACHED} By the policy, {by_policy}"),
            false => by_policy,
        },
        "detached": is_detached,
        "caution": context.caution(backing),
        "grants": grants,
        "more_grants": more,
        "denies": denies,
        "denied_by": denied_by,
        "management": management,
        // Why the grants have no bucket levels.
        "buckets_error": levels.err(),
        "drops": drops,
        "drops_hint": drops_hint,
    });
    Ok(axum::Json(answer).into_response())
}

/// The entries of the policy, then what was denied at run time.
fn denied_by(policy: &Policy, pushed: Vec<DenyView>, address: IpAddr) -> Vec<Value> {
    let holding = |prefixes: &mut dyn Iterator<Item = IpNet>| {
        let holding = prefixes.filter(|prefix| prefix.contains(&address));
        holding.max_by_key(IpNet::prefix_len)
    };
    let entries = policy.denies.iter().filter_map(|deny| {
        let prefix = holding(&mut deny.sources.iter().map(|source| source.prefix))?;
        Some(json!({
            "name": deny.name,
            "prefix": prefix,
            "owner": null,
            "reason": deny.remarks.note,
            "ends_at": null,
        }))
    });
    let pushed = pushed.iter().filter_map(|deny| {
        let prefix = holding(&mut deny.sources.iter().copied())?;
        let mut object = pushed_deny(deny);
        object["name"] = deny.name.as_str().into();
        object["prefix"] = json!(prefix);
        Some(object)
    });
    entries.chain(pushed).collect()
}

/// Whose a deny of run time is, why, and until when.
pub(super) fn pushed_deny(deny: &DenyView) -> Value {
    let reason = (!deny.reason.is_empty()).then_some(&deny.reason);
    json!({ "owner": deny.owner, "reason": reason, "ends_at": deny.ends_at })
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
        "seconds_left": client.expires.map(|end| end.duration_since(jiff::Timestamp::now()).as_secs().max(0)),
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
        // Not by the wall clock, which may have been set since.
        "seconds_left": binding.ends_in_ms.map(|left| left.max(0) / 1_000),
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
    grant["last_seen"] = json!(seen);
    grant["packets"] = json!(used.map(|used| used.packets));
    grant["bytes"] = json!(used.map(|used| used.bytes));
    grant["buckets"] = json!(levels.map(|levels| levels.get(&owner).cloned().unwrap_or_default()));
}

/// Who only observes: what is refused there passes all the same.
struct Modes<'p> {
    filter: Mode,
    services: Vec<(&'p str, Mode)>,
}

impl<'p> Modes<'p> {
    fn of(policy: &'p Policy) -> Self {
        let filter = policy.filter.mode;
        let services = policy.services.iter();
        Self {
            filter,
            services: services
                .map(|service| (service.name.as_str(), service.mode.unwrap_or(filter)))
                .collect(),
        }
    }

    /// What becomes of packets to services that nothing lists.
    fn unlisted(&self) -> String {
        let observing = self.services.iter().filter(|(_, mode)| *mode == Mode::Observe);
        let observing: Vec<&str> = observing.map(|(name, _)| *name).collect();
        match observing.len() {
            0 => "its packets to services are dropped as `unlisted`".to_owned(),
            all if all == self.services.len() => {
                "its packets to services would be dropped as `unlisted`, and pass (observe)".to_owned()
            }
            _ => format!(
                "its packets to services are dropped as `unlisted`, but those to `{}` pass (observe)",
                observing.join("`, `")
            ),
        }
    }
}

/// The answer in one sentence: the first rule that decides, as in the judgement of packets.
fn sentence(
    address: IpAddr,
    grants: &[Value],
    denied_by: &[Value],
    management: &[&str],
    modes: &Modes<'_>,
) -> String {
    let beside = match management {
        [] => String::new(),
        entries => format!(
            " It is management by `{}`, which passes before all else.",
            entries.join("`, `")
        ),
    };
    if let [deny, ..] = denied_by {
        let what = match modes.filter {
            Mode::Enforce => "its packets are dropped, whatever lists it",
            Mode::Observe => "its packets would be dropped, and pass (observe)",
        };
        return format!("{address} is denied by {}: {what}.{beside}", shown_deny(deny));
    }
    let in_force = |grant: &&Value| {
        [State::Active.as_str(), State::Held.as_str()].contains(&grant["state"].as_str().unwrap_or_default())
    };
    let owners: Vec<&str> = grants
        .iter()
        .filter(in_force)
        .filter_map(|grant| grant["owner"].as_str())
        .collect();
    match (owners.as_slice(), grants.len()) {
        ([], 0) => format!("{address} is listed nowhere: {}.{beside}", modes.unlisted()),
        ([], _) => format!("{address} is listed, but nothing that lists it is in force.{beside}"),
        ([one], _) => format!("{address} is listed by {one}.{beside}"),
        ([one, more @ ..], _) => format!("{address} is listed by {one} and {} more.{beside}", more.len()),
    }
}

/// `abuse-7` (operator/root, until 2026-11-22T12:00:00Z: scans)
fn shown_deny(deny: &Value) -> String {
    let text = |name: &str| deny[name].as_str();
    let mut beside = vec![text("owner").unwrap_or("of the policy").to_owned()];
    let end = text("ends_at").and_then(|end| end.parse::<jiff::Timestamp>().ok());
    let end = end.and_then(|end| jiff::Timestamp::from_second(end.as_second()).ok());
    beside.extend(end.map(|end| format!("until {end}")));
    let reason = text("reason")
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    format!(
        "`{}` ({}{reason})",
        text("name").unwrap_or("?"),
        beside.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_says_what_would_be_dropped_where_it_only_observes() {
        let address: IpAddr = "198.51.100.7".parse().unwrap();
        let modes = |filter, services: &[(&'static str, Mode)]| Modes {
            filter,
            services: services.to_vec(),
        };
        let (enforce, observe) = (Mode::Enforce, Mode::Observe);
        let unlisted = |modes: &Modes<'_>| sentence(address, &[], &[], &[], modes);
        assert_eq!(
            unlisted(&modes(enforce, &[("a", enforce)])),
            "198.51.100.7 is listed nowhere: its packets to services are dropped as `unlisted`."
        );
        assert_eq!(
            unlisted(&modes(observe, &[("a", observe)])),
            "198.51.100.7 is listed nowhere: its packets to services would be dropped as `unlisted`, and pass (observe)."
        );
        assert!(
            unlisted(&modes(enforce, &[("a", enforce), ("b", observe)])).contains("but those to `b` pass")
        );
        let deny = json!({ "name": "d", "owner": "operator/root", "reason": "scans", "ends_at": "2026-11-22T12:00:00Z" });
        let denied = |filter| {
            sentence(
                address,
                &[],
                std::slice::from_ref(&deny),
                &["ssh"],
                &modes(filter, &[]),
            )
        };
        assert_eq!(
            denied(enforce),
            "198.51.100.7 is denied by `d` (operator/root, until 2026-11-22T12:00:00Z: scans): its packets are dropped, \
             whatever lists it. It is management by `ssh`, which passes before all else."
        );
        assert!(denied(observe).contains("would be dropped, and pass (observe)"));
    }
}
