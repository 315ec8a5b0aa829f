//! Holds the directions between modules: who may name whom, and which modules are pure.
//! The two tables here are the rule; docs/ARCHITECTURE.md says why.

use super::{
    Finding,
    paths::{self, Named},
    source::Source,
};

/// Filter-user from the bottom up. A module names those of lower rows, never its own row or a higher one.
/// `sys` wraps system calls and `logging` sets the log up: they know none of the others.
const LAYERS: &[&[&str]] = &[
    &["sys", "logging", "sockets", "cases"],
    &["policy"],
    &["bindings"],
    &["compiler"],
    &["kernel"],
    &["judge"],
    &["doctor"],
    &["engine"],
    &["metrics"],
    &["records"],
    &["policies"],
    &["api"],
    &["daemon"],
    &["cli"],
];

/// Which crate never names which: the kernel program reaches the rest as an object file alone.
const CRATES: &[(&str, &[&str])] = &[
    (
        "filter-common",
        &["filter_ebpf", "filter_user", "keyfence_tests", "xtask"],
    ),
    ("filter-ebpf", &["filter_user", "keyfence_tests", "xtask"]),
    ("filter-user", &["filter_ebpf", "keyfence_tests", "xtask"]),
    ("tests", &["filter_ebpf", "keyfence_bench", "xtask"]),
    ("bench", &["filter_ebpf", "xtask"]),
    (
        "xtask",
        &["filter_ebpf", "filter_user", "filter_common", "keyfence_tests"],
    ),
];

/// Values in, values out: what these hold is tested without a kernel, a clock or a disk.
const PURE: &[&str] = &[
    "filter-user/src/policy",
    "filter-user/src/bindings/model",
    "filter-user/src/compiler",
];
/// The one file of the policy that reads files: the policy's own, its includes, its sources.
const POLICY_READER: &str = "filter-user/src/policy/files.rs";
/// The one file of the compiler that starts a thread: what comes of it is the same with one.
const COMPILER_THREADS: &str = "filter-user/src/compiler/threads.rs";
/// What a pure module does not name, and what it would bring in.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "the runtime"),
    ("aya", "the kernel"),
    ("aya_obj", "the kernel"),
    ("nix", "the kernel"),
    ("libc", "the kernel"),
    ("rtnetlink", "the kernel"),
    ("crate::sys", "the kernel"),
    ("crate::logging", "the log"),
    ("std::fs", "files"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("std::time::SystemTime", "the clock"),
    ("std::time::Instant", "the clock"),
    ("SystemTime", "the clock"),
    ("Instant", "the clock"),
];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(check_one).collect()
}

fn check_one(source: &Source) -> Vec<Finding> {
    let mut findings = check_manifest(source);
    if !source.is_rust() {
        return findings;
    }
    let module = module_of(&source.path);
    let top = source
        .path
        .strip_prefix("filter-user/src/")
        .map(|_| module.first().copied());
    let pure = is_pure(&source.path);
    if let Some(Some(top)) = top.filter(|top| top.is_some_and(|top| layer(top).is_none())) {
        let how = "give it its place in LAYERS of xtask/src/tidy/directions.rs";
        findings.push(Finding::new(
            &source.path,
            1,
            format!("the module {top} has no layer"),
            how,
        ));
    }
    for named in paths::named(source, &module) {
        let wrong = wrong_crate(&source.path, &named)
            .or_else(|| wrong_layer(top.flatten(), &named))
            .or_else(|| wrong_in_pure(&source.path, pure, &named));
        if let Some((what, how)) = wrong {
            findings.push(Finding::new(&source.path, source.line_at(named.at), what, how));
        }
    }
    findings
}

/// What is wrong, and how to fix it.
type Wrong = (String, &'static str);

fn wrong_crate(path: &str, named: &Named) -> Option<Wrong> {
    let (owner, never) = CRATES.iter().find(|(folder, _)| is_below(path, folder))?;
    let head = named.segments.first()?;
    let what = never
        .contains(&head.as_str())
        .then(|| format!("{owner} names {head}"))?;
    Some((what, "move what both need into filter-common"))
}

fn wrong_layer(top: Option<&str>, named: &Named) -> Option<Wrong> {
    let own = top?;
    let [root, head, ..] = named.segments.as_slice() else {
        return None;
    };
    if root != "crate" && root != "filter_user" || head == own {
        return None;
    }
    let wrong = layer(head)? >= layer(own)?;
    let what = wrong.then(|| format!("{own} names {head}, which is not below it"))?;
    Some((
        what,
        "hand the value down as an argument, or move it to the lower module",
    ))
}

fn wrong_in_pure(path: &str, pure: bool, named: &Named) -> Option<Wrong> {
    if !pure || named.in_tests {
        return None;
    }
    let full = named.segments.join("::");
    let brought = IMPURE
        .iter()
        .find(|(impure, _)| is_below_path(&full, impure))
        .map(|(_, brings)| *brings);
    // Whatever the type: `now` reads a clock.
    let clock = named
        .segments
        .last()
        .is_some_and(|last| last == "now")
        .then_some("the clock");
    let brings = brought.or(clock)?;
    if [(POLICY_READER, "files"), (COMPILER_THREADS, "threads")].contains(&(path, brings)) {
        return None;
    }
    Some((
        format!("{full} brings {brings} into a pure module"),
        "take the value as an argument",
    ))
}

/// The same for the dependencies of a crate.
fn check_manifest(source: &Source) -> Vec<Finding> {
    let Some(folder) = source.path.strip_suffix("/Cargo.toml") else {
        return Vec::new();
    };
    let Some((_, never)) = CRATES.iter().find(|(owner, _)| *owner == folder) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        let name = line
            .split(['.', '=', ' '])
            .next()
            .unwrap_or_default()
            .replace('-', "_");
        let declares = line.contains('=') && never.contains(&name.as_str());
        if declares {
            let what = format!("{folder} depends on {name}");
            findings.push(Finding::new(
                &source.path,
                at + 1,
                what,
                "move what both need into filter-common",
            ));
        }
    }
    findings
}

/// The modules from the crate's root to this file: `policy::model` for `filter-user/src/policy/model.rs`.
fn module_of(path: &str) -> Vec<&str> {
    let Some((_, inside)) = path.split_once("/src/") else {
        return Vec::new();
    };
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let mut module: Vec<&str> = inside.split('/').collect();
    if matches!(module.last(), Some(&("mod" | "main" | "lib"))) {
        module.pop();
    }
    module
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn is_pure(path: &str) -> bool {
    PURE.iter()
        .any(|module| is_below(path, module) || path.strip_suffix(".rs") == Some(*module))
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn is_below_path(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(&[Source::new(path, text)])
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    fn assert_clean(path: &str, text: &str) {
        assert_eq!(whats(path, text), Vec::<String>::new(), "{path}");
    }

    #[test]
    fn a_module_names_lower_ones_and_no_higher_one() {
        assert_clean(
            "filter-user/src/engine.rs",
            "use crate::{compiler::Tables, policy::Policy, sys};",
        );
        assert_eq!(
            whats(
                "filter-user/src/compiler/mod.rs",
                "use crate::{policy::Policy,\n kernel::apply};"
            ),
            ["compiler names kernel, which is not below it"]
        );
        assert_eq!(
            whats(
                "filter-user/src/engine.rs",
                "fn f() -> filter_user::api::A { g() }"
            )
            .len(),
            1
        );
    }

    #[test]
    fn neighbours_of_one_row_do_not_name_each_other() {
        assert_eq!(whats("filter-user/src/sys.rs", "use crate::logging;").len(), 1);
        assert_clean(
            "filter-user/src/records/log.rs",
            "use crate::records::sinks; use super::sinks;",
        );
    }

    #[test]
    fn super_is_no_way_around() {
        let text = "use super::super::kernel::Map;";
        assert_eq!(
            whats("filter-user/src/policy/model.rs", text),
            ["policy names kernel, which is not below it"]
        );
        assert_clean(
            "filter-user/src/policy/model.rs",
            "mod tests { use super::super::kernel::Map; }",
        );
    }

    #[test]
    fn the_root_names_all_and_a_new_module_must_have_a_layer() {
        assert_clean("filter-user/src/main.rs", "use crate::{cli, policy}; mod cli;");
        assert_eq!(
            whats("filter-user/src/extra.rs", "fn f() {}"),
            ["the module extra has no layer"]
        );
    }

    #[test]
    fn crates_keep_their_directions() {
        assert_clean("filter-user/src/kernel/load.rs", "use filter_common::abi;");
        assert_eq!(
            whats("filter-common/src/lib.rs", "use filter_user::policy;"),
            ["filter-common names filter_user"]
        );
        assert_eq!(
            whats("filter-user/src/cli/mod.rs", "fn f() { filter_ebpf::g() }").len(),
            1
        );
        assert_clean(
            "filter-user/Cargo.toml",
            "[package]\nname = \"filter-user\"\nfilter-common.workspace = true",
        );
        assert_eq!(
            whats(
                "filter-user/Cargo.toml",
                "filter-ebpf = { path = \"../filter-ebpf\" }"
            )
            .len(),
            1
        );
    }

    #[test]
    fn pure_modules_read_no_clock_and_no_file() {
        assert_clean(
            "filter-user/src/policy/validate.rs",
            "use std::{net::IpAddr, time::Duration};",
        );
        for text in [
            "use std::{fmt, fs};",
            "use tokio::sync::mpsc;",
            "fn f() { let t = std::time::Instant::now(); }",
            "fn f() { jiff::Zoned::now(); }",
            "use crate::sys;",
        ] {
            assert_eq!(whats("filter-user/src/compiler.rs", text).len(), 1, "{text}");
        }
        assert_clean("filter-user/src/bindings/store.rs", "use std::fs;");
        assert_eq!(
            whats("filter-user/src/bindings/model.rs", "use std::fs;").len(),
            1
        );
    }

    #[test]
    fn one_file_of_the_policy_reads_files_and_tests_may() {
        assert_clean(POLICY_READER, "use std::fs;");
        assert_eq!(whats(POLICY_READER, "use std::time::SystemTime;").len(), 1);
        assert_clean("filter-user/src/policy/model.rs", "mod tests { use std::fs; }");
        assert_clean("filter-user/src/policy/tests/files.rs", "use std::fs;");
    }
}
