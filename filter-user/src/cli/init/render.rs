//! Writes a first policy: valid TOML with a comment for each key, and what to do next. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use super::host::{Host, SSH_PORT};
use crate::sockets::Protocol;

/// As many services as a policy may have.
const SERVICES_MAX: usize = 1024;
/// Of a program's name that goes into a service's name, which has at most 63 characters.
const PROCESS_CHARACTERS_MAX: usize = 40;
/// DHCP clients: their answers pass in any case.
const DHCP_CLIENT_PORTS: [u16; 2] = [68, 546];

/// A service as it will be written.
#[derive(Debug, PartialEq, Eq)]
struct Service {
    name: String,
    protocols: Vec<Protocol>,
    port: u16,
    /// Empty: any.
    addresses: BTreeSet<IpAddr>,
}

/// The sockets of one port and protocol.
#[derive(Default)]
struct Found<'h> {
    any: bool,
    addresses: BTreeSet<IpAddr>,
    process: Option<&'h str>,
}

/// The whole policy.
pub(super) fn policy(host: &Host) -> String {
    let mut page = String::new();
    head(&mut page, host);
    services(&mut page, host);
    clients(&mut page);
    management(&mut page, host);
    tail(&mut page);
    page
}

fn head(page: &mut String, host: &Host) {
    let note = match host.interfaces.is_empty() {
        true => "No Ethernet interface that is up was found: name yours here",
        false => "Names or globs of Ethernet interfaces: those that bring traffic from outside",
    };
    let fallback = ["eth0".to_owned()];
    let interfaces = if host.interfaces.is_empty() {
        &fallback
    } else {
        host.interfaces.as_slice()
    };
    let interfaces: Vec<String> = interfaces.iter().map(|name| quote(name)).collect();
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        page,
        r#"# A first Keyfence policy, made by `keyfence init` from what this host showed. Nothing is dropped yet.
#
# Next:
#   1. Read it through: remove services that should stay open to all, add your clients.
#   2. keyfence check FILE               says whether it is valid
#   3. systemctl start keyfence          watches and counts, and lets everything through; where it is no service,
#                                        as root: keyfence run --policy FILE
#   4. keyfence status                   what would have been dropped is "observed"
#   5. When only strangers are observed: mode = "enforce" below, then `keyfence reload`.

# Of this file's format.
version = 1

[filter]
# {note}.
interfaces = [{}]
# "observe" judges and counts, and lets everything through; "enforce" drops.
mode = "observe"
# How the program is attached: "native" in the driver, "generic" in any (slower), "auto" the better of the two.
attach = "auto"
# Packets to no service: "pass" leaves them alone, "drop" closes all that is not named in this file.
other-traffic = "pass"

# What is protected: only the clients below reach it. One entry for each socket that listens here.
"#,
        interfaces.join(", ")
    );
}

fn services(page: &mut String, host: &Host) {
    let (services, left_out) = collect(host);
    for service in services.iter().take(SERVICES_MAX) {
        let protocols: Vec<String> = service
            .protocols
            .iter()
            .map(|protocol| quote(protocol_name(*protocol)))
            .collect();
        let protocol = match protocols.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let addresses: Vec<String> = service
            .addresses
            .iter()
            .map(|address| quote(&address.to_string()))
            .collect();
        let address = match addresses.is_empty() {
            true => "# address = [\"…\"]  # any, unless written".to_owned(),
            false => format!("address = [{}]", addresses.join(", ")),
        };
        let _ = write!(
            page,
            "\n[[service]]\nname = {}\nprotocol = {protocol}\nports = [{}]\n{address}\n",
            quote(&service.name),
            service.port
        );
    }
    if services.is_empty() {
        page.push_str(
            "# Nothing listens here that could be reached from outside. An example:\n\
             # [[service]]\n# name = \"api\"\n# protocol = \"tcp\"\n# ports = [443]\n",
        );
    }
    if services.len() > SERVICES_MAX {
        let _ = writeln!(
            page,
            "\n# {} more were left out: a policy has at most {SERVICES_MAX} services.",
            { services.len() - SERVICES_MAX }
        );
    }
    if !left_out.is_empty() {
        let ports: Vec<String> = left_out.iter().map(u16::to_string).collect();
        let text = "in the range that this host takes for its own connections, so probably no services: UDP";
        let _ = writeln!(page, "\n# Left out, {text} {}.", ports.join(", "));
    }
}

fn clients(page: &mut String) {
    page.push_str(
        r#"
# Who may reach which services. Nobody yet, so all packets to the services above are observed as "unlisted".
# [[client]]
# name = "acme"
# sources = ["198.51.100.0/24", "2001:db8:ac::/48"]  # addresses and prefixes
# services = ["*"]                                   # names of services; "*" is every one
# limit = { packets = { rate = 1000, burst = 2000 } }  # optional: a token bucket for all its sources together
"#,
    );
}

fn management(page: &mut String, host: &Host) {
    page.push_str("\n# The way back in: never denied, never limited.\n");
    let mut by_port: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for (peer, port) in &host.sessions {
        by_port.entry(*port).or_default().push(quote(&peer.to_string()));
    }
    if by_port.is_empty() {
        page.push_str("# Write the network that you administer this host from before you enforce");
        let seen: BTreeSet<String> = host.strangers.iter().map(|(peer, _)| peer.to_string()).collect();
        if !seen.is_empty() {
            let seen = Vec::from_iter(seen).join(", ");
            let _ = write!(page, "; connected to an SSH server, by whomever: {seen}");
        }
        let port = host.strangers.iter().next().map_or(SSH_PORT, |(_, port)| *port);
        let _ = writeln!(
            page,
            ":\n# [[management]]\n# name = \"ssh\"\n# sources = [\"192.0.2.0/24\"]\n# protocol = \"tcp\"\n# ports = [{port}]"
        );
        return;
    }
    page.push_str("# From the SSH session of now; widen the sources to the network that you come from.\n");
    for (index, (port, sources)) in by_port.iter().enumerate() {
        let name = if index == 0 {
            "ssh".to_owned()
        } else {
            format!("ssh-{port}")
        };
        let sources = sources.join(", ");
        let _ = writeln!(
            page,
            "[[management]]\nname = \"{name}\"\nsources = [{sources}]\nprotocol = \"tcp\"\nports = [{port}]\n"
        );
    }
}

fn tail(page: &mut String) {
    page.push_str(
        r#"
# Who may push which key calls from where (`keyfence bind`, PUT /v1/bindings): nobody yet.
# [[publisher]]
# name = "gateway"
# user = "www-data"                # whoever asks as this user of this host
# services = ["*"]                 # which services its bindings may open, of these environments
# environments = ["production"]

# Where the daemon answers; without these lines, at these addresses and with these roles.
# [[listener]]
# address = "unix:/run/keyfence/api.sock"  # the command, publishers and gateways ask here
# roles = ["publish", "authorize", "read", "operate", "deny"]
# [[listener]]
# address = "tcp:127.0.0.1:9469"           # for Prometheus
# roles = ["metrics"]
"#,
    );
}

/// The services, and the UDP ports that are probably none.
fn collect(host: &Host) -> (Vec<Service>, BTreeSet<u16>) {
    let management = host.sessions.iter().chain(&host.strangers);
    let management: BTreeSet<u16> = management.map(|(_, port)| *port).collect();
    let ephemeral = host.ephemeral.0..=host.ephemeral.1;
    let mut left_out = BTreeSet::new();
    let mut found: BTreeMap<(u16, Protocol), Found> = BTreeMap::new();
    for socket in &host.listening {
        let (address, port) = (socket.local.ip(), socket.local.port());
        let udp = socket.protocol == Protocol::Udp;
        if address.is_loopback()
            || (!udp && management.contains(&port))
            || (udp && DHCP_CLIENT_PORTS.contains(&port))
        {
            continue;
        }
        if udp && ephemeral.contains(&port) {
            left_out.insert(port);
            continue;
        }
        let entry = found.entry((port, socket.protocol)).or_default();
        entry.any |= address.is_unspecified();
        entry.addresses.insert(address);
        entry.process = entry.process.or(socket.process.as_deref());
    }
    let mut services: Vec<Service> = Vec::new();
    for (
        (port, protocol),
        Found {
            any,
            addresses,
            process,
        },
    ) in found
    {
        let addresses = if any { BTreeSet::new() } else { addresses };
        let name = format!("{}-{port}", name_part(process));
        match services.last_mut() {
            // One program on one port by both protocols (DNS, HTTP/3) is one service.
            Some(last) if last.name == name && last.addresses == addresses => last.protocols.push(protocol),
            _ => {
                let name = if protocol == Protocol::Udp {
                    format!("{name}-udp")
                } else {
                    name
                };
                services.push(Service {
                    name,
                    protocols: vec![protocol],
                    port,
                    addresses,
                });
            }
        }
    }
    (services, left_out)
}

/// What a name may hold of a program's: it begins with a letter or digit.
fn name_part(process: Option<&str>) -> String {
    let allowed = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => character,
        _ => '-',
    };
    let name: String = process.unwrap_or_default().chars().map(allowed).collect();
    let name: String = name
        .trim_matches(['-', '.', '_'])
        .chars()
        .take(PROCESS_CHARACTERS_MAX)
        .collect();
    if name.is_empty() {
        "service".to_owned()
    } else {
        name
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::Socket;

    fn host(listening: &[(&str, Protocol, Option<&str>)], sessions: &[(&str, u16)]) -> Host {
        let listening = listening.iter();
        let listening =
            listening.map(|(local, protocol, process)| Socket::listening(*protocol, local, *process));
        Host {
            interfaces: vec!["eth0".to_owned()],
            listening: listening.collect(),
            sessions: sessions
                .iter()
                .map(|(peer, port)| (peer.parse().unwrap(), *port))
                .collect(),
            strangers: BTreeSet::new(),
            ephemeral: (32768, 60999),
        }
    }

    fn table(host: &Host) -> toml::Table {
        let page = policy(host);
        page.parse().unwrap_or_else(|error| panic!("{error}\n{page}"))
    }

    #[test]
    fn listening_sockets_become_services_with_their_addresses() {
        use Protocol::{Tcp, Udp};
        let host = host(
            &[
                ("0.0.0.0:443", Tcp, Some("nginx")),
                ("[::]:443", Tcp, Some("nginx")),
                ("0.0.0.0:443", Udp, Some("nginx")),
                ("203.0.113.10:8080", Tcp, None),
                ("[2001:db8::1]:8080", Tcp, None),
                ("127.0.0.1:5432", Tcp, Some("postgres")),
                ("0.0.0.0:514", Udp, Some("(sd \"x\")")),
                ("0.0.0.0:68", Udp, Some("dhclient")),
                ("0.0.0.0:40000", Udp, Some("resolver")),
                ("0.0.0.0:22", Tcp, Some("sshd")),
            ],
            &[("192.0.2.7", 22)],
        );
        let (services, left_out) = collect(&host);
        let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["nginx-443", "sd--x-514-udp", "service-8080"]);
        assert_eq!(services[0].protocols, [Tcp, Udp]);
        assert!(services[0].addresses.is_empty());
        assert_eq!(services[2].addresses.len(), 2);
        assert_eq!(left_out, BTreeSet::from([40000]));
        let table = table(&host);
        assert_eq!(table["service"].as_array().unwrap().len(), 3);
        assert_eq!(table["service"][0]["protocol"].as_array().unwrap().len(), 2);
        assert_eq!(table["service"][2]["address"][0].as_str(), Some("203.0.113.10"));
        assert_eq!(table["management"][0]["sources"][0].as_str(), Some("192.0.2.7"));
        assert_eq!(table["management"][0]["ports"][0].as_integer(), Some(22));
    }

    #[test]
    fn host_that_shows_nothing_gives_a_policy_all_the_same() {
        let table = table(&Host::default());
        assert_eq!(table["filter"]["interfaces"][0].as_str(), Some("eth0"));
        assert!(!table.contains_key("service") && !table.contains_key("management"));
    }

    #[test]
    fn who_is_only_connected_is_let_in_by_nobody() {
        let mut host = host(&[("0.0.0.0:2222", Protocol::Tcp, Some("sshd"))], &[]);
        host.strangers.insert(("198.51.100.66".parse().unwrap(), 2222));
        let page = policy(&host);
        assert!(!table(&host).contains_key("management"), "{page}");
        assert!(
            page.contains("by whomever: 198.51.100.66:\n# [[management]]"),
            "{page}"
        );
        assert!(page.contains("# ports = [2222]"), "{page}");
    }

    #[test]
    fn names_are_unique_and_of_the_allowed_characters() {
        let host = host(
            &[
                ("0.0.0.0:1", Protocol::Tcp, Some("-a b/ü")),
                ("203.0.113.1:1", Protocol::Udp, Some("-a b/ü")),
            ],
            &[("192.0.2.7", 22), ("192.0.2.8", 2222)],
        );
        let names: Vec<_> = collect(&host).0.into_iter().map(|service| service.name).collect();
        assert_eq!(names, ["a-b-1", "a-b-1-udp"]);
        let table = table(&host);
        assert_eq!(table["management"][1]["name"].as_str(), Some("ssh-2222"));
    }
}
