//! The scene of these tests: a daemon with two publishers, and senders whose packets are followed by a listed one's.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use keyfence_tests::harness::{
    Answer, Attach, Daemon, LISTED, OUTSIDE, Policy, SERVER, STRANGER, Sender, Sink, Site, until,
};
use serde_json::{Value, json};

pub(crate) const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);
pub(crate) const PORT: u16 = 9000;
pub(crate) const SPARE_PORT: u16 = 9001;
pub(crate) const STREAM_PORT: u16 = 9002;

/// `gateway` is who runs the tests; `partner` is asked for by operators.
pub(crate) const ENTRIES: &str = r#"
[[service]]
name = "api"
protocol = "udp"
ports = [9000]
[[service]]
name = "spare"
protocol = "udp"
ports = [9001]
[[service]]
name = "stream"
protocol = "tcp"
ports = [9002]
[[client]]
name = "marker"
sources = ["10.77.0.2", "fd77::2"]
services = ["*"]
[[publisher]]
name = "gateway"
user = "root"
services = ["api", "spare", "stream"]
environments = ["production"]
widest-prefix = { ipv4 = 24, ipv6 = 48 }
[[publisher]]
name = "partner"
user = "nobody"
services = ["api"]
environments = ["production"]
"#;

pub(crate) fn policy() -> Policy {
    Policy::new(Attach::Native, ENTRIES)
}

pub(crate) struct Stage {
    pub(crate) daemon: Option<Daemon>,
    sinks: BTreeMap<(bool, u16), Sink>,
    senders: BTreeMap<(IpAddr, u16), Sender>,
    pub(crate) site: Site,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(&policy())
    }

    pub(crate) fn with(policy: &Policy) -> Self {
        Self::at(Site::new(), policy)
    }

    pub(crate) fn at(site: Site, policy: &Policy) -> Self {
        let daemon = Some(Daemon::start(&site, policy));
        Self {
            daemon,
            sinks: BTreeMap::new(),
            senders: BTreeMap::new(),
            site,
        }
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon runs")
    }

    /// As a crash ends it.
    pub(crate) fn kill(&mut self) {
        self.daemon.take().expect("the daemon runs").kill();
    }

    pub(crate) fn start_again(&mut self) {
        self.daemon = Some(Daemon::start_again(&self.site));
    }

    pub(crate) fn reload(&self, policy: &Policy) {
        self.site.write(policy);
        self.daemon().reload();
    }

    /// One more address on the outside.
    pub(crate) fn settle(&self, address: IpAddr) {
        let length = if address.is_ipv6() { "64 dev" } else { "24 dev" };
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        let words = format!("addr add {address}/{length} {OUTSIDE}{nodad}");
        self.site.outside.ip(&words);
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.daemon().ask(method, path, body).expect("the daemon answers")
    }

    /// A request that succeeds; its answer.
    pub(crate) fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body);
        assert!(
            [200, 201].contains(&answer.status),
            "{method} {path} {body}: {} {}",
            answer.status,
            answer.body
        );
        serde_json::from_str(&answer.body).expect("answers are JSON")
    }

    /// Binds a credential of `gateway` to sources, for `api` and ten minutes.
    pub(crate) fn bind(&self, credential: &str, sources: &[&str]) -> Value {
        self.put(credential, &binding(sources))
    }

    pub(crate) fn put(&self, credential: &str, body: &Value) -> Value {
        self.done("PUT", &format!("/v1/bindings/{credential}"), body)
    }

    pub(crate) fn unbind(&self, credential: &str) {
        let answer = self.done("DELETE", &format!("/v1/bindings/{credential}"), &Value::Null);
        assert_eq!(answer["removed"], true, "{answer}");
    }

    pub(crate) fn state(&self, credential: &str) -> String {
        let binding = self.done("GET", &format!("/v1/bindings/{credential}"), &Value::Null);
        binding["state"]
            .as_str()
            .expect("a binding has a state")
            .to_owned()
    }

    fn send(&mut self, source: IpAddr, port: u16) {
        let to = SocketAddr::new(server(source), port);
        let sender = self.senders.entry((source, port));
        sender
            .or_insert_with(|| Sender::open(&self.site.outside, source, to))
            .send();
    }

    fn sink(&mut self, v6: bool, port: u16) -> &Sink {
        let at = SocketAddr::new(SERVER.addresses()[usize::from(v6)], port);
        let sink = self.sinks.entry((v6, port));
        sink.or_insert_with(|| Sink::open(&self.site.server, at))
    }

    /// Which of these addresses' next packets pass. The marker's comes behind them: where it arrives, they have been
    /// judged.
    pub(crate) fn passing(&mut self, sources: &[IpAddr], port: u16) -> Vec<bool> {
        let mut passed = vec![false; sources.len()];
        for v6 in [false, true] {
            if !sources.iter().any(|source| source.is_ipv6() == v6) {
                continue;
            }
            let marker = LISTED.addresses()[usize::from(v6)];
            let count = |stage: &mut Self, source| stage.sink(v6, port).count(source);
            let of_marker = count(self, marker);
            let before: Vec<u64> = sources.iter().map(|source| count(self, *source)).collect();
            for source in sources.iter().filter(|source| source.is_ipv6() == v6) {
                self.send(*source, port);
            }
            self.send(marker, port);
            until("the listed client's packet arrives", || {
                (count(self, marker) > of_marker).then_some(())
            });
            for (at, source) in sources
                .iter()
                .enumerate()
                .filter(|(_, source)| source.is_ipv6() == v6)
            {
                passed[at] = count(self, *source) > before[at];
            }
        }
        passed
    }

    pub(crate) fn passes(&mut self, source: IpAddr) -> bool {
        self.passing(&[source], PORT)[0]
    }

    /// Several packets of one source; how many passed.
    pub(crate) fn passed_of(&mut self, source: IpAddr, packets: usize) -> usize {
        (0..packets).filter(|_| self.passes(source)).count()
    }
}

pub(crate) fn binding(sources: &[&str]) -> Value {
    json!({ "sources": sources, "services": ["api"], "lease_seconds": 600 })
}

/// The server's address of the same family.
pub(crate) fn server(source: IpAddr) -> IpAddr {
    SERVER.addresses()[usize::from(source.is_ipv6())]
}
