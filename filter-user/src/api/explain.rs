//! `GET /v1/explain`: one packet, each rule's answer by what is in force, and what the kernel program itself says.

use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::problem::{Code, Problem};
use super::query::Query;
use super::why::{bindings_at, pushed_deny};
use super::{Backing, Context};
use crate::bindings::refusal;
use crate::engine::ExplainError;
use crate::judge::asked::{self, Destination, Endpoint, Hex};
use crate::judge::in_force::{self, By, InForce, Question};

/// Policies that may come into force while one packet is explained.
const POLICIES_MAX: u32 = 8;
/// Of a frame, which stands in the query.
const FRAME_BYTES_MAX: usize = 4096;

pub(super) async fn explain(context: &Context, request: &Parts) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let from: Option<Endpoint> = query.parsed("from", "a source, as in 198.51.100.7:40000");
    let to: Option<Destination> = query.parsed("to", "a destination, as in 203.0.113.10:443/tcp");
    let frame: Option<Hex> = query.parsed("frame", "a whole Ethernet frame in hexadecimal");
    let interface = query.text("interface");
    let whole = frame.as_ref().map(|Hex(frame)| frame.len());
    if whole.is_some_and(|length| length > FRAME_BYTES_MAX) {
        query.fault("frame", "at most 4096 bytes");
    }
    if interface.as_deref().is_some_and(|name| !is_interface(name)) {
        query.fault("interface", "an interface's name");
    }
    query.close()?;
    let bad = |detail: &str| Problem::new(Code::BadQuery, detail);
    let frame = match (frame, from, to) {
        (Some(Hex(frame)), None, None) => frame,
        (None, Some(from), Some(to)) => asked::frame(from, to).ok_or_else(|| {
            bad("`from` and `to` are of one address family: two IPv4 or two IPv6 addresses")
        })?,
        _ => return Err(bad("`from` and `to` are required, or `frame` alone")),
    };
    let backing = context.backing()?;
    let in_force = gather(context, backing, frame.clone()).await?;
    let told =
        tokio::task::spawn_blocking(move || in_force::explain(&frame, interface.as_deref(), &in_force));
    match told.await {
        Ok(Ok(mut object)) => {
            tell_pushed_deny(backing, &mut object["matched"]["deny"]);
            object["detached"] = context.view.is_detached().into();
            Ok(axum::Json(object).into_response())
        }
        Ok(Err(error)) => Err(Problem::new(Code::CountersUnreadable, error.to_string())),
        Err(error) => Err(Problem::new(Code::CountersUnreadable, error.to_string())),
    }
}

/// Asks the engine, with all who hold the frame's source.
async fn gather(context: &Context, backing: &Backing, frame: Vec<u8>) -> Result<InForce, Problem> {
    let source = in_force::source_of(&frame);
    let bindings = match source {
        Some(source) => bindings_at(backing, source, usize::MAX).await?.0,
        None => Vec::new(),
    };
    let bindings: Vec<String> = bindings.iter().map(super::why::owner).collect();
    let mut asked = 0;
    loop {
        let (epoch, policy) = backing.grants.policy();
        let clients = source.map(|source| in_force::holders(&policy, source));
        let question = Question {
            frame: frame.clone(),
            epoch,
            owners: clients
                .into_iter()
                .flatten()
                .chain(bindings.iter().cloned())
                .collect(),
            by: By::Judge,
        };
        asked += 1;
        match context.view.explain(question).await {
            Ok(in_force) => return Ok(in_force),
            Err(ExplainError::Policy(_)) if asked < POLICIES_MAX => {}
            // Not even who is let in is known, let alone counted.
            Err(error) if backing.bindings.is_kept() => {
                return Err(Problem::new(
                    Code::Refused(refusal::Code::Unavailable),
                    error.to_string(),
                ));
            }
            Err(error) => return Err(Problem::new(Code::CountersUnreadable, error.to_string())),
        }
    }
}

/// What stands in no file says itself whose it is, why, and until when.
fn tell_pushed_deny(backing: &Backing, deny: &mut Value) {
    if !deny["file"].is_null() {
        return;
    }
    let Some(name) = deny["name"].as_str() else { return };
    let mut denies = backing.bindings.denies().into_iter();
    let (Some(view), Some(members)) = (denies.find(|view| view.name == name), deny.as_object_mut()) else {
        return;
    };
    let told = pushed_deny(&view);
    members.extend(told.as_object().cloned().unwrap_or_default());
}

/// As the kernel takes them (`dev_valid_name`).
fn is_interface(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:".contains(&byte);
    (1..16).contains(&name.len()) && name.bytes().all(plain)
}
