//! Who is at the other end of a connection, and whether that is an operator.
//!
//! The kernel tells the peer's user and group as of its connect (SO_PEERCRED). Which groups the user is in comes
//! from the host's database: it cannot be raced, unlike a look at the process.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

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
    /// Whether the peer is one of `operators`: users, and groups as `@wheel`. Asks the host's databases: it may
    /// block. An entry that the host does not know fits nobody.
    pub fn is_operator(self, operators: &[String]) -> bool {
        match self {
            Peer::Unix { uid: OVERFLOW_ID, .. } | Peer::Unknown => false,
            Peer::Unix { uid, gid } => operators.iter().any(|operator| match operator.strip_prefix('@') {
                Some(group) => is_member(uid, gid, group),
                None => matches!(User::from_name(operator), Ok(Some(user)) if user.uid == Uid::from_raw(uid)),
            }),
        }
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

fn is_member(uid: u32, gid: u32, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else {
        return false;
    };
    if group.gid == Gid::from_raw(gid) {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return false;
    };
    let Ok(name) = CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operators(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn user_is_an_operator_by_name_or_by_group_and_nobody_else_is() {
        let root = Peer::Unix { uid: 0, gid: 0 };
        assert!(root.is_operator(&operators(&["root"])));
        assert!(root.is_operator(&operators(&["@root"])));
        assert!(!root.is_operator(&operators(&[
            "daemon",
            "@daemon",
            "no-such-user",
            "@no-such-group"
        ])));
        assert!(!root.is_operator(&[]));
        assert!(!Peer::Unix { uid: 1, gid: 1 }.is_operator(&operators(&["root", "@root"])));
    }

    #[test]
    fn unknown_peer_and_overflow_user_are_never_operators() {
        let all = operators(&["root", "nobody", "@nogroup", "@root"]);
        assert!(!Peer::Unknown.is_operator(&all));
        assert!(
            !Peer::Unix {
                uid: OVERFLOW_ID,
                gid: 0
            }
            .is_operator(&all)
        );
    }
}
