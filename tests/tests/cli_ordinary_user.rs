//! The verbs that need no root, as a user who has none.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use keyfence_tests::harness::{keyfence_path, output, run, system};
use serde_json::Value;
use tempfile::TempDir;

const VALID: &str = r#"version = 1
[filter]
interfaces = ["does-not-exist0"]
[[service]]
name = "api"
protocol = "tcp"
ports = [443]
[[client]]
name = "acme"
sources = ["198.51.100.0/24"]
services = ["api"]
[[management]]
name = "ssh"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [22]
"#;

/// A user without rights, with a copy of the program that it can reach.
struct Nobody {
    folder: TempDir,
}

impl Nobody {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        run(system("chmod").arg("755").arg(folder.path()));
        fs::copy(keyfence_path(), folder.path().join("keyfence")).expect("the program can be copied");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("a temporary folder can be written");
    }

    /// Where the tests do not run as root, they are an ordinary user's already.
    fn keyfence(&self, arguments: &[&str]) -> Output {
        let program = self.path().join("keyfence");
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = system("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(program);
            command
        } else {
            std::process::Command::new(program)
        };
        output(
            command
                .args(arguments)
                .current_dir(self.path())
                .stdin(Stdio::null()),
        )
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("programs write text")
}

#[test]
fn check_of_a_valid_policy_ends_with_0() {
    let nobody = Nobody::new();
    nobody.write("good.toml", VALID);
    let output = nobody.keyfence(&["check", "good.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(
        said.starts_with("good.toml: valid: 1 service, 1 client with 1 source, 0 denies, 1 management entry"),
        "{said}"
    );
}

#[test]
fn check_shows_all_faults_of_all_files_and_ends_with_3() {
    let nobody = Nobody::new();
    let faulty = VALID.replace("ports = [443]", "ports = [443, 70000]");
    nobody.write(
        "bad.toml",
        &faulty.replace("version = 1", "version = 1\ninclude = [\"more.toml\"]"),
    );
    nobody.write(
        "more.toml",
        "[[deny]]\nname = \"d\"\nsources = [\"10.1.2.3/24\"]\n",
    );
    let output = nobody.keyfence(&["check", "bad.toml"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    for part in ["bad.toml:8:15", "70000", "more.toml:3:12", "10.1.2.0/24"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[test]
fn check_as_json_is_one_object_of_schema_1() {
    let nobody = Nobody::new();
    nobody.write("good.toml", VALID);
    nobody.write("bad.toml", &VALID.replace("ports = [443]", "ports = [70000]"));
    for (file, exit, valid, errors) in [("good.toml", 0, true, 0), ("bad.toml", 3, false, 1)] {
        let output = nobody.keyfence(&["check", file, "--json"]);
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{file}: {}",
            text(&output.stderr)
        );
        let object: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(
            (&object["schema"], &object["valid"]),
            (&1.into(), &valid.into()),
            "{object:#}"
        );
        assert_eq!(
            object["errors"].as_array().map(Vec::len),
            Some(errors),
            "{object:#}"
        );
        assert_eq!(object["file"], file);
    }
}

#[test]
fn check_as_json_tells_each_warning_once() {
    let nobody = Nobody::new();
    let more = "[[listener]]\naddress = \"tcp:192.0.2.1:9\"\nroles = [\"read\"]\n\
                tls = { certificate = \"/a\", key = \"/b\", client-ca = \"/c\" }\n";
    nobody.write("warned.toml", &format!("{VALID}{more}"));
    let output = nobody.keyfence(&["check", "warned.toml", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let object: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let warnings = object["warnings"].as_array().expect("a list");
    let told = warnings
        .iter()
        .filter(|warning| warning.to_string().contains("does not enforce tls"));
    assert_eq!(told.count(), 1, "{object:#}");
}

#[test]
fn file_that_cannot_be_read_is_no_valid_policy() {
    let nobody = Nobody::new();
    let output = nobody.keyfence(&["check", "missing.toml"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("missing.toml"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn wrong_usage_ends_with_2_and_a_daemon_that_is_not_there_with_5() {
    let nobody = Nobody::new();
    assert_eq!(nobody.keyfence(&["chekc"]).status.code(), Some(2));
    let output = nobody.keyfence(&["status", "--socket", "nowhere.sock"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(
        text(&output.stderr).contains("nowhere.sock"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn version_is_told_as_text_and_as_json() {
    let nobody = Nobody::new();
    let output = nobody.keyfence(&["version", "--json"]);
    let object: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(
        (&object["schema"], &object["policy_version"]),
        (&1.into(), &1.into())
    );
    assert_eq!(object["layout_version"], filter_common::abi::LAYOUT_VERSION);
    let line = text(&nobody.keyfence(&["version"]).stdout);
    let version = object["version"].as_str().expect("a text");
    assert!(line.starts_with(&format!("keyfence {version} ")), "{line}");
}

#[test]
fn completions_are_read_by_their_shell() {
    let nobody = Nobody::new();
    let output = nobody.keyfence(&["generate", "completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    let script = nobody.path().join("completions.bash");
    fs::write(&script, &output.stdout).expect("a temporary folder can be written");
    run(system("bash").arg("-n").arg(&script));
    let offered = ". ./completions.bash; COMP_WORDS=(keyfence che); COMP_CWORD=1; _keyfence keyfence che keyfence; \
                   printf '%s\\n' \"${COMPREPLY[@]}\"";
    let offered = run(system("bash").args(["-c", offered]).current_dir(nobody.path()));
    assert_eq!(offered, "check\n");
}

#[test]
fn manual_has_a_page_for_the_program() {
    let nobody = Nobody::new();
    let output = nobody.keyfence(&["generate", "man"]);
    assert_eq!(output.status.code(), Some(0));
    let page = text(&output.stdout);
    assert!(
        page.contains(".TH") && page.contains("keyfence\\-check(8)"),
        "{page}"
    );
}

#[test]
fn closed_output_is_no_panic() {
    let nobody = Nobody::new();
    let mut child = std::process::Command::new(nobody.path().join("keyfence"))
        .args(["generate", "man"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("keyfence can be started");
    drop(child.stdout.take());
    let _ = std::io::stdout().flush();
    let output = child.wait_with_output().expect("it ends");
    assert!(
        !text(&output.stderr).contains("panicked"),
        "{}",
        text(&output.stderr)
    );
}
