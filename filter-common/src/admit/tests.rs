//! What policies alone cannot show: publishers and their buckets.

use core::cell::Cell;

use super::*;
use crate::abi::{Class, LimitSet, Owner, Service};
use crate::limit::{Bucket, Effect};
use crate::lookup::{GrantTables, Port, Value};
use crate::verdict::Verdict;

/// One owner of a publisher, and shared buckets that pay or not: policies alone have neither.
struct Bound {
    flags: u32,
    owner: Owner,
    pays: bool,
    asked: Cell<u32>,
}

struct NoBucket;

impl Bucket for NoBucket {
    fn load(&self) -> u64 {
        unreachable!("no limit of its own")
    }
    fn compare_exchange(&self, _: u64, _: u64) -> Result<(), u64> {
        unreachable!("no limit of its own")
    }
}

impl GrantTables for Bound {
    fn row_words(&self) -> u32 {
        1
    }
    fn row_word(&self, _: u32, _: u32) -> u64 {
        1
    }
    fn owner_number(&self, _: u32) -> Option<u32> {
        unreachable!("one owner")
    }
    fn owner(&self, number: u32) -> Option<&Owner> {
        (number == 7).then_some(&self.owner)
    }
    fn port_set_word(&self, _: u32, _: u32) -> u64 {
        unreachable!("one range of ports")
    }
}

impl Tables for Bound {
    type Bucket<'a> = NoBucket;

    fn config(&self) -> Config {
        Config { flags: self.flags }
    }
    fn effect(&self) -> Effect {
        Effect::Commit
    }
    fn now(&self) -> Nanos {
        Nanos(5)
    }
    fn service(&self, _: u32) -> Option<&Service> {
        const { &Some(Service { flags: 0, limits: 0 }) }.as_ref()
    }
    fn shared_pays(&self, number: u32, _: Charge, _: Nanos) -> bool {
        self.asked.set(number);
        self.pays
    }
    fn walk<R>(&self, mut walk: Walk, then: impl FnOnce(&Grants) -> R) -> R {
        walk.step(self, 0);
        then(&walk.found)
    }
    fn owner_pays(&self, _: u32, _: Charge, _: Nanos) -> bool {
        true
    }

    fn value(&self, _: &Packet) -> Value {
        unreachable!()
    }
    fn source(&self, _: u32) -> Option<&Source> {
        unreachable!()
    }
    fn class_number(&self, _: &Packet) -> u32 {
        unreachable!()
    }
    fn class(&self, _: u32) -> Option<&Class> {
        unreachable!()
    }
    fn port(&self, _: u32) -> Port {
        unreachable!()
    }
    fn management_ports(&self, _: u32) -> u64 {
        unreachable!()
    }
    fn limits(&self, _: u32) -> Option<&LimitSet> {
        unreachable!()
    }
    fn owner_bucket(&self, _: u32, _: u32) -> Option<NoBucket> {
        unreachable!()
    }
    fn service_bucket(&self, _: u32, _: u32) -> Option<NoBucket> {
        unreachable!()
    }
    fn unserved(&self, _: &Packet, _: &Source, _: u32, _: u32) -> Outcome {
        unreachable!()
    }
    fn fragment(&self, _: &Packet, _: &Source, _: u32, _: bool) -> Outcome {
        unreachable!()
    }
    fn service_of_many(&self, _: &Packet, _: &Source, _: u32) -> Outcome {
        unreachable!()
    }
    fn service_in_both(&self, _: u32, _: u32) -> u32 {
        unreachable!()
    }
    fn source_pays(&self, _: &Packet, _: Charge, _: Nanos) -> bool {
        unreachable!()
    }
    fn is_reply(&self, _: &Packet) -> bool {
        unreachable!()
    }
    fn source_lines(&self) -> u32 {
        unreachable!()
    }
    fn source_bucket(&self, _: u32, _: u32) -> Option<(NoBucket, NoBucket)> {
        unreachable!()
    }
    fn count_shared_source(&self) {
        unreachable!()
    }
    fn count(&self, _: u32, _: u32) {
        unreachable!()
    }
    fn count_owner(&self, _: u32, _: u32, _: Nanos) {
        unreachable!()
    }
    fn count_interface(&self, _: u8) {
        unreachable!()
    }
}

const SOURCE: Source = Source {
    management: 0,
    denied_until: 0,
    owners_start: 7,
    owners_length: 1,
};

fn bound(flags: u32, publisher: u32, pays: bool) -> Bound {
    let owner = Owner {
        end: u64::MAX,
        row: 1,
        source_port_last: u16::MAX,
        publisher,
        ..Owner::default()
    };
    Bound {
        flags,
        owner,
        pays,
        asked: Cell::new(0),
    }
}

fn reasons(tables: &Bound) -> [(Verdict, Reason, u32); 2] {
    let config = tables.config();
    let packet = Packet::default();
    let told = |outcome: Outcome| (outcome.verdict, outcome.reason, outcome.owner);
    [
        told(service(tables, config, &packet, &SOURCE, 0)),
        told(fragment(tables, &packet, &SOURCE, ANY_ROW, false)),
    ]
}

#[test]
fn a_publisher_that_does_not_pay_refuses_its_bindings_alone() {
    use Reason::{Allowed, Fragment, LimitPublisher};
    const LISTED: u32 = config_flags::FRAGMENTS_LISTED;
    const LIMITED: u32 = LISTED | config_flags::PUBLISHER_LIMIT;
    let passes = [(Verdict::Pass, Allowed, 7), (Verdict::Pass, Fragment, 7)];
    let refused = [(Verdict::Drop, LimitPublisher, 7); 2];
    for (flags, publisher, pays, expected, asked) in [
        (LIMITED, 1030, false, refused, 1030),
        (LIMITED, 1030, true, passes, 1030),
        (LIMITED, 0, false, passes, 0),
        (LISTED, 1030, false, passes, 0),
    ] {
        let tables = bound(flags, publisher, pays);
        assert_eq!(reasons(&tables), expected, "{flags:b} {publisher} {pays}");
        assert_eq!(tables.asked.get(), asked, "{flags:b} {publisher} {pays}");
    }
}
