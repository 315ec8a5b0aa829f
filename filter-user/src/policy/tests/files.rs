//! Includes and files of sources: which are read, in which order, and what is wrong with them.

use std::path::Path;

use super::{BASE, Case, ROOT, context, load_files, load_text, naming, told};
use crate::policy::bounds::FILE_BYTES_MAX;
use crate::policy::{DiskFiles, LoadContext, Severity, load, load_from};

const CLIENT: &str = "[[client]]\nname = \"acme\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"web\"]\n";

fn including(include: &str) -> String {
    BASE.replacen("version = 1", &format!("version = 1\ninclude = [{include}]"), 1)
}

#[track_caller]
fn case(severity: Severity, code: &str, files: &[(&str, &str)], fix: &str, corrected: &str) -> String {
    let files = files
        .iter()
        .map(|(name, text)| (*name, (*text).to_owned()))
        .collect();
    Case {
        severity,
        code,
        files,
        fix,
        corrected,
    }
    .check()
}

#[test]
fn included_files_are_read_in_byte_order_each_once() {
    let client = |name: &str, source: &str| CLIENT.replace("acme", name).replace("198.51.100.0/24", source);
    let loaded = load_files(&[
        (
            ROOT,
            &including("\"clients.d/*.toml\", \"clients.d/b.toml\", \"*.toml\""),
        ),
        ("clients.d/b.toml", &client("b", "10.0.0.2")),
        ("clients.d/B.toml", &client("upper", "10.0.0.3")),
        ("clients.d/a.toml", &client("a", "10.0.0.1")),
        ("clients.d/.hidden.toml", "fault"),
        ("other.toml", &client("other", "10.0.0.4")),
    ]);
    assert_eq!(told(&loaded), Vec::<String>::new());
    let names: Vec<String> = loaded
        .policy
        .unwrap()
        .clients
        .into_iter()
        .map(|client| client.name)
        .collect();
    assert_eq!(names, ["upper", "a", "b", "other"]);
    let files: Vec<&str> = loaded.files.iter().map(|file| file.relative.as_str()).collect();
    assert_eq!(
        files,
        [
            ROOT,
            "clients.d/B.toml",
            "clients.d/a.toml",
            "clients.d/b.toml",
            "other.toml"
        ]
    );
}

#[test]
fn an_included_file_holds_entries_only() {
    let root = including("\"a.toml\"");
    let fix = "move it there; an included file holds service, client, deny, management and expect";
    for table in [
        "include = [\"b.toml\"]",
        "[filter]",
        "[[publisher]]",
        "[daemon]",
        "[[listener]]",
        "[[sink]]",
    ] {
        let name = table
            .trim_matches(|c: char| !c.is_ascii_lowercase())
            .split(' ')
            .next()
            .unwrap();
        let marked = table.replacen(name, &format!("«{name}»"), 1);
        let loaded = load_files(&[(ROOT, &root), ("a.toml", &marked.replace(['«', '»'], ""))]);
        assert_eq!(loaded.diagnostics.len(), 1, "{table}: {:?}", loaded.diagnostics);
        assert_eq!(
            (loaded.diagnostics[0].code, loaded.diagnostics[0].fix.as_deref()),
            ("not-in-include", Some(fix))
        );
        assert_eq!(loaded.diagnostics[0].file.as_ref(), "a.toml");
    }
    let message = case(
        Severity::Error,
        "not-in-include",
        &[(ROOT, &root), ("a.toml", &format!("«version» = 1\n{CLIENT}"))],
        "remove it: the root file's counts",
        "#",
    );
    assert_eq!(message, "a second `version`");
    let files = [
        (ROOT, root.as_str()),
        (
            "a.toml",
            "[[«clients»]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\nservices = [\"*\"]",
        ),
    ];
    case(
        Severity::Error,
        "unknown-key",
        &files,
        "did you mean `client`?",
        "client",
    );
}

#[test]
fn faults_of_every_file_are_shown_at_once() {
    let loaded = load_files(&[
        (ROOT, &including("\"*.d/*.toml\"").replace("[443]", "[0]")),
        ("a.d/a.toml", "[[client]\nname = 1"),
        (
            "b.d/b.toml",
            &CLIENT
                .replace("/24", "/16")
                .replace("\"web\"", "\"wbe\", \"nosuch\""),
        ),
        (
            "c.d/c.toml",
            &CLIENT.replace("acme", "a b").replace("sources =", "sorces ="),
        ),
        ("c.d/list.txt", "10.0.0.1/8\n"),
        (
            "d.d/d.toml",
            "[[client]]\nname = \"d\"\nservices = [\"dns\"]\nsources-file = \"../c.d/list.txt\"",
        ),
    ]);
    assert_eq!(
        told(&loaded),
        [
            "policy.toml:14:10: port-out-of-range",
            "a.d/a.toml:1:10: syntax",
            "b.d/b.toml:3:12: host-bits",
            "c.d/c.toml:1:1: missing-key",
            "c.d/c.toml:2:8: bad-name",
            "c.d/c.toml:3:1: unknown-key",
            "c.d/list.txt:1:1: host-bits",
        ]
    );
    assert!(loaded.policy.is_none());
}

#[test]
fn a_broken_root_still_lets_its_includes_be_checked() {
    let root = including("\"a.toml\"").replace("[filter]", "[filter");
    let loaded = load_files(&[
        (ROOT, &root),
        ("a.toml", "[[deny]]\nname = \"d\"\nsources = [\"10.0.0.1/8\"]"),
    ]);
    assert_eq!(
        told(&loaded),
        ["policy.toml:3:8: syntax", "a.toml:3:12: host-bits"]
    );
}

#[test]
fn a_pattern_that_matches_nothing_is_a_warning_and_a_missing_file_a_fault() {
    let none = including("«\"clients.d/*.toml\"»");
    let other = ("a.toml", CLIENT);
    case(
        Severity::Warning,
        "include-matches-nothing",
        &[(ROOT, &none), other],
        "correct or remove it",
        "\"*.toml\"",
    );
    let missing = including("«\"b.toml\"»");
    let fix = "correct the path or the file's permissions";
    case(
        Severity::Error,
        "file-unreadable",
        &[(ROOT, &missing), other],
        fix,
        "\"a.toml\"",
    );
}

#[test]
fn includes_stay_below_the_roots_folder() {
    let inside = "write a relative path that stays inside it";
    for path in ["/etc/a.toml", "../a.toml", "b/../../a.toml", ""] {
        let root = including(&format!("«\"{path}\"»"));
        case(
            Severity::Error,
            "include-path",
            &[(ROOT, &root), ("a.toml", CLIENT)],
            inside,
            "\"./b/../a.toml\"",
        );
    }
    let root = including("«\"**/*.toml\"»");
    let fix = "name the folders, as in \"clients.d/*.toml\"";
    case(
        Severity::Error,
        "include-path",
        &[(ROOT, &root), ("a.toml", CLIENT)],
        fix,
        "\"a.toml\"",
    );
}

#[test]
fn link_that_leads_out_of_the_roots_folder_is_refused_and_one_inside_is_followed() {
    let host = tempfile::tempdir().unwrap();
    let (policy, other) = (host.path().join("policy"), host.path().join("other"));
    let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, policy.join(name)).unwrap();
    for folder in [&policy, &other] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("client"), CLIENT).unwrap();
        std::fs::write(folder.join("list"), "198.51.100.0/24\n").unwrap();
    }
    link(Path::new("client"), "inside.toml");
    link(&policy.join("list"), "inside.txt");
    link(&other.join("client"), "outside.toml");
    link(Path::new("../other/list"), "outside.txt");
    link(&other, "linked.d");
    let loaded = |include: &str, list: &str| {
        let root = including(&format!("\"{include}\"")) + "[[client]]\nname = \"listed\"\n";
        let root = format!("{root}services = [\"web\"]\nsources-file = \"{list}\"\n");
        std::fs::write(policy.join(ROOT), root).unwrap();
        load(&policy.join(ROOT), &context())
    };
    let accepted = loaded("inside.*ml", "inside.txt");
    assert!(accepted.policy.is_some(), "{:?}", told(&accepted));
    for (include, list, path, real) in [
        ("outside.toml", "inside.txt", "outside.toml", "client"),
        ("out*.toml", "inside.txt", "outside.toml", "client"),
        ("linked.d/client", "inside.txt", "linked.d/client", "client"),
        ("inside.toml", "outside.txt", "outside.txt", "list"),
        ("inside.toml", "linked.d/list", "linked.d/list", "list"),
    ] {
        let refused = loaded(include, list);
        let [fault] = refused.diagnostics.as_slice() else {
            panic!("{include}, {list}: {:?}", told(&refused));
        };
        assert_eq!(fault.code, "include-path");
        let real = other.canonicalize().unwrap().join(real);
        let (path, real) = (
            policy.join(path).display().to_string(),
            real.display().to_string(),
        );
        assert!(
            fault.message.contains(&format!("`{path}`")) && fault.message.contains(&format!("`{real}`")),
            "{}",
            fault.message
        );
    }
}

#[test]
fn a_file_of_sources_holds_a_prefix_a_line() {
    let root = naming("\"lists/acme.txt\"");
    let list =
        "\u{feff}# acme\r\n\r\n198.51.100.0/24 # office\r\n  2001:db8::/48\r\n192.0.2.7\n198.51.100.0/24";
    let loaded = load_files(&[(ROOT, &root), ("lists/acme.txt", list)]);
    assert_eq!(told(&loaded), Vec::<String>::new());
    let policy = loaded.policy.unwrap();
    let sources: Vec<String> = policy.clients[0]
        .sources
        .iter()
        .map(|s| format!("{} {}", s.prefix, s.origin.line))
        .collect();
    assert_eq!(
        sources,
        ["192.0.2.7/32 5", "198.51.100.0/24 3", "2001:db8::/48 4"]
    );
    assert_eq!(
        policy.clients[0].sources[0].origin.file.as_ref(),
        "lists/acme.txt"
    );
}

#[test]
fn faults_of_a_file_of_sources_are_placed_in_it() {
    let root = naming("\"acme.txt\"");
    let list = "# list\n  198.51.100.0/24\n\t«10.1.2.3/24» # ä\n";
    let fix = "write 10.1.2.0/24 or 10.1.2.3/32";
    case(
        Severity::Error,
        "host-bits",
        &[(ROOT, &root), ("acme.txt", list)],
        fix,
        "10.1.2.3",
    );
    let fix = "write an address or a prefix, such as 192.0.2.7, 198.51.100.0/24 or 2001:db8::/48";
    case(
        Severity::Error,
        "bad-prefix",
        &[(ROOT, &root), ("acme.txt", "«ä b»")],
        fix,
        "10.1.2.3",
    );
}

#[test]
fn a_file_of_sources_is_there_and_not_empty() {
    let empty = ("empty.txt", "# nobody\n");
    let full = ("full.txt", "10.0.0.1");
    let fix = "put at least one prefix into it";
    case(
        Severity::Error,
        "empty-list",
        &[(ROOT, &naming("«\"empty.txt\"»")), empty, full],
        fix,
        "\"full.txt\"",
    );
    let fix = "correct the path or the file's permissions";
    case(
        Severity::Error,
        "file-unreadable",
        &[(ROOT, &naming("«\"none.txt\"»")), full],
        fix,
        "\"full.txt\"",
    );
    let fix = "write a relative path that stays inside it";
    case(
        Severity::Error,
        "include-path",
        &[(ROOT, &naming("«\"../full.txt\"»")), full],
        fix,
        "\"full.txt\"",
    );
}

#[test]
fn a_file_that_two_clients_name_is_read_and_judged_once() {
    let root = format!(
        "{}[[client]]\nname = \"b\"\nservices = [\"dns\"]\nsources-file = \"acme.txt\"\n",
        naming("\"acme.txt\"")
    );
    let loaded = load_files(&[(ROOT, &root), ("acme.txt", "10.0.0.1\nx\n")]);
    assert_eq!(told(&loaded), ["acme.txt:2:1: bad-prefix"]);
    let loaded = load_files(&[(ROOT, &root), ("acme.txt", "10.0.0.1\n")]);
    assert_eq!(loaded.files.len(), 2);
    assert!(
        loaded
            .policy
            .unwrap()
            .clients
            .iter()
            .all(|client| client.sources.len() == 1)
    );
}

#[test]
fn a_file_past_its_bound_is_a_fault() {
    let mut text = BASE.to_owned();
    text.push_str(&"#".repeat(FILE_BYTES_MAX - text.len()));
    assert!(load_text(&text).policy.is_some());
    text.push('#');
    assert_eq!(told(&load_text(&text)), ["policy.toml:1:1: file-too-large"]);
}

#[test]
fn the_hash_follows_names_and_contents_below_the_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("other-name.toml");
    std::fs::create_dir(folder.path().join("clients.d")).unwrap();
    std::fs::write(&root, including("\"clients.d/*.toml\"")).unwrap();
    std::fs::write(folder.path().join("clients.d/a.toml"), CLIENT).unwrap();
    let context = LoadContext::at("2026-06-01T00:00:00Z".parse().unwrap());
    let disk = load(&root, &context);
    assert_eq!(told(&disk), Vec::<String>::new());
    assert_eq!(
        disk.files[1].name.as_ref(),
        folder.path().join("clients.d/a.toml").to_str().unwrap()
    );
    let hash = |files: &[(&str, &str)]| load_files(files).hash;
    let including = including("\"clients.d/*.toml\"");
    assert_eq!(
        disk.hash,
        hash(&[(ROOT, &including), ("clients.d/a.toml", CLIENT)])
    );
    assert_ne!(
        disk.hash,
        hash(&[(ROOT, &including), ("clients.d/b.toml", CLIENT)])
    );
    assert_ne!(
        disk.hash,
        hash(&[
            (ROOT, &including),
            ("clients.d/a.toml", &CLIENT.replace("acme", "b"))
        ])
    );
    assert_eq!(disk.hash.len(), 64);
    assert_eq!(load_from(&DiskFiles, &root, &context).hash, disk.hash);
}
