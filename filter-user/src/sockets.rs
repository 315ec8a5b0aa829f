//! The sockets of this host, from /proc/net: who listens where, and which connections stand.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// States of include/net/tcp_states.h; UDP sockets that are not connected are in CLOSE.
const ESTABLISHED: u8 = 0x01;
const CLOSE: u8 = 0x07;
const LISTEN: u8 = 0x0A;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// One line of /proc/net/{tcp,tcp6,udp,udp6}. IPv4-mapped addresses are IPv4 here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) protocol: Protocol,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    state: u8,
    pub(crate) inode: u64,
    /// The program's name, where it can be read.
    pub(crate) process: Option<String>,
}

impl Socket {
    /// As if read from /proc.
    #[cfg(test)]
    pub(crate) fn listening(protocol: Protocol, local: &str, process: Option<&str>) -> Socket {
        let (local, remote) = (local.parse().unwrap(), "0.0.0.0:0".parse().unwrap());
        let state = if protocol == Protocol::Tcp { LISTEN } else { CLOSE };
        Socket {
            protocol,
            local,
            remote,
            state,
            inode: 0,
            process: process.map(str::to_owned),
        }
    }

    /// A TCP connection that stands, as tests need one.
    #[cfg(test)]
    pub(crate) fn connected(local: &str, peer: &str) -> Socket {
        let (local, remote) = (local.parse().unwrap(), peer.parse().unwrap());
        Socket {
            protocol: Protocol::Tcp,
            local,
            remote,
            state: ESTABLISHED,
            inode: 0,
            process: None,
        }
    }

    /// Whether strangers reach it.
    pub(crate) fn is_listening(&self) -> bool {
        match self.protocol {
            Protocol::Tcp => self.state == LISTEN,
            Protocol::Udp => self.state == CLOSE && self.remote.port() == 0 && self.local.port() != 0,
        }
    }

    /// The other end of a TCP connection that stands.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        (self.protocol == Protocol::Tcp && self.state == ESTABLISHED).then_some(self.remote)
    }
}

/// All sockets of this network namespace; what cannot be read is as if it were empty.
pub(crate) fn read_all(proc: &Path) -> Vec<Socket> {
    let files = [
        ("tcp", Protocol::Tcp),
        ("tcp6", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("udp6", Protocol::Udp),
    ];
    let mut sockets = Vec::new();
    for (file, protocol) in files {
        let text = std::fs::read_to_string(proc.join("net").join(file)).unwrap_or_default();
        sockets.extend(parse(&text, protocol));
    }
    let processes = processes(proc);
    for socket in &mut sockets {
        socket.process = processes.get(&socket.inode).cloned();
    }
    sockets
}

/// The TCP sockets of this network namespace, without their programs.
pub(crate) fn read_tcp(proc: &Path) -> std::io::Result<Vec<Socket>> {
    let read = |file: &str| std::fs::read_to_string(proc.join("self/net").join(file));
    let mut sockets: Vec<Socket> = parse(&read("tcp")?, Protocol::Tcp).collect();
    // A host without IPv6 has no such file.
    match read("tcp6") {
        Ok(text) => sockets.extend(parse(&text, Protocol::Tcp)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

/// The sockets that a process holds, by their inodes.
pub(crate) fn held(proc: &Path, pid: u32) -> std::io::Result<Vec<u64>> {
    let descriptors = std::fs::read_dir(proc.join(pid.to_string()).join("fd"))?;
    let target =
        |descriptor: std::io::Result<std::fs::DirEntry>| std::fs::read_link(descriptor.ok()?.path()).ok();
    Ok(descriptors
        .filter_map(target)
        .filter_map(|target| inode(&target))
        .collect())
}

fn inode(target: &Path) -> Option<u64> {
    let target = target.to_str()?;
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn parse(text: &str, protocol: Protocol) -> impl Iterator<Item = Socket> {
    text.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let local = address(fields.nth(1)?)?;
        let remote = address(fields.next()?)?;
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Socket {
            protocol,
            local,
            remote,
            state,
            inode,
            process: None,
        })
    })
}

/// `0100007F:0016`: 32-bit words of the address in this machine's byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if address.len() % 8 != 0 {
        return None;
    }
    let mut bytes = Vec::with_capacity(16);
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// Which program holds a socket, by the socket's inode. An ordinary user sees its own alone.
fn processes(proc: &Path) -> HashMap<u64, String> {
    let mut names = HashMap::new();
    let folders = std::fs::read_dir(proc).into_iter().flatten().flatten();
    for folder in folders.filter(|folder| folder.file_name().as_bytes().iter().all(u8::is_ascii_digit)) {
        let Ok(name) = std::fs::read_to_string(folder.path().join("comm")) else {
            continue;
        };
        for descriptor in std::fs::read_dir(folder.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(target) = std::fs::read_link(descriptor.path()) else {
                continue;
            };
            if let Some(inode) = inode(&target) {
                names.entry(inode).or_insert_with(|| name.trim_end().to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    // As a little-endian machine writes them.
    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_proc_net_are_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1126 1 0 100 0 0 10 0\n   \
            1: 020200C0:0016 076433C6:C8E6 01 00000000:00000000 00:00000000 00000000     0        0 24464 1 0 21 4 1 107 -1\n\
            cut off\n";
        let sockets: Vec<_> = parse(text, Protocol::Tcp).collect();
        assert_eq!(sockets.len(), 2);
        assert!(sockets[0].is_listening() && sockets[0].peer().is_none());
        assert_eq!(sockets[0].local, "0.0.0.0:443".parse().unwrap());
        assert_eq!(sockets[0].inode, 1126);
        assert_eq!(sockets[1].local, "192.0.2.2:22".parse().unwrap());
        assert_eq!(sockets[1].peer(), Some("198.51.100.7:51430".parse().unwrap()));
        assert!(!sockets[1].is_listening());
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn ipv6_words_are_in_machine_order_and_mapped_addresses_are_ipv4() {
        assert_eq!(
            address("B80D0120000000000000000001000000:0035"),
            "[2001:db8::1]:53".parse().ok()
        );
        assert_eq!(
            address("0000000000000000FFFF0000020200C0:01BB"),
            "192.0.2.2:443".parse().ok()
        );
        assert_eq!(address("0:0"), None);
        assert_eq!(address("zzzzzzzz:01BB"), None);
        assert_eq!(address("zz"), None);
    }

    #[test]
    fn listening_socket_of_this_process_is_found_with_its_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let sockets = read_all(Path::new("/proc"));
        let found = sockets
            .iter()
            .find(|socket| socket.is_listening() && socket.local == local)
            .unwrap();
        assert!(found.process.is_some());
    }
}
