//! The host's interfaces as the kernel tells them: which are Ethernet, and what holds their XDP hook.

use std::io;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use thiserror::Error;

use super::devices::{is_unwrapping, kind};

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

    /// One program has taken another's place.
    pub fn replace(&mut self, from: u32, to: u32) {
        for id in [&mut self.native, &mut self.generic] {
            if *id == from {
                *id = to;
            }
        }
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

/// All interfaces of this namespace, with what each is stacked on: what comes in by a tunnel is not judged below it.
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
    let mut apart = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::LinkInfo(parts) => apart |= is_unwrapping(&kind(parts)),
            LinkAttribute::Link(index) => lower = Some(*index),
            // Of another namespace: its numbers mean nothing here.
            LinkAttribute::LinkNetNsId(_) => apart = true,
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
        lower.filter(|_| !apart),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_stands_on_nothing_that_judges_what_comes_out_of_it() {
        let below = |kind| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName("upper".to_owned()),
                LinkAttribute::Link(2),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
            ];
            interface(&message).unwrap().1
        };
        assert_eq!(below(InfoKind::Vlan), Some(2));
        assert_eq!(below(InfoKind::Vxlan), None);
        assert_eq!(below(InfoKind::MacSec), None);
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
