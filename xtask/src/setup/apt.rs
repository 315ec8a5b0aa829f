//! Installs packages on Debian and Ubuntu, as root or by sudo, and starts none of the services they bring.
//! Never removes a package.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::components::COMPILER_PACKAGES;
use crate::{
    privilege::{self, Sudo},
    progress, workspace,
};

/// `policy-rc.d` tells the packages' scripts to start nothing; the trap takes it away again, also after Ctrl-C.
/// An administrator's own is left as it is.
const INSTALL: &str = r#"set -eu
export DEBIAN_FRONTEND=noninteractive
services=$1; shift
guard=/usr/sbin/policy-rc.d
if [ ! -e "$guard" ]; then
    trap 'rm -f "$guard"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\n# Of the Keyfence set-up, while it installs. To be removed if found later.\nexit 101\n' >"$guard"
    chmod 755 "$guard"
fi
apt-get install --yes --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
if [ -n "$services" ] && [ -d /run/systemd/system ]; then
    systemctl disable --quiet $services
fi
"#;

/// Whether this system has Debian's package manager.
pub(super) fn is_here() -> bool {
    Path::new("/usr/bin/apt-get").is_file() && Path::new("/usr/bin/dpkg").is_file()
}

/// The system's name for itself, for a message.
pub(super) fn system_name() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || "this system".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

/// What an administrator types to get these packages.
pub(super) fn command_line(packages: &[&str]) -> String {
    let packages = packages.join(" ");
    format!("sudo apt-get update && sudo apt-get install --yes --no-install-recommends {packages}")
}

/// Installs the packages; switches off, where systemd runs, the services that came with them. Answers those that it left
/// out: others of this system would have to go for them.
pub(super) fn install<'a>(packages: &[&'a str], services: &[&str]) -> Result<Vec<&'a str>> {
    let sudo = become_root(packages)?;
    progress::run(
        "Updating the lists of packages",
        as_root(sudo, "apt-get").args(["update", "-q"]),
    )?;
    let unknown: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !has_candidate(package))
        .collect();
    if unknown.iter().any(|package| COMPILER_PACKAGES.contains(package)) {
        bail!(
            "{} has no package {}; take rustup's compiler for the kernel program instead, then run this again:\n  \
             rustup toolchain install nightly --profile minimal --component rust-src",
            system_name(),
            COMPILER_PACKAGES.join(" and ")
        );
    }
    ensure!(
        unknown.is_empty(),
        "{} has no package {}",
        system_name(),
        unknown.join(", ")
    );
    let (shut_out, packages): (Vec<&str>, Vec<&str>) = packages
        .iter()
        .copied()
        .partition(|package| removes_others(package));
    if packages.is_empty() {
        return Ok(shut_out);
    }
    let heading = format!(
        "Installing {} packages by apt-get: {}",
        packages.len(),
        packages.join(" ")
    );
    let mut command = as_root(sudo, "sh");
    command
        .args(["-c", INSTALL, "sh"])
        .arg(services.join(" "))
        .args(&packages);
    progress::run(&heading, &mut command)?;
    Ok(shut_out)
}

/// Fetches a package and what it needs and this system has not, into a folder of ours; apt checks the signatures.
pub(super) fn download(package: &str, folder: &Path) -> Result<()> {
    let sudo = become_root(&[package])?;
    let mut command = as_root(sudo, "apt-get");
    command
        .args([
            "install",
            "--yes",
            "--quiet",
            "--no-install-recommends",
            "--download-only",
        ])
        .args(["-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root", "-o"])
        .arg(format!("Dir::Cache::Archives={}", folder.display()))
        .arg(package);
    progress::run(
        &format!("Fetching {package}, which apt cannot install beside this system's packages"),
        &mut command,
    )
}

/// Whether apt would take a package of this system away for this one.
fn removes_others(package: &str) -> bool {
    let output = Command::new("apt-get")
        .env("LC_ALL", "C")
        .args(["install", "--simulate", "--no-install-recommends", package])
        .output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .any(|line| line.starts_with("Remv "))
    })
}

/// None for root. An ordinary user types a password now, where one is wanted, not under a moving line.
fn become_root(packages: &[&str]) -> Result<Option<Sudo>> {
    if privilege::is_root() {
        return Ok(None);
    }
    let sudo = privilege::sudo();
    match sudo {
        Sudo::Free => {}
        Sudo::Asks => {
            eprintln!("Packages of the system take root to install; sudo asks for your password.");
            let status = Command::new("sudo")
                .arg("-v")
                .status()
                .context("cannot start sudo")?;
            ensure!(
                status.success(),
                "sudo refused; as root run:\n  {}",
                command_line(packages)
            );
        }
        Sudo::Absent => bail!(
            "these are packages of the system, and only root may install them. Have an administrator run\n  {}\n\
             then run this again",
            command_line(packages)
        ),
    }
    Ok(Some(sudo))
}

fn as_root(sudo: Option<Sudo>, program: &str) -> Command {
    if sudo.is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn has_candidate(package: &str) -> bool {
    let Some(apt_cache) = workspace::program("apt-cache") else {
        return true;
    };
    let output = Command::new(apt_cache)
        .env("LC_ALL", "C")
        .args(["policy", package])
        .output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines()
        .any(|line| line.trim_start().starts_with("Candidate:") && !line.contains("(none)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_an_administrator_names_every_package() {
        let line = command_line(&["bpftool", "nginx-light"]);
        assert!(
            line.ends_with("--no-install-recommends bpftool nginx-light"),
            "{line}"
        );
    }

    /// Runs the script with an apt-get of our own, and answers how it ended and what it printed.
    fn run_with(apt_get: &str, folder: &Path) -> (std::process::ExitStatus, String) {
        use std::os::unix::fs::PermissionsExt;
        let stub = folder.join("apt-get");
        fs::write(&stub, format!("#!/bin/sh\n{apt_get}\n")).unwrap();
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
        let guard = folder.join("policy-rc.d");
        let script = INSTALL.replace("/usr/sbin/policy-rc.d", &guard.to_string_lossy());
        let path = format!("{}:/usr/bin:/bin", folder.display());
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh", "", "nginx-light"])
            .env("PATH", path)
            .env("GUARD", &guard);
        let output = command.output().unwrap();
        (
            output.status,
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }

    #[test]
    fn no_service_is_started_while_packages_install_and_the_guard_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let (status, output) = run_with("\"$GUARD\"; echo \"guard says $?\"; echo \"$@\"", folder.path());
        assert!(status.success() && output.contains("guard says 101"), "{output}");
        assert!(
            output.contains("--no-install-recommends") && output.contains("nginx-light"),
            "{output}"
        );
        assert!(!folder.path().join("policy-rc.d").exists());
    }

    #[test]
    fn the_guard_goes_away_also_when_the_installation_fails_or_is_stopped() {
        for (apt_get, code) in [("exit 100", 100), ("kill -INT $PPID; sleep 0.1", 130)] {
            let folder = tempfile::tempdir().unwrap();
            let (status, _) = run_with(apt_get, folder.path());
            assert_eq!(status.code(), Some(code), "{apt_get}");
            assert!(!folder.path().join("policy-rc.d").exists(), "{apt_get}");
        }
    }

    #[test]
    fn an_administrators_own_guard_stays() {
        let folder = tempfile::tempdir().unwrap();
        let guard = folder.path().join("policy-rc.d");
        fs::write(&guard, "theirs").unwrap();
        assert!(run_with("true", folder.path()).0.success());
        assert_eq!(fs::read_to_string(guard).unwrap(), "theirs");
    }
}
