//! Programs that tests call: keyfence itself, and those of the system.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Which package of Debian brings what; a test fails with it where the program is missing.
const PACKAGES: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("bpftool", "bpftool"),
    ("caddy", "caddy"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("nginx", "nginx-light"),
    ("nsenter", "util-linux"),
    ("promtool", "prometheus"),
    ("python3", "python3-minimal"),
    ("setpriv", "util-linux"),
];
const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program of the system.
pub fn system(name: &str) -> Command {
    Command::new(find(name))
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
