//! Who is at the other end of a connection, and whether that is an operator.
//!
//! The kernel tells the peer's user, group and further groups as of its connect (SO_PEERCRED, SO_PEERGROUPS): for
//! operators as for publishers. The host's databases only say which numbers the policy's names are.

use std::collections::HashSet;

use nix::unistd::{Group, Uid, User};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Unix {
        uid: u32,
        gid: u32,
    },
    /// A Unix socket whose peer the kernel does not tell, or TCP: nobody in particular.
    Unknown,
}

/// What an unmapped user or group of another user namespace looks like: it is nobody, whatever its name here is.
pub(super) const OVERFLOW_ID: u32 = 65534;

impl Peer {
    pub(super) fn is_root(self) -> bool {
        matches!(self, Peer::Unix { uid: 0, .. })
    }

    /// The name of its user on this host. It may block.
    pub(super) fn user(self) -> Option<String> {
        match self {
            Peer::Unix { uid: OVERFLOW_ID, .. } | Peer::Unknown => None,
            Peer::Unix { uid, .. } => {
                let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
                Some(user.name)
            }
        }
    }

    /// For the log: `uid 1000`.
    pub fn describe(self) -> String {
        match self {
            Peer::Unix { uid, .. } => format!("uid {uid}"),
            Peer::Unknown => "an unknown peer".to_owned(),
        }
    }
}

/// The numbers behind `[daemon] operators`: users, and groups as `@wheel`.
#[derive(Debug, Default)]
pub struct Operators {
    users: HashSet<u32>,
    groups: HashSet<u32>,
}

impl Operators {
    /// Asks the host's databases: it may block. An entry that the host does not know fits nobody.
    pub fn of(names: &[String]) -> Operators {
        let mut found = Operators::default();
        for name in names {
            match name.strip_prefix('@') {
                Some(group) => {
                    let group = Group::from_name(group).ok().flatten();
                    found.groups.extend(group.map(|group| group.gid.as_raw()));
                }
                None => {
                    let user = User::from_name(name).ok().flatten();
                    found.users.extend(user.map(|user| user.uid.as_raw()));
                }
            }
        }
        found.users.remove(&OVERFLOW_ID);
        found.groups.remove(&OVERFLOW_ID);
        found
    }

    /// `groups`: all that the peer is in, as of its connect.
    pub fn have(&self, peer: Peer, groups: &[u32]) -> bool {
        match peer {
            Peer::Unix { uid: OVERFLOW_ID, .. } | Peer::Unknown => false,
            Peer::Unix { uid, gid } => {
                let mut all = groups.iter().chain([&gid]);
                self.users.contains(&uid) || all.any(|gid| self.groups.contains(gid))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operators(names: &[&str]) -> Operators {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Operators::of(&names)
    }

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer::Unix { uid, gid }
    }

    #[test]
    fn user_is_an_operator_by_name_or_by_a_group_of_its_process_and_nobody_else_is() {
        let root = peer(0, 0);
        assert!(operators(&["root"]).have(root, &[]));
        assert!(operators(&["@root"]).have(root, &[]));
        let others = ["daemon", "@daemon", "no-such-user", "@no-such-group"];
        assert!(!operators(&others).have(root, &[]));
        assert!(!operators(&[]).have(root, &[]));
        assert!(!operators(&["root", "@root"]).have(peer(1, 1), &[]));
        let sys = Group::from_name("sys").unwrap().unwrap().gid.as_raw();
        let of_sys = operators(&["@sys"]);
        assert!(of_sys.have(peer(99_999, sys), &[]) && of_sys.have(peer(99_999, 99_999), &[7, sys]));
        // A group that its process does not have is none of its, whatever the host's database says of its user.
        assert!(!of_sys.have(peer(99_999, 99_999), &[99_998]) && !of_sys.have(peer(3, 99_999), &[]));
    }

    #[test]
    fn unknown_peer_and_overflow_user_and_group_are_never_operators() {
        let all = operators(&["root", "nobody", "@nogroup", "@root"]);
        assert!(!all.have(Peer::Unknown, &[0]));
        assert!(!all.have(peer(OVERFLOW_ID, 0), &[0]));
        assert!(!all.have(peer(99_999, OVERFLOW_ID), &[OVERFLOW_ID]));
    }
}
