//! Policy files of live tests: what every one needs, and what a test adds.

use std::fmt::Write as _;
use std::path::Path;

use super::nginx::Nginx;
use super::site::{INSIDE, LISTED};

/// Of the tests' own listener: all there are.
const ROLES: &str = r#"["publish", "authorize", "read", "operate", "deny", "metrics"]"#;

/// Where the kernel program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    Native,
    Generic,
    Auto,
}

impl Attach {
    pub const fn name(self) -> &'static str {
        match self {
            Attach::Native => "native",
            Attach::Generic => "generic",
            Attach::Auto => "auto",
        }
    }
}

/// A policy in parts.
#[derive(Clone, Debug)]
pub struct Policy {
    attach: Attach,
    interface: String,
    filter: String,
    entries: String,
    daemon: String,
}

impl Policy {
    /// With these services, clients and so on.
    pub fn new(attach: Attach, entries: &str) -> Self {
        Self {
            attach,
            interface: INSIDE.into(),
            filter: String::new(),
            entries: entries.into(),
            daemon: String::new(),
        }
    }

    /// With nginx's port and one for UDP, both for the listed client alone.
    pub fn of_two_services(attach: Attach, udp: u16) -> Self {
        let (tcp, v4, v6) = (Nginx::PORT, LISTED.v4, LISTED.v6);
        let entries = format!(
            r#"
[[service]]
name = "api"
protocol = "tcp"
ports = [{tcp}]
[[service]]
name = "datagrams"
protocol = "udp"
ports = [{udp}]
[[client]]
name = "listed"
sources = ["{v4}", "{v6}"]
services = ["*"]
"#
        );
        Self::new(attach, &entries)
    }

    /// With these keys in `[filter]`.
    pub fn filter(mut self, keys: &str) -> Self {
        let _ = writeln!(self.filter, "{keys}");
        self
    }

    /// With these keys in `[daemon]`.
    pub fn daemon(mut self, keys: &str) -> Self {
        let _ = writeln!(self.daemon, "{keys}");
        self
    }

    pub fn interface(mut self, name: &str) -> Self {
        self.interface = name.into();
        self
    }

    /// With more services, clients and so on.
    pub fn and(mut self, entries: &str) -> Self {
        let _ = writeln!(self.entries, "\n{entries}");
        self
    }

    /// The file, with a listener for the tests' own questions.
    pub fn text(&self, socket: &Path) -> String {
        let Self {
            attach,
            interface,
            filter,
            entries,
            daemon,
        } = self;
        // A log of the test's own, unless it says where drops go; seconds are long for a test.
        let mut sinks = String::new();
        if !entries.contains("[records]") {
            sinks.push_str("[records]\ninterval = \"1s\"\n");
        }
        if !entries.contains("[[sink]]") {
            let path = socket.with_extension("drops.jsonl");
            let _ = writeln!(sinks, "[[sink]]\npath = \"{}\"", path.display());
        }
        format!(
            "version = 1\n\
             [filter]\ninterfaces = [\"{interface}\"]\nattach = \"{}\"\n{filter}\n\
             {entries}\n\
             [daemon]\n{daemon}\n\
             [[listener]]\naddress = \"unix:{}\"\ngroup = \"root\"\nroles = {ROLES}\n\
             {sinks}",
            attach.name(),
            socket.display()
        )
    }
}
