//! Where the live part stands: one namespace that sends, and one for each peer, joined by a veth pair with one queue.

use std::fs;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRunOptions, Xdp};
use aya::{TestRun as _, programs::TestRunAttrs};
use keyfence_tests::harness::Namespace;

use crate::drive::{self, cpu_time, xdp};
use crate::frame;
use crate::population::Wire;

/// The receiving end, alone in its namespace under this name.
pub(crate) const DEVICE: &str = "kfb";
/// Frames that the kernel hands over at once; a veth's ring holds 256.
const BATCH: u32 = 64;
/// What drops, for every peer alike, the packets that its filter passed: the rest of the stack is no filter's cost.
const REST: &str =
    "table inet rest { chain pre { type filter hook prerouting priority -150; policy drop; }\n}\n";

/// The sending side of all pairs. Threads enter it.
pub(crate) struct Ground {
    pub(crate) outside: Namespace,
    pairs: usize,
}

/// One peer's side.
pub(crate) struct Pair {
    pub(crate) inside: Namespace,
    /// The sending device's number, in the outside's namespace.
    index: u32,
    name: String,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self {
            outside: Namespace::new("bench-out"),
            pairs: 0,
        }
    }

    pub(crate) fn pair(&mut self) -> Result<Pair> {
        self.pairs += 1;
        let inside = Namespace::new("bench-in");
        let name = format!("kfa{}", self.pairs);
        let ends = "numtxqueues 1 numrxqueues 1";
        self.outside.ip(&format!(
            "link add {name} {ends} type veth peer name {DEVICE} netns {} {ends}",
            inside.name()
        ));
        self.outside
            .ip(&format!("link set {name} address {} up", mac(frame::MAC_FROM)));
        inside.ip(&format!("link set {DEVICE} address {} up", mac(frame::MAC_TO)));
        inside.ip(&format!("addr add 203.0.113.10/24 dev {DEVICE}"));
        let index = self
            .outside
            .inside(|| nix::net::if_::if_nametoindex(name.as_str()))?;
        let pair = Pair { inside, index, name };
        // Without XDP on it, a veth takes frames from XDP only where it aggregates received packets.
        pair.run("ethtool", &["-K", DEVICE, "gro", "on"])?;
        pair.load_rules(REST)?;
        Ok(pair)
    }
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

impl Pair {
    /// Runs a program in here, to its end.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.inside.command(program);
        let output = command.args(arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        let end: String = error.lines().take(5).collect::<Vec<_>>().join("\n");
        ensure!(
            output.status.success(),
            "{program} {}: {}: {end}",
            arguments.join(" "),
            output.status
        );
        Ok(())
    }

    /// Gives rules to nft.
    pub(crate) fn load_rules(&self, rules: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(&file, rules)?;
        self.run("nft", &["-f", &file.path().display().to_string()])
    }

    pub(crate) fn attach(&self, program: &mut Xdp) -> Result<()> {
        self.inside
            .inside(|| program.attach(DEVICE, XdpMode::Driver))
            .map(drop)
            .context("a veth takes no XDP program")
    }

    /// Packets that have come in.
    pub(crate) fn received(&self) -> Result<u64> {
        let text = self.inside.ip(&format!("-s -j link show {DEVICE}"));
        let links: serde_json::Value = serde_json::from_str(&text)?;
        links[0]["stats64"]["rx"]["packets"]
            .as_u64()
            .context("ip shows no received packets")
    }
}

/// Sends frames with these addresses; only on a thread in the outside's namespace.
pub(crate) struct Sender {
    ebpf: Ebpf,
    frame: Vec<u8>,
    softirqs: Option<Softirqs>,
}

impl Sender {
    pub(crate) fn new(object: &[u8], addresses: &[Wire]) -> Result<Self> {
        let mut ebpf = drive::load(object, addresses, frame::checksum_base())?;
        xdp(&mut ebpf, "send_v4")?.load()?;
        Ok(Self {
            ebpf,
            frame: frame::tcp(false),
            softirqs: Softirqs::of(drive::last_cpu()?),
        })
    }

    /// CPU time of this thread a packet, sent and received: the receiver runs inside the sender.
    pub(crate) fn send(&mut self, pair: &Pair, packets: u32) -> Result<f64> {
        let context = context(self.frame.len() as u32, pair.index);
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let program = xdp(&mut self.ebpf, "send_v4")?;
        let before = (cpu_time()?, Softirqs::spent(self.softirqs.as_ref()));
        program
            .test_run(options)
            .with_context(|| format!("live frames out of {}", pair.name))?;
        let spent = cpu_time()? - before.0 + Softirqs::spent(self.softirqs.as_ref()) - before.1;
        Ok(spent as f64 / f64::from(packets))
    }
}

/// `struct xdp_md` as a test run takes it: the frame's bounds, the device it is of, its queue.
fn context(length: u32, index: u32) -> Vec<u8> {
    [0, length, 0, index, 0, 0]
        .iter()
        .flat_map(|word: &u32| word.to_ne_bytes())
        .collect()
}

/// The kernel's thread that takes over where too much is received at once: then its time counts as well.
struct Softirqs(String);

impl Softirqs {
    fn of(cpu: usize) -> Option<Self> {
        let name = format!("ksoftirqd/{cpu}");
        let is = |folder: &fs::DirEntry| {
            fs::read_to_string(folder.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let folder = fs::read_dir("/proc").ok()?.flatten().find(is)?;
        Some(Self(folder.path().join("schedstat").display().to_string()))
    }

    fn spent(softirqs: Option<&Self>) -> u64 {
        let text = softirqs.and_then(|softirqs| fs::read_to_string(&softirqs.0).ok());
        let first = text.as_deref().and_then(|text| text.split_whitespace().next());
        first.and_then(|word| word.parse().ok()).unwrap_or(0)
    }
}

/// Lets all pairs' sending devices take frames of the test run, as long as this is kept.
pub(crate) fn open(ground: &Ground, pairs: &[&Pair], object: &[u8]) -> Result<Ebpf> {
    let mut ebpf = drive::load(object, &[[0; 4]], 0)?;
    let pass = xdp(&mut ebpf, "pass")?;
    pass.load()?;
    for pair in pairs {
        ground
            .outside
            .inside(|| pass.attach(&pair.name, XdpMode::Driver))?;
    }
    Ok(ebpf)
}
