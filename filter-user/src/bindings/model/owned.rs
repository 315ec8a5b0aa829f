//! A credential as a binding holds it: the end of its owner's name, so that a million names are in memory once, for the
//! bindings and for the engine.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use super::view::owner;

/// Reads, sorts and hashes as the credential alone.
#[derive(Clone)]
pub(crate) struct Credential {
    owner: Arc<str>,
    /// Where the credential begins in it: asked for with each comparison.
    start: u16,
}

impl Credential {
    pub(crate) fn new(publisher: &str, credential: &str) -> Credential {
        let owner = owner(publisher, credential);
        let start = owner.len() - credential.len();
        Credential {
            // A publisher's name is a few dozen bytes.
            start: u16::try_from(start).expect("publishers' names are short"),
            owner,
        }
    }

    /// `binding/PUBLISHER/CREDENTIAL`.
    pub(crate) fn owner(&self) -> Arc<str> {
        Arc::clone(&self.owner)
    }
}

impl Deref for Credential {
    type Target = str;

    fn deref(&self) -> &str {
        &self.owner[usize::from(self.start)..]
    }
}

impl Borrow<str> for Credential {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Credential) -> bool {
        **self == **other
    }
}

impl Eq for Credential {}

impl PartialOrd for Credential {
    fn partial_cmp(&self, other: &Credential) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Credential {
    fn cmp(&self, other: &Credential) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Credential {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (**self).hash(hasher);
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn it_is_found_by_the_credential_alone_and_knows_its_owner() {
        let credential = Credential::new("gateway", "key-1");
        assert_eq!(
            (&*credential, &*credential.owner()),
            ("key-1", "binding/gateway/key-1")
        );
        let map = BTreeMap::from([(credential.clone(), 1), (Credential::new("gateway", "key-0"), 0)]);
        assert_eq!(
            (map.get("key-1"), map.first_key_value().unwrap().1),
            (Some(&1), &0)
        );
        assert!(HashSet::from([credential]).contains("key-1"));
    }
}
