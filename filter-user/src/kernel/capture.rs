//! Captures: programs that run behind the judge, while somebody reads what they hand on. Nothing of them is pinned.
//!
//! A judge ends by a jump through a table of its own, `CAPTURE`, which is empty and costs next to nothing until a capture
//! stands there; each capture goes on to the next. The kernel empties these tables when the process that holds them
//! ends, however it ends.

use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, Map, MapData, MapError, PerCpuHashMap, PerCpuValues, ProgramArray, RingBuf};
use aya::programs::{ProgramError, ProgramFd, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfError, EbpfLoader};
use filter_common::abi::names;
use filter_common::capture::{Counts, Taken, Wanted};
use thiserror::Error;

use super::load::{Generation, LoadError};
use super::{attach, chain};

/// The capture's program, built from `filter-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("KEYFENCE_EBPF_CAPTURE"));

/// Of a capture's buffer.
const BUFFER_BYTES: u32 = 4 << 20;

#[derive(Debug, Error)]
pub enum CaptureError {
    #[error("the capture's maps cannot be made: {0}")]
    Maps(String),
    #[error("the kernel does not take the capture's program: {0}")]
    Program(String),
    #[error("{0} is missing from the capture's program: a fault of this build")]
    Missing(&'static str),
    #[error("no filter is in force")]
    NoFilter,
}

impl From<EbpfError> for CaptureError {
    fn from(error: EbpfError) -> Self {
        Self::Maps(chain(&error))
    }
}

impl From<MapError> for CaptureError {
    fn from(error: MapError) -> Self {
        Self::Maps(chain(&error))
    }
}

impl From<ProgramError> for CaptureError {
    fn from(error: ProgramError) -> Self {
        Self::Program(chain(&error))
    }
}

/// Where captures are put in a packet's way: behind the judge in force, and behind each other.
pub struct Tap {
    /// The pin of the desk, which is one for all generations.
    desk: PathBuf,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// What the judge in force jumps through; `None` before the first.
    gate: Option<ProgramArray<MapData>>,
    /// The same of the judge that stands by: a capture goes on where it takes over.
    standby: Option<ProgramArray<MapData>>,
    /// In the order that packets pass them.
    captures: Vec<Standing>,
    started: u64,
}

struct Standing {
    number: u64,
    program: ProgramFd,
    next: ProgramArray<MapData>,
}

impl Tap {
    pub fn new(desk: PathBuf) -> Self {
        Self {
            desk,
            line: Mutex::default(),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Each change is one store in a table: what a panic left is whole.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a generation in force, with the captures behind it that stood behind the last one.
    pub fn swap(&self, generation: &mut Generation) -> Result<(), LoadError> {
        let mut line = self.line();
        let gate = line.gate_of(generation)?;
        attach::swap(generation)?;
        line.gate = Some(gate);
        Ok(())
    }

    /// The same with the generation that stands by.
    pub fn stand_by(&self, generation: &mut Generation) -> Result<(), LoadError> {
        let mut line = self.line();
        let gate = line.gate_of(generation)?;
        attach::stand_by(generation)?;
        line.standby = Some(gate);
        Ok(())
    }

    /// Nothing stands by any more.
    pub fn stand_down(&self, generation: &mut Generation) -> Result<(), LoadError> {
        self.line().standby = None;
        attach::stand_down(generation)
    }

    /// Begins a capture: it takes packets from now on. Blocks for some milliseconds.
    pub fn open(self: &Arc<Self>, wanted: &Wanted) -> Result<Capture, CaptureError> {
        let cpus = nr_cpus().map_err(|(_, error)| CaptureError::Maps(error.to_string()))?;
        let mut loaded = EbpfLoader::new()
            .map_pin_path(names::DESK, &self.desk)
            .map_max_entries(names::CAPTURE_FRAMES, BUFFER_BYTES)
            .map_max_entries(names::CAPTURE_SCRATCH, cpus as u32)
            .load(OBJECT)?;
        let mut setting: Array<MapData, Wanted> = take(&mut loaded, names::CAPTURE_WANTED)?;
        setting.set(0, wanted, 0)?;
        let mut counts: PerCpuHashMap<MapData, u32, Counts> = take(&mut loaded, names::CAPTURE_COUNTS)?;
        // Where the packets of interfaces without a place are counted.
        let none = PerCpuValues::try_from(vec![Counts::default(); cpus]);
        let none = none.map_err(|error| CaptureError::Maps(error.to_string()))?;
        counts.insert(0, none, 0)?;
        let frames: RingBuf<MapData> = take(&mut loaded, names::CAPTURE_FRAMES)?;
        let next: ProgramArray<MapData> = take(&mut loaded, names::CAPTURE_NEXT)?;
        let program = loaded.program_mut(names::CAPTURE);
        let program: &mut Xdp = program.ok_or(CaptureError::Missing(names::CAPTURE))?.try_into()?;
        program.load()?;
        let program = program.fd()?.try_clone();
        let program = program.map_err(|error| CaptureError::Program(error.to_string()))?;
        let number = self.line().put(program, next)?;
        Ok(Capture {
            tap: Arc::clone(self),
            number: Some(number),
            frames,
            counts,
            _loaded: loaded,
        })
    }
}

fn take<T: TryFrom<Map, Error = MapError>>(loaded: &mut Ebpf, name: &'static str) -> Result<T, CaptureError> {
    let map = loaded.take_map(name).ok_or(CaptureError::Missing(name))?;
    Ok(T::try_from(map)?)
}

impl Line {
    /// What a generation's judge jumps through, with the captures behind it.
    fn gate_of(&self, generation: &Generation) -> Result<ProgramArray<MapData>, LoadError> {
        let map = generation.map(names::CAPTURE_GATE)?.fd().as_fd();
        let map = map.try_clone_to_owned();
        let map = map.map_err(|error| LoadError::Object(format!("{}: {error}", names::CAPTURE_GATE)))?;
        let mut gate = ProgramArray::try_from(Map::ProgramArray(MapData::from_fd(map)?))?;
        if let Some(first) = self.captures.first() {
            gate.set(0, &first.program, 0)?;
        }
        Ok(gate)
    }

    fn gates(&mut self) -> impl Iterator<Item = &mut ProgramArray<MapData>> {
        self.gate.iter_mut().chain(&mut self.standby)
    }

    /// First in the line: what stood there comes behind it before any packet sees either.
    fn put(&mut self, program: ProgramFd, mut next: ProgramArray<MapData>) -> Result<u64, CaptureError> {
        if self.gate.is_none() {
            return Err(CaptureError::NoFilter);
        }
        if let Some(first) = self.captures.first() {
            next.set(0, &first.program, 0)?;
        }
        for gate in self.gates() {
            gate.set(0, &program, 0)?;
        }
        self.started += 1;
        let standing = Standing {
            number: self.started,
            program,
            next,
        };
        self.captures.insert(0, standing);
        Ok(self.started)
    }

    fn remove(&mut self, number: u64) -> Result<(), MapError> {
        let Some(at) = self.captures.iter().position(|of| of.number == number) else {
            return Ok(());
        };
        let gone = self.captures.remove(at);
        let (before, from) = self.captures.split_at_mut(at);
        let close = |table: &mut ProgramArray<MapData>| match from.first() {
            Some(behind) => table.set(0, &behind.program, 0),
            None => table.clear_index(&0),
        };
        let closed = match before.last_mut() {
            Some(before) => close(&mut before.next),
            None => self.gate.iter_mut().chain(&mut self.standby).try_for_each(close),
        };
        drop(gone);
        closed
    }
}

/// A capture under way; dropped, it ends.
pub struct Capture {
    tap: Arc<Tap>,
    /// In the line, while it stands there.
    number: Option<u64>,
    frames: RingBuf<MapData>,
    counts: PerCpuHashMap<MapData, u32, Counts>,
    _loaded: Ebpf,
}

impl Capture {
    /// Takes no further packets; what has come can still be read. Whether it took some until now.
    pub fn detach(&mut self) -> bool {
        let Some(number) = self.number.take() else {
            return false;
        };
        if let Err(error) = self.tap.line().remove(number) {
            // Cannot happen. Its table goes with this process.
            tracing::error!(
                "a capture cannot be taken out of the packets' way: {}",
                chain(&error)
            );
        }
        true
    }

    /// Gives what has come, in the order it was handed on, until `each` wants no more; that one is lost, the rest stays.
    pub fn read(&mut self, mut each: impl FnMut(Taken, &[u8]) -> ControlFlow<()>) {
        while let Some(record) = self.frames.next() {
            if let Some((taken, frame)) = split(&record)
                && each(taken, frame).is_break()
            {
                return;
            }
        }
    }

    /// What became of the packets so far, by the interface's number; 0 stands for those that found no place.
    pub fn counts(&self) -> Result<Vec<(u32, Counts)>, CaptureError> {
        let mut found = Vec::new();
        for entry in self.counts.iter() {
            let (interface, counts) = entry?;
            found.push((interface, counts.iter().fold(Counts::default(), Counts::and)));
        }
        found.sort_unstable_by_key(|(interface, _)| *interface);
        Ok(found)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.detach();
    }
}

/// What stands in front of a frame, and the frame; `None` cannot happen.
fn split(record: &[u8]) -> Option<(Taken, &[u8])> {
    let (head, rest) = record.split_at_checked(size_of::<Taken>())?;
    let u32_at = |at: usize| Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let taken = Taken {
        time: u64::from_ne_bytes(head.get(..8)?.try_into().ok()?),
        length: u32_at(8)?,
        captured: u32_at(12)?,
        interface: u32_at(16)?,
        service: u32_at(20)?,
        owner: u32_at(24)?,
        verdict: head[28],
        reason: head[29],
        reserved: [0; 2],
    };
    Some((taken, rest.get(..taken.captured as usize)?))
}
