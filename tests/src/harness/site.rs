//! The scene of a live test: a protected host, the outside, and a wire between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::bpffs::{self, BpfFs};
use super::namespace::{self, Namespace, PREFIX};
use super::policy::Policy;
use super::program::{keyfence_path, run, system};

/// Who has which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

const fn party(host: u8) -> Party {
    Party {
        v4: Ipv4Addr::new(10, 77, 0, host),
        v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host as u16),
    }
}

impl Party {
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

pub const SERVER: Party = party(1);
pub const LISTED: Party = party(2);
pub const GREEDY: Party = party(3);
pub const STRANGER: Party = party(66);

/// The filtered interface, in the host's namespace.
pub const INSIDE: &str = "srv0";
/// The other end of its wire.
pub const OUTSIDE: &str = "cli0";
pub const INSIDE_MAC: [u8; 6] = [2, 0, 0, 0x77, 0, 1];
pub const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0x77, 0, 2];

/// The scene. Its parts go in this order.
#[derive(Debug)]
pub struct Site {
    pub bpf: BpfFs,
    pub outside: Namespace,
    pub server: Namespace,
    folder: TempDir,
}

impl Site {
    /// All parties but the server have their addresses on the outside.
    pub fn new() -> Self {
        let site = Self::raw();
        site.inhabit(&site.outside);
        site
    }

    /// Gives the parties' addresses to the outside end of a wire in this namespace.
    pub fn inhabit(&self, namespace: &Namespace) {
        namespace.ip(&format!("link set {OUTSIDE} address {}", mac(OUTSIDE_MAC)));
        namespace.sysctl(&format!("net/ipv6/conf/{OUTSIDE}/disable_ipv6"), "0");
        namespace.ip(&format!("link set {OUTSIDE} up"));
        for party in [LISTED, GREEDY, STRANGER] {
            namespace.ip(&format!("addr add {}/24 dev {OUTSIDE}", party.v4));
            namespace.ip(&format!("addr add {}/64 dev {OUTSIDE} nodad", party.v6));
        }
        self.neighbour(namespace, OUTSIDE, SERVER, INSIDE_MAC);
    }

    /// Nobody has an address on the outside: only what a test sends by itself arrives.
    pub fn raw() -> Self {
        Self::joined(&format!("link add {INSIDE} type veth peer name {OUTSIDE}"))
    }

    /// The same with a wire made by other words of `ip`, its outside end in the host's namespace at first.
    pub fn joined(words: &str) -> Self {
        namespace::clear_stale();
        bpffs::clear_stale();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let site = Self {
            bpf: BpfFs::mount(folder.path().join("bpf")),
            outside: Namespace::new("outside"),
            server: Namespace::new("server"),
            folder,
        };
        site.server.ip(words);
        site.server
            .ip(&format!("link set {OUTSIDE} netns {}", site.outside.name()));
        site.outside
            .sysctl(&format!("net/ipv6/conf/{OUTSIDE}/disable_ipv6"), "1");
        site.server
            .ip(&format!("link set {INSIDE} address {}", mac(INSIDE_MAC)));
        site.outside
            .ip(&format!("link set {OUTSIDE} address {}", mac(OUTSIDE_MAC)));
        site.server.ip(&format!("addr add {}/24 dev {INSIDE}", SERVER.v4));
        site.server
            .ip(&format!("addr add {}/64 dev {INSIDE} nodad", SERVER.v6));
        site.server.ip(&format!("link set {INSIDE} up"));
        site.outside.ip(&format!("link set {OUTSIDE} up"));
        for party in [LISTED, GREEDY, STRANGER] {
            site.neighbour(&site.server, INSIDE, party, OUTSIDE_MAC);
        }
        site
    }

    /// Known from the start, so that nobody asks for it.
    fn neighbour(&self, namespace: &Namespace, device: &str, party: Party, address: [u8; 6]) {
        for ip in party.addresses() {
            namespace.ip(&format!(
                "neigh replace {ip} lladdr {} dev {device} nud permanent",
                mac(address)
            ));
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn policy_file(&self) -> PathBuf {
        self.folder().join("keyfence.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder().join("api.sock")
    }

    /// The log of drops, unless a policy names others.
    pub fn drops(&self) -> PathBuf {
        self.folder().join("api.drops.jsonl")
    }

    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// Writes the policy file; nobody reads it until told.
    pub fn write(&self, policy: &Policy) {
        self.write_text(&policy.text(&self.socket()));
    }

    pub fn write_text(&self, text: &str) {
        std::fs::write(self.policy_file(), text).expect("a temporary folder can be written");
    }

    /// The pinned maps of the instance `main` that outlive a generation, with their kernel ids.
    pub fn map_ids(&self) -> Vec<(PathBuf, u64)> {
        let maps = self.bpf.list("keyfence/main/maps").into_iter();
        let id = |path: &PathBuf| bpffs::show_map(path)["id"].as_u64().expect("a map has an id");
        maps.map(|path| (path.clone(), id(&path))).collect()
    }

    /// A copy of the program where everybody can reach it, in a folder that everybody may read.
    pub fn program_for_everyone(&self) -> PathBuf {
        let path = self.folder().join("keyfence");
        std::fs::copy(keyfence_path(), &path).expect("the program can be copied");
        run(system("chmod").arg("755").arg(self.folder()));
        path
    }

    /// Where an instance's pins are.
    pub fn pins(&self, instance: &str) -> PathBuf {
        self.bpf.path().join("keyfence").join(instance)
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}
