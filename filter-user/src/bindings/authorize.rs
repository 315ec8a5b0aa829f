//! Authorize: whether a key may be used from an address, from the same bindings that the kernel has.
//!
//! Reads memory alone: a look-up a publisher, short locks, no allocation but for the fingerprint and the answer.

use std::cell::OnceCell;
use std::net::IpAddr;

use serde::Serialize;
use subtle::ConstantTimeEq as _;

use super::Bindings;
use super::clock::{Clock, Now};
use super::memory::Shelf;
use super::model::allowance::PolicyView;
use super::model::lease::{Standing, standing};
use super::model::row::Row;
use super::model::view::suspended;
use crate::policy::model::{Mode, PortRange, ServiceSet};

/// What a gateway asks for one request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub service: &'a str,
    pub key: AskedKey<'a>,
    pub address: IpAddr,
    /// `None`: source ports are not judged.
    pub source_port: Option<u16>,
    /// Whether the service, and whether everything, is observed for a while.
    pub observing: [bool; 2],
}

#[derive(Clone, Copy)]
pub enum AskedKey<'a> {
    /// The key itself: fingerprinted, never kept.
    Secret(&'a [u8]),
    /// An id that the gateway has proved.
    Asserted(&'a str),
}

impl std::fmt::Debug for AskedKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AskedKey::Secret(_) => f.write_str("Secret(…)"),
            AskedKey::Asserted(id) => write!(f, "Asserted({id:?})"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// 200.
    Allowed,
    /// 401.
    Unknown,
    /// 403: the service is not the credential's, or the address is denied, or the binding is suspended.
    Denied,
    /// 403.
    Ended,
    /// 403: the address or the source port is not the credential's.
    Address,
    /// 400: there is no such service.
    NoSuchService,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Unknown => "unknown",
            Verdict::Denied => "denied",
            Verdict::Ended => "ended",
            Verdict::Address => "address",
            Verdict::NoSuchService => "no-such-service",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    /// What the credential and the address come to, whatever the mode.
    pub verdict: Verdict,
    /// The service (for a denied address: the filter) observes: a refusal is answered 200 and counted.
    pub observe: bool,
    /// Empty if unknown.
    pub credential: String,
    /// Empty if unknown, and for a client of the policy.
    pub publisher: String,
}

/// What is asked, apart from the key.
struct Question<'q> {
    service: &'q str,
    /// Its index in the policy.
    number: usize,
    address: IpAddr,
    source_port: Option<u16>,
    clock: &'q dyn Clock,
    now: OnceCell<Now>,
}

impl Question<'_> {
    /// Read where an end is to be judged.
    fn now(&self) -> &Now {
        self.now.get_or_init(|| self.clock.now())
    }
}

/// Which refusal tells most, where several holders of a credential refuse: the later in this list.
const TELLING: [Verdict; 5] = [
    Verdict::Unknown,
    Verdict::Denied,
    Verdict::Ended,
    Verdict::Address,
    Verdict::Allowed,
];

impl Bindings {
    /// Lock-light and quick: it may be called on a runtime's thread.
    pub fn authorize(&self, ask: &Ask<'_>) -> Authorized {
        let view = self.shared.view.load();
        let mut answer = Authorized {
            verdict: Verdict::Unknown,
            observe: false,
            credential: String::new(),
            publisher: String::new(),
        };
        let Some((number, service)) = view.service(ask.service) else {
            answer.verdict = Verdict::NoSuchService;
            return answer;
        };
        let [of_service, of_all] = ask.observing;
        let by_mode = service.mode.unwrap_or(view.policy.filter.mode) == Mode::Observe;
        answer.observe = by_mode || of_service || of_all;
        let question = Question {
            service: ask.service,
            number,
            address: ask.address.to_canonical(),
            source_port: ask.source_port,
            clock: self.shared.clock.as_ref(),
            now: OnceCell::new(),
        };
        match ask.key {
            AskedKey::Asserted(id) => {
                if self.ask_credential(&view, id, &question, &mut answer) {
                    id.clone_into(&mut answer.credential);
                }
            }
            AskedKey::Secret(key) => {
                for fingerprint in self.shared.fingerprints.of(key) {
                    if self.ask_credential(&view, &fingerprint, &question, &mut answer) {
                        answer.credential = fingerprint;
                    }
                    if answer.verdict == Verdict::Allowed {
                        break;
                    }
                }
            }
        }
        let denied = || self.shared.denies.load().holds(question.address) || view.denies(question.address);
        // As in the kernel, a deny comes before the service, and the filter's mode decides for it.
        let passes = answer.verdict == Verdict::Allowed || answer.observe;
        if passes && denied() {
            answer.verdict = Verdict::Denied;
            answer.observe = view.policy.filter.mode == Mode::Observe || of_all;
        }
        answer
    }

    /// Whether the answer is about this credential now.
    fn ask_credential(
        &self,
        view: &PolicyView,
        credential: &str,
        question: &Question<'_>,
        answer: &mut Authorized,
    ) -> bool {
        let mut is_told = false;
        let mut heard = |verdict: Verdict, publisher: &str| {
            let rank = |verdict| TELLING.iter().position(|known| *known == verdict);
            if rank(verdict) > rank(answer.verdict) {
                answer.verdict = verdict;
                publisher.clone_into(&mut answer.publisher);
                is_told = true;
            }
            verdict == Verdict::Allowed
        };
        self.shared.memory.each_with(credential, |shelf, row| {
            heard(of_binding(view, shelf, row, question), &shelf.publisher)
        });
        for at in view.clients_with(credential) {
            let client = &view.policy.clients[*at];
            // Found by its hash: whether it is the same is told without a hint in time.
            let same = client
                .credentials
                .iter()
                .any(|known| bool::from(known.as_bytes().ct_eq(credential.as_bytes())));
            if same {
                heard(of_client(view, *at, question), "");
            }
        }
        is_told
    }
}

fn of_binding(view: &PolicyView, shelf: &Shelf, row: &Row, question: &Question<'_>) -> Verdict {
    let facts = shelf.facts();
    let hold = facts.hold(view, &shelf.publisher);
    let names_service = view.publisher(&shelf.publisher).is_some_and(|allowance| {
        let services = allowance.resolve(&row.content.services);
        services.is_some_and(|names| names.iter().any(|name| **name == *question.service))
    });
    if !names_service {
        return Verdict::Denied;
    }
    let is_over = |_| standing(row.end, hold, question.now().boot_ms) == Standing::Over;
    if row.end.is_some_and(is_over) {
        return Verdict::Ended;
    }
    if suspended(view, &shelf.publisher, facts, row).is_some() {
        return Verdict::Denied;
    }
    let holds = row
        .content
        .sources
        .iter()
        .any(|source| source.contains(&question.address));
    match holds && port_fits(&row.content.source_ports, question.source_port) {
        true => Verdict::Allowed,
        false => Verdict::Address,
    }
}

fn of_client(view: &PolicyView, at: usize, question: &Question<'_>) -> Verdict {
    let client = &view.policy.clients[at];
    let names_service = match &client.services {
        ServiceSet::All => true,
        ServiceSet::Some(indexes) => indexes.binary_search(&question.number).is_ok(),
    };
    if !client.enabled || !names_service {
        return Verdict::Denied;
    }
    let over = |end: jiff::Timestamp| end.as_millisecond() <= question.now().wall_ms;
    if client.expires.is_some_and(over) {
        return Verdict::Ended;
    }
    let holds = view.client_has(at, question.address);
    match holds && port_fits(&client.source_ports, question.source_port) {
        true => Verdict::Allowed,
        false => Verdict::Address,
    }
}

fn port_fits(ranges: &[PortRange], port: Option<u16>) -> bool {
    let fits = |port| {
        ranges
            .iter()
            .any(|range| range.first <= port && port <= range.last)
    };
    ranges.is_empty() || port.is_none_or(fits)
}
