//! A source as it is asked for, beside the sources that records show: whole, as a network, or under a pseudonym.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::address::{PSEUDONYM, Pseudonyms};

/// A source as it is asked for: a network, or the text that stands for an address in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    Net(IpNet),
    Text(String),
}

impl std::str::FromStr for Sought {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text
            .parse::<IpAddr>()
            .map(|address| IpNet::from(address.to_canonical()));
        match address.or_else(|_| text.parse::<IpNet>()) {
            Ok(net) => Ok(Sought::Net(net.trunc())),
            Err(_) if text.starts_with(PSEUDONYM) => Ok(Sought::Text(text.to_owned())),
            Err(_) => Err("an address, a prefix, or a pseudonym as `hmac:…`".to_owned()),
        }
    }
}

impl Sought {
    /// Whether it is a single address.
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Sought::Net(net) if net.prefix_len() == net.max_prefix_len())
    }

    /// What a single address is called where addresses are not shown.
    pub(super) fn pseudonym(&self, pseudonyms: Option<&Pseudonyms>) -> Option<String> {
        match self {
            Sought::Net(net) if self.is_one() => Some(pseudonyms?.of(net.addr())),
            _ => None,
        }
    }
}

/// As a record shows it.
#[derive(Default, Deserialize)]
pub(super) struct Source {
    ip: Option<IpAddr>,
    address: Option<String>,
}

impl Source {
    /// As it is shown and added up.
    pub(super) fn name(&self) -> Option<String> {
        let ip = || self.ip.map(|ip| ip.to_string());
        self.address.clone().or_else(ip)
    }

    /// `pseudonym` is that of the one address that is sought.
    pub(super) fn compared(&self, sought: &Sought, pseudonym: Option<&str>) -> Compared {
        let equal = |is| if is { Compared::Is } else { Compared::Not };
        match (sought, self.address.as_deref()) {
            (Sought::Text(text), own) => equal(own == Some(text)),
            (Sought::Net(_), Some(own)) if own.starts_with(PSEUDONYM) => match pseudonym {
                Some(sought) => equal(own == sought),
                None => Compared::Hidden,
            },
            (Sought::Net(net), own) => {
                let own: Option<IpNet> = match own {
                    Some(address) => address.parse().ok(),
                    None => self.ip.map(IpNet::from),
                };
                match own {
                    Some(own) if net.contains(&own) => Compared::Is,
                    Some(own) if own.contains(net) => Compared::MayBe,
                    _ => Compared::Not,
                }
            }
        }
    }
}

/// A record's source beside what is sought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    Is,
    /// It is of a network around what is sought.
    MayBe,
    /// It is of a pseudonym that nobody here can compare.
    Hidden,
    Not,
}
