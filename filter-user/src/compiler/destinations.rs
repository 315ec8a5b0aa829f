//! Destination addresses to classes, and the management combinations.
//!
//! A class is what all addresses with the same services and management entries share. The kernel finds a
//! service as the one bit that a port's row (see `ports`) and a class' row have in common.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use filter_common::abi::{Class, class_flags};
use filter_common::bounds::MANAGEMENT_MAX;
use ipnet::IpNet;

use super::ports;
use super::rows::Rows;
use super::{CompileError, Key, service_mode};
use crate::policy::model::{self, Addresses, Mode, Policy, PortRange, Protocols};

pub(super) struct Destinations {
    pub addresses: Vec<(Key<16>, u32)>,
    pub classes: Vec<Class>,
    pub ports: Vec<u64>,
    pub port_masks: Vec<u64>,
    /// Whether any entry names addresses at all.
    pub addressed: bool,
}

/// Management entries by what they open: each distinct combination of protocol, ports and address is a bit.
pub(super) struct Management {
    /// For each entry of the policy, its bit.
    pub(super) masks: Vec<u64>,
    pub(super) combinations: Vec<(Protocols, Vec<PortRange>, Addresses)>,
}

impl Management {
    pub(super) fn of(policy: &Policy) -> Result<Self, CompileError> {
        let mut combinations: Vec<(Protocols, Vec<PortRange>, Addresses)> = Vec::new();
        let mut places = Vec::new();
        for entry in &policy.management {
            let wanted = (entry.protocols, entry.ports.clone(), entry.address.clone());
            let place = combinations
                .iter()
                .position(|known| *known == wanted)
                .unwrap_or_else(|| {
                    combinations.push(wanted);
                    combinations.len() - 1
                });
            places.push(place);
        }
        if combinations.len() > MANAGEMENT_MAX as usize {
            return Err(CompileError::TableFull {
                table: "management",
                what: "distinct combinations of protocol, ports and address of management entries",
                needed: combinations.len(),
                max: MANAGEMENT_MAX,
            });
        }
        Ok(Self {
            masks: places.into_iter().map(|place| 1 << place).collect(),
            combinations,
        })
    }
}

/// What is at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    tcp: BTreeSet<u32>,
    udp: BTreeSet<u32>,
    management: u64,
}

impl At {
    fn add_service(&mut self, service: &model::Service, number: u32) {
        if service.protocols.tcp {
            self.tcp.insert(number);
        }
        if service.protocols.udp {
            self.udp.insert(number);
        }
    }

    fn add(&mut self, other: &At) {
        self.tcp.extend(&other.tcp);
        self.udp.extend(&other.udp);
        self.management |= other.management;
    }
}

pub(super) fn build(
    policy: &Policy,
    numbers: &[u32],
    management: &Management,
    rows: &mut Rows,
    host: &[IpNet],
) -> Result<Destinations, CompileError> {
    let ports = ports::build(policy, numbers, management, rows)?;
    let (everywhere, stated) = stated(policy, numbers, management, host);
    let addressed = policy
        .services
        .iter()
        .map(|service| &service.address)
        .any(|a| *a != Addresses::Any)
        || management
            .combinations
            .iter()
            .any(|(_, _, address)| *address != Addresses::Any);

    let observing: BTreeSet<u32> = policy
        .services
        .iter()
        .zip(numbers)
        .filter(|(service, _)| service_mode(policy, service) == Mode::Observe)
        .map(|(_, number)| *number)
        .collect();
    let mut classes = Classes {
        entries: Vec::new(),
        numbers: HashMap::new(),
        observing,
    };
    classes.of(&everywhere, rows);
    let mut addresses = sweep(stated, &everywhere, &mut classes, rows, addressed);
    addresses.sort_unstable();
    refuse_overlap(policy, numbers, rows, &ports.rows, &classes.entries)?;
    Ok(Destinations {
        addresses,
        classes: classes.entries,
        ports: ports.words,
        port_masks: ports.masks,
        addressed,
    })
}

/// By prefix, and apart from that what holds at every address.
type Stated = (At, BTreeMap<(bool, Key<16>), At>);

/// What the policy says of each prefix itself.
fn stated(policy: &Policy, numbers: &[u32], management: &Management, host: &[IpNet]) -> Stated {
    let mut everywhere = At::default();
    let mut stated: BTreeMap<(bool, Key<16>), At> = BTreeMap::new();
    let mut state = |address: &Addresses, what: At| match address {
        Addresses::Any => everywhere.add(&what),
        Addresses::Host => {
            for prefix in host {
                stated.entry(key(prefix)).or_default().add(&what);
            }
        }
        Addresses::Prefixes(prefixes) => {
            for prefix in prefixes {
                stated.entry(key(prefix)).or_default().add(&what);
            }
        }
    };
    for (service, number) in policy.services.iter().zip(numbers) {
        let mut what = At::default();
        what.add_service(service, *number);
        state(&service.address, what);
    }
    for (bit, (_, _, address)) in management.combinations.iter().enumerate() {
        state(
            address,
            At {
                management: 1 << bit,
                ..At::default()
            },
        );
    }
    (everywhere, stated)
}

/// What the policy alone could not show: `"host"` may hold an address that another service names.
fn refuse_overlap(
    policy: &Policy,
    numbers: &[u32],
    rows: &Rows,
    port_rows: &BTreeSet<(u32, bool)>,
    classes: &[Class],
) -> Result<(), CompileError> {
    let name = |wanted: u32| {
        let at = numbers.iter().position(|number| *number == wanted);
        at.map_or_else(|| wanted.to_string(), |at| policy.services[at].name.clone())
    };
    for class in classes {
        for (port_row, udp) in port_rows {
            let row = if *udp { class.udp_row } else { class.tcp_row };
            if let Some((first, second)) = rows.two_common(*port_row, row) {
                return Err(CompileError::Overlap {
                    first: name(first),
                    second: name(second),
                });
            }
        }
    }
    Ok(())
}

/// Sorted IPv4 apart from IPv6: a prefix of one family holds no address of the other.
fn key(prefix: &IpNet) -> (bool, Key<16>) {
    match prefix {
        IpNet::V4(net) => (
            false,
            Key {
                address: net.addr().to_ipv6_mapped().octets(),
                length: net.prefix_len() + 96,
            },
        ),
        IpNet::V6(net) => (
            true,
            Key {
                address: net.addr().octets(),
                length: net.prefix_len(),
            },
        ),
    }
}

/// Gives each stated prefix the class of all that holds there, in one pass with the chain of prefixes around.
fn sweep(
    stated: BTreeMap<(bool, Key<16>), At>,
    everywhere: &At,
    classes: &mut Classes,
    rows: &mut Rows,
    addressed: bool,
) -> Vec<(Key<16>, u32)> {
    let mut entries = Vec::new();
    let mut chain: Vec<((bool, Key<16>), At)> = Vec::new();
    // An IPv6 prefix around ::ffff:0:0/96 says nothing of IPv4: without a prefix of its own, class 0 holds.
    let root = Key {
        address: std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(),
        length: 96,
    };
    if addressed && !stated.contains_key(&(false, root)) {
        entries.push((root, 0));
    }
    for (key, own) in stated {
        while chain
            .last()
            .is_some_and(|(around, _)| around.0 != key.0 || !around.1.holds(&key.1))
        {
            chain.pop();
        }
        let mut at = chain
            .last()
            .map_or_else(|| everywhere.clone(), |(_, at)| at.clone());
        at.add(&own);
        entries.push((key.1, classes.of(&at, rows)));
        chain.push((key, at));
    }
    entries
}

struct Classes {
    entries: Vec<Class>,
    numbers: HashMap<At2, u32>,
    observing: BTreeSet<u32>,
}

type At2 = (Vec<u32>, Vec<u32>, u64);

impl Classes {
    fn of(&mut self, at: &At, rows: &mut Rows) -> u32 {
        let identity = (
            at.tcp.iter().copied().collect(),
            at.udp.iter().copied().collect(),
            at.management,
        );
        if let Some(number) = self.numbers.get(&identity) {
            return *number;
        }
        let any: BTreeSet<u32> = at.tcp.union(&at.udp).copied().collect();
        let mut flags = 0;
        for (services, flag) in [
            (&at.tcp, class_flags::TCP_OBSERVED),
            (&at.udp, class_flags::UDP_OBSERVED),
            (&any, class_flags::ANY_OBSERVED),
        ] {
            if services.is_subset(&self.observing) {
                flags |= flag;
            }
        }
        let class = Class {
            management: at.management,
            tcp_row: rows.of(at.tcp.iter().copied()),
            udp_row: rows.of(at.udp.iter().copied()),
            any_row: rows.of(any.into_iter()),
            flags,
        };
        let number = self.entries.len() as u32;
        self.entries.push(class);
        self.numbers.insert(identity, number);
        number
    }
}
