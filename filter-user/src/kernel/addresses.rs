//! What `"host"` means: every address that this host takes packets at, as the kernel says it.
//!
//! Its tables of routes know them all: those of its interfaces, whole prefixes (`ip route add local`, an address with
//! its network on the loopback), broadcast, and the anycast of routers. Multicast groups stand in /proc.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

/// Routes of these types end here, in whichever table they are: a VRF has one of its own.
pub(super) const HERE: [RouteType; 3] = [RouteType::Local, RouteType::Broadcast, RouteType::Anycast];
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// All of them, sorted, each once.
pub async fn read() -> io::Result<Vec<IpNet>> {
    // With checks: the kernel then picks the routes by their type, however many others there are.
    let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
    let task = tokio::spawn(connection);
    let told = told(&handle).await;
    task.abort();
    let mut found = told.map_err(|error| io::Error::other(error.to_string()))?;
    // Linux takes both for everybody, the second from a source without address.
    let everybody = [Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED].map(IpAddr::V4);
    let groups_v4 = std::fs::read_to_string("/proc/net/igmp")?;
    // A host without IPv6 has no such file.
    let groups_v6 = std::fs::read_to_string("/proc/net/igmp6").unwrap_or_default();
    let groups = self::groups_v4(&groups_v4).chain(self::groups_v6(&groups_v6));
    found.extend(everybody.into_iter().chain(groups).map(IpNet::from));
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Those of its interfaces alone, sorted, each once.
pub async fn of_interfaces() -> io::Result<Vec<IpAddr>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let told: Result<Vec<AddressMessage>, _> = handle.address().get().execute().try_collect().await;
    task.abort();
    let told = told.map_err(|error| io::Error::other(error.to_string()))?;
    let mut found: Vec<IpAddr> = told.iter().filter_map(own).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// All of them for who has no runtime; not for a task of one.
pub fn read_blocking() -> io::Result<Vec<IpNet>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(read())
}

async fn told(handle: &Handle) -> Result<Vec<IpNet>, rtnetlink::Error> {
    // Those of an interface that is down as well: they have no route, and will be taken as soon as it is up.
    let addresses: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
    let mut found: Vec<IpNet> = addresses.iter().filter_map(own).map(IpNet::from).collect();
    for family in FAMILIES {
        for kind in HERE {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            wanted.header.kind = kind;
            let routes: Vec<RouteMessage> = handle.route().get(wanted).execute().try_collect().await?;
            // A kernel without IPv6 answers with what it has.
            found.extend(routes.iter().filter_map(prefix));
        }
    }
    Ok(found)
}

/// The host's own: where there is a peer, the other one is the peer's.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = message.attributes.iter();
    let local = attributes.clone().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.clone().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// What a route that ends here leads to.
fn prefix(message: &RouteMessage) -> Option<IpNet> {
    let header = &message.header;
    if !HERE.contains(&header.kind) {
        return None;
    }
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    });
    // A route to everywhere names no destination.
    let destination = destination.or(match header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(std::net::Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    })?;
    let net = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(net.trunc())
}

/// The groups of /proc/net/igmp: indented lines that begin with the address in host byte order.
fn groups_v4(text: &str) -> impl Iterator<Item = IpAddr> {
    let lines = text.lines().filter(|line| line.starts_with('\t'));
    let words = lines.filter_map(|line| u32::from_str_radix(line.split_whitespace().next()?, 16).ok());
    words.map(|word| IpAddr::from(word.to_ne_bytes()))
}

/// The groups of /proc/net/igmp6.
fn groups_v6(text: &str) -> impl Iterator<Item = IpAddr> {
    let words = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    words
        .filter_map(|word| u128::from_str_radix(word, 16).ok())
        .map(|word| IpAddr::from(word.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_groups_are_read() {
        let v4 = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
        assert_eq!(
            groups_v4(v4).collect::<Vec<_>>(),
            ["224.0.0.1".parse::<IpAddr>().unwrap()]
        );
        let v6 = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n";
        assert_eq!(
            groups_v6(v6).collect::<Vec<_>>(),
            ["ff02::1".parse::<IpAddr>().unwrap()]
        );
    }

    fn route(kind: RouteType, length: u8, to: Option<Ipv4Addr>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = kind;
        message.header.destination_prefix_length = length;
        let to = to.map(|to| RouteAttribute::Destination(RouteAddress::Inet(to)));
        message.attributes.extend(to);
        message
    }

    #[test]
    fn routes_that_end_here_are_its_addresses_and_others_are_not() {
        let shown = |kind, length, to: Option<[u8; 4]>| {
            prefix(&route(kind, length, to.map(Into::into))).map(|net| net.to_string())
        };
        let to = Some([10, 5, 0, 0]);
        assert_eq!(shown(RouteType::Local, 24, to).as_deref(), Some("10.5.0.0/24"));
        assert_eq!(shown(RouteType::Local, 0, None).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(
            shown(RouteType::Broadcast, 32, to).as_deref(),
            Some("10.5.0.0/32")
        );
        assert_eq!(shown(RouteType::Anycast, 32, to).as_deref(), Some("10.5.0.0/32"));
        assert_eq!(shown(RouteType::Unicast, 24, to), None);
        assert_eq!(shown(RouteType::BlackHole, 24, to), None);
    }

    #[test]
    fn peer_of_an_address_is_not_this_host() {
        let [here, there]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut message = AddressMessage::default();
        message.attributes = vec![AddressAttribute::Address(there), AddressAttribute::Local(here)];
        assert_eq!(own(&message), Some(here));
        // IPv6 has the one alone where there is no peer.
        message.attributes = vec![AddressAttribute::Address(here)];
        assert_eq!(own(&message), Some(here));
    }
}
