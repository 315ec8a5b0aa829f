//! What is read at start only: daemon, listeners, credentials, authorize, records, sinks.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::policy::keys::{AUTHORIZE, CREDENTIALS, DAEMON, Key, LISTENER, RECORDS, SECRET_FILE, SINK, TLS};
use crate::policy::model::{
    Authorize, Credentials, Daemon, Listener, ListenerAddress, OnExit, RecordAddresses, Records, Role,
    Scheme, Sink, SinkType, Tls,
};
use crate::policy::schema::publisher::{account, is_account};
use crate::policy::schema::values::{
    boolean, count, duration, list, name, one_of, path, plain_text, prefixes, text, texts, without_repeats,
};
use crate::policy::schema::{Fields, ListenerDraft, SinkDraft, Value, Walk};
use crate::policy::source::Placed;
use crate::policy::suggest::quoted;
use crate::policy::words::Word;

/// Of a Unix socket's path (`sun_path`, with its final NUL, has 108).
const SOCKET_PATH_BYTES_MAX: usize = 107;
const ID_PATTERN_BYTES_MAX: usize = 1_024;
/// Of a compiled pattern, so that no text makes matching dear.
const ID_PATTERN_SIZE_MAX: usize = 1 << 20;

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
const DEFAULT_SINK: &str = "{}";

pub(crate) fn daemon(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Daemon> {
    let fields = Fields::open(walk, &DAEMON, key, value)?;
    Some(Daemon {
        instance: fields.read(walk, "instance", name).unwrap_or_default(),
        state: fields.read(walk, "state", path).unwrap_or_default(),
        on_exit: fields.read(walk, "on-exit", one_of).unwrap_or(OnExit::Keep),
        operators: fields.read(walk, "operators", operators).unwrap_or_default(),
    })
}

fn operators(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Vec<String>> {
    let operators = texts(walk, key, value, |walk, value, text| {
        if text.len() <= 64 && is_account(text.strip_prefix('@').unwrap_or(text)) {
            return Some(text.to_owned());
        }
        let message = format!("{} is no user or group", quoted(text));
        walk.error(
            value,
            "bad-account",
            message,
            "write a user such as root, or a group such as @wheel",
        );
        None
    })?;
    Some(
        without_repeats(walk, "operator", operators)
            .into_iter()
            .map(|operator| operator.value)
            .collect(),
    )
}

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
            "write \"unix:/…\" (a path of at most {SOCKET_PATH_BYTES_MAX} bytes), \"tcp:127.0.0.1:9469\" or \"tcp:[::1]:9469\""
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

/// Records each of these keys where it was written although it means nothing there.
fn refuse(walk: &mut Walk<'_>, fields: &Fields<'_, '_>, keys: &[&str], of: &str) {
    for key in keys.iter().filter(|key| fields.at(key).is_some()) {
        let place = fields.place_of(walk, key);
        walk.faults.error(
            place,
            "key-without-effect",
            format!("`{key}` means nothing for {of}"),
            "remove it",
        );
    }
}

pub(crate) fn credentials(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Credentials> {
    let fields = Fields::open(walk, &CREDENTIALS, key, value)?;
    let scheme = fields.read(walk, "scheme", one_of).unwrap_or(Scheme::Sha256);
    let secret_files = fields.read(walk, "secret-files", secret_files);
    if scheme == Scheme::HmacSha256 && secret_files.as_ref().is_none_or(Vec::is_empty) {
        let place = fields.place_of(walk, "scheme");
        let message = "hmac-sha256 needs a secret";
        walk.faults.error(
            place,
            "missing-key",
            message,
            "add secret-files = [{ id = \"k1\", file = \"/…\" }]",
        );
    }
    Some(Credentials {
        header: fields.read(walk, "header", headers).unwrap_or_default(),
        scheme,
        secret_files: secret_files.unwrap_or_default(),
        id_pattern: fields.read(walk, "id-pattern", id_pattern).unwrap_or_default(),
        origin: Some(walk.origin(fields.place)),
    })
}

fn headers(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Vec<String>> {
    let headers = texts(walk, key, value, |walk, value, text| {
        let (header, scheme) = text.split_once(": ").map_or((text, None), |(h, s)| (h, Some(s)));
        if is_token(header) && scheme.is_none_or(is_token) {
            return Some(text.to_owned());
        }
        let message = format!("{} is no header", quoted(text));
        walk.error(
            value,
            "bad-header",
            message,
            "write \"X-Api-Key\" or \"Authorization: Bearer\"",
        );
        None
    })?;
    Some(
        without_repeats(walk, "header", headers)
            .into_iter()
            .map(|header| header.value)
            .collect(),
    )
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn secret_files(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Vec<(String, PathBuf)>> {
    let mut ids = Vec::new();
    let files = list(walk, key, value, |walk, value| {
        let fields = Fields::open(walk, &SECRET_FILE, key, value)?;
        let id = fields.read(walk, "id", name)?;
        ids.push(Placed {
            value: id.clone(),
            place: fields.place_of(walk, "id"),
        });
        Some((id, fields.read(walk, "file", path)?))
    })?;
    without_repeats(walk, "secret", ids);
    Some(files)
}

fn id_pattern(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<String> {
    let pattern = crate::policy::schema::values::bounded_text(walk, key, value, ID_PATTERN_BYTES_MAX)?;
    if let Err(error) = compile_id_pattern(&pattern) {
        // The library's text has several lines; its last says what is wrong.
        let error = error.to_string();
        let why = error
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        walk.error(
            value,
            "bad-pattern",
            format!("`id-pattern` is no regular expression: {why}"),
            "correct it",
        );
        return None;
    }
    Some(pattern)
}

/// The pattern of key ids, bounded in what it may cost.
pub(crate) fn compile_id_pattern(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(ID_PATTERN_SIZE_MAX)
        .dfa_size_limit(ID_PATTERN_SIZE_MAX)
        .build()
}

pub(crate) fn authorize(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Authorize> {
    let fields = Fields::open(walk, &AUTHORIZE, key, value)?;
    let address_header = fields.read(walk, "address-header", header).unwrap_or_default();
    let trusted = fields.read(walk, "trusted-proxies", prefixes).unwrap_or_default();
    let trusted_none = fields
        .at("trusted-proxies")
        .is_none_or(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty()));
    if address_header.eq_ignore_ascii_case("X-Forwarded-For") && trusted_none {
        let place = fields.place_of(walk, "address-header");
        let message = "X-Forwarded-For without trusted-proxies believes whoever asks";
        walk.faults.error(
            place,
            "missing-key",
            message,
            "add trusted-proxies = [\"192.0.2.1\"]",
        );
    }
    Some(Authorize {
        address_header,
        trusted_proxies: crate::policy::prefix::merged(
            trusted.into_iter().map(|prefix| prefix.value).collect(),
        ),
        reason_header: fields.read(walk, "reason-header", boolean).unwrap_or_default(),
        origin: Some(walk.origin(fields.place)),
    })
}

fn header(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<String> {
    let text = text(walk, key, value)?;
    if is_token(&text) {
        return Some(text);
    }
    let message = format!("{} is no header", quoted(&text));
    walk.error(
        value,
        "bad-header",
        message,
        "write the name of a header, such as \"X-Forwarded-For\"",
    );
    None
}

pub(crate) fn records(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Records> {
    let fields = Fields::open(walk, &RECORDS, key, value)?;
    Some(Records {
        interval: fields.read(walk, "interval", duration).unwrap_or_default(),
        addresses: fields
            .read(walk, "addresses", one_of)
            .unwrap_or(RecordAddresses::Full),
        written: true,
        origin: Some(walk.origin(fields.place)),
    })
}

pub(crate) fn sink(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<SinkDraft> {
    let fields = Fields::open(walk, &SINK, key, value)?;
    let kind = fields.read(walk, "type", one_of).unwrap_or(SinkType::File);
    if kind != SinkType::File && fields.at("type").is_some() {
        refuse(
            walk,
            &fields,
            &["path", "rotate-size", "keep-size", "keep-age"],
            kind.name(),
        );
    }
    let sink = Sink {
        kind,
        path: fields.read(walk, "path", path).unwrap_or_default(),
        rotate_size: fields.read(walk, "rotate-size", count).unwrap_or_default(),
        keep_size: fields.read(walk, "keep-size", count).unwrap_or(u64::MAX),
        keep_age: fields.read(walk, "keep-age", duration).unwrap_or_default(),
        origin: Some(walk.origin(fields.place)),
    };
    if sink.keep_size < sink.rotate_size {
        let place = fields.place_of(walk, "keep-size");
        let message = "`keep-size` is below `rotate-size`: nothing could be kept";
        walk.faults.error(
            place,
            "out-of-bounds",
            message,
            "write at least what rotate-size is",
        );
    }
    Some(SinkDraft {
        path: fields.place_of(walk, "path"),
        sink,
    })
}

pub(crate) fn default_sinks(walk: &mut Walk<'_>, key: &'static Key) -> Vec<SinkDraft> {
    let draft = DeValue::parse(DEFAULT_SINK)
        .ok()
        .and_then(|value| sink(walk, key, &value));
    draft
        .map(|mut draft| {
            draft.sink.origin = None;
            draft
        })
        .into_iter()
        .collect()
}
