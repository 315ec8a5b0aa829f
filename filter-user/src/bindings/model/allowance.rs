//! The policy as the bindings see it: what each publisher may open, and what of its bindings holds today.
//!
//! Built once a policy; judging a binding allocates nothing where there is no fault.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use filter_common::bounds::OWNERS_PER_SOURCE_MAX;
use foldhash::fast::RandomState;
use ipnet::IpNet;

use super::content::{Content, Names, Services};
use super::json::{Faults, child};
use super::limits;
use super::prefixes::Prefixes;
use super::terms::TermsTable;
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::seam::{Lacks, Terms};
use crate::policy::Policy;
use crate::policy::bounds::PORT_SETS_MAX;
use crate::policy::model::{Client, Publisher, Service, ServiceSet};

/// Of one policy.
pub(crate) struct PolicyView {
    pub(crate) epoch: u64,
    pub(crate) policy: Arc<Policy>,
    services: HashMap<String, usize, RandomState>,
    publishers: HashMap<String, Allowance, RandomState>,
    /// Which clients of the policy have a credential.
    clients: HashMap<String, Vec<usize>, RandomState>,
    /// Sources of those clients.
    client_sources: HashMap<usize, Prefixes>,
    denied: Prefixes,
    /// Rows that have no grant for want of room, by their revisions, and room for what. One that is written anew is tried
    /// anew.
    crowded: ArcSwap<HashMap<u64, Lacks>>,
}

/// What a publisher may do, with references resolved.
pub(crate) struct Allowance {
    pub(crate) publisher: Publisher,
    /// Its name, for what its bindings grant.
    name: Arc<str>,
    terms: TermsTable,
    /// By index of the policy's services.
    allowed: Vec<bool>,
    /// All that `["*"]` is, or why it is nothing.
    all: Result<Names, String>,
}

impl PolicyView {
    pub(crate) fn new(epoch: u64, policy: Arc<Policy>) -> PolicyView {
        let named = policy.services.iter().enumerate();
        let services = named.map(|(at, service)| (service.name.clone(), at)).collect();
        let of = |publisher: &Publisher| {
            (
                publisher.name.clone(),
                Allowance::new(publisher, &policy.services),
            )
        };
        let publishers = policy.publishers.iter().map(of).collect();
        let mut clients: HashMap<String, Vec<usize>, RandomState> = HashMap::default();
        for (at, client) in policy.clients.iter().enumerate() {
            for credential in &client.credentials {
                clients.entry(credential.clone()).or_default().push(at);
            }
        }
        let with_credentials = |(at, client): (usize, &Client)| {
            let sources = client.sources.iter().map(|source| source.prefix);
            (!client.credentials.is_empty()).then(|| (at, sources.collect()))
        };
        let denied = policy.denies.iter().flat_map(|deny| &deny.sources);
        PolicyView {
            client_sources: policy
                .clients
                .iter()
                .enumerate()
                .filter_map(with_credentials)
                .collect(),
            denied: denied.map(|source| source.prefix).collect(),
            epoch,
            services,
            publishers,
            clients,
            policy,
            crowded: ArcSwap::default(),
        }
    }

    pub(crate) fn leave_out(&self, rows: impl Iterator<Item = (u64, Lacks)>) {
        let mut crowded = HashMap::clone(&self.crowded.load());
        crowded.extend(rows);
        self.crowded.store(Arc::new(crowded));
    }

    /// What the operator is told of those that were left out, where any were.
    pub(crate) fn left_out(&self) -> Option<String> {
        let crowded = self.crowded.load();
        let why = match crowded.values().min()? {
            Lacks::Owners(prefix) => format!(
                "at {prefix} among others: more than {OWNERS_PER_SOURCE_MAX} owners would grant one address"
            ),
            Lacks::PortSets => format!("there are more than {PORT_SETS_MAX} sets of source ports"),
        };
        Some(format!(
            "{} bindings are suspended for want of room, {why}; `keyfence bindings --state suspended` lists them; remove what is not needed, then \
             `keyfence reload`",
            crowded.len()
        ))
    }

    /// Why a row is left out, where it is.
    pub(crate) fn crowds(&self, revision: u64) -> Option<String> {
        let crowded = self.crowded.load();
        Some(match crowded.get(&revision)? {
            Lacks::Owners(prefix) => format!(
                "no room: {prefix} has {OWNERS_PER_SOURCE_MAX} owners without it; put it again once some of them are gone"
            ),
            Lacks::PortSets => format!(
                "no room: there are {PORT_SETS_MAX} sets of source ports without its own; put it again once some of them \
                 are gone"
            ),
        })
    }

    pub(crate) fn publisher(&self, name: &str) -> Option<&Allowance> {
        self.publishers.get(name)
    }

    pub(crate) fn service(&self, name: &str) -> Option<(usize, &Service)> {
        let at = *self.services.get(name)?;
        Some((at, &self.policy.services[at]))
    }

    pub(crate) fn clients_with(&self, credential: &str) -> &[usize] {
        self.clients.get(credential).map_or(&[], Vec::as_slice)
    }

    /// Whether a client that has credentials has this address.
    pub(crate) fn client_has(&self, client: usize, address: IpAddr) -> bool {
        self.client_sources
            .get(&client)
            .is_some_and(|sources| sources.holds(address))
    }

    /// Whether the policy denies the address.
    pub(crate) fn denies(&self, address: IpAddr) -> bool {
        self.denied.holds(address)
    }

    /// Judges a write again that was judged under another policy.
    pub(crate) fn judge_again(
        &self,
        publisher: &str,
        content: Option<&Content>,
        lease_ms: Option<i64>,
    ) -> Result<(), Refusal> {
        let allowance = self.publisher(publisher);
        let allowance = allowance
            .ok_or_else(|| Refusal::new(Code::NotAPublisher, "the policy has no such publisher now"))?;
        let mut faults = Faults::default();
        if let Some(content) = content {
            allowance.judge(self, content, &mut faults);
        }
        allowance.judge_lease(lease_ms, &mut faults);
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Refusal::of_faults(faults.into_vec())),
        }
    }

    /// Why a stored binding has no grant under this policy; `None` is that it has.
    pub(crate) fn suspends(&self, publisher: &str, content: &Content, endless: bool) -> Option<String> {
        let Some(allowance) = self.publisher(publisher) else {
            return Some("the policy has no such publisher".to_owned());
        };
        let mut faults = Faults::default();
        allowance.judge(self, content, &mut faults);
        allowance.judge_end(endless, &mut faults);
        faults.into_vec().into_iter().next().map(|fault| fault.detail)
    }
}

impl Allowance {
    fn new(publisher: &Publisher, services: &[Service]) -> Allowance {
        let mut allowed = vec![false; services.len()];
        match &publisher.services {
            ServiceSet::All => allowed.fill(true),
            ServiceSet::Some(indexes) => indexes.iter().for_each(|at| allowed[*at] = true),
        }
        let mine = |at: usize| allowed[at] && publisher.environments.contains(&services[at].environment);
        let open: Vec<&Service> = (0..services.len())
            .filter(|at| mine(*at))
            .map(|at| &services[at])
            .collect();
        let all = match open.first() {
            None => Err("the publisher may open no service".to_owned()),
            Some(first) if open.iter().any(|s| s.environment != first.environment) => Err(
                "the publisher's services are of more than one environment: \"*\" cannot be all of them"
                    .to_owned(),
            ),
            Some(_) => {
                let mut names: Vec<Box<str>> = open.iter().map(|s| s.name.as_str().into()).collect();
                names.sort_unstable();
                Ok(names.into())
            }
        };
        Allowance {
            name: publisher.name.as_str().into(),
            terms: TermsTable::default(),
            publisher: publisher.clone(),
            allowed,
            all,
        }
    }

    /// The services of a binding that `judge` found no fault with.
    pub(crate) fn resolve<'a>(&'a self, services: &'a Services) -> Option<&'a Names> {
        match services {
            Services::All => self.all.as_ref().ok(),
            Services::Named(names) => Some(names),
        }
    }

    /// What a binding grants beside whom it is for.
    pub(crate) fn terms(&self, content: &Content) -> Arc<Terms> {
        let settings = &self.publisher;
        let given = content.limit.as_deref();
        self.terms.share(Terms {
            publisher: Arc::clone(&self.name),
            services: self.resolve(&content.services).cloned().unwrap_or_default(),
            source_ports: (*content.source_ports).into(),
            limit: limits::effective(given, &settings.limit_default, &settings.limit_max),
        })
    }

    /// Records everything of stored content that the publisher may not have.
    pub(crate) fn judge(&self, view: &PolicyView, content: &Content, faults: &mut Faults) {
        self.judge_sources(content.sources.iter().enumerate(), content.sources.len(), faults);
        match &content.services {
            Services::All => self.judge_all_services(faults),
            Services::Named(names) => {
                let names = names.iter().enumerate().map(|(at, name)| (at, name.as_ref()));
                self.judge_services(view, names, faults);
            }
        }
        if let Some(given) = &content.limit {
            limits::judge(given, &self.publisher.limit_max, faults);
        }
    }

    /// Each source with its place in what was sent.
    pub(crate) fn judge_sources<'s>(
        &self,
        sources: impl Iterator<Item = (usize, &'s IpNet)>,
        count: usize,
        faults: &mut Faults,
    ) {
        let most = self.publisher.sources_max;
        if count as u64 > most {
            let detail = format!("{count} sources, of at most {most}");
            faults.add("too-many-sources", "/sources", detail, "write fewer sources");
        }
        for (at, source) in sources {
            self.judge_width(source, at, faults);
        }
    }

    fn judge_width(&self, source: &IpNet, at: usize, faults: &mut Faults) {
        let widest = match source {
            IpNet::V4(_) => self.publisher.widest_ipv4,
            IpNet::V6(_) => self.publisher.widest_ipv6,
        };
        if source.prefix_len() < widest {
            let detail = format!("{source} is wider than /{widest}");
            let fix = format!("write prefixes of /{widest} or longer");
            faults.add("prefix-too-wide", child("/sources", &at.to_string()), detail, fix);
        }
    }

    pub(crate) fn judge_all_services(&self, faults: &mut Faults) {
        if let Err(why) = &self.all {
            faults.add("service-not-allowed", "/services/0", why, "name the services");
        }
    }

    /// Each service's name with its place in what was sent.
    pub(crate) fn judge_services<'n>(
        &self,
        view: &PolicyView,
        names: impl Iterator<Item = (usize, &'n str)>,
        faults: &mut Faults,
    ) {
        let mut environment: Option<&str> = None;
        for (at, name) in names {
            let pointer = || child("/services", &at.to_string());
            let Some((index, service)) = view.service(name) else {
                // What is no service could be anything: it is not quoted.
                let detail = "the policy has no service of this name";
                faults.add("unknown-service", pointer(), detail, self.may_open());
                continue;
            };
            if !self.allowed[index] {
                let detail = format!("the publisher may not open {name}");
                faults.add("service-not-allowed", pointer(), detail, self.may_open());
            } else if !self.publisher.environments.contains(&service.environment) {
                let detail = format!("{name} is of the environment {}", service.environment);
                faults.add("environment-not-allowed", pointer(), detail, self.may_open());
            } else if environment.is_some_and(|environment| environment != service.environment) {
                let detail = "the services are of more than one environment";
                faults.add(
                    "mixed-environments",
                    pointer(),
                    detail,
                    "push one binding for each environment",
                );
            } else {
                environment = Some(&service.environment);
            }
        }
    }

    fn may_open(&self) -> String {
        match &self.all {
            Ok(names) => format!("write one of {}", names.join(", ")),
            Err(_) => "see the publisher's services and environments in the policy".to_owned(),
        }
    }

    /// Whether a lease may be this long, or none.
    pub(crate) fn judge_lease(&self, lease_ms: Option<i64>, faults: &mut Faults) {
        self.judge_end(lease_ms.is_none(), faults);
        let most = self.publisher.lease_max.map(|most| most.as_millis());
        if let (Some(lease), Some(most)) = (lease_ms, most)
            && u128::from(lease.unsigned_abs()) > most
        {
            let (seconds, most) = (lease / 1_000, most / 1_000);
            let detail = format!("{seconds} s is longer than the longest lease, {most} s");
            faults.add("lease-too-long", "/lease_seconds", detail, "write less");
        }
    }

    /// Whether a binding may be without an end.
    pub(crate) fn judge_end(&self, endless: bool, faults: &mut Faults) {
        if endless && self.publisher.lease_max.is_some() {
            let detail = "the publisher's bindings must have an end";
            faults.add(
                "lease-required",
                "/lease_seconds",
                detail,
                "write lease_seconds, a whole number above 0",
            );
        }
    }

    pub(crate) fn hold_ms(&self) -> i64 {
        i64::try_from(self.publisher.lease_hold.as_millis()).unwrap_or(i64::MAX)
    }
}
