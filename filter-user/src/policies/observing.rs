//! Who is only observed at present and would be dropped: sources whose packets passed lately for no other reason than
//! that the policy in force, or an operator for a while, observes.
//!
//! The drop log says who they were; the reference judges them by what is in force and by what is planned.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use filter_common::verdict::{Reason, Verdict};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::cut::Cuts;
use super::guard::pushed;
use super::plan::{Cut, Ground, LISTED_MAX};
use crate::compiler::service_mode;
use crate::judge::frame::Flow;
use crate::judge::names_host;
use crate::judge::session::{Addresses, Ground as Judged, Said};
use crate::kernel::{addresses, clock};
use crate::policy::Policy;
use crate::policy::model::{ExpectProtocol, Mode};
use crate::records;
use crate::records::observed::{Ends, Observed, Seen, observed};

/// Who has sent since then has sent lately.
const LATELY: SignedDuration = SignedDuration::from_hours(24);

/// What is known of them before a plan is made.
#[derive(Default)]
pub(super) struct Observing {
    observed: Observed,
    /// Services that are observed for a while, `None` for everything.
    windows: Vec<(Option<String>, u64)>,
    /// What `"host"` means.
    host_addresses: Vec<IpNet>,
    /// Why nobody knows, a sentence.
    unknown: Option<String>,
}

impl Observing {
    /// Reads the log where anything observed could come to be dropped. `windows` are those of now.
    pub(super) async fn look(
        records: Option<&records::Handle>,
        old: &Policy,
        new: &Policy,
        windows: Vec<Option<String>>,
    ) -> Observing {
        let observes = !windows.is_empty() || has_mode(old, Mode::Observe);
        if !observes || !has_mode(new, Mode::Enforce) {
            return Observing::default();
        }
        let unknown = |why: String| Observing {
            unknown: Some(format!(
                "which sources are only observed at present and would be dropped is not known: {why}"
            )),
            ..Observing::default()
        };
        let Some(records) = records else {
            return unknown("the drop log is not there yet".to_owned());
        };
        let Some(file) = records.figures.file.clone() else {
            return unknown("records go to no file, the policy has no [[sink]] of type file".to_owned());
        };
        records.flush().await;
        let since = Timestamp::now() - LATELY;
        let read = tokio::task::spawn_blocking(move || observed(&file, since)).await;
        let read = read.map_err(|error| error.to_string());
        let observed = match read.and_then(|read| read.map_err(|error| error.to_string())) {
            Ok(observed) => observed,
            Err(why) => return unknown(format!("the drop log cannot be read: {why}")),
        };
        let host_addresses = match names_host(old) || names_host(new) {
            true => addresses::read().await.map_err(|error| error.to_string()),
            false => Ok(Vec::new()),
        };
        match host_addresses {
            Ok(host_addresses) => Observing {
                observed,
                windows: windows.into_iter().map(|name| (name, u64::MAX)).collect(),
                host_addresses,
                unknown: None,
            },
            Err(why) => unknown(format!("what \"host\" means cannot be read: {why}")),
        }
    }
}

/// Whether anything goes by this mode.
fn has_mode(policy: &Policy, mode: Mode) -> bool {
    let mut services = policy.services.iter();
    policy.filter.mode == mode || services.any(|service| service_mode(policy, service) == mode)
}

impl Cuts<'_> {
    /// Those that the log names, the busiest first; a sentence for each thing that it does not tell.
    pub(super) fn observed(&mut self, observing: &Observing) -> Vec<String> {
        let mut said: Vec<String> = observing.unknown.iter().cloned().collect();
        match self.ground.observed(observing) {
            Ok(cut) => {
                self.count += cut.len();
                let room = LISTED_MAX.saturating_sub(self.list.len());
                self.list.extend(cut.into_iter().take(room));
            }
            Err(error) => said.push(format!("who is only observed could not be judged: {error}")),
        }
        said.extend(left_out(&observing.observed, self.ground.new));
        said
    }
}

impl Ground<'_> {
    fn observed(&self, observing: &Observing) -> Result<Vec<Cut>, crate::compiler::CompileError> {
        let flows: Vec<(Flow, &Ends, &Seen)> = observing
            .observed
            .flows
            .iter()
            .flat_map(|(ends, seen)| flows(ends, seen).map(move |flow| (flow, ends, seen)))
            .collect();
        if flows.is_empty() {
            return Ok(Vec::new());
        }
        let sources = Addresses::of(flows.iter().map(|(flow, ..)| flow.from.0));
        let judged = |policy: &Arc<Policy>, epoch: u64, windows: &[(Option<String>, u64)]| {
            let pushed = pushed(self.bindings, epoch, policy, &sources);
            let ground = Judged {
                policy,
                pushed: &pushed,
                host_addresses: &observing.host_addresses,
                now: clock::monotonic().0,
                wall_offset: clock::wall_offset(),
            };
            ground.judged(flows.iter().map(|(flow, ..)| flow), windows)
        };
        let at_present = judged(self.old, self.epoch, &observing.windows)?;
        let planned = judged(self.new, self.epoch + 1, &[])?;
        let mut cut: BTreeMap<(IpAddr, &'static str), Cut> = BTreeMap::new();
        let mut told: Option<(&Ends, &'static str)> = None;
        for ((_, ends, seen), (now, then)) in flows.iter().zip(at_present.into_iter().zip(planned)) {
            let Some(then) = turned(now, then) else { continue };
            let reason = then.reason.name();
            let one = cut.entry((ends.source, reason)).or_insert_with(|| Cut {
                source: ends.source.into(),
                services: Vec::new(),
                owner: None,
                reason,
                last_seen: seen.last,
                packets: 0,
            });
            // Both source ports of one flow: counted once.
            if told.replace((ends, reason)) == Some((ends, reason)) {
                continue;
            }
            one.packets += seen.packets;
            one.last_seen = one.last_seen.max(seen.last);
            let service = then.service.filter(|name| !one.services.contains(name));
            one.services.extend(service);
        }
        let mut cut: Vec<Cut> = cut.into_values().collect();
        cut.iter_mut().for_each(|one| one.services.sort_unstable());
        cut.sort_by_key(|one| std::cmp::Reverse(one.packets));
        Ok(cut)
    }
}

/// What will become of a packet that passes now because it is observed, and is dropped then.
fn turned(now: Option<Said>, then: Option<Said>) -> Option<Said> {
    now.filter(|now| now.verdict == Verdict::Observe)?;
    then.filter(|then| then.verdict == Verdict::Drop)
}

/// By the lowest source port and the highest.
fn flows(ends: &Ends, seen: &Seen) -> impl Iterator<Item = Flow> {
    let protocol = match ends.protocol {
        1 | 58 => Some(ExpectProtocol::Icmp),
        6 => Some(ExpectProtocol::Tcp),
        17 => Some(ExpectProtocol::Udp),
        _ => None,
    };
    let (first, last) = seen.ports;
    let ports = std::iter::once(first).chain((last != first).then_some(last));
    let ends = *ends;
    ports.filter_map(move |port| {
        Some(Flow {
            from: (ends.source, port),
            to: (ends.destination, ends.port),
            protocol: protocol?,
        })
    })
}

/// What the list of sources does not tell, a sentence each.
fn left_out(observed: &Observed, new: &Policy) -> Vec<String> {
    let mut said = Vec::new();
    // Whether it is the filter's mode or a service's that decides differs by packet: said where any enforces.
    let limited: Vec<String> = observed
        .otherwise
        .iter()
        .filter(|(reason, _)| *reason != Reason::Internal.name() || new.filter.mode == Mode::Enforce)
        .map(|(reason, packets)| format!("{packets} {reason}"))
        .collect();
    if !limited.is_empty() {
        said.push(format!(
            "of sources that may go on, packets were only observed in the last day that would be dropped where the mode is \
             enforce: {} (`keyfence drops` shows whose)",
            limited.join(", ")
        ));
    }
    for (packets, why) in [
        (
            observed.hidden,
            "are recorded as of networks or pseudonyms only ([records] addresses, or in a flood)",
        ),
        (observed.beyond, "are of more sources than a plan looks at"),
    ] {
        if packets > 0 {
            said.push(format!(
                "{packets} packets that were only observed in the last day {why}: whether their sources would be cut is not \
                 known"
            ));
        }
    }
    if observed.bytes_unread > 0 {
        said.push(format!(
            "the drop log of the last day is long: {} MB of older lines were not read for sources that are only observed",
            observed.bytes_unread.div_ceil(1_000_000)
        ));
    }
    said
}
