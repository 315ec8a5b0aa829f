//! A capture under way, what tshark reads of it, and the kernel's programs.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use keyfence_tests::harness::{Site, Wire, keyfence, run, system, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// `keyfence capture` under way.
pub(crate) struct Capturing {
    pub(crate) child: Child,
    pub(crate) file: PathBuf,
}

impl Capturing {
    /// Returns when packets are taken.
    pub(crate) fn start(site: &Site, name: &str, arguments: &[&str]) -> Self {
        let file = site.folder().join(name);
        let mut command = capture(site);
        command
            .arg("-w")
            .arg(&file)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().expect("keyfence can be started");
        let mut capturing = Self { child, file };
        until("the capture has begun", || {
            if let Ok(Some(_)) = capturing.child.try_wait() {
                let mut said = String::new();
                let stderr = capturing.child.stderr.as_mut().expect("it is piped");
                stderr.read_to_string(&mut said).expect("it is text");
                panic!("the capture ended: {said}");
            }
            capturing.file.exists().then_some(())
        });
        capturing
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(id), signal).expect("it runs");
    }

    /// As Ctrl-C does; what it told at the end.
    pub(crate) fn end(self) -> (Value, Vec<Frame>) {
        self.signal(Signal::SIGINT);
        self.ended()
    }

    /// By itself.
    pub(crate) fn ended(self) -> (Value, Vec<Frame>) {
        let output = self.child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let told = serde_json::from_slice(&output.stdout);
        (
            told.unwrap_or_else(|error| panic!("{error}: {}", said(&output))),
            read(&self.file),
        )
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn capture(site: &Site) -> Command {
    let mut command = keyfence();
    command.args(["capture", "--json", "--socket"]).arg(site.socket());
    command
}

/// A packet as tshark reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) interface: String,
    pub(crate) length: usize,
    pub(crate) captured: usize,
    pub(crate) comment: String,
}

pub(crate) fn read(file: &Path) -> Vec<Frame> {
    let mut command = system("tshark");
    command.arg("-n").arg("-r").arg(file).args(["-T", "fields"]);
    for field in [
        "frame.interface_name",
        "frame.len",
        "frame.cap_len",
        "frame.comment",
    ] {
        command.args(["-e", field]);
    }
    let frame = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [interface, length, captured, comment] = fields[..] else {
            panic!("{line}");
        };
        Frame {
            interface: interface.to_owned(),
            length: length.parse().expect("a number"),
            captured: captured.parse().expect("a number"),
            comment: comment.to_owned(),
        }
    };
    run(&mut command).lines().map(frame).collect()
}

pub(crate) fn comments(frames: &[Frame]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for frame in frames {
        *counts.entry(frame.comment.as_str()).or_default() += 1;
    }
    counts
}

/// Sends, and waits until all are judged.
pub(crate) fn send(site: &Site, wire: &mut Wire, sent: &[Vec<u8>]) {
    let before = judged(site);
    sent.iter().for_each(|frame| wire.send(frame));
    until("all are judged", || {
        (judged(site) >= before + sent.len() as u64).then_some(())
    });
}

pub(crate) fn judged(site: &Site) -> u64 {
    site.counters().0.values().map(|tally| tally.packets).sum()
}

/// The captures' programs that the kernel has.
pub(crate) fn programs() -> Vec<Value> {
    let listed = run(system("bpftool").args(["--json", "prog", "list"]));
    let listed: Vec<Value> = serde_json::from_str(&listed).expect("bpftool writes JSON");
    listed
        .into_iter()
        .filter(|program| program["name"] == "capture")
        .collect()
}

pub(crate) fn gone() {
    until("no capture's program is left", || {
        programs().is_empty().then_some(())
    });
}
