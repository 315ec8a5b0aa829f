//! Whom the grants let in, and whose buckets pay: rules 9 and 10, and what rule 8 asks of them for fragments.
//!
//! The order of rule 10: the source's own buckets, the grant's, its publisher's, the service's.

use crate::abi::{Owner, Source, service_flags};
use crate::charge::{Charge, first_to_pay, sole_owner_pays};
use crate::classify::{self, Answer, Grants, Query, Walk};
use crate::limit::Effect;
use crate::lookup::{Config, Tables, Used as _, config_flags};
use crate::parse::Packet;
use crate::pipeline::{ANY_ROW, Outcome};
use crate::target::Target;
use crate::units::Nanos;
use crate::verdict::{NO_OWNER, Reason};

/// What `fragments` says of one (rule 8): `listed` asks for a grant for one of a row's services, and charges it. Called
/// through `Tables`.
#[inline(always)]
pub fn fragment<T: Tables>(
    tables: &T,
    packet: &Packet,
    source: &Source,
    row: u32,
    observed: bool,
) -> Outcome {
    let config = tables.config();
    let query = if row == ANY_ROW {
        Query::Any
    } else {
        Query::AnyOf { row }
    };
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
    tables.walk(Walk::new(source, query, packet.source_port, now), |grants| {
        charged_fragment(tables, config, packet, grants, observed, now)
    })
}

/// Rule 8(c).
#[inline(always)]
fn charged_fragment<T: Tables>(
    tables: &T,
    config: Config,
    packet: &Packet,
    grants: &Grants,
    observed: bool,
    now: Nanos,
) -> Outcome {
    if grants.matching == 0 {
        return Outcome::refuse(observed, Reason::Fragment);
    }
    let charge = Charge::of(packet, false);
    if config.has(config_flags::SOURCE_LIMIT) && !tables.source_pays(packet, charge, now) {
        return Outcome::refuse(observed, Reason::LimitSource);
    }
    let owner = first_to_pay(tables, grants, charge, now);
    if owner == NO_OWNER {
        return Outcome {
            owner: grants.tries[0],
            ..Outcome::refuse(observed, Reason::LimitGrant)
        };
    }
    let Some(entry) = tables.owner(owner) else {
        return Outcome::drop(config, Reason::Internal);
    };
    if !publisher_pays(tables, config, entry, charge, now) {
        return Outcome {
            owner,
            ..Outcome::refuse(observed, Reason::LimitPublisher)
        };
    }
    count(tables, owner, charge, now);
    Outcome {
        owner,
        ..Outcome::pass(Reason::Fragment)
    }
}

/// Counts a packet that passed by what its owner holds.
#[inline(always)]
fn count<T: Tables>(tables: &T, owner: u32, charge: Charge, now: Nanos) {
    if matches!(tables.effect(), Effect::Commit)
        && let Some(used) = tables.owner_used(owner)
    {
        used.count(charge.bytes, now);
    }
}

/// Whether the publisher of an owner pays, if it is a binding and bindings of that publisher share a limit.
#[inline(always)]
fn publisher_pays<T: Tables>(tables: &T, config: Config, owner: &Owner, charge: Charge, now: Nanos) -> bool {
    !config.has(config_flags::PUBLISHER_LIMIT)
        || owner.publisher == 0
        || tables.shared_pays(owner.publisher, charge, now)
}

/// Rule 9 for a packet that names a service, from a source where nobody holds grants.
#[inline(always)]
pub(crate) fn stranger(target: &Target) -> Outcome {
    Refusal::at(target).because(Reason::Unlisted, NO_OWNER)
}

/// Rules 9 and 10 for a packet that names a service, where one owner holds grants.
#[inline(always)]
pub(crate) fn sole<T: Tables>(
    tables: &T,
    config: Config,
    packet: &Packet,
    owner: u32,
    target: &Target,
) -> Outcome {
    let refusal = Refusal::at(target);
    let number = target.service;
    let Some(entry) = tables.owner(owner) else {
        return refusal.because(Reason::Unlisted, NO_OWNER);
    };
    let now = tables.now();
    let query = Query::Service {
        number,
        source_port: packet.source_port,
    };
    let reason = match classify::answer(tables, entry, query, now) {
        Answer::Elsewhere => Reason::Unlisted,
        Answer::Ended => Reason::Ended,
        Answer::SourcePort => Reason::SourcePort,
        Answer::Matches => {
            let charge = Charge::of(packet, true);
            if config.has(config_flags::SOURCE_LIMIT) && !tables.source_pays(packet, charge, now) {
                return refusal.because(Reason::LimitSource, NO_OWNER);
            }
            let Some(used) = tables.owner_used(owner) else {
                return Outcome::drop(config, Reason::Internal);
            };
            if !sole_owner_pays(tables, (owner, entry), &used, charge, now) {
                return refusal.because(Reason::LimitGrant, owner);
            }
            let outcome = shared(tables, config, &refusal, (owner, entry), charge, now);
            if outcome.passes() && matches!(tables.effect(), Effect::Commit) {
                used.count(charge.bytes, now);
            }
            return outcome;
        }
    };
    refusal.because(reason, NO_OWNER)
}

/// The same wherever owners hold grants. Called through `Tables`.
#[inline(always)]
pub fn service_of_many<T: Tables>(tables: &T, packet: &Packet, source: &Source, number: u32) -> Outcome {
    let config = tables.config();
    let Some(refusal) = Refusal::of(tables, number) else {
        return Outcome::drop(config, Reason::Internal);
    };
    let now = tables.now();
    let query = Query::Service {
        number,
        source_port: packet.source_port,
    };
    tables.walk(Walk::new(source, query, packet.source_port, now), |grants| {
        if grants.matching == 0 {
            let reason = match grants {
                Grants { named: false, .. } => Reason::Unlisted,
                Grants { live: false, .. } => Reason::Ended,
                _ => Reason::SourcePort,
            };
            return refusal.because(reason, NO_OWNER);
        }
        let charge = Charge::of(packet, true);
        if config.has(config_flags::SOURCE_LIMIT) && !tables.source_pays(packet, charge, now) {
            return refusal.because(Reason::LimitSource, NO_OWNER);
        }
        let owner = first_to_pay(tables, grants, charge, now);
        if owner == NO_OWNER {
            return refusal.because(Reason::LimitGrant, grants.tries[0]);
        }
        let Some(entry) = tables.owner(owner) else {
            return Outcome::drop(config, Reason::Internal);
        };
        let outcome = shared(tables, config, &refusal, (owner, entry), charge, now);
        if outcome.passes() {
            count(tables, owner, charge, now);
        }
        outcome
    })
}

/// The levels behind the grant's own: if one of these refuses, no other grant is tried.
#[inline(always)]
fn shared<T: Tables>(
    tables: &T,
    config: Config,
    refusal: &Refusal,
    (owner, entry): (u32, &Owner),
    charge: Charge,
    now: Nanos,
) -> Outcome {
    if !publisher_pays(tables, config, entry, charge, now) {
        return refusal.because(Reason::LimitPublisher, owner);
    }
    if config.has(config_flags::SERVICE_LIMIT) && !tables.shared_pays(refusal.service, charge, now) {
        return refusal.because(Reason::LimitService, owner);
    }
    Outcome {
        service: refusal.service,
        owner,
        ..Outcome::pass(Reason::Allowed)
    }
}

/// How a service refuses.
#[derive(Clone, Copy)]
struct Refusal {
    service: u32,
    observed: bool,
}

impl Refusal {
    #[inline(always)]
    fn at(target: &Target) -> Self {
        Self {
            service: target.service,
            observed: target.observed != 0,
        }
    }

    #[inline(always)]
    fn of<T: Tables>(tables: &T, service: u32) -> Option<Self> {
        let observed = tables.service(service)?.flags & service_flags::OBSERVE != 0;
        Some(Self { service, observed })
    }

    #[inline(always)]
    fn because(&self, reason: Reason, owner: u32) -> Outcome {
        Outcome {
            service: self.service,
            owner,
            ..Outcome::refuse(self.observed, reason)
        }
    }
}

#[cfg(test)]
mod tests;
