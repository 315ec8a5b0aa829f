//! An upgrade that is killed, at many moments of it: the filter judges on, and the next start is a good one, of either
//! build.

use std::process::Stdio;
use std::thread;
use std::time::Instant;

use keyfence_tests::harness::{Attach, Daemon, Policy, Probe, Site, keyfence_path, next_path};

const MOMENTS: u32 = 12;

#[test]
fn upgrade_killed_at_any_moment_leaves_every_packet_judged() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let (this, next) = (keyfence_path(), next_path());
    Daemon::start(&site, &Policy::new(Attach::Native, Probe::ENTRIES)).kill();
    let saved = site.copy_of_state("saved");
    let measured = Instant::now();
    Daemon::start_as(&site, &mut Daemon::command_of(&site, &next)).kill();
    let whole = measured.elapsed();
    for moment in 0..MOMENTS {
        // As it was before the upgrade, the store too.
        site.put_back(&saved);
        Daemon::start_with(&site, &["--downgrade"]).kill();
        probe.assert_filtered();
        let started = Instant::now();
        let mut child = Daemon::command_of(&site, &next)
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be started");
        // The first part of a start reads files: most moments are in the rest.
        let moment_at = whole.mul_f64(0.3 + 0.7 * f64::from(moment) / f64::from(MOMENTS));
        while started.elapsed() < moment_at {
            probe.assert_filtered();
        }
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        probe.assert_filtered();
        let program = if moment % 2 == 0 { &next } else { &this };
        let mut command = Daemon::command_of(&site, program);
        if program == &this {
            site.put_back(&saved);
            command.arg("--downgrade");
        }
        let daemon = Daemon::start_as(&site, &mut command);
        probe.assert_filtered();
        let folders = std::fs::read_dir(site.bpf.path().join("keyfence")).expect("it is there");
        assert_eq!(folders.count(), 1, "moment {moment}");
        daemon.kill();
        probe.assert_filtered();
    }
}

/// While one build's daemon runs, another one is refused.
#[test]
fn upgrade_waits_for_nobody_and_takes_nothing_from_a_daemon_that_runs() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, Probe::ENTRIES));
    let before = (site.bpf.list("keyfence"), site.map_ids());
    let both = thread::scope(|scope| {
        let start = || Daemon::refused(&site, &mut Daemon::command_of(&site, &next_path()));
        [scope.spawn(start), scope.spawn(start)].map(|ended| ended.join().expect("it only starts"))
    });
    for ended in both {
        assert_eq!(ended.code, Some(1), "{}", ended.log);
    }
    assert_eq!((site.bpf.list("keyfence"), site.map_ids()), before);
    assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(200));
    Probe::open(&site).assert_filtered();
}
