//! The files as they were read, and places in them: byte spans, lines, columns.
//!
//! Text in, positions out. Never judges what a file says.

use std::sync::Arc;

use serde::Serialize;

use crate::policy::model::Origin;

/// A file that was read, as text. Values that could be keys are masked (as many `*` as bytes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceFile {
    /// As shown: the root as given, another one joined to the root's folder.
    pub name: Arc<str>,
    /// Relative to the root's folder.
    pub relative: String,
    pub text: Arc<str>,
}

/// A span of bytes in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

impl Place {
    pub(crate) fn new(file: u32, span: std::ops::Range<usize>) -> Self {
        // Files are bounded far below 4 GiB, so the clamp never cuts.
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Place {
            file,
            start: offset(span.start),
            end: offset(span.end),
        }
    }

    pub(crate) fn start_of(file: u32) -> Self {
        Place {
            file,
            start: 0,
            end: 0,
        }
    }
}

/// One file with its lines found.
pub(crate) struct Source {
    pub(crate) file: SourceFile,
    line_starts: Vec<u32>,
}

impl Source {
    pub(crate) fn new(file: SourceFile) -> Self {
        let breaks = file.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(breaks.map(|(at, _)| at as u32 + 1))
            .collect();
        Source { file, line_starts }
    }

    /// 1-based.
    pub(crate) fn line(&self, offset: u32) -> u32 {
        self.line_starts.partition_point(|start| *start <= offset) as u32
    }

    pub(crate) fn line_start(&self, line: u32) -> u32 {
        self.line_starts
            .get((line as usize).saturating_sub(1))
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn origin(&self, place: Place) -> Origin {
        Origin {
            file: self.file.name.clone(),
            line: self.line(place.start),
        }
    }
}

/// All files of a policy, in the order in which they were read: the root is the first.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) list: Vec<Source>,
}

impl Sources {
    pub(crate) fn at(&self, place: Place) -> &Source {
        &self.list[place.file as usize]
    }

    pub(crate) fn origin(&self, place: Place) -> Origin {
        self.at(place).origin(place)
    }

    /// `policy.toml:14`, for "first at …".
    pub(crate) fn shown(&self, place: Place) -> String {
        let origin = self.origin(place);
        format!("{}:{}", origin.file, origin.line)
    }
}

/// Bytes as text, with a sign in place of each piece that is none, and where the first such sign of each line is.
pub(crate) fn shown_for(bytes: &[u8]) -> (String, Vec<usize>) {
    let mut text = String::with_capacity(bytes.len());
    let mut places = Vec::new();
    let mut told = false;
    for chunk in bytes.utf8_chunks() {
        told &= !chunk.valid().contains('\n');
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            if !told {
                places.push(text.len());
            }
            told = true;
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    (text, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_find_their_lines() {
        let file = SourceFile {
            name: "a".into(),
            relative: "a".into(),
            text: "x\nyy\n\nz".into(),
        };
        let source = Source::new(file);
        let lines: Vec<u32> = (0..=7).map(|offset| source.line(offset)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4, 4]);
        assert_eq!(source.line_start(2), 2);
        assert_eq!(source.line_start(4), 6);
    }
}
