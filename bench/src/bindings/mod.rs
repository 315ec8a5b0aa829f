//! Bindings through the real daemon on its Unix socket: batches, full syncs, single PUTs, authorize, a restart.

mod client;
mod figures;
mod floor;
mod load;
mod table;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyfence_tests::harness::{Attach, Daemon, INSIDE, Policy, Site};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::figures::Percentiles;
use crate::population::Population;
use crate::progress::Progress;
use crate::selection::Kind;
use crate::updates::Memory;
use client::Client;
pub(crate) use figures::Bindings;
use figures::{Authorize, Puts, Restart, Stream};
pub(crate) use table::table;

/// Of a full sync's lines, one in so many differs.
const CHANGED_ONE_IN: usize = 100;
/// Single PUTs at one time.
const CLIENTS: usize = 16;
/// How long each load goes on.
const SECONDS: u64 = 5;
/// Requests of gateways in a second.
const AUTHORIZE_A_SECOND: u32 = 10_000;
/// Lines of the batch and the sync that a PUT is measured beside.
const BESIDE: usize = 300_000;
/// Bare fsyncs.
const FSYNCS: usize = 500;

const ENTRIES: &str = r#"
[[service]]
name = "payments"
protocol = "tcp"
ports = [443]
[[publisher]]
name = "gateway"
user = "root"
services = ["payments"]
environments = ["production"]
bindings-max = 2000000
lease-max = "none"
requests = { rate = "10M", burst = "10M" }
[[publisher]]
name = "partner"
user = "nobody"
services = ["payments"]
environments = ["production"]
bindings-max = 2000000
lease-max = "none"
requests = { rate = "10M", burst = "10M" }
"#;

/// A daemon with its publishers, and the lines that it is sent.
struct Ground<'p> {
    site: Site,
    daemon: Daemon,
    size: usize,
    sources: Vec<String>,
    /// A batch of all bindings.
    whole: Vec<u8>,
    what: String,
    progress: &'p Progress,
}

pub(crate) fn run(size: usize, progress: &Progress) -> Result<Bindings> {
    let what = format!("{} bindings", crate::short(size));
    progress.step(&format!("{what}: making the lines"));
    let population = Population::new(Kind::HostsV4, 2 * size + BESIDE.min(size));
    let sources: Vec<String> = population
        .sources
        .iter()
        .map(|net| net.addr().to_string())
        .collect();
    let site = Site::raw();
    let policy = Policy::new(Attach::Native, ENTRIES).filter("management-none = true");
    let ground = Ground {
        daemon: Daemon::start(&site, &policy),
        whole: lines(size, |at| &sources[at]),
        site,
        size,
        sources,
        what,
        progress,
    };
    let before = Memory::of(ground.daemon.id())?;
    let (batch, after) = ground.batch()?;
    let a_binding = |bytes: u64| bytes.saturating_sub(before.own) as f64 / size as f64;
    let (sync, sync_changed, sync_generations) = ground.sync()?;
    let authorize = ground.authorize()?;
    let fsync_ms = fsyncs(&ground.site.state())?;
    let (puts, [put_alone_ms, put_beside_batch_ms, put_beside_sync_ms]) = ground.puts()?;
    Ok(Bindings {
        bindings: size,
        batch,
        bytes_a_binding: a_binding(after.own),
        peak_bytes_a_binding: a_binding(after.own_peak()),
        sync,
        sync_changed,
        sync_generations,
        puts,
        put_alone_ms,
        put_beside_batch_ms,
        put_beside_sync_ms,
        fsync_ms,
        authorize,
        restart: ground.restart()?,
    })
}

impl Ground<'_> {
    fn step(&self, doing: &str) {
        self.progress.step(&format!("{}: {doing}", self.what));
    }

    /// All bindings from one stream; the daemon's memory behind it.
    fn batch(&self) -> Result<(Stream, Memory)> {
        self.step("the batch");
        let socket = self.site.socket();
        let (batch, summary) = timed(&socket, "POST /v1/bindings/batch", &self.whole, self.size)?;
        let changed = &summary["summary"]["changed"];
        ensure!(*changed == self.size, "not all were taken: {summary}");
        Ok((batch, Memory::of(self.daemon.id())?))
    }

    /// The same set with one line in a hundred other: how many it changed, and the generations it made.
    fn sync(&self) -> Result<(Stream, u64, u64)> {
        self.step("a full sync, one line in a hundred other");
        let source = |at: usize| match at % CHANGED_ONE_IN == 7 {
            true => &self.sources[self.size + at],
            false => &self.sources[at],
        };
        let other = lines(self.size, source);
        let generation = self.daemon.generation();
        let (sync, summary) = timed(&self.site.socket(), "PUT /v1/bindings", &other, self.size)?;
        let changed = summary["summary"]["changed"].as_u64();
        let changed = changed.context("a sync counts what it changed")?;
        Ok((sync, changed, self.daemon.generation() - generation))
    }

    fn authorize(&self) -> Result<Authorize> {
        let socket = self.site.socket();
        let ask = || load::authorize(&socket, self.size, AUTHORIZE_A_SECOND, SECONDS, self.daemon.id());
        self.step("authorize");
        load::settled(self.daemon.id())?;
        let alone = ask()?;
        let sync = "PUT /v1/bindings";
        self.step("authorize beside a full sync");
        let beside_sync = beside(&socket, sync, &self.whole, ask)?;
        self.step("a server that does nothing, in its place");
        let path = self.site.folder().join("floor.sock");
        let floor = || floor::measure(&path, self.size, AUTHORIZE_A_SECOND, SECONDS);
        let (floor_cpu_us, floor_ms) = floor()?;
        let (_, floor_beside_sync_ms) = beside(&socket, sync, &self.whole, floor)?;
        Ok(Authorize {
            a_second: alone.a_second,
            cpu_us: alone.cpu_us,
            ms: alone.ms,
            beside_sync_ms: beside_sync.ms,
            beside_sync_a_second: beside_sync.a_second,
            floor_cpu_us,
            floor_ms,
            floor_beside_sync_ms,
        })
    }

    /// Many clients' PUTs; one client's alone, beside another publisher's batch, and beside another's full sync.
    fn puts(&self) -> Result<(Puts, [Percentiles; 3])> {
        let socket = self.site.socket();
        let put = |clients, name| {
            load::puts(
                &socket,
                clients,
                SECONDS,
                name,
                &self.sources[self.size..2 * self.size],
            )
        };
        let count = BESIDE.min(self.size);
        self.step("single PUTs");
        let (a_second, ms) = put(CLIENTS, "many")?;
        let (_, alone) = put(1, "alone")?;
        self.step("a PUT beside another publisher's batch");
        let line = "POST /v1/bindings/batch?publisher=partner";
        // Its own addresses: a customer's are one publisher's.
        let sent = lines(count, |at| &self.sources[2 * self.size + at]);
        let (_, beside_batch) = beside(&socket, line, &sent, || put(1, "batch"))?;
        self.step("a PUT beside another publisher's full sync");
        let line = "PUT /v1/bindings?publisher=partner&revoke_max=10000000";
        let sent = lines(count, |at| &self.sources[2 * self.size + (at + 1) % count]);
        let (_, beside_sync) = beside(&socket, line, &sent, || put(1, "sync"))?;
        let clients = CLIENTS;
        Ok((
            Puts {
                clients,
                a_second,
                ms,
            },
            [alone, beside_batch, beside_sync],
        ))
    }

    /// As after a crash.
    fn restart(self) -> Result<Restart> {
        self.step("a restart");
        self.daemon.kill();
        let looking = Looking::start(&self.site);
        let started = Instant::now();
        let daemon = Daemon::start_again(&self.site);
        let seconds = started.elapsed().as_secs_f64();
        let (looks, looks_without_filter) = looking.end();
        let active = daemon.status()["bindings"]["publishers"][0]["active"].as_u64();
        ensure!(
            active >= Some(self.size as u64),
            "{active:?} bindings are in force"
        );
        Ok(Restart {
            seconds,
            looks,
            looks_without_filter,
        })
    }
}

/// The key of a number, as its caller has it.
fn key(number: usize) -> String {
    format!("a key of the benchmark, number {number}")
}

/// The same as the store knows it.
fn fingerprint(number: usize) -> String {
    let digest = Sha256::digest(key(number));
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// Lines of a batch or a full sync.
fn lines<'s>(count: usize, source: impl Fn(usize) -> &'s String) -> Vec<u8> {
    let mut lines = Vec::with_capacity(count * 192);
    for at in 0..count {
        // Writing to memory cannot fail.
        let _ = writeln!(
            lines,
            r#"{{"op": "put", "credential": "{}", "sources": ["{}"], "services": ["payments"], "lease_seconds": null}}"#,
            fingerprint(at),
            source(at)
        );
    }
    let _ = writeln!(lines, r#"{{"op": "end", "count": {count}}}"#);
    lines
}

/// A stream from its first byte to its summary.
fn timed(socket: &Path, line: &str, sent: &[u8], lines: usize) -> Result<(Stream, Value)> {
    let mut client = Client::connect(socket)?;
    let mut body = Vec::new();
    let started = Instant::now();
    let status = client.stream(line, sent, &mut body)?;
    let seconds = started.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&body);
    let last = text.trim_end().lines().last().unwrap_or_default();
    ensure!(status == 200, "{line}: {status} {last}");
    let stream = Stream {
        lines,
        bytes: sent.len(),
        seconds,
    };
    Ok((stream, serde_json::from_str(last)?))
}

/// Something while a stream is sent again and again.
fn beside<T: Send>(
    socket: &Path,
    line: &str,
    sent: &[u8],
    something: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let measured = scope.spawn(something);
        while !measured.is_finished() {
            timed(socket, line, sent, 0)?;
        }
        measured
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What the disk itself takes.
fn fsyncs(folder: &Path) -> Result<Percentiles> {
    let path = folder.join("fsync-of-the-benchmark");
    let mut file = fs::File::create(&path)?;
    let page = [0x5a; 4096];
    let mut spent = Vec::with_capacity(FSYNCS);
    for _ in 0..FSYNCS {
        let started = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        spent.push(started.elapsed());
    }
    fs::remove_file(path)?;
    Ok(in_ms(spent))
}

fn in_ms(spent: Vec<Duration>) -> Percentiles {
    let us = Percentiles::of(spent);
    Percentiles {
        half: us.half / 1e3,
        of_99: us.of_99 / 1e3,
        most: us.most / 1e3,
    }
}

/// Looks at the interface until told to end.
struct Looking {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<(usize, usize)>,
}

impl Looking {
    fn start(site: &Site) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (stopped, mut command) = (stop.clone(), site.server.command("ip"));
        command.args(["-d", "link", "show", INSIDE]);
        let thread = std::thread::spawn(move || {
            let (mut looks, mut without) = (0, 0);
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let output = command.output().expect("ip can be started");
                looks += 1;
                without += usize::from(!String::from_utf8_lossy(&output.stdout).contains("prog/xdp"));
                std::thread::sleep(Duration::from_millis(20));
            }
            (looks, without)
        });
        Self { stop, thread }
    }

    fn end(self) -> (usize, usize) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
