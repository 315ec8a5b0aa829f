//! `GET /v1/top`: what goes on now, as rates between two looks into the kernel: verdicts, the busiest owners and refused
//! sources, and buckets by how little is left in them.

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answers::read_blocking;
use super::problem::{Code, Problem};
use super::query::Query;
use super::{Backing, Context};
use crate::compiler::owner_name;
use crate::engine::snapshot::{CounterValues, VerdictCount};
use crate::judge::in_force::{By, InForce, Question};
use crate::judge::told::level_buckets;
use crate::kernel::clock::wall_offset;
use crate::policy::model::{Limits, Policy};
use crate::records::live::{Busiest, Live, Look};

/// Of owners, sources and buckets each.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1_000;
/// Rates over less say little.
const BETWEEN_MIN: Duration = Duration::from_millis(250);
/// Where nobody has looked for long, there are two looks.
const BETWEEN_MAX: Duration = Duration::from_secs(10);

pub(super) async fn top(context: &Arc<Context>, request: &Parts) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let bounded = format!("a number from 1 to {LIMIT_MAX}");
    let limit = query.parsed("limit", &bounded).unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        query.fault("limit", &bounded);
    }
    query.close()?;
    let backing = context.backing()?;
    let live = backing.records.as_ref().and_then(|records| records.live.clone());
    let live = live.ok_or_else(|| Problem::new(Code::Starting, "the kernel's tables are not there yet"))?;
    let before = before(context, &live).await?;
    let now = look(context, &live).await?;
    let busiest = {
        let (live, now, before) = (Arc::clone(&live), Arc::clone(&now), Arc::clone(&before));
        let busiest = read_blocking(context, move |_| Ok(live.busiest(&now, &before, limit)));
        busiest
            .await
            .map_err(|error| Problem::new(Code::CountersUnreadable, error))?
    };
    let buckets = buckets(context, backing, &busiest, limit).await;
    let snapshot = context.view.snapshot();
    let answer = json!({
        "schema": 1,
        "at": Timestamp::now(),
        "seconds": rounded(busiest.seconds),
        "instance": snapshot.instance,
        "mode": snapshot.mode,
        "generation": snapshot.generation,
        "not_ready": snapshot.not_ready,
        "verdicts": verdicts(&now.counters, &before.counters, busiest.seconds),
        "owners": owners(&busiest),
        "sources": sources(&busiest),
        "sources_in_all": busiest.sources_in_all,
        "buckets": buckets.as_ref().map_or(&[][..], Vec::as_slice),
        // Why there are none.
        "buckets_error": buckets.as_ref().err(),
    });
    Ok(axum::Json(answer).into_response())
}

/// A look that is neither too young nor too old: anybody's last one, or one of our own.
async fn before(context: &Arc<Context>, live: &Arc<Live>) -> Result<Arc<Look>, Problem> {
    let last = live.last().filter(|look| look.age() < BETWEEN_MAX);
    let look = match last {
        Some(look) => look,
        None => look(context, live).await?,
    };
    if let Some(left) = BETWEEN_MIN.checked_sub(look.age()) {
        tokio::time::sleep(left).await;
    }
    Ok(look)
}

async fn look(context: &Arc<Context>, live: &Arc<Live>) -> Result<Arc<Look>, Problem> {
    let live = Arc::clone(live);
    let look = read_blocking(context, move |context| Ok(live.look(context.view.counters()?)));
    look.await
        .map_err(|error| Problem::new(Code::CountersUnreadable, error))
}

/// A tenth is fine enough for eyes.
fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

fn verdicts(now: &CounterValues, before: &CounterValues, seconds: f64) -> Vec<Value> {
    let same = |one: &VerdictCount, other: &VerdictCount| {
        (&one.service, one.verdict, one.reason) == (&other.service, other.verdict, other.reason)
    };
    let counts = now.verdicts.iter().filter(|count| count.packets > 0);
    let told = counts.map(|count| {
        // One that was not there before has counted all since.
        let then = before.verdicts.iter().find(|then| same(then, count));
        let (packets, bytes) = then.map_or((0, 0), |then| (then.packets, then.bytes));
        let rate = |now: u64, then: u64| rounded(now.saturating_sub(then) as f64 / seconds);
        json!({
            "service": count.service,
            "verdict": count.verdict,
            "reason": count.reason,
            "packets": count.packets,
            "bytes": count.bytes,
            "packets_per_second": rate(count.packets, packets),
            "bytes_per_second": rate(count.bytes, bytes),
        })
    });
    told.collect()
}

fn owners(busiest: &Busiest) -> Vec<Value> {
    let offset = wall_offset();
    let told = busiest.owners.iter().map(|owner| {
        let seen = i128::from(owner.used.last_seen) + offset;
        let seen = Timestamp::from_nanosecond(seen - seen.rem_euclid(1_000_000_000)).ok();
        json!({
            "owner": owner.name,
            "packets": owner.used.packets,
            "bytes": owner.used.bytes,
            "packets_per_second": rounded(owner.packets),
            "bytes_per_second": rounded(owner.bytes),
            "refused_per_second": rounded(owner.refused),
            "last_seen": seen.filter(|_| owner.used.last_seen != 0),
        })
    });
    told.collect()
}

fn sources(busiest: &Busiest) -> Vec<Value> {
    let told = busiest.sources.iter().map(|source| {
        json!({
            "source": source.source,
            "packets": source.so_far.packets,
            "bytes": source.so_far.bytes,
            "packets_per_second": rounded(source.packets),
            "bytes_per_second": rounded(source.bytes),
            "reasons": source.so_far.reasons,
            "services": source.services,
        })
    });
    told.collect()
}

/// Those of services, publishers, ICMP and the busiest owners, the emptiest first; `Err` is why they cannot be read.
async fn buckets(
    context: &Context,
    backing: &Backing,
    busiest: &Busiest,
    limit: usize,
) -> Result<Vec<Value>, String> {
    let (epoch, policy) = backing.grants.policy();
    let question = Question {
        // No packet: the buckets alone are asked for.
        frame: Vec::new(),
        epoch,
        owners: busiest.owners.iter().map(|owner| owner.name.clone()).collect(),
        by: By::Judge,
    };
    let in_force = context.view.explain(question).await;
    let mut found = all_buckets(&in_force.map_err(|error| error.to_string())?, &policy);
    let fill = |bucket: &Value| {
        let number = |member: &str| bucket[member].as_f64().unwrap_or(0.0);
        number("left") / number("burst").max(1.0)
    };
    found.sort_by(|one, other| fill(one).total_cmp(&fill(other)));
    found.truncate(limit);
    Ok(found)
}

fn all_buckets(in_force: &InForce, policy: &Policy) -> Vec<Value> {
    let client = |owner: &str| {
        policy
            .clients
            .iter()
            .find(|client| owner_name(&client.name) == owner)
    };
    let of_owner = |owner: &str| {
        let pushed = in_force.pushed.grantees.get(owner).map(|grantee| grantee.limit);
        pushed.or_else(|| client(owner).map(|client| client.limit))
    };
    let of_service = |name: &str| {
        policy
            .services
            .iter()
            .find(|service| service.name == name)
            .map(|service| service.limit)
    };
    let of_publisher = |name: &str| {
        policy
            .publishers
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.limit)
    };
    let levels = &in_force.levels;
    let mut found = Vec::new();
    let mut add = |level, name: &str, limits: Option<Limits>, words| {
        let limits = limits.unwrap_or_default();
        found.extend(level_buckets(level, name, &limits, words, in_force.now));
    };
    for (owner, words) in &levels.owners {
        add("grant", owner, of_owner(owner), *words);
    }
    for (name, words) in &levels.services {
        add("service", name, of_service(name), *words);
    }
    for (name, words) in &levels.publishers {
        add("publisher", name, of_publisher(name), *words);
    }
    for (name, words) in ["answers", "requests"].into_iter().zip(levels.icmp) {
        add("icmp", name, Some(policy.filter.icmp_limit), words);
    }
    found
}
