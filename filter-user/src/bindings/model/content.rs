//! A binding's content: what it opens, for what, with which limit. Equal content is equal bytes, so it has an etag.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::bindings::seam::Sources;
use crate::policy::model::{Limits, PortRange};

/// Services by name, sorted and unique; the same few lists are many bindings'.
pub(crate) type Names = Arc<[Box<str>]>;

/// Lists of services that are shared; more are kept by each binding itself.
const NAMES_SHARED_MAX: usize = 4_096;

/// Lists of services, each distinct one once.
#[derive(Default)]
pub(crate) struct NamesTable {
    known: HashSet<Names>,
    /// Bindings beside each other often have the same.
    last: Option<Names>,
}

impl NamesTable {
    /// The same content with its list of services shared.
    pub(crate) fn share(&mut self, content: &mut Content) {
        let Services::Named(names) = &mut content.services else {
            return;
        };
        if let Some(last) = self.last.as_ref().filter(|last| *last == names) {
            *names = Arc::clone(last);
            return;
        }
        match self.known.get(names.as_ref()) {
            Some(known) => *names = Arc::clone(known),
            None if self.known.len() < NAMES_SHARED_MAX => {
                self.known.insert(Arc::clone(names));
            }
            None => {}
        }
        self.last = Some(Arc::clone(names));
    }

    /// Lists of other bindings, with which these share them.
    pub(crate) fn learn(&mut self, other: NamesTable) {
        let room = NAMES_SHARED_MAX.saturating_sub(self.known.len());
        self.known.extend(other.known.into_iter().take(room));
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Services {
    /// `["*"]`: all that the publisher may open, as judged at the time.
    All,
    Named(Names),
}

/// Canonical: sources sorted and unique without host bits, ports sorted and merged, labels by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) sources: Sources,
    pub(crate) services: Services,
    pub(crate) source_ports: Ports,
    /// `None`: the publisher's `limit-default`, whatever that is at the time.
    pub(crate) limit: Option<Box<Limits>>,
    pub(crate) labels: Option<Box<Labels>>,
}

/// Any port, for most, which takes one word; else these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(Option<Box<PortRanges>>);

type PortRanges = Vec<PortRange>;

impl Deref for Ports {
    type Target = [PortRange];

    fn deref(&self) -> &[PortRange] {
        self.0.as_ref().map_or(&[], |ports| ports.as_slice())
    }
}

impl From<Vec<PortRange>> for Ports {
    fn from(ports: Vec<PortRange>) -> Ports {
        Ports((!ports.is_empty()).then(|| Box::new(ports)))
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ports, D::Error> {
        Vec::deserialize(deserializer).map(Ports::from)
    }
}

pub(crate) type Labels = Vec<(Box<str>, Box<str>)>;

impl Content {
    /// The first 64 bits of the SHA-256 of the canonical bytes.
    pub(crate) fn etag(&self) -> u64 {
        let bytes = postcard::to_allocvec(self).expect("content has nothing that postcard cannot write");
        let hash = Sha256::digest(bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        u64::from_be_bytes(first)
    }
}

pub(crate) fn etag_text(etag: u64) -> String {
    format!("c-{etag:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_and_many_are_the_lists_that_they_were_made_of() {
        let nets = ["192.0.2.7/32", "2001:db8::/64"].map(|net| net.parse::<ipnet::IpNet>().unwrap());
        for list in [&nets[..0], &nets[..1], &nets[..]] {
            let sources = Sources::from(list);
            assert_eq!(*sources, *list);
            let bytes = postcard::to_allocvec(&sources).unwrap();
            assert_eq!(bytes, postcard::to_allocvec(list).unwrap());
            assert_eq!(postcard::from_bytes::<Sources>(&bytes).unwrap(), sources);
        }
        assert!(size_of::<Sources>() <= 24);
    }

    #[test]
    fn equal_lists_of_services_are_one_list() {
        let content = |service: &str| Content {
            sources: Sources::from(vec![]),
            services: Services::Named([Box::from(service)].into()),
            source_ports: Ports::default(),
            limit: None,
            labels: None,
        };
        let names = |content: &Content| match &content.services {
            Services::Named(names) => Arc::clone(names),
            Services::All => panic!("named"),
        };
        let mut of_store = NamesTable::default();
        let mut stored = [content("a"), content("b"), content("a")];
        stored.iter_mut().for_each(|content| of_store.share(content));
        assert!(Arc::ptr_eq(&names(&stored[0]), &names(&stored[2])));
        let mut known = NamesTable::default();
        known.learn(of_store);
        for (at, service) in [(1, "b"), (0, "a")] {
            let mut asked = content(service);
            known.share(&mut asked);
            assert!(Arc::ptr_eq(&names(&asked), &names(&stored[at])), "{service}");
        }
    }

    #[test]
    fn ports_are_stored_as_the_list_that_they_are() {
        let range = PortRange {
            first: 1024,
            last: 65_535,
        };
        for list in [vec![], vec![range]] {
            let ports = Ports::from(list.clone());
            assert_eq!(*ports, *list);
            let bytes = postcard::to_allocvec(&ports).unwrap();
            assert_eq!(bytes, postcard::to_allocvec(&list).unwrap());
            assert_eq!(postcard::from_bytes::<Ports>(&bytes).unwrap(), ports);
        }
    }

    #[test]
    fn equal_content_has_one_etag_and_other_content_another() {
        let content = Content {
            sources: ["198.51.100.7/32".parse().unwrap()].into(),
            services: Services::All,
            source_ports: Ports::default(),
            limit: None,
            labels: None,
        };
        let other = Content {
            services: Services::Named(["payments".into()].into()),
            ..content.clone()
        };
        assert_eq!(content.etag(), content.clone().etag());
        assert_ne!(content.etag(), other.etag());
        assert_eq!(etag_text(0x91f3), "c-00000000000091f3");
    }
}
