//! `cargo xtask`: everything that is done with this repository, from a fresh machine to the tests.
//! One module a command; each calls the set-up first, for what it needs itself.

mod bench;
mod build;
mod ebpf;
mod fuzz;
mod lab;
mod mutants;
mod package;
mod privilege;
mod progress;
mod setup;
mod test;
mod tidy;
mod toolchain;
mod vm;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use setup::Need;

/// Sets up, builds, shows and tests Keyfence.
///
/// Each command first finds or installs what it needs itself, and says what and why; where nothing is missing that
/// takes a moment.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or install all that the build, the lab and the tests need.
    ///
    /// On Debian and Ubuntu missing programs are installed by apt-get, as root or by sudo; none of their services is
    /// started. bpf-linker, and cargo-nextest where the machine has none, are built into ~/.cache/keyfence (or
    /// $XDG_CACHE_HOME/keyfence). A rustup nightly with rust-src is used for the kernel program where there is one,
    /// else Debian's rustc-web. KEYFENCE_KERNEL_RUSTC names another rustc.
    Setup {
        /// Install nothing; list what is missing, and end with 1 if anything is.
        #[arg(long)]
        check: bool,
    },
    /// Build target/release/keyfence, the one file that operators get, kernel program inside.
    ///
    /// The same as `cargo build --release` at the root of the repository, after the set-up.
    Build,
    /// Build the kernel program alone, and print the path of its object file.
    Ebpf,
    /// Show the main job live on this machine alone: who gets through, who is dropped and why. Needs root.
    ///
    /// Builds keyfence and runs it in a network namespace before a real nginx, with a listed client, a greedy one and
    /// a stranger in others. Stays up until Ctrl-C; however it ends, it leaves nothing behind. With --interface and
    /// --policy it filters a real interface instead, and drops nothing unless told --enforce.
    Run(lab::Arguments),
    /// Become a program of the lab, in its namespace.
    #[command(hide = true)]
    LabExec(lab::ExecArguments),
    /// Play a machine of the lab.
    #[command(hide = true)]
    LabTraffic { role: lab::Role },
    /// Run all tests, unit to live, after the checks of form. Needs root.
    ///
    /// In this order: set-up, format, release build, tidy, clippy, tests. The live tests make network namespaces and
    /// load programs into the kernel, which takes root; an ordinary user goes on by sudo where there is one.
    /// The exit code and the last lines are those of cargo-nextest.
    Test {
        /// Leave out the checks of form: format, tidy, clippy.
        #[arg(long)]
        fast: bool,
        /// For cargo-nextest: a part of a test's name, or for example `-E 'binary(/^live_/)'`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },
    /// Measure what a packet, an entry and an update cost, beside the kernel's own tries and other filters. Needs root.
    ///
    /// Everything is compared in one run, each in turn, by CPU time and medians of rounds; other work on the machine
    /// shows in the figures, so let it be quiet. --quick ends within two minutes; --json FILE writes all figures.
    /// `cargo xtask bench --help` after the build shows how to choose parts and sizes.
    #[command(disable_help_flag = true)]
    Bench {
        /// For the benchmark: see its own `--help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },
    /// Make what operators install: a Debian package, and a tarball with a static program, below target/package.
    Package,
    /// Boot Debian's 6.1 and 6.12 kernels under qemu, and judge every vector and live packets there.
    ///
    /// The kernels come from Debian's packages into ~/.cache/keyfence/kernels; nothing is installed. Each boots a static
    /// keyfence that replays every vector and then filters a plain device, VLAN devices, a bond and a bridge. Prints a
    /// line a kernel, and ends with 1 where one differs from the contract. Needs no root and no KVM; what the kernels
    /// printed is in target/vm.
    Vm {
        /// Only these, as 6.1; the default is all.
        #[arg(value_name = "SERIES")]
        series: Vec<String>,
    },
    /// Give any bytes to the parser, the decision and the policy file, by libFuzzer.
    ///
    /// The decision is held to the oracle. What is found stays below target/fuzz, for the next run; captures come from
    /// KEYFENCE_CAPTURES or ../shared/captures.
    Fuzz(fuzz::Options),
    /// Put one small wrong after the other into the decision, and see that the vectors or a unit test notice each.
    ///
    /// Writes docs/MUTANTS.md, and ends with 1 where a mutant survives for which tests/mutants/survivors.toml gives no
    /// reason. All that compile are built at once, and each is then run by its number: minutes, not hours.
    Mutants(mutants::Options),
    /// Check what no lint knows: directions between modules, headings, sizes, where `unsafe` may be.
    ///
    /// Prints each fault as `file:line: what; how to fix it` and ends with 1 if there is one. Files over 400 lines and
    /// functions over 70 stand in xtask/ratchet.toml with a reason; they may shrink and never grow.
    Tidy {
        /// Write the sizes of now into xtask/ratchet.toml.
        #[arg(long)]
        bless: bool,
        /// Why what grew must be so long; without it --bless only takes what shrank.
        #[arg(long, requires = "bless", value_name = "TEXT")]
        reason: Option<String>,
        /// Only for files whose path begins so, such as `tests/src/`, to give each its own reason.
        #[arg(
            long,
            requires = "bless",
            value_name = "PATH",
            default_value = "",
            hide_default_value = true
        )]
        below: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup { check } => setup::run(check),
        Command::Build => {
            setup::ensure(Need::Build)?;
            println!("{}", build::run()?.display());
            Ok(())
        }
        Command::Ebpf => {
            println!("{}", ebpf::run(&setup::ensure(Need::Build)?)?.display());
            Ok(())
        }
        Command::Run(arguments) => lab::run(&arguments),
        Command::LabExec(arguments) => lab::exec(&arguments),
        Command::LabTraffic { role } => lab::play(role),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Mutants(options) => mutants::run(options),
        Command::Test { fast, arguments } => test::run(fast, &arguments),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::Package => package::run(),
        Command::Vm { series } => vm::run(&series),
        Command::Tidy {
            bless: true,
            reason,
            below,
        } => tidy::bless(&below, reason.as_deref()),
        // Tidy takes nothing but this program.
        Command::Tidy { bless: false, .. } => tidy::run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_test_goes_to_nextest_and_fast_is_ours() {
        let parsed = Arguments::parse_from(["xtask", "test", "--fast", "-E", "test(a)", "--no-capture"]);
        let Command::Test { fast, arguments } = parsed.command else {
            panic!("{parsed:?}")
        };
        assert!(fast);
        assert_eq!(arguments, ["-E", "test(a)", "--no-capture"]);
    }
}
