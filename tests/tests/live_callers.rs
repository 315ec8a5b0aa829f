//! Publishers and operators by the groups of their processes, as the kernel tells them.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use keyfence_tests::harness::{Listeners, output, system};

/// Two groups that every Debian has.
const ENTRIES: &str = r#"
[[publisher]]
name = "gateway"
group = "daemon"
services = ["payments"]
environments = ["production"]
[[publisher]]
name = "billing"
group = "sys"
services = ["payments"]
environments = ["production"]
[[listener]]
address = "unix:SOCKET"
mode = "0666"
roles = ["publish"]
"#;

/// Asks for a list as an ordinary user with these groups; answers status and body.
fn list_as(listeners: &Listeners, groups: &[&str]) -> (String, String) {
    list_by(listeners, 54321, groups, &[])
}

/// The same as another user, by way of another command.
fn list_by(listeners: &Listeners, user: u32, groups: &[&str], by: &[&str]) -> (String, String) {
    let groups = match groups {
        [] => "--clear-groups".to_owned(),
        groups => format!("--groups={}", groups.join(",")),
    };
    let mut command = system("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}"), groups]);
    command.args(by).args(["curl", "--silent"]);
    command
        .args(["--write-out", "\n%{http_code}", "--unix-socket"])
        .arg(listeners.socket());
    let output = output(command.arg("http://keyfence/v1/bindings"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    (status.to_owned(), body.to_owned())
}

#[test]
fn publisher_is_told_by_any_of_its_groups_and_two_are_refused() {
    let listeners = Listeners::start(ENTRIES);
    set_permissions(listeners.folder(), Permissions::from_mode(0o755)).expect("the folder is ours");
    let own = list_as(&listeners, &["daemon"]);
    assert_eq!(own.0, "200", "{}", own.1);
    // The last of many: the kernel tells them all.
    let many: Vec<String> = (60_000..60_200).map(|gid: u32| gid.to_string()).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many.push("sys");
    let last = list_as(&listeners, &many);
    assert_eq!(last.0, "200", "{}", last.1);
    let none = list_as(&listeners, &[]);
    assert!(
        none.0 == "403" && none.1.contains("not-a-publisher"),
        "{}",
        none.1
    );
    let both = list_as(&listeners, &["daemon", "sys"]);
    assert_eq!(both.0, "403", "{}", both.1);
    assert!(
        both.1.contains("billing") && both.1.contains("gateway"),
        "{}",
        both.1
    );
}

/// The user that stands for all that cannot be told: of another namespace, say.
const OVERFLOW: u32 = 65_534;

#[test]
fn caller_in_a_user_namespace_is_who_it_is_outside() {
    let listeners = Listeners::start(&ENTRIES.replace("group = \"sys\"", "user = \"root\""));
    set_permissions(listeners.folder(), Permissions::from_mode(0o755)).expect("the folder is ours");
    // Who calls itself root there is nobody's root here; its groups go along.
    let as_root = ["unshare", "--user", "--map-root-user"];
    let (status, body) = list_by(&listeners, 54321, &[], &as_root);
    assert!(
        status == "403" && body.contains("not-a-publisher"),
        "{status} {body}"
    );
    let (status, body) = list_by(&listeners, 54321, &["daemon"], &as_root);
    assert_eq!(status, "200", "{body}");
    // Without any mapping it sees itself as the overflow user, and is still told by its own.
    let (status, body) = list_by(&listeners, 54321, &["daemon"], &["unshare", "--user"]);
    assert_eq!(status, "200", "{body}");
    let (status, body) = list_by(&listeners, 0, &[], &["unshare", "--user"]);
    assert_eq!(status, "200", "{body}");
}

#[test]
fn overflow_user_is_no_publisher_whatever_the_policy_says() {
    let listeners = Listeners::start(&ENTRIES.replace("group = \"sys\"", "user = \"nobody\""));
    set_permissions(listeners.folder(), Permissions::from_mode(0o755)).expect("the folder is ours");
    for groups in [&[][..], &["daemon"]] {
        let (status, body) = list_by(&listeners, OVERFLOW, groups, &[]);
        assert!(
            status == "403" && body.contains("not-a-publisher"),
            "{groups:?}: {status} {body}"
        );
    }
}

#[test]
fn operator_is_told_by_its_groups_as_the_kernel_has_them_like_a_publisher() {
    let policy = ENTRIES.replace("[\"publish\"]", "[\"publish\", \"operate\"]");
    let listeners = Listeners::start(&format!(
        "{policy}[daemon]\noperators = [\"@adm\", \"@nogroup\"]\n"
    ));
    set_permissions(listeners.folder(), Permissions::from_mode(0o755)).expect("the folder is ours");
    let as_root = ["unshare", "--user", "--map-root-user"];
    for (groups, by, expected) in [
        (&["adm"][..], &[][..], "200"),
        (&["tty", "adm"], &as_root, "200"),
        (&[], &[], "403"),
        (&["tty"], &as_root, "403"),
        // What stands for all groups that cannot be told is none.
        (&["nogroup"], &[], "403"),
    ] {
        let (status, body) = list_by(&listeners, 54321, groups, by);
        assert_eq!(status, expected, "{groups:?} {by:?}: {body}");
    }
}
