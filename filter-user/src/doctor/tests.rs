//! Hosts that this machine cannot be: VLANs, bonds, tunnels, NAT, as netlink and the programs would tell them.

use std::path::Path;

use super::coverage::{unfiltered, unserved, unwraps};
use super::interfaces::findings as of_interfaces;
use super::published::{findings as of_nat, of_iptables, of_nft};
use super::*;
use crate::kernel::devices::Device;
use crate::kernel::interfaces::{Hook, Interface};
use crate::policy::{LoadContext, MemoryFiles, load_from};
use crate::sockets::{Protocol, Socket};

const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;

fn policy(interfaces: &str, filter: &str, service: &str) -> Policy {
    let text = format!(
        "version = 1\n[filter]\ninterfaces = [{interfaces}]\n{filter}\n\
         [[service]]\nname = \"pay\"\nprotocol = \"tcp\"\nports = [443]\n{service}\n\
         [[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n"
    );
    let root = Path::new("keyfence.toml");
    let files = MemoryFiles::new([(root.to_owned(), text.into_bytes())]);
    let context = LoadContext::at("2026-06-01T00:00:00Z".parse().unwrap());
    let loaded = load_from(&files, root, &context);
    let told: Vec<String> = loaded.diagnostics.iter().map(|d| d.to_string()).collect();
    loaded.policy.unwrap_or_else(|| panic!("{told:#?}"))
}

fn device(name: &str, kind: &str, lower: &[&str]) -> Device {
    Device {
        name: name.into(),
        kind: kind.into(),
        layer: 1,
        flags: UP,
        lower: lower.iter().map(|lower| (*lower).to_owned()).collect(),
        ..Device::default()
    }
}

fn part(name: &str, master: &str) -> Device {
    Device {
        master: Some(master.into()),
        ..device(name, "", &[])
    }
}

fn host(devices: Vec<Device>) -> Host {
    let interface = |(index, device): (usize, &Device)| {
        let interface = Interface {
            name: device.name.clone(),
            index: index as u32 + 1,
            ethernet: device.layer == 1 && device.flags & LOOPBACK == 0,
            mtu: 1500,
            hook: Hook::default(),
            members: Vec::new(),
        };
        (interface, None)
    };
    Host {
        interfaces: devices.iter().enumerate().map(interface).collect(),
        devices,
        addresses: ["127.0.0.1", "192.0.2.10", "2001:db8::10"]
            .map(|address| address.parse().unwrap())
            .into(),
        listening: vec![
            Socket::listening(Protocol::Tcp, "[::]:443", Some("nginx")),
            Socket::listening(Protocol::Tcp, "127.0.0.1:443", Some("local")),
            Socket::listening(Protocol::Udp, "0.0.0.0:443", Some("other protocol")),
            Socket::listening(Protocol::Tcp, "0.0.0.0:80", Some("other port")),
        ],
        ..Host::default()
    }
}

fn whats(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|finding| finding.what.as_str()).collect()
}

/// By which interfaces nginx is reached unjudged.
fn ways(devices: Vec<Device>, interfaces: &str) -> Vec<String> {
    let (host, policy) = (host(devices), policy(interfaces, "", ""));
    let found = unfiltered(&policy, &host, &host.filtered(&policy));
    let way = |finding: &Finding| {
        let (_, rest) = finding.what.split_once("reachable by ").unwrap();
        rest.split(',').next().unwrap().to_owned()
    };
    found.iter().map(way).collect()
}

#[test]
fn socket_of_a_service_is_named_with_each_way_that_is_not_filtered_and_its_addresses() {
    let loopback = Device {
        flags: UP | LOOPBACK,
        ..device("lo", "", &[])
    };
    let down = Device {
        flags: 0,
        ..device("eth2", "", &[])
    };
    let devices = vec![loopback, device("eth0", "", &[]), device("eth1", "", &[]), down];
    let (host, policy) = (host(devices), policy("\"eth0\"", "", ""));
    let found = unfiltered(&policy, &host, &["eth0".to_owned()]);
    assert_eq!(
        whats(&found),
        [
            "nginx at [::]:443/tcp (service pay) is reachable by eth1, which is not filtered, at 192.0.2.10, \
             2001:db8::10 (IPv4 and IPv6)"
        ]
    );
    assert_eq!(found[0].definition.id, "unfiltered-interface");
    assert!(found[0].degrades());
    assert!(unfiltered(&policy, &host, &["eth0".to_owned(), "eth1".to_owned()]).is_empty());
}

#[test]
fn device_on_filtered_ones_is_covered_and_one_that_unwraps_is_not() {
    let vlan = || device("eth0.7", "vlan", &["eth0"]);
    let eth0 = || device("eth0", "", &[]);
    assert_eq!(ways(vec![eth0(), vlan()], "\"eth0\""), [""; 0]);
    assert_eq!(ways(vec![eth0(), vlan()], "\"eth0.7\""), ["eth0"]);
    let vxlan = device("vx0", "vxlan", &["eth0"]);
    assert_eq!(ways(vec![eth0(), vxlan], "\"eth0\""), ["vx0"]);
    // A switch's frames carry its tags, and are no IP until these are taken off.
    let port = device("lan1", "dsa", &["eth0"]);
    assert_eq!(ways(vec![eth0(), port], "\"eth0\""), ["lan1"]);
    let bond = || device("bond0", "bond", &["eth0", "eth1"]);
    let parts = || vec![bond(), part("eth0", "bond0"), part("eth1", "bond0")];
    assert_eq!(ways(parts(), "\"bond0\""), [""; 0]);
    assert_eq!(ways(parts(), "\"eth0\", \"eth1\""), [""; 0]);
    assert_eq!(ways(parts(), "\"eth0\""), ["bond0"]);
    // Nobody is behind a bridge without ports; a VRF is reached by its parts.
    let bridge = device("docker0", "bridge", &[]);
    let vrf = vec![
        eth0(),
        device("blue", "vrf", &["eth1"]),
        part("eth1", "blue"),
        bridge,
    ];
    assert_eq!(ways(vrf, "\"eth0\""), ["eth1"]);
}

#[test]
fn address_that_no_service_has_is_named_unless_it_is_dropped_there() {
    let host = host(vec![device("eth0", "", &[])]);
    let open = |filter: &str, service: &str| {
        let policy = policy("\"eth0\"", filter, service);
        let found = unserved(&policy, &host, &host.filtered(&policy));
        whats(&found).join("\n")
    };
    assert_eq!(
        open("", "address = [\"192.0.2.10\"]"),
        "nginx at [::]:443/tcp is reachable at 2001:db8::10 (IPv6), and service pay is not there"
    );
    assert_eq!(open("other-address = \"drop\"", "address = [\"192.0.2.10\"]"), "");
    assert_eq!(open("", "address = \"host\""), "");
    assert_eq!(open("", ""), "");
}

#[test]
fn devices_that_unwrap_are_named_where_they_are_up() {
    let down = Device {
        flags: 0,
        ..device("gre0", "gre", &[])
    };
    let ppp = Device {
        layer: 512,
        ..device("ppp0", "", &[])
    };
    let mut host = host(vec![
        device("wg0", "wireguard", &[]),
        down,
        ppp,
        device("eth0", "", &[]),
    ]);
    host.ipsec = true;
    host.devices.push(device("vx0", "vxlan", &["eth0"]));
    let found = unwraps(&host, &[]);
    assert_eq!(
        whats(&found),
        [
            "wg0 (wireguard)",
            "ppp0 (ppp)",
            "vx0 (vxlan)",
            "IPsec (`ip xfrm state` shows its associations)"
        ]
    );
    // What comes out of it is judged there.
    assert!(!whats(&unwraps(&host, &["vx0".to_owned()])).contains(&"vx0 (vxlan)"));
}

#[test]
fn bonds_and_bridges_that_are_filtered_in_part_are_named() {
    let parts = || {
        host(vec![
            device("bond0", "bond", &["eth0", "eth1"]),
            part("eth0", "bond0"),
            part("eth1", "bond0"),
            device("br0", "bridge", &["eth2"]),
            part("eth2", "br0"),
        ])
    };
    let in_force = InForce::look(Path::new("/nowhere"), "main");
    let ids = |interfaces: &str| {
        let found = of_interfaces(&policy(interfaces, "", ""), &parts(), &in_force);
        let told = found
            .iter()
            .map(|finding| format!("{}: {}", finding.definition.id, finding.what));
        told.collect::<Vec<_>>()
    };
    assert_eq!(
        ids("\"eth0\""),
        ["bond-partial: eth0 of bond0 (bond) is filtered, and eth1 is not"]
    );
    assert_eq!(ids("\"bond0\""), [""; 0]);
    assert_eq!(ids("\"br0\""), ["bridge-inside: br0 is a bridge"]);
    assert_eq!(ids("\"eth2\""), ["bridge-inside: eth2 is a port of br0"]);
    assert!(ids("\"eth9\"")[0].starts_with("interface-unfilterable: interface eth9 does not exist"));
}

#[test]
fn frames_larger_than_a_page_are_named_with_what_fits() {
    let mut host = host(vec![device("eth0", "", &[])]);
    host.interfaces[0].0.mtu = 9000;
    let in_force = InForce::look(Path::new("/nowhere"), "main");
    let found = of_interfaces(&policy("\"eth0\"", "", ""), &host, &in_force);
    assert_eq!(found[0].definition.id, "mtu-page");
    assert!(
        found[0].what.starts_with("eth0: its MTU is 9000, and 3"),
        "{}",
        found[0].what
    );
}

#[test]
fn ports_that_iptables_publishes_are_read() {
    let text = "*nat\n:PREROUTING ACCEPT [0:0]\n\
        -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:443\n\
        -A PREROUTING -p udp -m multiport --dports 53,8000:8010 -j REDIRECT --to-ports 5353\n\
        -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n\
        -A PREROUTING -j DNAT --to-destination 10.0.0.9\nCOMMIT\n";
    let found = of_iptables(text);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].ports, [(8080, 8080)]);
    assert_eq!(
        (found[0].protocol, found[0].to_port),
        (Some(Protocol::Tcp), Some(443))
    );
    assert_eq!(found[1].ports, [(53, 53), (8000, 8010)]);
    assert_eq!((found[1].to.as_str(), found[1].to_port), (":5353", Some(5353)));
    assert_eq!((found[2].protocol, found[2].to_port), (None, None));
    let told = of_nat(&policy("\"eth0\"", "", ""), &found);
    let told: Vec<_> = told
        .iter()
        .map(|finding| (finding.definition.id, finding.what.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "nat-published",
                "NAT sends 8080/tcp to 172.17.0.2:443, the port of service pay"
            ),
            ("nat-other", "NAT sends 53,8000-8010/udp to :5353"),
            (
                "nat-other",
                "NAT sends any protocol (its ports are not told) to 10.0.0.9"
            ),
        ]
    );
}

#[test]
fn ports_that_nftables_publishes_are_read() {
    let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "ip", "name": "n"}},
        {"rule": {"family": "ip", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"range": [8440, 8449]}}},
            {"counter": {"packets": 0, "bytes": 0}},
            {"dnat": {"addr": "10.0.0.2", "port": 443}}]}},
        {"rule": {"family": "ip", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [80, 443]}}},
            {"redirect": {"port": 8443}}]}},
        {"rule": {"family": "ip", "expr": [{"masquerade": null}]}},
        {"rule": {"family": "ip", "expr": [{"dnat": {"addr": {"map": {}}}}]}}]}"#;
    let found = of_nft(text).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(
        (found[0].ports.as_slice(), found[0].to.as_str()),
        (&[(8440, 8449)][..], "10.0.0.2:443")
    );
    assert_eq!(
        (found[1].ports.as_slice(), found[1].to.as_str()),
        (&[(80, 80), (443, 443)][..], ":8443")
    );
    assert_eq!(found[2].to, "what a map says");
    // 443 is what arrives, and is named.
    let told = of_nat(&policy("\"eth0\"", "", ""), &found);
    let ids: Vec<&str> = told.iter().map(|finding| finding.definition.id).collect();
    assert_eq!(ids, ["nat-published", "nat-other"]);
    assert!(of_nft("no json").is_err());
}

#[test]
fn ids_are_words_each_once_and_the_document_has_them_all() {
    let mut ids: Vec<&str> = definitions::ALL.iter().map(|definition| definition.id).collect();
    let is_word = |id: &&str| id.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    assert!(ids.iter().all(is_word), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), definitions::ALL.len());
    let document = include_str!("../../../docs/DOCTOR.md");
    assert_eq!(
        document,
        reference(),
        "`keyfence generate doctor-reference` writes docs/DOCTOR.md"
    );
}

#[test]
fn finding_is_told_as_an_object_and_the_worst_comes_first() {
    let mut found = vec![
        Finding::new(&definitions::QUEUES_FEW, "a"),
        Finding::new(&definitions::MODE_GENERIC, "b"),
        Finding::new(&definitions::HOOK_HELD, "c"),
    ];
    sort(&mut found);
    assert_eq!(whats(&found), ["c", "b", "a"]);
    let object = found[0].object();
    assert_eq!(
        (&object["id"], &object["severity"]),
        (&json!("hook-held"), &json!("error"))
    );
    assert!(object["means"].is_string() && object["do"].is_string());
    assert!(!found[2].degrades());
}
