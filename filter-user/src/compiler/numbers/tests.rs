//! Who keeps a number, and who gets which.

use std::path::Path;

use super::*;
use crate::policy::{LoadContext, MemoryFiles, load_from};

fn placed(known: &[(&str, u32)], wanted: &[&str], in_force: &[&str]) -> (Vec<(String, u32)>, Vec<String>) {
    let known = known
        .iter()
        .map(|(name, number)| (name.to_string(), *number))
        .collect();
    let text = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let (numbers, fresh) = place(&known, (text(wanted), text(in_force)), 1..4, Keep::Least);
    let mut numbers: Vec<_> = numbers.into_iter().collect();
    numbers.sort();
    (numbers, fresh.into_iter().map(|(name, _)| name).collect())
}

fn hash(name: u32) -> OwnerHash {
    owner_hash(&name.to_string())
}

#[test]
fn owners_are_placed_as_names_are() {
    let of = |names: &[(u32, u32)]| {
        names
            .iter()
            .map(|(name, number)| (hash(*name), *number))
            .collect()
    };
    let known = |owners: &[(u32, u32)], leaving: &[(u32, u32)]| {
        let numbers = owners.iter().chain(leaving).map(|(_, number)| *number);
        Numbers {
            given: Given::of(numbers),
            owners: Known::from(of(owners)),
            leaving: Arc::new(of(leaving)),
            ..Numbers::default()
        }
    };
    let placed = |known: &Numbers, wanted: &[u32], end| {
        let wanted: Vec<_> = wanted.iter().map(|name| hash(*name)).collect();
        let placed = known.place_owners(&wanted, end, Keep::Least);
        // As a compile that fails.
        known.given.give_back(&placed.taken);
        placed.numbers
    };
    let some = known(&[(100, 3), (101, 1)], &[(102, 2)]);
    assert_eq!(placed(&some, &[101, 200, 100], 9), [1, 4, 3]);
    assert_eq!(
        placed(&some, &[102, 200], 9),
        [2, 4],
        "who comes back keeps its number"
    );
    // Numbers nobody had, then those of names that go, then those of names in force that are not wanted any more.
    assert_eq!(placed(&some, &[200, 201, 202, 203, 204], 5), [4, 2, 1, 3, 0]);
    assert_eq!(placed(&some, &[100, 200, 201], 4), [3, 2, 1]);
}

fn pairs(list: &[(&str, u32)]) -> Vec<(String, u32)> {
    list.iter()
        .map(|(name, number)| (name.to_string(), *number))
        .collect()
}

#[test]
fn known_names_keep_their_numbers_and_new_ones_are_named_as_fresh() {
    let (numbers, fresh) = placed(&[("a", 7), ("b", 2)], &["b", "c", "a"], &["a", "b"]);
    assert_eq!(numbers, pairs(&[("a", 7), ("b", 2), ("c", 1)]));
    assert_eq!(fresh, ["c"]);
}

#[test]
fn the_number_of_a_name_still_in_force_is_nobody_elses() {
    let (numbers, _) = placed(&[("old", 1)], &["new"], &["old"]);
    assert_eq!(numbers, pairs(&[("new", 2), ("old", 1)]));
}

#[test]
fn numbers_never_used_come_first_then_those_that_nobody_has_any_more() {
    let (numbers, _) = placed(&[("gone", 1)], &["x", "y", "z"], &[]);
    assert_eq!(numbers, pairs(&[("x", 2), ("y", 3), ("z", 1)]));
}

#[test]
fn a_policy_of_other_names_only_finds_numbers_too() {
    let known = [("a", 1), ("b", 2), ("c", 3)];
    let (numbers, fresh) = placed(&known, &["x", "y", "z"], &["a", "b", "c"]);
    assert_eq!(numbers, pairs(&[("x", 1), ("y", 2), ("z", 3)]));
    assert_eq!(fresh, ["x", "y", "z"]);
}

#[test]
fn number_of_a_name_that_is_here_again_while_its_tables_were_made_is_not_given_away() {
    let name = "binding/gateway/key-1";
    let left_with = 5;
    let before = Numbers {
        given: Given::of([left_with].into_iter()),
        leaving: Arc::new(ByHash::from_iter([(owner_hash(name), left_with)])),
        ..Numbers::default()
    };
    let root = Path::new("keyfence.toml");
    let text = b"version = 1\n[filter]\ninterfaces = [\"lo\"]\n".to_vec();
    let files = MemoryFiles::new([(root.to_owned(), text)]);
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let policy = load_from(&files, root, &LoadContext::at(now)).policy.unwrap();
    let assign = || before.assign((&policy, &Pushed::default()), None, 9);
    let (mut next, mut assigned) = assign();
    assert_eq!(assigned.left, [left_with], "nobody has it any more");
    next.succeed(&before, &mut assigned);
    assert_eq!(assigned.left, [left_with]);

    let (mut next, mut assigned) = assign();
    next.move_owner(owner_hash(name), left_with);
    assigned.took(name, next.owner(name), None);
    next.succeed(&before, &mut assigned);
    assert!(assigned.left.is_empty(), "{assigned:?}");
    next.release(&assigned, |number| panic!("{number} is told of"));
    assert_ne!(next.fresh(9), Some(left_with));
}

fn policy_of(clients: &[&str]) -> Policy {
    let root = Path::new("keyfence.toml");
    let entry = |name: &&str| {
        format!("[[client]]\nname = \"{name}\"\nsources = [\"192.0.2.1\"]\nservices = [\"a\"]\n")
    };
    let clients: String = clients.iter().map(entry).collect();
    let service = "[[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [80]\n";
    let text = format!("version = 1\n[filter]\ninterfaces = [\"lo\"]\n{service}{clients}");
    let files = MemoryFiles::new([(root.to_owned(), text.into_bytes())]);
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    load_from(&files, root, &LoadContext::at(now)).policy.unwrap()
}

#[test]
fn start_over_the_same_owners_goes_on_with_their_numbers_and_leaves_those_before_alone() {
    let owners = |names: [&str; 2]| names.map(|name| owner_hash(&owner_name(name)));
    let [one, other] = owners(["one", "other"]);
    let kernel = Numbers::known([], [(one, 3), (other, 5)]);
    let none = Pushed::default();
    let (mut next, assigned) = kernel.assign((&policy_of(&["one", "other"]), &none), None, 9);
    assert_eq!(next.clients, [3, 5]);
    assert_eq!(
        (assigned.owners, assigned.taken, assigned.left),
        (vec![], vec![], vec![])
    );
    let [late] = [owner_hash("late")];
    assert_eq!(next.add_owner(late, 9), Some(1));
    assert_eq!((kernel.number_of(&late), next.number_of(&late)), (None, Some(1)));
    // As many, and one of them is another, who takes the number of the one that is gone where there is no other.
    let (next, assigned) = kernel.assign((&policy_of(&["one", "third"]), &none), None, 9);
    let [_, third] = owners(["", "third"]);
    assert_eq!(assigned.owners, [(third, 2)]);
    assert_eq!(
        (next.number_of(&third), next.number_of(&other)),
        (Some(2), Some(5))
    );
    assert_eq!(next.leaving.len(), 1);
}
