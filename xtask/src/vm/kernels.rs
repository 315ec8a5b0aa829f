//! The kernels under test: taken out of Debian's packages into the cache, never installed.
//!
//! Only the kernel itself and the few modules that the live part loads are kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{privilege, progress, toolchain, workspace};

/// The oldest that Keyfence supports, and the one of Debian 13.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];
pub(crate) const WHY: &str =
    "the kernels that the tests boot under qemu: Debian's cloud kernels, unpacked into the cache";
/// In the order in which they load; what a kernel has built in is no file.
const MODULES: [&str; 14] = [
    "net/llc/llc",
    "net/802/stp",
    "net/802/garp",
    "net/802/mrp",
    "net/8021q/8021q",
    "net/bridge/bridge",
    "net/ipv4/tunnel4",
    "net/ipv4/ip_tunnel",
    "net/ipv4/ipip",
    "net/ipv4/gre",
    "net/ipv4/ip_gre",
    "net/tls/tls",
    "drivers/net/bonding/bonding",
    "drivers/net/veth",
];
/// Written last, with the list of modules: a folder without it, or with another list, is not whole.
const COMPLETE: &str = "complete";

/// One kernel in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) series: &'static str,
    /// As `uname -r` says it.
    pub(crate) release: String,
    folder: PathBuf,
}

impl Kernel {
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The modules that are files, in the order in which they load.
    pub(crate) fn modules(&self) -> Vec<PathBuf> {
        let files = MODULES.iter().map(|module| self.folder.join(file_name(module)));
        files.filter(|file| file.is_file()).collect()
    }
}

fn file_name(module: &str) -> String {
    format!("{}.ko", module.rsplit('/').next().unwrap_or(module))
}

/// The newest of each series that is in the cache.
pub(crate) fn here() -> Vec<Kernel> {
    SERIES.iter().filter_map(|series| newest_here(series)).collect()
}

pub(crate) fn all_here() -> bool {
    here().len() == SERIES.len()
}

fn cache() -> Option<PathBuf> {
    Some(toolchain::cache_dir()?.join("kernels"))
}

fn newest_here(series: &'static str) -> Option<Kernel> {
    let entries = fs::read_dir(cache()?).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let whole = names.filter_map(|release| {
        let folder = cache()?.join(&release);
        let list = fs::read_to_string(folder.join(COMPLETE)).ok()?;
        let kernel = Kernel {
            series,
            release,
            folder,
        };
        (is_of(series, &kernel.release) && list == MODULES.join("\n")).then_some(kernel)
    });
    whole.max_by_key(|kernel| numbers(&kernel.release))
}

/// Takes what is missing from Debian's packages.
pub(crate) fn fetch() -> Result<()> {
    for series in SERIES {
        if newest_here(series).is_none() {
            fetch_series(series).with_context(|| {
                format!(
                    "Debian's Linux {series} for the cloud, which the tests boot under qemu, cannot be had"
                )
            })?;
        }
    }
    Ok(())
}

fn fetch_series(series: &str) -> Result<()> {
    let cache = cache().context("neither XDG_CACHE_HOME nor HOME names a folder")?;
    let part = cache.join(format!("{series}.part"));
    // Of a run that was stopped.
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    let package = download(series, &part)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    unpack(&part)?;
    let whole = cache.join(&release);
    let kept = part.join("kept");
    keep(&part.join("unpacked"), &release, &kept)?;
    if whole.exists() {
        fs::remove_dir_all(&whole)?;
    }
    fs::rename(&kept, &whole).with_context(|| format!("cannot move to {}", whole.display()))?;
    fs::remove_dir_all(&part)?;
    Ok(())
}

/// The package's name; apt checks its signature's chain.
fn download(series: &str, folder: &Path) -> Result<String> {
    let get = |package: &str| {
        let mut command = Command::new("apt-get");
        command.args(["download", "-q", package]).current_dir(folder);
        progress::run(
            &format!("Fetching {package}, to boot it under qemu"),
            &mut command,
        )
    };
    if let Some(package) = newest_package(series)?
        && get(&package).is_ok()
    {
        return Ok(package);
    }
    // The lists may be missing, or older than the archive.
    ensure!(
        privilege::is_root(),
        "apt's lists of packages are missing or old; run `sudo apt-get update`, then this again"
    );
    progress::run(
        "Updating the lists of packages",
        Command::new("apt-get").args(["update", "-q"]),
    )?;
    let package = newest_package(series)?;
    let package =
        package.with_context(|| format!("no package linux-image-{series}.*-cloud-amd64 is known to apt"))?;
    get(&package)?;
    Ok(package)
}

fn newest_package(series: &str) -> Result<Option<String>> {
    let prefix = format!("linux-image-{series}.");
    let output = Command::new("apt-cache").args(["pkgnames", &prefix]).output();
    let output = output.context("cannot start apt-cache: the kernels come from Debian's packages")?;
    let names = String::from_utf8_lossy(&output.stdout);
    let fitting = names.lines().filter(|name| {
        name.strip_prefix("linux-image-")
            .is_some_and(|release| is_of(series, release))
    });
    Ok(fitting.max_by_key(|name| numbers(name)).map(str::to_owned))
}

/// Whether this is a release of the series for the cloud, signed, without debug symbols.
fn is_of(series: &str, release: &str) -> bool {
    let rest = release
        .strip_prefix(series)
        .and_then(|rest| rest.strip_prefix('.'));
    rest.is_some_and(|rest| rest.ends_with("-cloud-amd64"))
}

/// All numbers of a name: they order releases.
fn numbers(name: &str) -> Vec<u64> {
    let digits = name.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|number| number.parse().ok()).collect()
}

fn unpack(folder: &Path) -> Result<()> {
    let mut packages = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let package = packages.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = package.context("apt-get left no package")?;
    let mut command = Command::new("dpkg");
    command.arg("-x").arg(&package).arg(folder.join("unpacked"));
    progress::run("Unpacking the kernel", &mut command)
}

/// The kernel and its modules, unpacked, and the mark that this is all.
fn keep(unpacked: &Path, release: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let image = unpacked.join(format!("boot/vmlinuz-{release}"));
    fs::copy(&image, folder.join("vmlinuz"))
        .with_context(|| format!("the package has no {}", image.display()))?;
    let modules = unpacked.join(format!("lib/modules/{release}/kernel"));
    for module in MODULES {
        let plain = modules.join(format!("{module}.ko"));
        let packed = modules.join(format!("{module}.ko.xz"));
        let kept = folder.join(file_name(module));
        match fs::copy(&plain, &kept) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !packed.exists() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => unpack_module(&packed, &kept)?,
            Err(error) => bail!("{}: {error}", plain.display()),
        }
    }
    fs::write(folder.join(COMPLETE), MODULES.join("\n"))?;
    Ok(())
}

/// Busybox does it, which the machine's image needs anyway.
fn unpack_module(packed: &Path, kept: &Path) -> Result<()> {
    let busybox = workspace::program("busybox").context("busybox is missing")?;
    let output = Command::new(busybox).arg("xzcat").arg(packed).output()?;
    ensure!(output.status.success(), "{}: {}", packed.display(), output.status);
    fs::write(kept, output.stdout)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_takes_its_own_signed_cloud_kernels_only() {
        for (series, release, fits) in [
            ("6.1", "6.1.0-56-cloud-amd64", true),
            ("6.1", "6.12.117+deb12-cloud-amd64", false),
            ("6.12", "6.12.117+deb12-cloud-amd64", true),
            ("6.12", "6.12-cloud-amd64", false),
            ("6.1", "6.1.0-56-cloud-amd64-unsigned", false),
            ("6.1", "6.1.0-56-cloud-amd64-dbg", false),
            ("6.1", "6.1.0-56-amd64", false),
        ] {
            assert_eq!(is_of(series, release), fits, "{release}");
        }
    }

    #[test]
    fn the_newest_release_is_told_by_its_numbers() {
        let newest = ["6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64"]
            .into_iter()
            .max_by_key(|name| numbers(name));
        assert_eq!(newest, Some("6.1.0-56-cloud-amd64"));
    }
}
