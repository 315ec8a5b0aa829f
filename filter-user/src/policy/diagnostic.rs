//! Faults and warnings: collected while files are walked, then placed (line, column) and sorted.
//!
//! Every one says what is wrong, where, and how to fix it. None quotes a value that could be a key.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::policy::bounds::DIAGNOSTICS_KEPT_MAX;
use crate::policy::secret::keys_in;
use crate::policy::source::{Place, SourceFile, Sources};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// A stable word, such as `host-bits`.
    pub code: &'static str,
    pub file: Arc<str>,
    /// 1-based; 0, in JSON null, where the file could not be read.
    #[serde(serialize_with = "nothing_of_0")]
    pub line: u32,
    /// 1-based, in characters; 0 as the line is.
    #[serde(serialize_with = "nothing_of_0")]
    pub column: u32,
    /// Bytes of the file's text.
    #[serde(serialize_with = "span_as_pair")]
    pub span: Range<usize>,
    pub message: String,
    pub fix: Option<String>,
}

/// `policy.toml:14:12: 10.1.2.3/24 has host bits set; write 10.1.2.0/24 or 10.1.2.3/32`
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shown_place(), self.message)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn nothing_of_0<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    (*number > 0).then_some(*number).serialize(serializer)
}

fn span_as_pair<S: Serializer>(span: &Range<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    (span.start, span.end).serialize(serializer)
}

impl Diagnostic {
    /// Of a file of which nothing is known: takes its place away, and says the rest.
    pub(crate) fn without_place(&mut self) -> String {
        (self.line, self.column) = (0, 0);
        let fix = self.fix.as_deref().unwrap_or_default();
        format!("{}; {fix}", self.message)
    }

    /// `policy.toml:14:12`, or the file alone.
    pub fn shown_place(&self) -> String {
        match self.line {
            0 => self.file.to_string(),
            line => format!("{}:{line}:{}", self.file, self.column),
        }
    }
}

struct Fault {
    severity: Severity,
    code: &'static str,
    place: Place,
    message: String,
    fix: Option<String>,
}

/// What has been found so far. Beyond a bound faults are counted, not kept.
#[derive(Default)]
pub(crate) struct Faults {
    kept: Vec<Fault>,
    pub(crate) errors: usize,
    pub(crate) warnings: usize,
    secrets: Vec<Place>,
}

impl Faults {
    pub(crate) fn error(
        &mut self,
        place: Place,
        code: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.errors += 1;
        if self.errors <= DIAGNOSTICS_KEPT_MAX {
            self.keep(Severity::Error, place, code, message.into(), fix.into());
        }
    }

    pub(crate) fn warning(
        &mut self,
        place: Place,
        code: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.warnings += 1;
        if self.warnings <= DIAGNOSTICS_KEPT_MAX {
            self.keep(Severity::Warning, place, code, message.into(), fix.into());
        }
    }

    /// Never to be shown: the text here could be a key.
    pub(crate) fn secret(&mut self, place: Place) {
        self.secrets.push(place);
    }

    /// The diagnostics by file and position, and the files with what could be a key masked.
    pub(crate) fn finish(mut self, sources: Sources) -> (Vec<Diagnostic>, Vec<SourceFile>) {
        self.kept.sort_by_key(|fault| (fault.place, fault.severity));
        let mut columns = Columns::default();
        let diagnostics = self
            .kept
            .into_iter()
            .map(|fault| placed(fault, &sources, &mut columns))
            .collect();
        let mut files: Vec<SourceFile> = sources.list.into_iter().map(|source| source.file).collect();
        // A line that is shown for its fault may hold a key beside it.
        if self.errors > 0 {
            for (index, file) in files.iter().enumerate() {
                self.secrets
                    .extend(keys_in(&file.text).map(|span| Place::new(index as u32, span)));
            }
        }
        self.secrets.sort();
        for places in self.secrets.chunk_by(|a, b| a.file == b.file) {
            mask(&mut files[places[0].file as usize], places);
        }
        (diagnostics, files)
    }

    fn keep(&mut self, severity: Severity, place: Place, code: &'static str, message: String, fix: String) {
        let fix = (!fix.is_empty()).then_some(fix);
        self.kept.push(Fault {
            severity,
            code,
            place,
            message,
            fix,
        });
    }
}

fn placed(fault: Fault, sources: &Sources, columns: &mut Columns) -> Diagnostic {
    let source = sources.at(fault.place);
    let line = source.line(fault.place.start);
    let line_start = source.line_start(line);
    let column = columns.at(&source.file.text, fault.place.file, line_start, fault.place.start);
    Diagnostic {
        severity: fault.severity,
        code: fault.code,
        file: source.file.name.clone(),
        line,
        column,
        span: fault.place.start as usize..fault.place.end as usize,
        message: fault.message,
        fix: fault.fix,
    }
}

/// Counts characters onward from the last column asked for, so that thousands of faults in one endless line
/// cost one pass over it.
#[derive(Default)]
struct Columns {
    file: u32,
    line_start: u32,
    offset: u32,
    characters: u32,
}

impl Columns {
    fn at(&mut self, text: &str, file: u32, line_start: u32, offset: u32) -> u32 {
        let onward = self.file == file && self.line_start == line_start && self.offset <= offset;
        if !onward {
            *self = Columns {
                file,
                line_start,
                offset: line_start,
                characters: 0,
            };
        }
        let between = text
            .as_bytes()
            .get(self.offset as usize..offset as usize)
            .unwrap_or(&[]);
        // Every byte that does not continue a UTF-8 sequence begins a character.
        self.characters += between.iter().filter(|byte| (**byte & 0xc0) != 0x80).count() as u32;
        self.offset = offset;
        self.characters + 1
    }
}

fn mask(file: &mut SourceFile, places: &[Place]) {
    let mut bytes = file.text.as_bytes().to_vec();
    for place in places {
        if let Some(secret) = bytes.get_mut(place.start as usize..place.end as usize) {
            secret.fill(b'*');
        }
    }
    file.text = String::from_utf8_lossy(&bytes).into();
}
