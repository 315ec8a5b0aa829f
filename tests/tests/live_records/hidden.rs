//! Sources that the log shows under pseudonyms.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use keyfence_tests::harness::system;

use super::*;

#[test]
fn address_is_found_behind_its_pseudonym_by_who_has_the_key() {
    let site = Site::new();
    let hidden = policy().and("[records]\naddresses = \"hmac\"\n");
    let daemon = Daemon::start(&site, &hidden);
    let mut wire = Wire::open(&site);
    for port in [9, 9, 10] {
        wire.send(&frames::tcp(IpAddr::V4(STRANGER.v4), port, SERVER4, 7000, SYN));
    }
    let of_address = format!("/v1/drops?source={}", STRANGER.v4);
    let ask = |path: &str| -> Value {
        let answer = daemon.get(path).expect("an answer");
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
    };
    let found = until("the address is found", || {
        let answer = ask(&of_address);
        (answer["matched"]["packets"]["drop"] == 3).then_some(answer)
    });
    let source = &found["records"][0]["source"];
    assert_eq!((&source["ip"], &found["hint"]), (&Value::Null, &Value::Null));
    let why = format!("/v1/why?address={}", STRANGER.v4);
    let answer = ask(&why);
    assert_eq!(
        (&answer["drops"]["unlisted"], &answer["drops_hint"]),
        (&3.into(), &Value::Null)
    );
    let prefix = ask(&format!("/v1/drops?source={}/24", STRANGER.v4));
    assert_eq!(
        (&prefix["matched"]["records"], &prefix["not_compared"]),
        (&0.into(), &3.into())
    );
    let hint = prefix["hint"].as_str().expect("it says why");
    assert!(hint.contains("cannot be compared with a prefix"), "{hint}");

    others_learn_no_more(&site, &of_address, &why);
    daemon.end(Signal::SIGTERM);
    files_want_the_key(&site);
}

/// Who may read and is no operator learns no more than the log says.
fn others_learn_no_more(site: &Site, of_address: &str, why: &str) {
    for (path, mode) in [(site.folder().to_owned(), 0o755), (site.socket(), 0o666)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
    }
    let as_anybody = |path: &str| -> Value {
        let mut command = system("setpriv");
        command.args([
            "--reuid=54321",
            "--regid=54321",
            "--clear-groups",
            "curl",
            "--silent",
        ]);
        command.arg("--unix-socket").arg(site.socket());
        let output = output(command.arg(format!("http://keyfence{path}")));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let answer = as_anybody(of_address);
    assert_eq!(
        (&answer["matched"]["records"], &answer["not_compared"]),
        (&0.into(), &3.into())
    );
    let answer = as_anybody(why);
    assert_eq!(answer["drops"], serde_json::json!({}));
    assert!(
        answer["drops_hint"]
            .as_str()
            .expect("it says why")
            .contains("operator"),
        "{answer}"
    );
}

fn files_want_the_key(site: &Site) {
    let shown = |key: Option<&Path>| {
        let mut command = keyfence();
        command
            .args(["drops", "--source", &STRANGER.v4.to_string()])
            .arg(site.drops());
        if let Some(key) = key {
            command.arg("--key").arg(key);
        }
        let output = output(&mut command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let known = shown(Some(&site.state().join("records.key")));
    assert!(known.contains("1 records: 3 packets dropped"), "{known}");
    let unknown = shown(None);
    assert!(
        unknown.contains("Nothing is known to match") && unknown.contains("--key"),
        "{unknown}"
    );
}
