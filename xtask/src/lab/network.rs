//! The lab's machines: network namespaces, each joined to the server by a cable of its own.
//! A cable is a veth pair that is made inside the namespaces, so that nothing ever shows up on the host itself. One
//! cable a guest tells by the daemon's own counters who sent what; the filter is on the server's end of each.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    names::{GUEST_INTERFACE, GUESTS, Host, NAMESPACES, PREFIX, SERVER_V4, SERVER_V6, namespace_file},
    process,
};
use crate::workspace;

/// Of the server's interfaces: none that a guest's own end has in its namespace. The daemon takes a peer's number
/// for one of its own namespace and sees a stack; this can go when it looks at IFLA_LINK_NETNSID.
const FIRST_INDEX: u32 = 101;

pub(super) fn build() -> Result<()> {
    for host in Host::ALL {
        ip(&["netns", "add", host.namespace()], "")?;
    }
    ip(&["-n", Host::Server.namespace(), "-batch", "-"], &server_script())?;
    for guest in GUESTS {
        ip(&["-n", guest.namespace(), "-batch", "-"], &guest_script(guest))?;
    }
    Ok(())
}

/// The server has the same addresses on each cable. Nobody else has them: no need to ask around first (nodad).
fn server_script() -> String {
    let mut script = String::from("link set lo up\n");
    for (index, guest) in (FIRST_INDEX..).zip(GUESTS) {
        let (interface, namespace) = (guest.interface(), guest.namespace());
        let (v4, v6) = (guest.v4(), guest.v6());
        // Writing to a string cannot fail.
        _ = write!(
            script,
            "link add {interface} index {index} type veth peer name {GUEST_INTERFACE} netns {namespace}\n\
             address add {SERVER_V4}/32 dev {interface}\n\
             address add {SERVER_V6}/128 dev {interface} nodad\n\
             link set {interface} up\n\
             route add {v4}/32 dev {interface}\n\
             route add {v6}/128 dev {interface}\n"
        );
    }
    script
}

fn guest_script(guest: Host) -> String {
    let (v4, v6) = (guest.v4(), guest.v6());
    format!(
        "link set lo up\n\
         address add {v4}/32 dev {GUEST_INTERFACE}\n\
         address add {v6}/128 dev {GUEST_INTERFACE} nodad\n\
         link set {GUEST_INTERFACE} up\n\
         route add {SERVER_V4}/32 dev {GUEST_INTERFACE}\n\
         route add {SERVER_V6}/128 dev {GUEST_INTERFACE}\n"
    )
}

/// The namespaces of a lab that are here, of this one or of one that was killed.
pub(super) fn present() -> Vec<String> {
    let entries = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// Removes a namespace; its interfaces go with it. What still runs in it would keep it, and is ended first.
/// Answers how many processes that were.
pub(super) fn remove(namespace: &str) -> Result<usize> {
    let inside = inside(namespace);
    process::end(&inside);
    ip(&["netns", "delete", namespace], "")?;
    Ok(inside.len())
}

/// The processes in a namespace.
fn inside(namespace: &str) -> Vec<u32> {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let Some(wanted) = identity(&namespace_file(namespace)) else {
        return Vec::new();
    };
    process::find(|folder| identity(&folder.join("ns/net")) == Some(wanted))
}

/// Calls `ip`, with a script for its batch mode or with nothing.
fn ip(arguments: &[&str], script: &str) -> Result<()> {
    let program = workspace::program("ip").context("the program ip is missing")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip")?;
    if let Some(mut input) = child.stdin.take() {
        // A script that is not taken whole shows in the status.
        _ = input.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().context("cannot wait for ip")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("`ip {}` failed: {}", arguments.join(" "), said.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guest_has_a_cable_and_a_way_back() {
        let server = server_script();
        for (index, guest) in (FIRST_INDEX..).zip(GUESTS) {
            let cable = format!(
                "link add {} index {} type veth peer name eth0 netns {}\n",
                guest.interface(),
                index,
                guest.namespace()
            );
            assert!(server.contains(&cable), "{server}");
            for address in [guest.v4(), guest.v6()] {
                assert!(server.contains(&format!("route add {address}/")), "{server}");
                assert!(guest_script(guest).contains(&format!("address add {address}/")));
            }
        }
    }

    #[test]
    fn a_namespace_that_is_not_there_has_no_processes() {
        assert!(inside("keyfence-lab-of-nobody").is_empty());
    }
}
