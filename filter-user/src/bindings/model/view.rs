//! A row as it is shown, and as the kernel is to hold it, under a policy and at a time.

use std::sync::Arc;

use super::allowance::PolicyView;
use super::content::{Services, etag_text};
use super::decide::Stored;
use super::lease::{Hold, Standing, kernel_end, monotonic, standing};
use super::limits;
use super::owned::Credential;
use super::row::{Row, Told};
use crate::bindings::clock::Now;
use crate::bindings::requests::{BindingView, State};
use crate::bindings::seam::Grantee;
use crate::policy::model::PortRange;

/// What is true of all bindings of a publisher, beside the policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublisherFacts {
    pub(crate) last_success_boot_ms: i64,
    /// Restored, and not synced since: nothing of it is in force that was written up to this revision; 0 is synced.
    pub(crate) unsynced: u64,
}

impl PublisherFacts {
    /// Whether a row is of a backup, and nobody has written it since, nor its publisher synced.
    pub(crate) fn restored(self, row: &Row) -> bool {
        self.unsynced != 0 && row.revision <= self.unsynced
    }

    pub(crate) fn stored(self, row: &Row) -> Stored<'_> {
        match self.restored(row) {
            true => Stored::Restored(row),
            false => Stored::Row(row),
        }
    }

    /// Where the lease of what is stored stands.
    pub(crate) fn standing(
        self,
        view: &PolicyView,
        publisher: &str,
        row: Option<&Row>,
        now: Now,
    ) -> Standing {
        let hold = self.hold(view, publisher);
        row.map_or(Standing::Running, |row| standing(row.end, hold, now.boot_ms))
    }

    pub(crate) fn hold(self, view: &PolicyView, publisher: &str) -> Hold {
        Hold {
            hold_ms: view
                .publisher(publisher)
                .map_or(0, |allowance| allowance.hold_ms()),
            last_success_boot_ms: self.last_success_boot_ms,
        }
    }
}

pub(crate) fn owner(publisher: &str, credential: &str) -> Arc<str> {
    owner_text(publisher, credential).into()
}

pub(crate) fn owner_text(publisher: &str, credential: &str) -> String {
    format!("binding/{publisher}/{credential}")
}

/// The publisher and the credential of an owner that `owner` named.
pub(crate) fn named(owner: &str) -> Option<(&str, &str)> {
    // No publisher's name has a slash.
    owner.strip_prefix("binding/")?.split_once('/')
}

/// Why it has no grant, its lease aside.
pub(crate) fn suspended(
    view: &PolicyView,
    publisher: &str,
    facts: PublisherFacts,
    row: &Row,
) -> Option<String> {
    if facts.restored(row) {
        let why = "the store was restored: suspended until its publisher has synced, or written it again";
        return Some(why.to_owned());
    }
    view.crowds(row.revision)
        .or_else(|| view.suspends(publisher, &row.content, row.end.is_none()))
}

pub(crate) fn state(
    view: &PolicyView,
    publisher: &str,
    facts: PublisherFacts,
    row: &Row,
    now_boot_ms: i64,
) -> (State, Option<String>) {
    let standing = standing(row.end, facts.hold(view, publisher), now_boot_ms);
    if standing == Standing::Over {
        return (State::Ended, None);
    }
    match (suspended(view, publisher, facts, row), standing) {
        (Some(why), _) => (State::Suspended, Some(why)),
        (None, Standing::Held) => (State::Held, None),
        (None, _) => (State::Active, None),
    }
}

/// What the kernel is to hold for it. Ended rows have none once their end was told.
pub(crate) fn grantee(
    view: &PolicyView,
    publisher: &str,
    facts: PublisherFacts,
    credential: &Credential,
    row: &Row,
    now: Now,
) -> Option<Grantee> {
    if row.told == Told::Ended || suspended(view, publisher, facts, row).is_some() {
        return None;
    }
    Some(Grantee {
        credential: credential.owner(),
        sources: row.content.sources.clone(),
        terms: view.publisher(publisher)?.terms(&row.content),
        end: row.end.map_or(u64::MAX, |end| {
            monotonic(kernel_end(end, facts.hold(view, publisher)), now)
        }),
    })
}

/// `last_seen` is the kernel's.
pub(crate) fn show(
    view: &PolicyView,
    publisher: &str,
    facts: PublisherFacts,
    credential: &str,
    row: &Row,
    last_seen: Option<jiff::Timestamp>,
    now: Now,
) -> BindingView {
    let (state, suspended_because) = state(view, publisher, facts, row, now.boot_ms);
    let content = &row.content;
    let labels = content.labels.iter().flat_map(|labels| labels.iter());
    BindingView {
        credential: credential.to_owned(),
        publisher: publisher.to_owned(),
        sources: content.sources.to_vec(),
        services: match &content.services {
            Services::All => vec!["*".to_owned()],
            Services::Named(names) => names.iter().map(|name| name.to_string()).collect(),
        },
        source_ports: content.source_ports.iter().map(port_text).collect(),
        limit: limits::show(content.limit.as_deref()),
        labels: labels
            .map(|(name, value)| (name.to_string(), serde_json::Value::from(value.as_ref())))
            .collect(),
        row_version: row.row_version,
        created: timestamp(row.created_ms),
        ends_at: row.end.map(|end| timestamp(end.wall_ms)),
        ends_in_ms: row.end.map(|end| end.boot_ms.saturating_sub(now.boot_ms)),
        last_seen,
        state,
        suspended_because,
        etag: etag_text(row.content.etag()),
        revision: row.revision,
    }
}

fn port_text(range: &PortRange) -> String {
    match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}-{}", range.first, range.last),
    }
}

/// Out of the calendar's range only where a clock is: its nearest end.
pub(crate) fn timestamp(wall_ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(wall_ms).unwrap_or(match wall_ms < 0 {
        true => jiff::Timestamp::MIN,
        false => jiff::Timestamp::MAX,
    })
}
