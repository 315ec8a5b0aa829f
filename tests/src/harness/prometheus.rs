//! A real Prometheus that reads a daemon's metrics and judges the alert rules of config/.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use super::http;
use super::program::system;
use super::site::Site;
use super::wait::until;

/// Where the daemon serves its metrics: on the loopback of the server's namespace.
pub const METRICS: &str = "127.0.0.1:9469";
const LISTENS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// The repository's folder for Prometheus.
pub fn configuration() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/prometheus")
}

pub struct Prometheus<'a> {
    child: Child,
    site: &'a Site,
}

impl<'a> Prometheus<'a> {
    /// With the repository's rules, but without their waits (`for`): each alert fires as soon as its condition holds.
    pub fn start(site: &'a Site) -> Self {
        let folder = site.folder().join("prometheus");
        fs::create_dir(&folder).expect("a temporary folder can hold another");
        let rules =
            fs::read_to_string(configuration().join("keyfence.rules.yml")).expect("the rules are there");
        let at_once: String = rules
            .lines()
            .filter(|line| !line.trim_start().starts_with("for: "))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert!(at_once.len() < rules.len(), "some alerts wait");
        fs::write(folder.join("keyfence.rules.yml"), at_once).expect("a temporary folder can be written");
        let configured =
            fs::read_to_string(configuration().join("prometheus.yml")).expect("the configuration is there");
        let quick = "global:\n  evaluation_interval: 500ms\n".to_owned()
            + &configured.replace(
                "scrape_interval: 15s",
                "scrape_interval: 500ms\n    scrape_timeout: 500ms",
            );
        assert!(
            quick.contains(METRICS) && quick.contains("500ms\n    "),
            "{quick}"
        );
        let file = folder.join("prometheus.yml");
        fs::write(&file, quick).expect("a temporary folder can be written");
        let log = fs::File::create(folder.join("log")).expect("a temporary folder can be written");
        let child = site
            .server
            .command(system("prometheus").get_program())
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={LISTENS}"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus can be started");
        let prometheus = Self { child, site };
        until("prometheus is ready", || prometheus.get("/-/ready"));
        prometheus
    }

    fn get(&self, path: &str) -> Option<String> {
        let answer = http::get_over_tcp(&self.site.server, LISTENS, path).ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    /// What its API tells of `path`.
    pub fn ask(&self, path: &str) -> Value {
        let text = until("prometheus answers", || self.get(&format!("/api/v1/{path}")));
        let mut answer: Value = serde_json::from_str(&text).expect("its answers are JSON");
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"].take()
    }

    /// The value of a series, if there is exactly one.
    pub fn value(&self, series: &str) -> Option<f64> {
        let encoded: String = series.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.ask(&format!("query?query={encoded}"));
        let results = data["result"].as_array().expect("a list");
        match results.as_slice() {
            [one] => one["value"][1].as_str()?.parse().ok(),
            _ => None,
        }
    }

    /// The names of the alerts that fire, in order.
    pub fn firing(&self) -> Vec<String> {
        let data = self.ask("alerts");
        let alerts = data["alerts"].as_array().expect("a list").iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        let mut names: Vec<String> = firing
            .map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.site.folder().join("prometheus/log")).unwrap_or_default();
            eprintln!("--- prometheus' log:\n{log}---");
        }
    }
}
