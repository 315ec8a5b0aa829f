//! `init` on a host of its own: what it writes is valid, and names what the host has.

use std::net::TcpListener;

use keyfence_tests::harness::{INSIDE, SERVER, Site, keyfence, keyfence_path, output};

#[test]
fn policy_of_init_is_valid_and_names_interfaces_and_listening_sockets() {
    let site = Site::raw();
    let bound = site.server.inside(|| TcpListener::bind((SERVER.v4, 4711)));
    let _listening = bound.expect("the server may listen");
    let file = site.folder().join("init.toml");
    // What is in /sys is another namespace's.
    let mut init = site.server.command(keyfence_path());
    let written = output(init.args(["init", "--output"]).arg(&file));
    assert_eq!(
        written.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&written.stderr)
    );
    let policy = std::fs::read_to_string(&file).expect("it is written");
    for part in [INSIDE, "4711", "mode", "observe"] {
        assert!(policy.contains(part), "{part} is not in\n{policy}");
    }
    let table: toml::Table = policy.parse().expect("it is TOML");
    assert_eq!(
        table["filter"]["interfaces"],
        toml::Value::from(vec![INSIDE]),
        "{policy}"
    );
    let check = output(keyfence().arg("check").arg(&file));
    assert_eq!(
        check.status.code(),
        Some(0),
        "{}\n{policy}",
        String::from_utf8_lossy(&check.stderr)
    );

    // A file that exists is left as it is.
    let mut init = site.server.command(keyfence_path());
    let again = output(init.args(["init", "--output"]).arg(&file));
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), policy);
}
