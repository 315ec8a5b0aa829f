//! Policies put in force by the command: planned, applied, refused by the guard, rolled back; and what is in force after a
//! restart, whatever the file says then.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use keyfence_tests::harness::{
    Attach, Daemon, LISTED, Policy, Probe, SERVER, STRANGER, Site, keyfence_path, output, system,
};
use serde_json::Value;

const LISTED4: IpAddr = IpAddr::V4(LISTED.v4);
const MANAGED: u16 = 2222;
const UNMANAGED: u16 = 2223;

fn policy() -> Policy {
    Policy::new(Attach::Auto, Probe::ENTRIES)
}

/// Lets the stranger in as well.
fn wider() -> Policy {
    let client = format!(
        "[[client]]\nname = \"more\"\nsources = [\"{}\"]\nservices = [\"probe\"]\n",
        STRANGER.v4
    );
    policy().and(&client)
}

/// A policy in a file of its own, beside the daemon's.
fn file(site: &Site, name: &str, policy: &Policy) -> PathBuf {
    let path = site.folder().join(name);
    std::fs::write(&path, policy.text(&site.socket())).expect("a temporary folder can be written");
    path
}

/// `keyfence VERB …`, in the server's namespace, as an operator at the host.
fn keyfence(site: &Site, words: &[&str]) -> Command {
    let mut command = site.server.command(keyfence_path());
    command.args(words).arg("--socket").arg(site.socket());
    command
}

fn asked(site: &Site, words: &[&str]) -> Output {
    output(&mut keyfence(site, words))
}

/// The exit code, and all that was said.
fn ended(output: &Output) -> (Option<i32>, String) {
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output.status.code(), said.concat())
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

#[test]
fn applied_policy_judges_and_is_in_force_after_a_restart_whatever_the_file_says() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    let base = daemon.status()["policy"]["hash"].clone();
    let wider = file(&site, "wider.toml", &wider());
    let planned = asked(&site, &["plan", text(&wider), "--exit-code", "--json"]);
    assert_eq!(planned.status.code(), Some(6), "{planned:?}");
    let plan = json(&planned);
    assert_eq!((&plan["schema"], &plan["base"]), (&1.into(), &base));
    assert_eq!(plan["counts"]["sources_gained"], 1, "{plan}");
    let told = asked(&site, &["plan", text(&wider)]);
    let (code, said) = ended(&told);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("+ client more") && said.contains("10.77.0.66"),
        "{said}"
    );
    probe.assert_filtered();
    let (code, said) = ended(&asked(&site, &["apply", text(&wider)]));
    assert_eq!(code, Some(0), "{said}");
    probe.assert_open();
    let same = asked(&site, &["plan", text(&wider), "--exit-code"]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    let status = daemon.status();
    assert_eq!(status["policy"]["hash"], plan["hash"]);
    assert_eq!(
        status["policy"]["file_differs"], true,
        "the daemon's own file is another"
    );
    daemon.kill();
    let daemon = Daemon::start_again(&site);
    probe.assert_open();
    assert_eq!(daemon.status()["policy"]["hash"], plan["hash"]);
    // The file is applied when somebody says so.
    daemon.reload();
    probe.assert_filtered();
    assert_eq!(daemon.status()["policy"]["file_differs"], false);
}

#[test]
fn confirmed_policy_serves_for_all_where_the_file_is_invalid_at_a_start() {
    let site = Site::new();
    Daemon::start(&site, &policy()).kill();
    site.write_text("version = = 1\n");
    let daemon = Daemon::start_unready(&site);
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    let ready = daemon.get("/readyz").expect("it answers");
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains("the policy file is invalid"),
        "{}",
        ready.body
    );
    let status = daemon.status();
    assert_eq!(status["policy"]["file_differs"], true);
    let shown = ended(&asked(&site, &["status"]));
    assert_eq!(shown.0, Some(6), "{}", shown.1);
    assert!(shown.1.contains("`keyfence plan "), "{}", shown.1);
    site.write(&policy());
    daemon.reload();
    let ready = daemon.get("/readyz").expect("it answers");
    assert_eq!(ready.status, 200, "{}", ready.body);
}

#[test]
fn rollback_goes_to_the_policy_before_and_history_tells_of_all() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    let (code, said) = ended(&asked(&site, &["rollback"]));
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = ended(&asked(&site, &["confirm"]));
    assert!(
        code == Some(1) && said.contains("waits to be confirmed"),
        "{said}"
    );
    let first = daemon.status()["policy"]["hash"].clone();
    let wider = file(&site, "wider.toml", &wider());
    assert_eq!(asked(&site, &["apply", text(&wider)]).status.code(), Some(0));
    probe.assert_open();
    let (code, said) = ended(&asked(&site, &["rollback"]));
    assert_eq!(code, Some(0), "{said}");
    probe.assert_filtered();
    assert_eq!(daemon.status()["policy"]["hash"], first);
    let history = json(&asked(&site, &["history", "--json"]));
    let told: Vec<(&str, &str)> = history["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| {
            (
                item["via"].as_str().unwrap_or("?"),
                item["user"].as_str().unwrap_or("-"),
            )
        })
        .collect();
    assert_eq!(told, [("rollback", "root"), ("apply", "root"), ("start", "-")]);
    let (_, said) = ended(&asked(&site, &["history"]));
    assert_eq!(
        said.lines().filter(|line| line.contains('*')).count(),
        1,
        "{said}"
    );
    daemon.kill();
    let daemon = Daemon::start_again(&site);
    assert_eq!(daemon.status()["policy"]["hash"], first, "a rollback is kept");
    let (code, said) = ended(&asked(&site, &["rollback"]));
    assert_eq!(code, Some(0), "{said}");
    probe.assert_open();
}

/// A connection of the listed client to the server, both ends.
fn connected(site: &Site, port: u16) -> (TcpListener, TcpStream, TcpStream) {
    let to = SocketAddr::new(SERVER.v4.into(), port);
    let listener = site
        .server
        .inside(|| TcpListener::bind(to).expect("the port is free"));
    let from = site
        .outside
        .inside(|| TcpStream::connect(to).expect("the server listens"));
    let (held, _) = listener.accept().expect("it is there");
    (listener, from, held)
}

#[test]
fn policy_that_would_cut_a_connection_that_stands_is_refused_by_name() {
    let site = Site::new();
    let management = |port: u16, source: IpAddr| {
        format!(
            "[[management]]\nname = \"ssh\"\nsources = [\"{source}\"]\nprotocol = \"tcp\"\nports = [{port}]\n"
        )
    };
    let deny = format!("[[deny]]\nname = \"abuse\"\nsources = [\"{LISTED4}\"]\n");
    let daemon = Daemon::start(&site, &policy().and(&management(MANAGED, LISTED4)));
    let (_listener, _from, held) = connected(&site, MANAGED);
    let cutting = file(
        &site,
        "cutting.toml",
        &policy().and(&deny).and(&management(MANAGED, STRANGER.v4.into())),
    );
    // The daemon sees it by itself. This process holds it as well, and the command is its child: cut that.
    let before = daemon.generation();
    let refused = asked(&site, &["apply", text(&cutting), "--json"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let problem = json(&refused);
    assert_eq!(problem["code"], "policy-refused");
    let peer = held.peer_addr().expect("it stands").to_string();
    assert_eq!(problem["connections"][0]["from"], peer.as_str(), "{problem}");
    assert_eq!(problem["connections"][0]["reason"], "denied", "{problem}");
    assert_eq!(daemon.generation(), before);
    // Nor does a signal: it has no way to force.
    std::fs::copy(&cutting, site.policy_file()).expect("a temporary folder can be written");
    daemon.reload_in_vain();
    let error = daemon.status()["policy"]["last_error"].to_string();
    assert!(error.contains(&peer) && error.contains("3.5 deny"), "{error}");
    let (code, said) = ended(&asked(&site, &["apply", text(&cutting), "--force"]));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn connection_that_an_ancestor_of_the_command_holds_is_found_at_any_port() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let deny = format!("[[deny]]\nname = \"abuse\"\nsources = [\"{LISTED4}\"]\n");
    let cutting = file(&site, "cutting.toml", &policy().and(&deny));
    let (listener, from, held) = connected(&site, UNMANAGED);
    let (code, said) = ended(&asked(&site, &["apply", text(&cutting)]));
    assert_eq!(code, Some(4), "{said}");
    let holder = format!("({})", std::process::id());
    for part in [
        held.peer_addr().expect("it stands").to_string(),
        holder,
        "--confirm-within".into(),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
    // Nor do a reload and a rollback.
    std::fs::copy(&cutting, site.policy_file()).expect("a temporary folder can be written");
    let refused = ended(&asked(&site, &["reload"]));
    assert_eq!(refused.0, Some(4), "{}", refused.1);
    site.write(&policy());
    assert_eq!(
        asked(&site, &["apply", text(&cutting), "--force"]).status.code(),
        Some(0)
    );
    assert_eq!(asked(&site, &["reload"]).status.code(), Some(0));
    let hash = daemon.status()["policy"]["hash"].clone();
    let refused = ended(&asked(&site, &["rollback"]));
    assert_eq!(refused.0, Some(4), "{}", refused.1);
    let peer = held.peer_addr().expect("it stands").to_string();
    assert!(refused.1.contains(&peer), "{}", refused.1);
    assert_eq!(daemon.status()["policy"]["hash"], hash);

    // Whoever tries it has the way back; what waits goes without a question, and nothing else does.
    let (code, said) = ended(&asked(&site, &["rollback", "--confirm-within", "600s"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("`keyfence rollback --pending` ends it"), "{said}");
    let (code, said) = ended(&asked(&site, &["rollback", "--confirm-within", "5s"]));
    assert!(
        code == Some(4) && said.contains("waits to be confirmed"),
        "{said}"
    );
    let (code, said) = ended(&asked(&site, &["rollback", "--pending"]));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(daemon.status()["policy"]["hash"], hash);
    let (code, said) = ended(&asked(&site, &["rollback", "--pending"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing was done"), "{said}");
    assert_eq!(daemon.status()["policy"]["hash"], hash);
    assert_eq!(asked(&site, &["rollback", "--force"]).status.code(), Some(0));
    drop((listener, from, held));
    let (code, said) = ended(&asked(&site, &["rollback"]));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(daemon.status()["policy"]["hash"], hash);
}

#[test]
fn rollback_that_opens_says_so_and_names_the_mode() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy().filter("mode = \"observe\""));
    let enforcing = file(&site, "enforcing.toml", &policy());
    assert_eq!(asked(&site, &["apply", text(&enforcing)]).status.code(), Some(0));
    let (code, said) = ended(&asked(&site, &["rollback"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning: this opens the filter"), "{said}");
    assert!(said.contains("mode observe (was enforce)"), "{said}");
}

#[test]
fn sources_that_sent_lately_and_would_be_cut_are_planned_by_name() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    Probe::open(&site).assert_filtered();
    let service = "[[service]]\nname = \"probe\"\nprotocol = \"udp\"\nports = [9000]\n";
    let without = file(&site, "without.toml", &Policy::new(Attach::Auto, service));
    let plan = json(&asked(&site, &["plan", text(&without), "--json"]));
    let cut = &plan["cut"][0];
    assert_eq!(plan["counts"]["cut"], 1, "{plan}");
    assert_eq!(
        (&cut["source"], &cut["owner"]),
        (&"10.77.0.2/32".into(), &"client/listed".into())
    );
    assert!(cut["packets"].as_u64() > Some(0), "{plan}");
    // Under another name it is the same to packets.
    let renamed = Probe::ENTRIES.replace("\"listed\"", "\"other\"");
    let renamed = file(&site, "renamed.toml", &Policy::new(Attach::Auto, &renamed));
    let plan = json(&asked(&site, &["plan", text(&renamed), "--json"]));
    assert_eq!(
        (&plan["counts"]["cut"], &plan["differs"]),
        (&0.into(), &true.into()),
        "{plan}"
    );
}

#[test]
fn invalid_policy_and_an_absent_daemon_and_an_ordinary_user_are_told_apart() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let bad = site.folder().join("bad.toml");
    std::fs::write(&bad, "version = 1\nnonsense = 2\n").expect("a temporary folder can be written");
    for verb in ["plan", "apply"] {
        let (code, said) = ended(&asked(&site, &[verb, text(&bad)]));
        assert_eq!(code, Some(3), "{verb}: {said}");
        assert!(said.contains("bad.toml:2"), "{verb}: {said}");
    }
    let wider = file(&site, "wider.toml", &wider());
    let program = site.program_for_everyone();
    let everyone = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(site.socket(), everyone).expect("the socket is ours");
    for words in [vec!["apply", text(&wider)], vec!["rollback"], vec!["confirm"]] {
        let mut command = system("setpriv");
        command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]);
        command
            .arg(&program)
            .args(&words)
            .arg("--socket")
            .arg(site.socket());
        let (code, said) = ended(&output(&mut command));
        assert_eq!(code, Some(1), "{words:?}: {said}");
        assert!(said.contains("operators"), "{words:?}: {said}");
    }
    daemon.kill();
    let (code, said) = ended(&asked(&site, &["apply", text(&wider)]));
    assert_eq!(code, Some(5), "{said}");
}

#[test]
fn ports_that_are_guarded_at_fewer_addresses_are_said_by_plan_apply_and_reload() {
    let site = Site::new();
    let at = |address: &str| {
        let service = "[[service]]\nname = \"site\"\nprotocol = \"tcp\"\nports = [443]\n";
        policy().and(&format!("{service}{address}"))
    };
    let _daemon = Daemon::start(&site, &at("address = \"host\""));
    let narrow = file(&site, "narrow.toml", &at("address = [\"10.77.0.1\"]"));
    let told = ended(&asked(&site, &["plan", text(&narrow)])).1;
    let warning = |told: &str| {
        let mut lines = told.lines().filter(|line| line.contains("this opens"));
        let line = lines.next().unwrap_or_default().to_owned();
        assert_eq!(lines.next(), None, "{told}");
        line
    };
    let said = warning(&told);
    assert!(
        said.starts_with("warning: this opens TCP ports 443 at "),
        "{told}"
    );
    assert!(
        said.contains("fd77::1") && !said.contains("10.77.0.1") && !said.contains("127.0.0."),
        "{said}"
    );
    let (code, told) = ended(&asked(&site, &["apply", text(&narrow)]));
    assert_eq!((code, warning(&told)), (Some(0), said), "{told}");

    site.write(&at(""));
    let (code, told) = ended(&asked(&site, &["reload"]));
    assert_eq!((code, warning(&told)), (Some(0), String::new()), "{told}");
    site.write(&at("address = \"host\""));
    let (code, told) = ended(&asked(&site, &["reload"]));
    assert_eq!(code, Some(0), "{told}");
    assert!(
        warning(&told).contains("443 at every address but this host's own"),
        "{told}"
    );
}
