//! Grants that are tried one after the other in the model alone: no packet sees anything of it, and in the end it is as it
//! was.

use super::family::Say;
use super::plan::Step;
use super::{Live, Stop};
use crate::bindings::seam::Grantee;
use crate::compiler::port_sets::PortDraft;
use crate::compiler::{Numbers, binding_name};

/// Takes everything back when it is dropped.
pub(in crate::engine) struct Trial<'l> {
    live: &'l mut Live,
    numbers: &'l Numbers,
    /// Numbers of those that have none yet, each its name's meanwhile.
    taken: Vec<u32>,
    ports: PortDraft,
}

impl Live {
    pub(in crate::engine) fn trial<'l>(&'l mut self, numbers: &'l Numbers) -> Trial<'l> {
        self.take_back();
        Trial {
            live: self,
            numbers,
            taken: Vec::new(),
            ports: PortDraft::default(),
        }
    }
}

impl Trial<'_> {
    /// Whether a grant finds its place behind those that did. What does not leaves nothing behind.
    pub(in crate::engine) fn put(&mut self, before: Option<&Grantee>, grantee: &Grantee) -> Result<(), Stop> {
        let name = binding_name(grantee);
        let known = before.and_then(|_| self.numbers.owner(&name));
        let number = match known {
            Some(number) => number,
            None => {
                let number = self.numbers.fresh(self.live.owners_end).ok_or(Stop::Generation)?;
                self.taken.push(number);
                self.live.names.insert(number, name);
                number
            }
        };
        let had = before.map_or(&[][..], |before| &before.sources);
        let kept = grantee.sources.iter().filter(|source| !had.contains(source));
        let gone = had.iter().filter(|source| !grantee.sources.contains(source));
        let say = |with| Say::Owner {
            without: Some(number),
            with,
        };
        let steps = [Step::of(kept, say(Some(number))), Step::of(gone, say(None))];
        let ports = (before, grantee);
        self.live.try_port_set(self.numbers, ports, &mut self.ports)?;
        self.live
            .try_steps(&steps)
            .inspect_err(|_| self.live.take_back_port_set(self.numbers, ports, &mut self.ports))
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.live.take_back();
        for number in &self.taken {
            self.live.names.remove(*number);
            self.numbers.give_back(*number);
        }
    }
}
