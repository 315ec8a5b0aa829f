//! What the lab calls its things: one list of names, addresses and rates, which the network, the policy, the traffic
//! and the checks share. Whatever is on the machine under another name is not the lab's, and is left alone.

use std::path::{Path, PathBuf};

/// Begins the name of each network namespace of the lab.
pub(super) const PREFIX: &str = "keyfence-lab-";
/// Of the daemon: its pins are in a folder of this name.
pub(super) const INSTANCE: &str = "keyfence-lab";
pub(super) const FOLDER: &str = "/run/keyfence-lab";
/// Where iproute2 keeps namespaces by name.
pub(super) const NAMESPACES: &str = "/run/netns";

/// The server as all others see it.
pub(super) const SERVER_V4: &str = "192.0.2.80";
pub(super) const SERVER_V6: &str = "2001:db8::80";
pub(super) const WEB_PORT: u16 = 80;
pub(super) const EVENTS_PORT: u16 = 5140;
/// Nobody listens there; the policy opens it to management alone.
pub(super) const SSH_PORT: u16 = 22;
pub(super) const METRICS: &str = "127.0.0.1:9469";

/// As the policy writes it; a test compares the two.
pub(super) const GREEDY_LIMIT_PER_SECOND: u64 = 2_000;
pub(super) const GREEDY_SENDS_PER_SECOND: u64 = 4 * GREEDY_LIMIT_PER_SECOND;
pub(super) const LISTED_REQUESTS_PER_SECOND: u64 = 20;
pub(super) const STRANGER_SENDS_PER_SECOND: u64 = 500;

/// A machine of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Server,
    Client,
    Greedy,
    Stranger,
}

/// Those that send to the server, in the order in which they are shown.
pub(super) const GUESTS: [Host; 3] = [Host::Client, Host::Greedy, Host::Stranger];
/// A guest's own end of its cable.
pub(super) const GUEST_INTERFACE: &str = "eth0";

impl Host {
    pub(super) const ALL: [Self; 4] = [Self::Server, Self::Client, Self::Greedy, Self::Stranger];

    pub(super) const fn namespace(self) -> &'static str {
        match self {
            Self::Server => "keyfence-lab-server",
            Self::Client => "keyfence-lab-client",
            Self::Greedy => "keyfence-lab-greedy",
            Self::Stranger => "keyfence-lab-stranger",
        }
    }

    /// The server's end of the cable to this guest: the filter is attached there.
    pub(super) const fn interface(self) -> &'static str {
        match self {
            Self::Server => "lo",
            Self::Client => "lab-client",
            Self::Greedy => "lab-greedy",
            Self::Stranger => "lab-stranger",
        }
    }

    /// As the table names it; the first two are the policy's clients.
    pub(super) const fn shown(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "acme",
            Self::Greedy => "greedy",
            Self::Stranger => "stranger",
        }
    }

    pub(super) const fn v4(self) -> &'static str {
        match self {
            Self::Server => SERVER_V4,
            Self::Client => "198.51.100.7",
            Self::Greedy => "198.51.100.66",
            Self::Stranger => "203.0.113.13",
        }
    }

    pub(super) const fn v6(self) -> &'static str {
        match self {
            Self::Server => SERVER_V6,
            Self::Client => "2001:db8:ac::7",
            Self::Greedy => "2001:db8:66::66",
            Self::Stranger => "2001:db8:bad::13",
        }
    }
}

/// The namespace as a file that can be entered.
pub(super) fn namespace_file(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

/// A file in the lab's folder.
pub(super) fn file(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

pub(super) fn policy() -> PathBuf {
    file("keyfence.toml")
}

/// The daemon's own folder: while it makes its socket it locks that folder, and the lab's is locked already.
pub(super) fn state() -> PathBuf {
    file("daemon")
}

pub(super) fn socket() -> PathBuf {
    state().join("api.sock")
}

/// The log of drops.
pub(super) fn drops() -> PathBuf {
    state().join("drops.jsonl")
}

pub(super) fn daemon_log() -> PathBuf {
    file("keyfence.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_the_labs_and_fits_an_interface() {
        for host in Host::ALL {
            assert!(host.namespace().starts_with(PREFIX));
            assert!(host.interface().len() < 16, "{} is too long", host.interface());
        }
        assert!(PREFIX.starts_with(INSTANCE) && FOLDER.ends_with(INSTANCE));
    }
}
