//! Single bindings changed while a large policy is read, compiled and loaded again and again; and how long a packet
//! waits at most, with nothing going on, beside single changes, and beside these reloads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use filter_common::abi::{RunContext, run_flags};
use filter_user::bindings::seam::{
    BoxFuture, Change, DenyGrant, Effective, GrantError, Grantee, Grants as _, Terms, Under,
};
use filter_user::compiler::binding_name;
use filter_user::engine::apply::Proposed;
use filter_user::engine::snapshot::View as _;
use filter_user::engine::{self, Earlier, Engine, Finding, Options, Shared, load_policy};
use filter_user::kernel::attach::Entry;
use filter_user::kernel::load::KernelLog;
use filter_user::kernel::pins::Pins;
use filter_user::kernel::run::Runner;
use filter_user::policy::Policy as Checked;
use ipnet::IpNet;
use keyfence_tests::harness::{INSIDE, Site};
use nix::unistd::gettid;
use tokio::sync::watch;

use crate::figures::{Beside, Percentiles, Spread};
use crate::frame;
use crate::population::Population;
use crate::progress::Progress;
use crate::scenario;
use crate::selection::Kind;

/// Reloads that bindings are changed beside.
const RELOADS: usize = 5;
/// Packets of each of the three measurements last so long at least.
const PACKETS_FOR: Duration = Duration::from_secs(3);
/// Short of what the kernel allows a real-time thread of a CPU.
const BETWEEN_PACKETS: Duration = Duration::from_micros(20);
const PUBLISHER: &str = "api";
/// Bindings that come and go, in turn: fewer than there is room for without a generation.
const BINDINGS: u32 = 1000;
const PUT_AT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

/// The bindings, as the daemon's store would have them.
struct Bindings {
    rows: Mutex<BTreeMap<Arc<str>, Grantee>>,
    settled: watch::Sender<u64>,
}

impl Bindings {
    fn take(&self, change: Change) {
        let mut rows = self.rows.lock().expect("nobody panics with it");
        match change {
            Change::Put(grantee) => drop(rows.insert(binding_name(&grantee), grantee)),
            Change::Remove { owner } => drop(rows.remove(&owner)),
            _ => {}
        }
        self.settled.send_modify(|settled| *settled += 1);
    }
}

/// As every policy of this benchmark has them.
struct All(Arc<Bindings>);

impl Under for All {
    fn all(&self) -> (Vec<Grantee>, Vec<DenyGrant>) {
        let rows = self.0.rows.lock().expect("nobody panics with it");
        (rows.values().cloned().collect(), Vec::new())
    }

    fn of(&self, owners: &BTreeSet<String>) -> Vec<Grantee> {
        let rows = self.0.rows.lock().expect("nobody panics with it");
        owners
            .iter()
            .filter_map(|owner| rows.get(owner.as_str()).cloned())
            .collect()
    }
}

impl Effective for All {
    fn under(&self, _: u64, _: &Arc<Checked>) -> Arc<dyn Under> {
        Arc::new(All(Arc::clone(&self.0)))
    }

    fn caught_up(&self, changes: u64) -> BoxFuture<()> {
        let mut settled = self.0.settled.subscribe();
        Box::pin(async move {
            // The sender lives as long as the benchmark.
            let _ = settled.wait_for(|settled| *settled >= changes).await;
        })
    }

    fn applied(&self, _: u64, _: &Arc<Checked>) {}
}

pub(crate) fn run(size: usize, progress: &Progress) -> Result<Beside> {
    progress.step(&format!(
        "single updates beside reloads of {} sources",
        crate::short(size)
    ));
    let site = Site::raw();
    write(&site, size)?;
    site.server.inside(|| -> Result<Beside> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(measure(&site, size))
    })
}

/// A client of so many sources, and somebody who pushes.
fn write(site: &Site, size: usize) -> Result<()> {
    let population = Population::new(Kind::HostsV4, size);
    let lines: Vec<String> = population
        .sources
        .iter()
        .map(|net| net.addr().to_string())
        .collect();
    fs::write(site.folder().join("sources"), lines.join("\n"))?;
    let text = format!(
        "version = 1\n[filter]\ninterfaces = [\"{INSIDE}\"]\nattach = \"native\"\nmanagement-none = true\n\
         [[service]]\nname = \"{service}\"\naddress = [\"203.0.113.10\"]\nprotocol = \"tcp\"\nports = [443]\n\
         [[client]]\nname = \"c\"\nsources-file = \"sources\"\nservices = [\"{service}\"]\n\
         limit = {{ packets = {{ rate = 1000, burst = 1000 }} }}\n\
         [[publisher]]\nname = \"{PUBLISHER}\"\nuser = \"root\"\nservices = [\"{service}\"]\n\
         bindings-max = 1000000\n",
        service = scenario::SERVICE
    );
    Ok(fs::write(site.policy_file(), text)?)
}

async fn measure(site: &Site, size: usize) -> Result<Beside> {
    let loaded = load_policy(&site.policy_file());
    let policy = Arc::new(loaded.policy.context("the benchmark's own policy has faults")?);
    let bindings = Arc::new(Bindings {
        rows: Mutex::default(),
        settled: watch::Sender::new(0),
    });
    let options = Options {
        await_interfaces: false,
        downgrade: false,
        policy_file: site.policy_file(),
        bpf_fs: site.bpf.path().to_owned(),
        owners_at_least: 0,
        kernel_log: KernelLog::Off,
    };
    let effective: Arc<dyn Effective> = Arc::new(All(Arc::clone(&bindings)));
    let instance = policy.daemon.instance.clone();
    let (engine, shared) = Engine::start(
        Finding::of(&options, &policy).await?,
        loaded.hash,
        policy,
        Some(effective),
        Earlier::Known,
    )
    .await?;
    let (stop, stops) = watch::channel(false);
    let engine = tokio::spawn(engine.run(stops));
    let changer = Changer { shared, bindings };

    let packets = Packets::start(site.bpf.path(), &instance)?;
    tokio::time::sleep(PACKETS_FOR).await;
    let packet_alone_us = packets.end()?;

    let packets = Packets::start(site.bpf.path(), &instance)?;
    let started = Instant::now();
    let mut turns = 0;
    while started.elapsed() < PACKETS_FOR {
        changer.turn(turns).await?;
        turns += 1;
    }
    let packet_beside_changes_us = packets.end()?;

    // Changes first without the packets' thread, which takes its share of a CPU before all others.
    let beside = changer.beside_reloads(&mut turns).await?;
    let packets = Packets::start(site.bpf.path(), &instance)?;
    changer.beside_reloads(&mut turns).await?;
    let packet_beside_reloads_us = packets.end()?;
    // A receiver that is gone has stopped already.
    let _ = stop.send(true);
    engine.await?;
    Ok(Beside {
        sources: size,
        changes: beside.put.len() * 2,
        reload_ms: Spread::of(beside.reload_ms),
        put_us: Percentiles::of(beside.put),
        remove_us: Percentiles::of(beside.removed),
        packet_alone_us,
        packet_beside_changes_us,
        packet_beside_reloads_us,
    })
}

struct Changer {
    shared: Arc<Shared>,
    bindings: Arc<Bindings>,
}

/// How long changes took, and the reloads that they were made beside.
#[derive(Default)]
struct Spent {
    put: Vec<Duration>,
    removed: Vec<Duration>,
    reload_ms: Vec<f64>,
}

/// As the daemon does it: the file is read, and what it says put in force.
async fn reload(shared: Arc<Shared>) -> Result<()> {
    let file = shared.snapshot().policy.file.clone();
    let loaded = tokio::task::spawn_blocking(move || engine::load_policy(Path::new(&file))).await?;
    let policy = loaded.policy.ok_or_else(|| anyhow!("the policy is invalid"))?;
    let proposed = Proposed {
        policy: Arc::new(policy),
        hash: loaded.hash,
        warnings: Vec::new(),
        confirm: None,
    };
    let applied = shared.apply(proposed).await;
    applied.map(drop).map_err(|error| anyhow!("{error}"))
}

impl Changer {
    async fn beside_reloads(&self, turns: &mut u32) -> Result<Spent> {
        let mut spent = Spent::default();
        for _ in 0..RELOADS {
            let started = Instant::now();
            let reload = tokio::spawn(reload(Arc::clone(&self.shared)));
            while !reload.is_finished() {
                let [put, removed] = self.turn(*turns).await?;
                spent.put.push(put);
                spent.removed.push(removed);
                *turns += 1;
            }
            reload.await??;
            spent.reload_ms.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(spent)
    }

    /// One binding put, and one removed: how long each took to be in force.
    async fn turn(&self, number: u32) -> Result<[Duration; 2]> {
        let source = Ipv4Addr::from(u32::from(PUT_AT) + number % BINDINGS);
        let grantee = Grantee {
            credential: format!("binding/{PUBLISHER}/key-{}", number % BINDINGS).into(),
            sources: [IpNet::from(IpAddr::from(source))].into(),
            terms: Arc::new(Terms {
                publisher: PUBLISHER.into(),
                services: [scenario::SERVICE.into()].into(),
                source_ports: Box::default(),
                limit: Default::default(),
            }),
            end: u64::MAX,
        };
        let owner = binding_name(&grantee);
        let put = self.change(Change::Put(grantee)).await?;
        Ok([put, self.change(Change::Remove { owner }).await?])
    }

    async fn change(&self, change: Change) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let (epoch, _) = self.shared.policy();
            match self.shared.change(epoch, vec![change.clone()].into()).await {
                Ok(()) => break,
                // As the writer of bindings does.
                Err(GrantError::PolicyChanged) => {}
                Err(error) => return Err(anyhow!("{error}")),
            }
        }
        let spent = started.elapsed();
        self.bindings.take(change);
        Ok(spent)
    }
}

/// A stranger's packet, judged again and again by what is in force: how long each takes.
struct Packets {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Vec<Duration>>>,
}

impl Packets {
    fn start(bpf_fs: &Path, instance: &str) -> Result<Self> {
        let pins = Pins::of(bpf_fs, instance)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // A packet waits for no process either.
            let mut real_time = Command::new("chrt");
            real_time.args(["--fifo", "--pid", "1", &gettid().to_string()]);
            let status = real_time
                .status()
                .context("chrt, of util-linux, cannot be started")?;
            ensure!(status.success(), "chrt makes no thread a real-time one");
            let entry = Entry::adopt(&pins)?;
            let mut runner = Runner::default();
            let context = RunContext {
                flags: run_flags::NO_SOCKETS,
                ..RunContext::default()
            };
            let frame = frame::tcp(false);
            let mut spent = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                runner.judge(entry.program(), &frame, context)?;
                spent.push(started.elapsed());
                thread::sleep(BETWEEN_PACKETS);
            }
            Ok(spent)
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> Result<Percentiles> {
        self.stop.store(true, Ordering::Relaxed);
        let spent = self
            .thread
            .join()
            .map_err(|_| anyhow!("the packets' thread panicked"))?;
        Ok(Percentiles::of(spent?))
    }
}
