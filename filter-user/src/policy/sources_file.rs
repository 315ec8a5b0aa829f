//! Files of sources: one prefix a line, `#` begins a comment, blank lines are skipped.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use crate::policy::bounds::SOURCES_MAX;
use crate::policy::diagnostic::Faults;
use crate::policy::load::{Loader, path_below};
use crate::policy::prefix::prefix_from_text;
use crate::policy::schema::{Draft, prefix_message};
use crate::policy::source::{Place, Placed};
use crate::policy::suggest::quoted;

/// Adds to every client what its file of sources holds.
pub(crate) fn read_all(loader: &mut Loader<'_>, draft: &mut Draft) {
    // A file that several clients name is read, and its faults are told, once.
    let mut parsed: HashMap<u32, Parsed> = HashMap::new();
    let mut count: usize = draft.source_count();
    for client in &mut draft.clients {
        let Some(file) = &client.sources_file else {
            continue;
        };
        let naming_file = loader.sources.list[client.file as usize].file.relative.clone();
        let folder = Path::new(&naming_file).parent().unwrap_or(Path::new(""));
        let Some(path) = path_below(folder, &file.value) else {
            loader.outside(file);
            continue;
        };
        let Some(index) = loader.read_below(&path, file.place) else {
            continue;
        };
        let Parsed { prefixes, sound } = parsed.entry(index).or_insert_with(|| {
            let text = loader.sources.list[index as usize].file.text.clone();
            let not_utf8 = loader.not_utf8.get(&index).map_or(&[][..], Vec::as_slice);
            parse(index, &text, not_utf8, &mut loader.faults)
        });
        if *sound && prefixes.is_empty() && client.sources.is_empty() {
            let message = format!("{} holds no source", quoted(&file.value));
            loader.faults.error(
                file.place,
                "empty-list",
                message,
                "put at least one prefix into it",
            );
        }
        count = count.saturating_add(prefixes.len());
        if count > SOURCES_MAX {
            let message = format!(
                "with {} the policy has more than {SOURCES_MAX} sources",
                quoted(&file.value)
            );
            loader.faults.error(
                file.place,
                "too-many",
                message,
                "merge sources into shorter prefixes",
            );
            return;
        }
        client.sources.extend_from_slice(prefixes);
    }
}

struct Parsed {
    prefixes: Arc<[Placed<IpNet>]>,
    /// Whether every line could be read.
    sound: bool,
}

/// The prefixes of a file's lines; records a fault for every line that is none, but for those that are known to hold
/// what is not UTF-8.
fn parse(file: u32, text: &str, not_utf8: &[usize], faults: &mut Faults) -> Parsed {
    let errors_before = faults.errors;
    let mut prefixes = Vec::new();
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.split('#').next().unwrap_or_default();
        let content = if line_start == 0 {
            content.trim_start_matches('\u{feff}')
        } else {
            content
        };
        let written = content.trim();
        let line_end = line_start + line.len();
        let after = not_utf8.partition_point(|at| *at < line_start);
        let is_text = not_utf8.get(after).is_none_or(|at| *at >= line_end);
        if !written.is_empty() && is_text {
            // `written` is a part of `line`, so its offset within it is the distance of their beginnings.
            let start = line_start + (written.as_ptr() as usize - line.as_ptr() as usize);
            let place = Place::new(file, start..start + written.len());
            match prefix_from_text(written) {
                Ok(prefix) => prefixes.push(Placed { value: prefix, place }),
                Err(fault) => faults.error(place, fault.code(), prefix_message(written, &fault), fault.fix()),
            }
        }
        line_start = line_end;
    }
    Parsed {
        prefixes: prefixes.into(),
        sound: faults.errors == errors_before && not_utf8.is_empty(),
    }
}
