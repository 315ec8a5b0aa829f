//! The sources of a binding: most have one, which stands in the binding itself.

use std::ops::Deref;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Shared, like what it belongs to: a copy costs no allocation.
#[derive(Clone, Debug)]
pub enum Sources {
    One(IpNet),
    Many(Arc<[IpNet]>),
}

impl Deref for Sources {
    type Target = [IpNet];

    fn deref(&self) -> &[IpNet] {
        match self {
            Sources::One(source) => std::slice::from_ref(source),
            Sources::Many(sources) => sources,
        }
    }
}

impl From<&[IpNet]> for Sources {
    fn from(sources: &[IpNet]) -> Sources {
        match sources {
            [source] => Sources::One(*source),
            sources => Sources::Many(sources.into()),
        }
    }
}

impl From<Vec<IpNet>> for Sources {
    fn from(sources: Vec<IpNet>) -> Sources {
        sources.as_slice().into()
    }
}

impl<const N: usize> From<[IpNet; N]> for Sources {
    fn from(sources: [IpNet; N]) -> Sources {
        sources.as_slice().into()
    }
}

impl FromIterator<IpNet> for Sources {
    fn from_iter<I: IntoIterator<Item = IpNet>>(sources: I) -> Sources {
        sources.into_iter().collect::<Vec<IpNet>>().into()
    }
}

impl PartialEq for Sources {
    fn eq(&self, other: &Sources) -> bool {
        **self == **other
    }
}

impl Eq for Sources {}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sources, D::Error> {
        Vec::deserialize(deserializer).map(Sources::from)
    }
}
