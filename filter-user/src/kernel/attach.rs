//! Puts the entry program on interfaces and a generation behind it.

use std::sync::Arc;

use aya::maps::{MapData, MapError, ProgramArray};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, ProgramFd, Xdp};
use aya_obj::programs::xdp::XdpAttachType;
use filter_common::abi::{names, slots};
use thiserror::Error;

use super::interfaces::Interface;
use super::links::Links;
use super::load::{Generation, LoadError};
use super::pins::Pins;
use super::{chain, raw};
use crate::policy::model::Attach;

#[derive(Debug, Error)]
pub enum AttachError {
    #[error(
        "another program (id {program}) holds the XDP hook of {interface}; see `bpftool prog show id {program}`, \
         and take it off first (`ip link set dev {interface} {hook} off`, or stop the service that loaded it)"
    )]
    Held {
        interface: String,
        program: u32,
        /// As `ip` names it.
        hook: &'static str,
    },
    // `ip` takes no program off that a link holds.
    #[error(
        "the filter of instance {instance} holds the XDP hook of {interface}: name another interface, or stop that \
         daemon and take its filter off, which opens its interfaces: `{detach}`"
    )]
    HeldByInstance {
        interface: String,
        instance: String,
        detach: String,
    },
    #[error(
        "the driver of {interface} takes no XDP program ({error}); write attach = \"auto\" or \"generic\" in [filter]"
    )]
    Native { interface: String, error: String },
    #[error("{interface} takes no XDP program: {error}")]
    Refused { interface: String, error: String },
    #[error("the link of {interface} cannot be pinned: {error}")]
    Pin { interface: String, error: String },
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// How an interface came to be filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub interface: String,
    pub index: u32,
    pub generic: bool,
    /// Why not in the driver, where that was tried first.
    pub fallback: Option<String>,
}

/// The entry program, and the links by which it holds its interfaces.
pub struct Entry(Xdp, Arc<Links>);

impl Entry {
    /// Loads it from a generation's object and pins it.
    pub fn create(generation: &mut Generation, pins: &Pins) -> Result<Self, LoadError> {
        let entry = generation.program(names::ENTRY)?;
        entry.load()?;
        entry
            .pin(pins.entry())
            .map_err(|error| LoadError::Object(format!("pinning the entry: {}", chain(&error))))?;
        Self::adopt(pins)
    }

    /// Takes over the pinned one.
    pub fn adopt(pins: &Pins) -> Result<Self, LoadError> {
        let program = Xdp::from_pin(pins.entry(), XdpAttachType::Interface)?;
        Ok(Self(program, Arc::default()))
    }

    pub fn id(&self) -> Result<u32, LoadError> {
        Ok(self.0.info()?.id())
    }

    pub fn program(&self) -> &Xdp {
        &self.0
    }

    pub fn links(&self) -> &Arc<Links> {
        &self.1
    }

    /// Sees to it that an interface is filtered; what is attached already stays as it is.
    pub fn attach(
        &mut self,
        interface: &Interface,
        wanted: Attach,
        pins: &Pins,
    ) -> Result<Attached, AttachError> {
        let ours = self.id()?;
        let attached = |generic, fallback| Attached {
            interface: interface.name.clone(),
            index: interface.index,
            generic,
            fallback,
        };
        if interface.hook.programs().any(|id| id == ours) && pins.link(&interface.name).exists() {
            self.hold(interface, pins)?;
            return Ok(attached(interface.hook.generic == ours, None));
        }
        if let Some(program) = interface.hook.programs().find(|id| *id != ours) {
            if let Some(instance) = pins.holder(program, &interface.name) {
                return Err(AttachError::HeldByInstance {
                    interface: interface.name.clone(),
                    detach: pins.detach_command(&instance),
                    instance,
                });
            }
            return Err(AttachError::Held {
                interface: interface.name.clone(),
                program,
                hook: if interface.hook.generic == program {
                    "xdpgeneric"
                } else {
                    "xdpdrv"
                },
            });
        }
        // A pin without its interface's hook is severed: the device was made anew.
        unpin(pins, &interface.name).map_err(|error| pin_error(interface, &error))?;
        let refused = |error: &ProgramError| (interface.name.clone(), chain(error));
        let (generic, fallback) = match wanted {
            Attach::Generic => (true, None),
            Attach::Native => match self.link(interface, XdpMode::Driver, pins)? {
                Ok(()) => return Ok(attached(false, None)),
                Err(error) => {
                    let (interface, error) = refused(&error);
                    return Err(AttachError::Native { interface, error });
                }
            },
            Attach::Auto => match self.link(interface, XdpMode::Driver, pins)? {
                Ok(()) => return Ok(attached(false, None)),
                Err(error) => (true, Some(chain(&error))),
            },
        };
        match self.link(interface, XdpMode::Skb, pins)? {
            Ok(()) => Ok(attached(generic, fallback)),
            Err(error) => {
                let (interface, error) = refused(&error);
                Err(AttachError::Refused { interface, error })
            }
        }
    }

    fn link(
        &mut self,
        interface: &Interface,
        mode: XdpMode,
        pins: &Pins,
    ) -> Result<Result<(), ProgramError>, AttachError> {
        let id = match self.0.attach_to_if_index(interface.index, mode) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let link = self.0.take_link(id).map_err(LoadError::from)?;
        let link: FdLink = link
            .try_into()
            .map_err(|error: aya::programs::links::LinkError| pin_error(interface, &error))?;
        link.pin(pins.link(&interface.name))
            .map_err(|error| pin_error(interface, &error))?;
        self.hold(interface, pins)?;
        Ok(Ok(()))
    }

    fn hold(&self, interface: &Interface, pins: &Pins) -> Result<(), AttachError> {
        let held = self.1.hold(&pins.link(&interface.name));
        held.map_err(|error| pin_error(interface, &error))
    }
}

fn pin_error(interface: &Interface, error: &dyn std::error::Error) -> AttachError {
    AttachError::Pin {
        interface: interface.name.clone(),
        error: chain(error),
    }
}

/// Takes an interface's filter off.
pub fn unpin(pins: &Pins, interface: &str) -> std::io::Result<()> {
    pins.unpin_link(interface)
}

/// A link's pin goes last: whatever stops this, the pin says what is still attached.
pub(super) fn remove_link(pin: &std::path::Path) -> std::io::Result<()> {
    match raw::detach_link(pin) {
        // A severed link (its device is gone) has nothing to take off.
        Err(error)
            if !matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOLINK | libc::ENODEV)
            ) =>
        {
            return Err(error);
        }
        _ => {}
    }
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a link is pinned and still holds its interface.
pub fn is_linked(pins: &Pins, interface: &str) -> bool {
    PinnedLink::from_pin(pins.link(interface)).is_ok()
}

/// Puts a generation in force: one store, after which every packet is judged by it.
pub fn swap(generation: &mut Generation) -> Result<(), LoadError> {
    put(generation, slots::IN_FORCE)
}

/// Has a generation stand by, for packets that come after the deadline of `switch::Switch`.
pub fn stand_by(generation: &mut Generation) -> Result<(), LoadError> {
    put(generation, slots::STANDBY)
}

/// Nothing stands by any more. By any generation: they have this table together.
pub fn stand_down(generation: &mut Generation) -> Result<(), LoadError> {
    match judges(generation)?.clear_index(&slots::STANDBY) {
        Err(MapError::SyscallError(call)) if call.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        cleared => Ok(cleared?),
    }
}

fn put(generation: &mut Generation, slot: u32) -> Result<(), LoadError> {
    let judge = judge(generation)?;
    Ok(judges(generation)?.set(slot, &judge, 0)?)
}

fn judge(generation: &mut Generation) -> Result<ProgramFd, LoadError> {
    let judge = generation.program(names::JUDGE)?.fd()?.try_clone();
    judge.map_err(|error| LoadError::Program(format!("the judge's descriptor: {error}")))
}

/// Has one stand by for another, where they do not have one table together.
#[cfg(test)]
pub fn stand_by_for(generation: &mut Generation, other: &mut Generation) -> Result<(), LoadError> {
    let judge = judge(generation)?;
    Ok(judges(other)?.set(slots::STANDBY, &judge, 0)?)
}

fn judges(generation: &mut Generation) -> Result<ProgramArray<&mut MapData>, LoadError> {
    let map = generation
        .ebpf
        .map_mut(names::GENERATION)
        .ok_or(LoadError::Missing(names::GENERATION))?;
    Ok(map.try_into()?)
}
