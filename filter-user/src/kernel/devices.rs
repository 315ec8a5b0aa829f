//! The network devices of this namespace, and how they stand on each other, for who chooses among them.
//!
//! Asks by netlink: /sys/class/net shows the namespace that it was mounted in, whoever reads it.

use rtnetlink::packet_route::link::{LinkAttribute, LinkInfo, LinkMessage};

use super::interfaces::{InterfaceError, links};

/// Devices that give the host packets out of others, as the kernel names their kinds: tunnels, VPNs (a tun is one in user
/// space), encryption, and those whose lower one carries frames with tags that are no VLAN's (dsa, hsr, rmnet).
const UNWRAPPING: [&str; 29] = [
    "amt",
    "bareudp",
    "batadv",
    "dsa",
    "erspan",
    "geneve",
    "gre",
    "gretap",
    "gtp",
    "hsr",
    "ip6erspan",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "l2tp",
    "macsec",
    "openvpn",
    "ovpn",
    "pfcp",
    "ppp",
    "rmnet",
    "sit",
    "tun",
    "vti",
    "vti6",
    "vxlan",
    "wireguard",
    "xfrm",
];
/// ARPHRD_PPP of linux/if_arp.h: links of PPP that name no kind.
const LAYER_PPP: u16 = 512;

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    /// That frames are received by; 0 where it does not say.
    pub queues: u32,
    /// As in linux/if_arp.h.
    pub layer: u16,
    /// As in linux/if.h.
    pub flags: u32,
    /// `vlan`, `bridge`, `bond`, `vrf`, `veth`, …; empty for hardware.
    pub kind: String,
    /// The bridge, bond, team or VRF that it is part of.
    pub master: Option<String>,
    /// The devices that it stands on, or that are part of it.
    pub lower: Vec<String>,
    pub hardware: bool,
}

/// Flags of linux/if.h.
const FLAG_UP: u32 = 0x1;
const FLAG_LOOPBACK: u32 = 0x8;

impl Device {
    pub fn is_up(&self) -> bool {
        self.flags & FLAG_UP != 0
    }

    pub fn is_loopback(&self) -> bool {
        self.flags & FLAG_LOOPBACK != 0
    }

    /// What comes out of it came in inside of other packets, which are all that a filter below it sees.
    pub fn unwraps(&self) -> bool {
        self.layer == LAYER_PPP || is_unwrapping(&self.kind)
    }

    /// A tap, the end of a virtual machine's cable; tuns are no Ethernet.
    pub fn is_tap(&self) -> bool {
        self.kind == "tun"
    }

    /// Its other end is elsewhere.
    pub fn is_paired(&self) -> bool {
        self.kind == "veth" || self.kind == "netkit"
    }
}

/// Whether a device of this kind unwraps.
pub(super) fn is_unwrapping(kind: &str) -> bool {
    UNWRAPPING.contains(&kind)
}

/// All of them, by name.
pub async fn read() -> Result<Vec<Device>, InterfaceError> {
    Ok(devices(&links().await?))
}

fn devices(links: &[LinkMessage]) -> Vec<Device> {
    let mut devices: Vec<Device> = links.iter().filter_map(|link| device(link, links)).collect();
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    devices
}

fn device(link: &LinkMessage, links: &[LinkMessage]) -> Option<Device> {
    let called = |index: u32| name(links.iter().find(|other| other.header.index == index)?);
    let mut device = Device {
        name: name(link)?,
        index: link.header.index,
        layer: u16::from(link.header.link_layer_type),
        flags: link.header.flags.bits(),
        ..Device::default()
    };
    let mut below = None;
    let mut elsewhere = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::Mtu(bytes) => device.mtu = *bytes,
            LinkAttribute::NumRxQueues(queues) => device.queues = *queues,
            // Of another namespace: its numbers mean nothing here.
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Controller(index) => device.master = called(*index),
            LinkAttribute::ParentDevName(_) => device.hardware = true,
            LinkAttribute::LinkInfo(parts) => device.kind = kind(parts),
            _ => {}
        }
    }
    // A veth names its peer as what it is linked to; the two are no stack.
    let below = below.filter(|index| !elsewhere && !device.is_paired() && *index != link.header.index);
    let part = LinkAttribute::Controller(link.header.index);
    let parts = links.iter().filter(|other| other.attributes.contains(&part));
    device.lower = below
        .and_then(called)
        .into_iter()
        .chain(parts.filter_map(name))
        .collect();
    Some(device)
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

pub(super) fn kind(parts: &[LinkInfo]) -> String {
    let mut kinds = parts.iter().filter_map(|part| match part {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    });
    kinds.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::InfoKind;

    use super::*;

    fn link(index: u32, name: &str, attributes: &[LinkAttribute]) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        link.attributes.extend_from_slice(attributes);
        link
    }

    fn of_kind(kind: InfoKind) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
    }

    #[test]
    fn devices_stand_on_each_other_as_their_attributes_say() {
        let hardware = LinkAttribute::ParentDevName("0000:01:00.0".to_owned());
        let found = devices(&[
            link(2, "eth0", &[hardware, LinkAttribute::Controller(3)]),
            link(3, "bond0", &[of_kind(InfoKind::Bond)]),
            link(4, "bond0.7", &[LinkAttribute::Link(3), of_kind(InfoKind::Vlan)]),
            link(5, "veth1", &[LinkAttribute::Link(2), of_kind(InfoKind::Veth)]),
            link(
                6,
                "macvlan0",
                &[
                    LinkAttribute::Link(2),
                    LinkAttribute::LinkNetNsId(0),
                    of_kind(InfoKind::MacVlan),
                ],
            ),
            link(7, "tap0", &[of_kind(InfoKind::Tun)]),
        ]);
        let told: Vec<_> = found
            .iter()
            .map(|device| (device.name.as_str(), device.kind.as_str(), device.lower.join(" ")))
            .collect();
        let told: Vec<_> = told
            .iter()
            .map(|(name, kind, lower)| (*name, *kind, lower.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("bond0", "bond", "eth0"),
                ("bond0.7", "vlan", "bond0"),
                ("eth0", "", ""),
                ("macvlan0", "macvlan", ""),
                ("tap0", "tun", ""),
                ("veth1", "veth", ""),
            ]
        );
        let eth0 = &found[2];
        assert!(eth0.hardware && !found[0].hardware);
        assert_eq!(eth0.master.as_deref(), Some("bond0"));
        assert!(found[4].is_tap() && found[5].is_paired());
    }
}
