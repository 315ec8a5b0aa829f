//! Whom the grants let in, and whose buckets pay: rules 9 and 10, and what rule 8 asks of them for fragments.
//!
//! The order of rule 10: the source's own buckets, the grant's, its publisher's, the service's.

use crate::abi::{Source, service_flags};
use crate::charge::{Charge, first_to_pay, sole_owner_pays};
use crate::classify::{self, Answer, Grants, Query, Walk};
use crate::lookup::{Config, Tables, config_flags};
use crate::parse::Packet;
use crate::pipeline::{ANY_ROW, Outcome};
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
    if !publisher_pays(tables, config, owner, charge, now) {
        return Outcome {
            owner,
            ..Outcome::refuse(observed, Reason::LimitPublisher)
        };
    }
    Outcome {
        owner,
        ..Outcome::pass(Reason::Fragment)
    }
}

/// Whether the publisher of an owner pays, if it is a binding and bindings of that publisher share a limit.
#[inline(always)]
fn publisher_pays<T: Tables>(tables: &T, config: Config, owner: u32, charge: Charge, now: Nanos) -> bool {
    if !config.has(config_flags::PUBLISHER_LIMIT) {
        return true;
    }
    match tables.owner(owner) {
        Some(entry) => entry.publisher == 0 || tables.shared_pays(entry.publisher, charge, now),
        None => false,
    }
}

/// Rules 9 and 10 for a packet that names a service.
#[inline(always)]
pub(crate) fn service<T: Tables>(
    tables: &T,
    config: Config,
    packet: &Packet,
    source: &Source,
    number: u32,
) -> Outcome {
    if source.owners_length > 1 {
        return tables.service_of_many(packet, source, number);
    }
    let Some(refusal) = Refusal::of(tables, number) else {
        return Outcome::drop(config, Reason::Internal);
    };
    if source.owners_length == 0 {
        return refusal.because(Reason::Unlisted, NO_OWNER);
    }
    let owner = source.owners_start;
    let now = tables.now();
    let query = Query::Service {
        number,
        source_port: packet.source_port,
    };
    let reason = match classify::asked(tables, owner, query, now) {
        Answer::Elsewhere => Reason::Unlisted,
        Answer::Ended => Reason::Ended,
        Answer::SourcePort => Reason::SourcePort,
        Answer::Matches => {
            let charge = Charge::of(packet, true);
            if config.has(config_flags::SOURCE_LIMIT) && !tables.source_pays(packet, charge, now) {
                return refusal.because(Reason::LimitSource, NO_OWNER);
            }
            if !sole_owner_pays(tables, owner, charge, now) {
                return refusal.because(Reason::LimitGrant, owner);
            }
            return shared(tables, config, &refusal, owner, charge, now);
        }
    };
    refusal.because(reason, NO_OWNER)
}

/// The same where several owners hold grants. Called through `Tables`.
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
        shared(tables, config, &refusal, owner, charge, now)
    })
}

/// The levels behind the grant's own: if one of these refuses, no other grant is tried.
#[inline(always)]
fn shared<T: Tables>(
    tables: &T,
    config: Config,
    refusal: &Refusal,
    owner: u32,
    charge: Charge,
    now: Nanos,
) -> Outcome {
    if !publisher_pays(tables, config, owner, charge, now) {
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
