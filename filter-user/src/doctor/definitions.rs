//! Every finding there is: its id, how grave it is, what it means and what to do. docs/DOCTOR.md is made of this.

use std::fmt::Write as _;

/// How grave; the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The filter cannot do its work, or does not.
    Error,
    /// It does less than the policy wants, or something goes past it.
    Warning,
    /// Worth knowing; all is as it should be.
    Note,
}

impl Severity {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    pub id: &'static str,
    pub severity: Severity,
    pub means: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// Defines them, and all of them in one list.
macro_rules! definitions {
    ($($name:ident: $id:literal, $severity:ident, $means:literal, $fix:literal;)*) => {
        $(pub static $name: Definition =
            Definition { id: $id, severity: Severity::$severity, means: $means, fix: $fix };)*
        /// In the order of the document.
        pub static ALL: &[&Definition] = &[$(&$name),*];
    };
}

definitions! {
    POLICY_INVALID: "policy-invalid", Error,
        "The policy file cannot be read, or has faults: what concerns its interfaces and services was not looked at.",
        "Run `keyfence check` and mend what it names; name another file with --policy.";
    KERNEL_OLD: "kernel-old", Error,
        "The kernel lacks what the filter is made of (XDP with fragments, the loop of BPF, memory counted by cgroup \
         rather than by RLIMIT_MEMLOCK).",
        "Boot Linux 6.1 or later.";
    PROGRAM_REFUSED: "program-refused", Error,
        "The kernel does not take the program with this policy's tables: nothing can be filtered by it. That is a kernel \
         built without a feature (BPF, XDP, BTF), too little memory, or a fault of ours.",
        "Compare the kernel's words with its configuration (CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT, CONFIG_DEBUG_INFO_BTF, \
         CONFIG_XDP_SOCKETS is not needed); where it is the verifier that refuses, report it with the kernel's version.";
    JIT_OFF: "jit-off", Warning,
        "The kernel interprets programs rather than compiling them: each packet costs several times what it should.",
        "Set net.core.bpf_jit_enable = 1 by sysctl, and keep it in /etc/sysctl.d.";
    BPFFS_MISSING: "bpffs-missing", Error,
        "Without a BPF file system nothing can be pinned: the filter would end with the daemon.",
        "Mount one: `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`, or name another with --bpf-fs.";
    BPFFS_SHARED: "bpffs-shared", Error,
        "Another user may write where the filter is pinned, and could take it away. A daemon of this user refuses to start there.",
        "Look at the folder with `ls -ld`. If the service made it (owner keyfence, mode 0700): `systemctl start keyfence`, \
         and no start as root. Else see who made it, and mount the BPF file system with mode=0700. Its pins are the filter: \
         whoever removes the folder opens the host, every packet passes then.";
    NOT_FILTERING: "not-filtering", Warning,
        "Nothing of this instance is in the kernel: every packet passes.",
        "Restart the daemon, which may be running without its filter: `systemctl restart keyfence`; or `keyfence run --policy \
         FILE`. Where there is no policy yet: `keyfence init --output /etc/keyfence/keyfence.toml` first.";
    LAYOUT_OTHER: "layout-other", Error,
        "The filter in the kernel was made by a newer release with other tables. It goes on judging; this program can \
         neither read nor change it.",
        "Run the release that made it, or start this one with `keyfence run --downgrade`, which takes its place with \
         nothing open in between.";
    LAYOUT_OLDER: "layout-older", Warning,
        "The filter in the kernel was made by an older release with other tables. It goes on judging.",
        "Start this release's daemon: it takes its place with nothing open in between.";
    PINS_MISSING: "pins-missing", Error,
        "Somebody has removed pins of the filter. Without the one named GENERATION, and without a daemon, it drops every \
         packet, management's too; without others it judges as before, and cannot be taken over as it is.",
        "Start the daemon, `systemctl start keyfence`: it makes the filter anew in its place, of the policy and the bindings \
         stored; a daemon that runs pins them again within a second. Find who removes them.";
    DAEMON_UNREACHABLE: "daemon-unreachable", Warning,
        "The kernel goes on judging by what is in force, leases end in time, and nobody follows changes, writes records \
         or answers.",
        "Look at `systemctl status keyfence` and its log; name the socket with --socket if it is another.";
    DAEMON_NOT_READY: "daemon-not-ready", Warning,
        "The daemon runs and says that something is not as it should be.",
        "Do what the sentence says; `keyfence status` shows the rest.";
    INTERFACE_UNFILTERABLE: "interface-unfilterable", Error,
        "The policy means an interface that is not there or cannot be filtered: what arrives there is not judged.",
        "Correct `interfaces` in [filter], or bring the interface up.";
    INTERFACE_UNFILTERED: "interface-unfiltered", Error,
        "The filter is in force and not on this interface: every packet that arrives there passes.",
        "Look at `keyfence status` for the cause, then `keyfence reload`.";
    HOOK_HELD: "hook-held", Error,
        "Another program has the interface's XDP hook, and only one can: the filter cannot be put there.",
        "Stop the service that loaded it (`bpftool prog show id ID` and `bpftool net` tell more), or take it off: \
         `ip link set dev INTERFACE xdp off`.";
    MODE_GENERIC: "mode-generic", Warning,
        "The filter is in the kernel's network stack and not in the driver: it judges the same, each packet costs more, \
         and merged packets count as one.",
        "Use a driver with XDP, or a smaller MTU where that is why the driver refused; attach = \"generic\" says that it \
         is meant.";
    MTU_PAGE: "mtu-page", Warning,
        "A frame of this MTU does not fit into one page with what XDP needs beside it: drivers that cannot take frames in \
         parts refuse the program, and the filter falls back to generic mode.",
        "Lower the MTU to what is named, or see by `keyfence status` that the mode is native nevertheless.";
    QUEUES_FEW: "queues-few", Note,
        "The interface receives by fewer queues than there are CPUs: only as many CPUs judge packets at the same time.",
        "Where a flood matters: `ethtool -L INTERFACE combined N`.";
    TAG_STRIPPED: "tag-stripped", Note,
        "The device takes the outer VLAN tag out of a frame before the filter sees it. The verdict is the same; a frame \
         with three tags is judged as one with two, and captures show one tag less.",
        "Nothing; `ethtool -K INTERFACE rxvlan off` where the tags matter to you.";
    BOND_PARTIAL: "bond-partial", Warning,
        "Some members of a bond or ports of a bridge are filtered and others are not: what arrives by the others is not \
         judged.",
        "Name the bond or bridge itself in `interfaces`, or all of its parts.";
    BRIDGE_INSIDE: "bridge-inside", Note,
        "At a bridge, what goes from port to port is not this host's: where the bridge is filtered it is not judged, and \
         where a port is filtered it is judged as well.",
        "Nothing, unless virtual machines or containers behind it are to be protected too: filter the port that leads \
         outside.";
    UNFILTERED_INTERFACE: "unfiltered-interface", Warning,
        "A service can be reached by an interface that the policy does not name: strangers there are not judged.",
        "Name the interface in `interfaces`, bind the program to the addresses that are meant, or close the way with the \
         firewall.";
    UNSERVED_ADDRESS: "unserved-address", Warning,
        "The program that serves this port listens at addresses that no service of the policy names, and other-address \
         is `pass`: there, everybody reaches it.",
        "Write address = \"host\" or add the address to the service, set other-address = \"drop\", or bind the program to \
         fewer addresses.";
    UNWRAPS: "unwraps", Warning,
        "This device gives the host packets out of others (a tunnel, a VPN, encryption, a switch's tags). The filter \
         judges the outer packet alone: what comes out is judged by nobody.",
        "Admit the tunnel's other ends only, as a service of their own. What comes out of an Ethernet device (vxlan, \
         geneve, gretap, macsec, …) is judged where `interfaces` names it as well; filter what comes out of others by \
         nftables.";
    NAT_PUBLISHED: "nat-published", Warning,
        "Packets are judged before NAT changes them: by the port at which they arrive. The policy names the port behind \
         NAT alone, which these packets never have, so that they are no service's.",
        "Name the port (and address) that is published in the service.";
    NAT_OTHER: "nat-other", Note,
        "NAT publishes a port that no service names: it follows other-traffic.",
        "Nothing, unless it should be protected: then name the published port in a service.";
    CLOCK_COARSE: "clock-coarse", Note,
        "The kernel's ticks cannot be read as a clock: each packet that asks the time costs about 5 ns more.",
        "Nothing; high-resolution timers (highres=on) bring it back.";
    CLOCK_UNSYNCHRONISED: "clock-unsynchronised", Warning,
        "No time service holds the wall clock, and the policy has ends that follow it: a client's `expires`, and leases \
         over a reboot, are as wrong as the clock.",
        "Run chrony, ntpd or systemd-timesyncd; `timedatectl` shows it.";
    CLOCK_BACK: "clock-back", Warning,
        "Files of the daemon's state are from the future: the wall clock has gone back. What ends by the wall clock ends \
         later than it should.",
        "Set the clock; `timedatectl` shows it.";
    NOT_LOOKED: "not-looked", Note,
        "This could not be looked at: nothing is said of it.",
        "Run as root, or install the program that is named.";
}

/// docs/DOCTOR.md.
pub fn reference() -> String {
    let mut page = String::from(
        "# What `keyfence doctor` finds\n\n\
         Made by `keyfence generate doctor-reference`; do not edit.\n\n\
         `keyfence doctor` looks at the host and changes nothing. It exits 0 where nothing is wrong, 6 where an `error` or \
         a `warning` was found; a `note` is worth knowing and no more. It sees more as root, and names what it could not \
         look at. Of the daemon it asks the status alone.\n\n\
         With `--json` it prints one object: `schema` (1), `kernel` (its release), `interfaces` (of the policy: `name`, \
         `driver`, `xdp` (`native`, `generic`, `none`, `other` or `unknown`), `mtu`, `queues`) and `findings`, each with \
         `id`, `severity`, `what`, `means` and `do`. One id may be found several times: what and where is in `what`.\n",
    );
    for definition in ALL {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## `{}`\nSeverity: {}.\n\n{}\n\n**What to do.** {}\n",
            definition.id,
            definition.severity.word(),
            definition.means,
            definition.fix
        );
    }
    page
}
