//! What the store of bindings shows of itself in a scrape.

use prometheus::proto::Metric;

use super::definitions::{BINDING_STATES, Definition, ENDING_WITHIN, Id};
use super::sample;
use crate::bindings::requests::{PublisherStatus, StoreStatus};

/// Hex digits of the audit log's head that a floating number holds exactly.
const HASH_DIGITS: usize = 13;

/// The values of a metric of the bindings, none until the store is there; `None` for other metrics.
pub(super) fn values(of: &Definition, status: Option<&StoreStatus>) -> Option<Vec<Metric>> {
    let one = |value: fn(&StoreStatus) -> u64| {
        let values = status.map(|status| sample(of, &[], value(status)));
        values.into_iter().collect()
    };
    let publishers = || status.iter().flat_map(|status| &status.publishers);
    Some(match of.id {
        Id::Bindings => publishers().flat_map(|publisher| states(of, publisher)).collect(),
        Id::BindingsEnding => publishers().flat_map(|publisher| ending(of, publisher)).collect(),
        Id::PublisherSuccess => publishers()
            .map(|publisher| {
                let at = publisher.last_success.map_or(0, jiff::Timestamp::as_second);
                sample(of, &[&publisher.name], at.max(0).cast_unsigned())
            })
            .collect(),
        Id::BindingsRevision => one(|status| status.revision),
        Id::Denies => one(|status| status.denies),
        Id::Alarms => one(|status| status.alarms.len() as u64),
        Id::StoreErrors => one(|status| status.disk_errors),
        Id::AuditLine => one(|status| status.audit.line),
        Id::AuditHash => one(|status| {
            let digits = status.audit.hash.get(..HASH_DIGITS).unwrap_or("0");
            u64::from_str_radix(digits, 16).unwrap_or(0)
        }),
        _ => return None,
    })
}

fn states(of: &Definition, publisher: &PublisherStatus) -> Vec<Metric> {
    let counts = [
        publisher.active,
        publisher.held,
        publisher.ended,
        publisher.suspended,
    ];
    let states = BINDING_STATES.iter().zip(counts);
    states
        .map(|(state, count)| sample(of, &[&publisher.name, state], count))
        .collect()
}

fn ending(of: &Definition, publisher: &PublisherStatus) -> Vec<Metric> {
    let counts = ENDING_WITHIN.iter().zip(publisher.ending);
    counts
        .map(|(within, count)| sample(of, &[&publisher.name, within], count))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bindings::requests::AuditHead;

    pub(in super::super) fn status() -> StoreStatus {
        let publisher = |name: &str, last_success: Option<&str>| PublisherStatus {
            name: name.to_owned(),
            active: 5,
            held: 0,
            ended: 1,
            suspended: 2,
            ending: [1, 3, 4],
            last_success: last_success.map(|at| at.parse().unwrap()),
        };
        StoreStatus {
            store: "b3f1".to_owned(),
            revision: 4711,
            alarms: vec!["leases are held".to_owned()],
            disk_errors: 4,
            publishers: vec![
                publisher("gateway", Some("2026-11-22T12:00:00Z")),
                publisher("idle", None),
            ],
            denies: 3,
            audit: AuditHead {
                line: 17,
                hash: format!("0{}", "f".repeat(63)),
            },
        }
    }

    #[test]
    fn without_a_store_there_are_no_values_of_it() {
        for definition in super::super::DEFINITIONS {
            let values = values(definition, None);
            assert!(
                values.is_none_or(|values| values.is_empty()),
                "{}",
                definition.name
            );
        }
    }
}
