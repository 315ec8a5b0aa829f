//! The policies that are measured: a service with an address, grants, one packet limit in force, a way back in; and
//! the same with one feature more or less.

use anyhow::{Result, anyhow};
use filter_common::abi::{RecordHead, names};
use filter_user::compiler::{Compiled, Numbers, Pushed, Surroundings, compile};
use filter_user::kernel;
use filter_user::kernel::load::{Generation, KernelLog, Setting};
use filter_user::kernel::state::State;
use filter_user::policy::model::{Client, Limits, Policy, Source};
use ipnet::IpNet;
use keyfence_tests::subject;
use serde::{Deserialize, Serialize};

use crate::figures::Traffic;

/// Who holds the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Owners {
    /// One client with all of them: one grant that they share.
    Client,
    /// One owner for each, as a binding with one source is.
    Binding,
}

impl Owners {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Owners::Client => "one client",
            Owners::Binding => "an owner each",
        }
    }
}

/// Whether what is dropped has records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    Off,
    On,
}

/// One feature more or less than `Whole`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Feature {
    /// A service with an address, a grant with one packet limit, a management entry; no records of drops.
    Whole,
    /// What is dropped has records, as it has by default.
    Records,
    /// Nothing but a service and a grant.
    Bare,
    NoLimit,
    NoAddress,
    NoManagement,
    /// The grant's limit counts packets, bytes and connections.
    ThreeUnits,
    ServiceLimit,
    SourceLimit,
    /// Said of ICMP alone: must cost nothing here.
    IcmpLimit,
}

impl Feature {
    pub(crate) const ALL: [Feature; 10] = [
        Feature::Whole,
        Feature::Records,
        Feature::Bare,
        Feature::NoLimit,
        Feature::NoAddress,
        Feature::NoManagement,
        Feature::ThreeUnits,
        Feature::ServiceLimit,
        Feature::SourceLimit,
        Feature::IcmpLimit,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Feature::Whole => "whole: address, management, one packet limit",
            Feature::Records => "whole, and records of drops",
            Feature::Bare => "a service and a grant, nothing else",
            Feature::NoLimit => "whole, without the limit",
            Feature::NoAddress => "whole, without the service's address",
            Feature::NoManagement => "whole, without management",
            Feature::ThreeUnits => "whole, packets, bytes and connections limited",
            Feature::ServiceLimit => "whole, and a service limit",
            Feature::SourceLimit => "whole, and a source limit",
            Feature::IcmpLimit => "whole, and an ICMP limit",
        }
    }

    pub(crate) fn records(self) -> Records {
        match self {
            Feature::Records => Records::On,
            _ => Records::Off,
        }
    }

    fn text(self) -> String {
        let without = |feature| self == feature || self == Feature::Bare;
        let mut filter = String::new();
        if without(Feature::NoManagement) {
            filter += "management-none = true\n";
        }
        if self == Feature::SourceLimit {
            filter += &format!("source-limit = {{ {AMPLE} }}\n");
        }
        if self == Feature::IcmpLimit {
            filter += &format!("icmp-limit = {{ {AMPLE} }}\n");
        }
        let address = if without(Feature::NoAddress) {
            ""
        } else {
            "address = [\"203.0.113.10\", \"2001:db8::10\"]\n"
        };
        let service = if self == Feature::ServiceLimit {
            format!("limit = {{ {AMPLE} }}\n")
        } else {
            String::new()
        };
        let grant = match self {
            Feature::NoLimit | Feature::Bare => String::new(),
            Feature::ThreeUnits => {
                let units = ["bytes", "connections"].map(|unit| AMPLE.replace("packets", unit));
                format!("limit = {{ {AMPLE}, {} }}\n", units.join(", "))
            }
            _ => format!("limit = {{ {AMPLE} }}\n"),
        };
        let management = if without(Feature::NoManagement) {
            ""
        } else {
            MANAGEMENT
        };
        format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n{filter}\
             [[service]]\nname = \"{SERVICE}\"\n{address}protocol = \"tcp\"\nports = [443]\n{service}\
             [[client]]\nname = \"c\"\nsources = [\"198.51.100.1\"]\nservices = [\"{SERVICE}\"]\n{grant}{management}"
        )
    }
}

pub(crate) const SERVICE: &str = "api";
/// A limit that is counted and never reached: what every packet of a listed client pays.
const AMPLE: &str = "packets = { rate = \"1G\", burst = \"1G\" }";
/// One that a single packet exhausts for an hour.
const SCANT: &str = "packets = { rate = \"1/h\", burst = 1 }";
const MANAGEMENT: &str = "[[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\n\
     protocol = \"tcp\"\nports = [22]\n";

/// The policy of these sources.
pub(crate) fn policy(feature: Feature, sources: &[IpNet], owners: Owners) -> Result<Policy> {
    let mut policy = parse(&feature.text())?;
    let client = policy.clients.remove(0);
    let source = client.sources[0].clone();
    let of = |net: &IpNet| Source {
        prefix: *net,
        ..source.clone()
    };
    policy.clients = match owners {
        Owners::Client => vec![Client {
            sources: sources.iter().map(of).collect(),
            ..client
        }],
        Owners::Binding => (0..)
            .zip(sources)
            .map(|(number, net): (usize, _)| Client {
                name: format!("c{number}"),
                sources: vec![of(net)],
                ..client.clone()
            })
            .collect(),
    };
    Ok(policy)
}

/// One client whose limit a single packet exhausts.
pub(crate) fn scant(sources: &[IpNet]) -> Result<Policy> {
    let mut policy = policy(Feature::Whole, sources, Owners::Client)?;
    policy.clients[0].limit = scant_limit()?;
    Ok(policy)
}

/// A limit for each source, that a single packet of it exhausts; buckets for twice the sources.
pub(crate) fn scant_sources(sources: &[IpNet]) -> Result<Policy> {
    let mut policy = policy(Feature::Whole, sources, Owners::Client)?;
    policy.filter.source_limit = scant_limit()?;
    policy.filter.source_limit_max = sources.len() as u64 * 2;
    Ok(policy)
}

fn scant_limit() -> Result<Limits> {
    let scant = parse(&Feature::Whole.text().replace(AMPLE, SCANT))?;
    Ok(scant.clients[0].limit)
}

/// Owners of the same sources, all exhausted by one packet but the last.
pub(crate) fn exhausted(owners: usize, sources: &[IpNet]) -> Result<Policy> {
    let mut policy = policy(Feature::Whole, sources, Owners::Client)?;
    let scant = scant_limit()?;
    let last = policy.clients.remove(0);
    policy.clients = (1..=owners)
        .map(|number| Client {
            name: format!("c{number}"),
            limit: if number == owners { last.limit } else { scant },
            ..last.clone()
        })
        .collect();
    Ok(policy)
}

fn parse(text: &str) -> Result<Policy> {
    subject::parse(text).map_err(|faults| anyhow!("the benchmark's own policy has faults:\n{faults}\n{text}"))
}

pub(crate) fn compiled(policy: &Policy) -> Result<Compiled> {
    let pushed = Pushed::default();
    let (numbers, _) = Numbers::default().assign((policy, &pushed), None, u32::MAX);
    let around = Surroundings {
        host_addresses: &[],
        end: &|_| u64::MAX,
        pushed: &pushed,
        grows: None,
    };
    Ok(compile(policy, &numbers, &around)?)
}

/// One generation in the kernel, in force nowhere, and its counters.
pub(crate) struct Loaded {
    pub(crate) generation: Generation,
    pub(crate) state: State,
}

/// The interface that test runs come from: the loopback device.
const INTERFACES: &[u32] = &[1];

impl Loaded {
    pub(crate) fn ours(compiled: &Compiled, records: Records) -> Result<Self> {
        Self::on(compiled, INTERFACES, records)
    }

    pub(crate) fn on(compiled: &Compiled, interfaces: &[u32], records: Records) -> Result<Self> {
        Self::of(Generation::load(compiled, setting(interfaces, records))?)
    }

    /// With the kernel's tries for the sources.
    pub(crate) fn reference(object: &[u8], compiled: &Compiled, records: Records) -> Result<Self> {
        let setting = setting(INTERFACES, records);
        Self::of(Generation::load_reference(object, compiled, setting)?)
    }

    fn of(mut generation: Generation) -> Result<Self> {
        generation.wind(0)?;
        let state = State::of(&generation)?;
        Ok(Self { generation, state })
    }

    /// Has what is dropped recorded in a half of the table that this traffic has for itself: what a flood fills has no
    /// line left for the few.
    pub(crate) fn record_in_half_of(&self, traffic: Traffic) -> Result<()> {
        let head = RecordHead {
            epoch: u64::from(traffic == Traffic::FewStrangers),
            seed: RECORDS_SEED,
            ..RecordHead::default()
        };
        Ok(kernel::fill(self.generation.map(names::RECORD_HEAD)?, &[head])?)
    }
}

/// As random as the daemon's own.
const RECORDS_SEED: u64 = 0x5bf0_3635_dcf6_9d3b;

fn setting(interfaces: &[u32], records: Records) -> Setting<'_> {
    Setting {
        interfaces,
        pins: None,
        owners_max: 1,
        log: KernelLog::Off,
        records: records == Records::On,
    }
}
