//! The kernel program's size as the verifier counts it, beside the last one written down in filter-ebpf/verified.toml:
//! grown by a fifth it is worth a look before a kernel refuses it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

const PLACE: &str = "filter-ebpf/verified.toml";
/// Written by the test `verified`, which loads the program: no kernel is asked here.
const MEASURED: &str = "verified.toml";
/// The growth that is worth a warning, in percent.
const GROWTH_PERCENT_MAX: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verified {
    /// Instructions the verifier walked through, over all paths.
    pub(crate) instructions: u64,
    /// Bytes of stack.
    pub(crate) stack: u64,
}

/// Says what grew too much between what is written down and the last test run in the target folder.
pub(crate) fn warn(root: &Path, target: &Path) -> Result<()> {
    if let (Some(recorded), Some(measured)) = (read(&root.join(PLACE))?, read(&target.join(MEASURED))?) {
        for warning in check_verified(measured, recorded) {
            eprintln!("warning: {warning}");
        }
    }
    Ok(())
}

/// Nothing where there is no such file.
fn read(file: &Path) -> Result<Option<Verified>> {
    match fs::read_to_string(file) {
        Ok(text) => toml::from_str(&text)
            .map(Some)
            .with_context(|| format!("cannot read {}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// A warning for each figure that grew too much since it was written down.
fn check_verified(current: Verified, recorded: Verified) -> Vec<String> {
    let figures = [
        (
            "verified instructions",
            current.instructions,
            recorded.instructions,
        ),
        ("bytes of stack", current.stack, recorded.stack),
    ];
    let grew = |current: u64, recorded: u64| {
        u128::from(current) * 100 > u128::from(recorded) * u128::from(100 + GROWTH_PERCENT_MAX)
    };
    let grown = figures
        .into_iter()
        .filter(|(_, current, recorded)| grew(*current, *recorded));
    let warning = |(what, current, recorded)| {
        format!(
            "the kernel program has {current} {what}, over {GROWTH_PERCENT_MAX} % more than the {recorded} in {PLACE}; \
             make it smaller, or write the new figure there"
        )
    };
    grown.map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_more_is_a_warning_and_not_before() {
        let recorded = Verified {
            instructions: 10_000,
            stack: 100,
        };
        assert_eq!(
            check_verified(
                Verified {
                    instructions: 12_000,
                    stack: 120
                },
                recorded
            )
            .len(),
            0
        );
        let warnings = check_verified(
            Verified {
                instructions: 12_001,
                stack: 120,
            },
            recorded,
        );
        assert!(
            warnings.len() == 1 && warnings[0].contains("12001"),
            "{warnings:?}"
        );
        assert_eq!(
            check_verified(
                Verified {
                    instructions: 12_001,
                    stack: 121
                },
                recorded
            )
            .len(),
            2
        );
    }

    #[test]
    fn nothing_written_down_is_no_fault_and_nonsense_is_one() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join(PLACE)).unwrap(), None);
        fs::create_dir(folder.path().join("filter-ebpf")).unwrap();
        fs::write(folder.path().join(PLACE), "instructions = 3749\nstack = 240\n").unwrap();
        assert_eq!(
            read(&folder.path().join(PLACE)).unwrap(),
            Some(Verified {
                instructions: 3749,
                stack: 240
            })
        );
        fs::write(folder.path().join(PLACE), "instructions = many\n").unwrap();
        assert!(read(&folder.path().join(PLACE)).is_err());
    }
}
