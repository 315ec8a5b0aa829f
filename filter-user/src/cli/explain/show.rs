//! An explained packet, as one JSON object or as a page.

use std::fmt::Write as _;
use std::net::SocketAddr;

use comfy_table::{Cell, Color, Table, presets};
use filter_common::parse::{Fragment, Frame, Packet, Protocol};
use filter_common::verdict::{Judgement, Verdict};
use serde_json::{Value, json};

use super::super::shell::{Shell, Tone};
use crate::judge::Names;
use crate::judge::reading::{Matched, Reading, address};
use crate::policy::model::Origin;

pub(super) struct Explained<'a> {
    pub(super) frame: &'a [u8],
    pub(super) kind: Frame,
    pub(super) packet: Packet,
    pub(super) interface: Interface,
    pub(super) reading: Reading,
    pub(super) reference: Said,
    /// `Err` is why it was not asked.
    pub(super) kernel: Result<Said, String>,
}

pub(super) struct Interface {
    pub(super) name: String,
    /// Whether the policy names it.
    pub(super) filtered: bool,
}

/// A judgement in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    verdict: Verdict,
    reason: &'static str,
    service: Option<String>,
    owner: Option<String>,
}

impl Said {
    pub(super) fn of(judgement: &Judgement, names: &Names) -> Self {
        Self {
            verdict: judgement.verdict,
            reason: judgement.reason.name(),
            service: names.service(judgement).map(str::to_owned),
            owner: names.owner(judgement).map(str::to_owned),
        }
    }

    fn object(&self) -> Value {
        json!({
            "verdict": self.verdict.name(),
            "reason": self.reason,
            "service": self.service,
            "owner": self.owner,
        })
    }

    fn shown(&self) -> String {
        let mut text = format!("{}, reason {}", self.verdict.name(), self.reason);
        for (what, name) in [("service", &self.service), ("owner", &self.owner)] {
            if let Some(name) = name {
                let _ = write!(text, ", {what} {name}");
            }
        }
        text
    }
}

impl Explained<'_> {
    /// What the rules as they are read here come to.
    fn read(&self) -> Said {
        Said {
            verdict: self.reading.verdict,
            reason: self.reading.reason.name(),
            service: self.reading.service.clone(),
            owner: self.reading.owner.clone(),
        }
    }

    /// Where those who were asked do not say the same.
    pub(super) fn difference(&self) -> Option<String> {
        let mut said = vec![("the reference", &self.reference)];
        if let Ok(kernel) = &self.kernel {
            said.push(("the kernel program", kernel));
        }
        let read = self.read();
        said.push(("the policy's entries, read one by one", &read));
        if said.iter().all(|(_, said)| *said == &self.reference) {
            return None;
        }
        let said: Vec<_> = said
            .iter()
            .map(|(who, said)| format!("\n  {who}: {}", said.shown()))
            .collect();
        let frame = hex(self.frame);
        Some(format!(
            "THEY DO NOT AGREE: a fault of keyfence, please report it with the policy and the frame {frame}{}",
            said.concat()
        ))
    }

    pub(super) fn object(&self) -> Value {
        let (from, to) = self.ends();
        let rules = self
            .reading
            .steps
            .iter()
            .map(|step| json!({ "rule": step.rule, "answer": step.answer, "detail": step.detail }));
        let matched = |kind: &str| {
            self.reading
                .matched
                .iter()
                .find(|matched| matched.kind == kind)
                .map(entry)
        };
        json!({
            "schema": 1,
            "from": from,
            "to": to,
            "frame": hex(self.frame),
            "interface": self.interface.name,
            "filtered": self.interface.filtered,
            "verdict": self.reference.verdict.name(),
            "reason": self.reference.reason,
            "service": self.reference.service,
            "owner": self.reference.owner,
            "rules": rules.collect::<Vec<_>>(),
            "matched": {
                "management": matched("management"),
                "deny": matched("deny"),
                "service": matched("service"),
                "client": matched("client"),
            },
            "reference": self.reference.object(),
            "kernel": self.kernel.as_ref().ok().map(Said::object),
            "kernel_not_asked": self.kernel.as_ref().err(),
            "agree": self.difference().is_none(),
        })
    }

    /// Source, and destination with the protocol, where it is an IP packet.
    fn ends(&self) -> (Option<String>, Option<String>) {
        if self.kind != Frame::Ip {
            return (None, None);
        }
        let packet = &self.packet;
        let [from, to] = [&packet.source, &packet.destination].map(address);
        let protocol = match packet.protocol {
            Protocol::Tcp => "tcp".to_owned(),
            Protocol::Udp => "udp".to_owned(),
            Protocol::Icmp => "icmp".to_owned(),
            Protocol::Other | Protocol::Unknown => packet.protocol_number.to_string(),
        };
        let has_ports = matches!(packet.protocol, Protocol::Tcp | Protocol::Udp);
        if !has_ports || packet.fragment == Fragment::Later {
            return (Some(from.to_string()), Some(format!("{to}/{protocol}")));
        }
        let from = SocketAddr::new(from, packet.source_port);
        let to = SocketAddr::new(to, packet.destination_port);
        (Some(from.to_string()), Some(format!("{to}/{protocol}")))
    }

    pub(super) fn page(&self, shell: &Shell) -> String {
        let mut page = String::new();
        let packet = match self.ends() {
            (Some(from), Some(to)) => format!("{from} to {to}"),
            _ => "a frame".to_owned(),
        };
        let tone = match self.reference.verdict {
            Verdict::Pass => Tone::Good,
            Verdict::Drop => Tone::Bad,
            Verdict::Observe => Tone::Warning,
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "{packet}, {} bytes on {}",
            self.frame.len(),
            self.interface.name
        );
        if !self.interface.filtered {
            let warning = format!(
                "{} is none of the policy's interfaces: nothing there is judged",
                self.interface.name
            );
            let _ = writeln!(page, "{}", shell.paint(Tone::Warning, &warning));
        }
        let _ = writeln!(page, "{}\n", shell.paint(tone, &self.reference.shown()));
        let _ = writeln!(
            page,
            "{}\n{}",
            shell.paint(Tone::Heading, "Rules"),
            self.rules(shell)
        );
        for matched in &self.reading.matched {
            let _ = write!(
                page,
                "\n{} {}\n  at {}\n",
                matched.kind,
                matched.name,
                place(&matched.origin)
            );
            if let Some(source) = &matched.source {
                let _ = writeln!(page, "  by {} at {}", source.prefix, place(&source.origin));
            }
            if let Some(note) = &matched.remarks.note {
                let _ = writeln!(page, "  note: {note}");
            }
            for (label, value) in &matched.remarks.labels {
                let _ = writeln!(page, "  {label}: {value}");
            }
        }
        let _ = writeln!(page, "\nreference       {}", self.reference.shown());
        let _ = match &self.kernel {
            Ok(kernel) => writeln!(page, "kernel program  {}", kernel.shown()),
            Err(why) => writeln!(page, "kernel program  not asked: {why}"),
        };
        page
    }

    fn rules(&self, shell: &Shell) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        for step in &self.reading.steps {
            let answer = Cell::new(step.answer);
            let answer = match step.answer {
                "yes" | "granted" | "paid" => answer.fg(Color::Green),
                "refused" => answer.fg(Color::Red),
                _ => answer,
            };
            let (number, name) = step.rule.split_once(' ').unwrap_or(("", step.rule));
            table.add_row([
                Cell::new(name),
                Cell::new(format!("rule {number}")),
                answer,
                Cell::new(&step.detail),
            ]);
        }
        match shell.colour_output {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        let lines = table.lines().map(|line| format!(" {}", line.trim_end()));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn entry(matched: &Matched) -> Value {
    let origin = |origin: &Origin| json!({ "file": origin.file.as_ref(), "line": origin.line });
    let source = matched.source.as_ref().map(|source| {
        let mut object = origin(&source.origin);
        object["prefix"] = source.prefix.to_string().into();
        object
    });
    let labels = matched
        .remarks
        .labels
        .iter()
        .map(|(label, value)| (label.clone(), value.as_str().into()));
    json!({
        "name": matched.name,
        "file": matched.origin.file.as_ref(),
        "line": matched.origin.line,
        "source": source,
        "note": matched.remarks.note,
        "labels": serde_json::Map::from_iter(labels),
    })
}

fn place(origin: &Origin) -> String {
    format!("{}:{}", origin.file, origin.line)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
