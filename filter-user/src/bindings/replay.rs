//! `replay --bindings`: lines as in a full sync, as what they would grant; no store, no writer.

use super::lines::Splitter;
use super::model::allowance::PolicyView;
use super::model::body::{Shape, put_body};
use super::model::json::{Json, parse};
use super::model::lease::Moment;
use super::model::owned::Credential;
use super::model::row::{Row, Told};
use super::model::view::{PublisherFacts, grantee};
use super::refusal::{Code, Refusal};
use super::seam::Grantee;
use crate::bindings::clock::Now;
use crate::policy::Policy;

/// A line that grants nothing: its number, and why.
pub type BadLine = (u64, Refusal);

/// Reads a file of bindings under a policy. A line may name its `publisher`; else it is the policy's first. `op` may
/// be there, the line `end` too. `start_ns` is when the replay begins; leases run from there.
pub fn grantees_of_lines(policy: &Policy, bytes: &[u8], start_ns: u64) -> (Vec<Grantee>, Vec<BadLine>) {
    let view = PolicyView::new(0, std::sync::Arc::new(policy.clone()));
    let (mut grantees, mut bad) = (Vec::new(), Vec::new());
    let mut read = |number: u64, line: Option<&[u8]>| match grantee_of(&view, line, start_ns) {
        Ok(found) => grantees.extend(found),
        Err(refusal) => bad.push((number, refusal)),
    };
    let mut splitter = Splitter::default();
    splitter.push(bytes, &mut read);
    splitter.finish(&mut read);
    (grantees, bad)
}

fn grantee_of(view: &PolicyView, line: Option<&[u8]>, start_ns: u64) -> Result<Option<Grantee>, Refusal> {
    let malformed = |detail: String| Refusal::new(Code::Malformed, detail);
    let line = line.ok_or_else(|| malformed("the line is too long".to_owned()))?;
    let Json::Object(mut members) = parse(line).map_err(malformed)? else {
        return Err(malformed("the line is no object".to_owned()));
    };
    let mut take = |name: &str| {
        let at = members.iter().position(|(member, _)| member == name)?;
        Some(members.remove(at).1)
    };
    let publisher = match take("publisher") {
        Some(Json::Text(name)) => Some(name.into_owned()),
        Some(_) => return Err(malformed("publisher is no text".to_owned())),
        None => view.policy.publishers.first().map(|first| first.name.clone()),
    };
    let credential = match take("credential") {
        Some(Json::Text(text)) => text.into_owned(),
        _ => String::new(),
    };
    match take("op") {
        Some(Json::Text(op)) if op == "end" => return Ok(None),
        Some(Json::Text(op)) if op != "put" => return Err(malformed("op is not put".to_owned())),
        _ => {}
    }
    let publisher = publisher.unwrap_or_default();
    let allowance = view
        .publisher(&publisher)
        .ok_or_else(|| Refusal::new(Code::NotAPublisher, "the policy has no such publisher"))?;
    if credential.is_empty() {
        return Err(malformed("credential is missing".to_owned()));
    }
    let body = put_body(&Json::Object(members), Shape::Body, view, allowance).map_err(Refusal::of_faults)?;
    let now = Now {
        wall_ms: 0,
        boot_ms: 0,
        monotonic_ns: start_ns,
        boot_id: 0,
    };
    let row = Row {
        row_version: body.row_version,
        created_ms: 0,
        end: body.lease_ms.map(|lease| Moment::after(now, lease)),
        revision: 0,
        told: Told::Active,
        content: body.content,
    };
    let facts = PublisherFacts {
        last_success_boot_ms: i64::MIN,
        unsynced: 0,
    };
    Ok(grantee(
        view,
        &publisher,
        facts,
        &Credential::new(&publisher, &credential),
        &row,
        now,
    ))
}
