//! Captures: judged packets as pcapng, for as long as somebody takes them.
//!
//! What is wanted is chosen in the kernel (`kernel::capture`); here it is named, written and bounded. Nothing is read
//! from the kernel before the reader has taken what came before: one who is slow loses packets, which are counted, and
//! costs no memory. docs/CAPTURE.md has the format.

mod pcapng;

use std::collections::HashSet;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use filter_common::capture::{Counts, Taken, Wanted};
use filter_common::verdict::{NO_OWNER, NO_SERVICE, Reason, Verdict};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Naming;
use crate::kernel::capture::{Capture, CaptureError, Tap};
use crate::kernel::clock;
use pcapng::{Comment, File};

/// Captures at one time.
pub const CAPTURES_MAX: usize = 4;
/// How often the kernel's buffer is looked at: it holds what comes in this time at 200 MB/s.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A reader who has gone is noticed when something is written: where no packet comes, its statistics are.
const STATISTICS_EVERY: Duration = Duration::from_secs(5);
/// Read at one time; the rest stays in the kernel's buffer.
const CHUNK_BYTES: u64 = 256 << 10;
/// What the end of a file takes beside its packets, of `size`.
const END_BYTES: u64 = 16 << 10;
/// Of a packet's block, beside its bytes: head, comment, padding.
const BLOCK_BYTES: u64 = 640;

/// When a capture ends by itself.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub packets: Option<u64>,
    pub duration: Duration,
    /// Of what is written.
    pub bytes: u64,
}

/// Why a capture has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Count,
    Size,
    Duration,
    /// Its reader wanted no more.
    Asked,
    /// The daemon stops.
    Stopping,
    /// The kernel's counts could not be read: a fault.
    Fault,
}

impl Ended {
    pub const fn name(self) -> &'static str {
        match self {
            Ended::Count => "count",
            Ended::Size => "size",
            Ended::Duration => "duration",
            Ended::Asked => "asked",
            Ended::Stopping => "stopping",
            Ended::Fault => "fault",
        }
    }
}

/// Why none begins.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("{CAPTURES_MAX} captures run already; end one first")]
    Busy,
    #[error(transparent)]
    Kernel(#[from] CaptureError),
    #[error("{0}")]
    Failed(String),
}

/// Who starts captures.
pub struct Captures {
    tap: Arc<Tap>,
    naming: Arc<dyn Naming + Sync>,
    places: Arc<Semaphore>,
}

/// Resolves where something else than its bounds ends a capture.
pub type Until = Pin<Box<dyn Future<Output = Ended> + Send>>;

impl Captures {
    /// `most` at one time.
    pub fn new(tap: Arc<Tap>, naming: Arc<dyn Naming + Sync>, most: usize) -> Self {
        Self {
            tap,
            naming,
            places: Arc::new(Semaphore::new(most)),
        }
    }

    /// Begins one. `what` says what was asked for, in the file's header; `interfaces` are those of the policy.
    pub async fn start(
        self: &Arc<Self>,
        wanted: Wanted,
        bounds: Bounds,
        what: String,
        interfaces: Vec<(u32, String)>,
        until: Until,
    ) -> Result<Running, StartError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| StartError::Busy)?;
        let captures = Arc::clone(self);
        let begun = tokio::task::spawn_blocking(move || {
            let capture = captures.tap.open(&wanted)?;
            let mut file = File::new(&what, wanted.snap, wall(clock::wall_offset(), now()));
            for (number, name) in interfaces {
                file.interface(number, || name);
            }
            Ok::<_, CaptureError>(Inner {
                capture,
                file,
                naming: Arc::clone(&captures.naming),
                bounds,
                delivered: 0,
                _place: place,
            })
        });
        let inner = begun
            .await
            .map_err(|error| StartError::Failed(error.to_string()))??;
        let now = Instant::now();
        Ok(Running {
            inner: Some(inner),
            until,
            deadline: now + bounds.duration,
            statistics_at: now + STATISTICS_EVERY,
            ended: None,
            begun: false,
        })
    }
}

/// A capture under way; dropped, it ends at once.
pub struct Running {
    inner: Option<Inner>,
    until: Until,
    deadline: Instant,
    statistics_at: Instant,
    ended: Option<Ended>,
    begun: bool,
}

impl Running {
    /// The next piece of the file; `None` is its end.
    pub async fn next(mut self) -> Option<(Bytes, Running)> {
        loop {
            let mut inner = self.inner.take()?;
            if !self.begun {
                // The header at once: who reads by a pipe waits for it.
                self.begun = true;
                let bytes = inner.file.take();
                self.inner = Some(inner);
                return Some((bytes, self));
            }
            let (ended, statistics) = (self.ended, Instant::now() >= self.statistics_at);
            let step = tokio::task::spawn_blocking(move || {
                let step = inner.step(ended, statistics);
                (inner, step)
            });
            // An error means that reading was stopped with the runtime.
            let (inner, step) = step.await.ok()?;
            if let Step::Last(bytes) = step {
                return Some((bytes, self));
            }
            self.inner = Some(inner);
            match step {
                Step::More(bytes, bound) => {
                    self.ended = self.ended.or(bound);
                    self.statistics_at = Instant::now() + STATISTICS_EVERY;
                    self.look().await;
                    return Some((bytes, self));
                }
                Step::Nothing | Step::Last(_) => {}
            }
            if self.ended.is_none() {
                tokio::time::sleep(LOOK_EVERY).await;
                self.look().await;
            }
        }
    }

    /// Whether the end has come from outside, without waiting for it.
    async fn look(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.ended = tokio::select! {
            biased;
            ended = &mut self.until => Some(ended),
            () = std::future::ready(()) => None,
        };
        if self.ended.is_none() && Instant::now() >= self.deadline {
            self.ended = Some(Ended::Duration);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Leaving the packets' way waits for those under way.
        if let (Some(inner), Ok(runtime)) = (self.inner.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn_blocking(move || drop(inner));
        }
    }
}

/// What one look at the kernel's buffer came to.
enum Step {
    Nothing,
    /// With the bound that is reached.
    More(Bytes, Option<Ended>),
    Last(Bytes),
}

/// What of a capture may block.
struct Inner {
    capture: Capture,
    file: File,
    naming: Arc<dyn Naming + Sync>,
    bounds: Bounds,
    delivered: u64,
    _place: OwnedSemaphorePermit,
}

impl Inner {
    fn step(&mut self, ended: Option<Ended>, statistics: bool) -> Step {
        if ended.is_some() && self.capture.detach() {
            // Packets under way are still about to be handed on.
            std::thread::sleep(LOOK_EVERY);
        }
        let bound = match ended {
            Some(Ended::Count | Ended::Size) => None,
            _ => self.packets(),
        };
        let bytes = self.file.take();
        if !bytes.is_empty() {
            return Step::More(bytes, bound);
        }
        if ended.is_none() && !statistics {
            return Step::Nothing;
        }
        let comment = ended.map(Ended::name);
        match self.statistics(comment) {
            Ok(()) => {}
            Err(error) => {
                tracing::error!("a capture's counts cannot be read: {error}");
                return Step::More(Bytes::new(), Some(Ended::Fault));
            }
        }
        let bytes = self.file.take();
        match ended {
            Some(_) => Step::Last(bytes),
            None => Step::More(bytes, None),
        }
    }

    /// Writes packets that have come; says which bound they reached.
    fn packets(&mut self) -> Option<Ended> {
        let (mut read, mut bound) = (0, None);
        let mut packets: Vec<(Taken, Vec<u8>)> = Vec::new();
        let (bounds, delivered, written) = (self.bounds, self.delivered, self.file.written());
        self.capture.read(|taken, frame| {
            let takes = u64::from(taken.captured) + BLOCK_BYTES;
            if written + read + takes + END_BYTES > bounds.bytes {
                bound = Some(Ended::Size);
                return ControlFlow::Break(());
            }
            read += takes;
            packets.push((taken, frame.to_vec()));
            let has = delivered + packets.len() as u64;
            if bounds.packets.is_some_and(|most| has >= most) {
                bound = Some(Ended::Count);
                return ControlFlow::Break(());
            }
            match read >= CHUNK_BYTES {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        self.delivered += packets.len() as u64;
        self.write(packets);
        bound
    }

    fn write(&mut self, mut packets: Vec<(Taken, Vec<u8>)>) {
        // CPUs hand on in another order than they looked at their clocks.
        packets.sort_by_key(|(taken, _)| taken.time);
        let owners: HashSet<u32> = packets.iter().map(|(taken, _)| taken.owner).collect();
        let owners: HashSet<u32> = owners.into_iter().filter(|owner| *owner != NO_OWNER).collect();
        let owners = self.naming.owners(&owners);
        let offset = clock::wall_offset();
        for (taken, frame) in packets {
            let (Some(verdict), Some(reason)) = (
                Verdict::from_number(taken.verdict),
                Reason::from_number(taken.reason),
            ) else {
                // Of a filter that knows more reasons than this program: there is none.
                tracing::error!(taken.verdict, taken.reason, "a captured packet has no verdict");
                continue;
            };
            let service = (taken.service != NO_SERVICE).then(|| self.naming.service(taken.service));
            let owner = (taken.owner != NO_OWNER).then(|| owners.get(&taken.owner).cloned());
            let unknown = || "unknown".to_owned();
            let comment = Comment {
                verdict,
                reason,
                service: service.map(|name| name.unwrap_or_else(unknown)),
                owner: owner.map(|name| name.unwrap_or_else(unknown)),
            };
            let naming = &self.naming;
            let number = taken.interface;
            let interface = self
                .file
                .interface(number, || interface_name(naming.as_ref(), number));
            let time = wall(offset, taken.time);
            self.file.packet(interface, time, taken.length, &frame, &comment);
        }
    }

    fn statistics(&mut self, ended: Option<&str>) -> Result<(), String> {
        let counts = self.capture.counts().map_err(|error| error.to_string())?;
        let now = wall(clock::wall_offset(), now());
        for (number, counts) in counts {
            if number == 0 && counts == Counts::default() {
                continue;
            }
            let naming = &self.naming;
            self.file
                .interface(number, || interface_name(naming.as_ref(), number));
            self.file.counted(number, counts);
        }
        self.file.statistics(now, ended);
        Ok(())
    }
}

fn interface_name(naming: &dyn Naming, number: u32) -> String {
    match number {
        // Beyond the kernel's table of counts.
        0 => "others".to_owned(),
        number => naming.interface(number).unwrap_or_else(|| format!("if{number}")),
    }
}

/// Nanoseconds of the monotonic clock, as the kernel stamps packets.
fn now() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let time = time.expect("the monotonic clock can always be read");
    time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
}

/// The same moment by the wall clock, in nanoseconds since 1970.
fn wall(offset: i128, monotonic: u64) -> u64 {
    u64::try_from(i128::from(monotonic) + offset).unwrap_or(0)
}
