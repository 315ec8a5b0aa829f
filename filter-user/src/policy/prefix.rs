//! Source and destination prefixes as people write them: `10.1.2.0/24`, a bare address, IPv4-mapped IPv6.
//!
//! Text in, an `IpNet` without host bits out. Never rounds: host bits are a fault that names both readings.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The longest prefix as text is 49 bytes (`ffff:…:255.255.255.255/128`).
const TEXT_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PrefixFault {
    #[error("is no address or prefix")]
    NotAPrefix { fix: Option<String> },
    #[error("has host bits set")]
    HostBits { network: IpNet, host: IpNet },
}

impl PrefixFault {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            PrefixFault::NotAPrefix { .. } => "bad-prefix",
            PrefixFault::HostBits { .. } => "host-bits",
        }
    }

    pub(crate) fn fix(&self) -> String {
        match self {
            PrefixFault::NotAPrefix { fix: Some(fix) } => fix.clone(),
            PrefixFault::NotAPrefix { fix: None } => {
                "write an address or a prefix, such as 192.0.2.7, 198.51.100.0/24 or 2001:db8::/48".to_owned()
            }
            PrefixFault::HostBits { network, host } => format!("write {network} or {host}"),
        }
    }
}

pub(crate) fn prefix_from_text(text: &str) -> Result<IpNet, PrefixFault> {
    let not_a_prefix = || PrefixFault::NotAPrefix { fix: None };
    if text.len() > TEXT_BYTES_MAX {
        return Err(not_a_prefix());
    }
    let (address, length) = match text.split_once('/') {
        None => (text, None),
        Some((address, length)) => (address, Some(length)),
    };
    let address: IpAddr = address.parse().map_err(|_| not_a_prefix())?;
    let bits_max: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => bits_max,
        Some(length) => prefix_length(length, bits_max).ok_or_else(|| PrefixFault::NotAPrefix {
            fix: length_fix(address, length, bits_max),
        })?,
    };
    let net = IpNet::new(address, length).map_err(|_| not_a_prefix())?;
    without_host_bits(unmapped(net))
}

/// IPv4-mapped prefixes of /96 and longer are IPv4. A shorter one covers more than mapped space: it stays
/// IPv6.
fn unmapped(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, length)
    {
        return IpNet::V4(v4);
    }
    net
}

/// An address, IPv4-mapped ones as IPv4.
pub(crate) fn unmapped_address(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn without_host_bits(net: IpNet) -> Result<IpNet, PrefixFault> {
    let network = net.trunc();
    if network == net {
        return Ok(net);
    }
    Err(PrefixFault::HostBits {
        network,
        host: IpNet::from(net.addr()),
    })
}

fn prefix_length(text: &str, bits_max: u8) -> Option<u8> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|length| plain && *length <= bits_max)
}

/// A netmask in place of the length names its length; a length past the end names the bound.
fn length_fix(address: IpAddr, length: &str, bits_max: u8) -> Option<String> {
    if let Ok(mask) = length.parse::<Ipv4Addr>() {
        let ones = mask.to_bits().leading_ones();
        let is_mask = mask.to_bits().count_ones() == ones && address.is_ipv4();
        return is_mask.then(|| format!("write {address}/{ones}"));
    }
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| format!("write a length from 0 to {bits_max}, without leading zeros"))
}

/// Sorted, unique, and without prefixes that another one of the list holds.
pub(crate) fn merged(mut prefixes: Vec<IpNet>) -> Vec<IpNet> {
    prefixes.sort_unstable();
    prefixes.dedup();
    let mut kept: Vec<IpNet> = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        // Sorted, so a holder comes before what it holds, and what stands between is held as well.
        if !kept.last().is_some_and(|last| last.contains(&prefix)) {
            kept.push(prefix);
        }
    }
    kept
}

/// First and last address as numbers that order within a family.
pub(crate) fn bounds(prefix: &IpNet) -> (u128, u128) {
    match prefix {
        IpNet::V4(v4) => (v4.network().to_bits().into(), v4.broadcast().to_bits().into()),
        IpNet::V6(v6) => (v6.network().to_bits(), last_v6(v6)),
    }
}

fn last_v6(prefix: &Ipv6Net) -> u128 {
    prefix.broadcast().to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match prefix_from_text(text) {
            Ok(prefix) => prefix.to_string(),
            Err(fault) => format!("{}: {}", fault.code(), fault.fix()),
        }
    }

    #[test]
    fn prefixes_and_bare_addresses_are_read() {
        for (text, expected) in [
            ("10.1.2.0/24", "10.1.2.0/24"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/48", "2001:db8::/48"),
            ("2001:DB8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn mapped_prefixes_are_ipv4_from_length_96_on() {
        assert_eq!(read("::ffff:192.0.2.7"), "192.0.2.7/32");
        assert_eq!(read("::ffff:192.0.2.0/120"), "192.0.2.0/24");
        assert_eq!(read("::ffff:0:0/96"), "0.0.0.0/0");
        assert_eq!(read("::/64"), "::/64");
        assert_eq!(
            read("::ffff:192.0.2.7/120"),
            "host-bits: write 192.0.2.0/24 or 192.0.2.7/32"
        );
    }

    #[test]
    fn host_bits_name_both_readings() {
        assert_eq!(read("10.1.2.3/24"), "host-bits: write 10.1.2.0/24 or 10.1.2.3/32");
        assert_eq!(
            read("2001:db8::1/64"),
            "host-bits: write 2001:db8::/64 or 2001:db8::1/128"
        );
    }

    #[test]
    fn other_text_is_no_prefix() {
        assert_eq!(read("10.1.2.0/255.255.255.0"), "bad-prefix: write 10.1.2.0/24");
        let bound = "bad-prefix: write a length from 0 to 32, without leading zeros";
        assert_eq!(read("10.1.2.0/33"), bound);
        assert_eq!(read("10.1.2.0/08"), bound);
        for text in [
            "",
            "/",
            "10.1.2",
            "10.01.2.3",
            "10.1.2.3/",
            "10.1.2.3/-1",
            "fe80::1%eth0",
            "example.org",
        ] {
            assert!(read(text).starts_with("bad-prefix"), "{text}");
        }
    }

    #[test]
    fn held_and_equal_prefixes_are_merged() {
        let prefixes = [
            "10.1.0.0/16",
            "10.0.0.0/8",
            "10.1.2.3/32",
            "11.0.0.0/8",
            "11.0.0.0/8",
            "::/0",
            "::1/128",
        ];
        let prefixes = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        let kept: Vec<String> = merged(prefixes).iter().map(IpNet::to_string).collect();
        assert_eq!(kept, ["10.0.0.0/8", "11.0.0.0/8", "::/0"]);
    }
}
