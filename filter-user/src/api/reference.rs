//! docs/API.md: the OpenAPI document, the routes' roles and the codes of problems, as one page for people.
//!
//! Says nothing of its own but what binds these together: what a request, a member or a code means stands with it.

use std::fmt::Write as _;

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;
use serde_json::Value;

use super::Bounds;
use super::openapi::DOCUMENT;
use super::problem::Code;
use super::prose::{DETACHED, FIRST_STEPS, RESTARTED};
use super::rates::{self, IN_FLIGHT_MAX};
use super::routes::{Route, Verb, documented, methods, role_names};
use super::slots::{KEPT, SHARE};
use crate::bindings::refusal;
use crate::bindings::requests::{DENY_PREFIXES_FEW, DENY_PREFIXES_KEPT, DENY_PREFIXES_MAX};
use crate::policy::bounds::{PORT_SETS_FEW, PORT_SETS_KEPT, PORT_SETS_MAX};

const HEAD: &str = "\
# The API

Written by `keyfence generate api-reference` from the OpenAPI document, which every listener serves at `/openapi.json`.
";

const BODY: &str = "Body";

/// The whole page.
pub fn reference() -> String {
    let document: Value = serde_json::from_str(DOCUMENT).expect("a test reads it");
    let mut page = format!(
        "{HEAD}\n{}\n\n{FIRST_STEPS}",
        text(&document["info"]["description"])
    );
    bounds(&mut page);
    page.push_str("\n## Requests\n");
    for route in documented() {
        let operation = &document["paths"][route.path.replace("{*rest}", "{rest}")][method(route)];
        // What this build does not do yet.
        if operation.is_null() {
            continue;
        }
        request(&mut page, route, operation);
    }
    errors(&mut page, &document);
    schemas(&mut page, &document);
    page.replace("\n\n\n", "\n\n")
}

/// What callers can use up, and what they are answered beyond it.
fn bounds(page: &mut String) {
    let Bounds {
        connections_max,
        header_timeout,
        request_timeout,
        operate_timeout,
        stall_timeout,
        line_timeout,
        body_bytes_max,
        ..
    } = Bounds::default();
    let (header, request, operate) = (
        header_timeout.as_secs(),
        request_timeout.as_secs(),
        operate_timeout.as_secs(),
    );
    let (stall, line, body) = (
        stall_timeout.as_secs(),
        line_timeout.as_secs(),
        body_bytes_max >> 10,
    );
    let (rate, burst) = (rates::OTHERS.rate, rates::OTHERS.burst);
    let _ = write!(
        page,
        "\n## Bounds\n\n\
         | of | bound | beyond it |\n| --- | --- | --- |\n\
         | a listener's connections | {connections_max}. No user (on TCP: no address, of IPv6 no /64) has more than \
         {SHARE} times as many as are left free, so whoever has few finds room; of a Unix socket's, every {KEPT}th is \
         for operators alone | 503 `busy`, and closed |\n\
         | a connection on which nothing is asked | {header} s | closed; what was sent meanwhile was not read: ask again on \
         a new one |\n\
         | a request's head | {header} s, 64 KiB | closed; 431, 414 |\n\
         | a body | {body} KiB (streams: a line; policies: 256 MiB), {line} s for it or for each line | 413, 408 |\n\
         | an answer | {request} s; what changes policies, backups and detach {operate} s | 503 `timeout` |\n\
         | a reader that takes nothing of its answer | {stall} s | closed |\n\
         | a caller's requests in flight | {IN_FLIGHT_MAX}, a batch and a sync | 503 `busy`, 409 |\n\
         | a caller's requests | a publisher's `requests`; who is neither publisher nor operator and denies: {rate} a \
         second, {burst} at once | 429 |\n\
         | a publisher's bindings | `bindings-max` | 409 `bindings-max` |\n\
         | owners of an address: bindings of all publishers, and clients, whose sources hold it | {OWNERS_PER_SOURCE_MAX} | \
         507 `table-full` with the `prefix`, a full sync as a whole; push what shares an address as one binding |\n\
         | sets of source ports, of all bindings and clients: each distinct one of more than one range | {PORT_SETS_MAX}, of \
         which the last {PORT_SETS_KEPT} are for the policy and for publishers with at most {PORT_SETS_FEW} | 507 \
         `table-full` with the `table` `PORT_SETS`; one range alone takes none |\n\
         | row versions of deleted bindings, for a day | a DELETE of what is there leaves its own always; of what is not \
         there, while the publisher has fewer than `bindings-max` of them | 409 `bindings-max` |\n\
         | denied prefixes, but operators' | {DENY_PREFIXES_MAX} in all, and {DENY_PREFIXES_KEPT} more for callers with at \
         most {DENY_PREFIXES_FEW} | 409 `denies-max` |\n"
    );
    page.push_str(RESTARTED);
    page.push_str(DETACHED);
}

/// Of the document; of what answers any method, the first.
fn method(route: &Route) -> String {
    match route.verb {
        Verb::Any => "get".to_owned(),
        verb => methods(verb).to_lowercase(),
    }
}

// Writing to a string cannot fail, here and below.
fn request(page: &mut String, route: &Route, operation: &Value) {
    let _ = writeln!(page, "\n### `{} {}`\n", methods(route.verb), route.path);
    let summary = text(&operation["summary"]);
    let stop = if summary.ends_with('?') { "" } else { "." };
    let _ = writeln!(page, "{summary}{stop}");
    if let Some(more) = operation["description"].as_str() {
        let _ = writeln!(page, "{more}");
    }
    let roles = match route.roles {
        [] => "none: every listener answers".to_owned(),
        roles => role_names(roles),
    };
    let _ = writeln!(page, "\nRole: {roles}.");
    let parameters = operation["parameters"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if !parameters.is_empty() {
        page.push_str("\n| parameter | in | value | meaning |\n| --- | --- | --- | --- |\n");
    }
    for parameter in parameters {
        row(
            page,
            &[
                format!("`{}`", text(&parameter["name"])),
                text(&parameter["in"]).to_owned(),
                kind(&parameter["schema"]),
                text(&parameter["description"]).to_owned(),
            ],
        );
    }
    contents(page, BODY, &operation["requestBody"]["content"]);
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        if status != "default" {
            contents(
                page,
                &format!("{status}, {}", text(&answer["description"])),
                &answer["content"],
            );
        }
    }
}

fn contents(page: &mut String, what: &str, contents: &Value) {
    if contents.is_null() && what != BODY {
        let _ = writeln!(page, "\n{what}");
    }
    for (media, content) in contents.as_object().into_iter().flatten() {
        let _ = writeln!(page, "\n{what}: `{media}`, {}", kind(&content["schema"]));
        let example = match &content["example"] {
            Value::Null => continue,
            Value::String(lines) => lines.clone(),
            object => format!("{object}\n"),
        };
        let _ = write!(page, "```\n{example}```\n");
    }
}

fn errors(page: &mut String, document: &Value) {
    let problem = &document["components"]["schemas"]["Problem"];
    let _ = write!(
        page,
        "\n## Errors\n\n{}\n\n```\n{}\n```\n\n",
        text(&problem["description"]),
        problem["examples"][0]
    );
    page.push_str("| status | code | meaning | again? |\n| --- | --- | --- | --- |\n");
    let own = Code::ALL
        .iter()
        .map(|code| (code.status().as_u16(), code.slug(), code.title()));
    let bindings = refusal::Code::ALL
        .iter()
        .map(|code| (code.status(), code.slug(), code.title()));
    let mut codes: Vec<(u16, &str, &str)> = own.chain(bindings).collect();
    codes.sort_unstable();
    // Listeners and bindings share some.
    codes.dedup_by_key(|(status, slug, _)| (*status, *slug));
    for (status, slug, title) in codes {
        row(
            page,
            &[
                status.to_string(),
                format!("`{slug}`"),
                title.to_owned(),
                again(status, slug).to_owned(),
            ],
        );
    }
    page.push('\n');
    members(page, problem);
}

/// What a caller does about it.
fn again(status: u16, slug: &str) -> &'static str {
    match (status, slug) {
        (_, "timeout") => "yes, the same: it may have been done",
        (429 | 503, _) => "yes, after `Retry-After`: nothing was done",
        (_, "sync-running" | "batch-running") => "yes, when the other has ended",
        (_, "sync-incomplete" | "slow-body") => "yes, whole: nothing was changed",
        (_, "policy-changed" | "condition-failed") => "read anew, then decide",
        (_, "stale-row-version") => "no: the store has newer",
        (_, "mass-revocation") => "with `?revoke_max=N`, where it is meant",
        (_, "too-old") => "list, then watch from there",
        (_, "captures-max") => "yes, when one has ended",
        (501, _) => "no: another release, or another policy",
        (507, _) => "later: an operator makes room; DELETE and renewals still succeed",
        (500.., _) => "later: the daemon's log has the cause",
        _ => "no: change the request, or the policy",
    }
}

fn schemas(page: &mut String, document: &Value) {
    page.push_str("\n## Schemas\n\nRequests take no further members; answers may gain some.\n");
    for (name, schema) in document["components"]["schemas"]
        .as_object()
        .into_iter()
        .flatten()
    {
        if name == "Problem" {
            continue;
        }
        let _ = writeln!(page, "\n### {name}\n");
        if let Some(about) = schema["description"].as_str() {
            let _ = writeln!(page, "{about}\n");
        }
        if !members(page, schema) {
            let mut variants = schema["oneOf"].as_array().into_iter().flatten().peekable();
            if variants.peek().is_none() {
                let _ = writeln!(page, "{}", kind(schema));
            }
            for variant in variants {
                if !members(page, variant) {
                    let _ = writeln!(page, "- {}", kind(variant));
                }
            }
        }
    }
}

/// An object's, as a table; whether it is one.
fn members(page: &mut String, schema: &Value) -> bool {
    let Some(properties) = schema["properties"].as_object() else {
        return false;
    };
    page.push_str("| member | value | meaning |\n| --- | --- | --- |\n");
    nested(page, "", schema, properties);
    page.push('\n');
    true
}

/// Objects within are told by paths, as deep as the document has them.
fn nested(page: &mut String, within: &str, schema: &Value, properties: &serde_json::Map<String, Value>) {
    let required = schema["required"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for (name, property) in properties {
        let optional = if required.iter().any(|one| one == name) {
            ""
        } else {
            ", optional"
        };
        let path = format!("{within}{name}");
        row(
            page,
            &[
                format!("`{path}`"),
                format!("{}{optional}", kind(property)),
                text(&property["description"]).to_owned(),
            ],
        );
        for (object, step) in [(property, "."), (&property["items"], "[].")] {
            if let Some(properties) = object["properties"].as_object() {
                nested(page, &format!("{path}{step}"), object, properties);
            }
        }
    }
}

fn row(page: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells
        .iter()
        .map(|cell| cell.replace('|', "\\|").replace('\n', " "))
        .collect();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What a value is, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if !schema["const"].is_null() {
        return format!("`{}`", schema["const"]);
    }
    if let Some(values) = schema["enum"].as_array() {
        let values = values
            .iter()
            .map(|value| format!("`{}`", value.as_str().unwrap_or("null")));
        return values.collect::<Vec<_>>().join(", ");
    }
    if let Some(all) = schema["oneOf"].as_array() {
        return all.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let named = types.iter().map(|name| match *name {
        "array" if schema["prefixItems"].is_array() => "list of numbers".to_owned(),
        "array" if schema["items"]["properties"].is_object() => "list of objects".to_owned(),
        "array" => format!("list of {}", kind(&schema["items"])),
        "integer" | "number" => format!("number{}", range(schema)),
        "string" if schema["format"] == "date-time" => "time (RFC 3339)".to_owned(),
        "string" => format!("text{}", length(schema)),
        other => other.to_owned(),
    });
    named.collect::<Vec<_>>().join(" or ")
}

fn range(schema: &Value) -> String {
    match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        (None, Some(most)) if schema["minimum"].is_number() => {
            format!(" from {} to {most}", schema["minimum"])
        }
        (Some(least), Some(most)) if most < i64::MAX as u64 => format!(" from {least} to {most}"),
        (Some(least), _) if least > 0 => format!(" from {least}"),
        _ => String::new(),
    }
}

fn length(schema: &Value) -> String {
    match schema["maxLength"].as_u64() {
        Some(most) => format!(" of at most {most} characters"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_names_each_request_code_and_schema_and_says_what_each_parameter_means() {
        let page = reference();
        for route in documented() {
            let told = page.contains(&format!("### `{} {}`", methods(route.verb), route.path));
            assert!(told, "{}", route.path);
        }
        for code in refusal::Code::ALL {
            assert!(
                page.contains(&format!("| {} | `{}` |", code.status(), code.slug())),
                "{code:?}"
            );
        }
        assert!(
            page.contains("| `ending` |") || page.contains("`publishers[].ending` |"),
            "{page}"
        );
        for line in page.lines().filter(|line| line.contains(" | query | ")) {
            assert!(!line.ends_with("|  |"), "{line}");
        }
    }
}
