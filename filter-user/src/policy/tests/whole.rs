//! The contract's own sample, renderings, the report, the reference.

use super::{BASE, ROOT, load_files, load_text, told};
use crate::policy::{Colour, check_report_json, print, reference, render, render_lines};

/// The block of the contract, with its one elided fingerprint written out.
const SAMPLE: &str = include_str!("sample.toml");

#[test]
fn the_contracts_sample_loads() {
    let sample = SAMPLE.replace("sha256:…", &format!("sha256:{}", "0123456789abcdef".repeat(4)));
    let loaded = load_files(&[
        (ROOT, &sample),
        (
            "clients.d/a.toml",
            "[[deny]]\nname = \"stub\"\nsources = [\"192.0.2.66\"]\n",
        ),
        ("acme.txt", "# stub\n198.51.100.1\n"),
    ]);
    assert_eq!(told(&loaded), Vec::<String>::new());
    let policy = loaded.policy.unwrap();
    assert_eq!(
        (policy.services.len(), policy.clients.len(), policy.denies.len()),
        (1, 1, 2)
    );
    assert_eq!(policy.clients[0].sources.len(), 4);
    assert_eq!(
        (
            policy.publishers.len(),
            policy.expects.len(),
            policy.listeners.len()
        ),
        (1, 1, 2)
    );
    assert_eq!(
        policy.publishers[0].lease_max,
        Some(std::time::Duration::from_secs(86_400))
    );
}

/// What the contract shows as defaults are the defaults.
#[test]
fn the_contracts_defaults_are_the_defaults() {
    let bare = load_text(BASE).policy.unwrap();
    let start = SAMPLE.find("[daemon]").unwrap();
    let written = load_text(&format!("{BASE}{}", &SAMPLE[start..])).policy.unwrap();
    assert_eq!(bare.daemon, written.daemon);
    for (bare, written) in bare.listeners.iter().zip(&written.listeners) {
        assert_eq!(
            (&bare.address, &bare.roles, bare.mode),
            (&written.address, &written.roles, written.mode)
        );
    }
    assert_eq!(bare.credentials.header, written.credentials.header);
    assert_eq!(bare.credentials.scheme, written.credentials.scheme);
    assert_eq!(bare.credentials.id_pattern, written.credentials.id_pattern);
    assert_eq!(bare.authorize.address_header, written.authorize.address_header);
    assert_eq!(bare.records.interval, written.records.interval);
    let (a, b) = (&bare.sinks[0], &written.sinks[0]);
    assert_eq!(
        (a.kind, &a.path, a.rotate_size, a.keep_size, a.keep_age),
        (b.kind, &b.path, b.rotate_size, b.keep_size, b.keep_age)
    );
}

#[test]
fn people_see_the_offending_text_underlined_and_what_to_write() {
    let loaded = load_text(&format!(
        "{BASE}[[deny]]\nname = \"d\"\nsources = [\"10.1.2.3/24\"]\n"
    ));
    let text = render(&loaded, Colour::Never);
    for part in [
        "host-bits",
        "policy.toml:21:12: 10.1.2.3/24 has host bits set",
        "21 │ sources = [\"10.1.2.3/24\"]",
        "here",
        "help: write 10.1.2.0/24 or 10.1.2.3/32",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
    assert!(
        text.starts_with("the policy is invalid: 1 fault\n\nhost-bits"),
        "{text}"
    );
    assert!(!text.contains("\n\n\n") && text == text.trim_end(), "{text:?}");
    assert!(render(&loaded, Colour::Always).contains('\u{1b}'));
    let line = "policy.toml:21:12: 10.1.2.3/24 has host bits set; write 10.1.2.0/24 or 10.1.2.3/32\n";
    assert_eq!(render_lines(&loaded), line);
}

#[test]
fn a_thousand_are_shown_and_the_rest_is_counted() {
    let sources = "\"x\", ".repeat(1_012);
    let loaded = load_text(&format!("{BASE}[[deny]]\nname = \"d\"\nsources = [{sources}]\n"));
    assert_eq!(loaded.errors, 1_012);
    let lines = render_lines(&loaded);
    assert_eq!(lines.lines().count(), 1_001);
    assert!(lines.ends_with("\nand 12 more\n"));
    let rendered = render(&loaded, Colour::Never);
    assert!(rendered.ends_with("\nand 12 more"));
    assert!(rendered.starts_with("the policy is invalid: 1012 faults\n\n"));
    let report = check_report_json(&loaded);
    assert_eq!(
        (
            report["errors"].as_array().unwrap().len(),
            &report["errors_not_shown"]
        ),
        (1_000, &12.into())
    );
}

#[test]
fn far_more_than_are_kept_are_still_counted() {
    let sources = "\"x\",".repeat(50_000);
    let loaded = load_text(&format!("{BASE}[[deny]]\nname = \"d\"\nsources = [{sources}]\n"));
    assert_eq!((loaded.errors, loaded.diagnostics.len()), (50_000, 10_000));
    assert!(render_lines(&loaded).ends_with("\nand 49000 more\n"));
    assert_eq!(loaded.diagnostics[9_999].column, 12 + 4 * 9_999);
}

#[test]
fn terminals_are_shown_no_control_characters() {
    let files = [(
        ROOT,
        format!("{BASE}[[client]]\nname = \"a\"\nservices = [\"web\"]\nsources-file = \"a.txt\"\n"),
    )];
    let loaded = load_files(&[(ROOT, &files[0].1), ("a.txt", "\u{1b}[2J\u{202e}x\n")]);
    let shown = render(&loaded, Colour::Never) + &render_lines(&loaded);
    assert_eq!(told(&loaded), ["a.txt:1:1: bad-prefix"]);
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{202e}'),
        "{shown}"
    );
}

#[test]
fn columns_count_characters() {
    let loaded = load_text(&format!(
        "{BASE}[[deny]]\nname = \"d\"\nnote = \"äöü\"\nlabels = {{ \"ä\" = \"€\", b = 7 }}\nsources = [\"10.0.0.1\"]"
    ));
    assert_eq!(told(&loaded), ["policy.toml:22:27: wrong-type"]);
}

#[test]
fn the_report_is_one_object() {
    let loaded = load_text(&format!(
        "{BASE}[[client]]\nname = \"a\"\nservices = [\"web\"]\nsources = [\"10.0.0.0/8\", \"10.0.0.1\"]\n"
    ));
    let report = check_report_json(&loaded);
    assert_eq!(
        (&report["schema"], &report["valid"], &report["file"]),
        (&1.into(), &true.into(), &ROOT.into())
    );
    let summary = &report["summary"];
    assert_eq!(
        (&summary["services"], &summary["clients"], &summary["sources"]),
        (&2.into(), &1.into(), &3.into())
    );
    assert_eq!(report["hash"], loaded.hash);
    let bad = check_report_json(&load_text("version = 1\n[filter]\ninterfaces = []"));
    assert_eq!(
        (&bad["valid"], &bad["summary"]),
        (&false.into(), &serde_json::Value::Null)
    );
    let fault = &bad["errors"][0];
    assert_eq!(
        (&fault["code"], &fault["line"], &fault["column"]),
        (&"empty-list".into(), &3.into(), &14.into())
    );
    assert_eq!(
        (&fault["severity"], &fault["span"]),
        (&"error".into(), &serde_json::json!([34, 36]))
    );
}

#[test]
fn the_reference_names_every_key() {
    let text = reference();
    for table in ["## `[filter]`", "## `[[service]]`", "## `[[sink]]`", "## Buckets"] {
        assert!(text.contains(table), "{table}");
    }
    for row in [
        "| `interfaces` | list of interface name or glob, at least 1, at most 64 | required |",
        "| `mode` | `\"enforce\"`, `\"observe\"` | `\"enforce\"` |",
        "| `keep-age` | duration, 1m to 3650d | `\"90d\"` |",
    ] {
        assert!(text.contains(row), "{row} in\n{text}");
    }
    assert!(
        text.lines()
            .all(|line| !line.starts_with("| ") || line.replace("\\|", "").matches('|').count() == 5)
    );
}

#[test]
fn a_printed_policy_reads_as_a_person_would_write_it() {
    let text = print(&load_text(BASE).policy.unwrap());
    assert!(
        text.starts_with("version = 1\n\n[filter]\ninterfaces = [\"eth0\"]\nmode = \"enforce\"\n"),
        "{text}"
    );
    assert!(text.contains("\n[[service]]\nname = \"web\"\nenvironment = \"production\"\naddress = [\"203.0.113.10\"]\nprotocol = \"tcp\"\nports = [443]\n"));
}
