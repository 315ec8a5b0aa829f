//! `cargo xtask build`: the one file that operators get, kernel program inside.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace;

/// Builds, and answers where the program is. The same as a plain `cargo build --release` at the root, so that
/// neither builds anew what the other did.
pub(crate) fn run() -> Result<PathBuf> {
    workspace::step(
        "building keyfence",
        workspace::cargo().args(["build", "--release"]),
    )?;
    Ok(workspace::keyfence())
}

/// Builds what the tests upgrade to: the same program with a made-up layout after this one. With the tests' own
/// profile and features, so that only what differs is built.
pub(crate) fn next() -> Result<()> {
    let arguments = [
        "build",
        "--workspace",
        "--bin",
        "keyfence-next",
        "--features",
        "filter-user/next-layout",
    ];
    workspace::step(
        "building what the tests upgrade to",
        workspace::cargo().args(arguments),
    )
}
