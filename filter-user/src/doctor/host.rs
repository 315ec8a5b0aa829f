//! Looks at the host: devices, addresses, listening sockets, NAT. By netlink, /proc and the programs of the system.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use super::published::{self, Published};
use crate::kernel::choice::{Choice, choose_most};
use crate::kernel::devices::{self, Device};
use crate::kernel::interfaces::{self, Interface};
use crate::kernel::{addresses, ethtool};
use crate::policy::Policy;
use crate::sockets::{self, Socket};

/// Where the programs of administrators are: never looked for by PATH, since this may run as root.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The tables of iptables' own that are loaded, and what prints them.
const LEGACY: [(&str, [&str; 2]); 2] = [
    (
        "/proc/net/ip_tables_names",
        ["iptables-legacy-save", "iptables-save"],
    ),
    (
        "/proc/net/ip6_tables_names",
        ["ip6tables-legacy-save", "ip6tables-save"],
    ),
];

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub(super) devices: Vec<Device>,
    /// With what each stands on.
    pub(super) interfaces: Vec<(Interface, Option<u32>)>,
    /// Of its interfaces.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) listening: Vec<Socket>,
    pub(super) published: Vec<Published>,
    /// Whether there are associations of IPsec, which need no device.
    pub(super) ipsec: bool,
    /// What could not be looked at, and why.
    pub(super) unseen: Vec<String>,
}

impl Host {
    /// Not for a task of a runtime: it has one of its own, and waits for programs.
    pub fn read() -> Self {
        let mut host = Self::default();
        if let Err(error) = host.ask_netlink() {
            host.unseen.push(format!("devices and addresses: {error}"));
        }
        let proc = Path::new("/proc");
        host.listening = sockets::read_all(proc)
            .into_iter()
            .filter(Socket::is_listening)
            .collect();
        host.listening
            .sort_by_key(|socket| (socket.local, socket.protocol as u8));
        // Workers share a port by sockets of their own.
        host.listening
            .dedup_by_key(|socket| (socket.local, socket.protocol as u8));
        host.ask_nat();
        match run("ip", &["-o", "xfrm", "state"]) {
            Ok(text) => host.ipsec = !text.trim().is_empty(),
            Err(error) => host.unseen.push(format!("IPsec associations: {error}")),
        }
        host
    }

    fn ask_netlink(&mut self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            self.devices = devices::read().await?;
            self.interfaces = interfaces::read().await?;
            self.addresses = addresses::of_interfaces().await?;
            Ok(())
        })
    }

    /// Both kinds of rules: iptables' own, and those of nftables, which iptables writes as well.
    fn ask_nat(&mut self) {
        for program in ["iptables-nft-save", "ip6tables-nft-save"] {
            match run(program, &["-t", "nat"]) {
                Ok(text) => self.published.extend(published::of_iptables(&text)),
                Err(Asked::Missing(_)) => {}
                Err(error) => self.unseen.push(format!("NAT by iptables: {error}")),
            }
        }
        for (names, programs) in LEGACY {
            // Asked for a table that is not there, they would load it.
            match std::fs::read_to_string(names) {
                Ok(tables) if tables.lines().any(|table| table == "nat") => {}
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    self.unseen.push(format!("NAT by iptables: {names}: {error}"));
                    continue;
                }
                _ => continue,
            }
            let asked = run(programs[0], &["-t", "nat"]).or_else(|_| run(programs[1], &["-t", "nat"]));
            match asked {
                Ok(text) => self.published.extend(published::of_iptables(&text)),
                Err(error) => self.unseen.push(format!("NAT by iptables: {error}")),
            }
        }
        match run("nft", &["--json", "list", "ruleset"]) {
            Ok(text) => match published::of_nft(&text) {
                Ok(found) => self.published.extend(found),
                Err(error) => self.unseen.push(format!(
                    "NAT by nftables: nft's answer is not understood: {error}"
                )),
            },
            Err(error) => self.unseen.push(format!("NAT by nftables: {error}")),
        }
        self.published.dedup();
    }

    /// What could not be looked at, and why.
    pub fn unseen(&self) -> &[String] {
        &self.unseen
    }

    pub(super) fn choice(&self, policy: &Policy) -> Choice {
        choose_most(&policy.filter.interfaces, &self.interfaces)
    }

    /// The names of those that the policy filters, as far as they can be.
    pub(super) fn filtered(&self, policy: &Policy) -> Vec<String> {
        let chosen = self.choice(policy).interfaces.into_iter();
        chosen.map(|interface| interface.name).collect()
    }

    pub(super) fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }
}

/// A driver's name; a device without hardware is told by its kind.
pub(super) fn driver(device: &Device) -> String {
    match ethtool::driver(&device.name) {
        Ok(name) if !name.is_empty() => name,
        _ if device.kind.is_empty() => "unknown".to_owned(),
        _ => device.kind.clone(),
    }
}

#[derive(Debug, thiserror::Error)]
enum Asked {
    #[error("{0} is not installed")]
    Missing(&'static str),
    #[error("{0}: {1}")]
    Failed(&'static str, String),
}

fn run(program: &'static str, arguments: &[&str]) -> Result<String, Asked> {
    let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(program));
    let place = places
        .find(|place| place.is_file())
        .ok_or(Asked::Missing(program))?;
    let failed = |why: String| Asked::Failed(program, why);
    let output = Command::new(place)
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| !line.trim().is_empty());
    Err(failed(line.unwrap_or("it says nothing").trim().to_owned()))
}
