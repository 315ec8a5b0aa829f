//! What the next start would go without, as far as this process can tell: it may be another user than the daemon.

use std::net::TcpListener;

use nix::unistd::{Group, getegid, geteuid, getgroups};

use crate::bindings::read_secret;
use crate::policy::Policy;
use crate::policy::model::{Listener, ListenerAddress, Scheme};

const THEN: &str = "the next start goes without it, and is not ready";

/// Of `policy`. The listeners of `open` are open by this process: what they can be is known.
pub fn lacking_at_start(open: &[Listener], policy: &Policy) -> Vec<String> {
    let is_open = |listener: &&Listener| {
        let same = |open: &Listener| open.address == listener.address && open.group == listener.group;
        open.iter().any(same)
    };
    let new = policy.listeners.iter().filter(|listener| !is_open(listener));
    let faults = new.filter_map(lacking);
    let secrets = match policy.credentials.scheme {
        Scheme::Sha256 => &[][..],
        Scheme::HmacSha256 => policy.credentials.secret_files.as_slice(),
    };
    let unread = secrets.iter().filter_map(|(_, path)| read_secret(path).err());
    let unread = unread.map(|why| format!("[credentials]: {why}"));
    faults
        .chain(unread)
        .map(|fault| format!("{fault}; {THEN}"))
        .collect()
}

fn lacking(listener: &Listener) -> Option<String> {
    match &listener.address {
        // Bound for a moment, and never listening for long enough to be found.
        ListenerAddress::Tcp(address) => {
            let error = TcpListener::bind(address).err()?;
            Some(format!("listener tcp:{address} could not be opened now: {error}"))
        }
        ListenerAddress::Unix(path) => {
            let why = lacking_group(listener)?;
            Some(format!("listener unix:{}: {why}", path.display()))
        }
    }
}

/// A default group that this host lacks is left out by a start.
fn lacking_group(listener: &Listener) -> Option<String> {
    let name = &listener.group;
    let group = match Group::from_name(name) {
        Ok(Some(group)) => group.gid,
        Ok(None) if listener.group_written => {
            return Some(format!(
                "this host has no group {name:?}: `groupadd --system {name}`, or name another"
            ));
        }
        // What cannot be looked up now says nothing of a start.
        Ok(None) | Err(_) => return None,
    };
    let is_member = getegid() == group || getgroups().is_ok_and(|groups| groups.contains(&group));
    (!geteuid().is_root() && !is_member).then(|| {
        format!(
            "the daemon is no member of the group {name:?}: `systemctl edit keyfence` with [Service] and \
             SupplementaryGroups={name}, then restart it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::MemoryFiles;

    fn policy(tables: &str) -> Policy {
        let text = format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n{tables}\n\
             [[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [443]\n"
        );
        let root = std::path::PathBuf::from("keyfence.toml");
        let files = MemoryFiles::new([(root.clone(), text.into_bytes())]);
        let now = crate::policy::LoadContext::at("2026-06-01T00:00:00Z".parse().unwrap());
        let loaded = crate::policy::load_from(&files, &root, &now);
        let told: Vec<String> = loaded.diagnostics.iter().map(|d| d.to_string()).collect();
        loaded.policy.unwrap_or_else(|| panic!("{told:#?}"))
    }

    #[test]
    fn port_that_is_taken_is_told_unless_it_is_this_process_that_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let policy = policy(&format!("[[listener]]\naddress = \"tcp:{address}\"\n"));
        let told = lacking_at_start(&[], &policy);
        let [told] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert!(
            told.starts_with(&format!("listener tcp:{address} could not")),
            "{told}"
        );
        assert!(told.contains("in use") && told.ends_with(THEN), "{told}");
        assert_eq!(lacking_at_start(&policy.listeners, &policy), Vec::<String>::new());
        drop(taken);
        assert_eq!(lacking_at_start(&[], &policy), Vec::<String>::new());
    }

    #[test]
    fn group_and_secret_that_are_not_there_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("k1");
        let policy = policy(&format!(
            "[[listener]]\naddress = \"unix:/run/keyfence/gw.sock\"\nroles = [\"authorize\"]\n\
             group = \"nobody-is-in-this\"\n[credentials]\nscheme = \"hmac-sha256\"\n\
             secret-files = [{{ id = \"k1\", file = \"{}\" }}]\n",
            secret.display()
        ));
        let told = lacking_at_start(&[], &policy);
        assert!(told[0].contains("no group \"nobody-is-in-this\""), "{told:?}");
        assert!(told[1].contains("k1: No such file"), "{told:?}");
        std::fs::write(&secret, "s\n").unwrap();
        assert_eq!(lacking_at_start(&policy.listeners, &policy), Vec::<String>::new());
    }
}
