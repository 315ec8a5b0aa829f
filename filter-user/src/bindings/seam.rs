//! The seam between the bindings and the engine: what a binding grants, and how the kernel comes to hold it.
//!
//! The engine implements `Grants` and asks `Effective`; the bindings do the reverse. Nothing here knows HTTP, the
//! store or the kernel's tables.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;

use crate::policy::Policy;
use crate::policy::model::{Limits, PortRange};

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub use super::sources::Sources;

/// What a binding grants, as the compiler takes it: names already resolved, nothing of HTTP or of the store. A million are
/// held: what is the same elsewhere is shared with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Grantee {
    /// The owner's name: `binding/PUBLISHER/CREDENTIAL`.
    pub credential: Arc<str>,
    /// Canonical: host bits zero, IPv4-mapped ones already IPv4.
    pub sources: Sources,
    pub terms: Arc<Terms>,
    /// Nanoseconds of CLOCK_MONOTONIC, `lease-hold` included; `u64::MAX` is no end.
    pub end: u64,
}

/// What a grant says beside whom it is for: the same few are many bindings'.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    pub publisher: Arc<str>,
    /// Never empty; `*` already resolved against the policy.
    pub services: Arc<[Box<str>]>,
    /// Empty is any.
    pub source_ports: Box<[PortRange]>,
    /// `limit-default` already given.
    pub limit: Limits,
}

/// A grant's terms are read like its own.
impl std::ops::Deref for Grantee {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

/// One change of what the kernel holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// New, or in place of the owner's whole grant.
    Put(Grantee),
    /// A renewal.
    End {
        owner: Arc<str>,
        end: u64,
    },
    Remove {
        owner: Arc<str>,
    },
    /// As it was under this policy; under another, what was changed of it may count.
    Kept {
        owner: Arc<str>,
    },
    Deny {
        name: String,
        sources: Vec<IpNet>,
        end: u64,
    },
    Undeny {
        name: String,
    },
}

/// Changes that are made in one step, additions before removals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Under the policy in force.
    pub in_force: Vec<Change>,
    /// The same under the policy that stands by; nothing where none does.
    pub standby: Vec<Change>,
    /// Many, and nobody waits behind them: what little room is left is others', and these wait until there is more.
    pub patient: bool,
}

impl From<Vec<Change>> for Changes {
    fn from(in_force: Vec<Change>) -> Self {
        Self {
            in_force,
            ..Self::default()
        }
    }
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.in_force.is_empty() && self.standby.is_empty()
    }
}

/// Why a change is not in force: nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    #[error("the table {table} is full: {needed} entries are needed, it holds {max}")]
    TableFull {
        table: &'static str,
        needed: u64,
        max: u64,
    },
    #[error(
        "what is left of the table {table} is kept for publishers that have few of its entries, and this one has {has}: end \
         some, or have more bindings share the same"
    )]
    TableKept { table: &'static str, has: u64 },
    #[error(
        "{prefix} would have more than {max} owners: bindings and clients whose sources hold it, of all publishers; end some, \
         name narrower prefixes, or push what shares an address as one binding"
    )]
    TooManyOwners { prefix: String, max: u32 },
    /// The epoch is old: compute again under the policy now in force.
    #[error("the policy has changed meanwhile")]
    PolicyChanged,
    /// Nothing judges packets any more. Changes that revoke succeed nevertheless: what they are to take away is not there.
    #[error("the filter was detached while this daemon ran, and every packet passes: restart the daemon")]
    Detached,
    #[error("{0}")]
    Failed(String),
}

/// How many of what tables have room for: owners, and single addresses of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Many {
    pub owners: u64,
    pub v4: u64,
    pub v6: u64,
}

/// What an owner's grant has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerUse {
    pub packets: u64,
    pub bytes: u64,
    /// Nanoseconds of CLOCK_MONOTONIC; 0 is never.
    pub last_seen: u64,
    pub buckets: [u64; 3],
}

/// Who holds the grants: the engine.
pub trait Grants: Send + Sync {
    /// All changes in one step, additions before removals; in force when it returns. `epoch` is that of the policy
    /// they were computed under. None at all asks whether that policy is in force still. Whatever may grant something
    /// else under another policy is named, `Kept` at least: one may be about to come into force.
    fn change(&self, epoch: u64, changes: Changes) -> BoxFuture<Result<(), GrantError>>;
    /// Which of these would be refused if they were made one after the other, each behind those that would not: told by
    /// their owners, as far as that can be told without trying. Nothing is changed.
    fn sift(&self, _epoch: u64, _changes: Vec<Change>) -> BoxFuture<Vec<(Arc<str>, GrantError)>> {
        Box::pin(async { Vec::new() })
    }
    /// So many more are likely to be asked for soon: where there is no room for them, it is made beside. Resolves when that
    /// is begun.
    fn expect(&self, _more: Many) -> BoxFuture<()> {
        Box::pin(async {})
    }
    /// Whether all of these could be granted under a policy, of which so many more than are in force: as far as that can
    /// be told without making tables. It may block for as long as they are many. Nothing is changed.
    fn fit(&self, _policy: &Policy, _all: Vec<Grantee>, _more: i64) -> Result<(), GrantError> {
        Ok(())
    }
    /// The policy in force and its epoch, which rises with each applied policy.
    fn policy(&self) -> (u64, Arc<Policy>);
    /// The policy that comes back unless the one in force is confirmed, and the epoch it had; asked after `policy`.
    fn standby(&self) -> Option<(u64, Arc<Policy>)> {
        None
    }
    fn used(&self, owner: &str) -> Option<OwnerUse>;
}

/// A deny: its name, its sources, its end as in `Grantee::end`.
pub type DenyGrant = (String, Vec<IpNet>, u64);

/// Asked by the engine at a start and whenever it makes the tables anew.
pub trait Effective: Send + Sync {
    /// What holds under a policy that is in force, or is to be, with this epoch.
    fn under(&self, epoch: u64, policy: &Arc<Policy>) -> Arc<dyn Under>;
    /// Resolves when `Under` knows what the first so many successful calls of `Grants::change` made.
    fn caught_up(&self, changes: u64) -> BoxFuture<()>;
    /// The new policy is in force with this epoch (suspend and resume events are published now).
    fn applied(&self, epoch: u64, policy: &Arc<Policy>);
}

/// What holds under one policy, at the moment of each call.
pub trait Under: Send + Sync {
    /// All grants and denies. Others go on changing them: what is changed during the call may be there or not.
    fn all(&self) -> (Vec<Grantee>, Vec<DenyGrant>);
    /// The grants of those of these owners that have one.
    fn of(&self, owners: &BTreeSet<String>) -> Vec<Grantee>;
    /// When an owner's grant was written: the higher, the later.
    fn age(&self, _owner: &str) -> u64 {
        0
    }
    /// These have no grant under this policy as they are, since the kernel has no room for them.
    fn leave_out(&self, _left: &[LeftOut]) {}
}

/// An owner that is left out, and what there is no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub owner: String,
    pub lacks: Lacks,
}

/// What there is no room for in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lacks {
    /// More owners would grant this prefix than the kernel walks.
    Owners(String),
    /// Another set of source ports.
    PortSets,
}

impl Change {
    /// Whose grant it is about, where it is about a grant.
    pub fn owner(&self) -> Option<&Arc<str>> {
        match self {
            Change::Put(grantee) => Some(&grantee.credential),
            Change::End { owner, .. } | Change::Remove { owner } | Change::Kept { owner } => Some(owner),
            Change::Deny { .. } | Change::Undeny { .. } => None,
        }
    }

    /// Whether it lets nobody in. A deny that is only stored is in force with the next start.
    pub fn revokes(&self) -> bool {
        !matches!(self, Change::Put(_) | Change::End { .. })
    }

    /// Which deny it is about, where it is about one.
    pub fn deny(&self) -> Option<&str> {
        match self {
            Change::Deny { name, .. } | Change::Undeny { name } => Some(name),
            _ => None,
        }
    }
}
