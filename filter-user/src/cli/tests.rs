//! The parser: what is understood, what is refused, and what help says.

use std::sync::Arc;

use clap::Parser;

use super::*;
use crate::api::{Bounds, bind, serve};
use crate::engine::fixture::FakeView;
use crate::engine::snapshot::View;
use crate::policy::model::{Listener, ListenerAddress, Role};

#[test]
fn parser_is_consistent() {
    command().debug_assert();
}

#[test]
fn documented_invocations_parse_and_wrong_ones_do_not() {
    for line in [
        "keyfence check",
        "keyfence check a.toml --json",
        "keyfence run --policy a.toml --state /s --bpf-fs /b --log-level debug --log-format json --kernel-log debug",
        "keyfence status --socket /run/a.sock --json --color never",
        "keyfence detach --policy a.toml --yes --bpf-fs /b --instance lab --socket /run/a.sock",
        "keyfence observe --for 15m --reason OPS-12",
        "keyfence observe --for 0s --service pay --reason over --json",
        "keyfence init --output a.toml",
        "keyfence generate man --output man",
        "keyfence generate completions fish",
        "keyfence generate policy-reference",
        "keyfence generate metrics-reference",
        "keyfence generate doctor-reference",
        "keyfence doctor --policy a.toml --socket /run/a.sock --bpf-fs /b --json",
        "keyfence version --json",
        "keyfence replay --policy a.toml --json --host-address ::1 --host-address 192.0.2.1 --bindings b a.pcap b",
        "keyfence explain --policy a.toml --from 192.0.2.1:1 --to 192.0.2.2:443/tcp --interface eth0 --json",
        "keyfence explain --frame 00ff",
        "keyfence reload --socket /run/a.sock",
        "keyfence bind key-1 --source 10.0.0.1 --source ::1 --service a --lease 1h --limit packets=100/m/20 --label a=b",
        "keyfence bind key-1 --source 10.0.0.1 --service * --lease none --publisher gateway --row-version 7 --json",
        "keyfence unbind key-1 --row-version 8 --publisher gateway",
        "keyfence bindings --source 10.0.0.1 --service a --state held --ending-within 1h --unused-for 30d --limit 5 --json",
        "keyfence deny 10.0.0.0/24 --for 1h --reason scans --name abuse",
        "keyfence undeny 10.0.0.1",
        "keyfence why ::1 --json",
        "keyfence capture -w a --source ::1 --service a --verdict drop,observe --reason unlisted --reason denied --json",
        "keyfence capture -w - --sample 10 --rate 1k --snap 96 --count 1M --duration 1h30m --size 10MB",
        "keyfence audit show --from 5 --limit 10",
        "keyfence audit verify audit.jsonl --head 0123456789abcdef --json",
        "keyfence backup a --socket /run/a.sock",
        "keyfence restore a --trust",
        "keyfence --color=always status",
    ] {
        assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
    for line in [
        "keyfence",
        "keyfence replay --policy a.toml",
        "keyfence explain --from 192.0.2.1:1",
        "keyfence explain --frame 00 --from 192.0.2.1:1",
        "keyfence run --kernel-log trace",
        "keyfence frobnicate",
        "keyfence detach --instance ../x",
        "keyfence detach --instance .",
        "keyfence bind key-1 --source 10.0.0.1 --service a",
        "keyfence bind key-1 --source 10.0.0.1 --service a --lease 0s",
        "keyfence bind key-1 --source 10.0.0.1 --service a --lease 1h --limit packets=100",
        "keyfence bindings --state gone",
        "keyfence deny 10.0.0.1/24 --for 1h --reason x",
        "keyfence why localhost",
        "keyfence capture",
        "keyfence capture -w a --verdict dropped",
        "keyfence capture -w a --reason unlisted,none",
        "keyfence capture -w a --source 10.0.0.1/8",
        "keyfence capture -w a --duration 500ms",
        "keyfence audit verify --head 012",
    ] {
        assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    for verb in [
        "", "check", "run", "reload", "status", "explain", "replay", "detach", "doctor", "observe", "init",
        "why", "bindings", "bind", "unbind", "deny", "undeny", "audit", "backup", "restore", "capture",
    ] {
        let words = ["keyfence", verb, "--help"];
        let help = Arguments::try_parse_from(words.into_iter().filter(|word| !word.is_empty()));
        let help = help.unwrap_err().to_string();
        assert!(help.contains("Example") && help.contains("Exit codes:"), "{help}");
        assert!(help.contains("\n  2  "), "{help}");
    }
}

#[test]
fn color_is_known_before_the_arguments_are() {
    let asked = |line: &'static str| color_asked(line.split(' '));
    assert_eq!(asked("keyfence --color=never status"), ColorChoice::Never);
    assert_eq!(asked("keyfence status --color always"), ColorChoice::Always);
    assert_eq!(asked("keyfence status"), ColorChoice::Auto);
    assert_eq!(asked("keyfence status --color blue"), ColorChoice::Auto);
    assert_eq!(asked("keyfence -- --color=never"), ColorChoice::Auto);
}

#[test]
fn status_and_reload_end_as_the_daemon_answers() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let listener = Listener {
        address: ListenerAddress::Unix(socket.clone()),
        mode: 0o600,
        group: "keyfence".to_owned(),
        group_written: false,
        assert: false,
        tls: None,
        roles_written: true,
        roles: vec![Role::Read, Role::Operate],
        origin: None,
    };
    let me = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .unwrap()
        .name;
    let view = Arc::new(FakeView::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let bound = runtime.block_on(bind(&[listener])).unwrap();
    runtime.spawn(serve(
        bound,
        view.clone() as Arc<dyn View>,
        None,
        Arc::new(crate::metrics::Metrics::new()),
        vec![me],
        Bounds::default(),
        stopped,
    ));

    let shell = Shell {
        colour_output: false,
        colour_errors: false,
    };
    let run = |verb: &str| {
        let words = ["keyfence", verb, "--socket", socket.to_str().unwrap()];
        Arguments::try_parse_from(words).unwrap().verb.run(&shell)
    };
    assert_eq!(run("status"), Ok(Exit::Done));
    // Its policies are not there yet.
    assert_eq!(run("reload").unwrap_err().exit, Exit::Unreachable);
    view.change(|snapshot| snapshot.not_ready.push("eth0 is not attached".to_owned()));
    assert_eq!(run("status"), Ok(Exit::Degraded));
}

#[test]
fn refused_policies_end_with_what_refused_them() {
    let exit = |code: &str| {
        let body = format!(
            "{{\"title\": \"The policy is invalid\", \"code\": \"{code}\", \"detail\": \"a.toml:1:1\"}}"
        );
        client::refused(&client::Answer { status: 409, body }).exit
    };
    let exits = [
        ("policy-invalid", Exit::PolicyInvalid),
        ("policy-refused", Exit::Refused),
        ("policy-pending", Exit::Refused),
        ("policy-changed", Exit::Refused),
        ("nothing-pending", Exit::Failed),
        ("no-earlier-policy", Exit::Failed),
        ("not-an-operator", Exit::Failed),
        ("starting", Exit::Unreachable),
    ];
    for (code, expected) in exits {
        assert_eq!(exit(code), expected, "{code}");
    }
}
