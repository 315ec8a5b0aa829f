//! The decision: the rules of SPEC 3 in their order, the first that decides ends it.
//!
//! parse -> classify -> limit -> verdict -> account. One function for the kernel and the host.

use core::borrow::Borrow as _;

use crate::abi::{Class, EVERYTHING, Source, class_flags};
use crate::account;
use crate::admit;
use crate::charge::Charge;
use crate::classify::{self, Icmp, Query, Walk};
use crate::limit::Effect;
use crate::lookup::{Config, Tables, Value, config_flags};
use crate::parse::{self, Fragment, Frame, Packet, PacketBytes, Protocol};
use crate::target::{Target, is_ported};
use crate::units::Nanos;
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
    let (outcome, bytes) = match parse::parse(frame, packet) {
        Frame::Ip => (ip(tables, packet), packet.length),
        Frame::LinkControl => (Outcome::pass(Reason::Essential), frame.length()),
        Frame::NonIp => (
            by(config, config_flags::NON_IP_DROP, Reason::NonIp),
            frame.length(),
        ),
        Frame::Malformed => (Outcome::drop(config, Reason::Malformed), frame.length()),
    };
    // Rule 11, where an operator observes for a while.
    let outcome = if matches!(outcome.verdict, Verdict::Drop) && tables.observes_any() {
        tables.observed(outcome)
    } else {
        outcome
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

/// What would be dropped passes while its service, or everything, is observed. Called through `Tables`.
#[inline(always)]
pub fn observed<T: Tables>(tables: &T, outcome: Outcome) -> Outcome {
    let now = tables.now().0;
    // What is no service's has no entry.
    if tables.observe_until(outcome.service) > now || tables.observe_until(EVERYTHING) > now {
        Outcome {
            verdict: Verdict::Observe,
            ..outcome
        }
    } else {
        outcome
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
    pub(crate) fn pass(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            service: NO_SERVICE,
            owner: NO_OWNER,
        }
    }

    /// Refused: dropped, or observed where the filter only observes.
    #[inline(always)]
    pub(crate) fn drop(config: Config, reason: Reason) -> Self {
        Self::refuse(config.has(config_flags::OBSERVE), reason)
    }

    #[inline(always)]
    pub(crate) fn refuse(observed: bool, reason: Reason) -> Self {
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
    pub(crate) fn passes(self) -> bool {
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

/// Rules 3 to 7 for an IP packet; 9 and 10 in `admit`, and what names no service in `unserved`.
#[inline(always)]
fn ip<T: Tables>(tables: &T, packet: &Packet) -> Outcome {
    let config = tables.config();
    if classify::is_essential(packet) {
        return Outcome::pass(Reason::Essential);
    }
    let value = tables.value(packet);
    let Some(target) = tables.target(packet) else {
        return Outcome::drop(config, Reason::Internal);
    };
    let target: &Target = target.borrow();
    let unserved = |source: &Source| tables.unserved(packet, source, target.class_number, target.port_row);
    // Each kind of source by itself, so that what most packets meet is told apart from the rest by nothing but this.
    match Value::unpack(value) {
        Value::None if target.service == NO_SERVICE => unserved(&Source::default()),
        Value::None => admit::stranger(target),
        Value::Owner(owner) if target.service == NO_SERVICE => unserved(&Source {
            owners_start: owner,
            owners_length: 1,
            ..Source::default()
        }),
        Value::Owner(owner) => admit::sole(tables, config, packet, owner, target),
        Value::Source(number) => {
            let Some(source) = tables.source(number) else {
                return Outcome::drop(config, Reason::Internal);
            };
            // Rule 4.
            if config.has(config_flags::MANAGEMENT) && source.management & target.management != 0 {
                return Outcome::pass(Reason::Management);
            }
            // Rule 5. The clock is asked only where a deny ends.
            if is_denied(source.denied_until, || tables.now()) {
                return Outcome::drop(config, Reason::Denied);
            }
            if target.service == NO_SERVICE {
                unserved(source)
            } else if source.owners_length == 0 {
                admit::stranger(target)
            } else {
                tables.service_of_many(packet, source, target.service)
            }
        }
    }
}

/// Rules 6 to 8 for what names no service. Called through `Tables`.
#[inline(always)]
pub fn unserved<T: Tables>(
    tables: &T,
    packet: &Packet,
    source: &Source,
    class_number: u32,
    port_row: u32,
) -> Outcome {
    let config = tables.config();
    let Some(class) = tables.class(class_number) else {
        return Outcome::drop(config, Reason::Internal);
    };
    let outcome = match packet.protocol {
        Protocol::Icmp => icmp(tables, config, packet, source),
        Protocol::Tcp | Protocol::Udp if is_ported(packet) => unnamed(tables, config, packet, port_row),
        Protocol::Tcp | Protocol::Udp | Protocol::Unknown => {
            if let Some(outcome) = later_fragment(tables, packet, source, class) {
                return outcome;
            }
            by(config, config_flags::OTHER_TRAFFIC_DROP, Reason::Other)
        }
        Protocol::Other => by(config, config_flags::OTHER_TRAFFIC_DROP, Reason::Other),
    };
    // Rule 8(b): strangers must not fill the reassembly memory of an address that is some service's.
    if outcome.passes() && packet.fragment as u8 != Fragment::Whole as u8 && class.any_row != 0 {
        let observed = config.has(config_flags::OBSERVE);
        return tables.fragment(packet, source, ANY_ROW, observed);
    }
    outcome
}

#[inline(always)]
fn is_denied(until: u64, now: impl FnOnce() -> Nanos) -> bool {
    until != 0 && (until == u64::MAX || until > now().0)
}

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
        if !tables.shared_pays(number, Charge::of(packet, true), tables.now()) {
            return Outcome::drop(config, Reason::LimitIcmp);
        }
    }
    Outcome::pass(Reason::Icmp)
}

/// Whether the source holds any grant that has not ended.
#[inline(always)]
fn holds_grant<T: Tables>(tables: &T, source: &Source) -> bool {
    source.owners_length != 0
        && tables.walk(Walk::new(source, Query::Any, 0, tables.now()), |grants| {
            grants.matching != 0
        })
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
fn later_fragment<T: Tables>(tables: &T, packet: &Packet, source: &Source, class: &Class) -> Option<Outcome> {
    let (row, observed) = match packet.protocol {
        Protocol::Tcp => (class.tcp_row, class_flags::TCP_OBSERVED),
        Protocol::Udp => (class.udp_row, class_flags::UDP_OBSERVED),
        _ => (class.any_row, class_flags::ANY_OBSERVED),
    };
    if row == 0 {
        return None;
    }
    let observed = class.flags & observed != 0;
    Some(tables.fragment(packet, source, row, observed))
}

/// Stands for every service where a row of services is asked for.
pub const ANY_ROW: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_dropped_passes_while_it_is_observed() {
        use crate::double::Double;
        let of = |service| Outcome {
            service,
            ..Outcome::refuse(false, Reason::Unlisted)
        };
        // The double's clock is at 5.
        let verdict = |until: &[(u32, u64)], service| {
            let tables = Double {
                observed: until.into(),
                ..Double::default()
            };
            let outcome = observed(&tables, of(service));
            assert_eq!((outcome.reason, outcome.service), (Reason::Unlisted, service));
            outcome.verdict
        };
        assert_eq!(verdict(&[], 3), Verdict::Drop);
        assert_eq!(verdict(&[(3, 6)], 3), Verdict::Observe);
        assert_eq!(verdict(&[(3, 5)], 3), Verdict::Drop, "it has ended");
        assert_eq!(verdict(&[(3, 6)], 4), Verdict::Drop, "another service");
        assert_eq!(verdict(&[(3, 6)], NO_SERVICE), Verdict::Drop, "no service's");
        assert_eq!(verdict(&[(EVERYTHING, 6)], 4), Verdict::Observe);
        assert_eq!(verdict(&[(EVERYTHING, 6)], NO_SERVICE), Verdict::Observe);
        assert_eq!(verdict(&[(EVERYTHING, 5)], NO_SERVICE), Verdict::Drop);
    }

    #[test]
    fn a_deny_holds_until_it_ends() {
        let at = |now| move || Nanos(now);
        assert!(!is_denied(0, || unreachable!("nothing ends")));
        assert!(is_denied(u64::MAX, || unreachable!("it never ends")));
        assert!(is_denied(1, at(0)) && is_denied(10, at(9)));
        assert!(!is_denied(10, at(10)) && !is_denied(10, at(11)));
    }

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
