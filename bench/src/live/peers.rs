//! The filters that are measured side by side, each set up as its own manual has it, at its fastest place.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::ProgramArray;
use filter_common::abi::names;
use filter_common::verdict::{Reason, Verdict};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ground::{DEVICE, Pair};
use crate::drive::{self, xdp};
use crate::figures::Traffic;
use crate::scenario::{self, Feature, Loaded, Owners, Records};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// An XDP program that drops and does nothing else: the floor.
    XdpDrop,
    /// One that passes: the floor of what goes on to the stack.
    XdpPass,
    /// No filter at all.
    Stack,
    /// One packet limit, in force and not reached. All of these without records of what is dropped, but where said.
    Keyfence,
    /// With records of what is dropped, as it is by default: a flood to them.
    KeyfenceRecords,
    /// The same, exhausted: a hit whose packets end in the filter, as in those below.
    KeyfenceExhausted,
    KeyfenceExhaustedRecords,
    /// A limit for each source, exhausted.
    KeyfenceSources,
    NftSet,
    /// A set, and one limit for all.
    NftLimit,
    NftLimitExhausted,
    /// A set, and a limit for each source.
    NftMeter,
    NftMeterExhausted,
    Ipset,
    /// A set, and a limit for each source.
    IpsetHashlimit,
    IpsetHashlimitExhausted,
    /// With eight addresses: it takes them one a call.
    XdpFilter,
}

impl Peer {
    pub(crate) const ALL: [Peer; 17] = [
        Peer::XdpDrop,
        Peer::XdpPass,
        Peer::Stack,
        Peer::Keyfence,
        Peer::KeyfenceRecords,
        Peer::KeyfenceExhausted,
        Peer::KeyfenceExhaustedRecords,
        Peer::KeyfenceSources,
        Peer::NftSet,
        Peer::NftLimit,
        Peer::NftLimitExhausted,
        Peer::NftMeter,
        Peer::NftMeterExhausted,
        Peer::Ipset,
        Peer::IpsetHashlimit,
        Peer::IpsetHashlimitExhausted,
        Peer::XdpFilter,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::XdpDrop => "empty XDP drop",
            Peer::XdpPass => "empty XDP pass",
            Peer::Stack => "no filter",
            Peer::Keyfence => "Keyfence, one limit",
            Peer::KeyfenceRecords => "Keyfence, one limit, records of drops",
            Peer::KeyfenceExhausted => "Keyfence, limit exhausted",
            Peer::KeyfenceExhaustedRecords => "Keyfence, limit exhausted, records of drops",
            Peer::KeyfenceSources => "Keyfence, source limit exhausted",
            Peer::NftSet => "nft set",
            Peer::NftLimit => "nft set, limit",
            Peer::NftLimitExhausted => "nft set, limit exhausted",
            Peer::NftMeter => "nft set, meter",
            Peer::NftMeterExhausted => "nft set, meter exhausted",
            Peer::Ipset => "iptables, ipset",
            Peer::IpsetHashlimit => "iptables, ipset, hashlimit",
            Peer::IpsetHashlimitExhausted => "iptables, ipset, hashlimit exhausted",
            Peer::XdpFilter => "xdp-filter, 8 addresses",
        }
    }

    pub(crate) fn meets(self, traffic: Traffic) -> bool {
        match self {
            Peer::XdpDrop | Peer::XdpFilter | Peer::KeyfenceRecords => traffic == Traffic::Stranger,
            Peer::Keyfence | Peer::NftSet | Peer::Ipset => true,
            _ => traffic == Traffic::Hit,
        }
    }
}

/// A peer at work; what it holds keeps it there.
pub(crate) struct AtWork {
    pub(crate) peer: Peer,
    pub(crate) pair: Pair,
    pub(crate) keyfence: Option<Box<Loaded>>,
    _programs: Option<Ebpf>,
}

/// As ours: one that no measurement reaches, or one that the first packet exhausts.
fn rate(peer: Peer) -> &'static str {
    match peer {
        Peer::NftLimitExhausted | Peer::NftMeterExhausted => "rate 1/hour burst 1 packets",
        _ => "rate 1000000000/second burst 1000000 packets",
    }
}

impl AtWork {
    pub(crate) fn start(peer: Peer, pair: Pair, sources: &[IpNet], object: &[u8]) -> Result<Self> {
        let mut programs = None;
        let mut keyfence = None;
        match peer {
            Peer::XdpDrop | Peer::XdpPass => {
                let mut ebpf = drive::load(object, &[[0; 4]], 0)?;
                let name = if peer == Peer::XdpDrop { "empty" } else { "pass" };
                let program = xdp(&mut ebpf, name)?;
                program.load()?;
                pair.attach(program)?;
                programs = Some(ebpf);
            }
            Peer::Stack => {}
            Peer::Keyfence
            | Peer::KeyfenceRecords
            | Peer::KeyfenceExhausted
            | Peer::KeyfenceExhaustedRecords
            | Peer::KeyfenceSources => {
                keyfence = Some(Box::new(start_keyfence(peer, &pair, sources)?));
            }
            Peer::NftSet => pair.load_rules(&nft(sources, "", "ip saddr @listed accept"))?,
            Peer::NftLimit | Peer::NftLimitExhausted => {
                let rule = format!("ip saddr @listed limit {} accept", rate(peer));
                pair.load_rules(&nft(sources, "", &rule))?;
            }
            Peer::NftMeter | Peer::NftMeterExhausted => {
                let meters = format!(
                    "set meters {{ type ipv4_addr; size {}; flags dynamic; }}",
                    room(sources)
                );
                let limit = rate(peer);
                let rule = format!("ip saddr @listed update @meters {{ ip saddr limit {limit} }} accept");
                pair.load_rules(&nft(sources, &meters, &rule))?;
            }
            Peer::Ipset | Peer::IpsetHashlimit | Peer::IpsetHashlimitExhausted => {
                start_iptables(peer, &pair, sources)?;
            }
            Peer::XdpFilter => start_xdp_filter(&pair, sources)?,
        }
        Ok(Self {
            peer,
            pair,
            keyfence,
            _programs: programs,
        })
    }

    /// What Keyfence must say of each packet.
    pub(crate) fn expected(&self, traffic: Traffic) -> Option<(Verdict, Reason)> {
        match (self.peer, traffic) {
            (Peer::Keyfence, Traffic::Hit) => Some((Verdict::Pass, Reason::Allowed)),
            (Peer::Keyfence | Peer::KeyfenceRecords, Traffic::Stranger) => {
                Some((Verdict::Drop, Reason::Unlisted))
            }
            (Peer::KeyfenceSources, _) => Some((Verdict::Drop, Reason::LimitSource)),
            (Peer::KeyfenceExhausted | Peer::KeyfenceExhaustedRecords, _) => {
                Some((Verdict::Drop, Reason::LimitGrant))
            }
            _ => None,
        }
    }
}

/// Sets sized for twice their sources.
fn room(sources: &[IpNet]) -> usize {
    sources.len() * 2
}

fn start_keyfence(peer: Peer, pair: &Pair, sources: &[IpNet]) -> Result<Loaded> {
    let policy = match peer {
        Peer::KeyfenceExhausted | Peer::KeyfenceExhaustedRecords => scenario::scant(sources)?,
        Peer::KeyfenceSources => scenario::scant_sources(sources)?,
        _ => scenario::policy(Feature::Whole, sources, Owners::Client)?,
    };
    let records = match peer {
        Peer::KeyfenceRecords | Peer::KeyfenceExhaustedRecords => Records::On,
        _ => Records::Off,
    };
    let compiled = scenario::compiled(&policy)?;
    let index = pair.inside.inside(|| nix::net::if_::if_nametoindex(DEVICE))?;
    let mut loaded = Loaded::on(&compiled, &[index], records)?;
    let judge = loaded.generation.program(names::JUDGE)?.fd()?.try_clone()?;
    let slots = loaded.generation.ebpf.map_mut(names::GENERATION);
    let mut slot: ProgramArray<_> = slots.context("no map GENERATION")?.try_into()?;
    slot.set(0, &judge, 0)?;
    let entry = loaded.generation.program(names::ENTRY)?;
    entry.load()?;
    pair.attach(entry)?;
    Ok(loaded)
}

/// A netdev table at the device's ingress: before the IP stack, where nft is fastest.
fn nft(sources: &[IpNet], more: &str, rule: &str) -> String {
    let mut text = format!(
        "table netdev bench {{\n{more}\nset listed {{ type ipv4_addr; size {}; elements = {{\n",
        room(sources)
    );
    for net in sources {
        // Writing to a string cannot fail.
        _ = writeln!(text, "{},", net.addr());
    }
    _ = write!(
        text,
        "}}\n}}\nchain in {{ type filter hook ingress device \"{DEVICE}\" priority 0; policy drop; {rule}\n}}\n}}\n"
    );
    text
}

fn start_iptables(peer: Peer, pair: &Pair, sources: &[IpNet]) -> Result<()> {
    let mut text = format!(
        "create listed hash:ip hashsize {} maxelem {}\n",
        sources.len().next_power_of_two(),
        room(sources)
    );
    for net in sources {
        _ = writeln!(text, "add listed {}", net.addr());
    }
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, text)?;
    pair.run("ipset", &["restore", "-file", &file.path().display().to_string()])?;
    let mut rule = "-t raw -A PREROUTING -m set --match-set listed src".to_owned();
    if peer != Peer::Ipset {
        let upto = match peer {
            Peer::IpsetHashlimitExhausted => "1/hour --hashlimit-burst 1",
            _ => "1000000/second --hashlimit-burst 1000000",
        };
        _ = write!(
            rule,
            " -m hashlimit --hashlimit-upto {upto} --hashlimit-mode srcip --hashlimit-htable-expire 3600000 \
             --hashlimit-name bench --hashlimit-htable-size {} --hashlimit-htable-max {}",
            sources.len().next_power_of_two(),
            room(sources)
        );
    }
    let accept = format!("{rule} -j ACCEPT");
    for words in [accept.as_str(), "-t raw -A PREROUTING -j DROP"] {
        pair.run("iptables", &words.split_whitespace().collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Its maps are pinned while it is set up: in a mount of its own, gone with the shell.
fn start_xdp_filter(pair: &Pair, sources: &[IpNet]) -> Result<()> {
    let mut script =
        format!("mount -t bpf bpf /sys/fs/bpf && xdp-filter load -p deny -m native -f ipv4 {DEVICE}");
    for net in sources.iter().take(8) {
        _ = write!(script, " && xdp-filter ip -m src {}", net.addr());
    }
    pair.run("unshare", &["--mount", "sh", "-c", &script])
}
