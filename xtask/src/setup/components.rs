//! The one table of programs that the build, the lab and the tests take from the system, each with its reason.
//! A test that calls another program adds its row here.

use std::path::PathBuf;

use super::emulator;
use crate::workspace;

/// Which command asks; each needs also what those before it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Builds keyfence with its kernel program.
    Build,
    /// Shows it in the lab.
    Run,
    /// Boots it under other kernels.
    Vm,
    /// Tests it.
    Test,
    /// Measures it beside others.
    Bench,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    /// Looked for on PATH and in the folders for administrators.
    pub(crate) program: &'static str,
    /// The package of Debian and Ubuntu that brings it.
    pub(crate) package: &'static str,
    pub(crate) need: Need,
    pub(crate) why: &'static str,
    /// The service that the package would start and enable, which nobody asked for.
    pub(crate) service: Option<&'static str>,
}

const fn row(program: &'static str, package: &'static str, need: Need, why: &'static str) -> Component {
    Component {
        program,
        package,
        need,
        why,
        service: None,
    }
}

/// The packages of Debian's compiler for the kernel program; `toolchain` says whether it is needed.
pub(crate) const COMPILER_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];
pub(crate) const COMPILER_WHY: &str =
    "compiles the kernel program: a rustc with the source of core, since none is built for BPF";
pub(crate) const LINKER_WHY: &str = "links the kernel program; must have the compiler's own LLVM";
pub(crate) const NEXTEST_WHY: &str = "runs the tests, the live ones one at a time";

pub(crate) const COMPONENTS: &[Component] = &[
    row(
        "ip",
        "iproute2",
        Need::Run,
        "makes the lab's network namespaces and interfaces",
    ),
    row(
        "nsenter",
        "util-linux",
        Need::Run,
        "a shell in a namespace of the lab that still sees /sys/fs/bpf",
    ),
    Component {
        service: Some("nginx"),
        ..row(
            "nginx",
            "nginx-light",
            Need::Run,
            "the real HTTP server behind the filter in the lab",
        )
    },
    row(
        "curl",
        "curl",
        Need::Run,
        "the lab's clients, and whoever reads the metrics",
    ),
    row(
        "bpftool",
        "bpftool",
        Need::Test,
        "reads the counters from the maps: a second opinion on our own",
    ),
    row(
        "tshark",
        "tshark",
        Need::Test,
        "reads captures with their comments, as Wireshark does",
    ),
    Component {
        service: Some("prometheus"),
        ..row(
            "promtool",
            "prometheus",
            Need::Test,
            "lints /metrics as Prometheus reads it, and tests the alert rules",
        )
    },
    row(
        "tmux",
        "tmux",
        Need::Test,
        "the terminal that `keyfence top` is watched in",
    ),
    row(
        "faketime",
        "faketime",
        Need::Test,
        "gives the daemon a wall clock that jumps",
    ),
    Component {
        service: Some("caddy"),
        ..row(
            "caddy",
            "caddy",
            Need::Test,
            "a gateway that asks whether a key may be used from an address",
        )
    },
    row(
        "python3",
        "python3-minimal",
        Need::Test,
        "runs the example of an API server's client",
    ),
    row(
        "virtualenv",
        "virtualenv",
        Need::Test,
        "holds schemathesis, which Debian has no package of",
    ),
    row(
        "cc",
        "gcc",
        Need::Test,
        "compiles what throws unsynced writes away",
    ),
    row(
        "ping",
        "iputils-ping",
        Need::Test,
        "echo and path MTU discovery as real hosts do them",
    ),
    row(
        "dig",
        "bind9-dnsutils",
        Need::Test,
        "answers to the host's own DNS queries",
    ),
    row(
        "dnsmasq",
        "dnsmasq-base",
        Need::Test,
        "the DHCP and DNS server of the live tests",
    ),
    row(
        "dhclient",
        "isc-dhcp-client",
        Need::Test,
        "DHCP answers that must pass a default drop",
    ),
    row(
        "ndisc6",
        "ndisc6",
        Need::Test,
        "neighbour discovery that must pass a default drop",
    ),
    row(
        "nping",
        "nmap",
        Need::Test,
        "scans and crafted probes of a stranger",
    ),
    Component {
        service: Some("rsyslog"),
        ..row(
            "rsyslogd",
            "rsyslog",
            Need::Test,
            "a real syslog that takes records of drops",
        )
    },
    row(
        "journalctl",
        "systemd",
        Need::Test,
        "a real journal that takes records of drops",
    ),
    row(
        "systemd-nspawn",
        "systemd-container",
        Need::Test,
        "boots a real systemd that runs Keyfence as its service",
    ),
    row(
        "lintian",
        "lintian",
        Need::Test,
        "complains of what a Debian package has wrong",
    ),
    row("c++", "g++", Need::Test, "compiles libFuzzer"),
    row("hping3", "hping3", Need::Test, "fragments of a stranger"),
    row(
        "atk6-fragmentation6",
        "thc-ipv6",
        Need::Test,
        "odd IPv6 extension headers and fragments",
    ),
    row(
        emulator::PROGRAM,
        emulator::PACKAGE,
        Need::Vm,
        "boots the kernels that Keyfence supports",
    ),
    row(
        "busybox",
        "busybox-static",
        Need::Vm,
        "the shell and the clients under those kernels",
    ),
    row(
        "nft",
        "nftables",
        Need::Bench,
        "measured beside us: sets, limits and meters",
    ),
    row(
        "iptables",
        "iptables",
        Need::Bench,
        "measured beside us: with ipset and hashlimit",
    ),
    row(
        "ethtool",
        "ethtool",
        Need::Bench,
        "lets a veth without XDP take the frames that are sent to it",
    ),
    row("ipset", "ipset", Need::Bench, "the sets of iptables"),
    row(
        "xdp-filter",
        "xdp-tools",
        Need::Bench,
        "measured beside us: an allowlist in XDP",
    ),
];

/// The rows that this need asks for.
pub(crate) fn needed(need: Need) -> impl Iterator<Item = &'static Component> {
    COMPONENTS.iter().filter(move |component| component.need <= need)
}

impl Component {
    pub(crate) fn is_here(&self) -> bool {
        self.place().is_some()
    }

    pub(super) fn place(&self) -> Option<PathBuf> {
        if self.program == emulator::PROGRAM {
            return emulator::place();
        }
        workspace::program(self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_asks_for_nothing_that_only_tests_need() {
        assert!(needed(Need::Build).all(|component| component.need == Need::Build));
        assert!(needed(Need::Run).all(|component| component.need <= Need::Run));
        assert_eq!(needed(Need::Bench).count(), COMPONENTS.len());
    }

    #[test]
    fn each_row_gives_its_reason_once() {
        for (at, component) in COMPONENTS.iter().enumerate() {
            assert!(!component.why.is_empty(), "{} has no reason", component.program);
            let same = |other: &&Component| other.program == component.program;
            assert_eq!(
                COMPONENTS[at..].iter().filter(same).count(),
                1,
                "{} is there twice",
                component.program
            );
        }
    }
}
