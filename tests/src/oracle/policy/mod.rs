//! The oracle's own policy: plain lists, as an operator would read the file aloud.
//!
//! Never validates: what Keyfence refuses (overlapping services, unknown names) is not its business. It has
//! no publishers and no bindings. `write` gives Keyfence's file syntax, `read` takes it.

mod date;
mod read;
mod write;

use std::net::IpAddr;

use ipnet::IpNet;

/// What `fragments` says (SPEC 2, judged by SPEC 3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    Listed,
    Drop,
    Pass,
}

/// What `ping` says (SPEC 2, judged by SPEC 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    Pass,
    Listed,
    Drop,
}

/// One token bucket: `rate` tokens in every `per_seconds`, at most `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rate: u64,
    pub per_seconds: u64,
    pub burst: u64,
}

/// The three buckets an entry may have. One that is not set is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub packets: Option<Limit>,
    pub bytes: Option<Limit>,
    pub connections: Option<Limit>,
}

/// Destination addresses of a service or a management entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// `address` omitted.
    Any,
    /// `address = "host"`: whatever `Policy::host_addresses` lists.
    Host,
    Prefixes(Vec<IpNet>),
}

/// Which services a client may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// `services = ["*"]`.
    All,
    Named(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub addresses: Addresses,
    pub tcp: bool,
    pub udp: bool,
    /// Inclusive ranges.
    pub ports: Vec<(u16, u16)>,
    /// None: the filter's mode.
    pub observe: Option<bool>,
    pub limit: Limits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub name: String,
    pub sources: Vec<IpNet>,
    /// Inclusive ranges; empty: any.
    pub source_ports: Vec<(u16, u16)>,
    pub services: Services,
    pub limit: Limits,
    /// Nanoseconds since 1970, on the clock that `Judge::judge` is given.
    pub expires_ns: Option<u64>,
    pub enabled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    pub name: String,
    pub sources: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Management {
    pub name: String,
    pub sources: Vec<IpNet>,
    pub tcp: bool,
    pub udp: bool,
    /// Inclusive ranges.
    pub ports: Vec<(u16, u16)>,
    pub addresses: Addresses,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub observe: bool,
    pub other_traffic_drop: bool,
    pub other_address_drop: bool,
    pub fragments: Fragments,
    pub ping: Ping,
    pub non_ip_drop: bool,
    /// Packets; one such bucket for errors and echo replies, a second for echo requests and ICMP fragments.
    pub icmp_limit: Option<Limit>,
    /// One such purse for each listed source address, or /64 of IPv6.
    pub source_limit: Limits,
    /// What `address = "host"` stands for. Not in the policy file.
    pub host_addresses: Vec<IpAddr>,
    pub services: Vec<Service>,
    pub clients: Vec<Client>,
    pub denies: Vec<Deny>,
    pub management: Vec<Management>,
}

impl Default for Policy {
    /// An empty policy with the defaults of SPEC 2.
    fn default() -> Policy {
        Policy {
            observe: false,
            other_traffic_drop: false,
            other_address_drop: false,
            fragments: Fragments::Listed,
            ping: Ping::Pass,
            non_ip_drop: false,
            icmp_limit: None,
            source_limit: Limits::default(),
            host_addresses: Vec::new(),
            services: Vec::new(),
            clients: Vec::new(),
            denies: Vec::new(),
            management: Vec::new(),
        }
    }
}

impl Policy {
    /// This policy in the file syntax of SPEC 2. `expires_ns` keeps its nanoseconds; `host_addresses` have no
    /// place in the file.
    pub fn to_toml(&self) -> String {
        write::policy(self)
    }

    /// The policy that a file says, without `host_addresses`. Refuses keys that the oracle does not judge
    /// (publishers, `source-limit`, includes, `sources-file`), so that none is ignored unseen.
    pub fn from_toml(text: &str) -> Result<Policy, String> {
        read::policy(text)
    }

    /// Does this entry's `address` hold the destination?
    pub fn address_holds(&self, addresses: &Addresses, destination: IpAddr) -> bool {
        match addresses {
            Addresses::Any => true,
            Addresses::Host => self.host_addresses.contains(&destination),
            Addresses::Prefixes(prefixes) => prefixes.iter().any(|prefix| prefix.contains(&destination)),
        }
    }
}

impl Client {
    pub fn owner(&self) -> String {
        format!("client/{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::random;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for seed in 0..500 {
            let mut policy = random::policy(seed, random::Budgets::Any);
            let text = policy.to_toml();
            policy.host_addresses.clear();
            assert_eq!(Policy::from_toml(&text).unwrap(), policy, "seed {seed}\n{text}");
        }
    }

    #[test]
    fn rates_and_amounts_take_their_units() {
        let text = r#"
            version = 1
            [filter]
            interfaces = ["eth0"]
            [[service]]
            name = "a"
            protocol = "tcp"
            ports = [1, "2-3"]
            limit = { packets = { rate = "100/m", burst = "2k" }, bytes = { rate = "10MB", burst = "1KiB" } }
            [[client]]
            name = "c"
            sources = ["::ffff:192.0.2.0/120", "192.0.2.7"]
            services = ["*"]
            limit = { bytes = { rate = "8kbit", burst = 500 } }
            expires = 2027-01-31T00:00:00Z
        "#;
        let policy = Policy::from_toml(text).unwrap();
        let limit = &policy.services[0].limit;
        assert_eq!(
            limit.packets,
            Some(Limit {
                rate: 100,
                per_seconds: 60,
                burst: 2000
            })
        );
        assert_eq!(
            limit.bytes,
            Some(Limit {
                rate: 10_000_000,
                per_seconds: 1,
                burst: 1024
            })
        );
        let client = &policy.clients[0];
        assert_eq!(
            client.limit.bytes,
            Some(Limit {
                rate: 8000,
                per_seconds: 8,
                burst: 500
            })
        );
        // SPEC 2: IPv4-mapped prefixes are read as IPv4.
        assert_eq!(client.sources[0].to_string(), "192.0.2.0/24");
        // 2027-01-31 is 20,849 days after 1970-01-01.
        assert_eq!(client.expires_ns, Some(20_849 * 86_400 * 1_000_000_000));
    }

    #[test]
    fn keys_that_the_oracle_does_not_judge_are_refused() {
        let text = "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nsurprise = 1\n";
        assert!(Policy::from_toml(text).is_err());
    }
}
