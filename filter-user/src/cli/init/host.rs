//! This host as a first policy needs it: its Ethernet interfaces, its listening sockets, its SSH sessions.
//!
//! Asks the kernel by netlink and /proc, changes nothing. What cannot be read is left out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use crate::cli::ancestors;
use crate::kernel::devices::{self, Device};
use crate::sockets::{self, Protocol, Socket};

/// ARPHRD_ETHER of linux/if_arp.h.
const LAYER_ETHERNET: u16 = 1;
/// Flags of linux/if.h.
const FLAG_UP: u32 = 0x1;
const FLAG_LOOPBACK: u32 = 0x8;
const FLAG_NO_ARP: u32 = 0x80;
/// What devices are that see the traffic of others again, unwrapped or passed on.
const KINDS_NOT_FILTERED: [&str; 6] = ["vxlan", "geneve", "vrf", "gre", "wwan", "hsr"];
pub(super) const SSH_PORT: u16 = 22;
const EPHEMERAL_DEFAULT: (u16, u16) = (32768, 60999);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) interfaces: Vec<String>,
    pub(super) listening: Vec<Socket>,
    /// The peer that this command hangs on, and the port here that it came to.
    pub(super) sessions: BTreeSet<(IpAddr, u16)>,
    /// Where that is not known: whoever has a connection to an SSH server, logged in or not.
    pub(super) strangers: BTreeSet<(IpAddr, u16)>,
    /// Ports that this host takes for its own connections, first and last.
    pub(super) ephemeral: (u16, u16),
}

impl Host {
    pub(super) fn read() -> Host {
        let proc = Path::new("/proc");
        let sockets = sockets::read_all(proc);
        let sessions = own_sessions();
        let strangers = if sessions.is_empty() {
            connected(&sockets)
        } else {
            BTreeSet::new()
        };
        let ephemeral = std::fs::read_to_string(proc.join("sys/net/ipv4/ip_local_port_range"));
        let routed = default_route_interfaces(
            &std::fs::read_to_string(proc.join("net/route")).unwrap_or_default(),
            &std::fs::read_to_string(proc.join("net/ipv6_route")).unwrap_or_default(),
        );
        Host {
            interfaces: choose(&devices().unwrap_or_default(), &routed),
            sessions,
            strangers,
            listening: sockets.into_iter().filter(Socket::is_listening).collect(),
            ephemeral: ephemeral
                .ok()
                .and_then(|text| port_range(&text))
                .unwrap_or(EPHEMERAL_DEFAULT),
        }
    }
}

/// Whoever has a connection to an SSH server, or is who this command hangs on.
pub(super) fn ssh_peers() -> BTreeSet<IpAddr> {
    let connected = connected(&sockets::read_all(Path::new("/proc")));
    let all = connected.into_iter().chain(own_sessions());
    all.map(|(peer, _)| peer).collect()
}

/// As the environment has it, or (sudo hides that) by the connections that an ancestor of this command holds.
fn own_sessions() -> BTreeSet<(IpAddr, u16)> {
    let told = std::env::var("SSH_CONNECTION").ok();
    if let Some(own) = told
        .and_then(|text| ssh_connection(&text))
        .filter(|(peer, _)| is_remote(peer))
    {
        return BTreeSet::from([own]);
    }
    let held = ancestors::connections(Path::new("/proc")).connections.into_iter();
    let held = held.map(|connection| (connection.from.ip().to_canonical(), connection.to.port()));
    held.filter(|(peer, _)| is_remote(peer)).collect()
}

fn is_remote(peer: &IpAddr) -> bool {
    !peer.is_loopback() && !peer.is_unspecified()
}

fn devices() -> anyhow::Result<Vec<Device>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(devices::read())?)
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut fields = text.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// `SSH_CONNECTION`: client address and port, server address and port.
fn ssh_connection(text: &str) -> Option<(IpAddr, u16)> {
    let mut fields = text.split_ascii_whitespace();
    // A link-local address comes with its zone.
    let peer: IpAddr = fields.next()?.split('%').next()?.parse().ok()?;
    let port = fields.nth(2)?.parse().ok()?;
    Some((peer.to_canonical(), port))
}

/// Peers of connections to a port on which an SSH server listens, and these ports: a connection is no session yet.
fn connected(sockets: &[Socket]) -> BTreeSet<(IpAddr, u16)> {
    let is_ssh = |socket: &&Socket| {
        let port = socket.local.port();
        let sshd = |process: &Option<String>| process.as_ref().is_some_and(|name| name.starts_with("sshd"));
        socket.is_listening()
            && socket.protocol == Protocol::Tcp
            && (port == SSH_PORT || sshd(&socket.process))
    };
    let ports: BTreeSet<u16> = sockets
        .iter()
        .filter(is_ssh)
        .map(|socket| socket.local.port())
        .collect();
    let standing = sockets
        .iter()
        .filter(|socket| ports.contains(&socket.local.port()));
    let peers = standing.filter_map(|socket| Some((socket.peer()?.ip().to_canonical(), socket.local.port())));
    peers.filter(|(peer, _)| is_remote(peer)).collect()
}

/// Those that bring this host its traffic, each frame once: the lower of two that are stacked, but a bond or bridge
/// rather than its parts. Containers' cables count only where nothing else is.
fn choose(devices: &[Device], routed: &[String]) -> Vec<String> {
    let find = |name: &String| devices.iter().find(|device| device.name == *name);
    let is_candidate = |device: &&Device| {
        let part_of = device.master.as_ref().and_then(find);
        device.layer == LAYER_ETHERNET
            && device.flags & FLAG_UP != 0
            && device.flags & (FLAG_LOOPBACK | FLAG_NO_ARP) == 0
            && !device.is_tap()
            && !KINDS_NOT_FILTERED.contains(&device.kind.as_str())
            // What is in a VRF still receives by itself.
            && (device.master.is_none() || part_of.is_some_and(|master| master.kind == "vrf"))
            // A bridge of containers and virtual machines alone brings nothing from outside.
            && (device.kind != "bridge"
                || device.lower.iter().filter_map(find).any(|port| port.hardware || port.kind == "bond"))
    };
    let candidates: Vec<&Device> = devices.iter().filter(is_candidate).collect();
    let lowest = candidates.iter().filter(|device| {
        !device
            .lower
            .iter()
            .any(|lower| candidates.iter().any(|other| other.name == *lower))
    });
    let lowest: Vec<&&Device> = lowest.collect();
    let main = |device: &&&&Device| !device.is_paired() || routed.contains(&device.name);
    let chosen: Vec<String> = lowest
        .iter()
        .filter(main)
        .map(|device| device.name.clone())
        .collect();
    if chosen.is_empty() {
        lowest.iter().map(|device| device.name.clone()).collect()
    } else {
        chosen
    }
}

/// From /proc/net/route and /proc/net/ipv6_route: those that lead everywhere.
fn default_route_interfaces(ipv4: &str, ipv6: &str) -> Vec<String> {
    let ipv4 = ipv4.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        (*fields.get(1)? == "00000000" && *fields.get(7)? == "00000000").then(|| fields[0].to_owned())
    });
    let ipv6 = ipv6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let name = (*fields.get(9)?).to_owned();
        // The kernel's own entry that rejects everything is on lo.
        (*fields.get(1)? == "00" && name != "lo").then_some(name)
    });
    ipv4.chain(ipv6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> Device {
        Device {
            name: name.to_owned(),
            layer: LAYER_ETHERNET,
            flags: FLAG_UP,
            hardware: true,
            ..Device::default()
        }
    }

    fn virtual_device(name: &str, kind: &str, lower: &[&str]) -> Device {
        let lower = lower.iter().map(|name| (*name).to_owned()).collect();
        Device {
            hardware: false,
            kind: kind.to_owned(),
            lower,
            ..device(name)
        }
    }

    fn part(name: &str, master: &str) -> Device {
        Device {
            master: Some(master.to_owned()),
            ..device(name)
        }
    }

    #[test]
    fn ethernet_that_is_up_is_chosen_and_nothing_else() {
        let devices = [
            device("eth0"),
            Device {
                flags: 0,
                ..device("eth1")
            },
            Device {
                flags: FLAG_UP | FLAG_LOOPBACK,
                layer: 772,
                ..device("lo")
            },
            Device {
                flags: FLAG_UP | FLAG_NO_ARP,
                ..device("dummy0")
            },
            Device {
                layer: 65534,
                ..device("wg0")
            },
            Device {
                kind: "tun".to_owned(),
                hardware: false,
                ..device("tap0")
            },
            virtual_device("vxlan0", "vxlan", &[]),
        ];
        assert_eq!(choose(&devices, &[]), ["eth0"]);
    }

    #[test]
    fn of_stacked_devices_one_is_chosen() {
        let vlan = virtual_device("eth0.100", "vlan", &["eth0"]);
        assert_eq!(choose(&[device("eth0"), vlan], &[]), ["eth0"]);
        let bond = virtual_device("bond0", "bond", &["eth0", "eth1"]);
        let vlan = virtual_device("bond0.7", "vlan", &["bond0"]);
        assert_eq!(
            choose(&[bond, vlan, part("eth0", "bond0"), part("eth1", "bond0")], &[]),
            ["bond0"]
        );
        let bridge = virtual_device("br0", "bridge", &["eth0"]);
        assert_eq!(choose(&[bridge, part("eth0", "br0")], &[]), ["br0"]);
        let vrf = virtual_device("blue", "vrf", &["eth0"]);
        assert_eq!(choose(&[vrf, part("eth0", "blue")], &[]), ["eth0"]);
    }

    #[test]
    fn cables_of_containers_count_where_nothing_else_is_or_the_route_is_theirs() {
        let cable = virtual_device("veth1", "veth", &[]);
        let docker = virtual_device("docker0", "bridge", &["veth9"]);
        let port = Device {
            master: Some("docker0".to_owned()),
            name: "veth9".to_owned(),
            ..cable.clone()
        };
        assert_eq!(
            choose(&[device("eth0"), cable.clone(), docker, port], &[]),
            ["eth0"]
        );
        assert_eq!(choose(std::slice::from_ref(&cable), &[]), ["veth1"]);
        let routed = ["veth1".to_owned()];
        assert_eq!(choose(&[device("eth0"), cable], &routed), ["eth0", "veth1"]);
    }

    #[test]
    fn default_routes_name_their_interfaces() {
        let ipv4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                    eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n\
                    eth1 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let zero = "00000000000000000000000000000000";
        let ipv6 =
            format!("{zero} 00 {zero} 00 {zero} 1 1 0 3 eth2\n{zero} 00 {zero} 00 {zero} 1 1 0 200200 lo\n");
        assert_eq!(default_route_interfaces(ipv4, &ipv6), ["eth0", "eth2"]);
    }

    #[test]
    fn whoever_is_connected_to_an_ssh_server_is_seen_and_not_taken_for_a_session() {
        let sockets = [
            Socket::listening(Protocol::Tcp, "0.0.0.0:2222", Some("sshd")),
            Socket::listening(Protocol::Tcp, "0.0.0.0:443", Some("nginx")),
            Socket::connected("203.0.113.10:2222", "198.51.100.66:4000"),
            Socket::connected("203.0.113.10:443", "198.51.100.67:4000"),
        ];
        let expected = BTreeSet::from([("198.51.100.66".parse().unwrap(), 2222)]);
        assert_eq!(connected(&sockets), expected);
    }

    #[test]
    fn ssh_connection_names_peer_and_port() {
        let expected = |peer: &str, port| Some((peer.parse().unwrap(), port));
        assert_eq!(
            ssh_connection("192.0.2.7 51000 203.0.113.10 2222"),
            expected("192.0.2.7", 2222)
        );
        assert_eq!(
            ssh_connection("fe80::7%eth0 51000 fe80::1%eth0 22"),
            expected("fe80::7", 22)
        );
        assert_eq!(
            ssh_connection("::ffff:192.0.2.7 51000 ::ffff:203.0.113.10 22"),
            expected("192.0.2.7", 22)
        );
        assert_eq!(ssh_connection("nonsense"), None);
    }
}
