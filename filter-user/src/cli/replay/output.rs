//! A line of JSON a frame, written by hand: at a hundred thousand frames a second a value tree would cost more than
//! the judging.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use filter_common::verdict::{Judgement, NO_OWNER, NO_SERVICE};
use serde_json::Value;

use crate::judge::Names;

const BUFFER_BYTES: usize = 1 << 18;

/// Lines of one stream; `None` writes nothing.
pub(super) struct Lines<W: Write> {
    output: Option<BufWriter<W>>,
    /// `{"file":"…","frame":` of the file at hand.
    begin: String,
    services: HashMap<u32, String>,
    owners: HashMap<u32, String>,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(output: Option<W>, names: &Names) -> Self {
        let quoted = |(number, name): (u32, &str)| (number, quoted(name));
        Self {
            output: output.map(|output| BufWriter::with_capacity(BUFFER_BYTES, output)),
            begin: String::new(),
            services: names.services().map(quoted).collect(),
            owners: names.owners().map(quoted).collect(),
        }
    }

    pub(super) fn begin(&mut self, file: &str) {
        self.begin = format!("{{\"file\":{},\"frame\":", quoted(file));
    }

    pub(super) fn judged(&mut self, frame: u64, judgement: &Judgement) -> io::Result<()> {
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        writeln!(
            output,
            "{}{frame},\"verdict\":\"{}\",\"reason\":\"{}\",\"service\":{},\"owner\":{}}}",
            self.begin,
            judgement.verdict.name(),
            judgement.reason.name(),
            name(&self.services, judgement.service, NO_SERVICE),
            name(&self.owners, judgement.owner, NO_OWNER),
        )
    }

    /// `frame` is `None` for a file, or the rest of one.
    pub(super) fn skipped(&mut self, frame: Option<u64>, why: &str) -> io::Result<()> {
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        let frame = frame.map_or("null".to_owned(), |frame| frame.to_string());
        writeln!(
            output,
            "{}{frame},\"verdict\":null,\"reason\":null,\"service\":null,\"owner\":null,\"skipped\":{}}}",
            self.begin,
            quoted(why),
        )
    }

    /// The last line.
    pub(super) fn end(mut self, summary: &Value) -> io::Result<()> {
        match &mut self.output {
            Some(output) => {
                writeln!(output, "{summary}")?;
                output.flush()
            }
            None => Ok(()),
        }
    }
}

fn name(names: &HashMap<u32, String>, number: u32, none: u32) -> Cow<'_, str> {
    match names.get(&number) {
        _ if number == none => "null".into(),
        Some(name) => name.into(),
        // This cannot be; if it were, the number is more to go by than nothing.
        None => number.to_string().into(),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
