//! The entries that compile to the kernel's tables: services, clients, denies, management.

use toml::de::DeValue;

use crate::policy::bounds::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use crate::policy::keys::{CLIENT, DENY, Key, MANAGEMENT, SERVICE};
use crate::policy::model::{
    Addresses, Client, Deny, Management, PortRange, Protocols, Remarks, Service, ServiceSet,
};
use crate::policy::schema::addresses::{addresses, merged_ports, ports, prefixes, protocols};
use crate::policy::schema::limits::limits;
use crate::policy::schema::quantities::expires;
use crate::policy::schema::values::{
    bad_name_fix, boolean, bounded_text, check_name, list, name, one_of, text, texts, without_repeats,
};
use crate::policy::schema::{
    ClientDraft, DenyDraft, Fields, ManagementDraft, ServiceDraft, ServiceNames, Value, Walk,
};
use crate::policy::source::{Place, Placed};
use crate::policy::suggest::{is_unprintable, quoted};

const NO_PROTOCOL: Protocols = Protocols {
    tcp: false,
    udp: false,
};

pub(crate) fn service(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<ServiceDraft> {
    let fields = Fields::open(walk, &SERVICE, key, value)?;
    let ports = fields
        .read(walk, "ports", |walk, key, value| ports(walk, key, value, 1))
        .unwrap_or_default();
    warn_of_ephemeral_ports(walk, &ports);
    let service = Service {
        name: fields.read(walk, "name", name).unwrap_or_default(),
        environment: fields.read(walk, "environment", name).unwrap_or_default(),
        address: address(walk, &fields),
        protocols: fields.read(walk, "protocol", protocols).unwrap_or(NO_PROTOCOL),
        ports: merged_ports(&ports),
        mode: fields.read(walk, "mode", one_of),
        limit: fields.read(walk, "limit", limits).unwrap_or_default(),
        remarks: remarks(walk, &fields),
        origin: walk.origin(fields.place),
    };
    warn_of_udp_connections(walk, &fields, &service);
    Some(ServiceDraft {
        name: fields.place_of(walk, "name"),
        service,
        ports,
    })
}

pub(crate) fn client(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<ClientDraft> {
    let fields = Fields::open(walk, &CLIENT, key, value)?;
    let sources = fields.read(walk, "sources", prefixes).unwrap_or_default();
    let sources_file = fields.read(walk, "sources-file", |walk, key, value| {
        let file = text(walk, key, value)?;
        Some(Placed {
            value: file,
            place: walk.place(value.span()),
        })
    });
    report_no_sources(walk, &fields);
    let source_ports = fields.read(walk, "source-ports", |walk, key, value| {
        ports(walk, key, value, 0)
    });
    let credentials = fields.read(walk, "credentials", |walk, key, value| {
        texts(walk, key, value, |_, _, text| Some(text.to_owned()))
    });
    if let (None, Some(value)) = (&credentials, fields.at("credentials")) {
        walk.faults.secret(walk.place(value.span()));
    }
    let client = Client {
        name: fields.read(walk, "name", name).unwrap_or_default(),
        sources: Vec::new(),
        source_ports: merged_ports(&source_ports.unwrap_or_default()),
        services: ServiceSet::All,
        credentials: Vec::new(),
        limit: fields.read(walk, "limit", limits).unwrap_or_default(),
        expires: fields.read(walk, "expires", expires),
        enabled: fields.read(walk, "enabled", boolean).unwrap_or(true),
        remarks: remarks(walk, &fields),
        origin: walk.origin(fields.place),
    };
    let connections = client.limit.connections.map(|_| connections_place(walk, &fields));
    Some(ClientDraft {
        name: fields.place_of(walk, "name"),
        sources,
        sources_file,
        services: fields
            .read(walk, "services", service_names)
            .unwrap_or(ServiceNames::Named(Vec::new())),
        credentials: credentials.unwrap_or_default(),
        connections,
        file: walk.file,
        client,
    })
}

pub(crate) fn deny(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<DenyDraft> {
    let fields = Fields::open(walk, &DENY, key, value)?;
    let deny = Deny {
        name: fields.read(walk, "name", name).unwrap_or_default(),
        sources: Vec::new(),
        remarks: remarks(walk, &fields),
        origin: walk.origin(fields.place),
    };
    let sources = fields.read(walk, "sources", prefixes).unwrap_or_default();
    Some(DenyDraft {
        name: fields.place_of(walk, "name"),
        sources,
        deny,
    })
}

pub(crate) fn management(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
) -> Option<ManagementDraft> {
    let fields = Fields::open(walk, &MANAGEMENT, key, value)?;
    let ports = fields
        .read(walk, "ports", |walk, key, value| ports(walk, key, value, 1))
        .unwrap_or_default();
    let management = Management {
        name: fields.read(walk, "name", name).unwrap_or_default(),
        sources: Vec::new(),
        address: address(walk, &fields),
        protocols: fields.read(walk, "protocol", protocols).unwrap_or(NO_PROTOCOL),
        ports: merged_ports(&ports),
        remarks: remarks(walk, &fields),
        origin: walk.origin(fields.place),
    };
    let sources = fields.read(walk, "sources", prefixes).unwrap_or_default();
    Some(ManagementDraft {
        name: fields.place_of(walk, "name"),
        sources,
        management,
    })
}

/// `["a", "b"]` or `["*"]`.
pub(crate) fn service_names(
    walk: &mut Walk<'_>,
    key: &'static Key,
    value: &Value<'_>,
) -> Option<ServiceNames> {
    let names = texts(walk, key, value, |walk, value, text| {
        if text == "*" || check_name(text) {
            return Some(text.to_owned());
        }
        walk.error(
            value,
            "bad-name",
            format!("{} is no name", quoted(text)),
            bad_name_fix(),
        );
        None
    })?;
    match names.iter().find(|name| name.value == "*") {
        Some(_) if names.len() == 1 => Some(ServiceNames::All),
        Some(star) => {
            let message = "`*` is every service and stands alone";
            walk.faults
                .error(star.place, "repeated", message, "write [\"*\"], or only names");
            None
        }
        None => Some(ServiceNames::Named(without_repeats(walk, "service", names))),
    }
}

pub(crate) fn remarks(walk: &mut Walk<'_>, fields: &Fields<'_, '_>) -> Remarks {
    Remarks {
        note: fields.read(walk, "note", text),
        labels: fields.read(walk, "labels", labels).unwrap_or_default(),
    }
}

fn labels(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Vec<(String, String)>> {
    let DeValue::Table(table) = value.get_ref() else {
        walk.wrong_type(key, value, "a table of text", "write { ticket = \"OPS-12\" }");
        return None;
    };
    if table.len() > LABELS_MAX {
        let message = format!("`labels` has {} pairs", table.len());
        walk.error(value, "too-many", message, format!("write at most {LABELS_MAX}"));
        return None;
    }
    let mut labels = Vec::with_capacity(table.len());
    for (name, value) in table {
        let label = name.get_ref().as_ref();
        if label.is_empty() || label.len() > LABEL_KEY_BYTES_MAX || label.chars().any(is_unprintable) {
            let place = walk.place(name.span());
            let fix = format!("write 1 to {LABEL_KEY_BYTES_MAX} bytes without control characters");
            walk.faults
                .error(place, "bad-name", format!("{} is no label", quoted(label)), fix);
            continue;
        }
        if value.get_ref().as_str() == Some("") {
            labels.push((label.to_owned(), String::new()));
        } else if let Some(text) = bounded_text(walk, key, value, LABEL_VALUE_BYTES_MAX) {
            labels.push((label.to_owned(), text));
        }
    }
    Some(labels)
}

fn address(walk: &mut Walk<'_>, fields: &Fields<'_, '_>) -> Addresses {
    // A fault leaves no address at all, so that it does not also overlap with every other service.
    let omitted = if fields.at("address").is_some() {
        Addresses::Prefixes(Vec::new())
    } else {
        Addresses::Any
    };
    fields.read(walk, "address", addresses).unwrap_or(omitted)
}

fn report_no_sources(walk: &mut Walk<'_>, fields: &Fields<'_, '_>) {
    let file = fields.at("sources-file");
    match fields.at("sources") {
        None if file.is_none() => {
            let fix = "add sources = [\"198.51.100.0/24\"] or sources-file = \"…\"";
            let message = "`client` has neither `sources` nor `sources-file`";
            walk.faults.error(fields.place, "missing-key", message, fix);
        }
        Some(value) if file.is_none() && value.get_ref().as_array().is_some_and(|array| array.is_empty()) => {
            walk.error(value, "empty-list", "`sources` is empty", "name at least one");
        }
        _ => {}
    }
}

fn warn_of_ephemeral_ports(walk: &mut Walk<'_>, ports: &[Placed<PortRange>]) {
    let (first, last) = walk.context.ephemeral_ports;
    for port in ports
        .iter()
        .filter(|port| port.value.first <= last && port.value.last >= first)
    {
        let message = format!(
            "the port is in this host's ephemeral range {first}-{last}: answers to its own connections \
             arrive there too"
        );
        let fix = "choose a port outside of it, or reserve it in net.ipv4.ip_local_reserved_ports";
        walk.faults.warning(port.place, "ephemeral-port", message, fix);
    }
}

fn warn_of_udp_connections(walk: &mut Walk<'_>, fields: &Fields<'_, '_>, service: &Service) {
    if service.limit.connections.is_some() && service.protocols.udp && !service.protocols.tcp {
        let place = connections_place(walk, fields);
        walk.faults.warning(
            place,
            "connections-of-udp",
            "a limit of connections does nothing: the service is UDP only",
            "limit packets or bytes",
        );
    }
}

/// The bucket in `limit`, which is there when this is asked.
fn connections_place(walk: &Walk<'_>, fields: &Fields<'_, '_>) -> Place {
    let limit = fields.at("limit").and_then(|value| value.get_ref().as_table());
    let bucket = limit.and_then(|limit| limit.get("connections"));
    bucket.map_or(fields.place, |bucket| walk.place(bucket.span()))
}

/// A list of names without repeats.
pub(crate) fn names(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Vec<String>> {
    let names = list(walk, key, value, |walk, value| {
        let name = name(walk, key, value)?;
        Some(Placed {
            value: name,
            place: walk.place(value.span()),
        })
    })?;
    Some(
        without_repeats(walk, "name", names)
            .into_iter()
            .map(|name| name.value)
            .collect(),
    )
}
