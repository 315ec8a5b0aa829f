//! The policy's interfaces: whether they are filtered, how, and what of them is in the way.

use serde_json::{Value, json};

use super::filter::{Held, InForce};
use super::host::{Host, driver};
use super::{Finding, definitions as all};
use crate::kernel::devices::Device;
use crate::kernel::ethtool;
use crate::kernel::interfaces::Interface;
use crate::kernel::page_bytes;
use crate::policy::Policy;
use crate::policy::model::Attach;

/// What a page holds beside a frame: the room in front of it (XDP_PACKET_HEADROOM), and the kernel's account of it
/// behind (struct skb_shared_info, aligned).
const BESIDE_FRAME_BYTES: u32 = 256 + 320;
/// An Ethernet header with two tags.
const HEADER_BYTES: u32 = 14 + 8;

/// Where the filter hangs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Native,
    Generic,
    None,
    /// Another program has the hook.
    Other,
    /// A program has it, and which is not to be seen.
    Unknown,
}

impl Mode {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::None => "none",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }

    fn of(interface: &Interface, in_force: &InForce) -> Self {
        let hook = interface.hook;
        match in_force.entry {
            Some(ours) if hook.native == ours => Self::Native,
            Some(ours) if hook.generic == ours => Self::Generic,
            _ if hook.programs().next().is_none() => Self::None,
            _ if in_force.held == Held::Unseen => Self::Unknown,
            _ => Self::Other,
        }
    }
}

/// One of the policy's interfaces, as it is.
#[derive(Clone, Debug)]
pub struct State {
    pub name: String,
    pub driver: String,
    pub mode: Mode,
    pub mtu: u32,
    pub queues: u32,
}

impl State {
    /// Of all that the policy means and the host has.
    pub fn of_all(policy: &Policy, host: &Host, in_force: &InForce) -> Vec<Self> {
        let chosen = host.choice(policy).interfaces.into_iter();
        chosen
            .filter_map(|interface| {
                let device = host.device(&interface.name)?;
                Some(Self {
                    driver: driver(device),
                    mode: Mode::of(&interface, in_force),
                    mtu: interface.mtu,
                    queues: device.queues,
                    name: interface.name,
                })
            })
            .collect()
    }

    pub fn object(&self) -> Value {
        let (name, driver) = (&self.name, &self.driver);
        let (xdp, mtu, queues) = (self.mode.word(), self.mtu, self.queues);
        json!({"name": name, "driver": driver, "xdp": xdp, "mtu": mtu, "queues": queues})
    }
}

pub(super) fn findings(policy: &Policy, host: &Host, in_force: &InForce) -> Vec<Finding> {
    let choice = host.choice(policy);
    let left_out = choice.left_out.iter();
    let mut found: Vec<Finding> = left_out
        .map(|left| Finding::new(&all::INTERFACE_UNFILTERABLE, left.why.to_string()))
        .collect();
    let filtered = host.filtered(policy);
    for interface in &choice.interfaces {
        let Some(device) = host.device(&interface.name) else {
            continue;
        };
        let mode = Mode::of(interface, in_force);
        found.extend(of_hook(policy, interface, mode, in_force));
        found.extend(of_size(interface, mode));
        found.extend(of_device(device, host));
        found.extend(of_master(device, host, &filtered));
    }
    found
}

fn of_hook(policy: &Policy, interface: &Interface, mode: Mode, in_force: &InForce) -> Option<Finding> {
    let name = &interface.name;
    match mode {
        Mode::Other => {
            let programs = interface.hook.programs();
            let programs: Vec<String> = programs.map(|id| in_force.holder(id, name)).collect();
            let what = format!("{name}: {}", programs.join(", "));
            Some(Finding::new(&all::HOOK_HELD, what))
        }
        Mode::None if in_force.held == Held::Ours => {
            Some(Finding::new(&all::INTERFACE_UNFILTERED, name.clone()))
        }
        Mode::Generic if policy.filter.attach != Attach::Generic => {
            Some(Finding::new(&all::MODE_GENERIC, name.clone()))
        }
        _ => None,
    }
}

/// A driver that has taken the program can do it, however large its frames are.
fn of_size(interface: &Interface, mode: Mode) -> Option<Finding> {
    let most = page_bytes() - BESIDE_FRAME_BYTES - HEADER_BYTES;
    let fits = interface.mtu <= most;
    (!fits && mode != Mode::Native).then(|| {
        let what = format!(
            "{}: its MTU is {}, and {most} fit into a page",
            interface.name, interface.mtu
        );
        Finding::new(&all::MTU_PAGE, what)
    })
}

fn of_device(device: &Device, host: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = &device.name;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if device.hardware && device.queues != 0 && (device.queues as usize) < cpus {
        let what = format!("{name}: receive queues: {}, CPUs: {cpus}", device.queues);
        found.push(Finding::new(&all::QUEUES_FEW, what));
    }
    let mut above = host.devices.iter().filter(|other| other.lower.contains(name));
    let vlan = above.find(|other| other.kind == "vlan");
    // Without hardware tags travel beside the frame all the same, and matter where somebody reads them.
    if (device.hardware || vlan.is_some()) && ethtool::strips_tags(name).unwrap_or(false) {
        let what = match vlan {
            Some(vlan) => format!("{name}, which {} stands on", vlan.name),
            None => name.clone(),
        };
        found.push(Finding::new(&all::TAG_STRIPPED, what));
    }
    if device.kind == "bridge" {
        found.push(Finding::new(&all::BRIDGE_INSIDE, format!("{name} is a bridge")));
    }
    found
}

fn of_master(device: &Device, host: &Host, filtered: &[String]) -> Option<Finding> {
    let master = host.device(device.master.as_ref()?)?;
    if filtered.contains(&master.name) {
        return None;
    }
    let name = &device.name;
    let others: Vec<&str> = master
        .lower
        .iter()
        .filter(|part| !filtered.contains(part))
        .map(String::as_str)
        .collect();
    let is_part = ["bond", "team", "bridge"].contains(&master.kind.as_str());
    match (is_part, others.as_slice()) {
        (false, _) => None,
        (true, []) if master.kind == "bridge" => Some(Finding::new(
            &all::BRIDGE_INSIDE,
            format!("{name} is a port of {}", master.name),
        )),
        (true, []) => None,
        (true, others) => {
            let what = format!(
                "{name} of {} ({}) is filtered, and {} is not",
                master.name,
                master.kind,
                others.join(", ")
            );
            Some(Finding::new(&all::BOND_PARTIAL, what))
        }
    }
}
