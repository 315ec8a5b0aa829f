//! Rules 8 to 10 read aloud: fragments, the grants of a source, and whose buckets pay.

use std::cmp::Reverse;
use std::collections::HashMap;

use filter_common::charge::{self, Charge};
use filter_common::limit::Effect;
use filter_common::lookup::GrantTables as _;
use filter_common::parse::Packet;
use filter_common::verdict::Reason;

use super::words::{Notes, address, in_ranges, levels, longest, said};
use super::{Decision, Matched, Reader};
use crate::compiler::{owner_name, service_mode};
use crate::policy::model::{Client, Limits, Mode, PassListedDrop, Service, ServiceSet, Source};

/// Grants tried for one packet, and so the most that are shown.
const TRIES_MAX: usize = filter_common::bounds::TRIES_MAX as usize;

impl Reader<'_> {
    /// What `fragments` says.
    pub(super) fn fragment(
        &self,
        packet: &Packet,
        wanted: &dyn Fn(&Client) -> bool,
        observed: bool,
        notes: &mut Notes,
    ) -> Decision {
        let refuse = |reason, owner| Decision {
            passes: false,
            reason,
            service: None,
            owner,
            observed,
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
        let live: Vec<_> = held.into_iter().filter(|(_, grant)| !grant.ended).collect();
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
            Err(first) => refuse(Reason::LimitGrant, Some(first)),
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
        let held = self.matching(packet, &|client| self.reaches(client, service));
        let ready = match admitted(held, service, packet, notes) {
            Ok(ready) => ready,
            Err(reason) => return refuse(reason, None),
        };
        let cost = Charge::of(packet, true);
        let owner = match self.pays(&ready, packet, cost, notes) {
            Ok(owner) => owner,
            Err(first) => return refuse(Reason::LimitGrant, Some(first)),
        };
        let number = self.names.services().find(|(_, name)| *name == service.name);
        let number = number.map_or(u32::MAX, |(number, _)| number);
        if service.limit != Limits::default() && !self.shared_pays(number, cost) {
            notes.step(
                9,
                "refused",
                format!("more than the whole burst of service {}", service.name),
            );
            return refuse(Reason::LimitService, Some(owner));
        }
        notes.more(
            9,
            &format!("; service {}: {}", service.name, levels(&service.limit)),
        );
        Decision {
            service: Some(service.name.clone()),
            owner: Some(owner),
            ..self.pass(Reason::Allowed)
        }
    }

    /// The owner whose buckets pay first, or the first that was tried.
    fn pays(
        &self,
        ready: &[(&Client, Grant<'_>)],
        packet: &Packet,
        cost: Charge,
        notes: &mut Notes,
    ) -> Result<String, String> {
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
        for (client, grant) in &tries {
            if self.owner_pays(grant.number, cost) {
                let before = match refused.as_slice() {
                    [] => String::new(),
                    names => format!("{} cannot pay; ", names.join(", ")),
                };
                notes.step(
                    9,
                    "paid",
                    format!("{before}client {}: {}", client.name, levels(&client.limit)),
                );
                notes.matched.push(grant.matched(client));
                return Ok(owner_name(&client.name));
            }
            refused.push(client.name.clone());
        }
        let (client, grant) = tries[0];
        notes.step(
            9,
            "refused",
            format!("more than the whole burst of: {}", refused.join(", ")),
        );
        notes.matched.push(grant.matched(client));
        Err(owner_name(&client.name))
    }

    /// The grants that hold the source, longest prefix first, then by name, each client once.
    pub(super) fn matching(
        &self,
        packet: &Packet,
        wanted: &dyn Fn(&Client) -> bool,
    ) -> Vec<(&Client, Grant<'_>)> {
        let source = address(&packet.source);
        let now = self.host.now.get();
        let numbers: HashMap<&str, u32> = self.names.owners().map(|(number, name)| (name, number)).collect();
        let enabled = self
            .policy
            .clients
            .iter()
            .filter(|client| client.enabled && wanted(client));
        let mut found: Vec<_> = enabled
            .filter_map(|client| {
                let source = longest(&client.sources, source)?;
                let number = *numbers.get(owner_name(&client.name).as_str())?;
                let ended = self.host.owner(number).is_none_or(|owner| owner.end <= now.0);
                Some((
                    client,
                    Grant {
                        source,
                        number,
                        ended,
                    },
                ))
            })
            .collect();
        found.sort_by(|(a, left), (b, right)| {
            let length = |grant: &Grant<'_>| Reverse(grant.source.prefix.prefix_len());
            (length(left), a.name.as_bytes()).cmp(&(length(right), b.name.as_bytes()))
        });
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

    pub(super) fn reaches(&self, client: &Client, service: &Service) -> bool {
        match &client.services {
            ServiceSet::All => true,
            ServiceSet::Some(indexes) => indexes
                .iter()
                .any(|index| self.policy.services[*index].name == service.name),
        }
    }
}

/// A client's hold on a source.
#[derive(Clone, Copy)]
pub(super) struct Grant<'a> {
    source: &'a Source,
    number: u32,
    pub(super) ended: bool,
}

impl Grant<'_> {
    fn matched(&self, client: &Client) -> Matched {
        Matched::of(
            "client",
            &client.name,
            &client.origin,
            Some(self.source),
            &client.remarks,
        )
    }
}

type Held<'a> = Vec<(&'a Client, Grant<'a>)>;

/// Rule 9: of the grants held, those that have not ended and admit the source port; else why there is none.
fn admitted<'a>(
    held: Held<'a>,
    service: &Service,
    packet: &Packet,
    notes: &mut Notes,
) -> Result<Held<'a>, Reason> {
    let shown = |(client, grant): &(&Client, Grant<'_>)| {
        said("client", &client.name, &client.origin, Some(grant.source))
    };
    let Some(first) = held.first() else {
        let source = address(&packet.source);
        notes.step(
            8,
            "refused",
            format!("no grant holds {source} and names {}", service.name),
        );
        return Err(Reason::Unlisted);
    };
    let (first, end) = (shown(first), first.0.expires);
    let mut ready: Held<'a> = held.into_iter().filter(|(_, grant)| !grant.ended).collect();
    if ready.is_empty() {
        let end = end.map_or_else(String::new, |end| format!(", at {end}"));
        notes.step(8, "refused", format!("{first} has ended{end}"));
        return Err(Reason::Ended);
    }
    let port = packet.source_port;
    let live = shown(&ready[0]);
    ready.retain(|(client, _)| client.source_ports.is_empty() || in_ranges(&client.source_ports, port));
    if ready.is_empty() {
        notes.step(8, "refused", format!("{live} does not admit source port {port}"));
        return Err(Reason::SourcePort);
    }
    let others = match ready.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    notes.step(8, "granted", format!("{}{others}", shown(&ready[0])));
    Ok(ready)
}
