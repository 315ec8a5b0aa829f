//! Names: unique within their kind, and those of services looked up where they are referred to.

use std::collections::HashMap;

use crate::policy::model::ServiceSet;
use crate::policy::schema::{Draft, ServiceNames};
use crate::policy::source::Place;
use crate::policy::suggest::{nearest, quoted};
use crate::policy::validate::Judge;

/// The services by name.
pub(crate) struct Services<'a> {
    by_name: HashMap<&'a str, usize>,
    names: Vec<&'a str>,
    /// Whether some service may be missing because its file could not be read.
    incomplete: bool,
}

impl<'a> Services<'a> {
    pub(crate) fn new(draft: &'a Draft) -> Self {
        let names: Vec<&str> = draft
            .services
            .iter()
            .map(|service| service.service.name.as_str())
            .collect();
        let by_name = names
            .iter()
            .enumerate()
            .map(|(index, name)| (*name, index))
            .collect();
        Services {
            by_name,
            names,
            incomplete: draft.incomplete,
        }
    }
}

impl Judge<'_> {
    pub(crate) fn names(&mut self, draft: &Draft) {
        self.unique(
            "service",
            draft.services.iter().map(|d| (d.service.name.as_str(), d.name)),
        );
        self.unique(
            "client",
            draft.clients.iter().map(|d| (d.client.name.as_str(), d.name)),
        );
        self.unique(
            "deny",
            draft.denies.iter().map(|d| (d.deny.name.as_str(), d.name)),
        );
        self.unique(
            "management",
            draft
                .management
                .iter()
                .map(|d| (d.management.name.as_str(), d.name)),
        );
        self.unique(
            "publisher",
            draft
                .publishers
                .iter()
                .map(|d| (d.publisher.name.as_str(), d.name)),
        );
    }

    fn unique<'n>(&mut self, kind: &str, names: impl Iterator<Item = (&'n str, Place)>) {
        let mut seen: HashMap<&str, Place> = HashMap::new();
        // An empty name stands for one that could not be read.
        for (name, place) in names.filter(|(name, _)| !name.is_empty()) {
            match seen.get(name) {
                None => {
                    seen.insert(name, place);
                }
                Some(first) => {
                    let first = self.sources.shown(*first);
                    let message = format!(
                        "a second {kind} has the name {}; the first is at {first}",
                        quoted(name)
                    );
                    self.faults
                        .error(place, "repeated-name", message, "give it another name");
                }
            }
        }
    }

    /// The services that are named; records those that do not exist.
    pub(crate) fn resolved(&mut self, services: &Services<'_>, names: &ServiceNames) -> ServiceSet {
        let ServiceNames::Named(names) = names else {
            return ServiceSet::All;
        };
        let mut indexes = Vec::with_capacity(names.len());
        for name in names {
            match services.by_name.get(name.value.as_str()) {
                Some(index) => indexes.push(*index),
                None if services.incomplete => {}
                None => {
                    let fix = match nearest(&name.value, services.names.iter().copied()) {
                        Some(known) => format!("did you mean `{known}`?"),
                        None => format!(
                            "add a [[service]] with this name, or name another{}",
                            known(services)
                        ),
                    };
                    let message = format!("there is no service {}", quoted(&name.value));
                    self.faults.error(name.place, "unknown-service", message, fix);
                }
            }
        }
        indexes.sort_unstable();
        indexes.dedup();
        ServiceSet::Some(indexes)
    }
}

/// The services there are, if they are few.
fn known(services: &Services<'_>) -> String {
    const SHOWN_MAX: usize = 8;
    let names: Vec<&str> = services
        .names
        .iter()
        .copied()
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() || names.len() > SHOWN_MAX {
        String::new()
    } else {
        format!(": {}", names.join(", "))
    }
}
