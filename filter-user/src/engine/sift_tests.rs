//! What does not fit is told before it is tried: the same grants as when each is tried, and nothing is changed.

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;

use super::live::Stop;
use super::live_tests::{all, binding, policy, stage, wide};
use crate::bindings::seam::Change;
use crate::compiler::Pushed;

#[test]
fn grants_that_are_one_too_many_of_a_source_are_told_as_they_would_be_refused() {
    const FREE: u32 = 5;
    let shared = |n: u32| binding(&format!("shared-{n:03}"), &["198.51.100.7/32"]);
    // One address, as behind a translator.
    let there = (0..OWNERS_PER_SOURCE_MAX - FREE).map(shared);
    let pushed = Pushed::of(there.chain([wide()]), []);
    let mut stage = stage(&policy(), &pushed);
    let before = stage.said(&all());
    // More of it than there may be, and between them addresses of their own.
    let puts: Vec<Change> = (500..500 + FREE + 40)
        .flat_map(|n| {
            let alone = format!("192.0.{}.{}/32", n / 250, n % 250);
            [shared(n), binding(&format!("alone-{n}"), &[alone.as_str()])]
        })
        .map(Change::Put)
        .collect();
    let told = stage.tables.sift(&stage.numbers, &puts);
    assert_eq!(stage.said(&all()), before, "nothing is changed");
    let told_again = stage.tables.sift(&stage.numbers, &puts);
    assert_eq!(told, told_again);
    let tried: Vec<_> = puts
        .iter()
        .filter_map(|put| Some((put.owner().unwrap().clone(), stage.change(put).err()?)))
        .collect();
    assert_eq!(told, tried);
    assert_eq!(told.len(), 40);
    assert!(matches!(told[0].1, Stop::TooManyOwners { .. }));
}

#[test]
fn grants_beyond_the_table_of_owners_are_told_and_those_that_are_there_may_change() {
    let mut stage = stage(&policy(), &Pushed::of([wide()], []));
    let capacity = stage.tables.fill.shown().into_iter();
    let capacity = capacity.map(|table| table.capacity).nth(3).unwrap();
    // As if all but two were in use.
    stage.tables.fill.owners.set(capacity - 2);
    let put = |name: &str, source: &str| Change::Put(binding(name, &[source]));
    let puts = [
        put("key-5x", "10.9.0.1/32"),
        put("one", "10.9.0.2/32"),
        put("two", "10.9.0.3/32"),
        put("three", "10.9.0.4/32"),
    ];
    let told = stage.tables.sift(&stage.numbers, &puts);
    let [(owner, Stop::Full(_, needed, max))] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(
        (&**owner, *needed, *max),
        ("binding/gateway/three", capacity + 1, capacity)
    );
    // What goes may make room: only the whole tells.
    let mut puts = puts.to_vec();
    let owner = "binding/gateway/key-5x".into();
    puts.push(Change::Remove { owner });
    assert_eq!(stage.tables.sift(&stage.numbers, &puts), []);
}
