//! One change of what is in force, step by step: read, checked, planned, guarded, kept, made, told.
//!
//! The owner of the book (`Policies`) calls these one after the other; nothing here is asked twice at once.

use std::sync::{Arc, PoisonError};

use filter_common::abi::names;

use super::guard::{self, Connection};
use super::observing::Observing;
use super::plan::{Ground, Plan};
use super::{
    Back, Book, By, Checked, Done, Inner, Known, PolicyError, PolicyText, State, Terms, Via, entry, failed,
    noted, stamps, start, trial, unkept,
};
use crate::compiler::Pushed;
use crate::engine;
use crate::engine::apply::Proposed;
use crate::engine::snapshot::Snapshot;
use crate::judge::Bench;
use crate::judge::both::JudgeError;
use crate::judge::names_host;
use crate::kernel::addresses;
use crate::policy::{self, Colour, Loaded, Policy};

/// Of what an earlier daemon told the kernel and nobody can read any more.
const LETS_GO: &str = "what the kernel goes on with cannot be read any more: to put a policy in force, this one too, lets go of it, \
                       and what was pushed then passes only as the store has it now (suspended after a restore, until its \
                       publisher has synced)";

impl Inner {
    pub(super) fn in_force(&self) -> String {
        self.view.snapshot().policy.hash.clone()
    }

    pub(super) fn is_base(&self, base: Option<&str>) -> Result<(), PolicyError> {
        let in_force = self.in_force();
        match base.is_none_or(|base| base == in_force) {
            true => Ok(()),
            false => Err(PolicyError::Changed { in_force }),
        }
    }

    /// Its faults, what this build does not enforce, what it expects.
    pub(super) async fn check(&self, text: PolicyText) -> Result<Checked, PolicyError> {
        let read = tokio::task::spawn_blocking(move || {
            let loaded = text.load();
            (loaded, Some(text))
        });
        self.checked(read.await.map_err(failed)?).await
    }

    pub(super) async fn checked(
        &self,
        (mut loaded, text): (Loaded, Option<PolicyText>),
    ) -> Result<Checked, PolicyError> {
        if let Some(why) = &loaded.unreadable {
            return Err(PolicyError::Failed(why.clone()));
        }
        if let Some(refusal) = engine::refusal(&loaded) {
            return Err(PolicyError::Invalid(refusal));
        }
        let Some(mut policy) = loaded.policy.take() else {
            return Err(PolicyError::Invalid(policy::render(&loaded, Colour::Never)));
        };
        let text = text.ok_or_else(|| {
            PolicyError::Failed(
                "a file's name is no text: rename it, so that the policy can be kept".to_owned(),
            )
        })?;
        let mut warnings = engine::warnings(&loaded);
        if self.state_given {
            policy.daemon.state.clone_from(&self.serving.daemon.state);
        }
        warnings.extend(engine::restart_keys(&self.serving, &policy));
        warnings.extend(engine::lacking_at_start(&self.serving.listeners, &policy));
        let bindings = self.bindings.clone();
        let looked = move || (bindings.unfound_under(&policy), policy);
        let (unfound, policy) = tokio::task::spawn_blocking(looked).await.map_err(failed)?;
        warnings.extend(unfound);
        let policy = Arc::new(start::serving(policy, &self.serving));
        let tried = Arc::clone(&policy);
        let tried = tokio::task::spawn_blocking(move || engine::unexpected(&tried));
        match tried.await.map_err(failed)? {
            Ok(None) => {}
            Ok(Some(faults)) => return Err(PolicyError::Invalid(faults)),
            Err(JudgeError::Compile(error)) => return Err(PolicyError::Invalid(error.to_string())),
            Err(error) => return Err(PolicyError::Failed(error.to_string())),
        }
        Ok(Checked {
            policy,
            hash: loaded.hash,
            warnings,
            text,
        })
    }

    /// Whether it has tables: the engine would say so when it makes them.
    pub(super) async fn compiled(&self, checked: &Checked) -> Result<(), PolicyError> {
        let policy = Arc::clone(&checked.policy);
        let bench = move || Bench::new(&policy, &[], &|_| u64::MAX, &Pushed::default()).map(drop);
        let tables = tokio::task::spawn_blocking(bench).await.map_err(failed)?;
        tables.map_err(|error| PolicyError::Invalid(error.to_string()))
    }

    /// `shown`: somebody reads which sources it cuts.
    pub(super) async fn plan(&self, checked: &Checked, shown: bool) -> Result<Plan, PolicyError> {
        let (bindings, grants) = (self.bindings.clone(), Arc::clone(&self.grants));
        let ((epoch, old), new) = (self.grants.policy(), Arc::clone(&checked.policy));
        let observing = match shown {
            true => {
                let windows = self.view.snapshot().observing.clone().into_iter();
                let windows = windows.map(|observing| observing.service).collect();
                Some(Observing::look(self.records.as_ref(), &old, &new, windows).await)
            }
            false => None,
        };
        let (base, hash) = (self.in_force(), checked.hash.clone());
        let mut warnings = checked.warnings.clone();
        let host_addresses = match names_host(&old) || names_host(&new) {
            true => addresses::read().await,
            false => Ok(Vec::new()),
        };
        let host_addresses = host_addresses.unwrap_or_else(|error| {
            warnings.push(format!(
                "what \"host\" means cannot be read, nor what this opens there: {error}"
            ));
            Vec::new()
        });
        if self.bindings.is_kept() {
            warnings.push(LETS_GO.to_owned());
        }
        let plan = tokio::task::spawn_blocking(move || {
            let ground = Ground {
                old: &old,
                epoch,
                new: &new,
                bindings: &bindings,
                grants: &*grants,
                host_addresses: &host_addresses,
            };
            ground.plan(&base, &hash, observing.as_ref(), warnings)
        });
        plan.await.map_err(failed)
    }

    pub(super) async fn put(
        &self,
        book: &mut Book,
        checked: Checked,
        terms: Terms,
        by: &By,
    ) -> Result<Done, PolicyError> {
        if let Some(pending) = self.view.pending().borrow().clone() {
            return Err(PolicyError::Pending(pending));
        }
        let mut plan = self.plan(&checked, by.via == Via::Apply).await?;
        plan.warnings
            .extend(owners_lacking(&checked.policy, &self.view.snapshot()));
        book.refuse_a_trial(&terms)?;
        if terms.confirm.is_some() && self.bindings.is_kept() {
            return Err(PolicyError::NoWayBack);
        }
        let (epoch, in_force) = self.grants.policy();
        // What is in force already needs no way back.
        let confirm = terms.confirm.filter(|_| plan.base != plan.hash);
        if !terms.force && confirm.is_none() {
            let planned = (epoch + 1, &checked.policy);
            let found = guard::look(&self.bindings, &in_force, planned, terms.connections).await;
            if !found.cut.is_empty() {
                return Err(PolicyError::Refused(found.cut));
            }
            plan.warnings.extend(found.unseen);
        }
        for warning in &plan.warnings {
            tracing::warn!("{warning}");
        }
        let number = self.keep(book, &checked, by).await?;
        let proposed = Proposed {
            policy: checked.policy,
            hash: checked.hash,
            warnings: plan.warnings.clone(),
            confirm,
        };
        let mut applied = match self.view.apply(proposed).await {
            Ok(applied) => applied,
            Err(error) => {
                if let Some(number) = number {
                    noted(book.store.forget(number));
                }
                return Err(error.into());
            }
        };
        book.trial_over = None;
        let pending = self.view.pending().borrow().clone();
        match (number, &pending) {
            // Its time was over before it was written down.
            (Some(number), None) if confirm.is_some() => {
                noted(book.store.settle(number, State::Reverted, None));
            }
            (Some(number), None) => self.settled(book, number, &mut plan),
            (number, _) => book.pending = number,
        }
        // Whoever is told of this alone must know what became of it on disk.
        applied.warnings.clone_from(&plan.warnings);
        let what = match by.via {
            Via::Rollback => "rollback",
            _ => "apply",
        };
        let number = number.or_else(|| Some(book.store.confirmed().next()?.number));
        let hash = (plan.base.as_str(), plan.hash.as_str());
        self.tell_both(book, what, by, hash, number).await;
        Ok(Done {
            plan,
            applied,
            pending,
        })
    }

    /// Writes down that what is in force is confirmed.
    fn settled(&self, book: &mut Book, number: u64, plan: &mut Plan) {
        let settled = book.store.settle(number, State::Confirmed, None);
        if let Err(error) = &settled {
            plan.warnings.push(format!(
                "it is in force and could not be written down as confirmed, so a restart brings the one before back: \
                 {error}; apply it again"
            ));
        } else if std::mem::take(&mut book.is_lost) {
            self.note(|known| known.state.lost = None);
        }
        noted(settled);
    }

    /// Writes the policy down before it is in force. One that was confirmed last is there already.
    pub(super) async fn keep(
        &self,
        book: &mut Book,
        checked: &Checked,
        by: &By,
    ) -> Result<Option<u64>, PolicyError> {
        // One that cannot be read may have come after it.
        let last = book.store.confirmed().next().filter(|_| !book.is_lost);
        if last.is_some_and(|last| last.hash == checked.hash) {
            return Ok(None);
        }
        let entry = entry(&checked.policy, &checked.hash, by, State::Pending);
        let store = &mut book.store;
        // As large as all sources: other tasks of this thread go on elsewhere.
        let added = match tokio::runtime::Handle::current().runtime_flavor() {
            tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| store.add(entry, &checked.text))
            }
            _ => store.add(entry, &checked.text),
        };
        let added = added.map_err(|error| {
            let why =
                format!("the policy cannot be kept in [daemon] state, so it was not put in force: {error}");
            unkept(&error, why)
        });
        added.map(Some)
    }

    pub(super) async fn reload(
        &self,
        book: &mut Book,
        connections: Vec<Connection>,
        by: &By,
    ) -> Result<Done, PolicyError> {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let loaded = engine::load_policy(&file);
            let text = PolicyText::of(&loaded, file.parent());
            (loaded, text)
        });
        let read = read.await.map_err(failed)?;
        self.read_file(&read.0);
        let checked = self.checked(read).await?;
        let terms = Terms {
            connections,
            ..Terms::default()
        };
        self.put(book, checked, terms, by).await
    }

    /// Puts the policy in force that was confirmed before the one that is.
    pub(super) async fn earlier(&self, book: &mut Book, terms: Terms, by: &By) -> Result<Back, PolicyError> {
        let in_force = self.in_force();
        let before = book.store.confirmed().find(|entry| entry.hash != in_force);
        let hash = before.ok_or(PolicyError::NothingEarlier)?.hash.clone();
        let known = terms.force || terms.base.is_some();
        if let Some(trial) = trial::over(book).filter(|_| !known) {
            return Err(PolicyError::TrialOver {
                trial,
                in_force,
                earlier: hash,
            });
        }
        let text = book.store.text(&hash).map_err(PolicyError::Failed)?;
        let checked = self.check(text).await?;
        let done = self.put(book, checked, terms, by).await?;
        Ok(Back {
            hash,
            warnings: done.plan.warnings,
            pending: done.pending,
        })
    }

    /// Notes what the file says now.
    pub(super) fn read_file(&self, loaded: &Loaded) {
        let invalid = match (&loaded.unreadable, engine::refusal(loaded)) {
            (Some(why), _) => Some(why.clone()),
            (None, refusal) => refusal,
        };
        let files: Vec<&str> = loaded.files.iter().map(|file| file.name.as_ref()).collect();
        let stamps = stamps(&self.file, &files);
        self.note(|known| {
            known.state.hash = invalid.is_none().then(|| loaded.hash.clone());
            known.state.fault = invalid;
            known.stamps = stamps;
        });
    }

    /// After a change of what is in force: the file may say the same now, or no longer.
    pub(super) fn look_again(&self) {
        let in_force = self.in_force();
        self.note(|known| {
            if known.state.hash.as_ref() == Some(&in_force) {
                (known.state.error, known.state.at_start) = (None, false);
            }
        });
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        self.view.note_file(known.state.clone());
    }
}

/// What a policy may hold more than the kernel's table of owners, which grows with a start alone.
pub(super) fn owners_lacking(policy: &Policy, snapshot: &Snapshot) -> Option<String> {
    let table = snapshot
        .tables
        .iter()
        .find(|table| table.table == names::OWNER_STATE)?;
    let pushed: u64 = policy
        .publishers
        .iter()
        .map(|publisher| publisher.bindings_max)
        .sum();
    let wanted = policy.clients.len() as u64 + pushed;
    // Of an earlier daemon's filter that stays as it is, nothing is known until a policy is put in force over it.
    let is_known = table.capacity > 0;
    (is_known && wanted > table.capacity).then(|| {
        format!(
            "{wanted} clients and bindings are allowed, and the table of owners holds {}: what is pushed beyond is refused \
             (507) until a restart of the daemon makes a larger one, with nothing open in between (above 4,000,000: once four \
             fifths are used)",
            table.capacity
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::snapshot::TableFill;

    #[test]
    fn table_of_owners_that_is_too_small_is_said_and_one_that_is_not_known_is_not() {
        let text = "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nmanagement-none = true\n\
            [[publisher]]\nname = \"p\"\nuser = \"root\"\nbindings-max = 1000\n";
        let policy = PolicyText::policy(text.to_owned());
        let said = |capacity| {
            let table = TableFill {
                table: names::OWNER_STATE,
                entries: 0,
                capacity,
            };
            let mut snapshot = engine::fixture::snapshot();
            snapshot.tables = vec![table];
            owners_lacking(&policy, &snapshot)
        };
        assert!(said(999).is_some_and(|said| said.starts_with("1000 clients and bindings")));
        assert_eq!(said(1000), None);
        assert_eq!(said(0), None);
    }
}
