//! A policy with a fault changes nothing that runs.

use keyfence_tests::harness::{
    Attach, Daemon, Ended, Policy, Probe, STRANGER, Site, keyfence, output, until,
};

const READY: &str = "keyfence_policy_reload_success";

fn policy() -> Policy {
    Policy::new(Attach::Auto, Probe::ENTRIES)
}

/// Files that must not come into force, each with words of the answer.
fn faulty(site: &Site) -> Vec<(&'static str, String, &'static str)> {
    let good = policy();
    let text = |policy: Policy| policy.text(&site.socket());
    let unknown_service =
        "[[client]]\nname = \"lost\"\nsources = [\"192.0.2.1\"]\nservices = [\"nowhere\"]\n";
    vec![
        ("no TOML", "version = = 1\n".into(), "keyfence.toml:1:"),
        ("empty", String::new(), "version"),
        (
            "host bits",
            text(
                good.clone()
                    .and("[[deny]]\nname = \"d\"\nsources = [\"10.1.2.3/24\"]\n"),
            ),
            "10.1.2.0/24",
        ),
        (
            "unknown service",
            text(good.clone().and(unknown_service)),
            "nowhere",
        ),
        (
            "not enforced",
            text(good.clone().and(
                "[[listener]]\naddress = \"tcp:192.0.2.1:9\"\nroles = [\"read\"]\n\
                 tls = { certificate = \"/a\", key = \"/b\", client-ca = \"/c\" }\n",
            )),
            "tls of listener",
        ),
        (
            "no such interface",
            text(good.clone().interface("nope0")),
            "nope0 does not exist",
        ),
        (
            "another's hook",
            text(good.interface("held0")),
            "holds the XDP hook of held0",
        ),
    ]
}

#[test]
fn faulty_policy_changes_nothing_that_runs_and_a_good_one_recovers() {
    let site = Site::new();
    site.server.ip("link add held0 type veth peer name held1");
    let other = Daemon::elsewhere(&site, "other", &policy().interface("held0"));
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    for (what, text, words) in faulty(&site) {
        let pins = (site.bpf.list("keyfence/main"), site.map_ids());
        let (generation, counts) = (daemon.generation(), site.counters());
        site.write_text(&text);
        daemon.reload_in_vain();

        probe.assert_filtered();
        assert_eq!(daemon.generation(), generation, "{what}");
        assert_eq!(site.counters().fallen_since(&counts), [], "{what}");
        assert_eq!((site.bpf.list("keyfence/main"), site.map_ids()), pins, "{what}");
        let answer = daemon.get("/readyz").expect("it answers");
        assert_eq!(answer.status, 503, "{what}: {}", answer.body);
        assert!(
            answer.body.contains("the last reload failed"),
            "{what}: {}",
            answer.body
        );
        assert_eq!(
            daemon.get("/livez").map(|answer| answer.status),
            Some(200),
            "{what}"
        );
        let status = daemon.status();
        let error = status["policy"]["last_error"].as_str().unwrap_or_default();
        assert!(error.contains(words), "{what}: {error}");
        assert_eq!(status["policy"]["file_differs"], true, "{what}");
        let shown = output(keyfence().args(["status", "--socket"]).arg(site.socket()));
        assert_eq!(shown.status.code(), Some(6), "{what}: degraded");

        site.write(&policy());
        daemon.reload();
        assert_eq!(daemon.metric(READY), 1.0, "{what}");
        until("it is ready again", || {
            daemon.get("/readyz").filter(|answer| answer.status == 200)
        });
        let shown = output(keyfence().args(["status", "--socket"]).arg(site.socket()));
        assert_eq!(shown.status.code(), Some(0), "{what}: good again");
        probe.assert_filtered();
    }
    drop(other);
}

#[test]
fn reload_does_not_wait_for_a_file_that_is_gone() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    std::fs::remove_file(site.policy_file()).expect("it is there");
    daemon.reload_in_vain();
    let error = daemon.status()["policy"]["last_error"].to_string();
    assert!(
        error.contains("cannot be read") && !error.contains(":1:1"),
        "{error}"
    );
    Probe::open(&site).assert_filtered();
}

#[test]
fn pipe_in_the_place_of_the_file_holds_up_neither_a_start_nor_a_reload() {
    let site = Site::new();
    Daemon::start(&site, &policy()).kill();
    std::fs::remove_file(site.policy_file()).expect("it is there");
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&site.policy_file(), mode).expect("a temporary folder can hold a pipe");
    let daemon = Daemon::start_unready(&site);
    let answer = daemon.get("/readyz").expect("it answers");
    assert!(
        answer.body.contains("the last confirmed policy serves for all"),
        "{}",
        answer.body
    );
    let error = daemon.status()["policy"]["last_error"].to_string();
    assert!(error.contains("not a regular file"), "{error}");
    daemon.reload_in_vain();
    Probe::open(&site).assert_filtered();
}

/// The last confirmed policy as a power cut leaves it: what can be read is older, and looser.
#[test]
fn kernel_keeps_a_policy_whose_record_cannot_be_read_until_another_is_applied() {
    let site = Site::new();
    let stranger = STRANGER.v4;
    let loose = policy().and(&format!(
        "[[client]]\nname = \"once\"\nsources = [\"{stranger}\"]\nservices = [\"probe\"]\n"
    ));
    let daemon = Daemon::start(&site, &loose);
    let before = daemon.status()["policy"]["hash"].clone();
    site.write(&policy());
    daemon.reload();
    // An address that has come up makes a generation too.
    until("the other policy is in force", || {
        (daemon.status()["policy"]["hash"] != before).then_some(())
    });
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    let hash = daemon.status()["policy"]["hash"].clone();
    let hash = hash.as_str().expect("a hash");
    let folder = site.state().join("policy");
    let whole = |name: &str| std::fs::read(folder.join(name)).expect("it is kept");
    let text = format!("{hash}.policy");
    let kept_text = whole(&text);
    let half = &kept_text[..kept_text.len() / 2];
    let mut daemon = daemon;
    // With the same file a text is not missed.
    let other = policy().and(&format!(
        "[[deny]]\nname = \"other\"\nsources = [\"{stranger}\"]\n"
    ));
    let last_entry = || {
        let files = std::fs::read_dir(&folder).expect("it is there").flatten();
        let names = files.map(|file| file.file_name().into_string().expect("a name"));
        let last = names.filter(|name| name.ends_with(".json")).max();
        last.expect("one is kept")
    };
    for (name, damaged) in [(None, "{".as_bytes()), (None, b""), (Some(text.as_str()), half)] {
        let name = name.map_or_else(&last_entry, str::to_owned);
        let generation = daemon.generation();
        daemon.kill();
        std::fs::write(folder.join(&name), damaged).expect("it can be written");
        if name == text {
            site.write(&other);
        }
        // Not even a start more lets go of it.
        for _ in 0..2 {
            daemon = Daemon::start_unready(&site);
            probe.assert_filtered();
            let ready = daemon.get("/readyz").expect("it answers");
            let lost = "the last confirmed policy cannot be read";
            assert!(
                ready.status == 503 && ready.body.contains(lost) && ready.body.contains(&name),
                "{name}: {}",
                ready.body
            );
            let status = daemon.status();
            assert_eq!(status["policy"]["hash"], "unknown", "{name}");
            assert_eq!(status["generation"], generation, "{name}");
            daemon.kill();
        }
        daemon = Daemon::start_unready(&site);
        daemon.reload();
        probe.assert_filtered();
        until("it is ready again, and that is on disk", || {
            daemon.get("/readyz").filter(|answer| answer.status == 200)
        });
        daemon.kill();
        daemon = Daemon::start_again(&site);
        probe.assert_filtered();
        // As it was.
        site.write(&policy());
        daemon.reload();
        // What nobody can read stands for one that may be the last.
        if name != text {
            std::fs::remove_file(folder.join(&name)).expect("it can be removed");
        }
    }
    daemon.kill();
    // The file says what was confirmed, so nothing is lost.
    std::fs::remove_file(folder.join(&text)).expect("it is kept");
    let daemon = Daemon::start_again(&site);
    probe.assert_filtered();
    assert_eq!(daemon.status()["policy"]["hash"], hash);
    assert!(folder.join(&text).exists(), "it is kept anew");
}

/// As in an older copy of the folder, in which nothing tells of what was applied since.
#[test]
fn kernel_keeps_a_policy_of_which_the_audit_log_alone_tells() {
    let site = Site::new();
    let mut daemon = Daemon::start(&site, &policy());
    // The second time it has the hash of an entry that is there still.
    for wanted in [with("more", 7), policy()] {
        site.write(&wanted);
        daemon.reload();
        let mut probe = Probe::open(&site);
        let generation = daemon.generation();
        daemon.kill();
        remove_last_entry(&site);
        site.write(&with("other", 9));
        for _ in 0..2 {
            daemon = Daemon::start_unready(&site);
            assert_audit_log_alone_tells(&daemon);
            assert_eq!(daemon.generation(), generation);
            probe.assert_filtered();
            daemon.kill();
        }
        daemon = Daemon::start_unready(&site);
        daemon.reload();
        daemon.kill();
        daemon = Daemon::start_again(&site);
    }
}

/// As after a boot: the one before stands in, and is not taken for the last by the start after.
#[test]
fn policy_of_which_the_audit_log_alone_tells_is_missed_at_every_start_where_the_kernel_holds_nothing() {
    let site = Site::new();
    let more = "[[service]]\nname = \"more\"\nprotocol = \"tcp\"\nports = [7]\n";
    let mut daemon = Daemon::start(&site, &policy());
    // The second time it has the hash of an entry that is there still.
    for wanted in [policy().and(more), policy()] {
        site.write(&wanted);
        daemon.reload();
        daemon.kill();
        remove_last_entry(&site);
        site.write(&policy().and(&more.replace("more", "other")));
        for _ in 0..3 {
            let Ended { code, log } = Daemon::detach(&site, &["--yes"]);
            assert_eq!(code, Some(0), "{log}");
            daemon = Daemon::start_unready(&site);
            assert_audit_log_alone_tells(&daemon);
            Probe::open(&site).assert_filtered();
            daemon.kill();
        }
        daemon = Daemon::start_unready(&site);
        daemon.reload();
        daemon.kill();
        daemon = Daemon::start_again(&site);
    }
}

/// One service more.
fn with(name: &str, port: u16) -> Policy {
    policy().and(&format!(
        "[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nports = [{port}]\n"
    ))
}

fn remove_last_entry(site: &Site) {
    let files = std::fs::read_dir(site.state().join("policy")).expect("it is there");
    let entries = files.flatten().map(|file| file.path());
    let last = entries.filter(|path| path.extension().is_some_and(|end| end == "json"));
    std::fs::remove_file(last.max().expect("one is there")).expect("it can be removed");
}

fn assert_audit_log_alone_tells(daemon: &Daemon) {
    let ready = daemon.get("/readyz").expect("it answers");
    let told = ready.body.contains("the audit log tells of");
    assert!(ready.status == 503 && told, "{}", ready.body);
}

/// The whole folder as it was, log and all: the filter in the kernel alone knows of the policy that it has.
#[test]
fn kernel_keeps_a_policy_of_which_it_alone_tells() {
    let site = Site::new();
    Daemon::start(&site, &policy()).kill();
    let older = site.copy_of_state("older");
    let daemon = Daemon::start(&site, &with("more", 7));
    let mut probe = Probe::open(&site);
    site.has_told(0, 2);
    let (generation, known) = (daemon.generation(), site.told());
    daemon.kill();
    let right = site.copy_of_state("right");
    site.put_back(&older);
    site.write(&with("other", 9));
    for _ in 0..3 {
        let daemon = Daemon::start_unready(&site);
        let ready = daemon.get("/readyz").expect("it answers");
        for words in ["the filter in the kernel was told of", "`keyfence reload`"] {
            assert!(
                ready.status == 503 && ready.body.contains(words),
                "{}",
                ready.body
            );
        }
        assert_eq!((daemon.generation(), site.told()), (generation, known));
        assert_eq!(daemon.status()["policy"]["hash"], "unknown");
        probe.assert_filtered();
        daemon.kill();
    }
    site.put_back(&right);
    Daemon::start_again(&site).kill();
    site.put_back(&older);
    // The file says what the kernel was told of.
    site.write(&with("more", 7));
    Daemon::start_again(&site).kill();
    site.put_back(&older);
    site.write(&with("other", 9));
    let daemon = Daemon::start_unready(&site);
    daemon.reload();
    probe.assert_filtered();
    daemon.kill();
    Daemon::start_again(&site);
    probe.assert_filtered();
}

#[test]
fn policy_that_has_no_tables_is_refused_as_invalid_by_run_and_reload() {
    let site = Site::new();
    let client = |number: u32| {
        format!("[[client]]\nname = \"c{number}\"\nsources = [\"10.77.0.2\"]\nservices = [\"probe\"]\n")
    };
    let many = policy().and(&(1..=256).map(client).collect::<String>());
    site.write(&many);
    let ended = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(ended.code, Some(3), "{}", ended.log);
    assert!(ended.log.contains("257 owners"), "{}", ended.log);
    assert!(site.bpf.list("keyfence").is_empty());

    let daemon = Daemon::start(&site, &policy());
    site.write(&many);
    daemon.reload_in_vain();
    let error = daemon.status()["policy"]["last_error"].to_string();
    assert!(error.contains("257 owners"), "{error}");
    Probe::open(&site).assert_filtered();
}

#[test]
fn what_this_build_does_not_enforce_is_refused_by_run_by_name_and_warned_of_by_check() {
    let site = Site::new();
    let entries = "[[listener]]\naddress = \"tcp:192.0.2.1:9\"\nroles = [\"read\"]\n\
                   tls = { certificate = \"/a\", key = \"/b\", client-ca = \"/c\" }\n";
    site.write(&policy().and(entries));
    let ended = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains("tls of listener"), "{}", ended.log);
    assert_eq!(site.bpf.list("keyfence"), Vec::<std::path::PathBuf>::new());

    let check = output(keyfence().arg("check").arg(site.policy_file()));
    let said = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(!said.contains("more warnings"), "all are shown: {said}");
    assert!(said.contains("does not enforce tls of listener"), "{said}");
}

#[test]
fn invalid_policy_is_not_run_and_attaches_nothing() {
    let site = Site::new();
    site.write(&policy().and("[[deny]]\nname = \"d\"\nsources = [\"10.1.2.3/24\"]\n"));
    let ended = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(ended.code, Some(3), "{}", ended.log);
    assert!(ended.log.contains("10.1.2.0/24"), "{}", ended.log);
    assert!(site.bpf.list("keyfence").is_empty());
    // And it is no accident of the site's: without the fault it runs.
    let _daemon = Daemon::start(&site, &policy());
    Probe::open(&site).assert_filtered();
}
