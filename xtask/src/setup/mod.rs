//! `cargo xtask setup`: finds or installs all that the build, the lab, the tests and the benchmark need, and says what and why.
//! The real things are looked at each time, in well under a second; nothing is remembered between runs.
//! Every other command calls `ensure` first, for its own need only.

mod apt;
pub(crate) mod cargo_install;
mod components;
pub(crate) mod emulator;
mod pip_install;

use std::{env, fmt::Write as _, time::Instant};

use anyhow::{Result, bail};

pub(crate) use components::Need;
use components::{COMPILER_PACKAGES, COMPILER_WHY, Component, LINKER_WHY, NEXTEST_WHY};

use crate::{
    toolchain::{self, COMPILER_OVERRIDE, Toolchain, ToolchainError},
    vm::kernels,
};

/// The command itself: everything, for every need.
pub(crate) fn run(check: bool) -> Result<()> {
    let started = Instant::now();
    let survey = Survey::take(Need::Bench);
    eprint!("{}", survey.found());
    if survey.is_complete() {
        eprintln!("Nothing is missing ({:.2} s).", started.elapsed().as_secs_f64());
        return Ok(());
    }
    if check {
        bail!("missing:\n{}`cargo xtask setup` installs it", survey.missing());
    }
    install(survey, Need::Bench)?;
    eprintln!("All is there ({:.0} s).", started.elapsed().as_secs_f64());
    Ok(())
}

/// For the other commands: silent where nothing is missing.
pub(crate) fn ensure(need: Need) -> Result<Toolchain> {
    let survey = Survey::take(need);
    match survey.toolchain {
        Ok(toolchain) if survey.is_complete_but_toolchain() => Ok(toolchain),
        _ => install(survey, need),
    }
}

/// What is here, at one moment, of what a need asks for.
struct Survey {
    need: Need,
    toolchain: Result<Toolchain, ToolchainError>,
    /// The rows that are missing.
    programs: Vec<&'static Component>,
    /// Whether cargo-nextest is here, or not asked for.
    nextest: bool,
    /// Whether schemathesis is in the cache, or not asked for.
    schemathesis: bool,
    /// Whether the kernels to boot are in the cache, or not asked for.
    kernels: bool,
}

impl Survey {
    fn take(need: Need) -> Self {
        Self {
            need,
            toolchain: toolchain::find(),
            programs: components::needed(need)
                .filter(|component| !component.is_here())
                .collect(),
            nextest: need < Need::Test || cargo_install::nextest().is_some(),
            schemathesis: need < Need::Test || pip_install::schemathesis().is_some(),
            kernels: need < Need::Vm || kernels::all_here(),
        }
    }

    fn is_complete(&self) -> bool {
        self.toolchain.is_ok() && self.is_complete_but_toolchain()
    }

    fn is_complete_but_toolchain(&self) -> bool {
        self.programs.is_empty() && self.nextest && self.schemathesis && self.kernels
    }

    /// Whether it takes Debian's compiler: none fits, and nobody named one.
    fn wants_compiler(&self) -> bool {
        let none = matches!(self.toolchain, Err(ToolchainError::NoCompiler { .. }));
        none && env::var_os(COMPILER_OVERRIDE).is_none()
    }

    /// The packages to install and the services among them.
    fn packages(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let compiler = if self.wants_compiler() {
            &COMPILER_PACKAGES[..]
        } else {
            &[]
        };
        let programs = self.programs.iter().map(|component| component.package);
        let services = self.programs.iter().filter_map(|component| component.service);
        (
            compiler.iter().copied().chain(programs).collect(),
            services.collect(),
        )
    }

    /// A line for each thing that is here: what, where.
    fn found(&self) -> String {
        let mut lines: Vec<(&str, String)> = Vec::new();
        if let Ok(Toolchain { compiler, linker, .. }) = &self.toolchain {
            lines.push(("kernel rustc", compiler.to_string()));
            lines.push(("bpf-linker", linker.display().to_string()));
        }
        if let Some(nextest) = cargo_install::nextest() {
            lines.push(("cargo-nextest", nextest.display().to_string()));
        }
        if let Some(schemathesis) = pip_install::schemathesis() {
            lines.push(("schemathesis", schemathesis.display().to_string()));
        }
        for component in components::needed(self.need) {
            if let Some(path) = component.place() {
                lines.push((component.program, path.display().to_string()));
            }
        }
        for kernel in kernels::here() {
            if self.need >= Need::Vm {
                lines.push(("kernel to boot", kernel.image().display().to_string()));
            }
        }
        let mut text = String::new();
        for (what, place) in lines {
            // Writing to a string cannot fail.
            _ = writeln!(text, "  {what:<20} {place}");
        }
        text
    }

    /// A line for each thing that is missing: what, why it is needed.
    fn missing(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, why: &str| _ = writeln!(text, "  {what:<20} {why}");
        match &self.toolchain {
            Ok(_) => {}
            Err(ToolchainError::NoCompiler { .. }) => {
                line("kernel rustc", COMPILER_WHY);
                line("bpf-linker", LINKER_WHY);
            }
            Err(ToolchainError::NoLinker { .. }) => line("bpf-linker", LINKER_WHY),
            Err(error) => line("kernel rustc", &error.to_string()),
        }
        if !self.nextest {
            line("cargo-nextest", NEXTEST_WHY);
        }
        if !self.schemathesis {
            line("schemathesis", pip_install::WHY);
        }
        if !self.kernels {
            line("kernels", kernels::WHY);
        }
        for component in &self.programs {
            line(component.program, component.why);
        }
        text
    }
}

/// Installs what the survey misses, then looks again.
fn install(survey: Survey, need: Need) -> Result<Toolchain> {
    eprintln!(
        "Keyfence's set-up: these are missing\n{}",
        survey.missing().trim_end()
    );
    let (packages, services) = survey.packages();
    if !packages.is_empty() {
        if !apt::is_here() {
            bail!("{}", by_hand(&survey));
        }
        for package in apt::install(&packages, &services)? {
            if package != emulator::PACKAGE {
                bail!(
                    "apt would remove packages of this system for {package}; see `apt-get install --simulate {package}`, \
                     and install it yourself if that is right"
                );
            }
            emulator::unpack()?;
        }
    }
    // Which linker is needed shows only now, with the compiler in place.
    match toolchain::find() {
        Ok(_) => {}
        Err(ToolchainError::NoLinker { compiler, .. }) => cargo_install::install_linker(&compiler)?,
        Err(error) => return Err(error.into()),
    }
    if !survey.nextest {
        cargo_install::install_nextest()?;
    }
    if !survey.schemathesis {
        pip_install::install_schemathesis()?;
    }
    if !survey.kernels {
        kernels::fetch()?;
    }
    let after = Survey::take(need);
    if !after.is_complete() {
        bail!("still missing after the set-up:\n{}", after.missing().trim_end());
    }
    Ok(after.toolchain?)
}

/// What to do where there is no apt-get.
fn by_hand(survey: &Survey) -> String {
    let mut text = format!(
        "{} has no apt-get, and the set-up installs only on Debian and Ubuntu. Install these yourself, as root, \
         then run this again:",
        apt::system_name()
    );
    for Component { program, package, .. } in &survey.programs {
        _ = write!(text, "\n  {program} (in Debian the package {package})");
    }
    if survey.wants_compiler() {
        text += "\nand as yourself, for the kernel program:\n  \
                 rustup toolchain install nightly --profile minimal --component rust-src";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare() -> Survey {
        Survey {
            need: Need::Test,
            toolchain: Err(ToolchainError::NoCompiler {
                looked_at: Vec::new(),
            }),
            programs: components::needed(Need::Test).collect(),
            nextest: false,
            schemathesis: false,
            kernels: false,
        }
    }

    #[test]
    fn a_bare_machine_is_told_of_each_thing_and_its_reason() {
        let text = bare().missing();
        for part in [
            "kernel rustc",
            "bpf-linker",
            "cargo-nextest",
            "nginx",
            "makes the lab's network namespaces",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn the_packages_of_a_bare_machine_hold_the_compiler_and_name_the_services() {
        let (packages, services) = bare().packages();
        assert!(
            packages.starts_with(&COMPILER_PACKAGES) && packages.contains(&"nginx-light"),
            "{packages:?}"
        );
        assert_eq!(services, ["nginx", "prometheus", "caddy", "rsyslog"]);
    }

    #[test]
    fn without_apt_each_program_and_its_package_is_named() {
        let text = by_hand(&bare());
        assert!(
            text.contains("promtool (in Debian the package prometheus)"),
            "{text}"
        );
        assert!(text.contains("--component rust-src"), "{text}");
    }
}
