//! Why a request was refused: API.md's codes, closed, with their statuses; what is behind each is for people.
//!
//! A value that could be a key is never quoted. HTTP itself is the listeners'.

use serde::Serialize;

/// What a refusal is about. Its slug is the `code` member and the end of `type`, both stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not JSON at all, or not of the shape asked for.
    Malformed,
    NotAPublisher,
    ServiceNotAllowed,
    EnvironmentNotAllowed,
    PrefixTooWide,
    NotTheOwner,
    UnknownCredential,
    StaleRowVersion,
    RowVersionRequired,
    MassRevocation,
    SyncRunning,
    BatchRunning,
    BindingsMax,
    DeniesMax,
    PolicyChanged,
    /// The revisions asked for are no longer kept, or are of another store.
    Gone,
    ConditionFailed,
    LineTooLong,
    /// Faults of fields, all of them in `Refusal::errors`.
    Invalid,
    SyncIncomplete,
    Busy,
    Starting,
    Draining,
    /// The disk or the kernel failed: nothing done.
    Unavailable,
    TableFull,
    StoreFull,
    AuditFull,
}

impl Code {
    pub const ALL: [Code; 27] = [
        Code::Malformed,
        Code::NotAPublisher,
        Code::ServiceNotAllowed,
        Code::EnvironmentNotAllowed,
        Code::PrefixTooWide,
        Code::NotTheOwner,
        Code::UnknownCredential,
        Code::StaleRowVersion,
        Code::RowVersionRequired,
        Code::MassRevocation,
        Code::SyncRunning,
        Code::BatchRunning,
        Code::BindingsMax,
        Code::DeniesMax,
        Code::PolicyChanged,
        Code::Gone,
        Code::ConditionFailed,
        Code::LineTooLong,
        Code::Invalid,
        Code::SyncIncomplete,
        Code::Busy,
        Code::Starting,
        Code::Draining,
        Code::Unavailable,
        Code::TableFull,
        Code::StoreFull,
        Code::AuditFull,
    ];

    pub const fn slug(self) -> &'static str {
        self.row().0
    }

    pub const fn status(self) -> u16 {
        self.row().1
    }

    pub const fn title(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Code::Malformed => ("malformed", 400, "The body cannot be read"),
            Code::NotAPublisher => ("not-a-publisher", 403, "The caller is no publisher"),
            Code::ServiceNotAllowed => (
                "service-not-allowed",
                403,
                "The publisher may not open this service",
            ),
            Code::EnvironmentNotAllowed => (
                "environment-not-allowed",
                403,
                "The publisher may not open this environment",
            ),
            Code::PrefixTooWide => (
                "prefix-too-wide",
                403,
                "A source is wider than the publisher may open",
            ),
            Code::NotTheOwner => ("not-the-owner", 403, "Only its owner or an operator may do this"),
            Code::UnknownCredential => ("unknown-credential", 404, "There is no such binding"),
            Code::StaleRowVersion => ("stale-row-version", 409, "A newer version of the row is stored"),
            Code::RowVersionRequired => (
                "row-version-required",
                409,
                "The row has a version, the write none",
            ),
            Code::MassRevocation => (
                "mass-revocation",
                409,
                "The sync would revoke more than revoke-max",
            ),
            Code::SyncRunning => ("sync-running", 409, "A sync of this publisher is running"),
            Code::BatchRunning => ("batch-running", 409, "A batch of this publisher is running"),
            Code::BindingsMax => (
                "bindings-max",
                409,
                "The publisher has as many bindings as it may",
            ),
            Code::DeniesMax => ("denies-max", 409, "There are as many denies as there may be"),
            Code::PolicyChanged => ("policy-changed", 409, "The policy has changed meanwhile"),
            Code::Gone => ("too-old", 410, "These revisions are no longer kept"),
            Code::ConditionFailed => ("condition-failed", 412, "The condition does not hold"),
            Code::LineTooLong => ("line-too-long", 413, "A line is too long"),
            Code::Invalid => ("invalid", 422, "The request is invalid"),
            Code::SyncIncomplete => ("sync-incomplete", 422, "The sync is incomplete"),
            Code::Busy => ("busy", 503, "Too much is under way"),
            Code::Starting => ("starting", 503, "The daemon is starting"),
            Code::Draining => ("draining", 503, "The daemon is stopping"),
            Code::Unavailable => ("unavailable", 503, "It could not be done"),
            Code::TableFull => ("table-full", 507, "A kernel table is full"),
            Code::StoreFull => ("store-full", 507, "The store is full"),
            Code::AuditFull => ("audit-full", 507, "The audit log is full"),
        }
    }
}

/// One fault of a field; `pointer` is a JSON pointer (RFC 6901) into the body or the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldFault {
    pub code: &'static str,
    pub pointer: String,
    pub detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

/// A request that changed nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {detail}", code.slug())]
pub struct Refusal {
    pub code: Code,
    pub detail: String,
    /// For `Code::Invalid`, and the 403s of fields: every fault at once.
    pub errors: Vec<FieldFault>,
    /// Members that the problem document has beside the standard ones, such as `revocations`.
    pub members: Vec<(&'static str, serde_json::Value)>,
    pub retry_after_seconds: Option<u32>,
    pub about: About,
}

/// What a refused request was about, for its title.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum About {
    #[default]
    Binding,
    Deny,
    /// A file that the caller names.
    Path,
    /// What an operator asks of the daemon as a whole.
    Request,
    /// An address, or a prefix, that has too many owners.
    Prefix,
}

impl Refusal {
    pub fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal {
            code,
            about: About::Binding,
            detail: detail.into(),
            errors: Vec::new(),
            members: Vec::new(),
            retry_after_seconds: (code.status() == 503).then_some(1),
        }
    }

    /// Faults of fields. Where all of them are of one 403 (`prefix-too-wide`, say), the refusal is that one.
    pub fn of_faults(faults: Vec<FieldFault>) -> Refusal {
        let forbidden = [
            Code::ServiceNotAllowed,
            Code::EnvironmentNotAllowed,
            Code::PrefixTooWide,
        ]
        .into_iter()
        .find(|code| faults.iter().all(|fault| fault.code == code.slug()));
        let detail = match faults.len() {
            1 => "1 fault".to_owned(),
            faults => format!("{faults} faults"),
        };
        Refusal {
            errors: faults,
            ..Refusal::new(forbidden.unwrap_or(Code::Invalid), detail)
        }
    }

    /// The title where it is not the code's.
    pub const fn title(&self) -> Option<&'static str> {
        match (self.about, self.code) {
            (About::Binding, Code::Invalid) => Some("The binding is invalid"),
            (About::Path, Code::Invalid) => Some("The path cannot be used"),
            (About::Prefix, Code::TableFull) => Some("An address has as many owners as it can"),
            (About::Deny, Code::Invalid) => Some("The deny is invalid"),
            (About::Deny, Code::PrefixTooWide) => Some("A source is wider than may be denied"),
            _ => None,
        }
    }

    #[must_use]
    pub fn with(mut self, member: &'static str, value: impl Into<serde_json::Value>) -> Refusal {
        self.members.push((member, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_slugs_of_their_own_and_each_stands_in_the_list() {
        let mut slugs: Vec<_> = Code::ALL.iter().map(|code| code.slug()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Code::ALL.len());
    }

    #[test]
    fn faults_of_one_prohibition_are_a_403_and_mixed_ones_a_422() {
        let fault = |code| FieldFault {
            code,
            pointer: "/sources/0".to_owned(),
            detail: String::new(),
            fix: String::new(),
        };
        let one = Refusal::of_faults(vec![fault("prefix-too-wide"), fault("prefix-too-wide")]);
        assert_eq!((one.code, one.detail.as_str()), (Code::PrefixTooWide, "2 faults"));
        let mixed = Refusal::of_faults(vec![fault("prefix-too-wide"), fault("host-bits")]);
        assert_eq!(mixed.code, Code::Invalid);
    }
}
