//! The guard against locking oneself out: connections that stand and that a policy would cut.
//!
//! Those that the command found, held by itself or its ancestors, and those that this host has to management ports.
//! Each is judged under the new policy, with the bindings and denies that would hold, where its interface is filtered.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use filter_common::verdict::Reason;
use glob::Pattern;
use serde::{Deserialize, Serialize};

use crate::bindings::Bindings;
use crate::bindings::seam::Effective as _;
use crate::compiler::Pushed;
use crate::judge::names_host;
use crate::judge::session::{Addresses, Ground};
use crate::kernel::routes::{Way, ways};
use crate::kernel::{addresses, clock};
use crate::policy::Policy;
use crate::policy::model::Management;
use crate::sockets::{self, Socket};

/// Peers that are judged; how many more there are is said.
pub const PEERS_MAX: usize = 1_024;

/// A TCP connection that stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The peer.
    pub from: SocketAddr,
    /// This host.
    pub to: SocketAddr,
    /// Which program holds it: `sshd (812)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
}

/// One that would be cut, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CutConnection {
    #[serde(flatten)]
    pub connection: Connection,
    pub reason: &'static str,
    pub rule: &'static str,
    pub detail: String,
}

impl std::fmt::Display for CutConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Connection { from, to, held_by } = &self.connection;
        write!(f, "{from} to {to}/tcp")?;
        if let Some(held_by) = held_by {
            write!(f, ", held by {held_by},")?;
        }
        let (rule, reason) = (self.rule, self.reason);
        // Rule 7 lets packets of connections that stand pass, whoever opened them.
        if reason == Reason::Other.name() {
            write!(
                f,
                " would go on for as long as it stands (reply), and a new one from there"
            )?;
        }
        write!(f, " would be dropped ({reason}) by rule {rule}: {}", self.detail)
    }
}

/// What the guard found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub cut: Vec<CutConnection>,
    /// What it could not look at, a sentence each.
    pub unseen: Vec<String>,
}

/// Connections that stand and that `planned` would cut. `sent` are the command's.
pub async fn look(
    bindings: &Bindings,
    in_force: &Arc<Policy>,
    planned: (u64, &Arc<Policy>),
    sent: Vec<Connection>,
) -> Found {
    let mut found = Found::default();
    let (epoch, planned) = planned;
    let wanted = [Arc::clone(in_force), Arc::clone(planned)];
    let own = tokio::task::spawn_blocking(move || inbound(Path::new("/proc"), &wanted)).await;
    let own = match own {
        Ok(Ok(own)) => own,
        Ok(Err(error)) => {
            let why = format!("the daemon cannot see which connections stand: {error}");
            found.unseen.push(why);
            Vec::new()
        }
        Err(error) => {
            found.unseen.push(error.to_string());
            Vec::new()
        }
    };
    let all = filtered(planned, each_once(sent, own), &mut found).await;
    if all.is_empty() {
        return found;
    }
    let host_addresses = match names_host(planned) {
        true => addresses::read().await,
        false => Ok(Vec::new()),
    };
    let host_addresses = host_addresses.unwrap_or_else(|error| {
        let why = format!("what \"host\" means cannot be read: {error}");
        found.unseen.push(why);
        Vec::new()
    });
    let (bindings, policy) = (bindings.clone(), Arc::clone(planned));
    let judged = tokio::task::spawn_blocking(move || {
        let peers = Addresses::of(all.iter().map(|connection| connection.from.ip()));
        let pushed = pushed(&bindings, epoch, &policy, &peers);
        let ground = Ground {
            policy: &policy,
            pushed: &pushed,
            host_addresses: &host_addresses,
            now: clock::monotonic().0,
            wall_offset: clock::wall_offset(),
        };
        judge(&ground, all)
    });
    match judged.await {
        Ok((cut, unseen)) => {
            found.cut = cut;
            found.unseen.extend(unseen);
        }
        Err(error) => found.unseen.push(error.to_string()),
    }
    found
}

fn judge(ground: &Ground<'_>, all: Vec<Connection>) -> (Vec<CutConnection>, Vec<String>) {
    let (mut cut, mut unseen) = (Vec::new(), Vec::new());
    for connection in all {
        match ground.cuts(connection.from, connection.to) {
            Ok(None) => {}
            Ok(Some(by)) => cut.push(CutConnection {
                connection,
                reason: by.reason,
                rule: by.rule,
                detail: by.detail,
            }),
            Err(error) => unseen.push(format!("{} cannot be judged: {error}", connection.from)),
        }
    }
    (cut, unseen)
}

/// Of each peer one connection to each port; the command's first, since they say who holds them.
fn each_once(sent: Vec<Connection>, own: Vec<Connection>) -> Vec<Connection> {
    let mut known: BTreeSet<(IpAddr, SocketAddr)> = BTreeSet::new();
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let all = sent.into_iter().chain(own).map(|connection| Connection {
        from: canonical(connection.from),
        to: canonical(connection.to),
        ..connection
    });
    all.filter(|connection| known.insert((connection.from.ip(), connection.to)))
        .collect()
}

/// Those whose packets the filter would judge. Where that cannot be known, they are taken for judged.
async fn filtered(planned: &Policy, all: Vec<Connection>, found: &mut Found) -> Vec<Connection> {
    let peers: BTreeSet<IpAddr> = all.iter().map(|connection| connection.from.ip()).collect();
    let mut peers: Vec<IpAddr> = peers.into_iter().collect();
    if peers.len() > PEERS_MAX {
        let more = peers.len() - PEERS_MAX;
        let why = format!("{more} further peers hold connections and were not looked at");
        found.unseen.push(why);
        peers.truncate(PEERS_MAX);
    }
    let ways = match ways(&peers).await {
        Ok(ways) => ways,
        Err(error) => {
            let why = format!("by which interface the peers come in cannot be read: {error}");
            found.unseen.push(why);
            vec![Way::None; peers.len()]
        }
    };
    let judged = |way: &Way| match way {
        Way::Here => false,
        Way::None => true,
        Way::By(names) => names.iter().any(|name| filters(planned, name)),
    };
    let judged = peers.into_iter().zip(&ways).filter(|(_, way)| judged(way));
    let judged: BTreeSet<IpAddr> = judged.map(|(peer, _)| peer).collect();
    all.into_iter()
        .filter(|connection| judged.contains(&connection.from.ip()))
        .collect()
}

fn filters(policy: &Policy, interface: &str) -> bool {
    let matches = |pattern: &String| {
        pattern == interface || Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(interface))
    };
    policy.filter.interfaces.iter().any(matches)
}

/// What is pushed and could decide packets of these sources.
pub(super) fn pushed(bindings: &Bindings, epoch: u64, policy: &Arc<Policy>, sources: &Addresses) -> Pushed {
    let mut owners = BTreeSet::new();
    bindings.each_under(policy, &[], |planned| {
        let mut own = planned.sources().iter();
        if planned.suspended.is_none() && own.any(|source| sources.any_in(source)) {
            owners.insert(planned.owner());
        }
    });
    let grantees = bindings.under(epoch, policy).of(&owners);
    let denies = bindings.denies().into_iter();
    Pushed::of(grantees, denies.map(|deny| (deny.name, deny.sources, u64::MAX)))
}

/// The connections of this host to ports that are listened at and that a management entry of one of these names.
fn inbound(proc: &Path, policies: &[Arc<Policy>]) -> std::io::Result<Vec<Connection>> {
    let managed = |port: u16| {
        let entries = policies.iter().flat_map(|policy| &policy.management);
        let has = |entry: &Management| {
            let mut ports = entry.ports.iter();
            entry.protocols.tcp && ports.any(|range| (range.first..=range.last).contains(&port))
        };
        entries.clone().any(has)
    };
    let all = sockets::read_tcp(proc)?;
    Ok(standing(&all, managed))
}

fn standing(all: &[Socket], wanted: impl Fn(u16) -> bool) -> Vec<Connection> {
    let listening = all.iter().filter(|socket| socket.is_listening());
    let listening: BTreeSet<u16> = listening.map(|socket| socket.local.port()).collect();
    let connections = all.iter().filter_map(|socket| {
        let port = socket.local.port();
        let from = socket.peer()?;
        (listening.contains(&port) && wanted(port)).then_some(Connection {
            from,
            to: socket.local,
            held_by: None,
        })
    });
    connections.collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connection(from: &str, to: &str) -> Connection {
        Connection {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            held_by: None,
        }
    }

    #[test]
    fn inbound_connection_is_found_by_its_listening_port_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let stream = TcpStream::connect(to).unwrap();
        let from = stream.local_addr().unwrap();
        let all = sockets::read_tcp(Path::new("/proc")).unwrap();
        let found = standing(&all, |port| port == to.port());
        assert_eq!(found, [connection(&from.to_string(), &to.to_string())]);
        // Its own end, where it is the one that called.
        assert_eq!(standing(&all, |port| port == from.port()), []);
        assert_eq!(standing(&all, |_| false), []);
    }

    #[test]
    fn each_peer_and_port_is_judged_once_and_mapped_addresses_are_ipv4() {
        let mut held = connection("[::ffff:192.0.2.7]:50001", "[::ffff:192.0.2.1]:22");
        held.held_by = Some("sshd (812)".to_owned());
        let own = vec![
            connection("192.0.2.7:50001", "192.0.2.1:22"),
            connection("192.0.2.7:50002", "192.0.2.1:22"),
            connection("192.0.2.7:50003", "192.0.2.1:2222"),
        ];
        let all = each_once(vec![held], own);
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(all[0].from, "192.0.2.7:50001".parse().unwrap());
        assert_eq!(all[0].held_by.as_deref(), Some("sshd (812)"));
    }

    #[test]
    fn what_is_cut_is_told_with_its_holder_and_its_rule() {
        let cut = CutConnection {
            connection: connection("192.0.2.7:50001", "192.0.2.1:22"),
            reason: "unlisted",
            rule: "3.9 grants",
            detail: "nobody".to_owned(),
        };
        let told = cut.to_string();
        assert_eq!(
            told,
            "192.0.2.7:50001 to 192.0.2.1:22/tcp would be dropped (unlisted) by rule 3.9 grants: nobody"
        );
    }
}
