//! The links of the filter, held beside their pins: a pin that is removed opens nothing while the daemon runs, and can be
//! made again.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::raw;

/// Of all interfaces; one that was taken off, or whose interface is gone, is let go of.
#[derive(Debug, Default)]
pub struct Links(Mutex<Vec<(u32, OwnedFd)>>);

impl Links {
    /// Holds a pinned link as well.
    pub(super) fn hold(&self, pin: &Path) -> io::Result<()> {
        let link = raw::pinned(pin)?;
        let (_, interface) = raw::program_and_interface(link.as_fd())?;
        let mut alive = self.alive();
        if interface != 0 && alive.iter().all(|(held, _)| *held != interface) {
            alive.push((interface, link));
        }
        Ok(())
    }

    /// Whether any interface is filtered by them.
    pub fn any(&self) -> bool {
        !self.alive().is_empty()
    }

    /// Pins the link of an interface, by its number.
    pub(super) fn pin(&self, interface: u32, to: &Path) -> io::Result<()> {
        match self.alive().iter().find(|(held, _)| *held == interface) {
            Some((_, link)) => raw::pin(link.as_fd(), to),
            None => Ok(()),
        }
    }

    /// The interfaces' numbers.
    pub(super) fn interfaces(&self) -> Vec<u32> {
        self.alive().iter().map(|(interface, _)| *interface).collect()
    }

    /// Takes them off their interfaces.
    pub fn detach(&self) -> io::Result<()> {
        let mut links = self.alive();
        links
            .drain(..)
            .try_for_each(|(_, link)| raw::detach(link.as_fd()))
    }

    /// Those that hold an interface still.
    fn alive(&self) -> MutexGuard<'_, Vec<(u32, OwnedFd)>> {
        // Whole whatever a panic left: entries come and go one by one.
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|(interface, link)| {
            let told = raw::program_and_interface(link.as_fd());
            told.is_ok_and(|(_, now)| now == *interface)
        });
        links
    }
}
