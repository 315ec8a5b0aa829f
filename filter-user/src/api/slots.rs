//! The places of a listener: how many connections there are at one time, and whose.
//!
//! No one user (on TCP: no one address) may take them all, idle or not, and some are kept for operators: who floods a
//! listener must not keep an operator from denying it. Says nothing of what a connection may ask.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::{Group, User};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::peer::{OVERFLOW_ID, Peer};

/// One user or address has at most one of so many places: a gateway is one, and needs many.
const SHARE: usize = 2;
/// One of so many places of a Unix listener is for operators alone; nobody on TCP is one.
const KEPT: usize = 8;
const ROOT: u32 = 0;

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

/// The ids behind `[daemon] operators`, as of the start: nothing here may wait for the host's databases. Good for a
/// place, not for a right.
#[derive(Debug, Default)]
pub(super) struct OperatorIds {
    users: HashSet<u32>,
    groups: HashSet<u32>,
}

impl OperatorIds {
    /// Asks the host's databases: it may block.
    pub(super) fn of(operators: &[String]) -> OperatorIds {
        let mut ids = OperatorIds::default();
        for operator in operators {
            match operator.strip_prefix('@') {
                Some(group) => {
                    let group = Group::from_name(group).ok().flatten();
                    ids.groups.extend(group.map(|group| group.gid.as_raw()));
                }
                None => {
                    let user = User::from_name(operator).ok().flatten();
                    ids.users.extend(user.map(|user| user.uid.as_raw()));
                }
            }
        }
        ids
    }

    /// `groups` as of the peer's connect. Root always is: it could end the daemon as well.
    pub(super) fn has(&self, peer: Peer, groups: &[u32]) -> bool {
        match peer {
            Peer::Unix { uid: OVERFLOW_ID, .. } | Peer::Unknown => false,
            Peer::Unix { uid, gid } => {
                let of_group = |gid| self.groups.contains(gid);
                uid == ROOT || self.users.contains(&uid) || of_group(&gid) || groups.iter().any(of_group)
            }
        }
    }
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Slots {
    open: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    share: usize,
    held: Arc<Mutex<HashMap<Source, usize>>>,
}

impl Slots {
    pub(super) fn new(connections_max: usize, may_operate: bool) -> Slots {
        let kept = if may_operate { connections_max / KEPT } else { 0 };
        Slots {
            open: Arc::new(Semaphore::new(connections_max - kept)),
            kept: Arc::new(Semaphore::new(kept)),
            share: (connections_max / SHARE).max(1),
            held: Arc::default(),
        }
    }

    /// None where there is no place for this source; until the slot is dropped it is taken.
    pub(super) fn take(&self, source: Source, is_operator: bool) -> Option<Slot> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let has = held.get(&source).copied().unwrap_or(0);
        let open = || Arc::clone(&self.open).try_acquire_owned().ok();
        let kept = || Arc::clone(&self.kept).try_acquire_owned().ok();
        let permit = match is_operator {
            true => open().or_else(kept)?,
            false if has < self.share => open()?,
            false => return None,
        };
        held.insert(source, has + 1);
        Some(Slot {
            source,
            held: Arc::clone(&self.held),
            _permit: permit,
        })
    }
}

/// A place that is taken.
#[derive(Debug)]
pub(super) struct Slot {
    source: Source,
    held: Arc<Mutex<HashMap<Source, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.get(&self.source).map_or(0, |has| has.saturating_sub(1));
        // Nothing is kept of who has left.
        match left {
            0 => drop(held.remove(&self.source)),
            left => drop(held.insert(self.source, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_takes_more_than_half_and_all_together_leave_the_operators_theirs() {
        let slots = Slots::new(64, true);
        let mut taken = Vec::new();
        for uid in 1_000..1_010 {
            let mine = std::iter::from_fn(|| slots.take(Source::User(uid), false));
            let mine: Vec<Slot> = mine.collect();
            assert!(mine.len() <= 32, "{}", mine.len());
            taken.extend(mine);
        }
        assert_eq!(taken.len(), 56);
        let operators: Vec<Slot> = std::iter::from_fn(|| slots.take(Source::User(0), true)).collect();
        assert_eq!(operators.len(), 8);
        // Who leaves makes room, and is forgotten.
        drop(taken);
        assert!(slots.take(Source::User(1_000), false).is_some());
        drop(operators);
        assert!(slots.held.lock().unwrap().is_empty());
    }

    #[test]
    fn root_users_and_groups_of_the_operators_are_known_and_nobody_is_none_of_them() {
        let ids = OperatorIds::of(&["daemon".to_owned(), "@sys".to_owned(), "no-such-user".to_owned()]);
        let peer = |uid, gid| Peer::Unix { uid, gid };
        let daemon = User::from_name("daemon").unwrap().unwrap().uid.as_raw();
        let sys = Group::from_name("sys").unwrap().unwrap().gid.as_raw();
        assert!(ids.has(peer(0, 0), &[]) && ids.has(peer(daemon, 99_999), &[]));
        assert!(ids.has(peer(99_999, sys), &[]) && ids.has(peer(99_999, 99_999), &[7, sys]));
        assert!(!ids.has(peer(99_999, 99_999), &[99_998]));
        assert!(!ids.has(peer(OVERFLOW_ID, sys), &[sys]) && !ids.has(Peer::Unknown, &[]));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let of = |text: &str| Source::of_address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
