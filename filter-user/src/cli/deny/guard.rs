//! What a deny would hit that its author may not mean: the way back in, the own session, half the world.
//!
//! The daemon takes what it is asked; only the command asks back.

use std::net::IpAddr;
use std::path::Path;

use hyper::Method;
use ipnet::IpNet;

use super::super::bind::parsed;
use super::super::client::{self, SocketArguments};
use super::super::exit::{Exit, Failure};
use super::super::shell::Shell;
use super::super::{confirm, init};
use crate::engine;
use crate::policy::Policy;

/// Prefixes up to this length are asked about: one of 256 parts of the IPv4 addresses.
const WIDE: u8 = 8;

/// Goes on where nothing is odd, or it is confirmed.
pub(super) fn ask(source: IpNet, daemon: &SocketArguments, yes: bool, shell: &Shell) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let peers = init::ssh_peers();
    let policy = match policy(daemon)? {
        Ok(policy) => Some(policy),
        Err(why) => {
            shell.say(&format!(
                "whether {source} holds a management entry is not known: {why}"
            ));
            None
        }
    };
    let odd = odd(source, &peers, policy.as_ref());
    if odd.is_empty() {
        return Ok(());
    }
    confirm::ask(&format!("{source} {}", odd.join("; it ")), shell)
}

fn odd(source: IpNet, peers: &[IpAddr], policy: Option<&Policy>) -> Vec<String> {
    let mut odd = Vec::new();
    if source.prefix_len() <= WIDE {
        odd.push("is a large part of all addresses".to_owned());
    }
    if let Some(peer) = peers.iter().find(|peer| source.contains(*peer)) {
        odd.push(format!("holds {peer}, whose SSH session stands here"));
    }
    let meets = |other: &IpNet| source.contains(other) || other.contains(&source);
    let entries = policy
        .map(|policy| policy.management.as_slice())
        .unwrap_or_default();
    for entry in entries {
        if entry.sources.iter().any(|own| meets(&own.prefix)) {
            odd.push(format!(
                "meets the management entry `{}`, whose port stays open to it while all else is dropped",
                entry.name
            ));
        }
    }
    odd
}

/// The file that the daemon runs by, or why it is not known: this user may not read it, say. A daemon that is not there
/// cannot deny either.
fn policy(daemon: &SocketArguments) -> Result<Result<Policy, String>, Failure> {
    let status = client::ask(&daemon.socket, Method::GET, "/v1/status", client::PATIENCE);
    let status = match status.and_then(|status| parsed(&status)) {
        Ok(status) => status,
        Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
        Err(failure) => return Ok(Err(failure.text)),
    };
    let file = status["policy"]["file"].as_str().unwrap_or_default();
    let loaded = engine::load_policy(Path::new(file));
    let why = loaded.unreadable;
    Ok(loaded
        .policy
        .ok_or_else(|| why.unwrap_or_else(|| format!("{file} has faults"))))
}

#[cfg(test)]
mod tests {
    use super::super::super::bind::prefix;
    use super::*;

    #[test]
    fn the_way_back_in_the_own_session_and_half_the_world_are_odd() {
        let files = crate::policy::MemoryFiles::new([(
            "p.toml".into(),
            b"version = 1\n[filter]\ninterfaces = [\"eth0\"]\n[[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\n\
              protocol = \"tcp\"\nports = [22]\n"
                .to_vec(),
        )]);
        let context = crate::policy::LoadContext::at(jiff::Timestamp::UNIX_EPOCH);
        let policy = crate::policy::load_from(&files, Path::new("p.toml"), &context).policy;
        let peers = ["198.51.100.9".parse().unwrap()];
        for (source, count) in [
            ("203.0.113.66", 0),
            ("198.51.100.8", 0),
            ("198.51.100.0/24", 1),
            ("192.0.2.7", 1),
            ("192.0.2.0/23", 1),
            ("10.0.0.0/8", 1),
            ("0.0.0.0/0", 3),
            ("::/0", 1),
        ] {
            let odd = odd(prefix(source).unwrap(), &peers, policy.as_ref());
            assert_eq!(odd.len(), count, "{source}: {odd:?}");
        }
    }
}
