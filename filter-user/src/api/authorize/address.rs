//! The client's address and port, as the gateway tells them. What does not parse is the gateway's fault: 400.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::HeaderName;
use ipnet::IpNet;

use super::fields::Fields;
use crate::policy::model::Authorize;

/// The header of the client's port; without it source ports are not judged.
pub(crate) const PORT: HeaderName = HeaderName::from_static("keyfence-client-port");

/// Where the client's address stands.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    header: HeaderName,
    /// `None`: the proxy sets the header, whole. Else it appends to `X-Forwarded-For`, and these are skipped.
    trusted: Option<Vec<IpNet>>,
}

/// What is wrong with what the gateway sends. The text names the header and never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressFault {
    #[error("no header {0}; the proxy must set it to the client's address")]
    Missing(HeaderName),
    #[error("the header {0} came more than once; the proxy must replace what a client sends, not add to it")]
    Repeated(HeaderName),
    #[error("what the header {0} holds is no address")]
    NoAddress(HeaderName),
    #[error("each address of the header {0} is a trusted proxy: none is the client's")]
    AllTrusted(HeaderName),
    #[error("what the header {0} holds is no port")]
    NoPort(HeaderName),
}

impl Addresses {
    pub(crate) fn new(authorize: &Authorize) -> Addresses {
        let header = HeaderName::from_bytes(authorize.address_header.as_bytes());
        let header = header.unwrap_or(HeaderName::from_static("keyfence-client-address"));
        let chained = header == HeaderName::from_static("x-forwarded-for");
        Addresses {
            header,
            trusted: chained.then(|| authorize.trusted_proxies.clone()),
        }
    }

    pub(crate) fn address(&self, headers: &(impl Fields + ?Sized)) -> Result<IpAddr, AddressFault> {
        let header = || self.header.clone();
        let mut lines = headers.all(&self.header);
        let Some(trusted) = &self.trusted else {
            let line = lines.next().ok_or_else(|| AddressFault::Missing(header()))?;
            if lines.next().is_some() {
                return Err(AddressFault::Repeated(header()));
            }
            return parse(line).ok_or_else(|| AddressFault::NoAddress(header()));
        };
        // From the right: each proxy appends whom it saw, so what stands left of the first stranger is hearsay.
        let mut any = false;
        for line in lines.rev() {
            for item in line.rsplit(|byte| *byte == b',') {
                any = true;
                let address = parse(item).ok_or_else(|| AddressFault::NoAddress(header()))?;
                if !trusted.iter().any(|proxy| proxy.contains(&address)) {
                    return Ok(address);
                }
            }
        }
        Err(if any {
            AddressFault::AllTrusted(header())
        } else {
            AddressFault::Missing(header())
        })
    }
}

pub(crate) fn port(headers: &(impl Fields + ?Sized)) -> Result<Option<u16>, AddressFault> {
    let name = PORT;
    let mut lines = headers.all(&name);
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(AddressFault::Repeated(PORT));
    }
    let digits = std::str::from_utf8(line.trim_ascii()).ok();
    let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .map(Some)
        .ok_or(AddressFault::NoPort(PORT))
}

/// An address as proxies write them: IPv6 with or without brackets, IPv4-mapped ones as IPv4, no port, no zone.
fn parse(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match inner {
        Some(inner) => IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?),
        None => text.parse().ok()?,
    };
    Some(address.to_canonical())
}
