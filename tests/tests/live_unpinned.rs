//! Pins that somebody removes: under a running daemon they are made again; where none runs, the next one makes the filter
//! anew in its place, and whoever cannot says whether packets are judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use filter_common::abi::names;
use keyfence_tests::harness::{
    Attach, Daemon, Ended, INSIDE, LISTED, Policy, Probe, Site, StopOnDrop, Traffic, keyfence, keyfence_path,
    output, until,
};
use nix::sys::signal::Signal;

fn policy() -> Policy {
    Policy::new(Attach::Auto, Probe::ENTRIES)
}

fn pin(site: &Site, name: &str) -> PathBuf {
    site.pins("main").join(name)
}

fn map(name: &str) -> String {
    format!("maps/{name}")
}

/// All that is pinned but the tables of generations, whose folder changes.
fn pins(site: &Site) -> Vec<PathBuf> {
    let all = site.bpf.list("keyfence/main").into_iter();
    all.filter(|path| !path.display().to_string().contains("generation-"))
        .collect()
}

#[test]
fn pins_removed_under_a_running_daemon_are_made_again_and_nothing_is_told_of_an_open_host() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    let (before, ids) = (pins(&site), site.map_ids());
    let beside = |name: &str| format!("generation-{}/{name}", daemon.generation());
    let tables = [beside(names::GRANTS), beside("WITNESS")];
    let alone = [
        map(names::META),
        map(names::GENERATION),
        names::ENTRY.into(),
        format!("links/{INSIDE}"),
    ];
    let mut rounds: Vec<Vec<String>> = alone.iter().map(|name| vec![name.clone()]).collect();
    let rest = names::PERSISTENT
        .map(map)
        .into_iter()
        .filter(|name| !alone.contains(name));
    rounds.push(rest.chain(tables).collect());
    for names in rounds {
        names
            .iter()
            .for_each(|name| fs::remove_file(pin(&site, name)).expect("it is pinned"));
        assert_eq!(
            daemon.get("/readyz").map(|answer| answer.status),
            Some(200),
            "{names:?}"
        );
        assert_eq!(daemon.status()["interfaces"][0]["attached"], true, "{names:?}");
        probe.assert_filtered();
        until("they are pinned again", || {
            names.iter().all(|name| pin(&site, name).exists()).then_some(())
        });
    }
    assert_eq!((pins(&site), site.map_ids()), (before, ids));
    let log = daemon.log();
    assert!(
        log.contains("made again: maps/GENERATION; find who removes them"),
        "{log}"
    );
    assert!(!log.contains("every packet passes"), "{log}");

    // A policy that is put in force is the one that packets go by, and one stands by as well.
    site.write(&policy().and("[[deny]]\nname = \"d\"\nsources = [\"10.77.0.2\"]\n"));
    fs::remove_file(pin(&site, &map(names::GENERATION))).expect("it is pinned");
    daemon.reload();
    assert!(daemon.status()["not_ready"].as_array().is_some_and(Vec::is_empty));
    site.write(&policy());
    daemon.reload();
    probe.assert_filtered();
    daemon.kill();
    let daemon = Daemon::start_again(&site);
    assert!(daemon.log().contains("took over the filter"), "{}", daemon.log());
    probe.assert_filtered();
}

#[test]
fn whole_folder_of_pins_removed_under_a_running_daemon_is_made_again() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    let before = site.map_ids();
    fs::remove_dir_all(site.pins("main")).expect("it is there");
    probe.assert_filtered();
    until("all is pinned again", || {
        pin(&site, &map(names::META)).exists().then_some(())
    });
    assert_eq!(site.map_ids(), before);
    // It is the daemon's again, and nobody else's.
    let Ended { code, log } = start_by(&site, &site.folder().join("other-state"));
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another daemon runs as instance main"), "{log}");
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
    let daemon = Daemon::start_again(&site);
    assert!(daemon.log().contains("took over the filter"), "{}", daemon.log());
    probe.assert_filtered();
    assert_eq!(Daemon::detach(&site, &["--yes"]).code, Some(0));
    probe.assert_open();
}

#[test]
fn pins_that_cannot_be_made_again_are_told_until_they_are() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    // It cannot be faster.
    daemon.signal(Signal::SIGSTOP);
    fs::remove_file(pin(&site, &map(names::GENERATION))).expect("it is pinned");
    site.bpf.remount("ro");
    daemon.signal(Signal::SIGCONT);
    let told = until("it is told", || {
        let answer = daemon.get("/readyz")?;
        (answer.status == 503).then_some(answer.body)
    });
    assert!(told.contains("cannot be made again (maps/GENERATION"), "{told}");
    probe.assert_filtered();
    daemon.reload_in_vain();
    probe.assert_filtered();
    site.bpf.remount("rw");
    until("it is there again", || {
        pin(&site, &map(names::GENERATION)).exists().then_some(())
    });
    daemon.reload();
    assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(200));
    probe.assert_filtered();
}

/// Lets a daemon end without a chance to make anything again, and removes these pins of its filter.
fn tear(site: &Site, daemon: Daemon, names: &[&str]) {
    daemon.kill();
    for name in names {
        fs::remove_file(pin(site, name)).expect("it is pinned");
    }
}

/// A start that fails before it looks at what is pinned.
fn failing(site: &Site) -> Ended {
    let file = site.folder().join("no-folder");
    fs::write(&file, "").expect("a temporary folder can be written");
    start_by(site, &file.join("state"))
}

/// A start that fails, with a state of its own.
fn start_by(site: &Site, state: &Path) -> Ended {
    let mut command = site.server.command(keyfence_path());
    command.arg("run").arg("--policy").arg(site.policy_file());
    command.arg("--bpf-fs").arg(site.bpf.path());
    command.arg("--state").arg(state);
    Daemon::refused(site, &mut command)
}

/// Without this one the entry program finds no generation any more, and drops all.
#[test]
fn filter_that_drops_every_packet_is_made_anew_by_a_start_and_one_that_fails_says_so() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let mut daemon = Daemon::start(&site, &policy());
    let [generation, meta] = [names::GENERATION, names::META].map(map);
    let rounds: [(&[&str], bool); 3] = [
        (&[&generation], true),
        (&[&generation, &meta], false),
        (&[&generation, names::ENTRY], true),
    ];
    for (names, keeps_counters) in rounds {
        tear(&site, daemon, names);
        let ended = failing(&site);
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        for part in ["DROPS EVERY PACKET", "`keyfence detach --yes --instance main`"] {
            assert!(ended.log.contains(part), "{names:?}: {}", ended.log);
        }
        assert!(!ended.log.contains("stays in force"), "{names:?}: {}", ended.log);
        let (counts, before) = (site.counters(), daemon_log(&site).len());
        daemon = Daemon::start_again(&site);
        let log = daemon.log()[before..].to_owned();
        for part in ["pins are missing (", "has given way to one of this program's"] {
            assert!(log.contains(part), "{names:?}: {log}");
        }
        assert_eq!(
            !log.contains("counters start at 0"),
            keeps_counters,
            "{names:?}: {log}"
        );
        if keeps_counters {
            assert_eq!(site.counters().fallen_since(&counts), []);
        }
        probe.assert_filtered();
        daemon.reload();
        probe.assert_filtered();
    }
}

/// The links have it still, and lead to it.
#[test]
fn filter_whose_program_alone_is_unpinned_gives_way_to_a_start() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    tear(&site, Daemon::start(&site, &policy()), &[names::ENTRY]);
    probe.assert_filtered();
    let daemon = Daemon::start_again(&site);
    let log = daemon.log();
    assert!(log.contains("pins are missing (keyfence)"), "{log}");
    assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(200));
    assert!(pin(&site, names::ENTRY).exists());
    probe.assert_filtered();
}

fn daemon_log(site: &Site) -> String {
    fs::read_to_string(site.folder().join("daemon.log")).unwrap_or_default()
}

#[test]
fn filter_that_judges_with_a_map_unpinned_gives_way_without_a_packet_unjudged() {
    let site = Site::new();
    let traffic = Traffic::open(&site);
    let entries = Probe::ENTRIES.replace("\"probe\"", "\"api\"");
    let daemon = Daemon::start(&site, &Policy::new(Attach::Auto, &entries));
    let sent = thread::scope(|scope| {
        let senders = scope.spawn(|| traffic.run(&site));
        let stop = StopOnDrop(&traffic.over);
        tear(&site, daemon, &[&map(names::SWITCH), &map(names::OWNER_STATE)]);
        let ended = failing(&site);
        assert!(
            ended.log.contains("stays in force (instance main)"),
            "{}",
            ended.log
        );
        let mut doctor = keyfence();
        doctor.args(["doctor", "--policy"]).arg(site.policy_file());
        let told = output(doctor.arg("--bpf-fs").arg(site.bpf.path()));
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(
            told.contains("pins-missing") && told.contains("OWNER_STATE"),
            "{told}"
        );
        let passed = traffic.sink.count(LISTED.v4.into());
        let daemon = Daemon::start_again(&site);
        let log = daemon.log();
        assert!(
            log.contains("what grants have counted and used starts anew"),
            "{log}"
        );
        assert!(!log.contains("drops every packet"), "{log}");
        until("packets go on", || {
            (traffic.sink.count(LISTED.v4.into()) > passed + 100).then_some(())
        });
        drop(stop);
        senders
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    traffic.assert_all_judged(&sent);
}

/// It may be a newer release's.
#[test]
fn filter_of_which_nobody_knows_the_layout_is_left_unless_it_is_told_otherwise() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    tear(&site, Daemon::start(&site, &policy()), &[&map(names::META)]);
    let before = site.map_ids();
    let Ended { code, log } = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(code, Some(1), "{log}");
    for part in [
        "has no META",
        "`keyfence run --downgrade`",
        "stays in force (instance main)",
    ] {
        assert!(log.contains(part), "{log}");
    }
    assert_eq!(site.map_ids(), before);
    probe.assert_filtered();
    let daemon = Daemon::start_with(&site, &["--downgrade"]);
    assert!(
        daemon.log().contains("of an unknown layout has given way"),
        "{}",
        daemon.log()
    );
    probe.assert_filtered();
}

/// One more interface is held by another program: what was made for the others stays, since what was there drops all.
#[test]
fn start_that_cannot_attach_everywhere_leaves_no_filter_that_drops_every_packet() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    site.server.ip("link add more0 type veth peer name more1");
    let daemon = Daemon::start(&site, &policy().interface(&format!("{INSIDE}\", \"more0")));
    tear(&site, daemon, &[&map(names::GENERATION), "links/more0"]);
    until("the kernel has let go of it", || {
        let shown = site.server.ip("link show dev more0");
        (!shown.contains("xdp")).then_some(())
    });
    let other = Daemon::elsewhere(&site, "other", &policy().interface("more0"));
    let Ended { code, log } = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(code, Some(1), "{log}");
    for part in [
        "instance other holds the XDP hook",
        "stays in force (instance main, other)",
    ] {
        assert!(log.contains(part), "{log}");
    }
    probe.assert_filtered();
    drop(other);
    assert_eq!(
        Daemon::detach(&site, &["--yes", "--instance", "other"]).code,
        Some(0)
    );
    let daemon = Daemon::start_again(&site);
    assert!(daemon.log().contains("took over the filter"), "{}", daemon.log());
    probe.assert_filtered();
}

#[test]
fn interface_whose_link_somebody_removed_while_no_daemon_ran_is_named_by_the_start_that_finds_it_open() {
    let site = Site::new();
    let words = "had no filter when this start found it";
    let daemon = Daemon::start(&site, &policy());
    assert!(!daemon.log().contains(words), "a first start: {}", daemon.log());
    daemon.kill();
    let daemon = Daemon::start_again(&site);
    assert!(!daemon.log().contains(words), "{}", daemon.log());
    daemon.kill();
    fs::remove_file(pin(&site, &format!("links/{INSIDE}"))).expect("it is pinned");
    let mut probe = Probe::open(&site);
    probe.assert_open();
    let daemon = Daemon::start_again(&site);
    assert!(daemon.log().contains(words), "{}", daemon.log());
    probe.assert_filtered();
}
