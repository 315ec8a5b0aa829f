//! A map of one value, for user space alone: what a later start is told of the state folder that the filter was made with.
//!
//! It is pinned beside the tables of each generation, so a release that does not know it leaves it behind with the first
//! generation that it makes: nobody is told of what that one has changed since. Written by one call, which no kill cuts in
//! two.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::{Array, Map, MapData, MapError};

use super::load::data;
use super::pins::{Found, PinError, Pins};
use super::repin::exists;
use super::{chain, raw};
use crate::bindings::witness::{PolicyTold, StoreTold, Witness};

/// Its pin in a generation's folder, and its name.
pub(super) const NAME: &str = "WITNESS";

const MAGIC: u64 = u64::from_be_bytes(*b"keyfence");
/// Raised where the words mean something else.
const FORMAT: u64 = 1;

/// Magic, format, the store's revision, the policy's number; then, as text, the store's id and the policy's hash.
type Words = [u64; WORDS];
const ID: usize = 4;
const HASH: usize = 8;
const WORDS: usize = 16;

pub struct WitnessMap {
    map: Map,
}

impl WitnessMap {
    /// A new one, which tells of nothing and is pinned nowhere.
    pub fn make() -> Result<Self, MapError> {
        let made = raw::array(NAME, size_of::<Words>() as u32);
        let made = made.map_err(MapError::IoError)?;
        Self::over(MapData::from_fd(made)?)
    }

    /// The one that is pinned beside a generation's tables, if any is.
    pub fn pinned(pins: &Pins, generation: u64) -> Result<Option<Self>, MapError> {
        let path = pins.witness(generation);
        match exists(&path) {
            true => Ok(Some(Self::over(MapData::from_pin(path)?)?)),
            false => Ok(None),
        }
    }

    fn over(data: MapData) -> Result<Self, MapError> {
        let witness = Self {
            map: Map::from_map_data(data)?,
        };
        // Whether it has the size.
        witness.words()?;
        Ok(witness)
    }

    fn words(&self) -> Result<Words, MapError> {
        let array: Array<&MapData, Words> = (&self.map).try_into()?;
        array.get(&0, 0)
    }

    /// What it tells; nothing where nothing was written yet. The error is why it is none of this release's.
    pub fn read(&self) -> Result<Option<Witness>, String> {
        let words = self.words().map_err(|error| chain(&error))?;
        match words {
            [0, ..] => Ok(None),
            [MAGIC, FORMAT, ..] => Ok(Some(unpacked(&words))),
            [MAGIC, format, ..] => Err(format!(
                "it is of format {format}, and this release reads {FORMAT}"
            )),
            _ => Err(String::from("no Keyfence wrote it")),
        }
    }

    pub fn write(&self, witness: &Witness) -> io::Result<()> {
        let map = data(Some(&self.map)).ok_or(io::ErrorKind::InvalidInput)?;
        raw::update(map.fd().as_fd(), &[0u32], &[packed(witness)]).map_err(|(_, error)| error)
    }

    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        let map = data(Some(&self.map)).ok_or(io::ErrorKind::InvalidInput)?;
        raw::pin(map.fd().as_fd(), path)
    }
}

impl Pins {
    /// What the filter here tells a start, before anything is opened. What cannot be read tells nothing; who makes it anew
    /// says so.
    pub fn tells(&self) -> Option<Witness> {
        let meta = match self.look() {
            Ok(Found::Ours(meta) | Found::Other(meta) | Found::Torn(meta)) => meta,
            Err(PinError::Newer { meta, .. }) => meta,
            Ok(Found::Nothing | Found::Half) | Err(_) => return None,
        };
        let pinned = WitnessMap::pinned(self, meta.generation).ok()??;
        pinned.read().ok()?
    }
}

fn packed(witness: &Witness) -> Words {
    let mut words = [0; WORDS];
    let Witness { store, policy } = witness;
    words[..ID].copy_from_slice(&[MAGIC, FORMAT, store.revision, policy.number]);
    put(&mut words[ID..HASH], &store.id);
    put(&mut words[HASH..], &policy.hash);
    words
}

fn unpacked(words: &Words) -> Witness {
    Witness {
        store: StoreTold {
            revision: words[2],
            id: text(&words[ID..HASH]),
        },
        policy: PolicyTold {
            number: words[3],
            hash: text(&words[HASH..]),
        },
    }
}

/// Ids have 16 bytes and hashes 64; more would be cut.
fn put(words: &mut [u64], text: &str) {
    for (word, bytes) in words.iter_mut().zip(text.as_bytes().chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
}

fn text(words: &[u64]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_what_was_put_into_them() {
        let witness = Witness {
            store: StoreTold {
                id: "0123456789abcdef".to_owned(),
                revision: 4711,
            },
            policy: PolicyTold {
                number: 7,
                hash: "f".repeat(64),
            },
        };
        assert_eq!(unpacked(&packed(&witness)), witness);
        let unwritten = Witness {
            policy: PolicyTold::default(),
            ..witness
        };
        assert_eq!(unpacked(&packed(&unwritten)), unwritten);
    }
}
