//! The vectors, and random frames with the oracle's answers, as cases for `keyfence-mutants`: policies compiled,
//! names turned into numbers. Decides nothing: answers are the vectors' or the oracle's.

use std::collections::HashMap;
use std::path::Path;

use filter_common::account;
use filter_common::verdict::{NO_OWNER, NO_SERVICE, Reason, Verdict};
use filter_user::compiler::{Compiled, Key};
use keyfence_mutants::cases::{Case, Group, Wanted};
use keyfence_mutants::compiler as plain;

use crate::oracle::frames::{self, Carrier, Ipv4};
use crate::oracle::judge::{self, Judge};
use crate::oracle::packet::{self, Frame};
use crate::oracle::policy::Policy;
use crate::oracle::random::{Budgets, run};
use crate::oracle::vectors::{START_NS, VectorFile, files};
use crate::subject::Subject;

/// Every vector file, one group each.
pub fn vectors(folder: &Path) -> Result<Vec<Group>, String> {
    let paths = files(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    paths.iter().map(|path| vector_file(path)).collect()
}

fn vector_file(path: &Path) -> Result<Group, String> {
    let file = VectorFile::read(path)?;
    let mut policy = Policy::from_toml(&file.policy)?;
    policy.host_addresses.clone_from(&file.host_addresses);
    let mut judges = Judges::new(&file.policy, &policy, START_NS)?;
    let mut cases = Vec::new();
    for vector in &file.cases {
        let answer = Named {
            verdict: &vector.verdict,
            reason: &vector.reason,
            service: &vector.service,
            owner: &vector.owner,
        };
        let mut case = judges.case(
            vector.bytes()?,
            vector.now_ns(),
            vector.times.max(1),
            Some(answer),
        )?;
        case.name.clone_from(&vector.name);
        cases.push(case);
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into();
    Ok(judges.group(name, cases))
}

/// Random frames under random policies, one group a seed, with the oracle's answers.
pub fn random(seeds: std::ops::Range<u64>, frames_each: usize) -> Result<Vec<Group>, String> {
    let group = |seed: u64| {
        // As in the test against the oracle: budgets whose tokens are whole nanoseconds.
        let budgets = if seed.is_multiple_of(2) {
            Budgets::None
        } else {
            Budgets::Whole
        };
        let random = run(seed, frames_each, budgets);
        let start = random.frames.first().map_or(START_NS, |(now, _)| *now);
        let mut judges = Judges::new(&random.policy.to_toml(), &random.policy, start)?;
        let mut cases = Vec::new();
        for (now, frame) in random.frames {
            cases.push(judges.case(frame, now, 1, None)?);
        }
        Ok(judges.group(format!("seed {seed}"), cases))
    };
    seeds.map(group).collect()
}

/// Tables that lack what the compiler always writes: nothing passes for want of an entry.
pub fn broken() -> Result<Vec<Group>, String> {
    type Break = fn(&mut plain::Compiled);
    let no_limits: Break = |tables| tables.limits.truncate(1);
    let groups: [(&str, &str, &str, Break, Named<'_>); 6] = [
        (
            "no classes",
            "",
            "",
            |tables| tables.classes.clear(),
            refused("internal", "", ""),
        ),
        (
            "no services",
            "",
            "",
            |tables| tables.services.clear(),
            refused("internal", "", ""),
        ),
        (
            "no limit of bytes",
            "",
            BYTES,
            no_limits,
            refused("limit-grant", "payments", "client/acme"),
        ),
        (
            "no limit of connections",
            "",
            CONNECTIONS,
            no_limits,
            refused("limit-grant", "payments", "client/acme"),
        ),
        (
            "no limit of a service",
            BYTES,
            "",
            no_limits,
            refused("limit-service", "payments", "client/acme"),
        ),
        (
            "no owner",
            "",
            "",
            |tables| tables.owners.clear(),
            refused("unlisted", "payments", ""),
        ),
    ];
    let opening = Ipv4::new([198, 51, 100, 7].into(), [203, 0, 113, 10].into()).tcp(40000, 443);
    let mut all = Vec::new();
    for (name, service, client, break_it, answer) in groups {
        all.push(broken_group(
            name,
            service,
            client,
            break_it,
            (opening.clone().into(), answer),
        )?);
    }
    let echo = Ipv4::new([198, 51, 100, 7].into(), [203, 0, 113, 10].into()).icmp(8, 0);
    let answer = refused("limit-icmp", "", "");
    let no_services: Break = |tables| tables.services.clear();
    all.push(broken_group(
        "no limit of echo requests",
        "",
        "",
        no_services,
        (echo.into(), answer),
    )?);
    Ok(all)
}

const BYTES: &str = "limit = { bytes = { rate = 1000, burst = 9000 } }";
const CONNECTIONS: &str = "limit = { connections = { rate = 1000, burst = 9000 } }";

fn refused<'a>(reason: &'a str, service: &'a str, owner: &'a str) -> Named<'a> {
    Named {
        verdict: "drop",
        reason,
        service,
        owner,
    }
}

fn broken_group(
    name: &str,
    service: &str,
    client: &str,
    break_it: fn(&mut plain::Compiled),
    (frame, answer): (frames::Frame, Named<'_>),
) -> Result<Group, String> {
    let text = format!(
        "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n[filter.icmp-limit]\npackets = {{ rate = 1000, burst = 1000 }}\n\
         [[service]]\nname = \"payments\"\naddress = [\"203.0.113.10\"]\nprotocol = \"tcp\"\nports = [443]\n{service}\n\
         [[client]]\nname = \"acme\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"*\"]\n{client}\n"
    );
    let judges = Judges::new(&text, &Policy::from_toml(&text)?, START_NS)?;
    let frame = frame.bytes();
    let wanted = judges.wanted(&frame, answer)?;
    let now = judges.subject.clock(START_NS);
    let name = format!("tables with {name}");
    let case = Case {
        name: name.clone(),
        frame,
        times: 1,
        now,
        wanted,
        wanted_as_reply: wanted,
    };
    let mut group = judges.group(name, vec![case]);
    break_it(&mut group.compiled);
    Ok(group)
}

/// An answer in the words of the contract; "" for none.
#[derive(Clone, Copy)]
struct Named<'a> {
    verdict: &'a str,
    reason: &'a str,
    service: &'a str,
    owner: &'a str,
}

/// One policy, compiled, and in the oracle.
struct Judges {
    subject: Subject,
    oracle: Judge,
}

impl Judges {
    fn new(text: &str, policy: &Policy, start_ns: u64) -> Result<Self, String> {
        let subject = Subject::on_host(text, &policy.host_addresses, start_ns)?;
        Ok(Self {
            subject,
            oracle: Judge::new(policy),
        })
    }

    /// `answer` is the vector's; without one, the oracle's.
    fn case(
        &mut self,
        frame: Vec<u8>,
        now_ns: u64,
        times: u64,
        answer: Option<Named>,
    ) -> Result<Case, String> {
        let mut connected = self.oracle.clone();
        connected.connected = true;
        let as_reply = connected.judge(&frame, now_ns);
        let first = self.oracle.judge(&frame, now_ns);
        for _ in 1..times {
            self.oracle.judge(&frame, now_ns);
        }
        Ok(Case {
            name: format!("at {now_ns}"),
            wanted: self.wanted(&frame, answer.unwrap_or(named(&first)))?,
            wanted_as_reply: self.wanted(&frame, named(&as_reply))?,
            now: self.subject.clock(now_ns),
            frame,
            times,
        })
    }

    fn wanted(&self, frame: &[u8], answer: Named<'_>) -> Result<Wanted, String> {
        let verdict = Verdict::ALL
            .into_iter()
            .find(|verdict| verdict.name() == answer.verdict);
        let reason = Reason::ALL
            .into_iter()
            .find(|reason| reason.name() == answer.reason);
        let (Some(verdict), Some(reason)) = (verdict, reason) else {
            return Err(format!("{} {} is no answer", answer.verdict, answer.reason));
        };
        // What is no IP packet counts as long as its frame.
        let bytes = match packet::read(frame) {
            Ok(Frame::Ip(packet)) => packet.bytes,
            _ => frame.len() as u64,
        };
        let service = number(self.subject.services(), answer.service, NO_SERVICE)?;
        Ok(Wanted {
            verdict: verdict as u8,
            reason: reason as u8,
            service,
            owner: number(self.subject.owners(), answer.owner, NO_OWNER)?,
            bytes: u32::try_from(bytes).map_err(|error| error.to_string())?,
            counter: account::index(verdict, reason, service),
        })
    }

    fn group(&self, name: String, cases: Vec<Case>) -> Group {
        Group {
            name,
            compiled: plain(self.subject.compiled()),
            cases,
        }
    }
}

fn named(verdict: &judge::Verdict) -> Named<'_> {
    Named {
        verdict: verdict.verdict.as_str(),
        reason: verdict.reason,
        service: verdict.service.as_deref().unwrap_or(""),
        owner: verdict.owner.as_deref().unwrap_or(""),
    }
}

fn number(names: &HashMap<u32, String>, name: &str, none: u32) -> Result<u32, String> {
    if name.is_empty() {
        return Ok(none);
    }
    let found = names.iter().find(|(_, known)| *known == name);
    found
        .map(|(number, _)| *number)
        .ok_or_else(|| format!("{name} has no number"))
}

/// The same tables, as the crate that knows no compiler has them.
fn plain(compiled: &Compiled) -> plain::Compiled {
    let Compiled {
        flags,
        row_words,
        sources_v4,
        sources_v6,
        sources,
        addresses,
        classes,
        ..
    } = compiled.clone();
    let Compiled {
        ports,
        port_masks,
        rows,
        grants,
        owners,
        port_sets,
        limits,
        services,
        source_lines,
        ..
    } = compiled.clone();
    plain::Compiled {
        flags,
        row_words,
        sources_v4: keys(sources_v4),
        sources_v6: keys(sources_v6),
        sources,
        addresses: keys(addresses),
        classes,
        ports,
        port_masks,
        rows,
        grants,
        owners,
        port_sets,
        limits,
        services,
        source_lines,
        // For changes, of which there are none.
        doubled_v4: Vec::new(),
        doubled_v6: Vec::new(),
        room: plain::Room::default(),
    }
}

fn keys<const N: usize, V>(entries: Vec<(Key<N>, V)>) -> Vec<(plain::Key<N>, V)> {
    let key = |Key { address, length }| plain::Key { address, length };
    entries
        .into_iter()
        .map(|(entry, value)| (key(entry), value))
        .collect()
}
