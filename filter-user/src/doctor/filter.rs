//! What of this instance is in the kernel, by its pins; changes nothing there.

use std::io::ErrorKind;
use std::path::Path;

use super::{Finding, definitions as all};
use crate::kernel::holder::program_name;
use crate::kernel::pins::{Found, PinError, Pins};

/// What stands in the pin folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Nothing,
    Ours,
    /// Of another layout.
    Other,
    /// It may not be looked into.
    Unseen,
}

/// The filter as it is pinned.
#[derive(Debug)]
pub struct InForce {
    pub held: Held,
    /// The entry program's id.
    pub entry: Option<u32>,
    pins: Option<Pins>,
    found: Vec<Finding>,
}

impl InForce {
    pub fn look(bpf_fs: &Path, instance: &str) -> Self {
        let mut seen = Self {
            held: Held::Unseen,
            entry: None,
            pins: None,
            found: Vec::new(),
        };
        // As root, with the eyes of whoever runs the daemon.
        let looked = Pins::to_clear(bpf_fs, instance).and_then(|pins| {
            let found = pins.look();
            seen.entry = pins.entry_program();
            seen.pins = Some(pins);
            found
        });
        let (held, finding) = match looked {
            Ok(Found::Ours(_)) => (Held::Ours, None),
            Ok(Found::Nothing) => {
                let what = format!("instance {instance}");
                (Held::Nothing, Some(Finding::new(&all::NOT_FILTERING, what)))
            }
            Ok(Found::Half) => {
                let what = format!("instance {instance}: a start ended half-way; the next one clears it");
                (Held::Nothing, Some(Finding::new(&all::NOT_FILTERING, what)))
            }
            Ok(Found::Other(meta)) => {
                let what = format!("instance {instance}: version {}", meta.layout_version);
                (Held::Other, Some(Finding::new(&all::LAYOUT_OLDER, what)))
            }
            Ok(Found::Torn(_)) => {
                let missing = seen.pins.as_ref().map(Pins::missing).unwrap_or_default();
                let what = format!("instance {instance}: {}", missing.join(", "));
                (Held::Other, Some(Finding::new(&all::PINS_MISSING, what)))
            }
            Err(error) => of_error(&error),
        };
        seen.held = held;
        seen.found.extend(finding);
        seen
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        self.found.clone()
    }

    /// Who a program on a hook is, as far as this may be known.
    pub(super) fn holder(&self, program: u32, interface: &str) -> String {
        let pins = self.pins.as_ref();
        if let Some(instance) = pins.and_then(|pins| pins.holder(program, interface)) {
            return format!("the filter of instance {instance} (program {program})");
        }
        match program_name(program) {
            Ok(name) => format!("program {program}, {name}"),
            Err(why) => format!("program {program} (its name cannot be told: {why})"),
        }
    }
}

fn of_error(error: &PinError) -> (Held, Option<Finding>) {
    let what = error.to_string();
    let (held, definition) = match error {
        PinError::NotBpfFs(_) => (Held::Nothing, &all::BPFFS_MISSING),
        PinError::Foreign { .. } | PinError::Others { .. } => (Held::Unseen, &all::BPFFS_SHARED),
        PinError::Newer { .. } | PinError::Unmarked { .. } | PinError::OtherLayout { .. } => {
            (Held::Other, &all::LAYOUT_OTHER)
        }
        PinError::Io { error, .. } if error.kind() == ErrorKind::NotFound => {
            (Held::Nothing, &all::BPFFS_MISSING)
        }
        _ => (Held::Unseen, &all::NOT_LOOKED),
    };
    (held, Some(Finding::new(definition, what)))
}
