//! What can be wrong with a store, and whose fault it is.

use std::path::PathBuf;

use crate::bindings::refusal::{About, Code, Refusal};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store: {0}")]
    Redb(Box<redb::Error>),
    #[error("the store: an entry cannot be read: {0}")]
    Entry(#[from] postcard::Error),
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// What an operator named cannot be used: nothing is wrong with the store.
    #[error("{0}: {1}")]
    Named(PathBuf, String),
    /// Left untouched.
    #[error("store format {found}, this release reads up to {known}")]
    Newer { found: u64, known: u64 },
    #[error("store format {0} is of no release")]
    Unknown(u64),
}

impl StoreError {
    /// Whether the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        let full = |error: &std::io::Error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        };
        match self {
            StoreError::Redb(error) => matches!(&**error, redb::Error::Io(error) if full(error)),
            StoreError::File(_, error) => full(error),
            _ => false,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        match error {
            StoreError::Named(..) => Refusal {
                about: About::Path,
                ..Refusal::new(Code::Invalid, error.to_string())
            },
            _ => Refusal::new(Code::Unavailable, error.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> StoreError {
                StoreError::Redb(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(
    CommitError,
    CursorError,
    DatabaseError,
    StorageError,
    TableError,
    TransactionError
);
