//! Listeners: where the API is served, what can be asked there, and what plain TCP may not.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::policy::keys::{Key, LISTENER, TLS};
use crate::policy::model::{Listener, ListenerAddress, Role, Tls};
use crate::policy::schema::publisher::account;
use crate::policy::schema::serving::refuse;
use crate::policy::schema::values::{boolean, list, one_of, path, plain_text, without_repeats};
use crate::policy::schema::{Fields, ListenerDraft, Value, Walk};
use crate::policy::source::Placed;
use crate::policy::suggest::quoted;
use crate::policy::words::Word;

/// Of a Unix socket's path (`sun_path`, with its final NUL, has 108).
const SOCKET_PATH_BYTES_MAX: usize = 107;

const UNIX_ROLES: [Role; 5] = [
    Role::Publish,
    Role::Authorize,
    Role::Read,
    Role::Operate,
    Role::Deny,
];
const TCP_ROLES: [Role; 1] = [Role::Metrics];

/// The listeners of a policy that writes none, as they would be written.
const DEFAULT_LISTENERS: [&str; 2] = [
    "{ address = \"unix:/run/keyfence/api.sock\" }",
    "{ address = \"tcp:127.0.0.1:9469\" }",
];

pub(crate) fn listener(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<ListenerDraft> {
    let fields = Fields::open(walk, &LISTENER, key, value)?;
    let address = fields.read(walk, "address", listener_address);
    let roles_written = fields.at("roles").is_some();
    let roles = match (fields.read(walk, "roles", roles), &address) {
        (Some(roles), _) => roles,
        (None, Some(ListenerAddress::Unix(_))) => UNIX_ROLES.to_vec(),
        (None, _) => TCP_ROLES.to_vec(),
    };
    let listener = Listener {
        address: address.clone().unwrap_or(ListenerAddress::Unix(PathBuf::new())),
        mode: fields.read(walk, "mode", octal).unwrap_or_default(),
        group: fields.read(walk, "group", account).unwrap_or_default(),
        group_written: fields.at("group").is_some(),
        assert: fields.read(walk, "assert", boolean).unwrap_or_default(),
        tls: fields.read(walk, "tls", tls),
        roles,
        roles_written,
        origin: Some(walk.origin(fields.place)),
    };
    match address {
        Some(ListenerAddress::Unix(_)) => refuse(walk, &fields, &["tls"], "a Unix socket"),
        Some(ListenerAddress::Tcp(address)) => {
            refuse(walk, &fields, &["mode", "group"], "a TCP listener");
            judge_tcp(walk, &fields, address, &listener);
        }
        None => {}
    }
    Some(ListenerDraft {
        address: fields.place_of(walk, "address"),
        listener,
    })
}

pub(crate) fn default_listeners(walk: &mut Walk<'_>, key: &'static Key) -> Vec<ListenerDraft> {
    let listeners = DEFAULT_LISTENERS.iter().filter_map(|text| {
        let mut draft = listener(walk, key, &DeValue::parse(text).ok()?)?;
        draft.listener.origin = None;
        Some(draft)
    });
    listeners.collect()
}

fn listener_address(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<ListenerAddress> {
    let text = plain_text(walk, key, value)?;
    let address = if let Some(path) = text.strip_prefix("unix:") {
        let fits = path.starts_with('/')
            && path.len() > 1
            && path.len() <= SOCKET_PATH_BYTES_MAX
            && !path.chars().any(char::is_control);
        fits.then(|| ListenerAddress::Unix(path.into()))
    } else {
        let address = text
            .strip_prefix("tcp:")
            .and_then(|rest| rest.parse::<SocketAddr>().ok());
        address
            .filter(|address| address.port() != 0)
            .map(ListenerAddress::Tcp)
    };
    if address.is_none() {
        let message = format!("{} is no address of a listener", quoted(text));
        let fix = format!(
            "write \"unix:/…\" (a path of at most {SOCKET_PATH_BYTES_MAX} bytes), \
             \"tcp:127.0.0.1:9469\" or \"tcp:[::1]:9469\""
        );
        walk.error(value, "bad-address", message, fix);
    }
    address
}

fn roles(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Vec<Role>> {
    let roles = list(walk, key, value, |walk, value| {
        let role: Role = one_of(walk, key, value)?;
        Some(Placed {
            value: role.name().to_owned(),
            place: walk.place(value.span()),
        })
    })?;
    Some(
        without_repeats(walk, "role", roles)
            .iter()
            .filter_map(|role| Role::named(&role.value))
            .collect(),
    )
}

fn octal(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<u32> {
    let fix = "write text of octal digits, such as \"0660\"";
    if !value.get_ref().is_str() {
        walk.wrong_type(key, value, "text of octal digits", fix);
        return None;
    }
    let text = plain_text(walk, key, value)?;
    let plain = (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| plain && *mode <= 0o777);
    if mode.is_none() {
        walk.error(
            value,
            "bad-mode",
            format!("{} is no mode of a socket", quoted(text)),
            fix,
        );
    }
    mode
}

fn tls(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Tls> {
    let fields = Fields::open(walk, &TLS, key, value)?;
    Some(Tls {
        certificate: fields.read(walk, "certificate", path).unwrap_or_default(),
        key: fields.read(walk, "key", path).unwrap_or_default(),
        client_ca: fields.read(walk, "client-ca", path),
    })
}

/// Over TCP nothing but a client certificate tells who asks.
fn judge_tcp(walk: &mut Walk<'_>, fields: &Fields<'_, '_>, address: SocketAddr, listener: &Listener) {
    let writing = listener
        .roles
        .iter()
        .find(|role| matches!(role, Role::Publish | Role::Operate | Role::Deny));
    let tls_written = fields.at("tls").is_some();
    if !tls_written && !address.ip().to_canonical().is_loopback() {
        let place = fields.place_of(walk, "address");
        let message = format!("plain TCP at {address} is not loopback");
        walk.faults.error(
            place,
            "plain-tcp",
            message,
            "listen at 127.0.0.1 or [::1], or add tls",
        );
    }
    let Some(role) = writing else { return };
    let place = fields.place_of(walk, "roles");
    if !tls_written {
        let message = format!("the role {} is not served over plain TCP", role.name());
        walk.faults.error(
            place,
            "plain-tcp",
            message,
            "remove it, add tls, or listen at a Unix socket",
        );
    } else if listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_none()) {
        let message = format!("the role {} needs client certificates", role.name());
        walk.faults.error(
            place,
            "plain-tcp",
            message,
            "add client-ca to tls, or remove the role",
        );
    }
}
