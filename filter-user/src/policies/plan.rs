//! What a policy would change against the one in force: entries, sources gained and lost, bindings suspended, and who
//! sent traffic lately and would be cut.
//!
//! Lists are bounded, and counted whole. Pure but for what it asks of bindings and grants.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Map, Value};

use super::cover::{Candidate, Cover, services_of};
use super::cut::Cuts;
use super::entries::{self, Change, What};
use super::observing::Observing;
use super::opens::opens;
use crate::bindings::Bindings;
use crate::bindings::requests::State;
use crate::bindings::seam::{Effective as _, Grants, LeftOut};
use crate::compiler::Pushed;
use crate::engine;
use crate::policy::Policy;
use crate::policy::model::{Client, Source};

/// Of each list of a plan.
pub const LISTED_MAX: usize = 1_000;
/// Sources that are looked up against all others; beyond, they are counted as written.
const LOOKED_UP_MAX: usize = 100_000;

/// The answer of plan and apply.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub schema: u32,
    /// Of the planned policy.
    pub hash: String,
    /// Of the policy in force.
    pub base: String,
    /// Whether it would change anything.
    pub differs: bool,
    pub changes: Vec<Change>,
    pub cut: Vec<Cut>,
    pub suspended: Vec<Suspended>,
    pub counts: Counts,
    /// The policy's, one a line, with its place.
    pub warnings: Vec<String>,
}

/// All there are, listed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Entries by kind: added, removed, changed.
    pub entries: BTreeMap<&'static str, [usize; 3]>,
    pub sources_gained: usize,
    pub sources_lost: usize,
    pub cut: usize,
    pub suspended: usize,
    /// Bindings that are suspended now and would not be.
    pub resumed: usize,
}

/// A source that sent traffic lately, as its owner's grant or the drop log tells, and would not pass any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    pub source: IpNet,
    pub services: Vec<String>,
    /// None of those that pass at present because they are only observed.
    pub owner: Option<String>,
    pub reason: &'static str,
    pub last_seen: jiff::Timestamp,
    /// Passed by its owner's grant so far, or observed in the last day.
    pub packets: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suspended {
    pub publisher: String,
    pub credential: String,
    pub because: String,
    pub last_seen: Option<jiff::Timestamp>,
}

/// What is compared, and whom to ask.
pub struct Ground<'a> {
    pub old: &'a Arc<Policy>,
    /// Of the policy in force.
    pub epoch: u64,
    pub new: &'a Arc<Policy>,
    pub bindings: &'a Bindings,
    pub grants: &'a dyn Grants,
    /// What `"host"` means.
    pub host_addresses: &'a [IpNet],
}

impl Ground<'_> {
    /// Blocks for as long as all bindings and sources take.
    pub(super) fn plan(
        &self,
        base: &str,
        hash: &str,
        observing: Option<&Observing>,
        mut warnings: Vec<String>,
    ) -> Plan {
        let mut counts = Counts::default();
        let left = self.left_out();
        let mut changes = entries::changes(self.old, self.new);
        for change in &changes {
            let of_kind = counts.entries.entry(change.kind).or_default();
            of_kind[change.change.index()] += 1;
        }
        changes.truncate(LISTED_MAX);
        let (lost, gained) = moved(self.old, self.new);
        // Sources that only went from one client to another change whose buckets pay.
        let differs = !changes.is_empty() || !lost.is_empty() || !gained.is_empty();
        let mut cut = Cuts::new(self);
        {
            let mut list = listing(&mut changes);
            counts.sources_lost = self.looked_up(lost, (self.new, &left), |candidate, services| {
                cut.lost(candidate, services);
                list(Change::source(What::Lost, candidate, services));
            });
        }
        {
            let mut list = listing(&mut changes);
            counts.sources_gained = self.looked_up(gained, (self.old, &[]), |candidate, services| {
                list(Change::source(What::Gained, candidate, services));
            });
        }
        cut.denied();
        let suspended = self.suspended(&left, &mut counts, &mut cut);
        warnings.splice(0..0, opens(self.old, self.new, self.host_addresses));
        if let Some(observing) = observing.filter(|_| differs) {
            warnings.extend(cut.observed(observing));
        }
        counts.cut = cut.count;
        Plan {
            schema: 1,
            hash: hash.to_owned(),
            base: base.to_owned(),
            differs,
            changes,
            cut: cut.list,
            suspended,
            counts,
            warnings,
        }
    }

    /// Tells those that nothing in `other` admits as well; how many there are.
    fn looked_up(
        &self,
        mut candidates: Vec<Candidate<'_>>,
        (other, left): (&Arc<Policy>, &[LeftOut]),
        mut tell: impl FnMut(&Candidate<'_>, &[&str]),
    ) -> usize {
        let beyond = candidates.len().saturating_sub(LOOKED_UP_MAX);
        candidates.truncate(LOOKED_UP_MAX);
        let cover = Cover::of(&candidates, other, (self.bindings, left));
        let mut count = beyond;
        for candidate in &candidates {
            let left = cover.left(candidate);
            if !left.is_empty() {
                count += 1;
                tell(candidate, &left);
            }
        }
        count
    }

    /// The bindings that would have to give way, as the engine finds them when it makes the tables.
    fn left_out(&self) -> Vec<LeftOut> {
        let epoch = self.grants.policy().0 + 1;
        let under = self.bindings.under(epoch, self.new);
        let (grantees, _) = under.all();
        let pushed = Pushed::of(grantees, []);
        engine::crowded_out(self.new, &pushed, |owner| under.age(owner))
    }

    fn suspended(&self, left: &[LeftOut], counts: &mut Counts, cut: &mut Cuts<'_>) -> Vec<Suspended> {
        let mut list = Vec::new();
        // Of those that sent lately.
        let mut sources: Vec<(IpNet, Arc<str>)> = Vec::new();
        self.bindings.each_under(self.new, left, |planned| {
            let is = planned.state == State::Suspended;
            match &planned.suspended {
                Some(because) if !is => {
                    counts.suspended += 1;
                    let owner: Arc<str> = planned.owner().into();
                    let seen = cut.seen(&owner);
                    if matches!(seen, Some((_, Some(_)))) && sources.len() < LOOKED_UP_MAX {
                        let own = planned.sources().iter();
                        sources.extend(own.map(|source| (*source, Arc::clone(&owner))));
                    }
                    if list.len() < LISTED_MAX {
                        list.push(Suspended {
                            publisher: planned.publisher.to_owned(),
                            credential: planned.credential.to_owned(),
                            because: because.clone(),
                            last_seen: seen.and_then(|(_, at)| at),
                        });
                    }
                }
                None if is => counts.resumed += 1,
                _ => {}
            }
        });
        cut.suspended(&sources);
        list
    }
}

/// Takes the first so many.
fn listing(changes: &mut Vec<Change>) -> impl FnMut(Change) {
    let most = changes.len() + LISTED_MAX;
    move |change| {
        if changes.len() < most {
            changes.push(change);
        }
    }
}

/// Sources that one policy's clients have and the other's clients of the same name have not, and the reverse.
fn moved<'a>(old: &'a Policy, new: &'a Policy) -> (Vec<Candidate<'a>>, Vec<Candidate<'a>>) {
    let by_name = |policy: &'a Policy| -> BTreeMap<&'a str, &'a Client> {
        let clients = policy.clients.iter();
        clients.map(|client| (client.name.as_str(), client)).collect()
    };
    let (old_clients, new_clients) = (by_name(old), by_name(new));
    let mut moved = (Vec::new(), Vec::new());
    for (name, client) in &old_clients {
        let other = new_clients.get(name).copied();
        missing((old, client), other.map(|other| (new, other)), &mut moved.0);
    }
    for (name, client) in &new_clients {
        let other = old_clients.get(name).copied();
        missing((new, client), other.map(|other| (old, other)), &mut moved.1);
    }
    moved
}

/// What a client has beyond the other of its name.
fn missing<'a>(
    (policy, client): (&'a Policy, &'a Client),
    other: Option<(&'a Policy, &'a Client)>,
    out: &mut Vec<Candidate<'a>>,
) {
    let services = services_of(policy, client);
    if services.is_empty() {
        return;
    }
    let others = other
        .map(|(policy, client)| services_of(policy, client))
        .unwrap_or_default();
    let beyond: Arc<[&str]> = services
        .iter()
        .filter(|service| !others.contains(service))
        .copied()
        .collect();
    let services: Arc<[&str]> = services.into();
    let others: &[Source] = match other {
        Some((_, client)) if !others.is_empty() => &client.sources,
        _ => &[],
    };
    let mut others = others.iter().peekable();
    for source in &client.sources {
        while others.next_if(|other| other.prefix < source.prefix).is_some() {}
        let has = others.peek().is_some_and(|other| other.prefix == source.prefix);
        let services = if has { &beyond } else { &services };
        if !services.is_empty() {
            out.push(Candidate {
                prefix: source.prefix,
                client: &client.name,
                services: Arc::clone(services),
            });
        }
    }
}

/// A value without what says where it was written.
pub(super) fn without_places(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.into_iter().filter(|(name, _)| !name.ends_with("origin"));
            Value::Object(
                kept.map(|(name, value)| (name, without_places(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(list) => list.into_iter().map(without_places).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::text::PolicyText;

    fn policy(clients: &[(&str, &[&str], &str)]) -> Policy {
        let mut text = String::from(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nmanagement-none = true\n\
             [[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [443]\n\
             [[service]]\nname = \"b\"\nprotocol = \"udp\"\nports = [53]\n",
        );
        for (name, sources, services) in clients {
            text +=
                &format!("[[client]]\nname = \"{name}\"\nsources = {sources:?}\nservices = [{services}]\n");
        }
        PolicyText::policy(text)
    }

    /// What clients lose that no client of the new policy gives.
    fn lost(old: &[(&str, &[&str], &str)], new: &[(&str, &[&str], &str)]) -> Vec<String> {
        let (old, new) = (policy(old), policy(new));
        let (lost, _) = moved(&old, &new);
        let cover = Cover::of_clients(&lost, &new);
        let left = lost.iter().map(|candidate| (candidate, cover.left(candidate)));
        let left = left.filter(|(_, services)| !services.is_empty());
        left.map(|(candidate, services)| format!("{} {}", candidate.prefix, services.join(",")))
            .collect()
    }

    const BOTH: &[&str] = &["198.51.100.7", "2001:db8::/64"];

    #[test]
    fn source_is_lost_where_nothing_else_admits_it_to_the_service() {
        let old: &[(&str, &[&str], &str)] = &[("c", BOTH, "\"a\", \"b\"")];
        assert_eq!(lost(old, old), [""; 0]);
        assert_eq!(lost(old, &[]), ["198.51.100.7/32 a,b", "2001:db8::/64 a,b"]);
        assert_eq!(
            lost(old, &[("c", &["2001:db8::/64"], "\"*\"")]),
            ["198.51.100.7/32 a,b"]
        );
        assert_eq!(
            lost(old, &[("c", BOTH, "\"a\"")]),
            ["198.51.100.7/32 b", "2001:db8::/64 b"]
        );
        // Under other names, and by a wider prefix.
        let wider: &[(&str, &[&str], &str)] = &[
            ("d", &["198.51.100.0/24"], "\"a\""),
            ("e", &["2001:db8::/32"], "\"*\""),
        ];
        assert_eq!(lost(old, wider), ["198.51.100.7/32 b"]);
        let narrower: &[(&str, &[&str], &str)] = &[("c", &["198.51.100.7", "2001:db8::/65"], "\"*\"")];
        assert_eq!(lost(old, narrower), ["2001:db8::/64 a,b"]);
    }
}
