//! One binding, a list of them, and denies: HTTP in, the bindings' types out, and back.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::body;
use super::problem::{Code, Problem};
use super::query::{Query, decoded};
use super::rates;
use super::who::Who;
use crate::bindings::requests::{
    Caller, Conditions, Delete, IfMatch, LIST_ITEMS_MAX, List, Outcome, Put, PutDeny, State,
};

const REVISION: HeaderName = HeaderName::from_static("keyfence-revision");
/// The highest row version: what every JSON reader holds exactly (RFC 8259, 6).
const ROW_VERSION_MAX: u64 = 1 << 53;

pub(super) async fn put(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let named = query.text("publisher");
    query.close()?;
    let credential = last_segment(request)?;
    let conditions = conditions(&request.headers)?;
    let bindings = context.bindings()?;
    let (actor, publisher) = who.writes(context, named).await?;
    let _admitted = context.admit(&publisher)?;
    let body = body::json(&request.headers, body, context.bounds.line_timeout).await?;
    let put = Put {
        publisher,
        credential,
        body,
        conditions,
    };
    let answer = bindings.put(&actor, put).await?;
    let status = match answer.outcome {
        Outcome::Created => StatusCode::CREATED,
        Outcome::Changed | Outcome::Renewed | Outcome::Unchanged => StatusCode::OK,
    };
    let (etag, revision) = (answer.binding.etag.clone(), answer.binding.revision);
    Ok((status, tags(Some(&etag), revision), axum::Json(answer)).into_response())
}

pub(super) async fn get(context: &Context, who: &Who, request: &Parts) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let named = query.text("publisher");
    query.close()?;
    let credential = last_segment(request)?;
    let bindings = context.bindings()?;
    let (actor, publisher) = who.writes(context, named).await?;
    let _admitted = context.admit(&publisher)?;
    let binding = bindings.get(&publisher, &credential)?;
    succeeded(context, &actor.caller);
    Ok((tags(Some(&binding.etag), binding.revision), axum::Json(&binding)).into_response())
}

pub(super) async fn delete(context: &Context, who: &Who, request: &Parts) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let named = query.text("publisher");
    let row_version = query.parsed::<u64>("row_version", "a number below 2^53");
    if row_version.is_some_and(|version| version >= ROW_VERSION_MAX) {
        query.fault("row_version", "a number below 2^53");
    }
    query.close()?;
    let credential = last_segment(request)?;
    let conditions = conditions(&request.headers)?;
    let bindings = context.bindings()?;
    let (actor, publisher) = who.writes(context, named).await?;
    let _admitted = context.admit(&publisher)?;
    let delete = Delete {
        publisher,
        credential,
        row_version,
        conditions,
    };
    let answer = bindings.delete(&actor, delete).await?;
    Ok((tags(None, answer.revision), Stored::json(context, answer)).into_response())
}

pub(super) async fn list(context: &Context, who: &Who, request: &Parts) -> Result<Response, Problem> {
    let mut query = Query::of(&request.uri);
    let named = query.text("publisher");
    let limit = query.parsed::<usize>("limit", "a number from 1 to 1000");
    if limit.is_some_and(|limit| !(1..=LIST_ITEMS_MAX).contains(&limit)) {
        query.fault("limit", "a number from 1 to 1000");
    }
    let after = query.text("after");
    let source = source(&mut query);
    let service = query.text("service");
    let state = query.text("state").and_then(|text| {
        let state = State::ALL.into_iter().find(|state| state.as_str() == text);
        if state.is_none() {
            query.fault("state", "active, held, ended or suspended");
        }
        state
    });
    let ends_before = query.parsed("ends_before", "a time as in 2026-11-22T12:00:00Z");
    let unused_since = query.parsed("unused_since", "a time as in 2026-11-22T12:00:00Z");
    query.close()?;
    let bindings = context.bindings()?;
    let scope = who.reads(context, named).await?;
    let _admitted = scope
        .publisher
        .as_deref()
        .map(|name| context.admit(name))
        .transpose()?;
    let list = List {
        publisher: scope.publisher,
        limit,
        after,
        source,
        service,
        state,
        ends_before,
        unused_since,
    };
    let page = bindings.list(list).await?;
    succeeded(context, &scope.actor.caller);
    Ok((tags(None, page.revision), axum::Json(page)).into_response())
}

/// An address is a prefix of its own.
fn source(query: &mut Query) -> Option<IpNet> {
    let text = query.text("source")?;
    let prefix = crate::policy::prefix::prefix_from_text(&text);
    match prefix {
        Ok(prefix) => Some(prefix),
        Err(_) => {
            query.fault("source", "an address or a prefix without host bits");
            None
        }
    }
}

pub(super) async fn denies(context: &Context, request: &Parts) -> Result<Response, Problem> {
    Query::of(&request.uri).close()?;
    let items = context.bindings()?.denies();
    Ok(axum::Json(json!({ "items": items })).into_response())
}

pub(super) async fn put_deny(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    Query::of(&request.uri).close()?;
    let name = last_segment(request)?;
    let bindings = context.bindings()?;
    let actor = who.denies(context).await;
    let _admitted = admitted(context, &actor.caller)?;
    let body = body::json(&request.headers, body, context.bounds.line_timeout).await?;
    let deny = bindings.put_deny(&actor, PutDeny { name, body }).await?;
    Ok((tags(None, deny.revision), Stored::json(context, deny)).into_response())
}

pub(super) async fn delete_deny(context: &Context, who: &Who, request: &Parts) -> Result<Response, Problem> {
    Query::of(&request.uri).close()?;
    let name = last_segment(request)?;
    let bindings = context.bindings()?;
    let actor = who.denies(context).await;
    let _admitted = admitted(context, &actor.caller)?;
    let removed = bindings.remove_deny(&actor, &name).await?;
    let answer = json!({ "name": name, "removed": removed });
    Ok(Stored::json(context, answer).into_response())
}

/// What is said of a change that is durable while nothing judges packets.
const NOT_IN_FORCE: &str = "the filter was detached and every packet passes: this is stored, and holds for packets once the daemon is started \
     again; authorize goes by it already";

/// The answer to what revokes.
#[derive(Serialize)]
struct Stored<T> {
    #[serde(flatten)]
    answer: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

impl<T> Stored<T> {
    fn json(context: &Context, answer: T) -> axum::Json<Stored<T>> {
        let warning = context.view.is_detached().then_some(NOT_IN_FORCE);
        axum::Json(Stored { answer, warning })
    }
}

fn admitted(context: &Context, caller: &Caller) -> Result<Option<rates::Admitted>, Problem> {
    match caller {
        Caller::Publisher(name) => context.admit(name).map(Some),
        Caller::Other(name) => {
            let now = context.started.elapsed();
            let admitted = context
                .rates
                .admit(&format!("user/{name}"), Some(&rates::OTHERS), now);
            admitted.map(Some)
        }
        Caller::Operator(_) => Ok(None),
    }
}

/// A publisher that reads is alive: what `lease-hold` kept for it has served its time.
pub(super) fn succeeded(context: &Context, caller: &Caller) {
    if let (Caller::Publisher(name), Ok(bindings)) = (caller, context.bindings()) {
        bindings.succeeded(name);
    }
}

fn tags(etag: Option<&str>, revision: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(REVISION, HeaderValue::from(revision));
    if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(format!("\"{etag}\"")).ok()) {
        headers.insert(header::ETAG, etag);
    }
    headers
}

/// What the path names.
fn last_segment(request: &Parts) -> Result<String, Problem> {
    let last = request.uri.path().rsplit('/').next().unwrap_or_default();
    let name = decoded(last).filter(|name| !name.is_empty());
    name.ok_or_else(|| Problem::new(Code::Malformed, "what the path names is no text"))
}

fn conditions(headers: &HeaderMap) -> Result<Conditions, Problem> {
    let faulty = |name: &str, what: &str| Problem::new(Code::Malformed, format!("`{name}` is {what} here"));
    let joined = |name: &HeaderName| -> Option<String> {
        let values: Vec<&str> = headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap_or("?"))
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    let if_match = match joined(&header::IF_MATCH).as_deref().map(str::trim) {
        None => None,
        Some("*") => Some(IfMatch::Any),
        Some(tags) => {
            let tags: Option<Vec<String>> = tags.split(',').map(str::trim).map(tag).collect();
            let what = "`*` or etags in quotes";
            Some(IfMatch::Tags(tags.ok_or_else(|| faulty("If-Match", what))?))
        }
    };
    let if_none_match_any = match joined(&header::IF_NONE_MATCH).as_deref().map(str::trim) {
        None => false,
        Some("*") => true,
        Some(_) => return Err(faulty("If-None-Match", "`*`")),
    };
    Ok(Conditions {
        if_match,
        if_none_match_any,
    })
}

/// A weak one never matches (RFC 9110, 13.1.1): it is kept with its mark, as no etag here has it.
fn tag(text: &str) -> Option<String> {
    let (weak, quoted) = match text.strip_prefix("W/") {
        Some(quoted) => ("W/", quoted),
        None => ("", text),
    };
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let plain = inner
        .bytes()
        .all(|byte| byte > b' ' && byte != b'"' && byte != 0x7f);
    plain.then(|| format!("{weak}{inner}"))
}

impl Context {
    /// The handle of the bindings, once they are there.
    pub(super) fn bindings(&self) -> Result<&crate::bindings::Bindings, Problem> {
        Ok(&self.backing()?.bindings)
    }

    /// The same with who holds their grants.
    pub(super) fn backing(&self) -> Result<&super::Backing, Problem> {
        match &self.backing {
            Some(backing) => Ok(backing),
            None => Err(Problem::new(
                Code::Starting,
                "the bindings are not there yet; nothing was done",
            )),
        }
    }

    /// Why packets go another way than is known here; `None` where they do not.
    pub(super) fn caution(&self, backing: &super::Backing) -> Option<String> {
        let kept = "the store could not be read, and the kernel goes on by what it was told before: what was pushed passes \
                    as it did, and is not shown here (`keyfence status` says what to do)";
        backing.bindings.is_kept().then(|| kept.to_owned())
    }

    /// Counts a request of this publisher against what it may ask; of one that left the policy, those in flight alone.
    pub(super) fn admit(&self, publisher: &str) -> Result<rates::Admitted, Problem> {
        let policy = self.backing.as_ref().map(|backing| backing.grants.policy().1);
        let entry = policy.as_ref().and_then(|policy| {
            let mut all = policy.publishers.iter();
            all.find(|entry| entry.name == publisher)
        });
        let limit = entry.and_then(|entry| entry.requests.as_ref());
        self.rates.admit(publisher, limit, self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &str) -> Result<Conditions, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        conditions(&headers).map_err(|problem| problem.code)
    }

    #[test]
    fn conditions_are_a_star_or_etags_in_quotes() {
        assert_eq!(conditions(&HeaderMap::new()).ok(), Some(Conditions::default()));
        let any = read("if-match", "*").unwrap();
        assert_eq!(any.if_match, Some(IfMatch::Any));
        let tags = read("if-match", "\"c-1\", W/\"c-2\"").unwrap();
        assert_eq!(
            tags.if_match,
            Some(IfMatch::Tags(vec!["c-1".to_owned(), "W/c-2".to_owned()]))
        );
        assert!(read("if-none-match", "*").unwrap().if_none_match_any);
        for (name, value) in [
            ("if-match", "c-1"),
            ("if-match", ""),
            ("if-match", "\"a\",,"),
            ("if-none-match", "\"c-1\""),
        ] {
            assert_eq!(read(name, value), Err(Code::Malformed), "{name}: {value}");
        }
    }
}
