//! The shapes of the maps that outlive a generation, as this program wants them: aya does not look at what is pinned.

use aya::maps::MapInfo;
use filter_common::abi::{Meta, SERVICE_ENTRIES, names};
use filter_common::account::COUNTERS;
use filter_common::bounds::INTERFACES_MAX;

use super::chain;
use super::pins::{PinError, Pins};
use super::records;

impl Pins {
    /// Whether the program that judges is pinned beside its maps.
    pub fn check_program(&self) -> Result<(), PinError> {
        match self.entry_program() {
            Some(_) => Ok(()),
            None => Err(self.other(format!("its program, {}, is not there", self.entry().display()))),
        }
    }

    /// Whether the maps pinned here have them.
    pub fn check_shapes(&self) -> Result<(), PinError> {
        for (name, key, value) in shapes() {
            let path = self.maps().join(name);
            let info =
                MapInfo::from_pin(&path).map_err(|error| self.other(format!("{name}: {}", chain(&error))))?;
            if (info.key_size(), info.value_size()) != (key, value) {
                let found = (info.key_size(), info.value_size());
                return Err(self.other(format!("{name} has sizes {found:?}, not {:?}", (key, value))));
            }
        }
        Ok(())
    }

    /// The same of one map, and as many entries as there are to be.
    pub(super) fn has_shape(&self, name: &str) -> bool {
        let Ok(info) = MapInfo::from_pin(self.maps().join(name)) else {
            return false;
        };
        let kept = shapes().into_iter().find(|(kept, ..)| *kept == name);
        let sizes = kept.is_none_or(|(_, key, value)| (info.key_size(), info.value_size()) == (key, value));
        let fixed = [
            (names::COUNTERS, COUNTERS),
            (names::INTERFACES, INTERFACES_MAX + 1),
            (names::SERVICE_STATE, SERVICE_ENTRIES),
        ];
        let mut fixed = fixed.into_iter().chain(records::SIZES);
        let entries = fixed.find(|(fixed, _)| *fixed == name);
        sizes && entries.is_none_or(|(_, entries)| info.max_entries() == entries)
    }
}

/// Key and value sizes of what outlives a generation.
fn shapes() -> [(&'static str, u32, u32); 13] {
    use filter_common::abi::{Count, Desk, OwnerState, RecordHead, ServiceState, Switch};
    use filter_common::records::{LINE_WORDS, PREFIX_WORDS};
    let size = |bytes: usize| bytes as u32;
    [
        (names::META, 4, size(size_of::<Meta>())),
        (names::GENERATION, 4, 4),
        (names::SWITCH, 4, size(size_of::<Switch>())),
        (names::COUNTERS, 4, size(size_of::<Count>())),
        (names::INTERFACES, 4, 32),
        (names::OWNER_STATE, 4, size(size_of::<OwnerState>())),
        (names::SERVICE_STATE, 4, size(size_of::<ServiceState>())),
        (names::RECORD_HEAD, 4, size(size_of::<RecordHead>())),
        (names::RECORD_TAGS, 4, 8),
        (names::RECORD_LINES, 4, size(LINE_WORDS * 8)),
        (names::RECORD_MORE, 4, size(PREFIX_WORDS * 8)),
        (names::RECORD_SPILLS, 4, 16),
        (names::DESK, 4, size(size_of::<Desk>())),
    ]
}
