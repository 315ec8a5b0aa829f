//! The connections that this command hangs on: inbound ones that it or an ancestor of it holds, such as the SSH session
//! that it runs in, also under sudo. Read from /proc with the caller's rights; what may not be read is said.
//!
//! Whoever detached the command from its session (a multiplexer, cron) is found by the daemon, which looks at management
//! ports itself. The environment is not asked: it may be stale, or somebody else's.

use std::collections::BTreeSet;
use std::path::Path;

use crate::policies::guard::Connection;
use crate::sockets;

/// Far more than processes nest.
const ANCESTORS_MAX: usize = 64;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) connections: Vec<Connection>,
    /// A sentence each.
    pub(super) unseen: Vec<String>,
}

pub(super) fn connections(proc: &Path) -> Found {
    let mut found = Found::default();
    let all = match sockets::read_tcp(proc) {
        Ok(all) => all,
        Err(error) => {
            let why = format!("the connections of this host cannot be read: {error}");
            found.unseen.push(why);
            return found;
        }
    };
    let listening = all.iter().filter(|socket| socket.is_listening());
    let listening: BTreeSet<u16> = listening.map(|socket| socket.local.port()).collect();
    for pid in ancestors(proc, std::process::id()) {
        let name = std::fs::read_to_string(proc.join(pid.to_string()).join("comm"));
        let holder = format!("{} ({pid})", name.as_deref().unwrap_or("?").trim_end());
        let held: BTreeSet<u64> = match sockets::held(proc, pid) {
            Ok(held) => held.into_iter().collect(),
            // It has ended: it holds nothing.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                found.unseen.push(format!(
                    "the connections of {holder}, an ancestor of this command, may not be read ({error}): a policy that \
                     cuts them is not noticed, unless they come to a management port"
                ));
                continue;
            }
        };
        let connections = all.iter().filter(|socket| held.contains(&socket.inode));
        found.connections.extend(connections.filter_map(|socket| {
            let inbound = listening.contains(&socket.local.port());
            Some(Connection {
                from: socket.peer().filter(|_| inbound)?,
                to: socket.local,
                held_by: Some(holder.clone()),
            })
        }));
    }
    found
}

/// A process and what started it, up to the first of all.
fn ancestors(proc: &Path, pid: u32) -> Vec<u32> {
    let parent = |pid: &u32| {
        let stat = std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
        parent_of(&stat).filter(|parent| *parent > 0)
    };
    std::iter::successors(Some(pid), parent)
        .take(ANCESTORS_MAX)
        .collect()
}

/// Its name is in brackets, and may have brackets.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn parent_is_found_behind_any_name() {
        assert_eq!(parent_of("812 (sshd) S 1 812 812 0"), Some(1));
        assert_eq!(parent_of("812 (a) b (c)) R 77 812"), Some(77));
        assert_eq!(parent_of("812"), None);
    }

    #[test]
    fn inbound_connection_of_this_process_is_found_and_its_own_calls_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let calling = TcpStream::connect(to).unwrap();
        let (_held, from) = listener.accept().unwrap();
        let found = connections(Path::new("/proc"));
        let ours: Vec<_> = found
            .connections
            .iter()
            .filter(|connection| connection.to == to || connection.from == to)
            .collect();
        assert_eq!(ours.len(), 1, "{ours:?}");
        assert_eq!((ours[0].from, ours[0].to), (from, to));
        assert_eq!(calling.local_addr().unwrap(), from);
        let holder = format!("({})", std::process::id());
        assert!(
            ours[0]
                .held_by
                .as_ref()
                .is_some_and(|held_by| held_by.ends_with(&holder))
        );
        assert!(ancestors(Path::new("/proc"), std::process::id()).len() > 1);
    }
}
