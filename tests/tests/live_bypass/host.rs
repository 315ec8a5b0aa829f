//! What has reached the host, as its sockets and the kernel's own counters tell it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use keyfence_tests::harness::{Namespace, PATIENCE};
use socket2::{Domain, Socket, Type};

use crate::sender::PORT;

/// Of the frames between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Who a datagram came from, if not from the sender, and what is in it.
    pub(crate) datagrams: Vec<(Option<IpAddr>, Vec<u8>)>,
    /// Begun with the sender's port.
    pub(crate) connections: u64,
    /// Pings answered.
    pub(crate) echoes: u64,
    /// Taken by reassembly.
    pub(crate) fragments: u64,
}

impl Reached {
    pub(crate) fn since(&self, before: &Reached) -> Reached {
        Reached {
            datagrams: Vec::new(),
            connections: self.connections - before.connections,
            echoes: self.echoes - before.echoes,
            fragments: self.fragments - before.fragments,
        }
    }

    /// What has left reassembly, or was never in it.
    pub(crate) fn but_fragments(&self) -> Reached {
        Reached {
            fragments: 0,
            ..self.clone()
        }
    }
}

/// The service: sockets at the wildcard address, one of each family. (One of both gets no IPv4 multicast.)
pub(crate) struct Host {
    udp: [UdpSocket; 2],
    _tcp: TcpListener,
}

impl Host {
    pub(crate) fn open(server: &Namespace) -> Self {
        let sockets = server.inside(|| {
            let v4 = udp(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into())?;
            let v6 = udp(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())?;
            Ok::<_, io::Error>(([v4, v6], TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?))
        });
        let (udp, tcp) = sockets.unwrap_or_else(|error| panic!("no socket at port {PORT}: {error}"));
        Self { udp, _tcp: tcp }
    }

    /// The datagrams before those of the marker, which sends one of each family.
    pub(crate) fn until_from(&self, marker: [SocketAddr; 2], name: &str) -> Vec<(IpAddr, Vec<u8>)> {
        let mut buffer = [0; 2048];
        let mut datagrams = Vec::new();
        for (socket, marker) in self.udp.iter().zip(marker) {
            loop {
                let received = socket.recv_from(&mut buffer);
                let (length, from) = received
                    .unwrap_or_else(|error| panic!("{name}: the marker {marker} does not arrive: {error}"));
                if from.ip() == marker.ip() && from.port() == marker.port() {
                    break;
                }
                datagrams.push((from.ip().to_canonical(), buffer[..length].to_vec()));
            }
        }
        datagrams
    }

    /// The kernel's counters so far; connections are those of this remote port.
    pub(crate) fn counted(&self, server: &Namespace, port: u16) -> Reached {
        // Of the thread: the process is in another namespace.
        let read = |file: &str| {
            let path = format!("/proc/thread-self/net/{file}");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path} cannot be read: {error}"))
        };
        server.inside(|| {
            let (snmp, snmp6) = (read("snmp"), read("snmp6"));
            Reached {
                datagrams: Vec::new(),
                connections: half_open(&read("tcp"), port) + half_open(&read("tcp6"), port),
                echoes: counter(&snmp, "Icmp:", "OutEchoReps") + counter6(&snmp6, "Icmp6OutEchoReplies"),
                fragments: counter(&snmp, "Ip:", "ReasmReqds") + counter6(&snmp6, "Ip6ReasmReqds"),
            }
        })
    }
}

fn udp(domain: Domain, wildcard: IpAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SocketAddr::new(wildcard, PORT).into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Connections in the state SYN_RECV.
fn half_open(table: &str, port: u16) -> u64 {
    let remote = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(str::split_whitespace);
    let states = rows.filter_map(|mut row| Some((row.nth(2)?, row.next()?)));
    let count = states.filter(|(peer, state)| peer.ends_with(&remote) && *state == "03");
    count.count() as u64
}

/// Of a table of names and values in two lines that begin alike.
fn counter(table: &str, group: &str, name: &str) -> u64 {
    let mut lines = table.lines().filter(|line| line.starts_with(group));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        panic!("{group} is not in {table}");
    };
    let mut columns = names.split(' ').zip(values.split(' '));
    let value = columns.find(|(column, _)| *column == name);
    let (_, value) = value.unwrap_or_else(|| panic!("{name} is not in {names}"));
    value.parse().expect("counters are numbers")
}

fn counter6(table: &str, name: &str) -> u64 {
    let mut rows = table.lines().map(str::split_whitespace);
    let value = rows.find_map(|mut row| (row.next()? == name).then(|| row.next())?);
    let value = value.unwrap_or_else(|| panic!("{name} is not in {table}"));
    value.parse().expect("counters are numbers")
}
