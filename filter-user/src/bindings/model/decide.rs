//! What a write does to what is stored: API.md's rules of conditions, row versions, renewals and tombstones.

use super::body::Wanted;
use super::content::etag_text;
use super::lease::{Moment, Standing};
use super::row::{Row, Told};
use crate::bindings::clock::Now;
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Conditions, Event, IfMatch, Outcome};

/// What is there under a credential.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored<'a> {
    Row(&'a Row),
    /// Restored, and not written since: its content may be older than its publisher's.
    Restored(&'a Row),
    /// Deleted at this row version.
    Tombstone(u64),
    Nothing,
}

impl<'a> Stored<'a> {
    fn row(self) -> Option<&'a Row> {
        match self {
            Stored::Row(row) | Stored::Restored(row) => Some(row),
            _ => None,
        }
    }
}

/// What a PUT or a renewal comes to; `Unchanged` has neither row nor event.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// Its revision is 0 where it is to be that of the change.
    pub(crate) row: Row,
    pub(crate) outcome: Outcome,
    pub(crate) event: Event,
}

/// `None`: nothing is written. `standing` is that of the stored row's lease.
pub(crate) fn put(
    stored: Stored<'_>,
    standing: Standing,
    wanted: &Wanted,
    conditions: &Conditions,
    now: Now,
) -> Result<Option<Written>, Refusal> {
    judge_conditions(stored, conditions)?;
    let before = stored.row().filter(|row| row.content == wanted.content);
    judge_row_version(stored, wanted.row_version, before.is_some())?;
    let end = wanted.lease_ms.map(|lease| Moment::after(now, lease));
    let mut row = Row {
        content: before.map_or(&wanted.content, |before| &before.content).clone(),
        row_version: wanted.row_version,
        created_ms: stored.row().map_or(now.wall_ms, |row| row.created_ms),
        end,
        revision: 0,
        told: Told::Active,
    };
    let Some(before) = before else {
        let outcome = match stored.row() {
            None => Outcome::Created,
            Some(_) => Outcome::Changed,
        };
        return Ok(Some(Written {
            row,
            outcome,
            event: Event::Put,
        }));
    };
    let same = before.row_version == wanted.row_version && before.end.is_none() && end.is_none();
    if same && !matches!(stored, Stored::Restored(_)) {
        return Ok(None);
    }
    row.told = before.told;
    // Watchers without renewals must learn that an ended binding is in force again.
    let event = match standing == Standing::Over || before.told == Told::Ended {
        true => Event::Put,
        false => Event::Renew,
    };
    Ok(Some(Written {
        row,
        outcome: Outcome::Renewed,
        event,
    }))
}

/// A batch's `renew`: the content stays, the end is new, and the row version that it writes. It says nothing of content
/// that was restored: that stays suspended.
pub(crate) fn renew(
    stored: Stored<'_>,
    standing: Standing,
    lease_ms: Option<i64>,
    row_version: Option<u64>,
    now: Now,
) -> Result<Option<Written>, Refusal> {
    let Some(before) = stored.row() else {
        return Err(Refusal::new(
            Code::UnknownCredential,
            "there is no such binding to renew",
        ));
    };
    judge_row_version(stored, row_version, true)?;
    let end = lease_ms.map(|lease| Moment::after(now, lease));
    let row_version = row_version.or(before.row_version);
    if before.end.is_none() && end.is_none() && row_version == before.row_version {
        return Ok(None);
    }
    let event = match standing == Standing::Over || before.told == Told::Ended {
        true => Event::Put,
        false => Event::Renew,
    };
    let row = Row {
        end,
        row_version,
        revision: match stored {
            Stored::Restored(before) => before.revision,
            _ => 0,
        },
        ..before.clone()
    };
    Ok(Some(Written {
        row,
        outcome: Outcome::Renewed,
        event,
    }))
}

/// What a DELETE does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) removed: bool,
    /// The row version that no later PUT may be at or below.
    pub(crate) tombstone: Option<u64>,
}

pub(crate) fn delete(
    stored: Stored<'_>,
    row_version: Option<u64>,
    conditions: &Conditions,
) -> Result<Deleted, Refusal> {
    judge_conditions(stored, conditions)?;
    match stored {
        Stored::Row(row) | Stored::Restored(row) => {
            // At the row's own version as well: who deletes a row knows the version it had.
            judge_row_version(stored, row_version, true)?;
            Ok(Deleted {
                removed: true,
                tombstone: row_version.or(row.row_version),
            })
        }
        Stored::Tombstone(before) => Ok(Deleted {
            removed: false,
            tombstone: row_version.filter(|version| *version > before),
        }),
        Stored::Nothing => Ok(Deleted {
            removed: false,
            tombstone: row_version,
        }),
    }
}

/// RFC 9110, 13.1: conditions come before everything else of a write.
fn judge_conditions(stored: Stored<'_>, conditions: &Conditions) -> Result<(), Refusal> {
    let row = stored.row();
    let holds = match &conditions.if_match {
        None => true,
        Some(IfMatch::Any) => row.is_some(),
        Some(IfMatch::Tags(tags)) => row.is_some_and(|row| tags.contains(&etag_text(row.content.etag()))),
    };
    if !holds {
        let detail = match row {
            Some(row) => format!("the stored content is {}", etag_text(row.content.etag())),
            None => "there is no such binding".to_owned(),
        };
        return Err(Refusal::new(Code::ConditionFailed, detail));
    }
    if conditions.if_none_match_any && row.is_some() {
        return Err(Refusal::new(Code::ConditionFailed, "there is such a binding"));
    }
    Ok(())
}

fn judge_row_version(stored: Stored<'_>, given: Option<u64>, same_content: bool) -> Result<(), Refusal> {
    let (known, deleted, same_content) = match stored {
        Stored::Row(row) => (row.row_version, false, same_content),
        // A renewal may have brought the version of content that was lost.
        Stored::Restored(row) => (row.row_version, false, true),
        Stored::Tombstone(version) => (Some(version), true, same_content),
        Stored::Nothing => (None, false, same_content),
    };
    let Some(known) = known else { return Ok(()) };
    let what = match deleted {
        true => "deleted at",
        false => "stored with",
    };
    let Some(given) = given else {
        let detail = format!("it is {what} row_version {known}: write yours");
        return Err(Refusal::new(Code::RowVersionRequired, detail).with("row_version", known));
    };
    let stale = given < known || (given == known && (deleted || !same_content));
    if stale {
        let detail = format!("it is {what} row_version {known}, the write has {given}");
        return Err(Refusal::new(Code::StaleRowVersion, detail).with("row_version", known));
    }
    Ok(())
}
