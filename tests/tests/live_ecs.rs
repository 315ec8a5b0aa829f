//! The drop log of a live daemon, each line held to the Elastic Common Schema: every field outside `keyfence.` is one of
//! the schema's, and has its type.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use keyfence_tests::harness::drops::{SERVICES, lines};
use keyfence_tests::harness::frames::{self, SYN};
use keyfence_tests::harness::{Attach, Daemon, LISTED, Policy, SERVER, STRANGER, Site, Wire};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;

const ENTRIES: &str = r#"
[[client]]
name = "acme"
sources = ["10.77.0.2"]
services = ["*"]
limit = { packets = { rate = "1/h", burst = 1 } }
"#;

/// As the schema has a field.
#[derive(Deserialize)]
struct Field {
    r#type: String,
    #[serde(default)]
    array: bool,
    #[serde(default)]
    lower_case: bool,
    allowed: Option<Vec<String>>,
    #[serde(default)]
    expected_types: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Schema {
    version: String,
    fields: BTreeMap<String, Field>,
}

/// Elasticsearch's bound of a keyword, beyond which it is not indexed.
const KEYWORD_MAX: usize = 1024;

impl Schema {
    fn read() -> Self {
        let text = include_str!("../fixtures/ecs-8.11.0.json");
        serde_json::from_str(text).expect("the schema is JSON")
    }

    /// What is wrong with a document, a sentence each.
    fn faults(&self, document: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, value) in flat(document) {
            if name.starts_with("keyfence.") {
                continue;
            }
            let Some(field) = self.fields.get(&name) else {
                faults.push(format!("{name} is no field of the schema"));
                continue;
            };
            let values = match value {
                Value::Array(values) if field.array => values.as_slice(),
                Value::Array(_) => {
                    faults.push(format!("{name} is no list"));
                    continue;
                }
                _ if field.array => {
                    faults.push(format!("{name} is a list"));
                    continue;
                }
                one => std::slice::from_ref(one),
            };
            let bad = values.iter().filter(|value| !field.admits(value));
            faults.extend(bad.map(|value| format!("{name} cannot be {value}")));
        }
        let expected = &self.fields["event.category"].expected_types;
        let words = |value: &Value| -> Vec<String> {
            let words = value.as_array().into_iter().flatten();
            words
                .filter_map(|word| word.as_str().map(str::to_owned))
                .collect()
        };
        for category in words(&document["event"]["category"]) {
            let types = words(&document["event"]["type"]);
            let odd = types.iter().filter(|word| !expected[&category].contains(word));
            faults.extend(
                odd.map(|word| format!("event.type {word} does not go with the category {category}")),
            );
        }
        if document["ecs"]["version"] != *self.version {
            faults.push(format!("ecs.version is not {}", self.version));
        }
        faults
    }
}

impl Field {
    fn admits(&self, value: &Value) -> bool {
        let text = value.as_str();
        let typed = match self.r#type.as_str() {
            "keyword" => text.is_some_and(|text| !text.is_empty() && text.len() <= KEYWORD_MAX),
            "date" => text.is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
            "ip" => text.is_some_and(|text| text.parse::<IpAddr>().is_ok()),
            "long" => value.as_i64().is_some(),
            other => panic!("the schema's type {other} is not known here"),
        };
        let allowed = self
            .allowed
            .as_ref()
            .is_none_or(|allowed| text.is_some_and(|text| allowed.iter().any(|word| word == text)));
        let case = !self.lower_case || text.is_some_and(|text| text.to_lowercase() == text);
        typed && allowed && case
    }
}

/// Each field by its whole name, with its value.
fn flat(document: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), document)];
    while let Some((name, value)) = open.pop() {
        match value {
            Value::Object(members) => {
                let below = |member: &String| match name.as_str() {
                    "" => member.clone(),
                    name => format!("{name}.{member}"),
                };
                open.extend(members.iter().map(|(member, value)| (below(member), value)));
            }
            value => found.push((name, value)),
        }
    }
    found
}

#[test]
fn every_line_of_a_live_log_is_a_document_of_the_schema() {
    let schema = Schema::read();
    let site = Site::new();
    // One interval for all: more sources than the table holds leave overflow records too.
    let records = "[records]\ninterval = \"10m\"\n";
    let daemon = Daemon::start(
        &site,
        &Policy::new(Attach::Auto, SERVICES)
            .and(ENTRIES)
            .filter("non-ip = \"drop\"")
            .and(records),
    );
    let mut wire = Wire::open(&site);
    let to = IpAddr::V4(SERVER.v4);
    let (stranger, listed) = (IpAddr::V4(STRANGER.v4), IpAddr::V4(LISTED.v4));
    for _ in 0..3 {
        wire.send(&frames::udp(listed, 5, to, 7000, b"limited"));
        wire.send(&frames::tcp(stranger, 5, to, 7000, SYN));
        wire.send(&frames::udp(stranger, 5, to, 7001, b"observed"));
        let six = (IpAddr::V6(STRANGER.v6), IpAddr::V6(SERVER.v6));
        wire.send(&frames::udp(six.0, 5, six.1, 7000, b"six"));
        wire.send(&frames::ethernet(frames::IPV4, &[0x45; 10]));
        wire.send(&frames::ethernet(0x8847, &[0; 46]));
    }
    for number in 0..40_000u32 {
        let source: IpAddr = Ipv4Addr::from(0x0a0a_0000 + number).into();
        wire.send(&frames::udp(source, 9, to, 7000, b"flood"));
    }
    assert!(daemon.end(Signal::SIGTERM).success());
    let lines = lines(&site.drops());
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for line in &lines {
        let faults = schema.faults(line);
        assert!(faults.is_empty(), "{faults:?} in {line}");
        let kind = line["keyfence"]["kind"].as_str().expect("each line has its kind");
        *seen.entry(kind.to_owned()).or_default() += 1;
        let reason = line["event"]["reason"].as_str().unwrap_or("none");
        *seen.entry(reason.to_owned()).or_default() += 1;
        for (name, _) in flat(line) {
            *seen.entry(name).or_default() += 1;
        }
    }
    for wanted in [
        "record",
        "overflow",
        "checkpoint",
        "unlisted",
        "limit-grant",
        "malformed",
        "non-ip",
    ] {
        assert!(seen.contains_key(wanted), "no line of {wanted}");
    }
    // The schema's part here is what is used, and no more: what came is checked against something.
    for name in schema.fields.keys() {
        assert!(seen.contains_key(name), "{name} stands in no line");
    }
}

#[test]
fn documents_that_are_not_of_the_schema_are_found() {
    let schema = Schema::read();
    let good = serde_json::json!({
        "@timestamp": "2026-11-22T12:00:00Z", "ecs": { "version": "8.11.0" },
        "event": { "kind": "event", "category": ["network"], "type": ["connection", "denied"] },
        "source": { "ip": "198.51.100.7", "port": 5 }, "keyfence": { "anything": { "goes": 1 } },
    });
    assert_eq!(schema.faults(&good), [""; 0]);
    for (pointer, value) in [
        ("/@timestamp", "yesterday".into()),
        ("/event/kind", "drop".into()),
        ("/event/category", "network".into()),
        ("/event/type", serde_json::json!(["user"])),
        ("/source/ip", "198.51.100.0/24".into()),
        ("/source/port", "5".into()),
        ("/ecs/version", "1.0.0".into()),
        ("/source", serde_json::json!({ "colour": "red" })),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect("it is there") = value;
        assert_eq!(schema.faults(&bad).len(), 1, "{pointer}: {bad}");
    }
}
