//! Judges what needs more than one entry, and builds the policy: references, overlaps, covers, guards.
//!
//! A draft in, a policy out. A policy built from a draft with faults is never handed out, so placeholders in
//! it do no harm.

mod cover;
mod filter;
mod names;
mod overlap;
mod serving;

pub(crate) use overlap::share_port;
pub(crate) use serving::shown_address;

use ipnet::IpNet;

use crate::policy::bounds::{SERVICES_MAX, SOURCES_MAX};
use crate::policy::diagnostic::Faults;
use crate::policy::model::{Client, Deny, Management, Policy, Service, ServiceSet, Source};
use crate::policy::schema::{ClientDraft, Draft, ServiceDraft};
use crate::policy::source::{Placed, Sources};
use crate::policy::validate::names::Services;

/// What a judgement of several entries works with.
pub(crate) struct Judge<'a> {
    sources: &'a Sources,
    faults: &'a mut Faults,
}

/// The policy, if what was read suffices to build one.
pub(crate) fn validate(mut draft: Draft, sources: &Sources, faults: &mut Faults) -> Option<Policy> {
    if draft.other_version {
        return None;
    }
    let mut judge = Judge { sources, faults };
    judge.counts(&draft);
    judge.names(&draft);
    judge.filter(&draft);
    judge.overlaps(&draft.services);
    let services = Services::new(&draft);
    let client_services: Vec<ServiceSet> = draft
        .clients
        .iter()
        .map(|client| judge.resolved(&services, &client.services))
        .collect();
    let publisher_services: Vec<ServiceSet> = draft
        .publishers
        .iter()
        .map(|publisher| judge.resolved(&services, &publisher.services))
        .collect();
    judge.udp_connections(&draft.clients, &client_services, &draft.services);
    judge.publishers_open(&draft, &publisher_services);
    judge.credentials(&draft);
    judge.serving(&draft);
    for (draft, services) in draft.clients.iter_mut().zip(client_services) {
        draft.client.services = services;
    }
    for (draft, services) in draft.publishers.iter_mut().zip(publisher_services) {
        draft.publisher.services = services;
    }
    judge.covers(&draft);
    assemble(draft, sources)
}

impl Judge<'_> {
    fn counts(&mut self, draft: &Draft) {
        if let Some(surplus) = draft.services.get(SERVICES_MAX) {
            let message = format!("the policy has {} services", draft.services.len());
            self.faults.error(
                surplus.name,
                "too-many",
                message,
                format!("write at most {SERVICES_MAX}"),
            );
        }
        let clients = draft
            .clients
            .iter()
            .map(|client| (client.name, client.sources.len()));
        let denies = draft.denies.iter().map(|deny| (deny.name, deny.sources.len()));
        let management = draft
            .management
            .iter()
            .map(|management| (management.name, management.sources.len()));
        let mut count = 0;
        for (place, sources) in clients.chain(denies).chain(management) {
            count += sources;
            if count > SOURCES_MAX {
                let message = format!("with this entry the policy has more than {SOURCES_MAX} sources");
                self.faults
                    .error(place, "too-many", message, "merge sources into shorter prefixes");
                return;
            }
        }
    }

    /// A client's limit of connections does nothing where every service it names is UDP only.
    fn udp_connections(&mut self, clients: &[ClientDraft], sets: &[ServiceSet], services: &[ServiceDraft]) {
        let udp_only =
            |service: &ServiceDraft| service.service.protocols.udp && !service.service.protocols.tcp;
        for (client, set) in clients.iter().zip(sets) {
            let Some(place) = client.connections else { continue };
            let all_udp = match set {
                ServiceSet::All => !services.is_empty() && services.iter().all(udp_only),
                ServiceSet::Some(indexes) => {
                    !indexes.is_empty() && indexes.iter().all(|index| udp_only(&services[*index]))
                }
            };
            if all_udp {
                let message = "a limit of connections does nothing: every service of the entry is UDP only";
                self.faults
                    .warning(place, "connections-of-udp", message, "limit packets or bytes");
            }
        }
    }
}

fn assemble(draft: Draft, sources: &Sources) -> Option<Policy> {
    let clients = draft.clients.into_iter().map(|draft| Client {
        sources: placed_sources(draft.sources, sources),
        credentials: draft
            .credentials
            .into_iter()
            .map(|credential| credential.value)
            .collect(),
        ..draft.client
    });
    let denies = draft.denies.into_iter().map(|draft| Deny {
        sources: placed_sources(draft.sources, sources),
        ..draft.deny
    });
    let management = draft.management.into_iter().map(|draft| Management {
        sources: placed_sources(draft.sources, sources),
        ..draft.management
    });
    let services = draft
        .services
        .into_iter()
        .map(|draft| -> Service { draft.service });
    Some(Policy {
        filter: draft.filter?.filter,
        services: services.collect(),
        clients: clients.collect(),
        denies: denies.collect(),
        management: management.collect(),
        publishers: draft
            .publishers
            .into_iter()
            .map(|draft| draft.publisher)
            .collect(),
        expects: draft.expects,
        daemon: draft.daemon?,
        listeners: draft.listeners.into_iter().map(|draft| draft.listener).collect(),
        credentials: draft.credentials?,
        authorize: draft.authorize?,
        records: draft.records?,
        sinks: draft.sinks.into_iter().map(|draft| draft.sink).collect(),
    })
}

/// Sorted and unique; of equal ones the first that was written.
fn placed_sources(mut prefixes: Vec<Placed<IpNet>>, sources: &Sources) -> Vec<Source> {
    prefixes.sort_by_key(|prefix| (prefix.value, prefix.place));
    prefixes.dedup_by_key(|prefix| prefix.value);
    let placed = |prefix: Placed<IpNet>| Source {
        prefix: prefix.value,
        origin: sources.origin(prefix.place),
    };
    prefixes.into_iter().map(placed).collect()
}
