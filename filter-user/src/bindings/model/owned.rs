//! A credential as a binding holds it: the end of its owner's name, so that a million names are in memory once, for the
//! bindings and for the engine.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use super::view::{owner, owner_text};

/// Bytes of a credential that stand with it: enough to tell a million fingerprints from each other.
const HEAD: usize = 14;

type Head = [u8; HEAD];

/// Reads, sorts and hashes as the credential alone.
#[derive(Clone)]
pub(crate) struct Credential {
    owner: Arc<str>,
    /// What it begins with: a look into a map of a million would wait for the text of each that it passes.
    head: Head,
    /// Where the credential begins in its owner's name.
    start: u16,
}

/// Makes many credentials of one publisher: its part of their owners' names is written once.
pub(crate) struct OfPublisher {
    publisher: Arc<str>,
    /// The last owner's name.
    owner: String,
    start: u16,
}

impl OfPublisher {
    pub(crate) fn new(publisher: &str) -> OfPublisher {
        let owner = owner_text(publisher, "");
        OfPublisher {
            publisher: publisher.into(),
            start: start_of(owner.len()),
            owner,
        }
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.publisher)
    }

    pub(crate) fn credential(&mut self, credential: &str) -> Credential {
        self.owner.truncate(usize::from(self.start));
        self.owner.push_str(credential);
        Credential {
            owner: self.owner.as_str().into(),
            head: head_of(credential),
            start: self.start,
        }
    }
}

/// A publisher's name is a few dozen bytes.
fn start_of(length: usize) -> u16 {
    u16::try_from(length).expect("publishers' names are short")
}

/// A credential, or one that is looked for.
pub(crate) trait Named {
    fn head(&self) -> &Head;
    fn text(&self) -> &str;
}

/// What is looked for.
pub(crate) struct Sought<'t> {
    text: &'t str,
    head: Head,
}

impl<'t> Sought<'t> {
    pub(crate) fn of(text: &'t str) -> Sought<'t> {
        Sought {
            text,
            head: head_of(text),
        }
    }
}

/// Its first bytes, and zeros behind a short one, which sort before all others.
fn head_of(text: &str) -> Head {
    let mut head = [0; HEAD];
    let length = text.len().min(HEAD);
    head[..length].copy_from_slice(&text.as_bytes()[..length]);
    head
}

fn compare(one: &(impl Named + ?Sized), other: &(impl Named + ?Sized)) -> Ordering {
    let heads = one.head().cmp(other.head());
    heads.then_with(|| one.text().cmp(other.text()))
}

impl Named for Credential {
    fn head(&self) -> &Head {
        &self.head
    }

    fn text(&self) -> &str {
        self
    }
}

impl Named for Sought<'_> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn text(&self) -> &str {
        self.text
    }
}

impl PartialEq for Sought<'_> {
    fn eq(&self, other: &Self) -> bool {
        compare(self, other).is_eq()
    }
}

impl Eq for Sought<'_> {}

impl PartialOrd for Sought<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sought<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl Credential {
    pub(crate) fn new(publisher: &str, credential: &str) -> Credential {
        let owner = owner(publisher, credential);
        let start = owner.len() - credential.len();
        Credential {
            start: start_of(start),
            head: head_of(credential),
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

impl<'t> Borrow<dyn Named + 't> for Credential {
    fn borrow(&self) -> &(dyn Named + 't) {
        self
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        compare(self, other).is_eq()
    }
}

impl Eq for dyn Named + '_ {}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Credential) -> bool {
        self.head == other.head && **self == **other
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
        compare(self, other)
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
        let sought = Sought::of("key-1");
        assert_eq!(map.get(&sought as &dyn Named), Some(&1));
        assert!(HashSet::from([credential]).contains("key-1"));
    }

    #[test]
    fn credentials_sort_as_their_texts() {
        let mut texts = [
            "",
            "a",
            "a\0",
            "ab",
            "key-of-14-byte",
            "key-of-14-bytes",
            "key-of-14-bytes-or-more",
        ];
        for one in texts {
            for other in texts {
                let ordered = Credential::new("p", one).cmp(&Credential::new("another", other));
                assert_eq!(ordered, one.cmp(other), "{one:?} {other:?}");
            }
        }
        let map: BTreeMap<Credential, &str> = texts.map(|text| (Credential::new("p", text), text)).into();
        texts.sort_unstable();
        assert!(map.values().eq(&texts));
        for text in texts {
            assert_eq!(map.get(&Sought::of(text) as &dyn Named), Some(&text));
        }
    }
}
