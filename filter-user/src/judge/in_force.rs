//! One packet explained by what is in force: the live policy, bindings, denies and bucket levels.
//!
//! The engine gathers it beside the kernel program's own verdict; here the reference judges by that alone, and the rules
//! are read aloud. Only what could decide the packet is compiled, however much is in force.

use std::net::IpAddr;
use std::sync::Arc;

use filter_common::abi::{EVERYTHING, ICMP_ANSWERS, ICMP_REQUESTS};
use filter_common::limit::Effect;
use filter_common::parse::{self, Frame, Packet};
use filter_common::pipeline;
use filter_common::units::Nanos;
use filter_common::verdict::Judgement;
use ipnet::IpNet;
use serde_json::Value;

use super::reading::{Reader, address};
use super::told::{Explained, Interface, Said};
use super::{Bench, Names};
use crate::compiler::host::HostTables;
use crate::compiler::{CompileError, Numbers, Pushed, owner_name};
use crate::kernel::clock::monotonic_end;
use crate::policy::Policy;
use crate::policy::model::{Client, Deny, Source};

/// What is asked of the engine.
#[derive(Clone, Debug)]
pub struct Question {
    pub frame: Vec<u8>,
    /// Of the policy that `owners` was made from.
    pub epoch: u64,
    /// Whoever holds the packet's source.
    pub owners: Vec<String>,
    /// By which way the kernel's program is asked.
    pub by: By,
}

/// Ways to the kernel's program in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The engine's own.
    Judge,
    /// As packets come to it: by the pinned program and whatever that goes on to.
    Entry,
    /// The same, and all who hold the source are looked for, however many there are.
    EntryOfAll,
}

/// What of all that is in force could decide the packet, at one moment.
pub struct InForce {
    /// As it was compiled.
    pub policy: Arc<Policy>,
    pub pushed: Pushed,
    /// What `"host"` means.
    pub host_addresses: Vec<IpNet>,
    pub generation: u64,
    /// The filter's clock.
    pub now: u64,
    pub wall_offset: i128,
    pub levels: Levels,
    /// Of the numbers in the kernel's judgement.
    pub names: Names,
    /// `Err` is why it was not asked.
    pub kernel: Result<Judgement, String>,
}

/// The buckets' words, by names: packets, bytes, connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    pub owners: Vec<(String, [u64; 3])>,
    pub services: Vec<(String, [u64; 3])>,
    pub publishers: Vec<(String, [u64; 3])>,
    /// Of answers and of requests.
    pub icmp: [[u64; 3]; 2],
    /// The lines of the source's own buckets, for each unit; empty without such a limit.
    pub source: Vec<[u64; 8]>,
    /// Services that are observed for a while, `None` for everything, and until when.
    pub observed: Vec<(Option<String>, u64)>,
}

/// The frame's source; `None` where it is no IP packet.
pub fn source_of(frame: &[u8]) -> Option<IpAddr> {
    let mut packet = Packet::default();
    match parse::parse(frame, &mut packet) {
        Frame::Ip => Some(address(&packet.source)),
        _ => None,
    }
}

/// Which of the policy's clients hold a source, as owners.
pub fn holders(policy: &Policy, source: IpAddr) -> Vec<String> {
    let holds = |client: &&Client| client.sources.iter().any(|entry| entry.prefix.contains(&source));
    let holders = policy.clients.iter().filter(holds);
    holders.map(|client| owner_name(&client.name)).collect()
}

/// The answer to a question, as `GET /v1/explain` gives it.
pub fn explain(frame: &[u8], interface: Option<&str>, in_force: &InForce) -> Result<Value, CompileError> {
    let mut object = explained(frame, interface, in_force)?.object();
    object["generation"] = in_force.generation.into();
    Ok(object)
}

/// The rules read aloud, what the reference says by what is in force, and what the kernel's program said.
pub fn explained<'a>(
    frame: &'a [u8],
    interface: Option<&str>,
    in_force: &InForce,
) -> Result<Explained<'a>, CompileError> {
    let mut packet = Packet::default();
    let kind = parse::parse(frame, &mut packet);
    let part = part_of_packet(&in_force.policy, kind, &packet);
    let end = |end| monotonic_end(end, in_force.wall_offset);
    let mut bench = Bench::new(&part, &in_force.host_addresses, &end, &in_force.pushed)?;
    // One line a unit, which is the source's.
    bench.compiled.source_lines = bench.compiled.source_lines.min(1);
    let host = HostTables::new(bench.compiled);
    host.now.set(Nanos(in_force.now));
    host.effect.set(Effect::Dry);
    fill(&host, &bench.numbers, &in_force.levels);
    let reference = pipeline::judge(frame, &host, &mut Packet::default());
    let reader = Reader {
        policy: &in_force.policy,
        pushed: &in_force.pushed,
        names: &bench.names,
        host: &host,
        host_addresses: &in_force.host_addresses,
    };
    Ok(Explained {
        frame,
        kind,
        packet,
        interface: Interface::of(&in_force.policy, interface),
        reading: reader.read(kind, &packet),
        reference: Said::of(&reference, &bench.names),
        kernel: match &in_force.kernel {
            Ok(judgement) => Ok(Said::of(judgement, &in_force.names)),
            Err(why) => Err(why.clone()),
        },
    })
}

/// The policy with those sources alone that hold the packet's.
pub(super) fn part_of_packet(policy: &Policy, kind: Frame, packet: &Packet) -> Policy {
    let source = address(&packet.source);
    part(policy, |prefix| kind == Frame::Ip && prefix.contains(&source))
}

/// The policy with those sources alone that could decide what is asked.
pub(super) fn part(policy: &Policy, holds: impl Fn(&IpNet) -> bool) -> Policy {
    let holding = |sources: &[Source]| -> Vec<Source> {
        let holding = sources.iter().filter(|entry| holds(&entry.prefix));
        holding.cloned().collect()
    };
    let clients = policy.clients.iter().filter_map(|client| {
        let sources = holding(&client.sources);
        (!sources.is_empty()).then(|| Client {
            sources,
            name: client.name.clone(),
            source_ports: client.source_ports.clone(),
            services: client.services.clone(),
            credentials: Vec::new(),
            limit: client.limit,
            expires: client.expires,
            enabled: client.enabled,
            remarks: client.remarks.clone(),
            origin: client.origin.clone(),
        })
    });
    let denies = policy.denies.iter().map(|deny| Deny {
        sources: holding(&deny.sources),
        name: deny.name.clone(),
        remarks: deny.remarks.clone(),
        origin: deny.origin.clone(),
    });
    Policy {
        clients: clients.collect(),
        denies: denies.filter(|deny| !deny.sources.is_empty()).collect(),
        filter: policy.filter.clone(),
        services: policy.services.clone(),
        management: policy.management.clone(),
        publishers: policy.publishers.clone(),
        expects: Vec::new(),
        daemon: policy.daemon.clone(),
        listeners: policy.listeners.clone(),
        credentials: policy.credentials.clone(),
        authorize: policy.authorize.clone(),
        records: policy.records.clone(),
        sinks: policy.sinks.clone(),
    }
}

/// What is observed for a while, by the services' numbers.
pub(super) fn numbered(numbers: &Numbers, observed: &[(Option<String>, u64)]) -> Vec<(u32, u64)> {
    let number = |name: &Option<String>| match name {
        None => Some(EVERYTHING),
        Some(name) => numbers.service(name),
    };
    let observed = observed.iter();
    observed
        .filter_map(|(name, until)| Some((number(name)?, *until)))
        .collect()
}

fn fill(host: &HostTables, numbers: &Numbers, levels: &Levels) {
    for (name, words) in &levels.owners {
        if let Some(number) = numbers.owner(name) {
            host.set_owner_words(number, *words);
        }
    }
    let services = levels.services.iter();
    let services = services.filter_map(|(name, words)| Some((numbers.service(name)?, *words)));
    let publishers = levels.publishers.iter();
    let publishers = publishers.filter_map(|(name, words)| Some((numbers.publisher(name)?, *words)));
    let icmp = [ICMP_ANSWERS, ICMP_REQUESTS].into_iter().zip(levels.icmp);
    for (number, words) in services.chain(publishers).chain(icmp) {
        host.set_shared_words(number, words);
    }
    *host.observed.borrow_mut() = numbered(numbers, &levels.observed);
    for (line, words) in (0..).zip(&levels.source) {
        host.set_source_line(line, *words);
    }
}
