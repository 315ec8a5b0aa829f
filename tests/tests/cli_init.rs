//! `init` on a host of its own: what it writes is valid, and names what the host has.

use std::net::TcpListener;

use keyfence_tests::harness::{INSIDE, SERVER, Site, keyfence, keyfence_path, output, system};

#[test]
fn policy_of_init_is_valid_and_names_interfaces_and_listening_sockets() {
    let site = Site::raw();
    let bound = site.server.inside(|| TcpListener::bind((SERVER.v4, 4711)));
    let _listening = bound.expect("the server may listen");
    let file = site.folder().join("init.toml");
    // Its own view of /sys, as on a host of its own.
    let mut init = system("ip");
    init.args(["netns", "exec", site.server.name()])
        .arg(keyfence_path());
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
    let check = output(keyfence().arg("check").arg(&file));
    assert_eq!(
        check.status.code(),
        Some(0),
        "{}\n{policy}",
        String::from_utf8_lossy(&check.stderr)
    );

    // A file that exists is left as it is.
    let mut init = system("ip");
    init.args(["netns", "exec", site.server.name()])
        .arg(keyfence_path());
    let again = output(init.args(["init", "--output"]).arg(&file));
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), policy);
}
