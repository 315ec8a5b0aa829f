//! More keys than there are lines: what finds none is counted by prefix and reason, to the packet.

use super::*;

#[test]
fn a_flood_is_counted_by_prefix_and_no_packet_is_lost() {
    let host = Host::new(77);
    let mut by_verdict = HashMap::new();
    let count = 300_000u32;
    for number in 0..count {
        let (verdict, reason) = match number % 3 {
            0 => (Verdict::Drop, Reason::Unlisted),
            1 => (Verdict::Drop, Reason::Denied),
            _ => (Verdict::Observe, Reason::LimitSource),
        };
        let source = number.wrapping_mul(0x9e37_79b1);
        let judgement = judgement(verdict, reason);
        host.add(
            &Key::of(&packet(source, 443), &judgement, 7),
            seen(60, number as u16),
        );
        *by_verdict.entry(verdict).or_insert(0u64) += 1;
    }
    let found = host.records(0);
    assert!(found.len() <= RECORDS_MAX as usize);
    let packets = sum(&found);
    assert_eq!(
        (packets.packets, packets.bytes),
        (u64::from(count), u64::from(count) * 60)
    );
    let mut seen = HashMap::new();
    for record in &found {
        let (verdict, tally) = match record {
            Record::Exact { key, tally, .. } => (key.verdict, tally),
            Record::Overflow { verdict, tally, .. } => (*verdict, tally),
        };
        *seen.entry(verdict).or_insert(0u64) += tally.packets;
    }
    assert_eq!(seen, by_verdict);
    let exact = found
        .iter()
        .filter(|found| matches!(found, Record::Exact { .. }))
        .count();
    assert!(exact >= RECORD_KEYS as usize, "{exact}");
    let prefixes = found.iter().filter_map(|found| match found {
        Record::Overflow {
            prefix: Some((address, Family::V4)),
            ..
        } => Some(address.v4()),
        _ => None,
    });
    assert!(prefixes.clone().count() > 30_000);
    assert!(prefixes.into_iter().all(|prefix| prefix & 0xffff == 0));
    let rest = |found: &&Record| matches!(found, Record::Overflow { prefix: None, .. });
    assert!(found.iter().filter(rest).count() <= 3);
}

/// Packets by prefix, where records know it, and reason.
fn by_prefix(records: &[Record]) -> HashMap<(Option<u32>, Reason), u64> {
    let mut packets = HashMap::new();
    for record in records {
        let (prefix, reason, tally) = match record {
            Record::Exact { key, tally, .. } => (Some(key.source.v4() >> 16), key.reason, tally),
            Record::Overflow {
                prefix,
                reason,
                tally,
                ..
            } => (prefix.map(|(address, _)| address.v4() >> 16), *reason, tally),
        };
        *packets.entry((prefix, reason)).or_default() += tally.packets;
    }
    packets
}

#[test]
fn in_a_flood_each_packet_counts_for_its_own_prefix_and_reason() {
    const REASONS: [Reason; 3] = [Reason::Unlisted, Reason::Denied, Reason::LimitSource];
    for seed in [3, 0x9e37_79b9_7f4a_7c15] {
        let host = Host::new(seed);
        let mut sent: HashMap<(Option<u32>, Reason), u64> = HashMap::new();
        for number in 0..240_000u32 {
            let source = ((number % 500) << 16) + number / 500 % 300;
            let reason = REASONS[number as usize % 3];
            let judgement = judgement(Verdict::Drop, reason);
            host.add(&Key::of(&packet(source, 443), &judgement, 7), seen(60, 1));
            *sent.entry((Some(source >> 16), reason)).or_default() += 1;
        }
        let found = host.records(0);
        let overflown = |record: &&Record| matches!(record, Record::Overflow { .. });
        assert!(found.iter().filter(overflown).count() > 1000);
        assert_eq!(by_prefix(&found), sent, "seed {seed}");
    }
}

#[test]
fn prefixes_beyond_the_tables_room_count_for_their_reason() {
    let host = Host::new(9);
    let mut sent: HashMap<Reason, u64> = HashMap::new();
    for number in 0..400_000u32 {
        let source = number.wrapping_mul(0x9e37_79b1);
        let reason = [Reason::Unlisted, Reason::Denied][number as usize % 2];
        let judgement = judgement(Verdict::Drop, reason);
        host.add(&Key::of(&packet(source, 443), &judgement, 7), seen(60, 1));
        *sent.entry(reason).or_default() += 1;
    }
    let mut found: HashMap<Reason, u64> = HashMap::new();
    let records = host.records(0);
    assert!(by_prefix(&records).keys().any(|(prefix, _)| prefix.is_none()));
    for ((_, reason), packets) in by_prefix(&records) {
        *found.entry(reason).or_default() += packets;
    }
    assert_eq!(found, sent);
}

/// Who came before the table was full keeps a line, however long the flood.
#[test]
fn whoever_sends_steadily_keeps_a_record_of_its_own_in_a_flood() {
    let host = Host::new(21);
    let busy = |number: u32| 0x0a00_0000 + number;
    let mut sent = 0u64;
    for number in 0..500_000u32 {
        host.add(&key(number.wrapping_mul(0x9e37_79b1) | 0x8000_0000), seen(60, 1));
        if number % 20 == 0 {
            host.add(&key(busy(number / 20 % 100)), seen(60, 1));
            sent += 1;
        }
    }
    let found = host.records(0);
    let own: Vec<u64> = found
        .iter()
        .filter_map(|record| match record {
            Record::Exact { key, tally, .. } if key.source.v4() >> 8 == 0x000a_0000 => Some(tally.packets),
            _ => None,
        })
        .collect();
    assert_eq!((own.len(), own.iter().sum::<u64>()), (100, sent));
}
