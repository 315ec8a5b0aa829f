//! Token buckets in exact whole numbers (SPEC 3.10).
//!
//! A level is counted in parts of which one token has `per_seconds` x 10^9, so that what a nanosecond adds,
//! `rate` parts, is whole. Never reads a clock.

use super::policy::{Limit, Limits};

const NANOS: u128 = 1_000_000_000;

/// One bucket, full at first.
#[derive(Clone, Debug)]
pub struct Bucket {
    limit: Limit,
    parts: u128,
    last_ns: Option<u64>,
}

impl Bucket {
    pub fn new(limit: Limit) -> Bucket {
        Bucket {
            limit,
            parts: 0,
            last_ns: None,
        }
    }

    /// Takes `cost` tokens if so many are there, else none. Time that goes back stands still.
    pub fn pay(&mut self, cost: u64, now_ns: u64) -> bool {
        let token = u128::from(self.limit.per_seconds) * NANOS;
        let full = u128::from(self.limit.burst) * token;
        self.parts = match self.last_ns {
            None => full,
            Some(last) => {
                let added = u128::from(now_ns.saturating_sub(last)) * u128::from(self.limit.rate);
                self.parts.saturating_add(added).min(full)
            }
        };
        self.last_ns = Some(now_ns.max(self.last_ns.unwrap_or(0)));
        let cost = u128::from(cost) * token;
        let pays = cost <= self.parts;
        if pays {
            self.parts -= cost;
        }
        pays
    }
}

/// What a packet costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub bytes: u64,
    pub connection: bool,
}

/// The buckets of one owner or service.
#[derive(Clone, Debug)]
pub struct Purse {
    packets: Option<Bucket>,
    bytes: Option<Bucket>,
    connections: Option<Bucket>,
}

impl Purse {
    pub fn new(limits: &Limits) -> Purse {
        Purse {
            packets: limits.packets.map(Bucket::new),
            bytes: limits.bytes.map(Bucket::new),
            connections: limits.connections.map(Bucket::new),
        }
    }

    /// Packets, then bytes, then connections. The first that refuses ends it; what was taken stays taken.
    pub fn pay(&mut self, cost: Cost, now_ns: u64) -> bool {
        let pay = |bucket: &mut Option<Bucket>, cost| bucket.as_mut().is_none_or(|b| b.pay(cost, now_ns));
        pay(&mut self.packets, 1)
            && pay(&mut self.bytes, cost.bytes)
            && (!cost.connection || pay(&mut self.connections, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    fn bucket(rate: u64, per_seconds: u64, burst: u64) -> Bucket {
        Bucket::new(Limit {
            rate,
            per_seconds,
            burst,
        })
    }

    fn paid(bucket: &mut Bucket, tries: u64, now_ns: u64) -> u64 {
        (0..tries).filter(|_| bucket.pay(1, now_ns)).count() as u64
    }

    #[test]
    fn a_full_bucket_pays_its_burst_and_not_one_more() {
        for burst in [1, 2, 20, 1000] {
            assert_eq!(paid(&mut bucket(1, 1, burst), burst + 5, START), burst);
        }
    }

    #[test]
    fn a_token_comes_back_at_its_nanosecond_and_not_before() {
        // 3 a second: the third token is there at 1 s exactly, the first at 333,333,334 ns.
        let mut b = bucket(3, 1, 1);
        assert!(b.pay(1, START));
        assert!(!b.pay(1, START + 333_333_333));
        assert!(b.pay(1, START + 333_333_334));
    }

    #[test]
    fn refusals_and_frequent_looks_lose_nothing() {
        let mut b = bucket(3, 1, 1000);
        assert_eq!(paid(&mut b, 1000, START), 1000);
        for ns in 0..1000 {
            assert!(!b.pay(1000, START + ns * 7));
        }
        assert_eq!(paid(&mut b, 1000, START + 100 * SECOND), 300);
    }

    #[test]
    fn rates_a_minute_and_an_hour_are_exact() {
        let mut minute = bucket(100, 60, 1000);
        let mut hour = bucket(7, 3600, 1000);
        assert_eq!(paid(&mut minute, 1000, START), 1000);
        assert_eq!(paid(&mut hour, 1000, START), 1000);
        assert_eq!(paid(&mut minute, 1000, START + 60 * SECOND - 1), 99);
        assert_eq!(paid(&mut minute, 1000, START + 60 * SECOND), 1);
        assert_eq!(paid(&mut hour, 1000, START + 3600 * SECOND), 7);
    }

    #[test]
    fn never_more_than_the_burst_after_thirty_years() {
        let mut b = bucket(1_000_000_000_000, 1, 5);
        assert_eq!(paid(&mut b, 10, 0), 5);
        assert_eq!(paid(&mut b, 10, u64::MAX), 5);
        let mut big = bucket(u64::MAX, 1, u64::MAX);
        assert!(big.pay(u64::MAX, 0) && big.pay(u64::MAX, u64::MAX));
    }

    #[test]
    fn time_that_goes_back_gives_nothing_twice() {
        let mut b = bucket(1, 1, 1);
        assert!(b.pay(1, START + 10 * SECOND));
        assert!(!b.pay(1, START));
        assert!(!b.pay(1, START + 10 * SECOND));
        assert!(b.pay(1, START + 11 * SECOND));
    }

    #[test]
    fn a_packet_larger_than_the_burst_never_pays_and_takes_nothing() {
        let mut b = bucket(1, 1, 100);
        assert!(!b.pay(101, START));
        assert!(b.pay(100, START));
    }

    #[test]
    fn what_a_purse_took_before_a_refusal_stays_taken() {
        let limit = |burst| {
            Some(Limit {
                rate: 1,
                per_seconds: 1,
                burst,
            })
        };
        let mut purse = Purse::new(&Limits {
            packets: limit(2),
            bytes: limit(100),
            connections: limit(1),
        });
        let cost = |bytes, connection| Cost { bytes, connection };
        assert!(
            !purse.pay(cost(101, true), START),
            "the bytes refuse, and a packet is gone"
        );
        assert!(purse.pay(cost(40, true), START));
        assert!(!purse.pay(cost(40, false), START), "both packets are gone");
        assert!(!purse.pay(cost(40, true), START + SECOND / 2));
        assert!(
            purse.pay(cost(40, true), START + SECOND),
            "packet, bytes and connection came back"
        );
    }
}
