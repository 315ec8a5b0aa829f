//! A policy back as text: one TOML file that loads to the same policy, places aside.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::model::{
    Addresses, Client, Expect, ExpectProtocol, Limit, Limits, Listener, Policy, PortRange, Protocols,
    Publisher, PublisherIdentity, Remarks, Service, ServiceSet, Source,
};
use crate::policy::units::duration_text;
use crate::policy::validate::shown_address;
use crate::policy::words::Word;

/// Lists up to this long stand in one line.
const LINE_ITEMS_MAX: usize = 8;

pub fn print(policy: &Policy) -> String {
    let mut page = Page {
        text: "version = 1\n".to_owned(),
    };
    page.filter(policy);
    for service in &policy.services {
        page.service(service);
    }
    for client in &policy.clients {
        page.client(policy, client);
    }
    for deny in &policy.denies {
        page.header("[[deny]]");
        page.text("name", &deny.name);
        page.sources(&deny.sources);
        page.remarks(&deny.remarks);
    }
    for management in &policy.management {
        page.header("[[management]]");
        page.text("name", &management.name);
        page.sources(&management.sources);
        page.addresses(&management.address);
        page.protocols(management.protocols);
        page.ports("ports", &management.ports);
        page.remarks(&management.remarks);
    }
    for publisher in &policy.publishers {
        page.publisher(policy, publisher);
    }
    for expect in &policy.expects {
        page.expect(expect);
    }
    page.serving(policy);
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn header(&mut self, header: &str) {
        self.line(&format!("\n{header}"));
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn value(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{key} = {value}");
    }

    fn text(&mut self, key: &str, text: &str) {
        self.value(key, quoted(text));
    }

    fn word<T: Word>(&mut self, key: &str, word: T) {
        self.text(key, word.name());
    }

    fn list(&mut self, key: &str, items: impl IntoIterator<Item = String>) {
        let items: Vec<String> = items.into_iter().collect();
        if items.len() <= LINE_ITEMS_MAX {
            self.value(key, format!("[{}]", items.join(", ")));
        } else {
            self.value(key, format!("[\n    {},\n]", items.join(",\n    ")));
        }
    }

    fn filter(&mut self, policy: &Policy) {
        let filter = &policy.filter;
        self.header("[filter]");
        self.list("interfaces", filter.interfaces.iter().map(|name| quoted(name)));
        self.word("mode", filter.mode);
        self.word("attach", filter.attach);
        self.word("other-traffic", filter.other_traffic);
        self.word("other-address", filter.other_address);
        self.word("fragments", filter.fragments);
        self.word("ping", filter.ping);
        self.word("non-ip", filter.non_ip);
        self.value("management-none", filter.management_none);
        if filter.source_limit_max_origin.is_some() {
            self.value("source-limit-max", filter.source_limit_max);
        }
        if filter.source_limit_origin.is_some() {
            self.value("source-limit", limits(&filter.source_limit));
        }
        self.limits("icmp-limit", &filter.icmp_limit);
    }

    fn service(&mut self, service: &Service) {
        self.header("[[service]]");
        self.text("name", &service.name);
        self.text("environment", &service.environment);
        self.addresses(&service.address);
        self.protocols(service.protocols);
        self.ports("ports", &service.ports);
        if let Some(mode) = service.mode {
            self.word("mode", mode);
        }
        self.limits("limit", &service.limit);
        self.remarks(&service.remarks);
    }

    fn client(&mut self, policy: &Policy, client: &Client) {
        self.header("[[client]]");
        self.text("name", &client.name);
        self.sources(&client.sources);
        if !client.source_ports.is_empty() {
            self.ports("source-ports", &client.source_ports);
        }
        self.services(policy, &client.services);
        if !client.credentials.is_empty() {
            self.list(
                "credentials",
                client.credentials.iter().map(|credential| quoted(credential)),
            );
        }
        self.limits("limit", &client.limit);
        if let Some(expires) = client.expires {
            self.value("expires", expires);
        }
        self.value("enabled", client.enabled);
        self.remarks(&client.remarks);
    }

    fn publisher(&mut self, policy: &Policy, publisher: &Publisher) {
        self.header("[[publisher]]");
        self.text("name", &publisher.name);
        match &publisher.identity {
            PublisherIdentity::User(name) => self.text("user", name),
            PublisherIdentity::Group(name) => self.text("group", name),
            PublisherIdentity::Socket(address) => self.text("socket", address),
            PublisherIdentity::Certificate { kind, value } => {
                self.value("certificate", format!("{{ {kind} = {} }}", quoted(value)));
            }
        }
        self.services(policy, &publisher.services);
        self.list(
            "environments",
            publisher.environments.iter().map(|name| quoted(name)),
        );
        self.value("bindings-max", publisher.bindings_max);
        self.value("sources-max", publisher.sources_max);
        let (ipv4, ipv6) = (publisher.widest_ipv4, publisher.widest_ipv6);
        self.value("widest-prefix", format!("{{ ipv4 = {ipv4}, ipv6 = {ipv6} }}"));
        self.text(
            "lease-max",
            &publisher.lease_max.map_or("none".to_owned(), duration_text),
        );
        self.text("lease-hold", &duration_text(publisher.lease_hold));
        self.text("revoke-max", &format!("{}%", publisher.revoke_max_percent));
        self.limits("limit-default", &publisher.limit_default);
        self.limits("limit-max", &publisher.limit_max);
        self.limits("limit", &publisher.limit);
        if let Some(requests) = &publisher.requests {
            self.value("requests", bucket(requests));
        }
        self.remarks(&publisher.remarks);
    }

    fn expect(&mut self, expect: &Expect) {
        self.header("[[expect]]");
        let (to, port) = expect.to;
        let to = match expect.protocol {
            ExpectProtocol::Tcp => format!("{}/tcp", endpoint(to, port)),
            ExpectProtocol::Udp => format!("{}/udp", endpoint(to, port)),
            ExpectProtocol::Icmp => format!("{to}/icmp"),
        };
        self.text("from", &endpoint(expect.from.0, expect.from.1));
        self.text("to", &to);
        self.text("verdict", &expect.verdict);
        if let Some(reason) = &expect.reason {
            self.text("reason", reason);
        }
        self.remarks(&expect.remarks);
    }

    fn serving(&mut self, policy: &Policy) {
        self.header("[daemon]");
        self.text("instance", &policy.daemon.instance);
        self.text("state", &policy.daemon.state.to_string_lossy());
        self.word("on-exit", policy.daemon.on_exit);
        self.list(
            "operators",
            policy.daemon.operators.iter().map(|name| quoted(name)),
        );
        for listener in policy
            .listeners
            .iter()
            .filter(|listener| listener.origin.is_some())
        {
            self.listener(listener);
        }
        if policy.credentials.origin.is_some() {
            self.credentials(policy);
        }
        if policy.authorize.origin.is_some() {
            self.header("[authorize]");
            self.text("address-header", &policy.authorize.address_header);
            self.list(
                "trusted-proxies",
                policy.authorize.trusted_proxies.iter().map(prefix),
            );
            self.value("reason-header", policy.authorize.reason_header);
        }
        if policy.records.origin.is_some() {
            self.header("[records]");
            self.text("interval", &duration_text(policy.records.interval));
            self.word("addresses", policy.records.addresses);
        }
        for sink in policy.sinks.iter().filter(|sink| sink.origin.is_some()) {
            self.header("[[sink]]");
            self.word("type", sink.kind);
            if sink.kind == crate::policy::model::SinkType::File {
                self.text("path", &sink.path.to_string_lossy());
                self.value("rotate-size", sink.rotate_size);
                self.value("keep-size", sink.keep_size);
                self.text("keep-age", &duration_text(sink.keep_age));
            }
        }
    }

    fn listener(&mut self, listener: &Listener) {
        self.header("[[listener]]");
        self.text("address", &shown_address(&listener.address));
        if listener.roles_written {
            self.list("roles", listener.roles.iter().map(|role| quoted(role.name())));
        }
        if matches!(listener.address, crate::policy::model::ListenerAddress::Unix(_)) {
            self.text("mode", &format!("{:04o}", listener.mode));
            if listener.group_written {
                self.text("group", &listener.group);
            }
        }
        self.value("assert", listener.assert);
        if let Some(tls) = &listener.tls {
            let path = |path: &std::path::Path| quoted(&path.to_string_lossy());
            let ca = tls
                .client_ca
                .as_deref()
                .map(|ca| format!(", client-ca = {}", path(ca)))
                .unwrap_or_default();
            let value = format!(
                "{{ certificate = {}, key = {}{ca} }}",
                path(&tls.certificate),
                path(&tls.key)
            );
            self.value("tls", value);
        }
    }

    fn credentials(&mut self, policy: &Policy) {
        let credentials = &policy.credentials;
        self.header("[credentials]");
        self.list("header", credentials.header.iter().map(|header| quoted(header)));
        self.word("scheme", credentials.scheme);
        let files = credentials.secret_files.iter();
        let files = files.map(|(id, file)| {
            format!(
                "{{ id = {}, file = {} }}",
                quoted(id),
                quoted(&file.to_string_lossy())
            )
        });
        self.list("secret-files", files);
        self.text("id-pattern", &credentials.id_pattern);
    }

    fn sources(&mut self, sources: &[Source]) {
        self.list("sources", sources.iter().map(|source| prefix(&source.prefix)));
    }

    fn addresses(&mut self, addresses: &Addresses) {
        match addresses {
            Addresses::Any => {}
            Addresses::Host => self.text("address", "host"),
            Addresses::Prefixes(prefixes) => self.list("address", prefixes.iter().map(prefix)),
        }
    }

    fn protocols(&mut self, protocols: Protocols) {
        match protocols {
            Protocols { tcp: true, udp: true } => self.value("protocol", "[\"tcp\", \"udp\"]"),
            Protocols { udp: true, .. } => self.text("protocol", "udp"),
            Protocols { .. } => self.text("protocol", "tcp"),
        }
    }

    fn ports(&mut self, key: &str, ports: &[PortRange]) {
        let port = |range: &PortRange| match (range.first, range.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("\"{first}-{last}\""),
        };
        self.list(key, ports.iter().map(port));
    }

    fn services(&mut self, policy: &Policy, services: &ServiceSet) {
        match services {
            ServiceSet::All => self.value("services", "[\"*\"]"),
            ServiceSet::Some(indexes) => {
                let names = indexes.iter().filter_map(|index| policy.services.get(*index));
                self.list("services", names.map(|service| quoted(&service.name)));
            }
        }
    }

    fn limits(&mut self, key: &str, value: &Limits) {
        if *value != Limits::default() {
            self.value(key, limits(value));
        }
    }

    fn remarks(&mut self, remarks: &Remarks) {
        if let Some(note) = &remarks.note {
            self.text("note", note);
        }
        if !remarks.labels.is_empty() {
            let labels: Vec<String> = remarks
                .labels
                .iter()
                .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
                .collect();
            self.value("labels", format!("{{ {} }}", labels.join(", ")));
        }
    }
}

fn limits(limits: &Limits) -> String {
    let buckets = [
        ("packets", &limits.packets),
        ("bytes", &limits.bytes),
        ("connections", &limits.connections),
    ];
    let set: Vec<String> = buckets
        .iter()
        .filter_map(|(key, limit)| limit.as_ref().map(|limit| format!("{key} = {}", bucket(limit))))
        .collect();
    if set.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{ {} }}", set.join(", "))
    }
}

fn bucket(limit: &Limit) -> String {
    let rate = match limit.per_seconds {
        60 => format!("\"{}/m\"", limit.rate),
        3600 => format!("\"{}/h\"", limit.rate),
        _ => limit.rate.to_string(),
    };
    format!("{{ rate = {rate}, burst = {} }}", limit.burst)
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// A single address stands without its length.
fn prefix(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        quoted(&prefix.addr().to_string())
    } else {
        quoted(&prefix.to_string())
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
