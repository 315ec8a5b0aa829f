//! What policies alone cannot show: publishers and their buckets.

use super::*;
use crate::abi::Owner;
use crate::double::Double;
use crate::verdict::Verdict;

const SOURCE: Source = Source {
    management: 0,
    denied_until: 0,
    owners_start: 7,
    owners_length: 1,
};

fn bound(flags: u32, publisher: u32, pays: bool) -> Double {
    let owner = Owner {
        end: u64::MAX,
        row: 1,
        source_port_last: u16::MAX,
        publisher,
        ..Owner::default()
    };
    Double {
        flags,
        owner,
        pays,
        ..Double::default()
    }
}

fn reasons(tables: &Double) -> [(Verdict, Reason, u32); 2] {
    let config = tables.config();
    let packet = Packet::default();
    let told = |outcome: Outcome| (outcome.verdict, outcome.reason, outcome.owner);
    [
        told(sole(tables, config, &packet, 7, &Target::default())),
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
        // The owner's are those that passed, each once.
        let passed = if expected == passes { 2 } else { 0 };
        assert_eq!(tables.passed.get(), passed, "{flags:b} {publisher} {pays}");
    }
}
