//! The host's interfaces as the kernel tells them: which are Ethernet, and what holds their XDP hook.

use std::io;

use filter_common::bounds::INTERFACES_MAX;
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

/// What a policy's names and globs mean on a host.
#[derive(Debug, Default)]
pub struct Choice {
    /// In their order, each once.
    pub interfaces: Vec<Interface>,
    pub left_out: Vec<LeftOut>,
}

/// What a policy says and the host does not have, or not as it could be filtered.
#[derive(Debug)]
pub struct LeftOut {
    /// `None` where a glob means none.
    pub interface: Option<String>,
    pub why: InterfaceError,
}

/// The interfaces that a policy's names and globs mean; none is left out.
pub fn choose(
    patterns: &[String],
    present: &[(Interface, Option<u32>)],
) -> Result<Vec<Interface>, InterfaceError> {
    let Choice { interfaces, left_out } = choose_most(patterns, present);
    match left_out.into_iter().next() {
        Some(LeftOut { why, .. }) => Err(why),
        None => Ok(interfaces),
    }
}

/// The interfaces that a policy's names and globs mean, as far as they are there and can be filtered together.
pub fn choose_most(patterns: &[String], present: &[(Interface, Option<u32>)]) -> Choice {
    let mut choice = Choice::default();
    for pattern in patterns {
        match matching(pattern, present) {
            Ok(found) => {
                for interface in found {
                    if !choice
                        .interfaces
                        .iter()
                        .any(|known| known.index == interface.index)
                    {
                        choice.interfaces.push(interface);
                    }
                }
            }
            Err(why) => choice.left_out.push(LeftOut {
                interface: (!is_glob(pattern)).then(|| pattern.clone()),
                why,
            }),
        }
    }
    let count = choice.interfaces.len();
    for interface in choice.interfaces.drain(count.min(INTERFACES_MAX as usize)..) {
        choice.left_out.push(LeftOut {
            interface: Some(interface.name),
            why: InterfaceError::TooMany(count),
        });
    }
    leave_out_stacked(&mut choice, present);
    // A member that the policy names as well is counted by itself.
    let named: Vec<u32> = choice
        .interfaces
        .iter()
        .map(|interface| interface.index)
        .collect();
    for interface in &mut choice.interfaces {
        interface.members.retain(|member| !named.contains(member));
    }
    choice
}

/// What comes in by the upper one is judged at the lower.
fn leave_out_stacked(choice: &mut Choice, present: &[(Interface, Option<u32>)]) {
    for (interface, lower) in present {
        let upper = choice
            .interfaces
            .iter()
            .position(|known| known.index == interface.index);
        let below = choice
            .interfaces
            .iter()
            .find(|known| Some(known.index) == *lower && known.index != interface.index);
        // A veth names its peer as what it is linked to; the two are no stack.
        let peer = present
            .iter()
            .any(|(other, link)| Some(other.index) == *lower && *link == Some(interface.index));
        if let (Some(upper), Some(lower), false) = (upper, below, peer) {
            let lower = lower.name.clone();
            let upper = choice.interfaces.remove(upper).name;
            choice.left_out.push(LeftOut {
                interface: Some(upper.clone()),
                why: InterfaceError::Stacked { upper, lower },
            });
        }
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn matching(pattern: &str, present: &[(Interface, Option<u32>)]) -> Result<Vec<Interface>, InterfaceError> {
    let all = present.iter().map(|(interface, _)| interface);
    if !is_glob(pattern) {
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

    #[test]
    fn what_can_be_filtered_is_chosen_beside_what_is_left_out() {
        let host = present(&[
            ("lo", 1, false, None),
            ("eth0", 2, true, None),
            ("eth0.100", 3, true, Some(2)),
        ]);
        let patterns = ["gone0", "eth*", "wl*"].map(String::from);
        let choice = choose_most(&patterns, &host);
        let chosen: Vec<_> = choice.interfaces.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(chosen, ["eth0"]);
        let left_out: Vec<_> = choice
            .left_out
            .iter()
            .map(|left| left.interface.as_deref())
            .collect();
        assert_eq!(left_out, [Some("gone0"), None, Some("eth0.100")]);

        let many: Vec<(String, u32)> = (1..=66).map(|number| (format!("eth{number}"), number)).collect();
        let many: Vec<_> = many
            .iter()
            .map(|(name, number)| (name.as_str(), *number, true, None))
            .collect();
        let choice = choose_most(&["eth*".to_owned()], &present(&many));
        assert_eq!((choice.interfaces.len(), choice.left_out.len()), (64, 2));
        assert_eq!(choice.left_out[0].interface.as_deref(), Some("eth65"));
    }
}
