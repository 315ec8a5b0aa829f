//! Tables for unit tests of what no policy alone reaches: publishers, and sources that meet in one line.

use core::borrow::Borrow;
use core::cell::Cell;

use crate::abi::{Class, LimitSet, Owner, Service, Source};
use crate::bounds::SOURCE_WAYS;
use crate::charge::Charge;
use crate::classify::{Grants, Walk};
use crate::limit::{Bucket, Effect};
use crate::lookup::{Config, GrantTables, Port, Tables, Used};
use crate::parse::Packet;
use crate::pipeline::Outcome;
use crate::target::Target;
use crate::units::Nanos;

/// Tables with one owner, number 7, shared buckets that pay or not, and buckets of sources.
pub(crate) struct Double {
    pub(crate) flags: u32,
    pub(crate) owner: Owner,
    pub(crate) pays: bool,
    /// Whose shared bucket was asked last.
    pub(crate) asked: Cell<u32>,
    pub(crate) limits: LimitSet,
    pub(crate) effect: Effect,
    /// Lines of four ways for each unit: tag and word.
    pub(crate) lines: u32,
    pub(crate) ways: Vec<[Cell<u64>; 2]>,
    /// What another CPU places just before this one would; 0 is nothing.
    pub(crate) rival: Cell<u64>,
    /// Packets counted as the owner's.
    pub(crate) passed: Cell<u32>,
    /// Packets of sources that shared a bucket.
    pub(crate) shared: Cell<u32>,
    /// Numbers, and until when they are observed.
    pub(crate) observed: Vec<(u32, u64)>,
}

impl Default for Double {
    fn default() -> Self {
        Self {
            flags: 0,
            owner: Owner::default(),
            pays: true,
            asked: Cell::new(0),
            limits: LimitSet::default(),
            effect: Effect::Commit,
            lines: 0,
            ways: Vec::new(),
            rival: Cell::new(0),
            passed: Cell::new(0),
            shared: Cell::new(0),
            observed: Vec::new(),
        }
    }
}

impl Bucket for &Cell<u64> {
    fn load(&self) -> u64 {
        self.get()
    }
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        match self.get() {
            now if now == old => {
                self.set(new);
                Ok(())
            }
            now => Err(now),
        }
    }
}

/// A tag, or a bucket's word; who places a tag may be overtaken.
pub(crate) struct Word<'a> {
    word: &'a Cell<u64>,
    rival: Option<&'a Cell<u64>>,
}

impl Bucket for Word<'_> {
    fn load(&self) -> u64 {
        self.word.load()
    }
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        match self.rival.map_or(0, Cell::take) {
            0 => {}
            theirs => self.word.set(theirs),
        }
        self.word.compare_exchange(old, new)
    }
}

/// What the owner has used.
pub(crate) struct Unlimited<'a>(&'a Double);

impl<'a> Used for Unlimited<'a> {
    type Bucket = Word<'a>;
    fn bucket(&self, _: u32) -> Word<'a> {
        unreachable!("no limit")
    }
    fn count(&self, _: u32, _: Nanos) {
        self.0.passed.set(self.0.passed.get() + 1);
    }
}

impl GrantTables for Double {
    fn row_words(&self) -> u32 {
        1
    }
    fn row_word(&self, _: u32, _: u32) -> u64 {
        1
    }
    fn owner_number(&self, _: u32) -> Option<u32> {
        unreachable!("one owner")
    }
    fn owner(&self, number: u32) -> Option<&Owner> {
        (number == 7).then_some(&self.owner)
    }
    fn port_set_word(&self, _: u32, _: u32) -> u64 {
        unreachable!("one range of ports")
    }
}

impl Tables for Double {
    type Bucket<'a> = Word<'a>;
    type Used<'a> = Unlimited<'a>;

    fn config(&self) -> Config {
        Config { flags: self.flags }
    }
    fn effect(&self) -> Effect {
        self.effect
    }
    fn now(&self) -> Nanos {
        Nanos(5)
    }
    fn service(&self, _: u32) -> Option<&Service> {
        const { &Some(Service { flags: 0, limits: 0 }) }.as_ref()
    }
    fn shared_pays(&self, number: u32, _: Charge, _: Nanos) -> bool {
        self.asked.set(number);
        self.pays
    }
    fn walk<R>(&self, mut walk: Walk, then: impl FnOnce(&Grants) -> R) -> R {
        walk.step(self, 0);
        then(&walk.found)
    }
    fn owner_pays(&self, _: u32, _: Charge, _: Nanos) -> bool {
        true
    }

    fn value(&self, _: &Packet) -> u32 {
        unreachable!()
    }
    fn source(&self, _: u32) -> Option<&Source> {
        unreachable!()
    }
    fn class_number(&self, _: &Packet) -> u32 {
        unreachable!()
    }
    fn class(&self, _: u32) -> Option<&Class> {
        unreachable!()
    }
    fn port(&self, _: u32) -> Port {
        unreachable!()
    }
    fn management_ports(&self, _: u32) -> u64 {
        unreachable!()
    }
    fn limits(&self, _: u32) -> Option<&LimitSet> {
        Some(&self.limits)
    }
    fn owner_used(&self, _: u32) -> Option<Unlimited<'_>> {
        Some(Unlimited(self))
    }
    fn target(&self, _: &Packet) -> Option<impl Borrow<Target> + '_> {
        None::<Target>
    }
    fn service_bucket(&self, _: u32, _: u32) -> Option<Word<'_>> {
        unreachable!()
    }
    fn unserved(&self, _: &Packet, _: &Source, _: u32, _: u32) -> Outcome {
        unreachable!()
    }
    fn fragment(&self, _: &Packet, _: &Source, _: u32, _: bool) -> Outcome {
        unreachable!()
    }
    fn service_of_many(&self, _: &Packet, _: &Source, _: u32) -> Outcome {
        unreachable!()
    }
    fn service_in_both(&self, _: u32, _: u32) -> u32 {
        unreachable!()
    }
    fn source_pays(&self, _: &Packet, _: Charge, _: Nanos) -> bool {
        unreachable!()
    }
    fn observes_any(&self) -> bool {
        !self.observed.is_empty()
    }
    fn observe_until(&self, number: u32) -> u64 {
        let found = self.observed.iter().find(|(observed, _)| *observed == number);
        found.map_or(0, |(_, until)| *until)
    }
    fn observed(&self, outcome: Outcome) -> Outcome {
        crate::pipeline::observed(self, outcome)
    }
    fn is_reply(&self, _: &Packet) -> bool {
        unreachable!()
    }
    fn source_lines(&self) -> u32 {
        self.lines
    }
    fn source_bucket(&self, line: u32, way: u32) -> Option<(Word<'_>, Word<'_>)> {
        let [tag, word] = self.ways.get((line * SOURCE_WAYS + way) as usize)?;
        let rival = Some(&self.rival);
        Some((Word { word: tag, rival }, Word { word, rival: None }))
    }
    fn count_shared_source(&self) {
        self.shared.set(self.shared.get() + 1);
    }
    fn count(&self, _: u32, _: u32) {
        unreachable!()
    }
    fn count_interface(&self, _: u8) {
        unreachable!()
    }
}
