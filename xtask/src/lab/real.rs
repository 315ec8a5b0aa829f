//! `--interface`: the same job on an interface of this host, by a trial copy of the operator's policy.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    copy::{self, Mode},
    display::Display,
    ground::Ground,
    hints, machines,
    metrics::Counters,
    names,
    signals::Signals,
    table,
};

/// Runs until a signal comes; then the filter is off the interface again.
pub(super) fn run(
    ground: &Ground,
    keyfence: &Path,
    (interface, policy, mode): (&str, &Path, Mode),
    signals: &Signals,
) -> Result<()> {
    check(keyfence, policy)?;
    println!("{}", copy::write(policy, interface, mode)?);
    match mode {
        Mode::Observe => println!("Every packet passes; what the policy would drop is counted as observed."),
        Mode::Enforce => println!(
            "What the policy does not let through is DROPPED from now on; a session of yours that it does not list \
             hangs until this ends."
        ),
    }
    let mut daemon = machines::start_daemon(None, ground, keyfence)?;
    machines::await_ready(&mut daemon, signals)?;
    let first = Counters::read(&names::socket())?;
    for (interface, mode) in &first.attached {
        println!("The filter is on {interface}, in {mode} mode.");
    }
    println!("\n{}", hints::real(&super::shown(keyfence), daemon.id()));
    println!("Ctrl-C ends it and takes the filter off.\n");
    let began = Instant::now();
    let (mut before, mut at) = (first, began);
    let display = Display::start();
    while !signals.pause(Duration::from_secs(1)) {
        daemon.check()?;
        let (now, then) = (Counters::read(&names::socket())?, at);
        at = Instant::now();
        let counted = now.since(&before);
        let span = at - then;
        display.show(
            &|paint| table::verdicts(Some((&counted, span)), &now, paint),
            &|| table::sums_line(began.elapsed(), &counted),
        )?;
        before = now;
    }
    drop(display);
    let whole = daemon.stop()?;
    ensure!(whole, "the daemon had to be killed; its log is gone with the lab");
    println!("The filter is off {interface} again.");
    Ok(())
}

/// Where the policy has faults they are shown in the operator's own files, not in the copy.
fn check(keyfence: &Path, policy: &Path) -> Result<()> {
    let status = Command::new(keyfence).arg("check").arg(policy).status();
    let status = status.with_context(|| format!("cannot start {}", keyfence.display()))?;
    ensure!(status.success(), "{} cannot be run; see above", policy.display());
    Ok(())
}
