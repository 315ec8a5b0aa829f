//! What is kept, and what is read of it again.

use std::collections::BTreeMap;

use super::*;

pub(crate) fn entry(hash: &str, state: State) -> Entry {
    Entry {
        number: 0,
        hash: hash.to_owned(),
        at: "2026-11-22T12:00:00Z".parse().unwrap(),
        user: Some("root".to_owned()),
        via: Via::Apply,
        state,
        note: None,
        services: 1,
        clients: 2,
        sources: 3,
    }
}

fn text(of: &str) -> PolicyText {
    PolicyText {
        root: "keyfence.toml".to_owned(),
        folder: None,
        files: BTreeMap::from([("keyfence.toml".to_owned(), of.to_owned())]),
    }
}

fn names(state: &Path) -> Vec<String> {
    let files = fs::read_dir(state.join("policy")).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_kept_is_there_again_with_what_became_of_it() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(Store::read(state.path(), None).entries(), []);
    let mut store = Store::read(state.path(), None);
    let first = store.add(entry("aa", State::Pending), &text("one")).unwrap();
    store.settle(first, State::Confirmed, None).unwrap();
    let second = store.add(entry("bb", State::Pending), &text("two")).unwrap();
    store
        .settle(second, State::Reverted, Some("in time it was not".to_owned()))
        .unwrap();
    let again = Store::read(state.path(), None);
    assert_eq!(again.entries(), store.entries());
    let confirmed: Vec<&str> = again.confirmed().map(|entry| entry.hash.as_str()).collect();
    assert_eq!(confirmed, ["aa"]);
    assert_eq!(again.text("aa").unwrap(), text("one"));
    assert!(again.text("cc").unwrap_err().contains("cc.policy"));
    assert!(again.unreadable().is_empty());
}

#[test]
fn twenty_are_kept_and_the_confirmed_ones_whatever_comes_after_them() {
    let state = tempfile::tempdir().unwrap();
    let mut store = Store::read(state.path(), None);
    for hash in ["a0", "a1"] {
        let number = store.add(entry(hash, State::Pending), &text(hash)).unwrap();
        store.settle(number, State::Confirmed, None).unwrap();
    }
    for at in 0..30 {
        let hash = format!("b{at}");
        let number = store.add(entry(&hash, State::Pending), &text(&hash)).unwrap();
        store.settle(number, State::Reverted, None).unwrap();
    }
    assert_eq!(store.entries().len(), ENTRIES_MAX);
    let confirmed: Vec<&str> = store.confirmed().map(|entry| entry.hash.as_str()).collect();
    assert_eq!(confirmed, ["a1", "a0"]);
    assert_eq!(
        names(state.path()).len(),
        2 * ENTRIES_MAX,
        "texts go with their entries"
    );
    assert_eq!(Store::read(state.path(), None).entries(), store.entries());
}

#[test]
fn entry_that_somebody_removed_meanwhile_gives_its_number_to_no_other() {
    let state = tempfile::tempdir().unwrap();
    let mut store = Store::read(state.path(), None);
    for hash in ["aa", "bb"] {
        store.add(entry(hash, State::Confirmed), &text(hash)).unwrap();
    }
    fs::remove_file(state.path().join("policy/000002.json")).unwrap();
    let third = store.add(entry("cc", State::Pending), &text("cc")).unwrap();
    assert_eq!(third, 3);
    store.settle(third, State::Confirmed, None).unwrap();
    let again = Store::read(state.path(), None);
    let hashes: Vec<&str> = again.entries().iter().map(|entry| entry.hash.as_str()).collect();
    assert_eq!(hashes, ["aa", "cc"]);
}

#[test]
fn what_cannot_be_read_is_named_and_its_number_never_given_again() {
    let state = tempfile::tempdir().unwrap();
    let mut store = Store::read(state.path(), None);
    let number = store.add(entry("aa", State::Confirmed), &text("one")).unwrap();
    let folder = state.path().join("policy");
    fs::write(folder.join("000007.json"), "{").unwrap();
    let newer = "{\"schema\": 99, \"number\": 8}";
    fs::write(folder.join("000008.json"), newer).unwrap();
    let mut again = Store::read(state.path(), None);
    assert_eq!(again.unreadable().len(), 2, "{:?}", again.unreadable());
    assert!(again.newer().unwrap().contains("schema 99"));
    assert_eq!(again.entries().len(), 1);
    let next = again.add(entry("bb", State::Confirmed), &text("two")).unwrap();
    assert_eq!((number, next), (1, 9));
    again.forget(next).unwrap();
    assert!(
        names(state.path()).contains(&"bb.policy".to_owned()),
        "somebody may need it"
    );
}
