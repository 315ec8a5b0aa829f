//! One whole file: its TOML syntax, its version, and which tables it may hold.

use toml::de::{DeTable, DeValue};

use crate::policy::bounds::{RECOVERY_BYTES_MAX, VERSION};
use crate::policy::keys::{FILTER, Key, Kind, ROOT};
use crate::policy::model::{Attach, Filter, Mode, PassDrop, PassListedDrop};
use crate::policy::schema::quantities::{count, integer};
use crate::policy::schema::values::{boolean, list, one_of, plain_text, texts, without_repeats};
use crate::policy::schema::{
    Draft, Fields, FilterDraft, Value, Walk, entries, expect, limits, listener, publisher, serving,
};
use crate::policy::source::{Place, Placed};
use crate::policy::suggest::{nearest, quoted};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Root,
    Included,
}

/// Reads one file's text into the draft.
pub(crate) fn walk_file(walk: &mut Walk<'_>, kind: FileKind, text: &str, draft: &mut Draft) {
    let (table, sound) = parse(walk, text);
    if !sound {
        draft.incomplete = true;
        // Other files are still checked, so what they are must be known.
        if kind == FileKind::Root
            && let Some(value) = table.get("include")
            && let Some(key) = ROOT.key("include")
        {
            draft.include = include(walk, key, value).unwrap_or_default();
        }
        return;
    }
    match kind {
        FileKind::Root => walk_root(walk, &table, draft),
        FileKind::Included => walk_included(walk, &table, draft),
    }
}

/// The tree, and whether it is sound enough to be walked. A key that is written twice leaves a sound tree:
/// the first value counts, and what else is wrong is still found.
fn parse<'i>(walk: &mut Walk<'_>, text: &'i str) -> (DeTable<'i>, bool) {
    let first_fault = match DeTable::parse(text) {
        Ok(table) => return (table.into_inner(), true),
        Err(fault) => fault,
    };
    if text.len() > RECOVERY_BYTES_MAX {
        report_syntax(walk, text, &first_fault);
        return (DeTable::new(), false);
    }
    let (table, faults) = DeTable::parse_recoverable(text);
    let mut sound = true;
    for fault in &faults {
        sound &= report_syntax(walk, text, fault);
    }
    (table.into_inner(), sound)
}

/// Whether the tree is sound despite the fault.
fn report_syntax(walk: &mut Walk<'_>, text: &str, fault: &toml::de::Error) -> bool {
    let end = text.len();
    let span = fault.span().unwrap_or(end..end);
    let (start, stop) = (floor_boundary(text, span.start), floor_boundary(text, span.end));
    let place = walk.place(start..stop.max(start));
    if fault.message() == "duplicate key" {
        let key = text.get(start..stop).unwrap_or_default();
        let message = format!("{} is written twice", quoted(key));
        walk.faults
            .error(place, "repeated-key", message, "remove one of them");
        return true;
    }
    let message = fault.message().lines().collect::<Vec<_>>().join(", ");
    walk.faults
        .error(place, "syntax", message, "correct the TOML here");
    false
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn walk_root(walk: &mut Walk<'_>, table: &DeTable<'_>, draft: &mut Draft) {
    if let Some(value) = table.get("version")
        && is_other_version(walk, value)
    {
        draft.other_version = true;
        return;
    }
    let fields = Fields::new(walk, &ROOT, table, Place::start_of(walk.file));
    draft.include = fields.read(walk, "include", include).unwrap_or_default();
    draft.filter = fields.read(walk, "filter", filter);
    draft.daemon = fields.read(walk, "daemon", serving::daemon);
    draft.credentials = fields.read(walk, "credentials", serving::credentials);
    draft.authorize = fields.read(walk, "authorize", serving::authorize);
    draft.records = fields.read(walk, "records", serving::records);
    forget_default_origins(&fields, draft);
    draft.publishers = each(walk, table, "publisher", publisher::publisher);
    draft.listeners = match (fields.at("listener"), ROOT.key("listener")) {
        (None, Some(key)) => listener::default_listeners(walk, key),
        _ => each(walk, table, "listener", listener::listener),
    };
    draft.sinks = match (fields.at("sink"), ROOT.key("sink")) {
        (None, Some(key)) => serving::default_sinks(walk, key),
        _ => each(walk, table, "sink", serving::sink),
    };
    walk_entries(walk, table, draft);
}

fn walk_included(walk: &mut Walk<'_>, table: &DeTable<'_>, draft: &mut Draft) {
    for (key, _) in table {
        let name = key.get_ref().as_ref();
        let place = walk.place(key.span());
        match ROOT.key(name) {
            Some(Key {
                kind: Kind::Tables(entry),
                ..
            }) if entry.included => {}
            Some(_) if name == "version" => {
                walk.faults.error(
                    place,
                    "not-in-include",
                    "a second `version`",
                    "remove it: the root file's counts",
                );
            }
            Some(_) => {
                let message = format!("{} belongs into the root file", quoted(name));
                let fix =
                    "move it there; an included file holds service, client, deny, management and expect";
                walk.faults.error(place, "not-in-include", message, fix);
            }
            None => {
                let known = ROOT
                    .keys
                    .iter()
                    .filter(|key| matches!(key.kind, Kind::Tables(entry) if entry.included));
                let fix = match nearest(name, known.map(|key| key.name)) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "remove it; an included file holds service, client, deny, management and expect"
                        .to_owned(),
                };
                walk.faults
                    .error(place, "unknown-key", format!("unknown key {}", quoted(name)), fix);
            }
        }
    }
    walk_entries(walk, table, draft);
}

fn walk_entries(walk: &mut Walk<'_>, table: &DeTable<'_>, draft: &mut Draft) {
    draft
        .services
        .extend(each(walk, table, "service", entries::service));
    draft.clients.extend(each(walk, table, "client", entries::client));
    draft.denies.extend(each(walk, table, "deny", entries::deny));
    draft
        .management
        .extend(each(walk, table, "management", entries::management));
    draft.expects.extend(each(walk, table, "expect", expect::expect));
}

/// Tables are read with their defaults: one that was not written has no origin.
fn forget_default_origins(fields: &Fields<'_, '_>, draft: &mut Draft) {
    if let (Some(credentials), None) = (&mut draft.credentials, fields.at("credentials")) {
        credentials.origin = None;
    }
    if let (Some(authorize), None) = (&mut draft.authorize, fields.at("authorize")) {
        authorize.origin = None;
    }
    if let (Some(records), None) = (&mut draft.records, fields.at("records")) {
        records.origin = None;
        records.written = fields.at("sink").is_some();
    }
}

/// Every entry of a kind. One written as `[kind]` is read all the same, so that its other faults show too.
fn each<T>(
    walk: &mut Walk<'_>,
    table: &DeTable<'_>,
    name: &str,
    reader: fn(&mut Walk<'_>, &'static Key, &Value<'_>) -> Option<T>,
) -> Vec<T> {
    let (Some(key), Some(value)) = (ROOT.key(name), table.get(name)) else {
        return Vec::new();
    };
    match value.get_ref() {
        DeValue::Array(entries) => entries
            .iter()
            .filter_map(|entry| reader(walk, key, entry))
            .collect(),
        DeValue::Table(_) => {
            walk.wrong_type(key, value, "a list of tables", format!("write [[{name}]]"));
            reader(walk, key, value).into_iter().collect()
        }
        _ => {
            walk.wrong_type(key, value, "a list of tables", format!("write [[{name}]]"));
            Vec::new()
        }
    }
}

fn is_other_version(walk: &mut Walk<'_>, value: &Value<'_>) -> bool {
    match value.get_ref() {
        DeValue::Integer(number) => match integer(number) {
            Some(VERSION) => false,
            Some(newer) if newer > VERSION => {
                let message = format!(
                    "version {newer} is newer than this release of keyfence, which reads version {VERSION}"
                );
                walk.error(
                    value,
                    "newer-version",
                    message,
                    format!("install a release that reads version {newer}"),
                );
                true
            }
            _ => {
                walk.error(
                    value,
                    "bad-version",
                    "there is no such version",
                    format!("write version = {VERSION}"),
                );
                false
            }
        },
        _ => {
            let message = "`version` is a whole number";
            walk.error(value, "wrong-type", message, format!("write version = {VERSION}"));
            false
        }
    }
}

fn include(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Vec<Placed<String>>> {
    texts(walk, key, value, |_, _, text| Some(text.to_owned()))
}

fn filter(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<FilterDraft> {
    let fields = Fields::open(walk, &FILTER, key, value)?;
    let interfaces = fields.read(walk, "interfaces", interfaces).unwrap_or_default();
    let pass = PassDrop::Pass;
    let written_at =
        |walk: &Walk<'_>, name: &str| fields.at(name).map(|value| walk.origin(walk.place(value.span())));
    let filter = Filter {
        interfaces: interfaces
            .iter()
            .map(|interface| interface.value.clone())
            .collect(),
        mode: fields.read(walk, "mode", one_of).unwrap_or(Mode::Enforce),
        attach: fields.read(walk, "attach", one_of).unwrap_or(Attach::Auto),
        other_traffic: fields.read(walk, "other-traffic", one_of).unwrap_or(pass),
        other_address: fields.read(walk, "other-address", one_of).unwrap_or(pass),
        fragments: fields
            .read(walk, "fragments", one_of)
            .unwrap_or(PassListedDrop::Listed),
        ping: fields.read(walk, "ping", one_of).unwrap_or(PassListedDrop::Pass),
        non_ip: fields.read(walk, "non-ip", one_of).unwrap_or(pass),
        management_none: fields.read(walk, "management-none", boolean).unwrap_or_default(),
        source_limit_max: fields.read(walk, "source-limit-max", count).unwrap_or_default(),
        source_limit_max_origin: written_at(walk, "source-limit-max"),
        source_limit: fields
            .read(walk, "source-limit", limits::limits)
            .unwrap_or_default(),
        source_limit_origin: written_at(walk, "source-limit"),
        icmp_limit: fields
            .read(walk, "icmp-limit", limits::limits)
            .unwrap_or_default(),
    };
    let other_traffic = fields.place_of(walk, "other-traffic");
    let icmp_limit = fields.place_of(walk, "icmp-limit");
    Some(FilterDraft {
        filter,
        place: fields.place,
        interfaces,
        other_traffic,
        icmp_limit,
    })
}

fn interfaces(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Vec<Placed<String>>> {
    let interfaces = list(walk, key, value, |walk, value| {
        let text = plain_text(walk, key, value)?;
        if is_interface(text) {
            return Some(Placed {
                value: text.to_owned(),
                place: walk.place(value.span()),
            });
        }
        let fix = "write a name of at most 15 bytes, such as eth0, or a glob, such as eth*";
        walk.error(
            value,
            "bad-interface",
            format!("{} is no interface", quoted(text)),
            fix,
        );
        None
    })?;
    Some(without_repeats(walk, "interface", interfaces))
}

pub(crate) fn is_glob(interface: &str) -> bool {
    interface.contains(['*', '?', '['])
}

/// What the kernel takes as a device name (`dev_valid_name`), or a glob over such names.
fn is_interface(text: &str) -> bool {
    let plain = !text.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'))
        && text != "."
        && text != "..";
    let bytes_max = if is_glob(text) { 64 } else { 15 };
    plain && text.len() <= bytes_max && (!is_glob(text) || glob::Pattern::new(text).is_ok())
}
