//! What each file must have, and what none may: the heading that says what a module owns, `unsafe` only where it is
//! reviewed, no path of one machine, no other registry, nothing left to do, no test left out.

use std::{env, path::Path};

use super::{
    Finding,
    source::{Kind, Source},
};

const HEADING_LINES_MAX: usize = 8;

/// The files that may hold `unsafe`; a name that ends with `/` is a folder.
const UNSAFE_FILES: &[&str] = &[
    "filter-common/src/abi/pod.rs",
    "filter-user/src/kernel/",
    "filter-user/src/kernel.rs",
    "filter-ebpf/src/bin/bench.rs",
    "filter-ebpf/src/bin/capture.rs",
    "filter-user/src/sys.rs",
];
/// In the kernel program, by the beginning of the name: `tables.rs`, `tables_v4.rs`, `tables/v4.rs`.
const UNSAFE_EBPF: (&str, &[&str]) = (
    "filter-ebpf/src/",
    &[
        "main", "frame", "tables", "prefixes", "sockets", "account", "clock", "records",
    ],
);

/// The one registry a lock file may name.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Folders that many share: a clone below one of them is no mark of a machine.
const SHARED_FOLDERS: &[&str] = &[
    "/", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/usr/src", "/var/tmp",
];

/// Every module begins with what it owns.
pub(super) fn check_headings(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let lines = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        if lines == 0 {
            let how = "begin with `//!`: what it owns, what it never does, its place in the flow";
            findings.push(Finding::new(&source.path, 1, "has no heading".to_owned(), how));
        } else if lines > HEADING_LINES_MAX {
            let what = format!("its heading has {lines} lines, more than {HEADING_LINES_MAX}");
            findings.push(Finding::new(
                &source.path,
                1,
                what,
                "move the rest to docs/ARCHITECTURE.md",
            ));
        }
    }
    findings
}

pub(super) fn check_unsafe(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|source| source.is_rust() && !may_be_unsafe(&source.path))
    {
        if let Some(token) = source
            .tokens()
            .iter()
            .find(|token| token.kind == Kind::Word("unsafe"))
        {
            let how = "move it to one of the files in UNSAFE_FILES of xtask/src/tidy/words.rs";
            let what = "`unsafe` outside of the files that may hold it".to_owned();
            findings.push(Finding::new(&source.path, source.line_at(token.at), what, how));
        }
    }
    findings
}

fn may_be_unsafe(path: &str) -> bool {
    let (folder, names) = UNSAFE_EBPF;
    let of_ebpf = path
        .strip_prefix(folder)
        .is_some_and(|rest| names.iter().any(|name| begins_with(rest, name)));
    let listed = |file: &str| path == file || (file.ends_with('/') && path.starts_with(file));
    of_ebpf || UNSAFE_FILES.iter().any(|file| listed(file))
}

/// `tables` begins `tables.rs`, `tables_v4.rs` and `tables/v4.rs`, but not `tablespoon.rs`.
fn begins_with(rest: &str, name: &str) -> bool {
    rest.strip_prefix(name)
        .is_some_and(|rest| rest.starts_with(['.', '_', '/']))
}

/// Nothing left to do, no test left out.
pub(super) fn check_left_over(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for window in source.tokens().windows(3) {
            let kinds = [window[0].kind, window[1].kind, window[2].kind];
            let (what, how) = match kinds {
                [
                    Kind::Word("todo" | "unimplemented"),
                    Kind::Mark(b'!'),
                    Kind::Mark(b'(' | b'[' | b'{'),
                ] => (
                    "something is left to do",
                    "do it, or return an error that says so",
                ),
                [Kind::Mark(b'#'), Kind::Mark(b'['), Kind::Word("ignore")] => {
                    ("a test is left out", "make it pass, or take it out")
                }
                _ => continue,
            };
            findings.push(Finding::new(
                &source.path,
                source.line_at(window[0].at),
                what.to_owned(),
                how,
            ));
        }
    }
    findings
}

/// What must not be written into any file, and why.
pub(super) struct Traces {
    paths: Vec<String>,
}

impl Traces {
    /// Of this machine: where the clone is, and the folder above it where that is not one that many share.
    pub(super) fn of_machine(root: &Path) -> Self {
        let home = env::home_dir().filter(|home| home.components().count() > 1);
        let above = root
            .parent()
            .filter(|above| !SHARED_FOLDERS.iter().any(|shared| *above == Path::new(shared)));
        let folders = [Some(root.to_owned()), above.map(Path::to_owned), home];
        Self {
            paths: folders
                .into_iter()
                .flatten()
                .map(|path| format!("{}/", path.display()))
                .collect(),
        }
    }

    pub(super) fn check(&self, sources: &[Source]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for source in sources {
            for (at, line) in source.text.lines().enumerate() {
                if let Some(path) = self.paths.iter().find(|path| holds_path(line, path)) {
                    let what = format!("holds the path {path} of this machine");
                    findings.push(Finding::new(
                        &source.path,
                        at + 1,
                        what,
                        "write it from the root of the repository",
                    ));
                }
                if names_other_registry(&source.path, line) {
                    let how =
                        "take crates from crates.io alone; keep mirrors in your own ~/.cargo/config.toml";
                    findings.push(Finding::new(
                        &source.path,
                        at + 1,
                        "names a registry".to_owned(),
                        how,
                    ));
                }
            }
        }
        findings
    }
}

/// The path where one begins, not the tail of a longer: `/srv/` is not in `a/srv/b`.
fn holds_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/$}".contains(c))
    })
}

fn names_other_registry(path: &str, line: &str) -> bool {
    let line = line.trim_start();
    let lock = path.ends_with("Cargo.lock") && line.starts_with("source = \"") && !line.contains("git+");
    let settings = path.ends_with(".toml") && path.contains(".cargo/");
    let manifest = path.ends_with("Cargo.toml");
    let sets = |key: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
    (lock && !line.contains(REGISTRY))
        || (settings && (line.starts_with("[source") || line.starts_with("[registr") || sets("replace-with")))
        || (manifest && (line.contains("registry = \"") || line.contains("registry-index")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str, text: &str) -> Vec<Source> {
        vec![Source::new(path, text)]
    }

    #[test]
    fn a_module_begins_with_a_heading_of_at_most_eight_lines() {
        assert_eq!(
            check_headings(&one("a.rs", "//! Owns this.\nfn f() {}\n")).len(),
            0
        );
        assert_eq!(check_headings(&one("a.rs", &"//! A line.\n".repeat(8))).len(), 0);
        assert_eq!(check_headings(&one("a.rs", &"//! A line.\n".repeat(9))).len(), 1);
        assert_eq!(
            check_headings(&one("a.rs", "use std::fmt;\n//! Late.\n")).len(),
            1
        );
        assert_eq!(check_headings(&one("a.md", "no heading\n")).len(), 0);
    }

    #[test]
    fn unsafe_stays_where_it_is_reviewed() {
        let text = "//! Owns this.\nfn f() { unsafe { g() } }\n";
        for path in [
            "filter-user/src/kernel/load.rs",
            "filter-user/src/sys.rs",
            "filter-common/src/abi/pod.rs",
            "filter-ebpf/src/frame.rs",
            "filter-ebpf/src/tables/v4.rs",
            "filter-ebpf/src/tables_v4.rs",
        ] {
            assert_eq!(check_unsafe(&one(path, text)).len(), 0, "{path}");
        }
        for path in [
            "filter-user/src/engine.rs",
            "filter-common/src/abi/mod.rs",
            "filter-ebpf/src/tablespoon.rs",
        ] {
            assert_eq!(check_unsafe(&one(path, text))[0].line, 2, "{path}");
        }
    }

    #[test]
    fn unsafe_in_a_comment_a_string_or_a_longer_word_is_none() {
        let text = "#![deny(unsafe_code)]\n// unsafe\nconst A: &str = \"unsafe\";\n";
        assert_eq!(check_unsafe(&one("filter-user/src/engine.rs", text)).len(), 0);
    }

    #[test]
    fn nothing_is_left_to_do_and_no_test_left_out() {
        assert_eq!(check_left_over(&one("a.rs", "fn f() { todo!() }")).len(), 1);
        assert_eq!(
            check_left_over(&one("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}")).len(),
            1
        );
        assert_eq!(
            check_left_over(&one("a.rs", "// todo!()\nfn ignore() { let todo = 1; }")).len(),
            0
        );
    }

    #[test]
    fn a_path_of_this_machine_is_found_in_any_file() {
        let traces = Traces {
            paths: vec!["/build/here/".to_owned()],
        };
        assert_eq!(
            traces.check(&one("README.md", "see\n/build/here/main/a.rs\n"))[0].line,
            2
        );
        assert_eq!(
            traces
                .check(&one("README.md", "see target/build/here/x and /build/there\n"))
                .len(),
            0
        );
    }

    #[test]
    fn a_folder_that_many_share_is_no_trace() {
        let traces = Traces::of_machine(Path::new("/tmp/clone"));
        assert!(
            traces.paths.contains(&"/tmp/clone/".to_owned()) && !traces.paths.contains(&"/tmp/".to_owned())
        );
    }

    #[test]
    fn no_other_registry_is_named() {
        let traces = Traces { paths: Vec::new() };
        let known = format!("source = \"{REGISTRY}\"\n");
        assert_eq!(traces.check(&one("Cargo.lock", &known)).len(), 0);
        assert_eq!(
            traces
                .check(&one(
                    "Cargo.lock",
                    "source = \"registry+https://mirror.example/index\"\n"
                ))
                .len(),
            1
        );
        assert_eq!(
            traces
                .check(&one(
                    ".cargo/config.toml",
                    "[source.crates-io]\nreplace-with = \"m\"\n"
                ))
                .len(),
            2
        );
        assert_eq!(
            traces
                .check(&one(".cargo/config.toml", "[alias]\nxtask = \"run\"\n"))
                .len(),
            0
        );
        assert_eq!(
            traces
                .check(&one(
                    "a/Cargo.toml",
                    "x = { version = \"1\", registry = \"m\" }\n"
                ))
                .len(),
            1
        );
    }
}
