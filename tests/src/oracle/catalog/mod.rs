//! Where the vector files come from: each frame built, each answer worked out by hand from SPEC 3.
//!
//! Never asks the judge. `KEYFENCE_WRITE_VECTORS=1 cargo test vectors` writes the files anew; without it the
//! tests hold the files to this catalog, and the judge to the files. See vectors/README.md for who is who.

mod bypass_fragments;
mod bypass_headers;
mod bypass_packets;
mod found_by_mutants;
mod rule_01_link;
mod rule_02_extensions;
mod rule_02_ipv4;
mod rule_02_ipv6;
mod rule_02_transport;
mod rule_03_essential;
mod rule_04_management;
mod rule_05_deny;
mod rule_06_icmp;
mod rule_07_service;
mod rule_08_charged;
mod rule_08_fragments;
mod rule_09_grants;
mod rule_10_limits;
mod rule_10_sources;
mod rule_11_observe;

use super::frames::{Carrier, Frame, Ipv4, Ipv6};
use super::vectors::{Case, VectorFile};

// In acme's and in branch's prefix.
pub(super) const LISTED: &str = "198.51.100.7";
pub(super) const LISTED6: &str = "2001:db8:ac:1::7";
// In acme's prefix only.
pub(super) const ACME: &str = "198.51.100.200";
pub(super) const ACME6: &str = "2001:db8:ac:2::7";
// In no prefix.
pub(super) const STRANGER: &str = "100.64.0.9";
pub(super) const STRANGER6: &str = "2001:db8:bad::9";
// In acme's prefix and denied.
pub(super) const DENIED: &str = "198.51.100.66";
pub(super) const DENIED6: &str = "2001:db8:ac:66::1";
// Management's.
pub(super) const ADMIN: &str = "192.0.2.5";
pub(super) const ADMIN6: &str = "2001:db8:ad::5";
// Of the service payments (tcp 443, 8443-8450).
pub(super) const API: &str = "203.0.113.10";
pub(super) const API6: &str = "2001:db8::10";
// Of the service resolver (tcp and udp 53).
pub(super) const DNS: &str = "203.0.113.53";
pub(super) const DNS6: &str = "2001:db8:0:53::1";
// Of no service.
pub(super) const ELSE: &str = "203.0.113.200";
pub(super) const ELSE6: &str = "2001:db8:e::1";

/// The entries most files share.
pub(super) const ENTRIES: &str = r#"
[[service]]
name = "payments"
address = ["203.0.113.10", "2001:db8::/64"]
protocol = "tcp"
ports = [443, "8443-8450"]

[[service]]
name = "resolver"
address = ["203.0.113.53", "2001:db8:0:53::/64"]
protocol = ["tcp", "udp"]
ports = [53]

[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
services = ["payments"]

[[client]]
name = "branch"
sources = ["198.51.100.0/28", "2001:db8:ac:1::/64"]
services = ["resolver"]

[[deny]]
name = "abuse"
sources = ["198.51.100.66", "2001:db8:ac:66::/64"]

[[management]]
name = "ssh"
sources = ["192.0.2.0/24", "2001:db8:ad::/48"]
protocol = "tcp"
ports = [22]
"#;

/// Everything that may pass, passes.
pub(super) const OPEN: &str = r#"other-traffic = "pass"
other-address = "pass"
fragments = "pass"
ping = "pass"
non-ip = "pass"
"#;

/// Everything that may be dropped, is dropped.
pub(super) const CLOSED: &str = r#"other-traffic = "drop"
other-address = "drop"
fragments = "drop"
ping = "drop"
non-ip = "drop"
"#;

/// A policy file: the filter's keys, then entries.
pub(super) fn policy(filter: &str, entries: &str) -> String {
    format!("version = 1\n\n[filter]\ninterfaces = [\"eth0\"]\n{filter}{entries}")
}

pub(super) fn v4(source: &str, destination: &str) -> Ipv4 {
    Ipv4::new(source.parse().unwrap(), destination.parse().unwrap())
}

pub(super) fn v6(source: &str, destination: &str) -> Ipv6 {
    Ipv6::new(source.parse().unwrap(), destination.parse().unwrap())
}

/// What a case expects.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    verdict: &'static str,
    reason: &'static str,
    service: &'static str,
    owner: &'static str,
}

pub(super) fn pass(reason: &'static str) -> Expected {
    Expected {
        verdict: "pass",
        reason,
        service: "",
        owner: "",
    }
}

pub(super) fn drop(reason: &'static str) -> Expected {
    Expected {
        verdict: "drop",
        reason,
        service: "",
        owner: "",
    }
}

pub(super) fn observe(reason: &'static str) -> Expected {
    Expected {
        verdict: "observe",
        reason,
        service: "",
        owner: "",
    }
}

pub(super) fn allowed(service: &'static str, owner: &'static str) -> Expected {
    pass("allowed").at(service).by(owner)
}

impl Expected {
    /// Names the service.
    pub(super) fn at(self, service: &'static str) -> Expected {
        Expected { service, ..self }
    }

    /// Names the owner, a client.
    pub(super) fn by(self, owner: &'static str) -> Expected {
        Expected { owner, ..self }
    }
}

/// One vector file in the making.
pub(super) struct Page {
    name: &'static str,
    file: VectorFile,
}

impl Page {
    pub(super) fn new(name: &'static str, about: &str, policy: String) -> Page {
        let file = VectorFile {
            about: about.to_owned(),
            host_addresses: Vec::new(),
            policy,
            cases: Vec::new(),
        };
        Page { name, file }
    }

    pub(super) fn hosts(mut self, addresses: &[&str]) -> Page {
        self.file.host_addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self
    }

    pub(super) fn add(
        &mut self,
        name: impl Into<String>,
        what: &str,
        frame: impl Into<Frame>,
        expected: Expected,
        why: &str,
    ) -> &mut Case {
        let owner = match expected.owner {
            "" => String::new(),
            name => format!("client/{name}"),
        };
        // The last case's time: time never goes back.
        let at_ms = self.file.cases.last().map_or(0, |case| case.at_ms);
        self.file.cases.push(Case {
            name: name.into(),
            what: what.split_whitespace().collect::<Vec<_>>().join(" "),
            why: format!("SPEC {why}"),
            frame: frame
                .into()
                .bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            zeros: 0,
            times: 1,
            at_ms,
            verdict: expected.verdict.to_owned(),
            reason: expected.reason.to_owned(),
            service: expected.service.to_owned(),
            owner,
        });
        self.file.cases.last_mut().unwrap()
    }
}

/// A case: its name, its frame (which is written down as it is built here), the answer, and why.
macro_rules! case {
    ($page:ident, $name:expr, $frame:expr, $expected:expr, $why:expr $(,)?) => {
        $page.add($name, stringify!($frame), $frame, $expected, $why)
    };
}
pub(super) use case;

/// The IP packet of a frame's worth, for packets within packets.
pub(super) fn inside(packet: &impl Carrier) -> Vec<u8> {
    packet.packet()
}

fn pages() -> Vec<Page> {
    [
        rule_01_link::pages(),
        rule_02_ipv4::pages(),
        rule_02_ipv6::pages(),
        rule_02_extensions::pages(),
        rule_02_transport::pages(),
        rule_03_essential::pages(),
        rule_04_management::pages(),
        rule_05_deny::pages(),
        rule_06_icmp::pages(),
        rule_07_service::pages(),
        rule_08_fragments::pages(),
        rule_08_charged::pages(),
        rule_09_grants::pages(),
        rule_10_limits::pages(),
        rule_10_sources::pages(),
        rule_11_observe::pages(),
        bypass_fragments::pages(),
        bypass_headers::pages(),
        bypass_packets::pages(),
        found_by_mutants::pages(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;
    use crate::oracle::judge::Judge;
    use crate::oracle::policy::Policy;
    use crate::oracle::vectors;

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
    }

    /// Writes the files where that is asked for; else they must be what the catalog says.
    #[test]
    fn vectors_on_disk_are_those_of_the_catalog() {
        let write = std::env::var_os("KEYFENCE_WRITE_VECTORS").is_some();
        let mut expected = BTreeSet::new();
        for page in pages() {
            let path = folder().join(format!("{}.toml", page.name));
            let text = page.file.to_toml();
            if write {
                std::fs::write(&path, &text).unwrap();
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == text,
                "{} differs: KEYFENCE_WRITE_VECTORS=1 writes it anew",
                path.display()
            );
            assert!(expected.insert(path), "{} comes twice", page.name);
        }
        let found: BTreeSet<PathBuf> = vectors::files(&folder()).unwrap().into_iter().collect();
        assert_eq!(found, expected, "no file beside the catalog's");
    }

    #[test]
    fn vectors_and_the_judge_agree() {
        let (mut cases, mut wrong) = (0, Vec::new());
        for path in vectors::files(&folder()).unwrap() {
            let file = vectors::VectorFile::read(&path).unwrap();
            let mut policy =
                Policy::from_toml(&file.policy).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            policy.host_addresses = file.host_addresses;
            let mut judge = Judge::new(&policy);
            let (mut names, mut at_ms) = (BTreeSet::new(), 0);
            for case in &file.cases {
                assert!(
                    names.insert(&case.name),
                    "{}: {} comes twice",
                    path.display(),
                    case.name
                );
                assert!(
                    case.at_ms >= at_ms,
                    "{}: {} goes back in time",
                    path.display(),
                    case.name
                );
                at_ms = case.at_ms;
                cases += 1;
                for _ in 0..case.times {
                    let found = judge.judge(&case.bytes().unwrap(), case.now_ns());
                    let found = (
                        found.verdict.as_str(),
                        found.reason,
                        found.service.unwrap_or_default(),
                        found.owner.unwrap_or_default(),
                    );
                    let expected = (
                        &case.verdict[..],
                        &case.reason[..],
                        case.service.clone(),
                        case.owner.clone(),
                    );
                    if found != expected {
                        let file = path.file_stem().unwrap().display().to_string();
                        wrong.push(format!(
                            "{file}: {}: {expected:?} but judged {found:?}\n",
                            case.name
                        ));
                    }
                }
            }
        }
        println!("vectors: {cases}");
        assert!(
            wrong.is_empty(),
            "{} of {cases} differ:\n{}",
            wrong.len(),
            wrong.concat()
        );
        assert!(cases > 500, "{cases}");
    }
}
