//! A set of prefixes that answers whether one of them holds an address: a look-up for each length that is there.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

#[derive(Clone, Default)]
pub(crate) struct Prefixes {
    set: HashSet<IpNet>,
    /// The lengths of each family that some prefix has.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
}

impl Prefixes {
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let lengths = match address {
            IpAddr::V4(_) => &self.lengths_v4,
            IpAddr::V6(_) => &self.lengths_v6,
        };
        let is_there = |length: &u8| {
            let prefix = IpNet::new(address, *length);
            prefix.is_ok_and(|prefix| self.set.contains(&prefix.trunc()))
        };
        lengths.iter().any(is_there)
    }
}

impl FromIterator<IpNet> for Prefixes {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Prefixes {
        let mut all = Prefixes::default();
        for prefix in prefixes {
            let lengths = match prefix {
                IpNet::V4(_) => &mut all.lengths_v4,
                IpNet::V6(_) => &mut all.lengths_v6,
            };
            if !lengths.contains(&prefix.prefix_len()) {
                lengths.push(prefix.prefix_len());
            }
            all.set.insert(prefix);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_held_by_any_length_of_their_family() {
        let prefixes = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/48"].map(|text| text.parse().unwrap());
        let prefixes: Prefixes = prefixes.into_iter().collect();
        for (address, held) in [
            ("10.9.8.7", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:0:1::1", true),
            ("2001:db9::", false),
            ("::10.0.0.1", false),
        ] {
            assert_eq!(prefixes.holds(address.parse().unwrap()), held, "{address}");
        }
        let all: Prefixes = ["::/0".parse().unwrap()].into_iter().collect();
        assert!(all.holds("::1".parse().unwrap()) && !all.holds("192.0.2.1".parse().unwrap()));
    }
}
