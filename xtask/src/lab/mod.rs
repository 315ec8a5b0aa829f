//! `cargo xtask run`: the lab. Shows the main job live on this machine alone: a server behind the filter, and clients
//! that it lists, limits and does not know, each in a network namespace of its own. With `--interface` it does the
//! same job on a real interface. However it ends, nothing of it stays.

mod copy;
mod display;
mod ground;
mod hints;
mod machines;
mod metrics;
mod names;
mod network;
mod once;
mod process;
mod real;
mod signals;
mod table;
mod traffic;

use std::{
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

pub(crate) use process::{ExecArguments, exec};
pub(crate) use traffic::{Role, play};

use crate::{
    build, privilege,
    setup::{self, Need},
    workspace,
};
use copy::Mode;
use display::{Display, paint};
use ground::Ground;
use machines::{AccessLog, Machines, Stopped};
use once::Check;
use signals::Signals;

const WHY_ROOT: &str = "the lab makes network namespaces and interfaces and loads a program into the kernel";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Play for some seconds, check what each client saw and the daemon counted, and end with a summary; the exit
    /// code is 0 where all checks hold.
    #[arg(long, conflicts_with = "interface")]
    once: bool,
    /// Filter this interface of this host instead of the lab's, by a trial copy of --policy.
    #[arg(long, value_name = "NAME", requires = "policy")]
    interface: Option<String>,
    /// The policy of the trial; it is read and never changed.
    #[arg(long, value_name = "FILE", requires = "interface")]
    policy: Option<PathBuf>,
    /// Really drop on that interface; without it everything passes, and is counted as observed.
    #[arg(long, requires = "interface")]
    enforce: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    privilege::require_way_to_root("run", WHY_ROOT)?;
    if let Some(policy) = arguments.policy.as_ref().filter(|_| !privilege::is_root()) {
        // Root starts in another folder.
        ensure!(
            policy.is_absolute(),
            "give --policy as an absolute path, or run this as root"
        );
    }
    setup::ensure(Need::Run)?;
    privilege::require_root("run", WHY_ROOT)?;
    let keyfence = build::run()?;
    let signals = Signals::hold()?;
    match (&arguments.interface, &arguments.policy) {
        (Some(interface), Some(policy)) => {
            let mode = if arguments.enforce {
                Mode::Enforce
            } else {
                Mode::Observe
            };
            let ground = Ground::take()?;
            let outcome = real::run(&ground, &keyfence, (interface, policy, mode), &signals);
            ground.leave()?;
            or_stopped(outcome)
        }
        _ if arguments.once => once(&keyfence, &signals),
        _ => or_stopped(live(&keyfence, &signals)),
    }
}

/// To be stopped is how a lab that stays up is meant to end.
fn or_stopped(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.is::<Stopped>() => Ok(()),
        other => other,
    }
}

/// The live table, until a signal comes.
fn live(keyfence: &Path, signals: &Signals) -> Result<()> {
    let ground = Ground::take()?;
    println!("The server's policy:\n{}\n", machines::policy_shown());
    let mut machines = Machines::start(&ground, keyfence, AccessLog::Off, signals)?;
    let mut before = machines.sample()?;
    println!("{}", attached(&before.counters));
    println!("\n{}", hints::lab(&shown(keyfence), machines.daemon()));
    println!("Ctrl-C ends the lab and leaves nothing behind.\n");
    let display = Display::start();
    while !signals.pause(Duration::from_secs(1)) {
        machines.check()?;
        let now = machines.sample()?;
        display.show(&|paint| table::live(&before, &now, paint), &|| {
            table::line(&before, &now)
        })?;
        before = now;
    }
    drop(display);
    println!("\nEnding the lab ...");
    drop(machines);
    ground.leave()?;
    println!("Nothing of it is left.");
    Ok(())
}

/// The short run with its checks.
fn once(keyfence: &Path, signals: &Signals) -> Result<()> {
    let began = Instant::now();
    let ground = Ground::take()?;
    println!("The server's policy:\n{}\n", machines::policy_shown());
    let mut machines = Machines::start(&ground, keyfence, AccessLog::Written, signals)?;
    println!(
        "{} Ready in {:.1} s.\n",
        attached(&machines.sample()?.counters),
        began.elapsed().as_secs_f64()
    );
    let mut checks = once::play(&mut machines, signals)?;
    let by_itself = machines.end_daemon()?;
    drop(machines);
    let pins_left: Vec<String> = ground::left_over()
        .into_iter()
        .filter(|left| left.starts_with("pins"))
        .collect();
    checks.push(Check::new(
        "the daemon ends and takes its filter off",
        if by_itself && pins_left.is_empty() {
            "no pin is left"
        } else {
            "killed, or pins left"
        }
        .to_owned(),
        by_itself && pins_left.is_empty(),
    ));
    ground.leave()?;
    let left = ground::left_over();
    let measured = if left.is_empty() {
        String::from("no namespace, interface, pin, mount or process")
    } else {
        left.join(", ")
    };
    checks.push(Check::new(
        "nothing of the lab is left",
        measured,
        left.is_empty(),
    ));
    let (text, holds) = once::summary(&checks, paint());
    println!("\n{text}{:.1} s in all.", began.elapsed().as_secs_f64());
    if !holds {
        bail!("the lab's checks do not hold");
    }
    Ok(())
}

/// How the filter came onto the cables.
fn attached(counters: &metrics::Counters) -> String {
    let on: Vec<String> = counters
        .attached
        .iter()
        .map(|(interface, mode)| format!("{interface} ({mode})"))
        .collect();
    format!("nginx and the filter run; the filter is on {}.", on.join(", "))
}

/// As a reader in the repository would write it.
fn shown(keyfence: &Path) -> PathBuf {
    let here = env::current_dir().is_ok_and(|folder| folder == workspace::root());
    match keyfence.strip_prefix(workspace::root()) {
        Ok(short) if here => short.to_owned(),
        _ => keyfence.to_owned(),
    }
}
