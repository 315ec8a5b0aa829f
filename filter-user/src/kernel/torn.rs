//! Which instances are attached, by their pins; and where some were removed while no daemon ran: what is missing, and whether
//! the filter judges still.

use std::os::fd::AsFd as _;
use std::path::Path;

use filter_common::abi::names;

use super::pins::Pins;
use super::raw;
use super::repin::exists;
use super::succession::is_instance;

impl Pins {
    /// What outlives a generation and is not pinned: maps, and the program that the links lead to.
    pub fn missing(&self) -> Vec<&'static str> {
        let maps = self.maps();
        let missing = |name: &&'static str| !exists(&maps.join(name));
        let maps = names::PERSISTENT.iter().copied().filter(missing);
        let program = (!exists(&self.entry())).then_some(names::ENTRY);
        program.into_iter().chain(maps).collect()
    }

    /// Whether packets find a generation, where no daemon runs: the kernel empties a table of programs when nobody has it
    /// any more, by a pin or otherwise, and the entry program drops every packet from then on.
    pub fn judges(&self) -> bool {
        exists(&self.maps().join(names::GENERATION))
    }

    /// The instances that filter, by the pins under this BPF file system; none where it cannot be read.
    pub fn filtering(bpf_fs: &Path) -> Vec<String> {
        let attached = Self::attached(bpf_fs).into_iter();
        attached.map(|(name, _)| name).collect()
    }

    fn attached(bpf_fs: &Path) -> Vec<(String, Self)> {
        let all = Self {
            root: bpf_fs.join("keyfence"),
        };
        let names = all.list(&all.root).unwrap_or_default().into_iter();
        let pins = names.filter(|name| is_instance(name)).map(|name| {
            let root = all.root.join(&name);
            (name.replace('%', "."), Self { root })
        });
        let linked = |pins: &Self| pins.linked().is_ok_and(|linked| !linked.is_empty());
        pins.filter(|(_, pins)| linked(pins)).collect()
    }

    /// The instances whose filter drops every packet for this.
    pub fn shut(bpf_fs: &Path) -> Vec<String> {
        let attached = Self::attached(bpf_fs).into_iter();
        // Whoever holds the folder holds the table too.
        let shut = attached.filter(|(_, pins)| !pins.judges() && matches!(pins.lock(), Ok(Some(_))));
        shut.map(|(name, _)| name).collect()
    }

    /// The program that filters: the one that is pinned, or that its links have.
    pub fn program_in_force(&self) -> Option<u32> {
        let of_link = |name: &String| {
            let link = raw::pinned(&self.link(name)).ok()?;
            let (program, interface) = raw::program_and_interface(link.as_fd()).ok()?;
            (interface != 0).then_some(program)
        };
        let linked = || self.linked().ok()?.iter().find_map(of_link);
        self.entry_program().or_else(linked)
    }
}
