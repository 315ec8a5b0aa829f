//! Loads of many small requests: PUTs as fast as they are answered, authorize at a rate.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::client::Client;
use super::{in_ms, key};
use crate::figures::Percentiles;

/// Connections that a gateway keeps.
pub(super) const GATEWAYS: u32 = 8;
/// The rows of a million bindings are folded by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// What is put off to a quiet moment begins within a second of it.
const QUIET_SECONDS: u32 = 3;
/// Keys in turn: enough to be in no cache.
const KEYS_STEP: usize = 7919;

/// So many clients, each with a connection of its own, put new bindings as fast as they are answered; how many a second,
/// and how long each took.
pub(super) fn puts(
    socket: &Path,
    clients: usize,
    seconds: u64,
    name: &str,
    sources: &[String],
) -> Result<(f64, Percentiles)> {
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let spent = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|client| scope.spawn(move || put_until(socket, end, &format!("{name}-{client}"), sources)))
            .collect();
        let spent = clients.into_iter().map(|client| {
            client
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        spent.collect::<Result<Vec<_>>>()
    })?
    .concat();
    let a_second = spent.len() as f64 / started.elapsed().as_secs_f64();
    Ok((a_second, in_ms(spent)))
}

fn put_until(socket: &Path, end: Instant, name: &str, sources: &[String]) -> Result<Vec<Duration>> {
    let mut client = Client::connect(socket)?;
    let (mut spent, mut body) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        let at = spent.len();
        let source = &sources[(at * 31 + name.len()) % sources.len()];
        let binding = format!(
            r#"{{"sources": ["{source}"], "services": ["payments"], "lease_seconds": 3600, "row_version": {}}}"#,
            at + 1
        );
        let line = format!("PUT /v1/bindings/{name}-{at}");
        let started = Instant::now();
        let status = client.ask(
            &line,
            "content-type: application/json\r\n",
            binding.as_bytes(),
            &mut body,
        )?;
        spent.push(started.elapsed());
        ensure!(
            [200, 201].contains(&status),
            "{line}: {status} {}",
            String::from_utf8_lossy(&body)
        );
    }
    Ok(spent)
}

pub(super) struct Authorized {
    pub(super) a_second: f64,
    pub(super) cpu_us: f64,
    pub(super) ms: Percentiles,
}

/// Requests of gateways at a rate, each for another key; the address is not the binding's own, so that each is looked up
/// to its end.
pub(super) fn authorize(
    socket: &Path,
    bindings: usize,
    a_second: u32,
    seconds: u64,
    daemon: u32,
) -> Result<Authorized> {
    let cpu = cpu_time(daemon)?;
    let (taken, ms, spent) = ask(socket, bindings, a_second, seconds)?;
    let cpu = cpu_time(daemon)? - cpu;
    Ok(Authorized {
        a_second: taken as f64 / spent.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / taken.max(1) as f64,
        ms,
    })
}

/// How many were answered, how long each took, and all of them.
pub(super) fn ask(
    socket: &Path,
    bindings: usize,
    a_second: u32,
    seconds: u64,
) -> Result<(usize, Percentiles, Duration)> {
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let every = Duration::from_secs(1) * GATEWAYS / a_second;
    let spent = thread::scope(|scope| {
        let gateways: Vec<_> = (0..GATEWAYS)
            .map(|gateway| scope.spawn(move || ask_until(socket, end, every, gateway, bindings)))
            .collect();
        let spent = gateways.into_iter().map(|gateway| {
            gateway
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        spent.collect::<Result<Vec<_>>>()
    })?
    .concat();
    Ok((spent.len(), in_ms(spent), started.elapsed()))
}

fn ask_until(
    socket: &Path,
    end: Instant,
    every: Duration,
    gateway: u32,
    bindings: usize,
) -> Result<Vec<Duration>> {
    let mut client = Client::connect(socket)?;
    let (mut spent, mut body) = (Vec::new(), Vec::new());
    let mut next = Instant::now() + every * gateway / GATEWAYS;
    let mut at = gateway as usize;
    while next < end {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        at = (at + KEYS_STEP) % bindings;
        let headers = format!("x-api-key: {}\r\nkeyfence-client-address: 192.0.2.1\r\n", key(at));
        // Late ones count from when they were due, as their callers wait.
        let status = client.ask("GET /v1/authorize/payments", &headers, b"", &mut body)?;
        spent.push(Instant::now().saturating_duration_since(next));
        ensure!(
            status == 403,
            "a known key from another address is answered {status}"
        );
        next += every;
    }
    Ok(spent)
}

/// Waits until the daemon has done what a load has left it to do: nothing of that is a request's.
pub(super) fn settled(daemon: u32) -> Result<()> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let mut quiet = 0;
    while Instant::now() < deadline {
        let before = cpu_time(daemon)?;
        thread::sleep(Duration::from_secs(1));
        // What it looks at each second is less.
        quiet = match cpu_time(daemon)? - before <= Duration::from_millis(20) {
            true => quiet + 1,
            false => 0,
        };
        if quiet == QUIET_SECONDS {
            return Ok(());
        }
    }
    anyhow::bail!("the daemon is busy still after {} s", SETTLED_WITHIN.as_secs())
}

/// User and system time of a process.
fn cpu_time(process: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("/proc has another form")?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (ticks.next(), ticks.next()) else {
        anyhow::bail!("/proc has another form");
    };
    // USER_HZ is 100 on every architecture that Linux has.
    Ok(Duration::from_millis(10) * u32::try_from(user + system)?)
}
