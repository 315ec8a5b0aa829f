//! Fills the tables of a generation that was just made.

use std::panic::resume_unwind;

use aya::Pod;
use filter_common::abi::names;

use super::load::{Generation, LoadError};
use super::memory;
use super::written::Written;
use crate::compiler::Compiled;
use crate::compiler::prefixes::Layout;

impl Generation {
    pub(super) fn fill(&mut self, compiled: &Compiled, from: &Layout, to: &Layout) -> Result<(), LoadError> {
        let (mut written, mut owners) = (Written::default(), Written::default());
        let this = &*self;
        // Owners and sources are most of it.
        std::thread::scope(|scope| {
            let filling = scope.spawn(|| this.fill_array(&mut owners, names::OWNERS, &compiled.owners));
            let filled = this.fill_others(&mut written, compiled, from, to);
            filling.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            filled
        })?;
        self.written = written.with(owners);
        Ok(())
    }

    fn fill_others(
        &self,
        written: &mut Written,
        compiled: &Compiled,
        from: &Layout,
        to: &Layout,
    ) -> Result<(), LoadError> {
        self.fill_array(written, names::GATE_V4, &from.gate_v4)?;
        self.fill_array(written, names::HOSTS_V4, &from.hosts_v4)?;
        self.fill_array(written, names::TOP_V4, &from.top_v4)?;
        self.fill_array(written, names::RANGES_V4, &from.ranges_v4)?;
        self.fill_array(written, names::GATE_V6, &from.gate_v6)?;
        self.fill_array(written, names::HOSTS_V6, &from.hosts_v6)?;
        self.fill_array(written, names::BLOCKS_V6, &from.blocks_v6)?;
        self.fill_array(written, names::TOP_V6, &from.top_v6)?;
        self.fill_array(written, names::RANGES_V6, &from.ranges_v6)?;
        self.fill_array(written, names::SOURCES, &compiled.sources)?;
        self.fill_array(written, names::GATE_TO, &to.gate_v6)?;
        self.fill_array(written, names::HOSTS_TO, &to.hosts_v6)?;
        self.fill_array(written, names::BLOCKS_TO, &to.blocks_v6)?;
        self.fill_array(written, names::TOP_TO, &to.top_v6)?;
        self.fill_array(written, names::RANGES_TO, &to.ranges_v6)?;
        self.fill_array(written, names::CLASSES, &compiled.classes)?;
        self.fill_array(written, names::PORTS, &compiled.ports)?;
        self.fill_array(written, names::PORT_MASKS, &compiled.port_masks)?;
        self.fill_array(written, names::ROWS, &compiled.rows)?;
        self.fill_array(written, names::GRANTS, &compiled.grants)?;
        self.fill_array(written, names::PORT_SETS, &compiled.port_sets)?;
        self.fill_array(written, names::LIMITS, &compiled.limits)?;
        self.fill_array(written, names::SERVICES, &compiled.services)
    }

    fn fill_array<V: Pod>(
        &self,
        written: &mut Written,
        table: &'static str,
        entries: &[V],
    ) -> Result<(), LoadError> {
        let map = self.map(table)?;
        memory::fill(map, entries).map_err(|error| LoadError::Fill {
            table,
            done: 0,
            wanted: entries.len(),
            error,
        })?;
        let length = map.info()?.max_entries() as usize;
        written.filled(table, length, entries);
        Ok(())
    }
}
