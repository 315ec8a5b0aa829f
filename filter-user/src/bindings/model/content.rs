//! A binding's content: what it opens, for what, with which limit. Equal content is equal bytes, so it has an etag.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::policy::model::{Limits, PortRange};

/// Services by name, sorted and unique; the same few lists are many bindings'.
pub(crate) type Names = Arc<[Box<str>]>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Services {
    /// `["*"]`: all that the publisher may open, as judged at the time.
    All,
    Named(Names),
}

/// Canonical: sources sorted and unique without host bits, ports sorted and merged, labels by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) sources: Box<[IpNet]>,
    pub(crate) services: Services,
    pub(crate) source_ports: Box<[PortRange]>,
    /// `None`: the publisher's `limit-default`, whatever that is at the time.
    pub(crate) limit: Option<Box<Limits>>,
    pub(crate) labels: Option<Box<Labels>>,
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
    fn equal_content_has_one_etag_and_other_content_another() {
        let content = Content {
            sources: ["198.51.100.7/32".parse().unwrap()].into(),
            services: Services::All,
            source_ports: Box::default(),
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
