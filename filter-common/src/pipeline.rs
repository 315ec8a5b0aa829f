//! The decision: the rules of SPEC 3 in their order, the first that decides ends it.
//!
//! parse -> classify -> limit -> verdict -> account. One function for the kernel and the host.

use crate::abi::{Class, Source, class_flags, service_flags, source_flags};
use crate::account;
use crate::charge::{Charge, first_to_pay};
use crate::classify::{self, Grants, Icmp, Query};
use crate::limit::Effect;
use crate::lookup::{Config, Tables, config_flags, port_index};
use crate::parse::{self, Fragment, Frame, Packet, PacketBytes, Protocol};
use crate::verdict::{Judgement, NO_OWNER, NO_SERVICE, Reason, Verdict};

/// Judges one frame and counts it; `packet` is left as far as it could be read.
#[inline(always)]
pub fn judge<F: PacketBytes + ?Sized, T: Tables>(frame: &F, tables: &T, packet: &mut Packet) -> Judgement {
    let judgement = decide(frame, tables, packet);
    if matches!(tables.effect(), Effect::Commit) {
        account::account(tables, &judgement);
    }
    judgement
}

#[inline(always)]
fn decide<F: PacketBytes + ?Sized, T: Tables>(frame: &F, tables: &T, packet: &mut Packet) -> Judgement {
    let config = tables.config();
    *packet = Packet::default();
    let (outcome, bytes) = match parse::parse(frame, packet) {
        Frame::Ip => (tables.ip(packet), packet.length),
        Frame::LinkControl => (Outcome::pass(Reason::Essential), frame.length()),
        Frame::NonIp => (
            by(config, config_flags::NON_IP_DROP, Reason::NonIp),
            frame.length(),
        ),
        Frame::Malformed => (Outcome::drop(config, Reason::Malformed), frame.length()),
    };
    let Outcome {
        verdict,
        reason,
        service,
        owner,
    } = outcome;
    Judgement {
        verdict,
        reason,
        service,
        owner,
        bytes,
    }
}

/// A verdict in the making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub reason: Reason,
    pub service: u32,
    pub owner: u32,
}

impl Outcome {
    /// What cannot happen: counted, and dropped.
    pub const INTERNAL: Self = Self {
        verdict: Verdict::Drop,
        reason: Reason::Internal,
        service: NO_SERVICE,
        owner: NO_OWNER,
    };

    #[inline(always)]
    fn pass(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            service: NO_SERVICE,
            owner: NO_OWNER,
        }
    }

    /// Refused: dropped, or observed where the filter only observes.
    #[inline(always)]
    fn drop(config: Config, reason: Reason) -> Self {
        Self::refuse(config.has(config_flags::OBSERVE), reason)
    }

    #[inline(always)]
    fn refuse(observed: bool, reason: Reason) -> Self {
        let verdict = if observed { Verdict::Observe } else { Verdict::Drop };
        Self {
            verdict,
            reason,
            service: NO_SERVICE,
            owner: NO_OWNER,
        }
    }

    /// In one word, for the kernel's calls: verdict, reason, service, owner from the lowest byte up.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.verdict as u64
            | (self.reason as u64) << 8
            | (self.service as u64 & 0xffff) << 16
            | (self.owner as u64) << 32
    }

    #[inline(always)]
    pub fn unpack(word: u64) -> Self {
        let service = (word >> 16) as u32 & 0xffff;
        Self {
            verdict: match word & 0xff {
                0 => Verdict::Pass,
                2 => Verdict::Observe,
                _ => Verdict::Drop,
            },
            reason: Reason::from_number((word >> 8) as u8).unwrap_or(Reason::Internal),
            service: if service == 0xffff { NO_SERVICE } else { service },
            owner: (word >> 32) as u32,
        }
    }

    #[inline(always)]
    fn passes(self) -> bool {
        self.verdict as u8 == Verdict::Pass as u8
    }
}

/// Passes unless a flag of the policy says drop.
#[inline(always)]
fn by(config: Config, drop_flag: u32, reason: Reason) -> Outcome {
    if config.has(drop_flag) {
        Outcome::drop(config, reason)
    } else {
        Outcome::pass(reason)
    }
}

/// Rules 3 to 8 for an IP packet; 9 and 10 in `service`. Called through `Tables::ip`.
#[inline(always)]
pub fn ip<T: Tables>(tables: &T, packet: &Packet) -> Outcome {
    let config = tables.config();
    if classify::is_essential(packet) {
        return Outcome::pass(Reason::Essential);
    }
    let source = tables.source(packet);
    let class = if config.has(config_flags::ADDRESSES) {
        tables.class(packet)
    } else {
        tables.class_default()
    };
    let Some(class) = class else {
        return Outcome::drop(config, Reason::Internal);
    };
    let ported = is_ported(packet);
    let port = if ported {
        tables.port(port_index(packet.protocol, packet.destination_port))
    } else {
        Default::default()
    };

    if config.has(config_flags::MANAGEMENT) && is_management(tables, packet, &source, class, port.management)
    {
        return Outcome::pass(Reason::Management);
    }
    if source.flags & source_flags::DENIED != 0 {
        return Outcome::drop(config, Reason::Denied);
    }
    if ported && port.row != 0 {
        let row = if is_udp(packet) {
            class.udp_row
        } else {
            class.tcp_row
        };
        let number = tables.service_in_both(port.row, row);
        if number != NO_SERVICE {
            return service(tables, config, packet, &source, number);
        }
    }
    let outcome = match packet.protocol {
        Protocol::Icmp => icmp(tables, config, packet, &source),
        Protocol::Tcp | Protocol::Udp if ported => unnamed(tables, config, packet, port.row),
        Protocol::Tcp | Protocol::Udp | Protocol::Unknown => {
            if let Some(outcome) = later_fragment(tables, config, packet, &source, class) {
                return outcome;
            }
            by(config, config_flags::OTHER_TRAFFIC_DROP, Reason::Other)
        }
        Protocol::Other => by(config, config_flags::OTHER_TRAFFIC_DROP, Reason::Other),
    };
    // Rule 8(b): strangers must not fill the reassembly memory of an address that is some service's.
    if outcome.passes() && packet.fragment as u8 != Fragment::Whole as u8 && class.any_row != 0 {
        let observed = config.has(config_flags::OBSERVE);
        return fragment(tables, config, packet, &source, Query::Any, observed);
    }
    outcome
}

#[inline(always)]
fn is_udp(packet: &Packet) -> bool {
    packet.protocol as u8 == Protocol::Udp as u8
}

/// Whether the packet carries ports.
#[inline(always)]
fn is_ported(packet: &Packet) -> bool {
    packet.fragment as u8 != Fragment::Later as u8
        && (packet.protocol as u8 == Protocol::Tcp as u8 || is_udp(packet))
}

/// Rule 4. Masks name the distinct combinations of protocol, ports and address: what is in all of them matches.
#[inline(always)]
fn is_management<T: Tables>(tables: &T, packet: &Packet, source: &Source, class: &Class, ports: u32) -> bool {
    let mask = source.management_mask() & class.management;
    if mask == 0 {
        return false;
    }
    let named = match (packet.protocol, packet.fragment) {
        (Protocol::Tcp, Fragment::Later) => tables.management_ports(MANAGEMENT_TCP),
        (Protocol::Udp, Fragment::Later) => tables.management_ports(MANAGEMENT_UDP),
        // Later fragments carry no ports, and in IPv6 no protocol that counts.
        (Protocol::Unknown, _) => u64::MAX,
        (Protocol::Tcp | Protocol::Udp, _) => tables.management_ports(ports),
        _ => 0,
    };
    mask & named != 0
}

/// Numbers in the table of management masks: no port, then every combination of TCP and of UDP.
pub const MANAGEMENT_NO_PORT: u32 = 0;
pub const MANAGEMENT_TCP: u32 = 1;
pub const MANAGEMENT_UDP: u32 = 2;

/// Rule 6.
#[inline(always)]
fn icmp<T: Tables>(tables: &T, config: Config, packet: &Packet, source: &Source) -> Outcome {
    let kind = classify::icmp(packet);
    match kind {
        Icmp::Other => return by(config, config_flags::OTHER_TRAFFIC_DROP, Reason::Other),
        Icmp::Request => {
            if config.has(config_flags::PING_DROP)
                || config.has(config_flags::PING_LISTED) && !holds_grant(tables, source)
            {
                return Outcome::drop(config, Reason::Icmp);
            }
        }
        Icmp::Answer => {}
    }
    if config.has(config_flags::ICMP_LIMIT) {
        let answer = matches!(kind, Icmp::Answer) && packet.fragment as u8 == Fragment::Whole as u8;
        let number = if answer {
            crate::abi::ICMP_ANSWERS
        } else {
            crate::abi::ICMP_REQUESTS
        };
        if !tables.service_pays(number, Charge::of(packet, true), tables.now()) {
            return Outcome::drop(config, Reason::LimitIcmp);
        }
    }
    Outcome::pass(Reason::Icmp)
}

/// Whether the source holds any grant that has not ended.
#[inline(always)]
fn holds_grant<T: Tables>(tables: &T, source: &Source) -> bool {
    source.owners_length != 0 && classify::grants(tables, source, Query::Any, 0, tables.now()).matching != 0
}

/// Rule 7 for a packet that no service takes.
#[inline(always)]
fn unnamed<T: Tables>(tables: &T, config: Config, packet: &Packet, port_row: u32) -> Outcome {
    let flag = if port_row != 0 {
        config_flags::OTHER_ADDRESS_DROP
    } else {
        config_flags::OTHER_TRAFFIC_DROP
    };
    if config.has(flag) && tables.is_reply(packet) {
        return Outcome::pass(Reason::Reply);
    }
    by(config, flag, Reason::Other)
}

/// Rule 8(a): a later fragment at an address where some service has its protocol; else `None`.
#[inline(always)]
fn later_fragment<T: Tables>(
    tables: &T,
    config: Config,
    packet: &Packet,
    source: &Source,
    class: &Class,
) -> Option<Outcome> {
    let (row, observed) = match packet.protocol {
        Protocol::Tcp => (class.tcp_row, class_flags::TCP_OBSERVED),
        Protocol::Udp => (class.udp_row, class_flags::UDP_OBSERVED),
        _ => (class.any_row, class_flags::ANY_OBSERVED),
    };
    if row == 0 {
        return None;
    }
    let observed = class.flags & observed != 0;
    Some(fragment(
        tables,
        config,
        packet,
        source,
        Query::AnyOf { row },
        observed,
    ))
}

/// What `fragments` says of one (rule 8): `listed` asks for a grant, and charges it.
#[inline(always)]
fn fragment<T: Tables>(
    tables: &T,
    config: Config,
    packet: &Packet,
    source: &Source,
    query: Query,
    observed: bool,
) -> Outcome {
    if config.has(config_flags::FRAGMENTS_DROP) {
        return Outcome::refuse(observed, Reason::Fragment);
    }
    if !config.has(config_flags::FRAGMENTS_LISTED) {
        return Outcome::pass(Reason::Fragment);
    }
    if source.owners_length == 0 {
        return Outcome::refuse(observed, Reason::Fragment);
    }
    let now = tables.now();
    let grants = classify::grants(tables, source, query, packet.source_port, now);
    if grants.matching == 0 {
        return Outcome::refuse(observed, Reason::Fragment);
    }
    let owner = first_to_pay(tables, &grants, Charge::of(packet, false), now);
    if owner == NO_OWNER {
        return Outcome {
            owner: grants.tries[0],
            ..Outcome::refuse(observed, Reason::LimitGrant)
        };
    }
    Outcome {
        owner,
        ..Outcome::pass(Reason::Fragment)
    }
}

/// Rules 9 and 10 for a packet that names a service.
#[inline(always)]
fn service<T: Tables>(tables: &T, config: Config, packet: &Packet, source: &Source, number: u32) -> Outcome {
    let Some(entry) = tables.service(number) else {
        return Outcome::drop(config, Reason::Internal);
    };
    let observed = entry.flags & service_flags::OBSERVE != 0;
    let refuse = |reason, owner| Outcome {
        service: number,
        owner,
        ..Outcome::refuse(observed, reason)
    };
    if source.owners_length == 0 {
        return refuse(Reason::Unlisted, NO_OWNER);
    }
    let now = tables.now();
    let query = Query::Service {
        number,
        source_port: packet.source_port,
    };
    let grants = classify::grants(tables, source, query, packet.source_port, now);
    if grants.matching == 0 {
        let reason = match grants {
            Grants { named: false, .. } => Reason::Unlisted,
            Grants { live: false, .. } => Reason::Ended,
            _ => Reason::SourcePort,
        };
        return refuse(reason, NO_OWNER);
    }
    let owner = first_to_pay(tables, &grants, Charge::of(packet, true), now);
    if owner == NO_OWNER {
        return refuse(Reason::LimitGrant, grants.tries[0]);
    }
    if config.has(config_flags::SERVICE_LIMIT) && !tables.service_pays(number, Charge::of(packet, true), now)
    {
        return refuse(Reason::LimitService, owner);
    }
    Outcome {
        service: number,
        owner,
        ..Outcome::pass(Reason::Allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_comes_out_of_a_word_as_it_went_in() {
        for verdict in Verdict::ALL {
            for reason in Reason::ALL {
                for (service, owner) in [
                    (0, 0),
                    (1, 1),
                    (1023, 0x8000_0001),
                    (0xfffe, NO_OWNER - 1),
                    (NO_SERVICE, NO_OWNER),
                ] {
                    let outcome = Outcome {
                        verdict,
                        reason,
                        service,
                        owner,
                    };
                    assert_eq!(Outcome::unpack(outcome.pack()), outcome);
                }
            }
        }
    }

    #[test]
    fn a_word_that_no_outcome_packs_is_dropped_and_internal() {
        let unknown = Outcome::unpack(Outcome::INTERNAL.pack() & !0xffff | 0xff07);
        assert_eq!(unknown, Outcome::INTERNAL);
        assert_eq!(
            (unknown.verdict, unknown.reason),
            (Verdict::Drop, Reason::Internal)
        );
        assert_eq!(Outcome::unpack(1).verdict, Verdict::Drop);
        assert_eq!(Outcome::unpack(3).verdict, Verdict::Drop);
    }
}
