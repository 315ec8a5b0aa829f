//! Faults and warnings for people: the offending text underlined, or one line each.
//!
//! Never writes what a terminal would act on, and never the whole of an endless line.

use std::fmt::Write;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};

use crate::policy::bounds::DIAGNOSTICS_SHOWN_MAX;
use crate::policy::diagnostic::{Diagnostic, Severity};
use crate::policy::load::Loaded;
use crate::policy::source::SourceFile;
use crate::policy::suggest::is_unprintable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Always,
    Never,
}

/// How much of a line is shown on either side of the offending text.
const EXCERPT_BYTES_MAX: usize = 200;
const WIDTH: usize = 110;

/// Every diagnostic with its text underlined. Counts in a last line what is not shown.
pub fn render(loaded: &Loaded, colour: Colour) -> String {
    let theme = match colour {
        Colour::Always => GraphicalTheme::unicode(),
        Colour::Never => GraphicalTheme::unicode_nocolor(),
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_width(WIDTH);
    let mut text = String::new();
    for diagnostic in shown(loaded) {
        let shown = Shown::new(loaded, diagnostic);
        // Writing to a string fails only where the handler cannot read the excerpt: one line says it then.
        if handler.render_report(&mut text, &shown).is_err() {
            let _ = writeln!(text, "{diagnostic}");
        }
        text.push('\n');
    }
    text.push_str(&not_shown(loaded));
    text
}

/// `policy.toml:14:12: text; fix`, a line each. Counts in a last line what is not shown.
pub fn render_lines(loaded: &Loaded) -> String {
    let mut text = String::new();
    for diagnostic in shown(loaded) {
        let warning = if diagnostic.severity == Severity::Warning {
            "warning: "
        } else {
            ""
        };
        let fix = diagnostic
            .fix
            .as_deref()
            .map(|fix| format!("; {fix}"))
            .unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}: {warning}{}{fix}",
            diagnostic.shown_place(),
            diagnostic.message
        );
    }
    text.push_str(&not_shown(loaded));
    text
}

/// Faults before warnings where there are too many, each in their order.
fn shown(loaded: &Loaded) -> Vec<&Diagnostic> {
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    let errors_shown = errors.min(DIAGNOSTICS_SHOWN_MAX);
    let mut left = [errors_shown, DIAGNOSTICS_SHOWN_MAX - errors_shown];
    let within = |diagnostic: &&Diagnostic| {
        let left = &mut left[usize::from(diagnostic.severity == Severity::Warning)];
        let fits = *left > 0;
        *left = left.saturating_sub(1);
        fits
    };
    loaded.diagnostics.iter().filter(within).collect()
}

fn not_shown(loaded: &Loaded) -> String {
    let shown = shown(loaded);
    let errors_shown = shown.iter().filter(|d| d.severity == Severity::Error).count();
    let errors = loaded.errors - errors_shown;
    let warnings = loaded.warnings - (shown.len() - errors_shown);
    match (errors, warnings) {
        (0, 0) => String::new(),
        (errors, 0) => format!("and {errors} more\n"),
        (0, warnings) => format!("and {warnings} more warnings\n"),
        (errors, warnings) => format!("and {errors} more, and {warnings} more warnings\n"),
    }
}

/// A diagnostic beside the lines around it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Shown<'a> {
    diagnostic: &'a Diagnostic,
    message: String,
    excerpt: Excerpt,
}

impl<'a> Shown<'a> {
    fn new(loaded: &Loaded, diagnostic: &'a Diagnostic) -> Self {
        let file = loaded.files.iter().find(|file| file.name == diagnostic.file);
        let excerpt = file
            .map(|file| Excerpt::new(file, diagnostic))
            .unwrap_or_default();
        let at = diagnostic.shown_place();
        Shown {
            diagnostic,
            message: format!("{at}: {}", diagnostic.message),
            excerpt,
        }
    }
}

impl miette::Diagnostic for Shown<'_> {
    fn code(&self) -> Option<Box<dyn std::fmt::Display + '_>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help(&self) -> Option<Box<dyn std::fmt::Display + '_>> {
        self.diagnostic
            .fix
            .as_ref()
            .map(|fix| -> Box<dyn std::fmt::Display> { Box::new(fix) })
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        (!self.excerpt.text.is_empty()).then_some(&self.excerpt as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_primary_with_span(Some("here".to_owned()), self.excerpt.label);
        Some(Box::new(std::iter::once(label)))
    }
}

/// The offending line, or as much of it as is fit to be shown.
#[derive(Debug)]
struct Excerpt {
    text: String,
    name: String,
    /// In `text`.
    label: SourceSpan,
    line_index: usize,
}

impl Default for Excerpt {
    fn default() -> Self {
        Excerpt {
            text: String::new(),
            name: String::new(),
            label: (0, 0).into(),
            line_index: 0,
        }
    }
}

impl Excerpt {
    fn new(file: &SourceFile, diagnostic: &Diagnostic) -> Self {
        let text = file.text.as_ref();
        let span = diagnostic.span.start.min(text.len())..diagnostic.span.end.min(text.len());
        // Only a window around the place is looked at: a line may be endless.
        let window_start = ceil_boundary(text, span.start.saturating_sub(EXCERPT_BYTES_MAX));
        let window_end = floor_boundary(text, span.start + 3 * EXCERPT_BYTES_MAX).max(span.start);
        let start = text[window_start..span.start]
            .rfind('\n')
            .map_or(window_start, |at| window_start + at + 1);
        let end = text[span.start..window_end]
            .find('\n')
            .map_or(window_end, |at| span.start + at);
        // What spans several lines is underlined in its first.
        let span_end = span.end.clamp(span.start, end);
        let printable = |c: char| {
            if is_unprintable(c) && c != '\t' {
                "?".repeat(c.len_utf8())
            } else {
                c.to_string()
            }
        };
        let shown: String = text[start..end].chars().map(printable).collect();
        let label_start = span.start - start;
        let label_end = span_end - start;
        Excerpt {
            text: shown,
            name: diagnostic.file.to_string(),
            label: (label_start, label_end - label_start).into(),
            line_index: diagnostic.line.saturating_sub(1) as usize,
        }
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let contents = self.text.read_span(span, lines_before, lines_after)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            contents.data(),
            *contents.span(),
            self.line_index + contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn ceil_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset += 1;
    }
    offset
}
