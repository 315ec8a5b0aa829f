//! Readers of what a packet is matched by: prefixes, addresses, protocols, ports.

use ipnet::IpNet;
use toml::de::DeValue;

use crate::policy::keys::Key;
use crate::policy::model::{Addresses, PortRange, Protocols};
use crate::policy::prefix::{PrefixFault, merged, prefix_from_text};
use crate::policy::schema::quantities::integer;
use crate::policy::schema::values::{list, plain_text, unknown_word};
use crate::policy::schema::{Value, Walk};
use crate::policy::source::Placed;
use crate::policy::suggest::quoted;

pub(crate) fn prefixes(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
) -> Option<Vec<Placed<IpNet>>> {
    list(walk, key, value, |walk, value| {
        let text = plain_text(walk, key, value)?;
        let prefix = prefix(walk, value, text)?;
        Some(Placed {
            value: prefix,
            place: walk.place(value.span()),
        })
    })
}

fn prefix(walk: &mut Walk<'_>, value: &Value<'_>, text: &str) -> Option<IpNet> {
    match prefix_from_text(text) {
        Ok(prefix) => Some(prefix),
        Err(fault) => {
            walk.error(value, fault.code(), prefix_message(text, &fault), fault.fix());
            None
        }
    }
}

/// Text that is an address is shown as it is, other text is quoted.
pub(crate) fn prefix_message(text: &str, fault: &PrefixFault) -> String {
    match fault {
        PrefixFault::HostBits { .. } => format!("{text} {fault}"),
        _ => format!("{} {fault}", quoted(text)),
    }
}

pub(crate) fn addresses(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Addresses> {
    match value.get_ref() {
        DeValue::String(text) if text == "host" => Some(Addresses::Host),
        DeValue::String(text) => {
            let prefix = prefix(walk, value, text)?;
            Some(Addresses::Prefixes(vec![prefix]))
        }
        DeValue::Array(array) if array.is_empty() => {
            let message = format!("`{}` is empty", key.name);
            walk.error(
                value,
                "empty-list",
                message,
                "name at least one, or leave it out for every address",
            );
            None
        }
        DeValue::Array(array) => {
            if let Some(host) = array.iter().find(|item| item.get_ref().as_str() == Some("host")) {
                let message = "`host` stands alone, not in a list";
                walk.error(
                    host,
                    "bad-prefix",
                    message,
                    format!("write {} = \"host\"", key.name),
                );
                return None;
            }
            let prefixes = prefixes(walk, key, value)?;
            Some(Addresses::Prefixes(merged(
                prefixes.into_iter().map(|prefix| prefix.value).collect(),
            )))
        }
        _ => {
            walk.wrong_type(
                key,
                value,
                "a list of prefixes or \"host\"",
                "write [\"203.0.113.10\"]",
            );
            None
        }
    }
}

pub(crate) fn protocols(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Protocols> {
    let mut protocols = Protocols {
        tcp: false,
        udp: false,
    };
    if let DeValue::Array(array) = value.get_ref()
        && array.is_empty()
    {
        walk.error(
            value,
            "empty-list",
            "`protocol` is empty",
            "name at least one of tcp and udp",
        );
        return None;
    }
    let single = std::slice::from_ref(value);
    let items = value.get_ref().as_array().map_or(single, |array| &**array);
    for item in items {
        let DeValue::String(text) = item.get_ref() else {
            walk.wrong_type(
                key,
                item,
                "tcp, udp or a list of both",
                "write \"tcp\", \"udp\" or [\"tcp\", \"udp\"]",
            );
            continue;
        };
        match text.as_ref() {
            "tcp" => protocols.tcp = true,
            "udp" => protocols.udp = true,
            other => unknown_word(walk, key.name, item, other, &["tcp", "udp"]),
        }
    }
    Some(protocols)
}

/// Ranges in the order written. `port_min` is 1 for destinations, 0 for sources.
pub(crate) fn ports(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
    port_min: u16,
) -> Option<Vec<Placed<PortRange>>> {
    list(walk, key, value, |walk, value| {
        let range = port_range(walk, key, value, port_min)?;
        Some(Placed {
            value: range,
            place: walk.place(value.span()),
        })
    })
}

fn port_range(walk: &mut Walk<'_>, key: &Key, value: &Value<'_>, port_min: u16) -> Option<PortRange> {
    let (first, last) = match value.get_ref() {
        DeValue::Integer(number) => {
            let port = integer(number).unwrap_or(i128::MAX);
            (port, port)
        }
        DeValue::String(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let Some(range) = port_number(first).zip(port_number(last)) else {
                let fix = "write a port such as 443 or a range such as \"8443-8450\"";
                walk.error(
                    value,
                    "bad-port",
                    format!("{} is no port or range", quoted(text)),
                    fix,
                );
                return None;
            };
            range
        }
        _ => {
            walk.wrong_type(
                key,
                value,
                "a list of ports and ranges",
                "write [443, \"8443-8450\"]",
            );
            return None;
        }
    };
    checked_range(walk, value, first, last, port_min)
}

fn checked_range(
    walk: &mut Walk<'_>,
    value: &Value<'_>,
    first: i128,
    last: i128,
    port_min: u16,
) -> Option<PortRange> {
    for port in [first, last] {
        if port < i128::from(port_min) || port > i128::from(u16::MAX) {
            let message = format!("port {port} is out of range");
            walk.error(
                value,
                "port-out-of-range",
                message,
                format!("write {port_min} to {}", u16::MAX),
            );
            return None;
        }
    }
    if first > last {
        let message = format!("the range {first}-{last} is backward");
        walk.error(
            value,
            "backward-range",
            message,
            format!("write \"{last}-{first}\""),
        );
        return None;
    }
    Some(PortRange {
        first: u16::try_from(first).ok()?,
        last: u16::try_from(last).ok()?,
    })
}

fn port_number(text: &str) -> Option<i128> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Sorted; overlapping and adjacent ranges are one.
pub(crate) fn merged_ports(ports: &[Placed<PortRange>]) -> Vec<PortRange> {
    let mut ranges: Vec<PortRange> = ports.iter().map(|port| port.value).collect();
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
