//! The OpenAPI document is true: its paths are the routes, its codes the problems, and requests are strict.

use std::collections::BTreeSet;

use serde_json::Value;

use super::openapi::DOCUMENT;
use super::problem::Code;
use super::routes::{Verb, documented};
use crate::bindings::refusal;

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

#[test]
fn paths_and_methods_are_those_of_the_routes() {
    let document = document();
    let mut told = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            told.insert(format!("{method} {path}"));
        }
    }
    let mut answered = BTreeSet::new();
    for route in documented() {
        let path = route.path.replace("{*rest}", "{rest}");
        let methods: &[&str] = match route.verb {
            Verb::Get => &["get"],
            Verb::Put => &["put"],
            Verb::Post => &["post"],
            Verb::Delete => &["delete"],
            Verb::Any => &["get", "head", "post", "put", "delete", "patch", "options"],
        };
        answered.extend(methods.iter().map(|method| format!("{method} {path}")));
    }
    assert_eq!(told, answered);
}

#[test]
fn codes_of_problems_are_those_of_the_listeners_and_the_bindings() {
    let document = document();
    let told = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
        .as_array()
        .unwrap();
    let told: BTreeSet<&str> = told.iter().map(|code| code.as_str().unwrap()).collect();
    let own = Code::ALL.iter().map(|code| code.slug());
    let all: BTreeSet<&str> = own
        .chain(refusal::Code::ALL.iter().map(|code| code.slug()))
        .collect();
    assert_eq!(told, all);
}

/// Calls `look` with the place of each schema below this one, references followed.
fn walk(document: &Value, at: &str, schema: &Value, depth: u32, look: &mut dyn FnMut(&str, &Value)) {
    assert!(depth < 16, "{at} refers to itself");
    if let Some(name) = schema["$ref"].as_str() {
        let target = document
            .pointer(&name[1..])
            .unwrap_or_else(|| panic!("{name} of {at} is missing"));
        return walk(document, name, target, depth + 1, look);
    }
    look(at, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(document, &format!("{at}/{name}"), property, depth + 1, look);
    }
    for one in schema["oneOf"].as_array().into_iter().flatten() {
        walk(document, at, one, depth + 1, look);
    }
    if schema["items"].is_object() {
        walk(
            document,
            &format!("{at}/items"),
            &schema["items"],
            depth + 1,
            look,
        );
    }
}

#[test]
fn requests_take_no_further_members_and_all_that_they_take_is_bounded() {
    let document = document();
    let mut objects = 0;
    let mut look = |at: &str, schema: &Value| {
        match schema["type"].as_str() {
            Some("object") => {
                objects += 1;
                let closed = schema["additionalProperties"] == false || schema["maxProperties"].is_u64();
                assert!(closed, "{at} takes further members");
            }
            Some("array") => assert!(schema["maxItems"].is_u64(), "{at} has no end"),
            Some("string") => {
                let bounded = ["maxLength", "pattern", "format"]
                    .iter()
                    .any(|key| !schema[*key].is_null());
                assert!(bounded, "{at} has no bound");
            }
            Some("integer") => assert!(schema["minimum"].is_i64() || schema["minimum"].is_u64(), "{at}"),
            Some("number") => assert!(schema["minimum"].is_number(), "{at}"),
            Some("boolean" | "null") | None => {}
            Some(other) => panic!("{at} is of type {other}"),
        };
    };
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let bodies = operation["requestBody"]["content"].as_object();
            for (kind, body) in bodies.into_iter().flatten() {
                walk(
                    &document,
                    &format!("{method} {path} {kind}"),
                    &body["schema"],
                    0,
                    &mut look,
                );
            }
        }
    }
    assert!(objects > 10, "{objects} objects were looked at");
}

#[test]
fn each_reference_is_there_and_each_schema_is_referred_to() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in schemas.keys() {
        let reference = format!("\"#/components/schemas/{name}\"");
        assert!(DOCUMENT.contains(&reference), "{name} is not used");
    }
    for part in DOCUMENT.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is missing");
    }
}
