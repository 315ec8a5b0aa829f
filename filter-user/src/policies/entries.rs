//! The entries of two policies against each other: added, removed, changed, and which of their keys say something else.
//!
//! Where in a file an entry stands is no part of what it is.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::cover::Candidate;
use super::plan::without_places;
use crate::policy::Policy;
use crate::policy::model::{Client, Publisher, ServiceSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Added,
    Removed,
    Changed,
    Gained,
    Lost,
}

impl What {
    pub(super) const fn index(self) -> usize {
        match self {
            What::Added | What::Gained => 0,
            What::Removed | What::Lost => 1,
            What::Changed => 2,
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// `service`, `client`, `deny`, `management`, `publisher`, `filter`; `source` for one that a client gains or loses.
    pub kind: &'static str,
    pub change: What,
    /// The entry's; a source's prefix.
    pub name: String,
    /// Of a source: whose it is, and the services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The keys that say something else, with what they said and say.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub keys: Map<String, Value>,
}

impl Change {
    fn of(kind: &'static str, change: What, name: &str) -> Change {
        Change {
            kind,
            change,
            name: name.to_owned(),
            owner: None,
            services: Vec::new(),
            keys: Map::new(),
        }
    }

    pub(super) fn source(change: What, candidate: &Candidate<'_>, services: &[&str]) -> Change {
        Change {
            owner: Some(crate::compiler::owner_name(candidate.client)),
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            ..Change::of("source", change, &candidate.prefix.to_string())
        }
    }
}

/// All of them, by kind and name.
pub(super) fn changes(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(keys) = differing(&value(&old.filter), &value(&new.filter)) {
        changes.push(Change {
            keys,
            ..Change::of("filter", What::Changed, "filter")
        });
    }
    let kinds: [(&'static str, Read); 5] = [
        ("service", services),
        ("management", management),
        ("deny", denies),
        ("client", clients),
        ("publisher", publishers),
    ];
    for (kind, entries) in kinds {
        compare(kind, &entries(old), &entries(new), &mut changes);
    }
    changes
}

fn services(policy: &Policy) -> Entries<'_> {
    let entries = policy.services.iter();
    entries.map(|entry| (entry.name.as_str(), value(entry))).collect()
}

fn management(policy: &Policy) -> Entries<'_> {
    let entries = policy.management.iter();
    entries.map(|entry| (entry.name.as_str(), value(entry))).collect()
}

fn denies(policy: &Policy) -> Entries<'_> {
    let entries = policy.denies.iter();
    entries.map(|entry| (entry.name.as_str(), value(entry))).collect()
}

fn clients(policy: &Policy) -> Entries<'_> {
    let entries = policy.clients.iter();
    entries
        .map(|entry| (entry.name.as_str(), client(policy, entry)))
        .collect()
}

fn publishers(policy: &Policy) -> Entries<'_> {
    let entry = |publisher: &Publisher| {
        let mut object = value(publisher);
        object.insert("services".to_owned(), reached(policy, &publisher.services));
        object
    };
    let entries = policy.publishers.iter();
    entries
        .map(|publisher| (publisher.name.as_str(), entry(publisher)))
        .collect()
}

type Read = fn(&Policy) -> Entries<'_>;
type Entries<'a> = BTreeMap<&'a str, Map<String, Value>>;

fn compare(kind: &'static str, old: &Entries<'_>, new: &Entries<'_>, changes: &mut Vec<Change>) {
    for (name, before) in old {
        match new.get(name) {
            None => changes.push(Change::of(kind, What::Removed, name)),
            Some(after) => changes.extend(differing(before, after).map(|keys| Change {
                keys,
                ..Change::of(kind, What::Changed, name)
            })),
        }
    }
    let added = new.keys().filter(|name| !old.contains_key(*name));
    changes.extend(added.map(|name| Change::of(kind, What::Added, name)));
}

/// The keys that say something else; `None` where none does.
fn differing(old: &Map<String, Value>, new: &Map<String, Value>) -> Option<Map<String, Value>> {
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    let null = Value::Null;
    let of = |object: &Map<String, Value>, key: &String| object.get(key).unwrap_or(&null).clone();
    let differing: Map<String, Value> = keys
        .filter(|key| of(old, key) != of(new, key))
        .map(|key| {
            let both = serde_json::json!({ "from": of(old, key), "to": of(new, key) });
            (key.replace('_', "-"), both)
        })
        .collect();
    (!differing.is_empty()).then_some(differing)
}

fn value(entry: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(entry).map(without_places) {
        Ok(Value::Object(object)) => object,
        // Every entry is an object of texts and numbers.
        _ => Map::new(),
    }
}

/// Sources may be millions: they are compared by themselves.
fn client(policy: &Policy, client: &Client) -> Map<String, Value> {
    let mut object = value(&Client {
        name: client.name.clone(),
        sources: Vec::new(),
        source_ports: client.source_ports.clone(),
        services: client.services.clone(),
        credentials: client.credentials.clone(),
        limit: client.limit,
        expires: client.expires,
        enabled: client.enabled,
        remarks: client.remarks.clone(),
        origin: client.origin.clone(),
    });
    object.insert("services".to_owned(), reached(policy, &client.services));
    object
}

/// By name: an index says something else in another policy.
fn reached(policy: &Policy, services: &ServiceSet) -> Value {
    match services {
        ServiceSet::All => serde_json::json!(["*"]),
        ServiceSet::Some(indexes) => {
            let services = indexes.iter().filter_map(|index| policy.services.get(*index));
            services
                .map(|service| Value::from(service.name.as_str()))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::text::PolicyText;

    fn policy(entries: &str) -> Policy {
        let text = format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nmanagement-none = true\n\
             [[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [443]\n{entries}"
        );
        PolicyText::policy(text)
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        let changes = changes(&policy(old), &policy(new));
        let shown = |change: &Change| {
            let keys: Vec<&str> = change.keys.keys().map(String::as_str).collect();
            format!(
                "{} {:?} {} {}",
                change.kind,
                change.change,
                change.name,
                keys.join(",")
            )
        };
        changes.iter().map(shown).collect()
    }

    const CLIENT: &str = "[[client]]\nname = \"c\"\nsources = [\"198.51.100.7\"]\nservices = [\"a\"]\n";
    const SERVICE: &str = "[[service]]\nname = \"b\"\nprotocol = \"udp\"\nports = [53]\n";

    #[test]
    fn entry_that_only_moved_or_whose_services_have_other_numbers_is_the_same() {
        let moved = format!("# a line\n{CLIENT}");
        assert_eq!(told(CLIENT, &moved), [""; 0]);
        let before = "[[service]]\nname = \"0\"\nprotocol = \"udp\"\nports = [54]\n";
        let added = told(
            &format!("{CLIENT}{SERVICE}"),
            &format!("{before}{CLIENT}{SERVICE}"),
        );
        assert_eq!(added, ["service Added 0 "]);
    }

    #[test]
    fn each_kind_of_change_is_told_with_its_keys() {
        let limited = CLIENT.replace(
            "services = [\"a\"]",
            "services = [\"*\"]\nlimit = { packets = { rate = 10, burst = 20 } }",
        );
        assert_eq!(told(CLIENT, &limited), ["client Changed c limit,services"]);
        assert_eq!(
            told(&format!("{CLIENT}{SERVICE}"), ""),
            ["service Removed b ", "client Removed c "]
        );
        let deny = "[[deny]]\nname = \"d\"\nsources = [\"192.0.2.1\"]\n";
        assert_eq!(told("", deny), ["deny Added d "]);
        assert_eq!(
            told(deny, &deny.replace("2.1", "2.2")),
            ["deny Changed d sources"]
        );
        assert_eq!(
            told("", "[filter.icmp-limit]\npackets = { rate = 10, burst = 20 }\n").len(),
            1
        );
    }
}
