//! Rules 8 to 10 read aloud: fragments, the grants of a source, and whose buckets pay.

use std::cmp::Reverse;
use std::collections::HashMap;

use filter_common::charge::{self, Charge};
use filter_common::limit::Effect;
use filter_common::lookup::GrantTables as _;
use filter_common::parse::Packet;
use filter_common::source_limit;
use filter_common::verdict::Reason;
use ipnet::IpNet;

use super::words::{Notes, address, buckets, in_ranges, longest, said};
use super::{Decision, Matched, Reader};
use crate::bindings::seam::Grantee;
use crate::compiler::{owner_name, service_mode};
use crate::policy::model::{
    Client, Limits, Mode, PassListedDrop, PortRange, Publisher, Service, ServiceSet, Source,
};

/// Grants tried for one packet, and so the most that are shown.
const TRIES_MAX: usize = filter_common::bounds::TRIES_MAX as usize;

/// What grants: an entry of the policy or a binding.
#[derive(Clone, Copy)]
pub(super) enum Grantor<'a> {
    Client(&'a Client),
    /// Its owner's name, and what it grants.
    Binding(&'a str, &'a Grantee),
}

impl<'a> Grantor<'a> {
    fn owner(self) -> String {
        match self {
            Grantor::Client(client) => owner_name(&client.name),
            Grantor::Binding(owner, _) => owner.to_owned(),
        }
    }

    fn source_ports(self) -> &'a [PortRange] {
        match self {
            Grantor::Client(client) => &client.source_ports,
            Grantor::Binding(_, grantee) => &grantee.source_ports,
        }
    }

    fn limit(self) -> &'a Limits {
        match self {
            Grantor::Client(client) => &client.limit,
            Grantor::Binding(_, grantee) => &grantee.limit,
        }
    }

    /// `client acme`, `binding gateway/key-1`
    fn name(self) -> String {
        self.owner().replacen('/', " ", 1)
    }

    fn expires(self) -> Option<jiff::Timestamp> {
        match self {
            Grantor::Client(client) => client.expires,
            Grantor::Binding(..) => None,
        }
    }
}

/// A grantor's hold on a source.
#[derive(Clone, Copy)]
pub(super) struct Grant<'a> {
    by: Grantor<'a>,
    prefix: IpNet,
    /// Where the policy writes it.
    source: Option<&'a Source>,
    number: u32,
    pub(super) ended: bool,
}

impl Grant<'_> {
    fn matched(&self) -> Matched {
        match self.by {
            Grantor::Client(client) => Matched::of(
                "client",
                &client.name,
                &client.origin,
                self.source,
                &client.remarks,
            ),
            Grantor::Binding(owner, _) => {
                let name = owner.strip_prefix("binding/").unwrap_or(owner);
                Matched::pushed("binding", name, self.prefix)
            }
        }
    }

    fn said(&self) -> String {
        match self.by {
            Grantor::Client(client) => said("client", &client.name, &client.origin, self.source),
            Grantor::Binding(..) => format!("{} by {}", self.by.name(), self.prefix),
        }
    }
}

/// Which level refuses, and who would have been charged.
type Unpaid = (Reason, Option<String>);

impl Reader<'_> {
    /// What `fragments` says.
    pub(super) fn fragment(
        &self,
        packet: &Packet,
        wanted: &dyn Fn(Grantor<'_>) -> bool,
        observed: bool,
        notes: &mut Notes,
    ) -> Decision {
        let refuse = |reason, owner| Decision {
            passes: false,
            observed,
            owner,
            ..self.pass(reason)
        };
        match self.policy.filter.fragments {
            PassListedDrop::Drop => {
                notes.step(7, "yes", "`fragments` says drop".into());
                return refuse(Reason::Fragment, None);
            }
            PassListedDrop::Pass => {
                notes.step(7, "yes", "`fragments` says pass".into());
                return self.pass(Reason::Fragment);
            }
            PassListedDrop::Listed => {}
        }
        let held = self.matching(packet, wanted);
        let live: Vec<_> = held.into_iter().filter(|grant| !grant.ended).collect();
        if live.is_empty() {
            notes.step(
                7,
                "yes",
                "`fragments` says listed, and its source holds no grant for it".into(),
            );
            return refuse(Reason::Fragment, None);
        }
        notes.step(
            7,
            "yes",
            "`fragments` says listed, and its source holds a grant".into(),
        );
        match self.pays(&live, packet, Charge::of(packet, false), notes) {
            Ok(owner) => Decision {
                owner: Some(owner),
                ..self.pass(Reason::Fragment)
            },
            Err((reason, owner)) => refuse(reason, owner),
        }
    }

    /// Rules 9 and 10.
    pub(super) fn grants(&self, service: &Service, packet: &Packet, notes: &mut Notes) -> Decision {
        notes.step(6, "yes", said("service", &service.name, &service.origin, None));
        notes.step(7, "no", "its ports are known".into());
        notes.matched.push(Matched::of(
            "service",
            &service.name,
            &service.origin,
            None,
            &service.remarks,
        ));
        let refuse = |reason, owner| Decision {
            passes: false,
            reason,
            service: Some(service.name.clone()),
            owner,
            observed: service_mode(self.policy, service) == Mode::Observe,
        };
        let held = self.matching(packet, &|grantor| self.reaches(grantor, service));
        let ready = match admitted(held, service, packet, notes) {
            Ok(ready) => ready,
            Err(reason) => return refuse(reason, None),
        };
        let cost = Charge::of(packet, true);
        let owner = match self.pays(&ready, packet, cost, notes) {
            Ok(owner) => owner,
            Err((reason, owner)) => return refuse(reason, owner),
        };
        let number = self.names.services().find(|(_, name)| *name == service.name);
        let number = number.map_or(u32::MAX, |(number, _)| number);
        let left = self.host.shared_left(number);
        let level = notes.level(buckets("service", &service.name, &service.limit, left));
        if service.limit != Limits::default() && !self.shared_pays(number, cost) {
            notes.step(
                9,
                "refused",
                format!("service {} cannot pay: {level}", service.name),
            );
            return refuse(Reason::LimitService, Some(owner));
        }
        notes.more(9, &format!("; service {}: {level}", service.name));
        Decision {
            service: Some(service.name.clone()),
            owner: Some(owner),
            ..self.pass(Reason::Allowed)
        }
    }

    /// The owner whose buckets pay first, the source's own and its publisher's beside; else who refuses.
    fn pays(
        &self,
        ready: &[Grant<'_>],
        packet: &Packet,
        cost: Charge,
        notes: &mut Notes,
    ) -> Result<String, Unpaid> {
        let before = self.source(packet, cost, notes)?;
        let count = ready.len();
        let first = if count > TRIES_MAX {
            usize::from(packet.source_port) % count
        } else {
            0
        };
        let tries: Vec<_> = ready
            .iter()
            .cycle()
            .skip(first)
            .take(count.min(TRIES_MAX))
            .collect();
        let mut refused = Vec::new();
        for grant in &tries {
            let owner = grant.by.owner();
            let left = self.host.owner_left(grant.number);
            let level = notes.level(buckets("grant", &owner, grant.by.limit(), left));
            if self.owner_pays(grant.number, cost) {
                let others = match refused.as_slice() {
                    [] => String::new(),
                    names => format!("{} cannot pay; ", names.join(", ")),
                };
                notes.step(9, "paid", format!("{before}{others}{}: {level}", grant.by.name()));
                notes.matched.push(grant.matched());
                self.publisher(grant, &owner, cost, notes)?;
                return Ok(owner);
            }
            refused.push(format!("{} ({level})", grant.by.name()));
        }
        let grant = tries[0];
        notes.step(9, "refused", format!("cannot pay: {}", refused.join(", ")));
        notes.matched.push(grant.matched());
        Err((Reason::LimitGrant, Some(grant.by.owner())))
    }

    /// The source's own buckets; gives their words.
    fn source(&self, packet: &Packet, cost: Charge, notes: &mut Notes) -> Result<String, Unpaid> {
        let limits = &self.policy.filter.source_limit;
        if *limits == Limits::default() {
            return Ok(String::new());
        }
        let level = notes.level(buckets("source", "", limits, self.host.source_left(packet)));
        if self.dry(|| source_limit::pays(self.host, packet, cost, self.host.now.get())) {
            return Ok(format!("source: {level}; "));
        }
        notes.step(9, "refused", format!("the source's own cannot pay: {level}"));
        Err((Reason::LimitSource, None))
    }

    /// What all bindings of a publisher share.
    fn publisher(
        &self,
        grant: &Grant<'_>,
        owner: &str,
        cost: Charge,
        notes: &mut Notes,
    ) -> Result<(), Unpaid> {
        let Grantor::Binding(_, grantee) = grant.by else {
            return Ok(());
        };
        let limited =
            |entry: &&Publisher| *entry.name == *grantee.publisher && entry.limit != Limits::default();
        let Some(publisher) = self.policy.publishers.iter().find(limited) else {
            return Ok(());
        };
        let number = self
            .host
            .owner(grant.number)
            .map_or(u32::MAX, |entry| entry.publisher);
        let left = self.host.shared_left(number);
        let level = notes.level(buckets("publisher", &publisher.name, &publisher.limit, left));
        if self.shared_pays(number, cost) {
            notes.more(9, &format!("; publisher {}: {level}", publisher.name));
            return Ok(());
        }
        notes.step(
            9,
            "refused",
            format!("publisher {} cannot pay: {level}", publisher.name),
        );
        Err((Reason::LimitPublisher, Some(owner.to_owned())))
    }

    /// The grants that hold the source, longest prefix first, then by owner, each owner once.
    pub(super) fn matching(&self, packet: &Packet, wanted: &dyn Fn(Grantor<'_>) -> bool) -> Vec<Grant<'_>> {
        let address = address(&packet.source);
        let now = self.host.now.get();
        let numbers: HashMap<&str, u32> = self.names.owners().map(|(number, name)| (name, number)).collect();
        let clients = self.policy.clients.iter().filter(|client| client.enabled);
        let clients = clients.filter_map(|client| {
            let source = longest(&client.sources, address)?;
            Some((Grantor::Client(client), source.prefix, Some(source)))
        });
        let bindings = self.pushed.grantees.iter().filter_map(|(owner, grantee)| {
            let holding = grantee.sources.iter().filter(|prefix| prefix.contains(&address));
            let prefix = holding.max_by_key(|prefix| prefix.prefix_len())?;
            Some((Grantor::Binding(owner, grantee), *prefix, None))
        });
        let mut found: Vec<_> = clients
            .chain(bindings)
            .filter(|(by, ..)| wanted(*by))
            .filter_map(|(by, prefix, source)| {
                let number = *numbers.get(by.owner().as_str())?;
                let ended = self.host.owner(number).is_none_or(|owner| owner.end <= now.0);
                Some(Grant {
                    by,
                    prefix,
                    source,
                    number,
                    ended,
                })
            })
            .collect();
        found.sort_by_cached_key(|grant| (Reverse(grant.prefix.prefix_len()), grant.by.owner()));
        found
    }

    fn owner_pays(&self, number: u32, cost: Charge) -> bool {
        self.dry(|| charge::owner_pays(self.host, number, cost, self.host.now.get()))
    }

    pub(super) fn shared_pays(&self, number: u32, cost: Charge) -> bool {
        self.dry(|| charge::shared_pays(self.host, number, cost, self.host.now.get()))
    }

    fn dry(&self, ask: impl FnOnce() -> bool) -> bool {
        let effect = self.host.effect.replace(Effect::Dry);
        let answer = ask();
        self.host.effect.set(effect);
        answer
    }

    pub(super) fn reaches(&self, grantor: Grantor<'_>, service: &Service) -> bool {
        match grantor {
            Grantor::Client(client) => match &client.services {
                ServiceSet::All => true,
                ServiceSet::Some(indexes) => indexes
                    .iter()
                    .any(|index| self.policy.services[*index].name == service.name),
            },
            Grantor::Binding(_, grantee) => grantee.services.iter().any(|name| **name == *service.name),
        }
    }
}

type Held<'a> = Vec<Grant<'a>>;

/// Rule 9: of the grants held, those that have not ended and admit the source port; else why there is none.
fn admitted<'a>(
    held: Held<'a>,
    service: &Service,
    packet: &Packet,
    notes: &mut Notes,
) -> Result<Held<'a>, Reason> {
    let Some(first) = held.first() else {
        let source = address(&packet.source);
        notes.step(
            8,
            "refused",
            format!("no grant holds {source} and names {}", service.name),
        );
        return Err(Reason::Unlisted);
    };
    let (first, end) = (first.said(), first.by.expires());
    let mut ready: Held<'a> = held.into_iter().filter(|grant| !grant.ended).collect();
    if ready.is_empty() {
        let end = end.map_or_else(String::new, |end| format!(", at {end}"));
        notes.step(8, "refused", format!("{first} has ended{end}"));
        return Err(Reason::Ended);
    }
    let port = packet.source_port;
    let live = ready[0].said();
    ready.retain(|grant| {
        let ports = grant.by.source_ports();
        ports.is_empty() || in_ranges(ports, port)
    });
    if ready.is_empty() {
        notes.step(8, "refused", format!("{live} does not admit source port {port}"));
        return Err(Reason::SourcePort);
    }
    let others = match ready.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    notes.step(8, "granted", format!("{}{others}", ready[0].said()));
    Ok(ready)
}
