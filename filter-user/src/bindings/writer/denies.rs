//! Denies pushed at run time: whose they are, what they hold, when they end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::ground::Ground;
use super::group::{Answered, Group};
use crate::bindings::audit::Line;
use crate::bindings::clock::Now;
use crate::bindings::model::json::{Faults, Json, Members, child};
use crate::bindings::model::lease::{LastWrite, Moment, monotonic};
use crate::bindings::model::prefixes::Prefixes;
use crate::bindings::model::view::timestamp;
use crate::bindings::model::{body, json};
use crate::bindings::refusal::{About, Code, Refusal};
use crate::bindings::requests::{
    Actor, Answer, Caller, DENY_PREFIXES_FEW, DENY_PREFIXES_KEPT, DENY_PREFIXES_MAX, DenyView,
};
use crate::bindings::seam::{Change, DenyGrant};
use crate::bindings::store::StoredDeny;
use crate::policy::secret::is_key;

/// The widest that anybody but an operator denies.
const WIDEST_IPV4: u8 = 24;
const WIDEST_IPV6: u8 = 48;
const REASON_BYTES_MAX: usize = 1_024;
const NAME_BYTES_MAX: usize = 63;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deny {
    pub(crate) owner: String,
    pub(crate) sources: Vec<IpNet>,
    pub(crate) reason: String,
    pub(crate) created_ms: i64,
    pub(crate) end: Option<Moment>,
    pub(crate) revision: u64,
}

/// All of them; a copy costs little.
#[derive(Clone, Default)]
pub(crate) struct Denies {
    by_name: BTreeMap<String, Arc<Deny>>,
    prefixes: Prefixes,
}

pub(crate) struct DenyJob {
    pub(crate) name: String,
    pub(crate) op: DenyOp,
    /// `None`: its time is over.
    pub(crate) actor: Option<Arc<Actor>>,
    pub(crate) reply: Option<oneshot::Sender<Answer<Option<DenyView>>>>,
}

pub(crate) enum DenyOp {
    Put(DenyBody),
    Remove,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DenyBody {
    pub(crate) sources: Vec<IpNet>,
    pub(crate) lease_ms: Option<i64>,
    pub(crate) reason: String,
}

impl Denies {
    pub(crate) fn new(by_name: BTreeMap<String, Arc<Deny>>) -> Denies {
        let mut denies = Denies {
            by_name,
            ..Denies::default()
        };
        denies.index();
        denies
    }

    /// After changes of `by_name`.
    fn index(&mut self) {
        let sources = self
            .by_name
            .values()
            .flat_map(|deny| deny.sources.iter().copied());
        self.prefixes = sources.collect();
    }

    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        self.prefixes.holds(address)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Deny> {
        self.by_name.get(name).map(AsRef::as_ref)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    pub(crate) fn views(&self) -> Vec<DenyView> {
        self.by_name.iter().map(|(name, deny)| deny.view(name)).collect()
    }

    /// What the kernel is to hold.
    pub(crate) fn grants(&self, now: Now) -> Vec<DenyGrant> {
        let running = self.by_name.iter().filter(|(_, deny)| !deny.is_over(now));
        running
            .map(|(name, deny)| (name.clone(), deny.sources.clone(), deny.kernel_end(now)))
            .collect()
    }

    /// What has not ended, as the store has it.
    pub(crate) fn running(&self, now: Now) -> BTreeMap<String, StoredDeny> {
        let running = self.by_name.iter().filter(|(_, deny)| !deny.is_over(now));
        running
            .map(|(name, deny)| (name.clone(), deny.stored(now.boot_id)))
            .collect()
    }

    /// Those whose time is over.
    pub(crate) fn over(&self, now: Now) -> Vec<String> {
        let over = self.by_name.iter().filter(|(_, deny)| deny.is_over(now));
        over.map(|(name, _)| name.clone()).collect()
    }
}

impl Deny {
    pub(crate) fn read(stored: StoredDeny, now: Now, last: LastWrite) -> Deny {
        Deny {
            owner: stored.owner,
            sources: stored.sources,
            reason: stored.reason,
            created_ms: stored.created_ms,
            end: stored.end.map(|end| end.in_this_boot(now, last)),
            revision: stored.revision,
        }
    }

    pub(crate) fn stored(&self, boot_id: u128) -> StoredDeny {
        StoredDeny {
            owner: self.owner.clone(),
            sources: self.sources.clone(),
            reason: self.reason.clone(),
            created_ms: self.created_ms,
            end: self.end.map(|end| end.stored(boot_id)),
            revision: self.revision,
        }
    }

    fn is_over(&self, now: Now) -> bool {
        self.end.is_some_and(|end| end.boot_ms <= now.boot_ms)
    }

    fn kernel_end(&self, now: Now) -> u64 {
        self.end.map_or(u64::MAX, |end| monotonic(end.boot_ms, now))
    }

    fn view(&self, name: &str) -> DenyView {
        DenyView {
            name: name.to_owned(),
            owner: self.owner.clone(),
            sources: self.sources.clone(),
            reason: self.reason.clone(),
            created: timestamp(self.created_ms),
            ends_at: self.end.map(|end| timestamp(end.wall_ms)),
            revision: self.revision,
        }
    }
}

/// Reads and judges a deny's name and body.
pub(crate) fn read(name: &str, bytes: &[u8], actor: &Actor) -> Answer<DenyBody> {
    let json = json::parse(bytes).map_err(|detail| Refusal::new(Code::Malformed, detail))?;
    let mut faults = Faults::default();
    let good_name = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !good_name {
        let fix = "write letters, digits, dots, underscores and dashes";
        faults.add("bad-name", "", "this is no name", fix);
    }
    if is_key(name) {
        let detail = "this looks like a key itself, and a deny's name is shown to all who may read";
        faults.add(
            "looks-like-a-key",
            "",
            detail,
            "write a ticket's number, or a word for the cause",
        );
    }
    let body = Members::open(&json, "", &["sources", "seconds", "reason"], &mut faults)
        .map(|members| read_members(&members, actor, &mut faults));
    match body {
        Some(body) if faults.is_empty() => Ok(body),
        _ => Err(Refusal {
            about: About::Deny,
            ..Refusal::of_faults(faults.into_vec())
        }),
    }
}

fn read_members(members: &Members<'_>, actor: &Actor, faults: &mut Faults) -> DenyBody {
    let fix = "write a list with at least one prefix";
    let sources = match members.find("sources") {
        Some(Json::List(items)) if !items.is_empty() => body::read_sources(items, faults),
        Some(_) => {
            faults.add("empty-list", "/sources", "sources are no list, or empty", fix);
            Vec::new()
        }
        None => {
            faults.add("missing-member", "", "sources are missing", fix);
            Vec::new()
        }
    };
    if !matches!(actor.caller, Caller::Operator(_)) {
        for (at, source) in &sources {
            let widest = match source {
                IpNet::V4(_) => WIDEST_IPV4,
                IpNet::V6(_) => WIDEST_IPV6,
            };
            if source.prefix_len() < widest {
                let detail = format!("{source} is wider than /{widest}");
                let fix = "write longer prefixes, or ask an operator";
                faults.add("prefix-too-wide", child("/sources", &at.to_string()), detail, fix);
            }
        }
    }
    let lease_ms = match members.find("seconds") {
        None | Some(Json::Null) => None,
        Some(Json::Whole(seconds)) if (1..=u64::from(u32::MAX)).contains(seconds) => {
            i64::try_from(seconds * 1_000).ok()
        }
        Some(_) => {
            let fix = "write a whole number above 0";
            faults.add("bad-lease", "/seconds", "this is no number of seconds", fix);
            None
        }
    };
    let reason = match members.find("reason") {
        None | Some(Json::Null) => String::new(),
        Some(Json::Text(text)) if text.len() <= REASON_BYTES_MAX => text.to_string(),
        Some(_) => {
            let fix = format!("write a text of at most {REASON_BYTES_MAX} bytes");
            faults.add("bad-reason", "/reason", "this is no reason", fix);
            String::new()
        }
    };
    DenyBody {
        sources: body::canonical(sources),
        lease_ms,
        reason,
    }
}

pub(crate) fn owner_of(actor: &Actor) -> String {
    match &actor.caller {
        Caller::Publisher(name) => format!("publisher/{name}"),
        Caller::Operator(name) => format!("operator/{name}"),
        Caller::Other(name) => format!("user/{name}"),
    }
}

impl Group {
    pub(super) fn deny(&mut self, job: DenyJob, ground: &Ground<'_>) {
        let answer = self.decide_deny(&job, ground);
        if answer.is_ok() {
            self.note_success(job.actor.as_deref());
        }
        self.answers.push(Answered::Deny(job, answer));
    }

    fn decide_deny(&mut self, job: &DenyJob, ground: &Ground<'_>) -> Answer<Option<DenyView>> {
        let mut denies = self.denies.take().unwrap_or_else(|| ground.denies.clone());
        let answer = self.change_deny(job, &mut denies, ground.now);
        self.denies = Some(denies);
        answer
    }

    fn change_deny(&mut self, job: &DenyJob, denies: &mut Denies, now: Now) -> Answer<Option<DenyView>> {
        let before = denies.by_name.get(&job.name).cloned();
        judge_owner(job, before.as_deref(), now)?;
        match &job.op {
            DenyOp::Remove => {
                let Some(before) = before else { return Ok(None) };
                denies.by_name.remove(&job.name);
                denies.index();
                let revision = self.next_revision();
                let what = if job.actor.is_some() {
                    "undeny"
                } else {
                    "deny-ended"
                };
                let line = Line::new(what, job.actor.as_deref()).with("name", job.name.as_str());
                self.lines
                    .push(line.with("sources", texts(&before.sources)).at(revision));
                self.deny_changes.push(Change::Undeny {
                    name: job.name.clone(),
                });
                self.deny_names.push(job.name.clone());
                Ok(Some(before.view(&job.name)))
            }
            DenyOp::Put(body) => {
                judge_count(job, body, denies)?;
                let revision = self.next_revision();
                let deny = Arc::new(Deny {
                    owner: job.actor.as_deref().map(owner_of).unwrap_or_default(),
                    sources: body.sources.clone(),
                    reason: body.reason.clone(),
                    created_ms: before.map_or(now.wall_ms, |before| before.created_ms),
                    end: body.lease_ms.map(|lease| Moment::after(now, lease)),
                    revision,
                });
                let line = Line::new("deny", job.actor.as_deref()).with("name", job.name.as_str());
                let line = line
                    .with("sources", texts(&deny.sources))
                    .with("reason", deny.reason.as_str());
                let ends_at = deny.end.map(|end| timestamp(end.wall_ms).to_string());
                self.lines.push(line.with("ends_at", ends_at).at(revision));
                self.deny_changes.push(Change::Deny {
                    name: job.name.clone(),
                    sources: deny.sources.clone(),
                    end: deny.kernel_end(now),
                });
                self.deny_names.push(job.name.clone());
                let view = deny.view(&job.name);
                denies.by_name.insert(job.name.clone(), deny);
                denies.index();
                Ok(Some(view))
            }
        }
    }
}

fn texts(sources: &[IpNet]) -> Vec<String> {
    sources.iter().map(IpNet::to_string).collect()
}

fn judge_owner(job: &DenyJob, before: Option<&Deny>, now: Now) -> Result<(), Refusal> {
    let (Some(before), actor) = (before, job.actor.as_deref()) else {
        return Ok(());
    };
    let may = match actor {
        // It may have been renewed since its timer was set.
        None => before.is_over(now),
        Some(actor) => matches!(actor.caller, Caller::Operator(_)) || owner_of(actor) == before.owner,
    };
    match may {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::NotTheOwner,
            format!(
                "the deny belongs to {}: only it or an operator changes it",
                before.owner
            ),
        )),
    }
}

fn judge_count(job: &DenyJob, body: &DenyBody, denies: &Denies) -> Result<(), Refusal> {
    let Some(actor) = job.actor.as_deref() else {
        return Ok(());
    };
    if matches!(actor.caller, Caller::Operator(_)) {
        return Ok(());
    }
    let owner = owner_of(actor);
    let (mut all, mut own) = (body.sources.len(), body.sources.len());
    for (name, deny) in &denies.by_name {
        if *name != job.name && !deny.owner.starts_with("operator/") {
            all += deny.sources.len();
            own += if deny.owner == owner {
                deny.sources.len()
            } else {
                0
            };
        }
    }
    if all <= DENY_PREFIXES_MAX || (own <= DENY_PREFIXES_FEW && all <= DENY_PREFIXES_MAX + DENY_PREFIXES_KEPT)
    {
        return Ok(());
    }
    Err(Refusal::new(
        Code::DeniesMax,
        format!(
            "with these, {all} prefixes would be denied, {own} of them by this caller: at most {DENY_PREFIXES_MAX} are, and \
             {DENY_PREFIXES_KEPT} more for callers with at most {DENY_PREFIXES_FEW} each; let some end, or ask an operator"
        ),
    ))
}
