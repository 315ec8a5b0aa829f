//! Files that are there and not text, and a root that is not there.

use super::{BASE, ROOT, load_files, naming, told};
use crate::policy::{MemoryFiles, check_report_json, load_from};

#[test]
fn text_that_is_not_utf8_is_a_fault_where_it_begins() {
    let mut bytes = BASE.as_bytes().to_vec();
    bytes.extend(b"# \xff\n");
    let files = MemoryFiles::new([(ROOT.into(), bytes)]);
    let loaded = load_from(&files, ROOT.as_ref(), &super::context());
    assert_eq!(told(&loaded), ["policy.toml:19:3: not-utf8"]);
    assert_eq!(
        loaded.diagnostics[0].fix.as_deref(),
        Some("save the file as UTF-8")
    );
}

#[test]
fn a_line_of_sources_that_is_not_utf8_hides_no_other() {
    let list = b"10.0.0.1 # B\xfcro, Stra\xdfe\n10.0.0.2/8\n\xff\n10.0.0.3\nnowhere\n";
    let files = MemoryFiles::new([
        (ROOT.into(), naming("\"acme.txt\"").into_bytes()),
        ("acme.txt".into(), list.to_vec()),
    ]);
    let loaded = load_from(&files, ROOT.as_ref(), &super::context());
    assert_eq!(
        told(&loaded),
        [
            "acme.txt:1:13: not-utf8",
            "acme.txt:2:1: host-bits",
            "acme.txt:3:1: not-utf8",
            "acme.txt:5:1: bad-prefix"
        ]
    );
    assert!(loaded.policy.is_none());
}

#[test]
fn a_root_that_cannot_be_read_is_a_fault_of_the_root() {
    let loaded = load_files(&[]);
    assert_eq!(loaded.diagnostics.len(), 1);
    let shown = loaded.diagnostics[0].to_string();
    assert!(
        shown.starts_with("policy.toml: `policy.toml` cannot be read:"),
        "{shown}"
    );
    let why = loaded.unreadable.as_deref().unwrap();
    assert!(
        why.starts_with("`policy.toml` cannot be read:") && why.contains("permissions"),
        "{why}"
    );
    let report = check_report_json(&loaded);
    let nothing = serde_json::Value::Null;
    assert_eq!(
        (&report["hash"], &report["errors"][0]["line"]),
        (&nothing, &nothing)
    );
    // A place in a file that could be read is one.
    let loaded = load_files(&[(ROOT, &naming("\"none.txt\""))]);
    assert_eq!(told(&loaded), ["policy.toml:22:16: file-unreadable"]);
    assert!(loaded.unreadable.is_none());
    let loaded = load_files(&[]);
    assert_eq!(loaded.files[0].name.as_ref(), ROOT);
}
