//! Why a listener of the policy could not be opened: which one, where it is written, and how to fix it.

use std::io;
use std::path::PathBuf;

use crate::policy::model::{Listener, ListenerAddress};

/// A listener and its fault.
#[derive(Debug, thiserror::Error)]
#[error("{place}listener {address}: {fault}")]
pub struct ListenError {
    /// `file:line: `, where the listener was written.
    pub place: String,
    pub address: String,
    #[source]
    pub fault: Fault,
}

impl ListenError {
    pub(super) fn new(listener: &Listener, fault: Fault) -> ListenError {
        let place = match &listener.origin {
            Some(origin) => format!("{}:{}: ", origin.file, origin.line),
            None => String::new(),
        };
        let address = match &listener.address {
            ListenerAddress::Unix(path) => format!("unix:{}", path.display()),
            ListenerAddress::Tcp(address) => format!("tcp:{address}"),
        };
        ListenError {
            place,
            address,
            fault,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(
        "a running program accepts connections on this socket, and a live socket is never replaced; stop it \
         (`ss -xlp` names it), or give this listener another path"
    )]
    Live,
    #[error(
        "what is at this path is no socket and was left as it is; remove it, or give the listener another path"
    )]
    NotASocket,
    #[error("the socket that is at this path cannot be judged: {0}; remove it if nothing uses it")]
    Probe(#[source] io::Error),
    #[error("the stale socket at this path cannot be removed: {0}; remove it, or run as a user who may")]
    Stale(#[source] io::Error),
    #[error("its folder {}: {error}; create it with mode 0755, or run as a user who may", folder.display())]
    Folder { folder: PathBuf, error: io::Error },
    #[error(
        "its folder {} has been locked by another start for seconds; see who holds it with `lslocks`, then try again",
        .0.display()
    )]
    Locked(PathBuf),
    #[error(
        "this host has no group {0:?}; create it with `groupadd --system {0}`, or name another in `group`"
    )]
    NoSuchGroup(String),
    #[error("the group {group:?} cannot be looked up: {error}; check /etc/nsswitch.conf")]
    GroupLookup { group: String, error: io::Error },
    #[error(
        "mode {mode:04o} and group {group:?} cannot be set: {error}; make the daemon a member of the group (the service by \
         `SupplementaryGroups={group}` in a drop-in), or name a group of its own in `group`"
    )]
    Permit {
        mode: u32,
        group: String,
        error: io::Error,
    },
    #[error("cannot be bound: {0}; the path may have 107 bytes, and its folder must be writable")]
    Bind(#[source] io::Error),
    #[error(
        "cannot be bound: {0}; `ss -tlp` shows who listens there, and ports below 1024 need CAP_NET_BIND_SERVICE"
    )]
    Tcp(#[source] io::Error),
    #[error("this build does not do TLS on listeners yet; remove `tls` and use a Unix socket or loopback")]
    Tls,
}
