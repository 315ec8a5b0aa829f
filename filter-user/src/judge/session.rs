//! What a policy, in force or not, would do to connections that stand and to packets that came lately.
//!
//! By the reference alone. Sockets are not looked at: what would pass only as a reply of one that stands would find no
//! way back in once that is gone.

use std::net::{IpAddr, SocketAddr};

use filter_common::limit::Effect;
use filter_common::parse::{self, Packet};
use filter_common::pipeline;
use filter_common::units::Nanos;
use filter_common::verdict::{Reason, Verdict};
use ipnet::IpNet;

use super::frame::{Flow, build};
use super::in_force::{numbered, part, part_of_packet};
use super::reading::Reader;
use super::{Bench, Names};
use crate::compiler::host::HostTables;
use crate::compiler::{CompileError, Numbers, Pushed};
use crate::kernel::clock::monotonic_end;
use crate::policy::Policy;
use crate::policy::model::ExpectProtocol;

/// A policy, and what would hold beside it.
pub struct Ground<'a> {
    pub policy: &'a Policy,
    /// All that could decide one of the connections.
    pub pushed: &'a Pushed,
    /// What `"host"` means.
    pub host_addresses: &'a [IpNet],
    /// The filter's clock.
    pub now: u64,
    pub wall_offset: i128,
}

/// Why a connection would be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub reason: &'static str,
    /// `3.9 grants`
    pub rule: &'static str,
    pub detail: String,
}

/// Addresses that are looked for in many prefixes.
pub struct Addresses(Vec<IpAddr>);

impl Addresses {
    pub fn of(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut addresses: Vec<IpAddr> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self(addresses)
    }

    /// Whether the prefix holds any of them.
    pub fn any_in(&self, prefix: &IpNet) -> bool {
        let first = self.0.partition_point(|address| *address < prefix.network());
        self.0.get(first).is_some_and(|address| prefix.contains(address))
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub verdict: Verdict,
    pub reason: Reason,
    pub service: Option<String>,
}

impl Ground<'_> {
    /// The tables of a part of the policy, judging now and without effect; and what stands behind their numbers.
    fn tables(&self, part: &Policy) -> Result<(HostTables, Names, Numbers), CompileError> {
        let end = |end| monotonic_end(end, self.wall_offset);
        let mut bench = Bench::new(part, self.host_addresses, &end, self.pushed)?;
        bench.compiled.source_lines = bench.compiled.source_lines.min(1);
        let host = HostTables::new(bench.compiled);
        host.now.set(Nanos(self.now));
        host.effect.set(Effect::Dry);
        Ok((host, bench.names, bench.numbers))
    }

    /// What becomes of each flow's first packet, with full buckets; `None` of one whose ends are of two families.
    pub fn judged<'f>(
        &self,
        flows: impl Iterator<Item = &'f Flow> + Clone,
        observed: &[(Option<String>, u64)],
    ) -> Result<Vec<Option<Said>>, CompileError> {
        let sources = Addresses::of(flows.clone().map(|flow| flow.from.0));
        let part = part(self.policy, |prefix| sources.any_in(prefix));
        let (host, names, numbers) = self.tables(&part)?;
        *host.observed.borrow_mut() = numbered(&numbers, observed);
        let said = |flow: &Flow| {
            let frame = build(flow)?;
            let judgement = pipeline::judge(frame.as_slice(), &host, &mut Packet::default());
            Some(Said {
                verdict: judgement.verdict,
                reason: judgement.reason,
                service: names.service(&judgement).map(str::to_owned),
            })
        };
        Ok(flows.map(said).collect())
    }

    /// `None`: TCP packets from there to here pass.
    pub fn cuts(&self, from: SocketAddr, to: SocketAddr) -> Result<Option<Cut>, CompileError> {
        let flow = Flow {
            from: (from.ip(), from.port()),
            to: (to.ip(), to.port()),
            protocol: ExpectProtocol::Tcp,
        };
        // Two families are no connection.
        let Some(frame) = build(&flow) else {
            return Ok(None);
        };
        let mut packet = Packet::default();
        let kind = parse::parse(frame.as_slice(), &mut packet);
        let part = part_of_packet(self.policy, kind, &packet);
        let (host, names, _) = self.tables(&part)?;
        let judgement = pipeline::judge(frame.as_slice(), &host, &mut Packet::default());
        if judgement.verdict != Verdict::Drop {
            return Ok(None);
        }
        let reader = Reader {
            policy: self.policy,
            pushed: self.pushed,
            names: &names,
            host: &host,
            host_addresses: self.host_addresses,
        };
        // The last says what becomes of a refusal.
        let steps = reader.read(kind, &packet).steps;
        let asked = steps.iter().rev().skip(1).find(|step| step.answer != "not asked");
        Ok(Some(Cut {
            reason: judgement.reason.name(),
            rule: asked.map_or("", |step| step.rule),
            detail: asked.map(|step| step.detail.clone()).unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::policy::{LoadContext, MemoryFiles, load_from};

    fn cut(entries: &str, from: &str, to: &str) -> Option<Cut> {
        let text = format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n\
             [[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [443]\n{entries}"
        );
        let root = PathBuf::from("policy.toml");
        let files = MemoryFiles::new([(root.clone(), text.into_bytes())]);
        let now: jiff::Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let policy = load_from(&files, &root, &LoadContext::at(now)).policy.unwrap();
        let ground = Ground {
            policy: &policy,
            pushed: &Pushed::default(),
            host_addresses: &[],
            now: 1_000_000_000,
            wall_offset: 0,
        };
        ground.cuts(from.parse().unwrap(), to.parse().unwrap()).unwrap()
    }

    const SSH: &str =
        "[[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n";
    const DENY: &str = "[[deny]]\nname = \"d\"\nsources = [\"192.0.2.9\"]\n";

    #[test]
    fn connection_is_cut_where_its_packets_would_be_dropped_and_the_rule_is_named() {
        let both = format!("{SSH}{DENY}");
        assert_eq!(
            cut(&both, "192.0.2.9:50000", "203.0.113.1:22"),
            None,
            "management beats deny"
        );
        let denied = cut(&both, "192.0.2.9:50000", "203.0.113.1:2222").unwrap();
        assert_eq!((denied.reason, denied.rule), ("denied", "3.5 deny"));
        assert_eq!(cut(&both, "192.0.2.8:50000", "203.0.113.1:2222"), None);
        let unlisted = cut(&both, "[2001:db8::8]:50000", "[2001:db8::1]:443").unwrap();
        assert_eq!((unlisted.reason, unlisted.rule), ("unlisted", "3.9 grants"));
        assert!(!unlisted.detail.is_empty());
    }
}
