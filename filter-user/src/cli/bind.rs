//! `keyfence bind` and `keyfence unbind`: one binding, as its publisher or, for operators, in its name.

use hyper::Method;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::bindings::whole_seconds;
use super::client::{self, Call, SocketArguments, encoded, query};
use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_BIND: &str = "\
A credential is a key's id or its fingerprint, never the key. What is bound before under the same credential is \
replaced; the same once more renews the lease.

A fingerprint is `sha256:` and the SHA-256 of the key's bytes, or, under `[credentials] scheme = \"hmac-sha256\"`, \
`hmac-sha256:ID:` and the HMAC-SHA-256 of them under that secret:
  printf %s \"$KEY\" | sha256sum
  printf %s \"$KEY\" | openssl dgst -sha256 -hmac \"$(cat /etc/keyfence/k1)\"

Exit codes:
  0  durable and in force
  1  refused or failed; each fault is named
  2  wrong usage
  4  a newer row version is stored, or a condition does not hold
  5  the daemon is not reachable

Examples:
  keyfence bind key-1 --source 198.51.100.7 --service payments --lease 1h
  keyfence bind key-2 --source 2001:db8::/48 --service payments --lease 24h --limit packets=100/200
  sudo keyfence bind key-1 --source 198.51.100.7 --service '*' --lease 1h --publisher gateway";

/// Let a credential in from addresses: what an API server pushes, by hand
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_BIND)]
pub(crate) struct Arguments {
    /// The key's id, or its fingerprint
    credential: String,
    /// An address or a prefix; several times for more
    #[arg(long = "source", value_name = "ADDR", required = true)]
    sources: Vec<String>,
    /// A service, or `*` for all that the publisher may open; several times for more
    #[arg(long = "service", value_name = "NAME", required = true)]
    services: Vec<String>,
    /// A source port or a range of them; several times for more; none is any
    #[arg(long = "source-port", value_name = "PORTS")]
    source_ports: Vec<String>,
    /// How long it holds, as in 1h30m, or `none` where the publisher may
    #[arg(long, value_name = "DURATION")]
    lease: Lease,
    /// A limit, as in packets=100/200 (rate and burst), bytes=10MB/1MB, connections=100/m/20
    #[arg(long = "limit", value_name = "KIND=RATE/BURST")]
    limits: Vec<LimitArgument>,
    /// The writer's own version of its row
    #[arg(long, value_name = "N")]
    row_version: Option<u64>,
    /// A remark for people; several times for more
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<Label>,
    #[command(flatten)]
    publisher: PublisherArguments,
    #[command(flatten)]
    daemon: SocketArguments,
    /// The daemon's answer as it is: one JSON object
    #[arg(long)]
    json: bool,
}

/// Of the commands about bindings.
#[derive(Debug, clap::Args)]
pub(crate) struct PublisherArguments {
    /// Whose bindings, for operators; the default is the caller's own
    #[arg(long, value_name = "NAME")]
    pub(crate) publisher: Option<String>,
}

/// Seconds; none is no end.
#[derive(Clone, Copy, Debug)]
struct Lease(Option<u64>);

impl std::str::FromStr for Lease {
    type Err = String;

    fn from_str(text: &str) -> Result<Lease, String> {
        if text == "none" {
            return Ok(Lease(None));
        }
        Ok(Lease(Some(whole_seconds(text)?.as_secs())))
    }
}

#[derive(Clone, Debug)]
struct LimitArgument {
    kind: String,
    rate: String,
    burst: String,
}

impl std::str::FromStr for LimitArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<LimitArgument, String> {
        let parts = text.split_once('=').and_then(|(kind, rest)| {
            // The rate may have a slash of its own: 100/m.
            let (rate, burst) = rest.rsplit_once('/')?;
            Some((kind, rate, burst))
        });
        let (kind, rate, burst) =
            parts.ok_or("a limit is written as in packets=100/200 or connections=100/m/20")?;
        if !["packets", "bytes", "connections"].contains(&kind) {
            return Err("a limit is of packets, bytes or connections".to_owned());
        }
        Ok(LimitArgument {
            kind: kind.to_owned(),
            rate: rate.to_owned(),
            burst: burst.to_owned(),
        })
    }
}

#[derive(Clone, Debug)]
struct Label(String, String);

impl std::str::FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Label, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or("a label is written as in ticket=OPS-12")?;
        Ok(Label(name.to_owned(), value.to_owned()))
    }
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let publisher = query(&[("publisher", arguments.publisher.publisher.clone())]);
    let call = Call {
        method: Method::PUT,
        path: format!("/v1/bindings/{}{publisher}", encoded(&arguments.credential)),
        body: Some(body(arguments)),
    };
    let answer = client::send_as(&arguments.daemon.socket, call, client::PATIENCE, FLAGS)?;
    if arguments.json {
        shell.write(&with_schema(&answer)?)?;
        return Ok(Exit::Done);
    }
    let binding: Value = parsed(&answer)?;
    let until = match binding["ends_at"].as_str() {
        Some(time) => format!("until {time}"),
        None => "without an end".to_owned(),
    };
    let changed = if binding["changed"] == false {
        " (it was so already)"
    } else {
        ""
    };
    let text = |name: &str| binding[name].as_str().unwrap_or("?").to_owned();
    let line = format!(
        "{} of {} is {} {until}, revision {}{changed}\n",
        text("credential"),
        text("publisher"),
        text("state"),
        binding["revision"]
    );
    shell.write(&line)?;
    Ok(Exit::Done)
}

const FLAGS: &client::Flags = &[
    ("sources", "--source"),
    ("services", "--service"),
    ("source_ports", "--source-port"),
    ("lease_seconds", "--lease"),
    ("limit", "--limit"),
    ("row_version", "--row-version"),
    ("labels", "--label"),
];

fn body(arguments: &Arguments) -> Value {
    let mut body = json!({
        "sources": arguments.sources,
        "services": arguments.services,
        "lease_seconds": arguments.lease.0,
    });
    if !arguments.source_ports.is_empty() {
        body["source_ports"] = json!(arguments.source_ports);
    }
    if let Some(version) = arguments.row_version {
        body["row_version"] = version.into();
    }
    if !arguments.limits.is_empty() {
        let limits = arguments.limits.iter();
        let limits: Map<String, Value> = limits
            .map(|limit| {
                (
                    limit.kind.clone(),
                    json!({ "rate": limit.rate, "burst": limit.burst }),
                )
            })
            .collect();
        body["limit"] = limits.into();
    }
    if !arguments.labels.is_empty() {
        let labels = arguments.labels.iter();
        let labels: Map<String, Value> = labels
            .map(|label| (label.0.clone(), label.1.clone().into()))
            .collect();
        body["labels"] = labels.into();
    }
    body
}

const AFTER_UNBIND: &str = "\
In force at once: open connections of the credential are cut with their next packet.

Exit codes:
  0  revoked, or there was none
  1  refused or failed
  2  wrong usage
  4  a newer row version is stored, or a condition does not hold
  5  the daemon is not reachable

Example:
  keyfence unbind key-1";

/// Revoke a binding
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_UNBIND)]
pub(crate) struct UnbindArguments {
    /// The key's id, or its fingerprint
    credential: String,
    /// The writer's own version of its row: a late PUT of an older one does not bring it back
    #[arg(long, value_name = "N")]
    row_version: Option<u64>,
    #[command(flatten)]
    publisher: PublisherArguments,
    #[command(flatten)]
    daemon: SocketArguments,
    /// The daemon's answer as it is: one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn unbind(arguments: &UnbindArguments, shell: &Shell) -> Result<Exit, Failure> {
    let parameters = query(&[
        ("publisher", arguments.publisher.publisher.clone()),
        (
            "row_version",
            arguments.row_version.map(|version| version.to_string()),
        ),
    ]);
    let call = Call {
        method: Method::DELETE,
        path: format!("/v1/bindings/{}{parameters}", encoded(&arguments.credential)),
        body: None,
    };
    let answer = client::send(&arguments.daemon.socket, call, client::PATIENCE)?;
    warn(&answer, shell)?;
    if arguments.json {
        shell.write(&with_schema(&answer)?)?;
        return Ok(Exit::Done);
    }
    let removed: Value = parsed(&answer)?;
    let line = match removed["removed"].as_bool() {
        Some(true) => format!("revoked, revision {}\n", removed["revision"]),
        _ => "there was no such binding\n".to_owned(),
    };
    shell.write(&line)?;
    Ok(Exit::Done)
}

/// Says what the daemon has to say beside its answer: that nothing judges packets, say.
pub(crate) fn warn(answer: &str, shell: &Shell) -> Result<(), Failure> {
    if let Some(warning) = parsed(answer)?["warning"].as_str() {
        shell.say(&format!("warning: {warning}"));
    }
    Ok(())
}

/// What a command's `--json` writes: the answer, with its schema.
pub(crate) fn with_schema(answer: &str) -> Result<String, Failure> {
    let mut object: Value = parsed(answer)?;
    object["schema"] = 1.into();
    Ok(format!("{object}\n"))
}

pub(crate) fn parsed(answer: &str) -> Result<Value, Failure> {
    let value: Result<Value, _> = serde_json::from_str(answer);
    value.ok().filter(Value::is_object).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "the daemon's answer is not understood: it is no JSON object",
        )
    })
}

/// An address as a prefix of its own, or a prefix.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    crate::policy::prefix::prefix_from_text(text).map_err(|fault| format!("{fault}; {}", fault.fix()))
}
