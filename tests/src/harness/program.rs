//! Programs that tests call: keyfence itself, and those of the system.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Which package of Debian brings what; a test fails with it where the program is missing.
const PACKAGES: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("bpftool", "bpftool"),
    ("caddy", "caddy"),
    ("cc", "gcc"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("lintian", "lintian"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    ("nsenter", "util-linux"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("python3", "python3-minimal"),
    ("rm", "coreutils"),
    ("setpriv", "util-linux"),
    ("systemd-nspawn", "systemd-container"),
    ("tmux", "tmux"),
    ("tshark", "tshark"),
];
const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program of the system.
pub fn system(name: &str) -> Command {
    Command::new(find(name))
}

/// The release that `cargo xtask setup` puts into the user's cache.
const SCHEMATHESIS: &str = "schemathesis-4.32.5";

/// The program that asks an API whatever its document allows.
pub fn schemathesis() -> Command {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    let cache = cache.expect("HOME or XDG_CACHE_HOME names a folder");
    let program = cache.join("keyfence").join(SCHEMATHESIS).join("bin/schemathesis");
    let shown = program.display();
    assert!(program.is_file(), "{shown} is missing: run `cargo xtask setup`");
    Command::new(program)
}

fn find(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ADMINISTRATORS.map(PathBuf::from));
    let found = folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| {
        let package = PACKAGES.iter().find(|(program, _)| *program == name);
        let package = package.map_or("of that name", |(_, package)| package);
        panic!("{name} is missing: install the package {package} (`cargo xtask setup` does)")
    })
}

/// The program under test.
pub fn keyfence() -> Command {
    Command::new(keyfence_path())
}

/// `KEYFENCE_BIN`, else what was built beside this test, else the release build.
pub fn keyfence_path() -> PathBuf {
    if let Some(path) = env::var_os("KEYFENCE_BIN") {
        return path.into();
    }
    let test = env::current_exe().expect("a running test has a path");
    let profile = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
    let candidates = [
        profile.join("keyfence"),
        profile.with_file_name("release").join("keyfence"),
    ];
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().unwrap_or_else(|| {
        let [first, second] = candidates.map(|path| path.display().to_string());
        panic!(
            "neither {first} nor {second} is there: run `cargo build`, or name the program in KEYFENCE_BIN"
        )
    })
}

/// The program with the made-up layout after this one: `KEYFENCE_NEXT_BIN`, else what was built beside this test.
pub fn next_path() -> PathBuf {
    if let Some(path) = env::var_os("KEYFENCE_NEXT_BIN") {
        return path.into();
    }
    let test = env::current_exe().expect("a running test has a path");
    let profile = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
    let path = profile.join("keyfence-next");
    assert!(
        path.is_file(),
        "{} is missing: `cargo xtask test` builds it, or `cargo build --workspace --bin keyfence-next --features \
         filter-user/next-layout`",
        path.display()
    );
    path
}

/// The program without shared libraries: `KEYFENCE_STATIC_BIN`, else what `cargo xtask` built for the virtual machines.
pub fn static_path() -> PathBuf {
    if let Some(path) = env::var_os("KEYFENCE_STATIC_BIN") {
        return path.into();
    }
    let test = env::current_exe().expect("a running test has a path");
    let target = test.ancestors().nth(3).expect("tests are in target/PROFILE/deps");
    let path = target.join("static/x86_64-unknown-linux-gnu/static/keyfence");
    assert!(
        path.is_file(),
        "{} is missing: `cargo xtask test` and `cargo xtask vm` build it",
        path.display()
    );
    path
}

/// How a command ended, whatever that was.
pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"))
}

/// The standard output of a command that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("programs write text")
}
