//! Publishers: who may push bindings, told by exactly one identity, and within which bounds.

use std::time::Duration;

use crate::policy::keys::{CERTIFICATE, Key, PUBLISHER, WIDEST_PREFIX};
use crate::policy::model::{Publisher, PublisherIdentity, ServiceSet};
use crate::policy::schema::entries::{names, remarks, service_names};
use crate::policy::schema::limits::{limits, plain_bucket};
use crate::policy::schema::quantities::{bounded_duration, count, duration};
use crate::policy::schema::values::{name, plain_text, text};
use crate::policy::schema::{Fields, PublisherDraft, ServiceNames, Value, Walk};
use crate::policy::source::Place;
use crate::policy::suggest::quoted;
use crate::policy::units::percent_from_text;

const IDENTITIES: [&str; 4] = ["user", "group", "socket", "certificate"];
const CERTIFICATE_NAMES: [&str; 3] = ["uri", "dns", "email"];

pub(crate) fn publisher(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<PublisherDraft> {
    let fields = Fields::open(walk, &PUBLISHER, key, value)?;
    let (identity, identity_place) = identity(walk, &fields);
    let (widest_ipv4, widest_ipv6) = fields
        .read(walk, "widest-prefix", widest_prefix)
        .unwrap_or((32, 64));
    let publisher = Publisher {
        name: fields.read(walk, "name", name).unwrap_or_default(),
        identity: identity.unwrap_or(PublisherIdentity::User(String::new())),
        services: ServiceSet::All,
        environments: fields.read(walk, "environments", names).unwrap_or_default(),
        bindings_max: fields.read(walk, "bindings-max", count).unwrap_or_default(),
        sources_max: fields.read(walk, "sources-max", count).unwrap_or_default(),
        widest_ipv4,
        widest_ipv6,
        lease_max: fields.read(walk, "lease-max", lease_max).flatten(),
        lease_hold: fields.read(walk, "lease-hold", duration).unwrap_or_default(),
        revoke_max_percent: fields.read(walk, "revoke-max", percent).unwrap_or_default(),
        limit_default: fields.read(walk, "limit-default", limits).unwrap_or_default(),
        limit_max: fields.read(walk, "limit-max", limits).unwrap_or_default(),
        limit: fields.read(walk, "limit", limits).unwrap_or_default(),
        requests: fields.read(walk, "requests", plain_bucket),
        remarks: remarks(walk, &fields),
        origin: walk.origin(fields.place),
    };
    let services = fields.read(walk, "services", service_names);
    Some(PublisherDraft {
        name: fields.place_of(walk, "name"),
        identity: identity_place,
        services: services.unwrap_or(ServiceNames::Named(Vec::new())),
        publisher,
    })
}

/// The one identity that is written; none or more than one is a fault.
fn identity(walk: &mut Walk<'_>, fields: &Fields<'_, '_>) -> (Option<PublisherIdentity>, Place) {
    let written: Vec<&str> = IDENTITIES
        .into_iter()
        .filter(|key| fields.at(key).is_some())
        .collect();
    match written[..] {
        [] => {
            let message = "`publisher` has none of user, group, socket and certificate";
            walk.faults
                .error(fields.place, "identity", message, "add exactly one of them");
        }
        [_] => {}
        [first, second, ..] => {
            let place = fields.place_of(walk, second);
            let message = format!("`{second}` stands beside `{first}`");
            walk.faults.error(
                place,
                "identity",
                message,
                "write exactly one of user, group, socket and certificate",
            );
        }
    }
    let user = fields.read(walk, "user", account).map(PublisherIdentity::User);
    let group = fields.read(walk, "group", account).map(PublisherIdentity::Group);
    let socket = fields.read(walk, "socket", socket).map(PublisherIdentity::Socket);
    let certificate = fields.read(walk, "certificate", certificate);
    let place = written
        .first()
        .map_or(fields.place, |key| fields.place_of(walk, key));
    (user.or(group).or(socket).or(certificate), place)
}

/// A Unix user or group, by name or number.
pub(crate) fn account(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<String> {
    let text = text(walk, key, value)?;
    if is_account(&text) {
        return Some(text);
    }
    let message = format!("{} is no `{}`", quoted(&text), key.name);
    walk.error(
        value,
        "bad-account",
        message,
        "write the name of a Unix account, such as www-data",
    );
    None
}

pub(crate) fn is_account(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['-', '@'])
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, ':' | '/' | ','))
}

fn socket(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<String> {
    let text = text(walk, key, value)?;
    if text.starts_with("unix:/") {
        return Some(text);
    }
    let message = format!("{} is no address of a Unix socket", quoted(&text));
    walk.error(
        value,
        "bad-address",
        message,
        "write \"unix:/…\", the address of a listener",
    );
    None
}

fn certificate(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<PublisherIdentity> {
    let fields = Fields::open(walk, &CERTIFICATE, key, value)?;
    let written: Vec<&str> = CERTIFICATE_NAMES
        .into_iter()
        .filter(|key| fields.at(key).is_some())
        .collect();
    let [kind] = written[..] else {
        let message = "`certificate` does not have exactly one name";
        walk.error(
            value,
            "identity",
            message,
            "write exactly one of uri, dns and email",
        );
        return None;
    };
    let value = fields.read(walk, kind, text)?;
    Some(PublisherIdentity::Certificate {
        kind: kind.to_owned(),
        value,
    })
}

fn widest_prefix(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<(u8, u8)> {
    let fields = Fields::open(walk, &WIDEST_PREFIX, key, value)?;
    let ipv4 = fields.read(walk, "ipv4", count)?;
    let ipv6 = fields.read(walk, "ipv6", count)?;
    Some((u8::try_from(ipv4).ok()?, u8::try_from(ipv6).ok()?))
}

/// `None` inside is `"none"`.
fn lease_max(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Option<Duration>> {
    const TEN_YEARS: u64 = 3_650 * 86_400;
    if value.get_ref().as_str() == Some("none") {
        return Some(None);
    }
    bounded_duration(walk, key, value, 1, TEN_YEARS).map(Some)
}

fn percent(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<f64> {
    let fix = "write text such as \"10%\", from 0% to 100%";
    if !value.get_ref().is_str() {
        walk.wrong_type(key, value, "a percentage", fix);
        return None;
    }
    let text = plain_text(walk, key, value)?;
    match percent_from_text(text) {
        Ok(percent) if percent <= 100.0 => Some(percent),
        Ok(_) => {
            walk.error(
                value,
                "out-of-bounds",
                format!("`{}` is above 100%", key.name),
                fix,
            );
            None
        }
        Err(fault) => {
            walk.error(
                value,
                "bad-quantity",
                format!("`{}`: {} {fault}", key.name, quoted(text)),
                fix,
            );
            None
        }
    }
}
