//! Cases as a file of 64-bit words: what the vectors say, with names already turned into numbers and policies into
//! tables. Owns the form of the file; made anew for each run, so it has no version.

use filter_common::abi::{Class, Limit, LimitSet, Owner, Service, Source};

use crate::compiler::{Compiled, Key, Room};

/// One judge with full buckets, and its cases in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Whose cases these are: a file's name.
    pub name: String,
    pub compiled: Compiled,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    pub name: String,
    pub frame: Vec<u8>,
    pub times: u64,
    /// The filter's clock.
    pub now: u64,
    pub wanted: Wanted,
    /// The same where the host has a connection with the packet's four values.
    pub wanted_as_reply: Wanted,
}

/// A judgement, and where it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub verdict: u8,
    pub reason: u8,
    pub service: u32,
    pub owner: u32,
    pub bytes: u32,
    pub counter: u32,
}

pub fn write(groups: &Vec<Group>) -> Vec<u8> {
    let mut words = Vec::new();
    groups.put(&mut words);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `None` where the bytes are no file of cases.
pub fn read(bytes: &[u8]) -> Option<Vec<Group>> {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let groups = Vec::take(&mut words)?;
    (rest.is_empty() && words.next().is_none()).then_some(groups)
}

/// A value as words.
trait Words: Sized {
    fn put(&self, words: &mut Vec<u64>);
    fn take(words: &mut impl Iterator<Item = u64>) -> Option<Self>;
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Words for $type {
            fn put(&self, words: &mut Vec<u64>) {
                words.push(u64::from(*self));
            }
            fn take(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
                words.next()?.try_into().ok()
            }
        }
    )*};
}
number!(u8, u16, u32, u64);

impl<T: Words + Copy + Default, const N: usize> Words for [T; N] {
    fn put(&self, words: &mut Vec<u64>) {
        self.iter().for_each(|item| item.put(words));
    }
    fn take(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
        let mut items = [T::default(); N];
        for item in &mut items {
            *item = T::take(words)?;
        }
        Some(items)
    }
}

impl<A: Words, B: Words> Words for (A, B) {
    fn put(&self, words: &mut Vec<u64>) {
        self.0.put(words);
        self.1.put(words);
    }
    fn take(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
        Some((A::take(words)?, B::take(words)?))
    }
}

/// More than any table of the cases has: words that are no file of cases may ask for all the memory there is.
const ITEMS_MAX: usize = 1 << 24;

/// As runs of equal values: most tables are nearly empty.
impl<T: Words + Clone + PartialEq> Words for Vec<T> {
    fn put(&self, words: &mut Vec<u64>) {
        let runs: Vec<&[T]> = self.chunk_by(|a, b| a == b).collect();
        (runs.len() as u64).put(words);
        for run in runs {
            (run.len() as u64).put(words);
            run[0].put(words);
        }
    }
    fn take(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
        let mut items = Vec::new();
        for _ in 0..words.next()? {
            let length = usize::try_from(words.next()?).ok()?;
            let item = T::take(words)?;
            let longer = items.len().checked_add(length)?;
            if longer > ITEMS_MAX {
                return None;
            }
            items.resize(longer, item);
        }
        Some(items)
    }
}

impl Words for String {
    fn put(&self, words: &mut Vec<u64>) {
        self.as_bytes().to_vec().put(words);
    }
    fn take(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
        String::from_utf8(Vec::take(words)?).ok()
    }
}

macro_rules! fields {
    ($type:ty, [$($parameters:tt)*], $($field:ident),*) => {
        impl<$($parameters)*> Words for $type {
            fn put(&self, words: &mut Vec<u64>) {
                $(self.$field.put(words);)*
            }
            fn take(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
                Some(Self { $($field: Words::take(words)?),* })
            }
        }
    };
}
fields!(Group, [], name, compiled, cases);
fields!(Case, [], name, frame, times, now, wanted, wanted_as_reply);
fields!(Wanted, [], verdict, reason, service, owner, bytes, counter);
fields!(Key<N>, [const N: usize], address, length);
fields!(Source, [], management, denied_until, owners_start, owners_length);
fields!(LimitSet, [], packets, bytes, connections);
fields!(Class, [], management, tcp_row, udp_row, any_row, flags);
fields!(Limit, [], cost, span, shift, reserved);
fields!(Service, [], flags, limits);
fields!(
    Owner,
    [],
    end,
    limits,
    row,
    source_port_first,
    source_port_last,
    port_set,
    publisher,
    flags
);
fields!(
    Compiled,
    [],
    flags,
    row_words,
    sources_v4,
    sources_v6,
    sources,
    addresses,
    classes,
    ports,
    port_masks,
    rows,
    grants,
    doubled_v4,
    doubled_v6,
    owners,
    port_sets,
    limits,
    services,
    source_lines,
    room
);
fields!(
    Room,
    [],
    hosts_v4,
    hosts_v6,
    owners,
    prefixes,
    parts,
    sources,
    grants,
    shared,
    port_sets
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let case = Case {
            name: "a frame passes".into(),
            frame: vec![0xff, 0, 0, 0, 7],
            times: 3,
            wanted: Wanted {
                owner: u32::MAX,
                ..Wanted::default()
            },
            ..Case::default()
        };
        let mut compiled = Compiled {
            flags: 5,
            ports: vec![0; 1000],
            ..Compiled::default()
        };
        compiled.sources_v6.push((
            Key {
                address: [9; 16],
                length: 128,
            },
            7,
        ));
        let groups = vec![Group {
            name: "one".into(),
            compiled,
            cases: vec![case.clone(), case],
        }];
        let bytes = write(&groups);
        assert_eq!(read(&bytes), Some(groups));
        assert_eq!(read(&bytes[8..]), None);
        assert_eq!(read(&bytes[..bytes.len() - 1]), None);
    }
}
