//! The drop log over HTTP: the records that match a question, and what they add up to.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use filter_common::verdict::Reason;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Context;
use super::problem::{Code, Problem};
use super::query;
use super::who::Who;
use crate::records::Handle;
use crate::records::address::Pseudonyms;
use crate::records::read::{self, Query, RECORDS_DEFAULT, RECORDS_MAX, Sought};

pub(super) async fn drops(context: &Context, who: &Who, request: &Parts) -> Result<Response, Problem> {
    let mut asked = query::Query::of(&request.uri);
    let bounded = format!("a number from 0 to {RECORDS_MAX}");
    let mut query = Query {
        since: asked.parsed("since", "a time as in 2026-11-22T12:00:00Z"),
        until: asked.parsed("until", "a time as in 2026-11-22T12:00:00Z"),
        source: asked.parsed::<Sought>("source", "an address, a prefix, or a pseudonym as `hmac:…`"),
        pseudonyms: None,
        service: asked.text("service"),
        reason: asked.text("reason"),
        after: asked.parsed("after", "the number of a record"),
        limit: asked.parsed("limit", &bounded).unwrap_or(RECORDS_DEFAULT),
        top: asked.parsed("top", &bounded).unwrap_or(0),
    };
    let known = |reason: &String| Reason::ALL.iter().any(|known| known.name() == reason);
    if query.reason.as_ref().is_some_and(|reason| !known(reason)) {
        asked.fault("reason", "one of the reasons of a verdict, such as unlisted");
    }
    for (name, number) in [("limit", query.limit), ("top", query.top)] {
        if number > RECORDS_MAX {
            asked.fault(name, &bounded);
        }
    }
    asked.close()?;
    if query.since.is_none() && query.after.is_none() {
        query.since = an_hour_ago();
    }
    let records = records(context)?;
    query.pseudonyms = pseudonyms(context, who, records).await;
    records.flush().await;
    let service = query.service.clone();
    let answer = answer(context, records, query).await?;
    if answer["matched"]["records"] == 0 {
        known_service(context, service.as_deref())?;
    }
    Ok(axum::Json(answer).into_response())
}

/// A service that left the policy may have records; what is in neither was mistyped.
fn known_service(context: &Context, service: Option<&str>) -> Result<(), Problem> {
    let Some(service) = service else { return Ok(()) };
    let (_, policy) = context.backing()?.grants.policy();
    match policy.services.iter().any(|known| known.name == service) {
        true => Ok(()),
        false => Err(Problem::new(
            Code::BadQuery,
            "`service` is none of the policy's services, and no record of that time names it",
        )),
    }
}

/// Who may read is told no address behind a pseudonym: operators alone have the key.
async fn pseudonyms(context: &Context, who: &Who, records: &Handle) -> Option<Pseudonyms> {
    match who.is_operator(context).await {
        true => records.figures.pseudonyms.clone(),
        false => None,
    }
}

/// Packets by reason that came from an address within the last hour, null where that cannot be told; and what to know
/// of them.
pub(super) async fn of_last_hour(context: &Context, who: &Who, address: IpAddr) -> [Value; 2] {
    let Ok(records) = records(context) else {
        return [Value::Null, Value::Null];
    };
    records.flush().await;
    let query = Query {
        since: an_hour_ago(),
        source: Some(Sought::Net(IpNet::from(address))),
        pseudonyms: pseudonyms(context, who, records).await,
        ..Query::default()
    };
    match answer(context, records, query).await {
        Ok(answer) => [answer["matched"]["reasons"].clone(), answer["hint"].clone()],
        Err(problem) => {
            tracing::warn!("the drops of the last hour cannot be told: {problem:?}");
            [Value::Null, Value::Null]
        }
    }
}

/// What is asked for without a time: a log may be of gigabytes.
fn an_hour_ago() -> Option<Timestamp> {
    Timestamp::now().checked_sub(SignedDuration::from_hours(1)).ok()
}

fn records(context: &Context) -> Result<&Handle, Problem> {
    let records = context
        .backing
        .as_ref()
        .and_then(|backing| backing.records.as_ref());
    records.ok_or_else(|| Problem::new(Code::Starting, "the drop log is not there yet"))
}

/// Reads the log's files apart from the other tasks, not too many at a time.
async fn answer(context: &Context, records: &Handle, query: Query) -> Result<Value, Problem> {
    let no_file = || {
        let detail = "records go to no file that could be asked: the policy has no [[sink]] of type file";
        Problem::new(Code::NotImplemented, detail)
    };
    let file: PathBuf = records.figures.file.clone().ok_or_else(no_file)?;
    let waiting = records.figures.failing();
    let failed = |detail: String| Problem::new(Code::RecordsUnreadable, detail);
    let turn = Arc::clone(&context.reads).acquire_owned().await;
    let turn = turn.map_err(|error| failed(error.to_string()))?;
    let read = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        read::files(&file).and_then(|files| read::answer(&files, &query))
    });
    let mut answer = read
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(format!("the drop log cannot be read: {error}")))?;
    answer["waiting"] = json!(waiting);
    Ok(answer)
}
