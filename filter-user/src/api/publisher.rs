//! Which publisher a connection's other end is: by the listener's own socket, its user, or its groups.
//!
//! The first step that finds one decides; two at one step are refused, naming both. Users and groups are names in
//! the policy and numbers in the kernel: the host's databases are asked at most every few seconds, never for each
//! request. Certificates come with TLS listeners.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use nix::unistd::{Group, User};
use tokio::time::Instant;

use super::peer::{OVERFLOW_ID, Peer};
use crate::policy::Policy;
use crate::policy::model::PublisherIdentity;

/// How old the numbers of users and groups may be: one that is made meanwhile is known after this.
const NUMBERS_AGE_MAX: Duration = Duration::from_secs(10);

/// Why a peer is no publisher. The text names names of the policy alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAPublisher {
    #[error(
        "the listener {listener} lacks the role `publish`: add \"publish\" to its roles (roles are read at start)"
    )]
    RoleLacking { listener: String },
    #[error(
        "{who} is no `[[publisher]]` of the policy: not by its user, not by its groups, not by this socket"
    )]
    Unknown { who: String },
    #[error(
        "{who} is two publishers by its {by}: {}; give one of them a socket of its own, or another {by}",
        .names.join(" and ")
    )]
    Ambiguous {
        who: String,
        by: &'static str,
        names: Vec<String>,
    },
    #[error(
        "the user of the peer is not known on this host (another user namespace): give it a socket of its own"
    )]
    Unmapped,
}

/// The identities of a policy's publishers, as the kernel tells peers.
#[derive(Debug, Default)]
pub(super) struct Publishers {
    by_socket: Names<String>,
    by_user: Names<u32>,
    by_group: Names<u32>,
}

/// It may come to be while the daemon runs; until a reload after that, nobody is this publisher.
fn say_unknown(publisher: &str, kind: &str, name: &str, error: Option<nix::errno::Errno>) {
    let why = error.map_or(String::new(), |error| format!(" ({error})"));
    tracing::warn!(
        "publisher `{publisher}`: this host knows no {kind} `{name}`{why}, so nobody can push as it: make it, then `keyfence reload`"
    );
}

type Names<K> = HashMap<K, Vec<String>>;

impl Publishers {
    /// Asks the host's databases: it may block. A user or group that the host does not know fits nobody.
    pub(super) fn of_policy(policy: &Policy) -> Publishers {
        let mut found = Publishers::default();
        for publisher in &policy.publishers {
            let name = publisher.name.clone();
            match &publisher.identity {
                PublisherIdentity::Socket(address) => {
                    found.by_socket.entry(address.clone()).or_default().push(name)
                }
                PublisherIdentity::User(user) => match User::from_name(user) {
                    Ok(Some(user)) => found.by_user.entry(user.uid.as_raw()).or_default().push(name),
                    found => say_unknown(&name, "user", user, found.err()),
                },
                PublisherIdentity::Group(group) => match Group::from_name(group) {
                    Ok(Some(group)) => found.by_group.entry(group.gid.as_raw()).or_default().push(name),
                    found => say_unknown(&name, "group", group, found.err()),
                },
                PublisherIdentity::Certificate { .. } => {}
            }
        }
        found
    }

    /// `listener` is the address of the listener as in the policy, `groups` all that the peer is in.
    pub(super) fn find(&self, listener: &str, peer: Peer, groups: &[u32]) -> Result<&str, NotAPublisher> {
        let who = || peer.describe();
        if let Some(names) = self.by_socket.get(listener) {
            return only(names.iter(), "socket", who);
        }
        let Peer::Unix { uid, gid } = peer else {
            return Err(NotAPublisher::Unknown { who: who() });
        };
        if uid == OVERFLOW_ID {
            return Err(NotAPublisher::Unmapped);
        }
        if let Some(names) = self.by_user.get(&uid) {
            return only(names.iter(), "user", who);
        }
        let mut all: Vec<u32> = groups
            .iter()
            .copied()
            .chain([gid])
            .filter(|gid| *gid != OVERFLOW_ID)
            .collect();
        all.sort_unstable();
        all.dedup();
        only(
            all.iter().filter_map(|gid| self.by_group.get(gid)).flatten(),
            "groups",
            who,
        )
    }
}

fn only<'n>(
    mut names: impl Iterator<Item = &'n String>,
    by: &'static str,
    who: impl Fn() -> String,
) -> Result<&'n str, NotAPublisher> {
    let Some(name) = names.next() else {
        return Err(NotAPublisher::Unknown { who: who() });
    };
    let others: Vec<String> = names.cloned().collect();
    if others.is_empty() {
        return Ok(name);
    }
    let names = [name.clone()].into_iter().chain(others).collect();
    Err(NotAPublisher::Ambiguous {
        who: who(),
        by,
        names,
    })
}

/// The publishers of the policy in force, looked up again when it changes and every few seconds.
#[derive(Debug, Default)]
pub(super) struct Directory {
    held: RwLock<Option<(u64, Instant, Arc<Publishers>)>>,
}

impl Directory {
    /// `epoch` is the policy's.
    pub(super) async fn publishers(&self, epoch: u64, policy: &Arc<Policy>) -> Arc<Publishers> {
        let fresh = |held: &Option<(u64, Instant, Arc<Publishers>)>| match held {
            Some((of, at, publishers)) if *of == epoch && at.elapsed() < NUMBERS_AGE_MAX => {
                Some(Arc::clone(publishers))
            }
            _ => None,
        };
        let held = fresh(&self.held.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(publishers) = held {
            return publishers;
        }
        let of = Arc::clone(policy);
        // The host's databases may be on a network.
        let found = tokio::task::spawn_blocking(move || Publishers::of_policy(&of)).await;
        let publishers = Arc::new(found.unwrap_or_default());
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some((epoch, Instant::now(), Arc::clone(&publishers)));
        publishers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publishers() -> Publishers {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Publishers {
            by_socket: [("unix:/run/own.sock".to_owned(), names(&["own"]))].into(),
            by_user: [(1000, names(&["gateway"])), (1001, names(&["one", "other"]))].into(),
            by_group: [(50, names(&["staff"])), (51, names(&["audio"]))].into(),
        }
    }

    fn find(listener: &str, uid: u32, gid: u32, groups: &[u32]) -> Result<String, NotAPublisher> {
        let found = publishers();
        found
            .find(listener, Peer::Unix { uid, gid }, groups)
            .map(str::to_owned)
    }

    #[test]
    fn own_socket_comes_before_the_user_and_the_user_before_the_groups() {
        assert_eq!(find("unix:/run/own.sock", 1000, 50, &[]), Ok("own".to_owned()));
        assert_eq!(
            find("unix:/run/api.sock", 1000, 50, &[51]),
            Ok("gateway".to_owned())
        );
        assert_eq!(find("unix:/run/api.sock", 7, 50, &[]), Ok("staff".to_owned()));
        assert_eq!(find("unix:/run/api.sock", 7, 7, &[7, 51]), Ok("audio".to_owned()));
        assert_eq!(
            publishers().find("unix:/run/own.sock", Peer::Unknown, &[]),
            Ok("own")
        );
        for (uid, gid) in [(7, 7), (0, 0)] {
            let found = find("unix:/run/api.sock", uid, gid, &[]);
            assert!(matches!(found, Err(NotAPublisher::Unknown { .. })), "{found:?}");
        }
    }

    #[test]
    fn two_at_one_step_are_refused_and_both_named() {
        let by_user = find("unix:/run/api.sock", 1001, 50, &[]).unwrap_err().to_string();
        assert!(
            by_user.contains("one and other") && by_user.contains("user"),
            "{by_user}"
        );
        let by_groups = find("unix:/run/api.sock", 7, 50, &[51]).unwrap_err().to_string();
        assert!(by_groups.contains("staff and audio"), "{by_groups}");
        // The same group twice is one publisher.
        assert_eq!(
            find("unix:/run/api.sock", 7, 50, &[50, 50]),
            Ok("staff".to_owned())
        );
    }

    #[test]
    fn overflow_user_is_nobody_but_at_a_socket_of_its_own() {
        assert_eq!(
            find("unix:/run/api.sock", OVERFLOW_ID, 50, &[]),
            Err(NotAPublisher::Unmapped)
        );
        assert_eq!(
            find("unix:/run/own.sock", OVERFLOW_ID, 50, &[]),
            Ok("own".to_owned())
        );
        let mut found = publishers();
        found.by_group.insert(OVERFLOW_ID, vec!["nogroup".to_owned()]);
        let peer = Peer::Unix {
            uid: 7,
            gid: OVERFLOW_ID,
        };
        assert!(found.find("unix:/run/api.sock", peer, &[OVERFLOW_ID]).is_err());
    }

    #[tokio::test]
    async fn names_of_the_policy_become_numbers_of_this_host() {
        let me = User::from_uid(nix::unistd::getuid()).unwrap().unwrap();
        let text = format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"s\"\nprotocol = \"tcp\"\nports = [443]\n\
             [[publisher]]\nname = \"me\"\nuser = \"{}\"\nservices = [\"s\"]\n\
             [[publisher]]\nname = \"nobody\"\ngroup = \"no-such-group\"\nservices = [\"s\"]\n",
            me.name
        );
        let policy = crate::api::authorize::tests::policy(&text);
        let directory = Directory::default();
        let publishers = directory.publishers(1, &policy).await;
        let peer = Peer::Unix {
            uid: me.uid.as_raw(),
            gid: me.gid.as_raw(),
        };
        assert_eq!(publishers.find("unix:/run/api.sock", peer, &[]), Ok("me"));
        assert!(Arc::ptr_eq(&publishers, &directory.publishers(1, &policy).await));
        assert!(!Arc::ptr_eq(&publishers, &directory.publishers(2, &policy).await));
    }
}
