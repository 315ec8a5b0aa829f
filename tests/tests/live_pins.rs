//! What is pinned: adopted where it is whole and of this layout, cleared where it is half, else left alone; and
//! nothing piles up.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use filter_common::abi::{LAYOUT_VERSION, names};
use keyfence_tests::harness::{
    Attach, Daemon, Ended, INSIDE, LISTED, Policy, Probe, Site, StopOnDrop, Traffic, keyfence_path, run,
    system, until,
};
use nix::sys::signal::Signal;

fn policy() -> Policy {
    Policy::new(Attach::Auto, Probe::ENTRIES)
}

/// Every file below the pins, with the kernel's ids of the maps.
fn pins(site: &Site) -> (Vec<std::path::PathBuf>, Vec<(std::path::PathBuf, u64)>) {
    (site.bpf.list("keyfence"), site.map_ids())
}

fn meta(site: &Site) -> std::path::PathBuf {
    site.pins("main").join("maps").join(names::META)
}

fn dump(site: &Site) -> String {
    run(system("bpftool")
        .args(["-j", "map", "dump", "pinned"])
        .arg(meta(site)))
}

/// Lets pins say that they are of another version; what they say of their parts goes, where it is not kept.
fn tell(site: &Site, version: u32, keeps_parts: bool) {
    let dumped: serde_json::Value = serde_json::from_str(&dump(site)).expect("bpftool writes JSON");
    let bytes = dumped[0]["value"].as_array().expect("a value's bytes").iter();
    let mut bytes: Vec<String> = bytes.map(|byte| byte.as_str().expect("as text").into()).collect();
    // The version follows the magic word, and the parts the clock's.
    assert_eq!(bytes[8], format!("{LAYOUT_VERSION:#04x}"));
    bytes[8] = format!("{version:#04x}");
    if !keeps_parts {
        bytes[32..].fill("0x00".to_owned());
    }
    let mut update = system("bpftool");
    update.args(["map", "update", "pinned"]).arg(meta(site));
    run(update.args(["key", "0", "0", "0", "0", "value"]).args(&bytes));
}

#[test]
fn pins_of_a_newer_layout_are_refused_and_left_untouched() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    Daemon::start(&site, &policy()).kill();
    tell(&site, LAYOUT_VERSION + 1, true);
    let (before, counts) = ((pins(&site), dump(&site)), site.counters());
    let ended = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let words = format!("version {}", LAYOUT_VERSION + 1);
    assert!(
        ended.log.contains(&words) && ended.log.contains("keyfence detach --yes"),
        "{}",
        ended.log
    );
    assert_eq!((pins(&site), dump(&site)), before);
    // The filter goes on counting what the neighbours say.
    assert_eq!(site.counters().fallen_since(&counts), []);
    probe.assert_filtered();

    // The two ways that it names.
    Daemon::start_with(&site, &["--downgrade"]).kill();
    assert_eq!(site.counters().fallen_since(&counts), []);
    probe.assert_filtered();
    tell(&site, LAYOUT_VERSION + 1, true);
    let Ended { code, log } = Daemon::detach(&site, &["--yes"]);
    assert_eq!(code, Some(0), "{log}");
    let _daemon = Daemon::start_again(&site);
    probe.assert_filtered();
}

/// Of one that tells nothing of its parts nothing is taken over but the interfaces, and that is said.
#[test]
fn pins_of_an_older_layout_give_way_without_a_packet_unjudged() {
    let site = Site::new();
    let traffic = Traffic::open(&site);
    let entries = Probe::ENTRIES.replace("\"probe\"", "\"api\"");
    Daemon::start(&site, &Policy::new(Attach::Auto, &entries)).kill();
    let sent = thread::scope(|scope| {
        let senders = scope.spawn(|| traffic.run(&site));
        let stop = StopOnDrop(&traffic.over);
        for (version, keeps_parts) in [(LAYOUT_VERSION - 1, true), (1, false)] {
            tell(&site, version, keeps_parts);
            let (counts, passed) = (site.counters(), traffic.sink.count(LISTED.v4.into()));
            let daemon = Daemon::start_again(&site);
            assert!(daemon.log().contains("has given way"), "{}", daemon.log());
            assert_eq!(daemon.log().contains("counters start at 0"), !keeps_parts);
            if keeps_parts {
                assert_eq!(site.counters().fallen_since(&counts), []);
            }
            until("packets go on", || {
                (traffic.sink.count(LISTED.v4.into()) > passed + 100).then_some(())
            });
            daemon.kill();
        }
        drop(stop);
        senders
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    traffic.assert_all_judged(&sent);
}

/// One more interface of the policy is held by another program: the interfaces that have gone over come back.
#[test]
fn upgrade_that_cannot_attach_leaves_what_was_in_force() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    site.server.ip("link add more0 type veth peer name more1");
    let both = policy().interface(&format!("{INSIDE}\", \"more0"));
    Daemon::start(&site, &both).kill();
    // As if it had been made anew, and somebody else had been faster.
    fs::remove_file(site.pins("main").join("links/more0")).expect("it is pinned");
    until("the kernel has let go of it", || {
        let shown = site.server.ip("link show dev more0");
        (!shown.contains("xdp")).then_some(())
    });
    let other = Daemon::elsewhere(&site, "other", &policy().interface("more0"));
    tell(&site, LAYOUT_VERSION - 1, true);
    let before = (pins(&site), dump(&site));
    let ended = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(
        ended.log.contains("instance other holds the XDP hook"),
        "{}",
        ended.log
    );
    assert_eq!((pins(&site), dump(&site)), before);
    probe.assert_filtered();
    drop(other);
    assert_eq!(
        Daemon::detach(&site, &["--yes", "--instance", "other"]).code,
        Some(0)
    );
    let daemon = Daemon::start_again(&site);
    assert!(daemon.log().contains("has given way"), "{}", daemon.log());
    probe.assert_filtered();
    assert!(site.server.ip("link show dev more0").contains("xdp"));
}

#[test]
fn half_made_pins_are_cleared_and_made_anew() {
    let site = Site::new();
    for folder in ["", "maps", "links", "generation-1"] {
        fs::create_dir_all(site.pins("main").join(folder)).expect("a BPF file system has folders");
    }
    let daemon = Daemon::start(&site, &policy());
    assert!(daemon.log().contains("ended half-way"), "{}", daemon.log());
    Probe::open(&site).assert_filtered();
}

#[test]
fn daemon_killed_at_any_moment_of_its_start_is_followed_by_a_good_one() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    site.write(&policy());
    let measured = Instant::now();
    Daemon::start_again(&site).kill();
    let whole = measured.elapsed();
    const MOMENTS: u32 = 8;
    for moment in 0..MOMENTS {
        // Half of them on a fresh start, half on what the one before left.
        if moment % 2 == 0 {
            assert_eq!(Daemon::detach(&site, &["--yes"]).code, Some(0));
        }
        let started = Instant::now();
        let mut child = Daemon::command(&site)
            .stderr(Stdio::null())
            .spawn()
            .expect("keyfence can be started");
        thread::sleep((whole * moment / MOMENTS).saturating_sub(started.elapsed()));
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        let daemon = Daemon::start_again(&site);
        probe.assert_filtered();
        daemon.kill();
    }
}

#[test]
fn daemon_killed_at_any_moment_of_a_reload_is_followed_by_a_good_one() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let more = |variant: u32| {
        policy().and(&format!(
            "[[deny]]\nname = \"d\"\nsources = [\"192.0.2.{variant}\"]\n"
        ))
    };
    let daemon = Daemon::start(&site, &policy());
    let measured = Instant::now();
    daemon.reload();
    let whole = measured.elapsed();
    let mut daemon = Some(daemon);
    const MOMENTS: u32 = 8;
    for moment in 0..MOMENTS {
        let running = daemon.take().expect("one runs");
        site.write(&more(moment));
        running.signal(Signal::SIGHUP);
        thread::sleep(whole * moment / MOMENTS);
        running.kill();
        probe.assert_filtered();
        daemon = Some(Daemon::start_again(&site));
        probe.assert_filtered();
        let generations = site.bpf.list("keyfence/main").into_iter();
        let generations =
            generations.filter(|path| path.is_dir() && path.display().to_string().contains("generation-"));
        assert_eq!(generations.count(), 1, "moment {moment}");
    }
}

#[test]
fn second_daemon_of_an_instance_is_refused() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    let before = pins(&site);
    let ended = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(
        ended.log.contains("another daemon runs as instance main"),
        "{}",
        ended.log
    );
    assert_eq!(pins(&site), before);
    assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(200));
    probe.assert_filtered();
}

#[test]
fn second_daemon_of_an_instance_is_refused_with_another_state_and_listener_too() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let before = (pins(&site), daemon.generation());
    let file = site.folder().join("second.toml");
    fs::write(&file, policy().text(&site.folder().join("second.sock"))).expect("a temporary folder");
    let mut command = site.server.command(keyfence_path());
    command.arg("run").arg("--policy").arg(file);
    command.arg("--bpf-fs").arg(site.bpf.path());
    let state = site.folder().join("second-state");
    command.arg("--state").arg(&state);
    let ended = Daemon::refused(&site, &mut command);
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(
        ended.log.contains("another daemon runs as instance main"),
        "{}",
        ended.log
    );
    assert_eq!((pins(&site), daemon.generation()), before);
    // What another daemon's filter tells is not held against it.
    assert!(!state.exists());
}

#[test]
fn reloads_leave_no_descriptor_memory_map_or_program_behind() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let variants = [
        policy(),
        policy().and("[[deny]]\nname = \"d\"\nsources = [\"192.0.2.0/24\"]\n"),
    ];
    let reload = |times: usize| {
        for variant in variants.iter().cycle().take(times) {
            site.write(variant);
            daemon.reload();
        }
    };
    // The first ones open what stays open.
    reload(4);
    let before = Held::by(&daemon, &site);
    reload(50);
    // What the kernel frees, it frees a little later.
    let mut after = Held::by(&daemon, &site);
    let deadline = Instant::now() + Duration::from_secs(10);
    while after.exceeds(&before) && Instant::now() < deadline {
        after = Held::by(&daemon, &site);
    }
    assert!(!after.exceeds(&before), "before: {before:#?}\nafter: {after:#?}");
}

/// What a daemon, its pins and the kernel hold.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: BTreeMap<String, usize>,
    mappings: usize,
    pins: usize,
    /// Of the kernel, by name: those that no other process has open.
    maps: BTreeMap<String, usize>,
    programs: BTreeMap<String, usize>,
}

impl Held {
    fn by(daemon: &Daemon, site: &Site) -> Self {
        let process = format!("/proc/{}", daemon.id());
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir(format!("{process}/fd")).expect("it runs").flatten() {
            // One that was closed meanwhile is none.
            if let Ok(target) = fs::read_link(entry.path()) {
                let kind = target
                    .to_string_lossy()
                    .split(':')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                *descriptors.entry(kind).or_default() += 1;
            }
        }
        let maps = fs::read_to_string(format!("{process}/maps")).expect("it runs");
        Self {
            descriptors,
            mappings: maps.lines().filter(|line| line.contains("bpf")).count(),
            pins: site.bpf.list("keyfence").len(),
            maps: objects("map"),
            programs: objects("prog"),
        }
    }

    fn exceeds(&self, before: &Held) -> bool {
        let more = |here: &BTreeMap<String, usize>, there: &BTreeMap<String, usize>| {
            here.iter()
                .any(|(name, count)| *count > there.get(name).copied().unwrap_or(0))
        };
        more(&self.descriptors, &before.descriptors)
            || self.mappings > before.mappings
            || self.pins > before.pins
            || more(&self.maps, &before.maps)
            || more(&self.programs, &before.programs)
    }
}

/// How many maps or programs of each name of ours the kernel has.
fn objects(kind: &str) -> BTreeMap<String, usize> {
    let ours = |name: &str| {
        names::PERSISTENT.contains(&name)
            || names::GENERATIONAL.contains(&name)
            || [names::ENTRY, names::JUDGE, "DESK"].contains(&name)
    };
    let text = run(system("bpftool").args(["-j", kind, "list"]));
    let list: serde_json::Value = serde_json::from_str(&text).expect("bpftool writes JSON");
    let mut counts = BTreeMap::new();
    for object in list.as_array().into_iter().flatten() {
        let name = object["name"].as_str().unwrap_or_default();
        if ours(name) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}
