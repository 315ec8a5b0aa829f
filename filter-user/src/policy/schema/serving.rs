//! What is read at start only, listeners aside: daemon, credentials, authorize, records, sinks.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::policy::keys::{AUTHORIZE, CREDENTIALS, DAEMON, Key, RECORDS, SECRET_FILE, SINK};
use crate::policy::model::{
    Authorize, Credentials, Daemon, OnExit, RecordAddresses, Records, Scheme, Sink, SinkType,
};
use crate::policy::prefix::merged;
use crate::policy::schema::addresses::prefixes;
use crate::policy::schema::publisher::is_account;
use crate::policy::schema::quantities::{count, duration};
use crate::policy::schema::values::{
    boolean, bounded_text, list, name, one_of, path, text, texts, without_repeats,
};
use crate::policy::schema::{Fields, SinkDraft, Value, Walk};
use crate::policy::source::Placed;
use crate::policy::suggest::quoted;
use crate::policy::words::Word;

const ID_PATTERN_BYTES_MAX: usize = 1_024;
/// Of a compiled pattern, so that no text makes matching dear.
const ID_PATTERN_SIZE_MAX: usize = 1 << 20;

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

/// Records each of these keys where it was written although it means nothing there.
pub(crate) fn refuse(walk: &mut Walk<'_>, fields: &Fields<'_, '_>, keys: &[&str], of: &str) {
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
    let pattern = bounded_text(walk, key, value, ID_PATTERN_BYTES_MAX)?;
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
        trusted_proxies: merged(trusted.into_iter().map(|prefix| prefix.value).collect()),
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
