//! The one table of what a policy file may say: every key with its type, bounds, default and meaning.
//!
//! The walker takes unknown and missing keys, bounds and defaults from here; the reference is written from
//! here, so that neither can say what the other does not.

#[rustfmt::skip]
mod tables;

pub(crate) use tables::{
    AUTHORIZE, BUCKET, CERTIFICATE, CLIENT, CREDENTIALS, DAEMON, DENY, EXPECT, FILTER, LABELS, LIMITS,
    LISTENER, MANAGEMENT, PUBLISHER, RECORDS, ROOT, SECRET_FILE, SERVICE, SINK, TLS, WIDEST_PREFIX,
};

pub(crate) struct Table {
    /// The last part of its path, as in `[[service]]`.
    pub(crate) name: &'static str,
    /// Its headline in the reference.
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) taken: Taken,
    /// Whether an included file may hold it.
    pub(crate) included: bool,
    pub(crate) keys: &'static [Key],
}

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Reload,
    Restart,
}

pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) presence: Presence,
    pub(crate) about: &'static str,
}

pub(crate) enum Presence {
    /// An example of what to write.
    Required(&'static str),
    /// What it means to leave it out.
    Optional(&'static str),
    /// TOML text that is read in its place.
    Default(&'static str),
}

pub(crate) enum Kind {
    Text {
        bytes_max: usize,
    },
    Name,
    Boolean,
    Word(&'static [&'static str]),
    Count {
        min: u64,
        max: u64,
    },
    Bytes {
        min: u64,
        max: u64,
    },
    /// In seconds.
    Duration {
        min: u64,
        max: u64,
    },
    /// A form of its own, described.
    Form(&'static str),
    /// What its items are.
    List {
        of: &'static str,
        min: usize,
        max: usize,
    },
    Table(&'static Table),
    Tables(&'static Table),
}

impl Table {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
