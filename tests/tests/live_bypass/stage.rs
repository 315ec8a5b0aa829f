//! Tries ways past the filter: what Linux alone does with the frames is held to what is written of it, then the
//! filter's judgement of a stranger's and of a listed client's, and what of them has reached the host.
//!
//! After the frames of a way comes a marker on the same wire and CPU: when it has arrived, they have been dealt with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Daemon, GREEDY, INSIDE_MAC, LISTED, Label, OUTSIDE_MAC, Party, Policy, STRANGER, Site, Wire,
};
use keyfence_tests::oracle::frames::{Carrier, Frame};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::host::{Host, Reached};
use crate::sender::{DATA, PORT, Sender};

/// What Linux does with the frames of a way while nothing filters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Linux {
    /// Nothing of them reaches a socket, and nothing is answered.
    Ignores,
    /// A socket at the service's port gets a datagram with the sender's data.
    Delivers,
    /// Such a socket gets these data.
    DeliversData(&'static [u8]),
    /// Such a socket gets the sender's data, as if they came from here.
    DeliversAs(IpAddr),
    /// The listening socket at the service's port begins a connection.
    Opens,
    /// It answers a ping.
    Answers,
    /// The memory of reassembly takes them; they wait there.
    Keeps,
}

/// Service, verdict and reason of one frame.
pub(crate) type Judged = (&'static str, Verdict, Reason);

pub(crate) const ALLOWED: Judged = ("api", Verdict::Pass, Reason::Allowed);
pub(crate) const UNLISTED: Judged = ("api", Verdict::Drop, Reason::Unlisted);
pub(crate) const MALFORMED: Judged = ("", Verdict::Drop, Reason::Malformed);
pub(crate) const OTHER: Judged = ("", Verdict::Drop, Reason::Other);
pub(crate) const OTHER_PASSED: Judged = ("", Verdict::Pass, Reason::Other);
pub(crate) const NON_IP: Judged = ("", Verdict::Drop, Reason::NonIp);
pub(crate) const ICMP: Judged = ("", Verdict::Drop, Reason::Icmp);
pub(crate) const ICMP_PASSED: Judged = ("", Verdict::Pass, Reason::Icmp);
pub(crate) const FRAGMENT: Judged = ("", Verdict::Drop, Reason::Fragment);
pub(crate) const FRAGMENT_PASSED: Judged = ("", Verdict::Pass, Reason::Fragment);

/// A way past a port filter.
pub(crate) struct Way {
    /// What it tries.
    name: &'static str,
    frames: fn(&Sender) -> Vec<Frame>,
    linux: Linux,
    /// Of each frame, sent by a stranger.
    stranger: &'static [Judged],
    /// Of each frame, sent by a listed client.
    listed: &'static [Judged],
}

pub(crate) const fn way(
    name: &'static str,
    linux: Linux,
    frames: fn(&Sender) -> Vec<Frame>,
    stranger: &'static [Judged],
    listed: &'static [Judged],
) -> Way {
    Way {
        name,
        frames,
        linux,
        stranger,
        listed,
    }
}

/// The service, its clients, and one more to send markers; `address` is the service's line for it, if it has one.
pub(crate) fn policy(attach: Attach, address: &str, filter: &str) -> Policy {
    let entries = format!(
        "[[service]]\nname = \"api\"\nprotocol = [\"tcp\", \"udp\"]\nports = [{PORT}]\n{address}\n\
         [[client]]\nname = \"listed\"\nsources = [\"{}\", \"{}\"]\nservices = [\"*\"]\n\
         [[client]]\nname = \"marker\"\nsources = [\"{}\", \"{}\"]\nservices = [\"*\"]\n",
        LISTED.v4, LISTED.v6, GREEDY.v4, GREEDY.v6
    );
    Policy::new(attach, &entries).filter(&format!("management-none = true\nmode = \"enforce\"\n{filter}"))
}

/// The service at one address of each family.
pub(crate) const ONE_ADDRESS: &str = "address = [\"10.77.0.1\", \"fd77::1\"]";
/// All dropped that may be, but fragments and pings of listed sources.
pub(crate) const CLOSED: &str = "other-traffic = \"drop\"\nother-address = \"drop\"\nnon-ip = \"drop\"\nping = \"listed\"\n\
                          fragments = \"listed\"";
/// All passed that may be, with the same exceptions.
pub(crate) const OPEN: &str = "other-traffic = \"pass\"\nother-address = \"pass\"\nnon-ip = \"pass\"\nping = \"listed\"\n\
                        fragments = \"listed\"";

/// Tries the ways without the filter and with it, natively and generically attached, on hosts that `prepare` has
/// made ready.
pub(crate) fn try_ways(ways: &[Way], address: &str, filter: &str, prepare: fn(&Site)) {
    let mut faults = String::new();
    for attach in [Attach::Native, Attach::Generic] {
        let mut stage = Stage::new(prepare);
        for way in ways {
            stage.without_filter(way, &mut faults);
        }
        let daemon = Daemon::start(&stage.site, &policy(attach, address, filter));
        for way in ways {
            stage.with_filter(way, attach, &daemon, &mut faults);
        }
        // The daemon's own counts are those that another program reads.
        let counters = stage.site.counters().0.into_iter();
        let counters: Packets = counters.map(|(label, tally)| (label, tally.packets)).collect();
        assert_eq!(packets(&daemon), counters);
    }
    assert!(faults.is_empty(), "\n{faults}");
}

struct Stage {
    site: Site,
    host: Host,
    wire: Wire,
    /// Of senders so far; each has a port of its own.
    senders: u16,
}

impl Stage {
    fn new(prepare: fn(&Site)) -> Self {
        // Linux keeps the order of frames of one sending CPU.
        let mut here = CpuSet::new();
        here.set(0).expect("there is a first CPU");
        sched_setaffinity(Pid::from_raw(0), &here).expect("a test may stay on the first CPU");
        let site = Site::raw();
        prepare(&site);
        Self {
            host: Host::open(&site.server),
            wire: Wire::open(&site),
            site,
            senders: 0,
        }
    }

    fn sender(&mut self, party: Party) -> Sender {
        self.senders += 1;
        Sender::new(party, 40_000 + self.senders)
    }

    /// Sends the frames of a way, then a marker; what has reached the host when that has.
    fn send(&mut self, way: &Way, sender: &Sender) -> Reached {
        let marker = self.sender(GREEDY);
        let before = self.host.counted(&self.site.server, sender.port);
        for frame in (way.frames)(sender) {
            self.wire.send(&on_this_wire(frame));
        }
        for frame in [marker.udp4().frame(), marker.udp6().frame()] {
            self.wire.send(&on_this_wire(frame));
        }
        let datagrams = self.host.until_from(marker.addresses(), way.name);
        let after = self.host.counted(&self.site.server, sender.port);
        Reached {
            datagrams: datagrams
                .into_iter()
                .map(|(peer, data)| (sender.another(peer), data))
                .collect(),
            ..after.since(&before)
        }
    }

    fn without_filter(&mut self, way: &Way, faults: &mut String) {
        for party in [STRANGER, LISTED] {
            let sender = self.sender(party);
            let reached = self.send(way, &sender);
            let expected = expected(way.linux, &sender);
            let kept = reached.fragments > 0 || !matches!(way.linux, Linux::Keeps);
            if reached.but_fragments() != expected || !kept {
                let found = format!("Linux alone should reach {expected:?}, found {reached:?}");
                report(faults, way, &sender, &found);
            }
        }
    }

    fn with_filter(&mut self, way: &Way, attach: Attach, daemon: &Daemon, faults: &mut String) {
        for (party, judged) in [(STRANGER, way.stranger), (LISTED, way.listed)] {
            let sender = self.sender(party);
            let before = packets(daemon);
            let reached = self.send(way, &sender);
            let counted = since(packets(daemon), &before);
            let mut labels = Packets::from([(label(&ALLOWED), 2)]);
            for judged in judged {
                *labels.entry(label(judged)).or_default() += 1;
            }
            let passing = judged.iter().filter(|(_, verdict, _)| *verdict == Verdict::Pass);
            let passing = passing.count();
            // The filter changes nothing: what passes whole meets what Linux does with it.
            let arrives = match passing == judged.len() {
                true => expected(way.linux, &sender),
                false => Reached::default(),
            };
            let reassembled = reached.fragments <= passing as u64;
            let kept = reached.fragments > 0 || passing == 0 || !matches!(way.linux, Linux::Keeps);
            if counted != labels || reached.but_fragments() != arrives || !reassembled || !kept {
                let attach = attach.name();
                let found = format!(
                    "{attach}: should count {labels:?} and reach {arrives:?}, found {counted:?} and {reached:?}"
                );
                report(faults, way, &sender, &found);
            }
        }
    }
}

fn report(faults: &mut String, way: &Way, sender: &Sender, found: &str) {
    let frames = (way.frames)(sender).into_iter().map(|frame| {
        let bytes = on_this_wire(frame).into_iter();
        bytes.map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    let frames: Vec<String> = frames.collect();
    let _ = writeln!(
        faults,
        "{} (of {}): {found}\n  {}",
        way.name,
        sender.v4,
        frames.join("\n  ")
    );
}

/// What has reached the host where Linux deals with all the frames of a way.
fn expected(linux: Linux, sender: &Sender) -> Reached {
    let datagram = |peer: Option<IpAddr>, data: &[u8]| Reached {
        datagrams: vec![(peer, data.to_vec())],
        ..Reached::default()
    };
    match linux {
        Linux::Ignores | Linux::Keeps => Reached::default(),
        Linux::Delivers => datagram(None, DATA),
        Linux::DeliversData(data) => datagram(None, data),
        Linux::DeliversAs(peer) => datagram(sender.another(peer), DATA),
        Linux::Opens => Reached {
            connections: 1,
            ..Reached::default()
        },
        Linux::Answers => Reached {
            echoes: 1,
            ..Reached::default()
        },
    }
}

fn label((service, verdict, reason): &Judged) -> Label {
    Label::new(service, *verdict, *reason)
}

type Packets = BTreeMap<Label, u64>;

/// What the daemon has counted so far, from its metrics: dumping the maps takes half a second.
fn packets(daemon: &Daemon) -> Packets {
    let page = daemon.scrape();
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("keyfence_packets_total{"));
    let sample = |line: &str| {
        let (labels, value) = line.split_once("} ")?;
        let of = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0)
        };
        let (verdict, reason) = (of("verdict")?, of("reason")?);
        let verdict = Verdict::ALL.into_iter().find(|one| one.name() == verdict)?;
        let reason = Reason::ALL.into_iter().find(|one| one.name() == reason)?;
        Some((Label::new(of("service")?, verdict, reason), value.parse().ok()?))
    };
    let samples = lines.map(|line| sample(line).unwrap_or_else(|| panic!("{line} is no count of packets")));
    samples.filter(|(_, packets)| *packets > 0).collect()
}

fn since(now: Packets, before: &Packets) -> Packets {
    let differ = |(label, now): (Label, u64)| {
        let more = now - before.get(&label).copied().unwrap_or_default();
        (more > 0).then_some((label, more))
    };
    now.into_iter().filter_map(differ).collect()
}

/// With the addresses of this wire, where the frame has no destination of its own.
fn on_this_wire(frame: Frame) -> Vec<u8> {
    let destination = match frame.destination {
        unset if unset == Frame::new(0, []).destination => INSIDE_MAC,
        own => own,
    };
    let frame = Frame {
        destination,
        source: OUTSIDE_MAC,
        ..frame
    };
    frame.bytes()
}
