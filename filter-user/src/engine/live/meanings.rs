//! What values mean, and the value for a meaning: written where nothing refers to it yet, and each one once.

use std::collections::HashMap;

use filter_common::abi::Source;
use filter_common::lookup::Value;

use super::Stop;
use crate::compiler::Compiled;
use crate::kernel::edit::Edit;

/// What holds at a prefix: its owners in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Meaning {
    pub(super) management: u64,
    pub(super) denied_until: u64,
    pub(super) owners: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Meanings {
    /// The values of what is more than one owner.
    values: HashMap<Meaning, u32>,
    pub(super) sources_end: u32,
    pub(super) grants_end: u32,
}

impl Meanings {
    pub(super) fn of(compiled: &Compiled) -> Self {
        let values = (0..).zip(&compiled.sources).map(|(number, source)| {
            let owners = match source.owners_length {
                0 => Vec::new(),
                1 => vec![source.owners_start],
                length => compiled.grants[source.owners_start as usize..][..length as usize].to_vec(),
            };
            let meaning = Meaning {
                management: source.management,
                denied_until: source.denied_until,
                owners,
            };
            (meaning, Value::Source(number).pack())
        });
        Self {
            values: values.collect(),
            sources_end: compiled.sources.len() as u32,
            grants_end: compiled.grants.len() as u32,
        }
    }

    pub(super) fn value(&mut self, edit: &Edit, meaning: &Meaning) -> Result<u32, Stop> {
        if let (0, 0, [number]) = (
            meaning.management,
            meaning.denied_until,
            meaning.owners.as_slice(),
        ) {
            return Ok(Value::Owner(*number).pack());
        }
        if let Some(value) = self.values.get(meaning) {
            return Ok(*value);
        }
        let start = match meaning.owners.as_slice() {
            [] => 0,
            [number] => *number,
            owners => {
                edit.set_grants(self.grants_end, owners)?;
                let start = self.grants_end;
                self.grants_end += owners.len() as u32;
                start
            }
        };
        let source = Source {
            management: meaning.management,
            denied_until: meaning.denied_until,
            owners_start: start,
            owners_length: meaning.owners.len() as u32,
        };
        edit.set_source(self.sources_end, source)?;
        let value = Value::Source(self.sources_end).pack();
        self.sources_end += 1;
        self.values.insert(meaning.clone(), value);
        Ok(value)
    }
}

pub(super) fn meaning(edit: &Edit, value: u32) -> Result<Meaning, Stop> {
    match Value::unpack(value) {
        Value::None => Ok(Meaning::default()),
        Value::Owner(number) => Ok(Meaning {
            owners: vec![number],
            ..Meaning::default()
        }),
        Value::Source(number) => {
            let source = edit.source(number).ok_or(Stop::Generation)?;
            let start = source.owners_start;
            let owners = match source.owners_length {
                1 => Some(vec![start]),
                length => (start..start + length)
                    .map(|position| edit.grant(position))
                    .collect(),
            };
            Ok(Meaning {
                management: source.management,
                denied_until: source.denied_until,
                owners: owners.ok_or(Stop::Generation)?,
            })
        }
    }
}
