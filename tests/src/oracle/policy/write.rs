//! A policy in the file syntax of SPEC 2.

use std::fmt::Write;

use super::{Addresses, Client, Fragments, Limit, Limits, Management, Ping, Policy, Service, Services, date};

pub(super) fn policy(policy: &Policy) -> String {
    let mut out = String::from("version = 1\n\n[filter]\n");
    line(&mut out, "interfaces", "[\"eth0\"]");
    line(
        &mut out,
        "mode",
        if policy.observe {
            "\"observe\""
        } else {
            "\"enforce\""
        },
    );
    line(&mut out, "other-traffic", pass_or_drop(policy.other_traffic_drop));
    line(&mut out, "other-address", pass_or_drop(policy.other_address_drop));
    let fragments = match policy.fragments {
        Fragments::Listed => "\"listed\"",
        Fragments::Drop => "\"drop\"",
        Fragments::Pass => "\"pass\"",
    };
    line(&mut out, "fragments", fragments);
    let ping = match policy.ping {
        Ping::Pass => "\"pass\"",
        Ping::Listed => "\"listed\"",
        Ping::Drop => "\"drop\"",
    };
    line(&mut out, "ping", ping);
    line(&mut out, "non-ip", pass_or_drop(policy.non_ip_drop));
    // SPEC 2: enforcing, with a default drop and no way back in, is an error unless it is said.
    if !policy.observe && policy.other_traffic_drop && policy.management.is_empty() {
        line(&mut out, "management-none", "true");
    }
    limits(&mut out, "source-limit", &policy.source_limit);
    if let Some(limit) = &policy.icmp_limit {
        out.push_str("[filter.icmp-limit]\n");
        line(&mut out, "packets", &bucket(limit));
    }
    policy.services.iter().for_each(|entry| service(&mut out, entry));
    policy.clients.iter().for_each(|entry| client(&mut out, entry));
    for deny in &policy.denies {
        header(&mut out, "deny", &deny.name);
        line(&mut out, "sources", &texts(&deny.sources));
    }
    policy
        .management
        .iter()
        .for_each(|entry| management(&mut out, entry));
    out
}

fn service(out: &mut String, service: &Service) {
    header(out, "service", &service.name);
    addresses(out, &service.addresses);
    protocol(out, service.tcp, service.udp);
    line(out, "ports", &ports(&service.ports));
    if let Some(observe) = service.observe {
        line(out, "mode", if observe { "\"observe\"" } else { "\"enforce\"" });
    }
    limits(out, "limit", &service.limit);
}

fn client(out: &mut String, client: &Client) {
    header(out, "client", &client.name);
    line(out, "sources", &texts(&client.sources));
    if !client.source_ports.is_empty() {
        line(out, "source-ports", &ports(&client.source_ports));
    }
    let services = match &client.services {
        Services::All => "[\"*\"]".to_owned(),
        Services::Named(names) => texts(names),
    };
    line(out, "services", &services);
    limits(out, "limit", &client.limit);
    if let Some(ns) = client.expires_ns {
        line(out, "expires", &date::write(ns));
    }
    if !client.enabled {
        line(out, "enabled", "false");
    }
}

fn management(out: &mut String, management: &Management) {
    header(out, "management", &management.name);
    line(out, "sources", &texts(&management.sources));
    addresses(out, &management.addresses);
    protocol(out, management.tcp, management.udp);
    line(out, "ports", &ports(&management.ports));
}

fn header(out: &mut String, table: &str, name: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n[[{table}]]\nname = \"{name}\"");
}

fn line(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key} = {value}");
}

fn pass_or_drop(drop: bool) -> &'static str {
    if drop { "\"drop\"" } else { "\"pass\"" }
}

fn addresses(out: &mut String, addresses: &Addresses) {
    match addresses {
        Addresses::Any => {}
        Addresses::Host => line(out, "address", "\"host\""),
        Addresses::Prefixes(prefixes) => line(out, "address", &texts(prefixes)),
    }
}

fn protocol(out: &mut String, tcp: bool, udp: bool) {
    let text = match (tcp, udp) {
        (true, true) => "[\"tcp\", \"udp\"]",
        (true, false) => "\"tcp\"",
        _ => "\"udp\"",
    };
    line(out, "protocol", text);
}

fn texts<T: ToString>(values: &[T]) -> String {
    let quoted: Vec<String> = values
        .iter()
        .map(|value| format!("\"{}\"", value.to_string()))
        .collect();
    format!("[{}]", quoted.join(", "))
}

fn ports(ranges: &[(u16, u16)]) -> String {
    let text = |&(first, last): &(u16, u16)| {
        if first == last {
            first.to_string()
        } else {
            format!("\"{first}-{last}\"")
        }
    };
    format!("[{}]", ranges.iter().map(text).collect::<Vec<_>>().join(", "))
}

fn limits(out: &mut String, key: &str, limits: &Limits) {
    let all = [
        ("packets", &limits.packets),
        ("bytes", &limits.bytes),
        ("connections", &limits.connections),
    ];
    let set = |(name, limit): (&str, &Option<Limit>)| Some(format!("{name} = {}", bucket(limit.as_ref()?)));
    let set: Vec<String> = all.into_iter().filter_map(set).collect();
    if !set.is_empty() {
        line(out, key, &format!("{{ {} }}", set.join(", ")));
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
