//! The places of a listener: how many connections there are at one time, and whose.
//!
//! No user (on TCP: no address), and no few of them together, may take them all, idle or not, and some are kept for
//! operators: who floods a listener must not keep an operator from denying it. Says nothing of what a connection may ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::peer::Peer;

/// Who has so many times as many places as are left free gets no more of them.
pub(super) const SHARE: usize = 2;
/// One of so many places of a Unix listener is for operators alone; nobody on TCP is one.
pub(super) const KEPT: usize = 8;

/// Who takes a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    User(u32),
    /// Of IPv6 the /64: a host chooses the rest.
    Address(IpAddr),
    Unknown,
}

impl Source {
    pub(super) fn of_peer(peer: Peer) -> Source {
        match peer {
            Peer::Unix { uid, .. } => Source::User(uid),
            Peer::Unknown => Source::Unknown,
        }
    }

    pub(super) fn of_address(address: IpAddr) -> Source {
        Source::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            address => address,
        })
    }
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Slots {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    open: Pool,
    /// For operators, where the open ones are not theirs to take.
    kept: Pool,
}

/// Places, and who has how many of them.
#[derive(Debug)]
struct Pool {
    free: usize,
    taken: HashMap<Source, usize>,
}

impl Pool {
    fn new(places: usize) -> Pool {
        Pool {
            free: places,
            taken: HashMap::new(),
        }
    }

    /// Nobody has more than twice as many as are left free: one alone has two thirds, two have two fifths each, and
    /// whoever has fewer finds room.
    fn take(&mut self, source: Source) -> bool {
        let has = self.taken.get(&source).copied().unwrap_or(0);
        if has >= SHARE * self.free {
            return false;
        }
        self.free -= 1;
        self.taken.insert(source, has + 1);
        true
    }

    fn give_back(&mut self, source: Source) {
        self.free += 1;
        let left = self.taken.get(&source).map_or(0, |has| has.saturating_sub(1));
        // Nothing is kept of who has left.
        match left {
            0 => drop(self.taken.remove(&source)),
            left => drop(self.taken.insert(source, left)),
        }
    }
}

impl Slots {
    pub(super) fn new(connections_max: usize, may_operate: bool) -> Slots {
        let kept = if may_operate { connections_max / KEPT } else { 0 };
        let held = Held {
            open: Pool::new(connections_max - kept),
            kept: Pool::new(kept),
        };
        Slots {
            held: Arc::new(Mutex::new(held)),
        }
    }

    /// None where there is no place for this source; until the slot is dropped it is taken.
    pub(super) fn take(&self, source: Source, is_operator: bool) -> Option<Slot> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = match is_operator {
            _ if held.open.take(source) => false,
            true if held.kept.take(source) => true,
            _ => return None,
        };
        Some(Slot {
            source,
            is_kept,
            held: Arc::clone(&self.held),
        })
    }
}

/// A place that is taken.
#[derive(Debug)]
pub(super) struct Slot {
    source: Source,
    is_kept: bool,
    held: Arc<Mutex<Held>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = match self.is_kept {
            true => &mut held.kept,
            false => &mut held.open,
        };
        pool.give_back(self.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(slots: &Slots, source: Source, is_operator: bool) -> Vec<Slot> {
        std::iter::from_fn(|| slots.take(source, is_operator)).collect()
    }

    #[test]
    fn whoever_has_fewer_places_than_others_finds_one_and_who_has_more_does_not() {
        let slots = Slots::new(512, true);
        let mut taken = Vec::new();
        for (uid, most) in [(1_000, 299), (1_001, 100), (1_002, 33), (1_003, 11)] {
            let mine = all_of(&slots, Source::User(uid), false);
            assert_eq!(mine.len(), most, "{uid}");
            taken.push(mine);
        }
        // What one gives back is not the greedy one's again.
        taken[0].truncate(100);
        assert!(slots.take(Source::User(1_001), false).is_some());
        taken[0].extend(all_of(&slots, Source::User(1_000), false));
        let has: Vec<usize> = taken.iter().map(Vec::len).collect();
        assert_eq!(has, [203, 100, 33, 11]);
        drop(taken);
        let held = slots.held.lock().unwrap();
        assert!(held.open.taken.is_empty() && held.open.free == 448);
    }

    #[test]
    fn as_many_users_as_there_are_places_leave_the_operators_theirs_and_these_leave_each_other_some() {
        let slots = Slots::new(64, true);
        let crowd: Vec<Slot> = (1_000..1_100)
            .filter_map(|uid| slots.take(Source::User(uid), false))
            .collect();
        assert_eq!(crowd.len(), 56);
        assert!(slots.take(Source::User(1_100), false).is_none());
        let root = all_of(&slots, Source::User(0), true);
        let other = all_of(&slots, Source::User(1_000), true);
        assert_eq!((root.len(), other.len()), (6, 2));
        drop((crowd, root, other));
        assert!(slots.held.lock().unwrap().kept.taken.is_empty());
        // On TCP nobody is an operator, and nothing is kept.
        assert_eq!(all_of(&Slots::new(64, false), Source::Unknown, false).len(), 43);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let of = |text: &str| Source::of_address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
