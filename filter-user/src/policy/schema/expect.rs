//! What is expected of a packet: where it comes from, where it goes, and what must become of it.

use std::net::{IpAddr, SocketAddr};

use crate::policy::keys::{EXPECT, Key};
use crate::policy::model::{Expect, ExpectProtocol};
use crate::policy::prefix::unmapped_address;
use crate::policy::schema::entries::remarks;
use crate::policy::schema::values::{plain_text, unknown_word};
use crate::policy::schema::{Fields, Value, Walk};
use crate::policy::suggest::quoted;
use crate::policy::words::{DROP_REASONS, PASS_REASONS, VERDICTS};

type Destination = ((IpAddr, u16), ExpectProtocol);

pub(crate) fn expect(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Expect> {
    let fields = Fields::open(walk, &EXPECT, key, value)?;
    let from = fields.read(walk, "from", source);
    let to = fields.read(walk, "to", destination);
    let verdict = fields.read(walk, "verdict", verdict);
    let reason = fields.read(walk, "reason", |walk, key, value| {
        reason(walk, key, value, verdict.as_deref())
    });
    if let (Some((source, _)), Some(((destination, _), _))) = (from, to)
        && source.is_ipv4() != destination.is_ipv4()
    {
        let place = fields.place_of(walk, "to");
        let message = "`from` and `to` are not of one address family";
        walk.faults.error(
            place,
            "bad-expect",
            message,
            "write two IPv4 or two IPv6 addresses",
        );
    }
    let remarks = remarks(walk, &fields);
    let (to, protocol) = to?;
    Some(Expect {
        from: from?,
        to,
        protocol,
        verdict: verdict?,
        reason,
        remarks,
        origin: walk.origin(fields.place),
    })
}

fn source(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<(IpAddr, u16)> {
    let text = plain_text(walk, key, value)?;
    let parsed = address_and_port(text).map(|(address, port)| (address, port.unwrap_or(0)));
    if parsed.is_none() {
        let message = format!("{} is no address with or without a port", quoted(text));
        walk.error(
            value,
            "bad-expect",
            message,
            "write 198.51.100.7:40000, [2001:db8::1]:40000 or the address alone",
        );
    }
    parsed
}

fn destination(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Destination> {
    let text = plain_text(walk, key, value)?;
    let parsed = destination_from_text(text);
    if parsed.is_none() {
        let message = format!("{} is no destination", quoted(text));
        walk.error(
            value,
            "bad-expect",
            message,
            "write 203.0.113.10:443/tcp, [2001:db8::1]:443/udp or 203.0.113.10/icmp",
        );
    }
    parsed
}

fn destination_from_text(text: &str) -> Option<Destination> {
    let (address, protocol) = text.rsplit_once('/')?;
    let protocol = match protocol {
        "tcp" => ExpectProtocol::Tcp,
        "udp" => ExpectProtocol::Udp,
        "icmp" => ExpectProtocol::Icmp,
        _ => return None,
    };
    let (address, port) = address_and_port(address)?;
    // ICMP has no ports, the others need one.
    match (protocol, port) {
        (ExpectProtocol::Icmp, None) => Some(((address, 0), protocol)),
        (ExpectProtocol::Tcp | ExpectProtocol::Udp, Some(port)) => Some(((address, port), protocol)),
        _ => None,
    }
}

fn address_and_port(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some((unmapped_address(socket.ip()), Some(socket.port())));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse().ok().map(|address| (unmapped_address(address), None))
}

fn verdict(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<String> {
    word(walk, key, value, &VERDICTS)
}

fn reason(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
    verdict: Option<&str>,
) -> Option<String> {
    // Without a verdict it is not known which reasons are meant.
    match verdict? {
        "pass" => word(walk, key, value, &PASS_REASONS),
        _ => word(walk, key, value, &DROP_REASONS),
    }
}

fn word(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>, known: &[&str]) -> Option<String> {
    let text = plain_text(walk, key, value)?;
    if known.contains(&text) {
        return Some(text.to_owned());
    }
    unknown_word(walk, key.name, value, text, known);
    None
}
