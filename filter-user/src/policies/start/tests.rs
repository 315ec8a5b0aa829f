//! Which policy a start takes, of the file and of what was kept.

use super::*;
use crate::bindings::audit::{self, Audit, Line};
use crate::bindings::witness::{PolicyTold, StoreTold};
use crate::policies::store::tests::entry;

fn text(client: &str, operator: &str) -> String {
    format!(
        "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n[daemon]\noperators = [\"{operator}\"]\n\
         [[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [443]\n\
         [[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n\
         [[client]]\nname = \"{client}\"\nsources = [\"198.51.100.7\"]\nservices = [\"a\"]\n"
    )
}

fn of(text: &str) -> PolicyText {
    PolicyText {
        root: "keyfence.toml".to_owned(),
        folder: None,
        files: [("keyfence.toml".to_owned(), text.to_owned())].into(),
    }
}

struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let folder = tempfile::tempdir().unwrap();
        Host { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("keyfence.toml")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    /// As an apply of this text did.
    fn confirm(&self, text: &str) -> String {
        self.keep(text, State::Confirmed)
    }

    fn keep(&self, text: &str, state: State) -> String {
        let of = of(text);
        let hash = of.load().hash;
        let mut store = Store::read(&self.state(), None);
        store.add(entry(&hash, state), &of).unwrap();
        hash
    }

    /// The audit log's line of that.
    fn audit(&self, hash: &str, number: u64) {
        let mut log = Audit::open(&audit::path_in(&self.state()), 0).unwrap();
        let applied = Line::new("apply", None)
            .with("before", audit::NO_HASH)
            .with("after", hash)
            .with("generation", 2)
            .with("number", number);
        let put = Line::new("put", None).with("labels", "\"generation\"").at(9);
        log.append(&[applied, put], 0).unwrap();
    }

    fn start(&self) -> Start {
        self.start_told(None)
    }

    /// Over a filter of instance `main` that was told this.
    fn start_told(&self, told: Option<Witness>) -> Start {
        let tells = |instance: &str| told.clone().filter(|_| instance == "main");
        let start = Start::of(&self.file(), Some(&self.state()), &tells);
        start.unwrap_or_else(|_| panic!("there is a policy"))
    }
}

fn told(start: &Start) -> (&str, &str) {
    let policy = &start.policy;
    (&policy.clients[0].name, &policy.daemon.operators[0])
}

fn differs(start: &Start) -> bool {
    start.file_state.hash.as_ref() != Some(&start.hash)
}

#[test]
fn file_is_in_force_where_none_was_confirmed() {
    let host = Host::new();
    host.write(&text("new", "root"));
    let start = host.start();
    assert_eq!(told(&start), ("new", "root"));
    assert!(start.first.is_some(), "it counts as confirmed");
    assert!(!differs(&start) && start.file_state.error.is_none());
    assert_eq!(start.policy.daemon.state, host.state());
}

#[test]
fn confirmed_policy_is_in_force_with_what_the_file_says_of_the_daemon() {
    let host = Host::new();
    host.write(&text("new", "alice"));
    let hash = host.confirm(&text("old", "root"));
    let start = host.start();
    assert_eq!(told(&start), ("old", "alice"));
    assert_eq!(start.hash, hash);
    assert!(start.first.is_none());
    assert!(differs(&start) && start.file_state.error.is_none());
}

#[test]
fn file_that_says_the_same_does_not_differ() {
    let host = Host::new();
    host.write(&text("old", "root"));
    host.confirm(&text("old", "root"));
    let start = host.start();
    assert!(!differs(&start) && start.file_state.error.is_none());
    let file = start.policy.clients[0].origin.file.as_ref();
    assert_eq!(file, host.file().to_str().unwrap(), "places are the file's");
}

#[test]
fn confirmed_policy_serves_for_all_where_the_file_is_invalid_or_gone() {
    let host = Host::new();
    host.confirm(&text("old", "root"));
    for broken in [Some("version = 1\nnonsense = 2\n"), None] {
        match broken {
            Some(text) => host.write(text),
            None => std::fs::remove_file(host.file()).unwrap(),
        }
        let start = host.start();
        assert_eq!(told(&start), ("old", "root"));
        assert!(differs(&start) && start.file_state.error.is_some());
    }
}

#[test]
fn without_file_and_without_confirmed_policy_there_is_nothing_to_start_with() {
    let host = Host::new();
    host.write("version = 1\nnonsense = 2\n");
    match Start::of(&host.file(), Some(&host.state()), &|_| None).err() {
        Some(NoStart::Policy(loaded)) => assert!(loaded.errors > 0),
        _ => panic!("the file has faults"),
    }
    assert!(!host.state().exists(), "nothing is written");
}

#[test]
fn one_that_cannot_be_read_gives_its_place_to_the_one_confirmed_before() {
    let host = Host::new();
    host.write(&text("new", "root"));
    let first = host.confirm(&text("first", "root"));
    let second = host.confirm(&text("second", "root"));
    assert_eq!(host.start().hash, second);
    assert!(!host.start().is_lost());
    let kept = host.state().join("policy").join(format!("{second}.policy"));
    std::fs::write(&kept, "{}").unwrap();
    let start = host.start();
    assert_eq!(start.hash, first);
    assert!(start.is_lost() && start.first.is_none());
    let lost = start.file_state.lost.unwrap();
    assert!(
        lost.contains(&second) && lost.contains("`keyfence reload`"),
        "{lost}"
    );
    // The file says what was confirmed: it is kept anew.
    host.write(&text("second", "root"));
    let start = host.start();
    assert_eq!(start.hash, second);
    assert!(!start.is_lost() && start.first.is_some());
}

#[test]
fn entry_that_cannot_be_read_may_have_been_the_last_unless_another_was_confirmed_since() {
    let host = Host::new();
    host.write(&text("new", "root"));
    let first = host.confirm(&text("first", "root"));
    host.confirm(&text("second", "root"));
    let entry = host.state().join("policy/000002.json");
    std::fs::write(entry, "").unwrap();
    let start = host.start();
    assert_eq!(start.hash, first);
    assert!(start.is_lost());
    assert!(start.file_state.lost.unwrap().contains("000002.json"));
    let third = host.confirm(&text("third", "root"));
    let start = host.start();
    assert_eq!(start.hash, third);
    assert!(!start.is_lost());
    // Where none can be read, the file is not what was confirmed.
    for number in [1, 2, 3] {
        let entry = host.state().join(format!("policy/00000{number}.json"));
        std::fs::write(entry, "{").unwrap();
    }
    let start = host.start();
    assert_eq!(told(&start), ("new", "root"));
    assert!(start.is_lost() && start.first.is_none());
}

#[test]
fn first_start_is_told_from_one_whose_records_are_gone() {
    let host = Host::new();
    host.write(&text("draft", "root"));
    let mut start = host.start();
    assert!(start.is_unwritten() && start.first.is_some());
    start.lose();
    assert!(start.is_lost() && start.first.is_none() && !start.is_unwritten());
    assert!(start.file_state.lost.unwrap().contains("`keyfence reload`"));
    host.confirm(&text("draft", "root"));
    assert!(!host.start().is_unwritten());
}

#[test]
fn policy_that_the_audit_log_tells_of_and_nothing_is_kept_of_is_not_replaced_by_the_one_before() {
    let host = Host::new();
    host.write(&text("edited", "root"));
    host.audit(&host.confirm(&text("old", "root")), 1);
    assert!(!host.start().is_lost());
    host.audit(&host.confirm(&text("new", "root")), 2);
    let entries = host.state().join("policy");
    std::fs::remove_file(entries.join("000002.json")).unwrap();
    let start = host.start();
    assert!(start.is_lost() && start.first.is_none());
    assert_eq!(told(&start).0, "old", "where the kernel holds nothing");
    let why = start.file_state.lost.as_ref().unwrap();
    assert!(why.contains("the audit log tells of"), "{why}");

    host.write(&text("new", "root"));
    let start = host.start();
    assert_eq!((told(&start).0, start.is_lost()), ("new", false));
    assert!(start.first.is_some(), "it is kept anew");

    // As the message of a newer release's policies says.
    host.write(&text("edited", "root"));
    std::fs::create_dir(host.state().join("policy.newer")).unwrap();
    assert!(!host.start().is_lost());
}

/// An older one that was gone back to has its hash twice.
#[test]
fn policy_that_was_gone_back_to_is_missed_though_an_older_entry_has_its_hash() {
    let host = Host::new();
    host.write(&text("edited", "root"));
    for (number, client) in [(1, "one"), (2, "other"), (3, "one")] {
        host.audit(&host.confirm(&text(client, "root")), number);
    }
    assert!(!host.start().is_lost());
    std::fs::remove_file(host.state().join("policy/000003.json")).unwrap();
    assert!(host.start().is_lost());
}

fn knows(number: u64, hash: &str) -> Witness {
    Witness {
        store: StoreTold {
            id: String::new(),
            revision: 0,
        },
        policy: PolicyTold {
            number,
            hash: hash.to_owned(),
        },
    }
}

/// With the log of that time, or with none.
#[test]
fn folder_that_was_put_back_is_noticed_by_what_the_kernel_was_told() {
    let host = Host::new();
    host.write(&text("edited", "root"));
    let old = host.confirm(&text("old", "root"));
    host.audit(&old, 1);
    let new = of(&text("new", "root")).load().hash;
    let start = host.start_told(Some(knows(2, &new)));
    assert!(start.is_lost() && start.first.is_none());
    assert_eq!(told(&start).0, "old", "where the kernel holds nothing");
    let why = start.file_state.lost.as_ref().unwrap();
    assert!(
        why.contains("the filter in the kernel was told of") && why.contains(&new),
        "{why}"
    );
    // The same hash as one that is there does not hide it.
    assert!(host.start_told(Some(knows(2, &old))).is_lost());
    // What the kernel was told late, or never, is no fault.
    for known in [knows(1, &old), knows(0, ""), knows(0, &old)] {
        assert!(!host.start_told(Some(known.clone())).is_lost(), "{known:?}");
    }
    // Another's history may be longer.
    assert!(host.start_told(Some(knows(1, &new))).is_lost());

    host.write(&text("new", "root"));
    let start = host.start_told(Some(knows(2, &new)));
    assert_eq!((told(&start).0, start.is_lost()), ("new", false));
    assert!(start.first.is_some(), "it is kept anew");

    host.write(&text("edited", "root"));
    std::fs::create_dir(host.state().join("policy.newer")).unwrap();
    assert!(!host.start_told(Some(knows(2, &new))).is_lost());
}

#[test]
fn kernel_is_asked_for_the_instance_of_the_kept_policy_where_the_file_is_invalid() {
    let host = Host::new();
    let hash = host.confirm(&text("old", "root"));
    host.write("version = 1\nnonsense = 2\n");
    assert!(!host.start_told(Some(knows(1, &hash))).is_lost());
    assert!(host.start_told(Some(knows(2, &hash))).is_lost());
}

/// A crash may come after the entry of a trial and before anybody is told of it, and its end may be told of by nobody.
#[test]
fn entries_that_came_to_nothing_are_missed_by_nobody() {
    let host = Host::new();
    host.write(&text("old", "root"));
    let old = host.confirm(&text("old", "root"));
    let trial = host.keep(&text("trial", "root"), State::Pending);
    for known in [knows(1, &old), knows(2, &trial), knows(2, &old)] {
        let start = host.start_told(Some(known.clone()));
        assert_eq!((told(&start).0, start.is_lost()), ("old", false), "{known:?}");
    }
}
