//! A write's body: JSON in, canonical content, lease and row version out, or every fault at once.

use ipnet::IpNet;

use super::allowance::{Allowance, PolicyView};
use super::content::{Content, Labels, Services};
use super::json::{Faults, Json, Members, child};
use super::limits;
use crate::bindings::refusal::FieldFault;
use crate::policy::bounds::{
    LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX, PORT_RANGES_MAX,
};
use crate::policy::model::PortRange;
use crate::policy::prefix::prefix_from_text;

/// Of a PUT's body; a line of a batch or a sync has `op` and `credential` beside them.
const MEMBERS: [&str; 7] = [
    "sources",
    "services",
    "source_ports",
    "limit",
    "lease_seconds",
    "row_version",
    "labels",
];
const LINE_MEMBERS: [&str; 9] = [
    "op",
    "credential",
    "sources",
    "services",
    "source_ports",
    "limit",
    "lease_seconds",
    "row_version",
    "labels",
];
/// A writer's version of its row stays below 2^53: every JSON reader keeps it exact.
pub(crate) const ROW_VERSION_END: u64 = 1 << 53;
/// A hundred years: beyond, no end was meant.
const LEASE_SECONDS_MAX: u64 = 100 * 366 * 86_400;
/// More than any publisher's sources-max lets through; bounds the work on a body.
const SOURCES_READ_MAX: usize = 65_536;

/// What a PUT asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) content: Content,
    /// `None`: no end.
    pub(crate) lease_ms: Option<i64>,
    pub(crate) row_version: Option<u64>,
}

/// Whether the members of a line are known beside those of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Body,
    Line,
}

/// Reads and judges a binding for a publisher.
pub(crate) fn put_body(
    json: &Json,
    shape: Shape,
    view: &PolicyView,
    allowance: &Allowance,
) -> Result<Wanted, Vec<FieldFault>> {
    let mut faults = Faults::default();
    let known: &[&str] = match shape {
        Shape::Body => &MEMBERS,
        Shape::Line => &LINE_MEMBERS,
    };
    let Some(members) = Members::open(json, "", known, &mut faults) else {
        return Err(faults.into_vec());
    };
    let body = read(&members, view, allowance, &mut faults);
    match faults.is_empty() {
        true => Ok(body),
        false => Err(faults.into_vec()),
    }
}

/// What the publisher may have is judged beside what cannot be read, so that all is told at once.
fn read(members: &Members<'_>, view: &PolicyView, allowance: &Allowance, faults: &mut Faults) -> Wanted {
    let items = list(members, "sources", Presence::Required, faults);
    let sources = read_sources(items, faults);
    allowance.judge_sources(
        sources.iter().map(|(at, source)| (*at, source)),
        items.len(),
        faults,
    );
    let (all, names) = read_services(list(members, "services", Presence::Required, faults), faults);
    match all {
        true => allowance.judge_all_services(faults),
        false => allowance.judge_services(view, names.iter().copied(), faults),
    }
    let ports = read_ports(list(members, "source_ports", Presence::Optional, faults), faults);
    let limit = members
        .find("limit")
        .and_then(|json| limits::read(json, "/limit", faults));
    if let Some(limit) = &limit {
        limits::judge(limit, &allowance.publisher.limit_max, faults);
    }
    let labels = members.find("labels").and_then(|json| read_labels(json, faults));
    Wanted {
        content: Content {
            sources: canonical(sources).into(),
            services: services(all, names),
            source_ports: ports.into(),
            limit,
            labels,
        },
        lease_ms: lease(members, allowance, faults),
        row_version: row_version(members, faults),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

/// The items of a list; a required one has at least one.
fn list<'j>(members: &Members<'j>, name: &str, presence: Presence, faults: &mut Faults) -> &'j [Json<'j>] {
    let fix = || format!("write a list with at least one of the {name}");
    match members.find(name) {
        None if presence == Presence::Required => {
            let detail = format!("{name} is missing");
            faults.add("missing-member", members.pointer.clone(), detail, fix());
            &[]
        }
        None => &[],
        Some(Json::List(items)) if items.is_empty() && presence == Presence::Required => {
            faults.add("empty-list", members.at(name), format!("{name} is empty"), fix());
            &[]
        }
        Some(Json::List(items)) => items,
        Some(_) => {
            faults.add(
                "wrong-type",
                members.at(name),
                format!("{name} is no list"),
                fix(),
            );
            &[]
        }
    }
}

/// With their places.
pub(crate) fn read_sources(items: &[Json], faults: &mut Faults) -> Vec<(usize, IpNet)> {
    let mut sources = Vec::with_capacity(items.len().min(SOURCES_READ_MAX));
    for (at, item) in items.iter().enumerate().take(SOURCES_READ_MAX) {
        let pointer = || child("/sources", &at.to_string());
        let Json::Text(text) = item else {
            faults.add(
                "wrong-type",
                pointer(),
                "a source is no text",
                "write \"192.0.2.7\" or \"2001:db8::/64\"",
            );
            continue;
        };
        match prefix_from_text(text) {
            Ok(prefix) => sources.push((at, prefix)),
            Err(fault) => {
                // Only what is a prefix is quoted: other text could be a key.
                let detail = match fault.code() {
                    "host-bits" => format!("{text} {fault}"),
                    _ => fault.to_string(),
                };
                faults.add(fault.code(), pointer(), detail, fault.fix());
            }
        }
    }
    if items.len() > SOURCES_READ_MAX {
        let detail = format!("more than {SOURCES_READ_MAX} sources");
        faults.add("too-many-sources", "/sources", detail, "write fewer sources");
    }
    sources
}

/// Sorted and unique.
pub(crate) fn canonical(sources: Vec<(usize, IpNet)>) -> Vec<IpNet> {
    let mut sources: Vec<IpNet> = sources.into_iter().map(|(_, source)| source).collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// Whether `*` stands there, and the names with their places.
fn read_services<'j>(items: &'j [Json<'j>], faults: &mut Faults) -> (bool, Vec<(usize, &'j str)>) {
    let mut names = Vec::with_capacity(items.len());
    let mut all = false;
    for (at, item) in items.iter().enumerate() {
        let pointer = || child("/services", &at.to_string());
        match item {
            Json::Text(text) if text == "*" => all = true,
            Json::Text(text) if text.len() <= NAME_BYTES_MAX => names.push((at, &**text)),
            Json::Text(_) => faults.add(
                "unknown-service",
                pointer(),
                "the policy has no service of this name",
                "",
            ),
            _ => faults.add("wrong-type", pointer(), "a service is no text", "write its name"),
        }
    }
    if all && !names.is_empty() {
        let detail = "\"*\" stands beside names";
        faults.add(
            "star-and-names",
            "/services",
            detail,
            "write [\"*\"] alone, or names",
        );
    }
    (all, names)
}

fn services(all: bool, names: Vec<(usize, &str)>) -> Services {
    if all {
        return Services::All;
    }
    let mut names: Vec<Box<str>> = names.into_iter().map(|(_, name)| name.into()).collect();
    names.sort_unstable();
    names.dedup();
    Services::Named(names.into())
}

fn read_ports(items: &[Json], faults: &mut Faults) -> Vec<PortRange> {
    if items.len() > PORT_RANGES_MAX {
        let detail = format!("more than {PORT_RANGES_MAX} ranges");
        faults.add("too-many-ports", "/source_ports", detail, "write fewer ranges");
    }
    let mut ranges = Vec::new();
    for (at, item) in items.iter().enumerate().take(PORT_RANGES_MAX) {
        let range = match item {
            Json::Whole(port) => u16::try_from(*port).ok().map(|port| (port, port)),
            Json::Text(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                port_number(first)
                    .zip(port_number(last))
                    .filter(|(first, last)| first <= last)
            }
            _ => None,
        };
        match range {
            Some((first, last)) => ranges.push(PortRange { first, last }),
            None => faults.add(
                "bad-port",
                child("/source_ports", &at.to_string()),
                "this is no port or range",
                "write 443, \"443\" or \"1024-65535\"",
            ),
        }
    }
    merged(ranges)
}

fn port_number(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

fn merged(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut kept: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match kept.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => kept.push(range),
        }
    }
    kept
}

fn read_labels(json: &Json, faults: &mut Faults) -> Option<Box<Labels>> {
    let fix =
        format!("at most {LABELS_MAX} pairs of {LABEL_KEY_BYTES_MAX} and {LABEL_VALUE_BYTES_MAX} bytes");
    let Json::Object(pairs) = json else {
        faults.add("wrong-type", "/labels", "labels are no object", fix);
        return None;
    };
    if pairs.len() > LABELS_MAX {
        faults.add(
            "too-many-labels",
            "/labels",
            format!("{} pairs", pairs.len()),
            fix.clone(),
        );
    }
    let mut labels: Labels = Vec::with_capacity(pairs.len().min(LABELS_MAX));
    for (at, (name, value)) in pairs.iter().enumerate().take(LABELS_MAX) {
        // Names are the caller's text as well: the place is told by number.
        let told = format!("label {}", at + 1);
        match value {
            Json::Text(value)
                if !name.is_empty()
                    && name.len() <= LABEL_KEY_BYTES_MAX
                    && value.len() <= LABEL_VALUE_BYTES_MAX =>
            {
                labels.push(((&**name).into(), (&**value).into()));
            }
            Json::Text(_) => faults.add("bad-label", "/labels", format!("{told} is too long"), fix.clone()),
            _ => faults.add("wrong-type", "/labels", format!("{told} is no text"), fix.clone()),
        }
    }
    labels.sort_unstable();
    if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        faults.add(
            "repeated-member",
            "/labels",
            "a label stands there twice",
            "write it once",
        );
    }
    (!labels.is_empty()).then(|| Box::new(labels))
}

/// `None` is no end, which the publisher may have where nothing was recorded.
pub(crate) fn lease(members: &Members<'_>, allowance: &Allowance, faults: &mut Faults) -> Option<i64> {
    let fix = "write lease_seconds, a whole number above 0";
    match (members.find("lease_seconds"), allowance.publisher.lease_max) {
        (None | Some(Json::Null), None) => None,
        (None, Some(_)) => {
            let detail = "lease_seconds is missing";
            faults.add("missing-member", members.pointer.clone(), detail, fix);
            None
        }
        (Some(Json::Null), Some(_)) => {
            allowance.judge_end(true, faults);
            None
        }
        (Some(Json::Whole(seconds)), _) if (1..=LEASE_SECONDS_MAX).contains(seconds) => {
            let lease = i64::try_from(seconds * 1_000).ok();
            allowance.judge_lease(lease, faults);
            lease
        }
        (Some(_), _) => {
            faults.add("bad-lease", members.at("lease_seconds"), "this is no lease", fix);
            None
        }
    }
}

pub(crate) fn row_version(members: &Members<'_>, faults: &mut Faults) -> Option<u64> {
    match members.find("row_version") {
        None | Some(Json::Null) => None,
        Some(Json::Whole(version)) if *version < ROW_VERSION_END => Some(*version),
        Some(_) => {
            let detail = "this is no row version";
            faults.add(
                "bad-row-version",
                members.at("row_version"),
                detail,
                "write a whole number below 2^53",
            );
            None
        }
    }
}
