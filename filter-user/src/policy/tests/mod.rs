//! The policy file from outside: text in, diagnostics or a policy out.
//!
//! In a case the offending text stands between « and »: code, file, line, column, underlined text and fix are
//! all asserted, and the corrected text must be free of that fault.

mod across;
mod enforced;
mod entries;
mod files;
mod filter;
mod generated;
mod limits;
mod serving;
mod unread;
mod whole;

use std::path::{Path, PathBuf};

use crate::policy::{Diagnostic, LoadContext, Loaded, MemoryFiles, Severity, load_from};

const ROOT: &str = "policy.toml";

/// A policy without fault or warning, that any entry may follow.
const BASE: &str = r#"version = 1
[filter]
interfaces = ["eth0"]
[[management]]
name = "ssh"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [22]
[[service]]
name = "web"
address = ["203.0.113.10"]
protocol = "tcp"
ports = [443]
[[service]]
name = "dns"
address = ["203.0.113.10"]
protocol = "udp"
ports = [53]
"#;

fn context() -> LoadContext {
    LoadContext::at("2026-06-01T00:00:00Z".parse().unwrap())
}

fn load_files(files: &[(&str, &str)]) -> Loaded {
    let files = files
        .iter()
        .map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()));
    load_from(&MemoryFiles::new(files), Path::new(ROOT), &context())
}

fn load_text(text: &str) -> Loaded {
    load_files(&[(ROOT, text)])
}

/// What is said, without what depends on places.
/// With a client whose sources are in a file.
fn naming(file: &str) -> String {
    format!("{BASE}[[client]]\nname = \"acme\"\nservices = [\"web\"]\nsources-file = {file}\n")
}

fn told(loaded: &Loaded) -> Vec<String> {
    loaded
        .diagnostics
        .iter()
        .map(|d| format!("{}:{}:{}: {}", d.file, d.line, d.column, d.code))
        .collect()
}

fn underlined<'l>(loaded: &'l Loaded, diagnostic: &Diagnostic) -> &'l str {
    let file = loaded
        .files
        .iter()
        .find(|file| file.name == diagnostic.file)
        .unwrap();
    &file.text[diagnostic.span.clone()]
}

/// Text with its marks taken out, and where they were.
fn unmarked(marked: &str) -> (String, std::ops::Range<usize>) {
    let start = marked.find('«').expect("a case marks the offending text");
    let end = marked.find('»').unwrap() - '«'.len_utf8();
    (marked.replace(['«', '»'], ""), start..end)
}

/// The case's own test shows another text that is accepted: between the marks alone nothing can be.
const NOT_CORRECTED: &str = "-";

struct Case<'a> {
    severity: Severity,
    code: &'a str,
    /// Each file's name and text; one of them marked.
    files: Vec<(&'a str, String)>,
    fix: &'a str,
    /// What to write between the marks instead.
    corrected: &'a str,
}

impl Case<'_> {
    fn check(&self) -> String {
        let (marked_name, marked) = self.files.iter().find(|(_, text)| text.contains('«')).unwrap();
        let (text, span) = unmarked(marked);
        let loaded = self.load(marked_name, &text);
        let found: Vec<&Diagnostic> = loaded
            .diagnostics
            .iter()
            .filter(|d| d.code == self.code)
            .collect();
        let [diagnostic] = found[..] else {
            panic!(
                "not exactly one {} in {:?}\n{text}",
                self.code, loaded.diagnostics
            );
        };
        let others: Vec<_> = loaded
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error && d.code != self.code)
            .collect();
        assert!(others.is_empty(), "beside {}: {others:?}\n{text}", self.code);
        assert_eq!(diagnostic.severity, self.severity, "{diagnostic}");
        assert_eq!(
            loaded.policy.is_some(),
            self.severity == Severity::Warning,
            "{diagnostic}"
        );
        assert_eq!(diagnostic.file.as_ref(), *marked_name);
        assert_eq!(
            diagnostic.span,
            span,
            "{diagnostic}: underlines {:?}",
            underlined(&loaded, diagnostic)
        );
        let before = &text[..span.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let place = (
            before.matches('\n').count() as u32 + 1,
            before[line_start..].chars().count() as u32 + 1,
        );
        assert_eq!((diagnostic.line, diagnostic.column), place, "{diagnostic}");
        assert_eq!(
            diagnostic.fix.as_deref().unwrap_or_default(),
            self.fix,
            "{diagnostic}"
        );
        if self.corrected != NOT_CORRECTED {
            self.check_corrected(marked_name, marked);
        }
        diagnostic.message.clone()
    }

    fn check_corrected(&self, marked_name: &str, marked: &str) {
        let (before, rest) = marked.split_once('«').unwrap();
        let (_, after) = rest.split_once('»').unwrap();
        let text = format!("{before}{}{after}", self.corrected);
        let loaded = self.load(marked_name, &text);
        assert!(
            loaded.policy.is_some(),
            "corrected: {:?}\n{text}",
            loaded.diagnostics
        );
        assert!(
            loaded.diagnostics.iter().all(|d| d.code != self.code),
            "{:?}\n{text}",
            loaded.diagnostics
        );
    }

    fn load(&self, name: &str, text: &str) -> Loaded {
        let files: Vec<(&str, &str)> = self
            .files
            .iter()
            .map(|(other, content)| (*other, if *other == name { text } else { content.as_str() }))
            .collect();
        load_files(&files)
    }
}

/// A fault of an entry that follows the base; answers the message.
#[track_caller]
fn fault(code: &str, marked: &str, fix: &str, corrected: &str) -> String {
    let files = vec![(ROOT, format!("{BASE}{marked}"))];
    Case {
        severity: Severity::Error,
        code,
        files,
        fix,
        corrected,
    }
    .check()
}

/// A warning of an entry that follows the base; answers the message.
#[track_caller]
fn warning(code: &str, marked: &str, fix: &str, corrected: &str) -> String {
    let files = vec![(ROOT, format!("{BASE}{marked}"))];
    Case {
        severity: Severity::Warning,
        code,
        files,
        fix,
        corrected,
    }
    .check()
}

/// A fault or warning of a whole file.
#[track_caller]
fn whole(severity: Severity, code: &str, marked: &str, fix: &str, corrected: &str) -> String {
    Case {
        severity,
        code,
        files: vec![(ROOT, marked.to_owned())],
        fix,
        corrected,
    }
    .check()
}

#[test]
fn the_base_has_no_fault_and_no_warning() {
    let loaded = load_text(BASE);
    assert_eq!(told(&loaded), Vec::<String>::new());
    assert!(loaded.policy.is_some());
}
