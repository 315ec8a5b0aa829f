//! By which interface packets of a peer come in: by the one that this host would answer it by.
//!
//! The kernel is asked for the route. Where routes there and back differ it may be another one.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::interfaces;

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// On this host.
    Here,
    /// Behind this interface, or behind those that it is stacked on: a bridge's ports, a bond's members, what a VLAN is of.
    By(BTreeSet<String>),
    /// No route leads there now.
    None,
}

/// The way to each of these.
pub async fn ways(peers: &[IpAddr]) -> io::Result<Vec<Way>> {
    let links = interfaces::links()
        .await
        .map_err(|error| io::Error::other(error.to_string()))?;
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let mut ways = Vec::with_capacity(peers.len());
    for peer in peers {
        let mut asked = RouteMessage::default();
        let (family, length, to) = match peer {
            IpAddr::V4(peer) => (AddressFamily::Inet, 32, RouteAddress::Inet(*peer)),
            IpAddr::V6(peer) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(*peer)),
        };
        asked.header.address_family = family;
        asked.header.destination_prefix_length = length;
        asked.attributes.push(RouteAttribute::Destination(to));
        // A peer without a route is no fault.
        let routes: Result<Vec<RouteMessage>, _> = handle.route().get(asked).execute().try_collect().await;
        let route = routes.ok().and_then(|routes| routes.into_iter().next());
        ways.push(route.map_or(Way::None, |route| way(&route, &links)));
    }
    task.abort();
    Ok(ways)
}

fn way(route: &RouteMessage, links: &[LinkMessage]) -> Way {
    if route.header.kind == RouteType::Local {
        return Way::Here;
    }
    let out = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    match out {
        Some(out) => Way::By(names(&stack(out, links), links)),
        None => Way::None,
    }
}

/// An interface and all that its packets may come in by first.
fn stack(upper: u32, links: &[LinkMessage]) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([upper]);
    let mut open = vec![upper];
    while let Some(at) = open.pop() {
        let below = links.iter().filter_map(|link| {
            let index = link.header.index;
            let is = |attribute: &LinkAttribute| match attribute {
                LinkAttribute::Controller(controller) => (*controller == at).then_some(index),
                LinkAttribute::Link(lower) => (index == at).then_some(*lower),
                _ => None,
            };
            link.attributes.iter().find_map(is)
        });
        let new: Vec<u32> = below.filter(|index| !found.contains(index)).collect();
        found.extend(&new);
        open.extend(new);
    }
    found
}

fn names(indexes: &BTreeSet<u32>, links: &[LinkMessage]) -> BTreeSet<String> {
    let named = links.iter().filter(|link| indexes.contains(&link.header.index));
    let names = named.flat_map(|link| &link.attributes);
    names
        .filter_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, attributes: &[LinkAttribute]) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        link.attributes.extend_from_slice(attributes);
        link
    }

    #[test]
    fn packets_of_a_stacked_interface_come_in_by_what_is_below() {
        let links = [
            link(1, "eth0", &[LinkAttribute::Controller(3)]),
            link(2, "eth1", &[LinkAttribute::Controller(3)]),
            link(3, "bond0", &[]),
            link(4, "bond0.7", &[LinkAttribute::Link(3)]),
            link(5, "eth2", &[]),
        ];
        let below = |upper| names(&stack(upper, &links), &links);
        let all = ["bond0", "bond0.7", "eth0", "eth1"].map(str::to_owned);
        assert_eq!(below(4), BTreeSet::from(all));
        assert_eq!(below(5), BTreeSet::from(["eth2".to_owned()]));
    }

    #[tokio::test]
    async fn peer_on_this_host_is_here() {
        let peers = ["127.0.0.1".parse().unwrap()];
        assert_eq!(ways(&peers).await.unwrap(), [Way::Here]);
    }
}
