//! Source prefixes: for each, everything that holds for the addresses whose longest listed prefix it is.
//!
//! A prefix inherits from the shorter ones around it (denied, management, owners), so the kernel's one look-up
//! gives the union: a /32 for one owner never hides another owner's /8.

use std::cmp::Ordering;
use std::collections::HashMap;

use filter_common::abi::Source;
use filter_common::bounds::OWNERS_PER_SOURCE_MAX;
use filter_common::lookup::Value;
use ipnet::IpNet;

use super::destinations::Management;
use super::{CompileError, Key, Numbers, Pushed};
use crate::policy::model::{Client, Policy};

pub(super) struct Sources {
    /// Prefixes and their `Value`s.
    pub v4: Vec<(Key<4>, u32)>,
    pub v6: Vec<(Key<16>, u32)>,
    /// What values mean that are no single owner.
    pub sources: Vec<Source>,
    pub grants: Vec<u32>,
    /// Prefixes that an owner names beside one around them.
    pub doubled_v4: Vec<(Key<4>, u32)>,
    pub doubled_v6: Vec<(Key<16>, u32)>,
}

/// What a policy says of one prefix itself.
#[derive(Clone, Copy)]
struct Statement<const N: usize> {
    key: Key<N>,
    said: Said,
}

impl<const N: usize> Statement<N> {
    fn names(&self, owner: u32) -> bool {
        matches!(self.said, Said::Owner(_, number) if number == owner)
    }
}

#[derive(Clone, Copy)]
enum Said {
    /// Until when, in the filter's clock.
    Denied(u64),
    Management(u64),
    /// The owner's place (see `Lists::by_name`), and its number.
    Owner(u32, u32),
}

pub(super) fn build(
    policy: &Policy,
    numbers: &Numbers,
    management: &Management,
    pushed: &Pushed,
) -> Result<Sources, CompileError> {
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    let mut say = |prefix: &IpNet, said| match prefix {
        IpNet::V4(net) => {
            let (address, length) = (net.addr().octets(), net.prefix_len());
            let key = Key { address, length };
            v4.push(Statement { key, said });
        }
        IpNet::V6(net) => {
            let (address, length) = (net.addr().octets(), net.prefix_len());
            let key = Key { address, length };
            v6.push(Statement { key, said });
        }
    };
    // In the order of names: every `binding/` comes before every `client/`.
    let grantees = pushed.grantees.values().zip(numbers.grantees(pushed)?);
    for (order, (grantee, number)) in (0..).zip(grantees) {
        for prefix in grantee.sources.iter() {
            say(prefix, Said::Owner(order, *number));
        }
    }
    let first_client = pushed.grantees.len() as u32;
    let clients = policy.clients.iter().zip(numbers.clients(policy)?);
    for (order, (client, number)) in (first_client..).zip(clients) {
        if !client.enabled {
            continue;
        }
        for source in &client.sources {
            say(&source.prefix, Said::Owner(order, *number));
        }
    }
    for (sources, end) in pushed.denies.values() {
        for prefix in sources {
            say(prefix, Said::Denied(*end));
        }
    }
    for source in policy.denies.iter().flat_map(|deny| &deny.sources) {
        say(&source.prefix, Said::Denied(u64::MAX));
    }
    for (entry, mask) in policy.management.iter().zip(&management.masks) {
        for source in &entry.sources {
            say(&source.prefix, Said::Management(*mask));
        }
    }
    let mut lists = Lists {
        clients: &policy.clients,
        first_client,
        ..Lists::default()
    };
    let ((v4, doubled_v4), (v6, doubled_v6)) = (sweep(v4, &mut lists)?, sweep(v6, &mut lists)?);
    Ok(Sources {
        v4,
        v6,
        sources: lists.sources,
        grants: lists.grants,
        doubled_v4,
        doubled_v6,
    })
}

/// The lists of owners and what else sources are, each distinct one once.
#[derive(Default)]
struct Lists<'p> {
    clients: &'p [Client],
    /// The place of the first of them; before it stands what is pushed, in the order of names.
    first_client: u32,
    grants: Vec<u32>,
    starts: HashMap<Vec<u32>, u32>,
    sources: Vec<Source>,
    numbers: HashMap<(u64, u64, u32, u32), u32>,
}

impl Lists<'_> {
    /// Places in the order of their owners' names: clients are compared only where they meet.
    fn by_name(&self, one: u32, other: u32) -> Ordering {
        let name = |place: u32| {
            let client = self.clients.get(place.checked_sub(self.first_client)? as usize);
            client.map(|client| client.name.as_bytes())
        };
        name(one).cmp(&name(other)).then(one.cmp(&other))
    }

    /// The value of what holds at a prefix.
    fn value<const N: usize>(&mut self, around: &Around<N>) -> u32 {
        let owners_start = match around.owners.as_slice() {
            [] => 0,
            [number] if around.management == 0 && around.denied_until == 0 => {
                return Value::Owner(*number).pack();
            }
            [number] => *number,
            owners => self.place(owners),
        };
        let source = Source {
            management: around.management,
            denied_until: around.denied_until,
            owners_start,
            owners_length: around.owners.len() as u32,
        };
        let identity = (
            source.management,
            source.denied_until,
            owners_start,
            source.owners_length,
        );
        let number = *self.numbers.entry(identity).or_insert_with(|| {
            self.sources.push(source);
            self.sources.len() as u32 - 1
        });
        Value::Source(number).pack()
    }

    fn place(&mut self, owners: &[u32]) -> u32 {
        if let Some(start) = self.starts.get(owners) {
            return *start;
        }
        let start = self.grants.len() as u32;
        self.grants.extend_from_slice(owners);
        self.starts.insert(owners.to_vec(), start);
        start
    }
}

/// A prefix on the way from the widest to the one at hand.
struct Around<const N: usize> {
    key: Key<N>,
    denied_until: u64,
    management: u64,
    owners: Vec<u32>,
}

/// Prefixes, each with a number.
type Numbered<const N: usize> = Vec<(Key<N>, u32)>;

/// Sorted by address and length, a prefix comes right behind all that hold it: one pass with the chain of them. Gives
/// the prefixes with their values, and those that an owner names beside one around them.
fn sweep<const N: usize>(
    mut statements: Vec<Statement<N>>,
    lists: &mut Lists<'_>,
) -> Result<(Numbered<N>, Numbered<N>), CompileError> {
    // What is said of one prefix may come in any order.
    if !statements.is_sorted_by_key(|statement| statement.key) {
        statements.sort_unstable_by_key(|statement| statement.key);
    }
    let mut entries = Vec::with_capacity(statements.len());
    let mut doubled = Vec::new();
    let mut chain: Vec<Around<N>> = Vec::new();
    let mut rest = statements.as_slice();
    while let Some(first) = rest.first() {
        let key = first.key;
        let same = rest.iter().take_while(|statement| statement.key == key).count();
        let (own, behind) = rest.split_at(same);
        rest = behind;
        while chain.last().is_some_and(|around| !around.key.holds(&key)) {
            chain.pop();
        }
        // Most are single addresses that one owner names, inside of nothing.
        if let (
            &[
                Statement {
                    said: Said::Owner(_, number),
                    ..
                },
            ],
            None,
        ) = (own, chain.last())
            && key.is_single()
        {
            entries.push((key, Value::Owner(number).pack()));
            continue;
        }
        let around = inherit(key, own, chain.last(), lists);
        if let Some(parent) = chain.last() {
            let names = |number: &&u32| own.iter().any(|statement| statement.names(**number));
            let both = parent.owners.iter().filter(names);
            doubled.extend(both.map(|number| (key, *number)));
        }
        if around.owners.len() > OWNERS_PER_SOURCE_MAX as usize {
            return Err(CompileError::OwnersPerSource {
                prefix: key.to_string(),
                owners: around.owners.len(),
            });
        }
        entries.push((key, lists.value(&around)));
        if !key.is_single() {
            chain.push(around);
        }
    }
    Ok((entries, doubled))
}

/// What holds at a prefix: its own statements first (longest prefix first), then what is around it, each owner
/// once, at its longest prefix.
fn inherit<const N: usize>(
    key: Key<N>,
    own: &[Statement<N>],
    parent: Option<&Around<N>>,
    lists: &Lists<'_>,
) -> Around<N> {
    let mut around = Around {
        key,
        denied_until: parent.map_or(0, |parent| parent.denied_until),
        management: parent.map_or(0, |parent| parent.management),
        owners: Vec::new(),
    };
    let mut named: Vec<(u32, u32)> = Vec::new();
    for statement in own {
        match statement.said {
            Said::Denied(until) => around.denied_until = around.denied_until.max(until),
            Said::Management(mask) => around.management |= mask,
            Said::Owner(order, number) => named.push((order, number)),
        }
    }
    named.sort_unstable_by(|(one, _), (other, _)| lists.by_name(*one, *other));
    named.dedup();
    around.owners.extend(named.into_iter().map(|(_, number)| number));
    let own_length = around.owners.len();
    for number in parent.into_iter().flat_map(|parent| &parent.owners) {
        if !around.owners[..own_length].contains(number) {
            around.owners.push(*number);
        }
    }
    around
}
