//! The shape of a table whose lines are the kernel's alone: enough to find an address' place.

use filter_common::lookup::prefixes::{Line, Shape, TableV4, TableV6};

/// Where addresses and blocks have their homes and cells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Homes {
    pub(super) parts: u32,
    pub(super) seed: u32,
    pub(super) gate_bits_v4: u32,
    pub(super) lines_v4: u32,
    pub(super) gate_bits_v6: u32,
    pub(super) lines_v6: u32,
    pub(super) block_lines_v6: u32,
    /// Ranges that are taken.
    pub ranges_v4: u32,
    pub ranges_v6: u32,
}

impl Shape for Homes {
    fn parts(&self) -> u32 {
        self.parts
    }
    fn seed(&self) -> u32 {
        self.seed
    }
}

impl TableV4 for Homes {
    fn gate_bits_v4(&self) -> u32 {
        self.gate_bits_v4
    }
    fn gate_v4(&self, _: u32) -> u64 {
        0
    }
    fn lines_v4(&self) -> u32 {
        self.lines_v4
    }
    fn line_v4(&self, _: u32) -> Option<&Line> {
        None
    }
    fn top_v4(&self, _: u32) -> u64 {
        0
    }
    fn range_v4(&self, _: u32) -> u64 {
        0
    }
}

impl TableV6 for Homes {
    fn gate_bits_v6(&self) -> u32 {
        self.gate_bits_v6
    }
    fn gate_v6(&self, _: u32) -> u64 {
        0
    }
    fn lines_v6(&self) -> u32 {
        self.lines_v6
    }
    fn line_v6(&self, _: u32) -> Option<&Line> {
        None
    }
    fn block_lines_v6(&self) -> u32 {
        self.block_lines_v6
    }
    fn block_line_v6(&self, _: u32) -> Option<&Line> {
        None
    }
    fn top_v6(&self, _: u32) -> u64 {
        0
    }
    fn range_v6(&self, _: u32) -> [u64; 2] {
        [0; 2]
    }
}
