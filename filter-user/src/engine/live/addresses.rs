//! What single addresses say: worked out first, where nothing refers to it yet, then written, a word each.

use filter_common::abi::Source;
use filter_common::bounds::OWNERS_PER_SOURCE_MAX;
use filter_common::lookup::Value;
use filter_common::lookup::prefixes::{
    GATE_PREFIXES, GATE_WIDE, REMOVED, Shape as _, parts, search_v4, search_v6,
};
use ipnet::IpNet;

use super::{Live, Meaning, Stop, halves};
use crate::compiler::mapped;

/// What a single address is to say.
pub(super) struct Planned {
    source: IpNet,
    value: u32,
}

impl Live {
    /// What single addresses are to say without one owner, and with another. Nothing refers to it yet.
    pub(super) fn plan<'s>(
        &mut self,
        sources: impl Iterator<Item = &'s IpNet>,
        without: Option<u32>,
        with: Option<u32>,
    ) -> Result<Vec<Planned>, Stop> {
        let mut planned = Vec::new();
        for source in sources {
            planned.extend(self.plan_one(source, without, with)?);
        }
        let new = planned
            .iter()
            .filter(|planned| self.values_at(&planned.source).0.is_none());
        let (v4, v6): (Vec<_>, Vec<_>) = new.partition(|planned| planned.source.addr().is_ipv4());
        let (v4, v6) = (v4.len() as u64, v6.len() as u64);
        let full = self
            .fill
            .sources_v4
            .refuses(v4)
            .or_else(|| self.fill.sources_v6.refuses(v6));
        match full.filter(|_| with.is_some()) {
            Some((table, needed, max)) => Err(Stop::Full(table, needed, max)),
            None => Ok(planned),
        }
    }

    fn plan_one(
        &mut self,
        source: &IpNet,
        without: Option<u32>,
        with: Option<u32>,
    ) -> Result<Option<Planned>, Stop> {
        let (here, around) = self.values_at(source);
        let inherited = self.meaning(around)?;
        let (management, denied, owners) = match here {
            Some(value) => self.meaning(value)?,
            None => inherited.clone(),
        };
        let mut own = match here {
            Some(_) => owners,
            None => Vec::new(),
        };
        // Its own are all but what it has from around it, unless an owner has both.
        let both = |owner: &u32| self.doubled.contains(&(mapped(source.addr()), *owner));
        own.retain(|owner| {
            let stays = Some(*owner) != without && Some(*owner) != with;
            stays && (!inherited.2.contains(owner) || both(owner))
        });
        if let Some(number) = with {
            let name = |number: &u32| self.names.get(number);
            let place = own.partition_point(|owner| name(owner) < name(&number));
            own.insert(place, number);
        }
        let value = if own.is_empty() && (management, denied) == (inherited.0, inherited.1) {
            if here.is_none() {
                return Ok(None);
            }
            REMOVED
        } else {
            let behind = inherited.2.iter().filter(|owner| !own.contains(owner)).copied();
            let all: Vec<u32> = own.iter().copied().chain(behind).collect();
            if all.len() > OWNERS_PER_SOURCE_MAX as usize {
                return Err(Stop::TooManyOwners {
                    prefix: source.to_string(),
                });
            }
            self.value((management, denied, all))?
        };
        Ok(Some(Planned {
            source: *source,
            value,
        }))
    }

    pub(super) fn write(&self, planned: Vec<Planned>) -> Result<(), Stop> {
        for Planned { source, value } in planned {
            let was = self.values_at(&source).0.is_some();
            let table = match source {
                IpNet::V4(net) => {
                    self.edit.set_host_v4(net.addr().to_bits(), value)?;
                    &self.fill.sources_v4
                }
                IpNet::V6(net) => {
                    let (upper, lower) = halves(net.addr());
                    self.edit.set_host_v6(upper, lower, value)?;
                    &self.fill.sources_v6
                }
            };
            match (was, value != REMOVED) {
                (false, true) => table.add(),
                (true, false) => table.take(),
                _ => {}
            }
        }
        Ok(())
    }

    /// The value of a single address by itself, and by the prefixes around it.
    pub(super) fn values_at(&self, source: &IpNet) -> (Option<u32>, u32) {
        let has = self.prefixes.parts();
        match source {
            IpNet::V4(net) => {
                let address = net.addr().to_bits();
                let around = if has & parts::PREFIXES_V4 != 0 {
                    search_v4(&self.prefixes, address)
                } else {
                    0
                };
                (self.edit.host_v4(address), around)
            }
            IpNet::V6(net) => {
                let (upper, lower) = halves(net.addr());
                let around = if has & parts::PREFIXES_V6 != 0 {
                    search_v6(&self.prefixes, upper, lower, GATE_PREFIXES | GATE_WIDE)
                } else {
                    0
                };
                (self.edit.host_v6(upper, lower), around)
            }
        }
    }

    pub(super) fn meaning(&self, value: u32) -> Result<Meaning, Stop> {
        match Value::unpack(value) {
            Value::None => Ok((0, 0, Vec::new())),
            Value::Owner(number) => Ok((0, 0, vec![number])),
            Value::Source(number) => {
                let source = self.edit.source(number).ok_or(Stop::Generation)?;
                let start = source.owners_start;
                let owners = match source.owners_length {
                    1 => Some(vec![start]),
                    length => (start..start + length)
                        .map(|position| self.edit.grant(position))
                        .collect(),
                };
                Ok((
                    source.management,
                    source.denied_until,
                    owners.ok_or(Stop::Generation)?,
                ))
            }
        }
    }

    fn value(&mut self, meaning: Meaning) -> Result<u32, Stop> {
        if let (0, 0, [number]) = (meaning.0, meaning.1, meaning.2.as_slice()) {
            return Ok(Value::Owner(*number).pack());
        }
        if let Some(value) = self.values.get(&meaning) {
            return Ok(*value);
        }
        let owners = &meaning.2;
        let start = match owners.as_slice() {
            [] => 0,
            [number] => *number,
            _ => {
                self.edit.set_grants(self.grants_end, owners)?;
                let start = self.grants_end;
                self.grants_end += owners.len() as u32;
                start
            }
        };
        let source = Source {
            management: meaning.0,
            denied_until: meaning.1,
            owners_start: start,
            owners_length: owners.len() as u32,
        };
        self.edit.set_source(self.sources_end, source)?;
        let value = Value::Source(self.sources_end).pack();
        self.sources_end += 1;
        self.values.insert(meaning, value);
        Ok(value)
    }
}
