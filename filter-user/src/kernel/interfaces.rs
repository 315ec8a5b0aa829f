//! The host's interfaces as the kernel tells them: which are Ethernet, and what holds their XDP hook.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use thiserror::Error;

/// One interface of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub ethernet: bool,
    pub mtu: u32,
    pub hook: Hook,
    /// A bond's, by their numbers: in native mode its frames come in by them.
    pub members: Vec<u32>,
}

/// Who holds the XDP hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    /// Program ids; 0 is none.
    pub native: u32,
    pub generic: u32,
}

impl Hook {
    pub fn programs(self) -> impl Iterator<Item = u32> {
        [self.native, self.generic].into_iter().filter(|id| *id != 0)
    }
}

#[derive(Debug, Error)]
pub enum InterfaceError {
    #[error("the interfaces cannot be read: {0}")]
    Netlink(String),
    #[error("interface {name} does not exist{near}; `ip link` lists those that do")]
    Missing { name: String, near: String },
    #[error("no interface matches {0}; `ip link` lists those that exist")]
    NoMatch(String),
    #[error("{0} is no Ethernet interface: a filter for frames would misread its packets; name another")]
    NotEthernet(String),
    #[error("{0} is not a glob: {1}")]
    Glob(String, String),
    #[error("{upper} is stacked on {lower}: each packet would be judged twice; name one of them")]
    Stacked { upper: String, lower: String },
    #[error("the policy's interfaces are {0} on this host, and the filter takes 64 at most")]
    TooMany(usize),
}

/// All links of this namespace, as the kernel describes them.
pub(super) async fn links() -> Result<Vec<LinkMessage>, InterfaceError> {
    let failed = |error: &dyn std::fmt::Display| InterfaceError::Netlink(error.to_string());
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error: io::Error| failed(&error))?;
    let task = tokio::spawn(connection);
    let messages: Result<Vec<LinkMessage>, _> = handle.link().get().execute().try_collect().await;
    task.abort();
    messages.map_err(|error| failed(&error))
}

/// All interfaces of this namespace, with what each is stacked on.
pub async fn read() -> Result<Vec<(Interface, Option<u32>)>, InterfaceError> {
    let messages = links().await?;
    let mut present: Vec<(Interface, Option<u32>)> = messages.iter().filter_map(interface).collect();
    for bond in messages.iter().filter(|message| is_bond(message)) {
        let members = messages.iter().filter(|message| is_member(message, bond));
        let mut members: Vec<u32> = members.map(|message| message.header.index).collect();
        members.sort_unstable();
        let found = present
            .iter_mut()
            .find(|(interface, _)| interface.index == bond.header.index);
        if let Some((interface, _)) = found {
            interface.members = members;
        }
    }
    Ok(present)
}

fn is_bond(message: &LinkMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(parts) => parts.contains(&LinkInfo::Kind(InfoKind::Bond)),
        _ => false,
    })
}

fn is_member(message: &LinkMessage, bond: &LinkMessage) -> bool {
    message
        .attributes
        .contains(&LinkAttribute::Controller(bond.header.index))
}

fn interface(message: &LinkMessage) -> Option<(Interface, Option<u32>)> {
    let mut name = None;
    let mut mtu = 0;
    let mut hook = Hook::default();
    let mut lower = None;
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::Link(index) => lower = Some(*index),
            // Of another namespace: its numbers mean nothing here.
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Xdp(parts) => hook = hook_of(parts),
            _ => {}
        }
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let index = message.header.index;
    Some((
        Interface {
            name: name?,
            index,
            ethernet,
            mtu,
            hook,
            members: Vec::new(),
        },
        lower.filter(|_| !elsewhere),
    ))
}

fn hook_of(parts: &[LinkXdp]) -> Hook {
    let mut hook = Hook::default();
    let mut attached = XdpAttached::None;
    let mut only = 0;
    for part in parts {
        match part {
            LinkXdp::Attached(mode) => attached = *mode,
            LinkXdp::ProgId(id) => only = *id,
            LinkXdp::DrvProgId(id) => hook.native = *id,
            LinkXdp::SkbProgId(id) => hook.generic = *id,
            _ => {}
        }
    }
    match attached {
        XdpAttached::Driver if hook.native == 0 => hook.native = only,
        XdpAttached::SocketBuffer if hook.generic == 0 => hook.generic = only,
        _ => {}
    }
    hook
}

/// Every unicast and broadcast address of this host, and the multicast groups it has joined.
pub fn host_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        for address in [interface.address, interface.broadcast].into_iter().flatten() {
            addresses.extend(address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip())));
            addresses.extend(address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())));
        }
    }
    addresses.push(IpAddr::V4(Ipv4Addr::BROADCAST));
    addresses.extend(groups_v4(&std::fs::read_to_string("/proc/net/igmp")?));
    // A host without IPv6 has no such file.
    let groups = std::fs::read_to_string("/proc/net/igmp6").unwrap_or_default();
    addresses.extend(groups_v6(&groups));
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The groups of /proc/net/igmp: indented lines that begin with the address in host byte order.
fn groups_v4(text: &str) -> impl Iterator<Item = IpAddr> {
    let lines = text.lines().filter(|line| line.starts_with('\t'));
    let words = lines.filter_map(|line| u32::from_str_radix(line.split_whitespace().next()?, 16).ok());
    words.map(|word| IpAddr::from(word.to_ne_bytes()))
}

/// The groups of /proc/net/igmp6: the third column.
fn groups_v6(text: &str) -> impl Iterator<Item = IpAddr> {
    let words = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    words
        .filter_map(|word| u128::from_str_radix(word, 16).ok())
        .map(|word| IpAddr::from(word.to_be_bytes()))
}

/// The interfaces that a policy's names and globs mean, in their order, each once.
pub fn choose(
    patterns: &[String],
    present: &[(Interface, Option<u32>)],
) -> Result<Vec<Interface>, InterfaceError> {
    let mut chosen: Vec<Interface> = Vec::new();
    for pattern in patterns {
        let found = matching(pattern, present)?;
        for interface in found {
            if !chosen.iter().any(|known| known.index == interface.index) {
                chosen.push(interface);
            }
        }
    }
    if chosen.len() > filter_common::bounds::INTERFACES_MAX as usize {
        return Err(InterfaceError::TooMany(chosen.len()));
    }
    for (interface, lower) in present {
        let upper = chosen.iter().find(|known| known.index == interface.index);
        let below = chosen
            .iter()
            .find(|known| Some(known.index) == *lower && known.index != interface.index);
        // A veth names its peer as what it is linked to; the two are no stack.
        let peer = present
            .iter()
            .any(|(other, link)| Some(other.index) == *lower && *link == Some(interface.index));
        if let (Some(upper), Some(lower), false) = (upper, below, peer) {
            return Err(InterfaceError::Stacked {
                upper: upper.name.clone(),
                lower: lower.name.clone(),
            });
        }
    }
    // A member that the policy names as well is counted by itself.
    let named: Vec<u32> = chosen.iter().map(|interface| interface.index).collect();
    for interface in &mut chosen {
        interface.members.retain(|member| !named.contains(member));
    }
    Ok(chosen)
}

fn matching(pattern: &str, present: &[(Interface, Option<u32>)]) -> Result<Vec<Interface>, InterfaceError> {
    let all = present.iter().map(|(interface, _)| interface);
    if !pattern.contains(['*', '?', '[']) {
        let Some(interface) = all.clone().find(|interface| interface.name == pattern) else {
            let mut names: Vec<_> = all
                .filter(|interface| interface.ethernet)
                .map(|i| i.name.as_str())
                .collect();
            names.sort_unstable();
            let near = if names.is_empty() {
                String::new()
            } else {
                format!(" (there are: {})", names.join(", "))
            };
            return Err(InterfaceError::Missing {
                name: pattern.into(),
                near,
            });
        };
        if !interface.ethernet {
            return Err(InterfaceError::NotEthernet(pattern.into()));
        }
        return Ok(vec![interface.clone()]);
    }
    let glob = glob::Pattern::new(pattern)
        .map_err(|error| InterfaceError::Glob(pattern.into(), error.to_string()))?;
    // A glob means the Ethernet ones among those it matches: `*` is no fault on a host with a loopback.
    let found: Vec<_> = all
        .filter(|interface| interface.ethernet && glob.matches(&interface.name))
        .cloned()
        .collect();
    if found.is_empty() {
        Err(InterfaceError::NoMatch(pattern.into()))
    } else {
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(list: &[(&str, u32, bool, Option<u32>)]) -> Vec<(Interface, Option<u32>)> {
        list.iter()
            .map(|(name, index, ethernet, lower)| {
                let (name, index, ethernet) = (name.to_string(), *index, *ethernet);
                (
                    Interface {
                        name,
                        index,
                        ethernet,
                        mtu: 1500,
                        hook: Hook::default(),
                        members: Vec::new(),
                    },
                    *lower,
                )
            })
            .collect()
    }

    fn names(patterns: &[&str], present: &[(Interface, Option<u32>)]) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_string()).collect();
        choose(&patterns, present)
            .map(|chosen| chosen.into_iter().map(|interface| interface.name).collect())
            .map_err(|error| error.to_string())
    }

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

    #[test]
    fn names_and_globs_are_chosen_in_order_and_once() {
        let host = present(&[
            ("lo", 1, false, None),
            ("eth0", 2, true, None),
            ("eth1", 3, true, None),
        ]);
        assert_eq!(
            names(&["eth1", "eth*"], &host),
            Ok(vec!["eth1".into(), "eth0".into()])
        );
        assert_eq!(names(&["*"], &host), Ok(vec!["eth0".into(), "eth1".into()]));
    }

    #[test]
    fn what_is_missing_or_not_ethernet_is_named_with_the_fix() {
        let host = present(&[("lo", 1, false, None), ("eth0", 2, true, None)]);
        assert!(
            names(&["eth9"], &host)
                .unwrap_err()
                .contains("eth9 does not exist (there are: eth0)")
        );
        assert!(
            names(&["lo"], &host)
                .unwrap_err()
                .contains("lo is no Ethernet interface")
        );
        assert!(
            names(&["wl*"], &host)
                .unwrap_err()
                .contains("no interface matches wl*")
        );
    }

    #[test]
    fn a_stack_is_refused_and_a_veth_pair_is_not() {
        let host = present(&[("eth0", 2, true, None), ("eth0.100", 3, true, Some(2))]);
        assert!(
            names(&["eth*"], &host)
                .unwrap_err()
                .contains("eth0.100 is stacked on eth0")
        );
        let host = present(&[("a", 2, true, Some(3)), ("b", 3, true, Some(2))]);
        assert!(names(&["a", "b"], &host).is_ok());
    }

    #[test]
    fn members_of_a_bond_are_its_own_unless_they_are_named() {
        let mut host = present(&[
            ("eth0", 2, true, None),
            ("eth1", 3, true, None),
            ("bond0", 4, true, None),
        ]);
        host[2].0.members = vec![2, 3];
        let members = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_string()).collect();
            choose(&patterns, &host).unwrap()[0].members.clone()
        };
        assert_eq!(members(&["bond0"]), [2, 3]);
        assert_eq!(members(&["bond0", "eth1"]), [2]);
    }

    #[test]
    fn bond_and_members_are_told_by_their_attributes() {
        let message = |index, attribute| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.attributes = vec![attribute];
            message
        };
        let kind = |kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
        let bond = message(4, kind(InfoKind::Bond));
        assert!(is_bond(&bond) && !is_bond(&message(5, kind(InfoKind::Bridge))));
        assert!(is_member(&message(2, LinkAttribute::Controller(4)), &bond));
        assert!(!is_member(&message(2, LinkAttribute::Controller(5)), &bond));
    }
}
