//! `keyfence run`: the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::compiler::CompileError;
use crate::daemon::{self, DaemonError};
use crate::engine::{self, FilterError, Options};
use crate::kernel::load::KernelLog;
use crate::kernel::pins::Pins;
use crate::logging::Format;
use crate::policies::{NoStart, STATE, Start};
use crate::policy::{self, Colour, Loaded};

const AFTER_HELP: &str = "\
Loads the policy, attaches to its interfaces and answers on its listeners. What was confirmed last is in force again \
(clients, services, all that judges packets), whatever the file says meanwhile; SIGHUP (or `keyfence reload`) applies the \
file without a gap, and a file with faults changes nothing. Where the file is invalid at a start, the last confirmed \
policy serves for all; `--state` says where it is. SIGTERM and SIGINT drain and end; the filter stays \
attached unless `[daemon] on-exit` says otherwise. Where an `[[expect]]` differs, it starts all the same and says so \
in the log; `keyfence reload` refuses such a file. Where a listener cannot be opened or a secret cannot be read, it filters \
all the same, goes on without, and is not ready: `keyfence status` names it.

Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; all other rights are given up once the listeners are bound. \
Root keeps the right to other users' files only where the policy has it use some, and says so. KEYFENCE_LOG sets the log's level where --log-level does not.

Exit codes:
  0  stopped as asked
  1  could not start
  2  wrong usage
  3  the policy is invalid

Examples:
  keyfence run
  keyfence run --policy keyfence.toml --log-level debug";

/// What other threads get once all is done that had to be.
const THREADS_END: Duration = Duration::from_secs(2);

/// Filter by a policy file, until stopped
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = super::POLICY_FILE)]
    pub(crate) policy: PathBuf,
    /// Where the daemon keeps its state; the default is the policy's `[daemon] state`
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// The BPF file system
    #[arg(long, value_name = "DIR", default_value = super::BPF_FS)]
    pub(crate) bpf_fs: PathBuf,
    /// Start also where an interface of the policy is missing or its hook is held: what can be filtered is, the rest
    /// is as soon as it can be, and until then the daemon is not ready. For a host that boots
    #[arg(long)]
    pub(crate) await_interfaces: bool,
    /// Take the place of the filter that a newer release has left, or nobody knows which, with nothing open in between.
    /// What the releases' tables have in common goes on; the log says what does not. Needed once, to go back to an older
    /// release
    #[arg(long)]
    pub(crate) downgrade: bool,
    /// error, warn, info, debug or trace, or levels of parts, as in info,hyper=warn
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: Format,
    /// The kernel program's own log lines: each costs time for each packet
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub(crate) kernel_log: KernelLog,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let Arguments {
        policy: file,
        state,
        bpf_fs,
        await_interfaces,
        downgrade,
        log_level,
        log_format,
        kernel_log,
    } = arguments;
    crate::logging::init(log_level.as_deref(), *log_format, shell.colour_errors)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    crate::sys::bound_heaps();
    // Where the pins cannot be had, the start ends by itself.
    let tells = |instance: &str| Pins::of(bpf_fs, instance).ok()?.tells();
    let mut start = Start::of(file, state.as_deref(), &tells).map_err(|no| match no {
        NoStart::Newer(why) => still_filtering(Failure::new(Exit::Failed, why), bpf_fs),
        NoStart::Policy(loaded) => match (&loaded.policy, engine::refusal(&loaded)) {
            (Some(_), Some(refusal)) => Failure::new(Exit::Failed, refusal),
            _ => still_filtering(without_state(invalid(&loaded, shell), state.as_deref()), bpf_fs),
        },
    })?;
    if let Some(missing) = rights_missing() {
        return Err(Failure::new(Exit::Failed, missing));
    }
    // A host that boots is better filtered by a policy that a date or an address has outrun than by none.
    match engine::unexpected(&start.policy) {
        Ok(None) => {}
        Ok(Some(faults)) => tracing::error!("{faults}; started all the same, a reload would be refused"),
        Err(error) => tracing::error!("the policy's expects could not be tried: {error}"),
    }
    let options = Options {
        // As status names it, from whatever folder that is asked.
        policy_file: std::path::absolute(file).unwrap_or_else(|_| file.clone()),
        bpf_fs: bpf_fs.clone(),
        await_interfaces: *await_interfaces,
        downgrade: *downgrade,
        owners_at_least: start.owners_needed,
        kernel_log: *kernel_log,
    };
    // Rights are a thread's own: given up before the runtime starts its own threads.
    let ended = |error: DaemonError| still_filtering(ended(error), bpf_fs);
    let prepared = daemon::prepare(&options, &mut start).map_err(ended)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(crate::sys::run_long)
        .build()
        .map_err(|error| ended(DaemonError::Runtime(error)))?;
    let run = daemon::run(prepared, options, start);
    let ran = runtime.block_on(run).map_err(ended);
    // All that must be on disk is there: whatever another thread still waits for does not keep the process.
    runtime.shutdown_timeout(THREADS_END);
    ran?;
    Ok(Exit::Done)
}

fn ended(error: DaemonError) -> Failure {
    match error {
        DaemonError::Filter(FilterError::Compile(error)) => uncompilable(&error),
        error => Failure::new(Exit::Failed, error),
    }
}

/// Where a broken file named the state's folder, nobody here knows of it.
fn without_state(failure: Failure, state: Option<&Path>) -> Failure {
    let text = failure.text.trim_end();
    let text = match state {
        Some(folder) => format!(
            "{text}\nNo policy that was confirmed before is kept below {}.",
            folder.display()
        ),
        None => format!(
            "{text}\nNo policy that was confirmed before is kept below {STATE}: where the file's `[daemon] state` named \
             another folder, `--state DIR` starts with the one that is kept there."
        ),
    };
    Failure::new(failure.exit, text)
}

/// A start that fails leaves what is in force untouched, and says so.
fn still_filtering(failure: Failure, bpf_fs: &Path) -> Failure {
    let shut = Pins::shut(bpf_fs);
    let judging = Pins::filtering(bpf_fs)
        .into_iter()
        .filter(|name| !shut.contains(name));
    let judging: Vec<String> = judging.collect();
    let mut text = failure.text.trim_end().to_owned();
    if !judging.is_empty() {
        let names = judging.join(", ");
        text = format!("{text}\nThe filter already attached stays in force (instance {names}).");
    }
    for name in shut {
        text = format!(
            "{text}\nThe filter of instance {name} is attached and DROPS EVERY PACKET, management's too, since its pin \
             maps/GENERATION was removed: mend the above and start again, which makes it anew; or \
             `keyfence detach --yes --instance {name}`, which opens its interfaces."
        );
    }
    match text == failure.text.trim_end() {
        true => failure,
        false => Failure::new(failure.exit, text),
    }
}

/// What is missing of the rights to filter, before anything else fails for want of them; `None` where nothing is, or
/// where it cannot be known.
fn rights_missing() -> Option<String> {
    rights_missing_by(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn rights_missing_by(status: &str) -> Option<String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let has = |number: u32| effective >> number & 1 == 1;
    // Numbers of linux/capability.h; CAP_SYS_ADMIN (21) stands for the first and the last.
    let missing = [
        ("CAP_BPF", 39, true),
        ("CAP_NET_ADMIN", 12, false),
        ("CAP_PERFMON", 38, true),
    ];
    let missing = missing
        .into_iter()
        .filter(|(_, number, administers)| !(has(*number) || *administers && has(21)));
    let missing: Vec<&str> = missing.map(|(name, ..)| name).collect();
    (!missing.is_empty()).then(|| {
        let missing = missing.join(", ");
        format!("run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: missing here: {missing}")
    })
}

/// A policy without faults of its own that has no tables.
pub(super) fn uncompilable(error: &CompileError) -> Failure {
    Failure::new(Exit::PolicyInvalid, format!("the policy is invalid: {error}"))
}

/// A policy's faults, as a failure.
pub(super) fn invalid(loaded: &Loaded, shell: &Shell) -> Failure {
    if let Some(why) = &loaded.unreadable {
        return Failure::new(Exit::Failed, why);
    }
    let colour = if shell.colour_errors {
        Colour::Always
    } else {
        Colour::Never
    };
    Failure::new(Exit::PolicyInvalid, policy::render(loaded, colour))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_are_missing_are_named() {
        let missing =
            |effective: &str| rights_missing_by(&format!("Name:\tkeyfence\nCapEff:\t{effective}\n"));
        assert_eq!(missing("000001ffffffffff"), None);
        assert_eq!(missing("000000c000001000"), None);
        assert_eq!(missing("0000000000201000"), None, "as before Linux 5.8");
        let said = missing("0000008000001000").unwrap();
        assert!(said.starts_with("run as root or with CAP_BPF"), "{said}");
        assert!(said.ends_with(": CAP_PERFMON"), "{said}");
        assert!(
            missing("0000000000000000")
                .unwrap()
                .contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON")
        );
        assert_eq!(rights_missing_by("Name: keyfence\n"), None);
    }
}
