//! The floors that Keyfence set itself, and how far a run is above or below each.

use crate::figures::{Figures, Traffic, Variant};
use crate::live::peers::Peer;
use crate::scenario::{Feature, Owners};
use crate::selection::Kind;

/// A figure beside its floor.
pub(crate) struct Floor {
    pub(crate) what: String,
    pub(crate) wanted: Wanted,
    /// In the floor's own unit.
    pub(crate) found: f64,
    /// What it was worked out from.
    pub(crate) from: String,
}

#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// So many times cheaper, or more.
    Times(f64),
    /// So many times as dear, or less.
    Within(f64),
    /// So much, or less, of a unit.
    AtMost(f64, &'static str),
}

impl Floor {
    pub(crate) fn is_met(&self) -> bool {
        match self.wanted {
            Wanted::Times(floor) => self.found >= floor,
            Wanted::Within(floor) | Wanted::AtMost(floor, _) => self.found <= floor,
        }
    }

    pub(crate) fn wanted(&self) -> String {
        match self.wanted {
            Wanted::Times(floor) => format!("{floor} times cheaper"),
            Wanted::Within(floor) => format!("{floor} times"),
            Wanted::AtMost(floor, unit) => format!("{floor} {unit}"),
        }
    }

    pub(crate) fn found(&self) -> String {
        match self.wanted {
            Wanted::Times(_) | Wanted::Within(_) => format!("{:.2}", self.found),
            Wanted::AtMost(_, unit) => format!("{:.1} {unit}", self.found),
        }
    }
}

const LARGE: usize = 1_000_000;
const SMALL: usize = 1_000;

/// Those that the run has figures for.
pub(crate) fn of(figures: &Figures) -> Vec<Floor> {
    let mut floors = Vec::new();
    judged(figures, &mut floors);
    records(figures, &mut floors);
    live(figures, &mut floors);
    updates(figures, &mut floors);
    floors
}

/// What the driver itself costs: no part of any filter.
pub(crate) fn driver(figures: &Figures, kind: Kind, sources: usize, traffic: Traffic) -> Option<f64> {
    let of = |variant| figures.ns(kind, Owners::Client, sources, traffic, variant);
    Some(of(Variant::Empty)? - of(Variant::Bare)?)
}

fn judged(figures: &Figures, floors: &mut Vec<Floor>) {
    // Gross, as a test run without a driver would have it.
    let gross = |kind, sources, traffic, variant| {
        let ns = figures.ns(kind, Owners::Client, sources, traffic, variant)?;
        Some(ns - driver(figures, kind, sources, traffic)?)
    };
    let ratios = [
        (Kind::HostsV4, [8.0, 15.0]),
        (Kind::MixedV4, [5.0, 8.0]),
        (Kind::HostsV6, [5.0, 8.0]),
        (Kind::MixedV6, [5.0, 8.0]),
    ];
    for (kind, least) in ratios {
        for (traffic, least) in Traffic::BOTH.into_iter().zip(least) {
            let of = |variant| gross(kind, LARGE, traffic, variant);
            if let (Some(trie), Some(ours)) = (of(Variant::Trie), of(Variant::Keyfence)) {
                floors.push(Floor {
                    what: format!("1M {}, {}, against LPM_TRIE", kind.name(), traffic.name()),
                    wanted: Wanted::Times(least),
                    found: trie / ours,
                    from: format!("{trie:.0} to {ours:.0} ns"),
                });
            }
        }
    }
    for (traffic, most, growth) in [(Traffic::Hit, 25.0, 7.0), (Traffic::Stranger, 8.0, 5.0)] {
        let of = |sources, variant| gross(Kind::HostsV4, sources, traffic, variant);
        let small = of(SMALL, Variant::Keyfence);
        if let (Some(empty), Some(small)) = (of(SMALL, Variant::Empty), small) {
            floors.push(Floor {
                what: format!("1k /32, {}, over the empty program", traffic.name()),
                wanted: Wanted::AtMost(most, "ns"),
                found: small - empty,
                from: format!("{small:.1} less {empty:.1} ns"),
            });
        }
        if let (Some(small), Some(large)) = (small, of(LARGE, Variant::Keyfence)) {
            floors.push(Floor {
                what: format!("/32, {}, growth from 1k to 1M", traffic.name()),
                wanted: Wanted::Within(growth),
                found: large / small,
                from: format!("{small:.1} to {large:.0} ns"),
            });
        }
    }
}

fn records(figures: &Figures, floors: &mut Vec<Floor>) {
    let of = |feature| figures.feature(SMALL, feature, Traffic::FewStrangers);
    if let (Some(off), Some(on)) = (of(Feature::Whole), of(Feature::Records)) {
        floors.push(Floor {
            what: "1k /32, records of 1,024 dropped sources".to_owned(),
            wanted: Wanted::AtMost(25.0, "ns"),
            found: on - off,
            from: format!("{on:.1} less {off:.1} ns"),
        });
    }
}

fn live(figures: &Figures, floors: &mut Vec<Floor>) {
    use Traffic::{Hit, Stranger};
    let pairs = [
        (
            "a stranger, against an nft set",
            (Peer::NftSet, Stranger),
            (Peer::Keyfence, Stranger),
            Wanted::Times(3.0),
        ),
        (
            "a hit over its limit, against an nft set with limit",
            (Peer::NftLimitExhausted, Hit),
            (Peer::KeyfenceExhausted, Hit),
            Wanted::Times(2.0),
        ),
        (
            "a hit over its limit, against an nft set with meter",
            (Peer::NftMeterExhausted, Hit),
            (Peer::KeyfenceExhausted, Hit),
            Wanted::Times(4.0),
        ),
        (
            "the same with a limit for each source",
            (Peer::NftMeterExhausted, Hit),
            (Peer::KeyfenceSources, Hit),
            Wanted::Times(4.0),
        ),
        (
            "a stranger, against an empty XDP drop",
            (Peer::XdpDrop, Stranger),
            (Peer::Keyfence, Stranger),
            Wanted::Within(2.0),
        ),
        (
            "a hit over its limit, against an empty XDP drop",
            (Peer::XdpDrop, Stranger),
            (Peer::KeyfenceExhausted, Hit),
            Wanted::Within(3.7),
        ),
    ];
    for (what, other, ours, wanted) in pairs {
        let of = |(peer, traffic)| figures.live(LARGE, peer, traffic);
        let (Some(other), Some(ours)) = (of(other), of(ours)) else {
            continue;
        };
        floors.push(Floor {
            what: format!("live at 1M, {what}"),
            found: if matches!(wanted, Wanted::Times(_)) {
                other / ours
            } else {
                ours / other
            },
            wanted,
            from: format!("{other:.0} to {ours:.0} ns"),
        });
    }
}

fn updates(figures: &Figures, floors: &mut Vec<Floor>) {
    for single in figures.single.iter().filter(|single| single.bindings == LARGE) {
        for (what, spent) in [("put", single.put_us), ("removed", single.remove_us)] {
            floors.push(Floor {
                what: format!("a binding {what} beside 1M, engine to kernel, 99th percentile"),
                wanted: Wanted::AtMost(1000.0, "us"),
                found: spent.of_99,
                from: format!("half within {:.0} us, all within {:.0}", spent.half, spent.most),
            });
        }
    }
    for beside in figures.beside.iter().filter(|beside| beside.sources == LARGE) {
        for (what, spent) in [("put", beside.put_us), ("removed", beside.remove_us)] {
            floors.push(Floor {
                what: format!(
                    "a binding {what} while 1M sources are compiled, engine to kernel, 99th percentile"
                ),
                wanted: Wanted::AtMost(1000.0, "us"),
                found: spent.of_99,
                from: format!("half within {:.0} us, all within {:.0}", spent.half, spent.most),
            });
        }
    }
    for bulk in figures.bulk.iter().filter(|bulk| bulk.sources == LARGE) {
        let of = bulk.owners.name();
        floors.push(Floor {
            what: format!("1M sources, {of}: compile, load and swap"),
            wanted: Wanted::AtMost(1000.0, "ms"),
            found: bulk.whole_ms.median,
            from: format!(
                "{:.0} + {:.0} + {:.1} ms",
                bulk.compile_ms.median, bulk.load_ms.median, bulk.swap_ms.median
            ),
        });
        let most = match bulk.owners {
            Owners::Client => 64.0,
            Owners::Binding => 160.0,
        };
        floors.push(Floor {
            what: format!("1M sources, {of}: kernel memory a source"),
            wanted: Wanted::AtMost(most, "bytes"),
            found: bulk.kernel_bytes_a_source,
            from: "what the kernel says its maps take".to_owned(),
        });
    }
    for daemon in figures.daemon.iter().filter(|daemon| daemon.sources == LARGE) {
        floors.push(Floor {
            what: "1M sources of a file: the daemon's own memory a source".to_owned(),
            wanted: Wanted::AtMost(200.0, "bytes"),
            found: daemon.bytes_a_source.max(daemon.bytes_a_source_after_reload),
            from: format!(
                "{:.0} started, {:.0} reloaded",
                daemon.bytes_a_source, daemon.bytes_a_source_after_reload
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Featured, Spread};

    #[test]
    fn a_floor_is_met_from_its_own_side() {
        let floor = |wanted, found| Floor {
            what: String::new(),
            wanted,
            found,
            from: String::new(),
        };
        assert!(floor(Wanted::Times(8.0), 8.1).is_met() && !floor(Wanted::Times(8.0), 7.9).is_met());
        assert!(floor(Wanted::Within(2.0), 1.9).is_met() && !floor(Wanted::Within(2.0), 2.1).is_met());
        assert!(
            floor(Wanted::AtMost(8.0, "ns"), 8.0).is_met() && !floor(Wanted::AtMost(8.0, "ns"), 9.0).is_met()
        );
    }

    #[test]
    fn what_records_add_is_held_to_its_floor() {
        let cell = |feature, median| Featured {
            sources: SMALL,
            feature,
            traffic: Traffic::FewStrangers,
            ns: Spread::of(vec![median]),
        };
        let figures = Figures {
            features: vec![cell(Feature::Whole, 45.0), cell(Feature::Records, 69.0)],
            ..Figures::default()
        };
        let floors = of(&figures);
        assert_eq!((floors.len(), floors[0].found), (1, 24.0));
        assert!(floors[0].is_met());
    }

    #[test]
    fn without_figures_there_is_nothing_to_hold_to_a_floor() {
        assert!(of(&Figures::default()).is_empty());
    }
}
