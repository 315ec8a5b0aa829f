//! Batch, full sync and watch: lines in, lines out, as they come.
//!
//! A batch is read by a task of its own, which never waits for whoever reads the answers: the bindings keep a bounded
//! number of failures and count the rest. It ends with its connection.

use std::convert::Infallible;

use axum::body::{Body, HttpBody as _};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Context;
use super::body::{self, Lines, NDJSON};
use super::problem::Problem;
use super::query::Query;
use super::rates::Admitted;
use super::single::succeeded;
use super::who::Who;
use crate::bindings::requests::{SyncOptions, Watch};
use crate::bindings::{BatchInput, BatchOutput, WatchFeed};

pub(super) async fn batch(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let named = query.text("publisher");
    let progress = query.flag("progress");
    query.close()?;
    body::media(&request.headers, &[NDJSON])?;
    let bindings = context.bindings()?;
    let (actor, publisher) = who.writes(context, named).await?;
    let admitted = context.admit(&publisher)?;
    let (mut input, output) = bindings.batch(&actor, &publisher, progress)?;
    if let Some(bytes) = body.size_hint().exact() {
        input.is_of(bytes);
    }
    let lines = Lines::new(std::mem::take(body), context.bounds.line_timeout);
    tokio::spawn(feed(lines, input, admitted));
    Ok(streamed(stream::unfold(output, next_of_batch)))
}

/// Hands the body on until it ends, however it ends: what is decided stays so, and the summary tells the rest.
async fn feed(mut lines: Lines, mut input: BatchInput, admitted: Admitted) {
    let mut since = Instant::now();
    // One who is too slow, or gone, has said all that is taken of it.
    while let Ok(Some(bytes)) = lines.next(since).await {
        since = Instant::now();
        // A refusal of the whole (the disk is full, say) is told by the answer's lines.
        if input.push(&bytes).await.is_err() {
            break;
        }
    }
    // Its outcome is in the answer's lines.
    let _ = input.finish().await;
    drop(admitted);
}

async fn next_of_batch(mut output: BatchOutput) -> Option<(Result<Bytes, Infallible>, BatchOutput)> {
    let line = output.next().await?;
    Some((Ok(line_of(&line)), output))
}

pub(super) async fn sync(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let named = query.text("publisher");
    let as_of = query.parsed("as_of", "a revision");
    let revoke_max = query.parsed("revoke_max", "a number");
    let dry_run = query.flag("dry_run");
    query.close()?;
    body::media(&request.headers, &[NDJSON])?;
    let bindings = context.bindings()?;
    let (actor, publisher) = who.writes(context, named).await?;
    let _admitted = context.admit(&publisher)?;
    let options = SyncOptions {
        publisher,
        as_of,
        dry_run,
        revoke_max,
    };
    let mut input = bindings.sync(&actor, options)?;
    let mut lines = Lines::new(std::mem::take(body), context.bounds.line_timeout);
    let mut since = Instant::now();
    // Dropped on the way out, it changes nothing.
    while let Some(bytes) = lines.next(since).await? {
        since = Instant::now();
        input.push(&bytes).await?;
    }
    let summary = input.finish().await?;
    let revision = summary.revision;
    let mut response = ndjson(Body::from(line_of(&json!({ "summary": summary }))));
    response
        .headers_mut()
        .insert("keyfence-revision", HeaderValue::from(revision));
    Ok(response)
}

pub(super) async fn watch(context: &Context, who: &Who, request: &Parts) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let named = query.text("publisher");
    let since = query.parsed("since", "a revision");
    let store = query.text("store");
    let renewals = query.flag("renewals");
    query.close()?;
    let bindings = context.bindings()?;
    let scope = who.reads(context, named).await?;
    let admitted = scope
        .publisher
        .as_deref()
        .map(|name| context.admit(name))
        .transpose()?;
    let watch = Watch {
        publisher: scope.publisher,
        since,
        store,
        renewals,
    };
    let feed = bindings.watch(watch).await?;
    succeeded(context, &scope.actor.caller);
    let following = Following {
        feed,
        stopping: context.stopping.clone(),
        _admitted: admitted,
    };
    Ok(streamed(stream::unfold(following, Following::next)))
}

/// A watch under way; it ends with the daemon, before its connection is cut.
struct Following {
    feed: WatchFeed,
    stopping: watch::Receiver<bool>,
    _admitted: Option<Admitted>,
}

impl Following {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Following)> {
        let line = tokio::select! {
            line = self.feed.next() => line?,
            // An error means that nobody is left who could say it.
            _ = self.stopping.wait_for(|stop| *stop) => return None,
        };
        Some((Ok(line_of(&line)), self))
    }
}

fn streamed(lines: impl stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    ndjson(Body::from_stream(lines))
}

fn ndjson(body: Body) -> Response {
    let kind = HeaderValue::from_static(NDJSON);
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

fn line_of(line: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(line).expect("lines are made of texts and numbers alone");
    bytes.push(b'\n');
    bytes.into()
}
