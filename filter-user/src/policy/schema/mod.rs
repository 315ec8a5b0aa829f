//! How a policy file reads: a walk over the spanned TOML tree, by the table of keys.
//!
//! Every fault is recorded and the walk goes on, with a placeholder where a value was wrong: a policy is only
//! built from a draft without faults. What needs more than one entry to be judged is left to `validate`.

mod addresses;
mod draft;
mod entries;
mod expect;
mod limits;
mod listener;
mod publisher;
mod quantities;
mod root;
mod serving;
mod values;

pub(crate) use addresses::prefix_message;
pub(crate) use draft::{
    ClientDraft, DenyDraft, Draft, FilterDraft, ListenerDraft, ManagementDraft, PublisherDraft, ServiceDraft,
    ServiceNames, SinkDraft,
};
pub(crate) use root::{FileKind, is_glob, walk_file};
pub(crate) use serving::compile_id_pattern;
pub(crate) use values::check_name;

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::policy::LoadContext;
use crate::policy::diagnostic::Faults;
use crate::policy::keys::{Key, Kind, Presence, Table};
use crate::policy::model::Origin;
use crate::policy::source::{Place, Source};
use crate::policy::suggest::{nearest, quoted};

pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// The walk through one file.
pub(crate) struct Walk<'a> {
    pub(crate) faults: &'a mut Faults,
    pub(crate) source: &'a Source,
    /// The file's index among all that were read.
    pub(crate) file: u32,
    pub(crate) context: &'a LoadContext,
}

impl Walk<'_> {
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        Place::new(self.file, span)
    }

    pub(crate) fn origin(&self, place: Place) -> Origin {
        self.source.origin(place)
    }

    pub(crate) fn error(
        &mut self,
        value: &Value<'_>,
        code: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let place = self.place(value.span());
        self.faults.error(place, code, message, fix);
    }

    pub(crate) fn warning(
        &mut self,
        value: &Value<'_>,
        code: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let place = self.place(value.span());
        self.faults.warning(place, code, message, fix);
    }

    pub(crate) fn wrong_type(
        &mut self,
        key: &Key,
        value: &Value<'_>,
        expected: &str,
        fix: impl Into<String>,
    ) {
        let found = type_name(value.get_ref());
        let message = format!("`{}` is {expected}, not {found}", key.name);
        self.error(value, "wrong-type", message, fix);
    }
}

pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// One TOML table, read by its keys. Unknown and missing keys are recorded when it is opened.
pub(crate) struct Fields<'t, 'i> {
    table: &'static Table,
    values: &'t DeTable<'i>,
    /// The table's header, or the whole of an inline table.
    pub(crate) place: Place,
}

impl<'t, 'i> Fields<'t, 'i> {
    /// The fields of a value that must be a table.
    pub(crate) fn open(
        walk: &mut Walk<'_>,
        table: &'static Table,
        key: &Key,
        value: &'t Value<'i>,
    ) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(values) => {
                let place = walk.place(value.span());
                Some(Self::new(walk, table, values, place))
            }
            _ => {
                walk.wrong_type(
                    key,
                    value,
                    "a table",
                    format!("write [{}] or {} = {{ … }}", key.name, key.name),
                );
                None
            }
        }
    }

    pub(crate) fn new(
        walk: &mut Walk<'_>,
        table: &'static Table,
        values: &'t DeTable<'i>,
        place: Place,
    ) -> Self {
        let fields = Fields { table, values, place };
        fields.report_unknown(walk);
        fields.report_missing(walk);
        fields
    }

    /// The value as written.
    pub(crate) fn at(&self, name: &str) -> Option<&'t Value<'i>> {
        self.values.get(name)
    }

    /// Where the value was written, else where the table was.
    pub(crate) fn place_of(&self, walk: &Walk<'_>, name: &str) -> Place {
        self.at(name).map_or(self.place, |value| walk.place(value.span()))
    }

    /// The value as written, else its default, read.
    pub(crate) fn read<T>(
        &self,
        walk: &mut Walk<'_>,
        name: &str,
        reader: impl FnOnce(&mut Walk<'_>, &'static Key, &Value<'_>) -> Option<T>,
    ) -> Option<T> {
        let key = self.table.key(name);
        debug_assert!(key.is_some(), "{name} is not in the table of keys");
        let key = key?;
        match (self.at(name), &key.presence) {
            (Some(value), _) => reader(walk, key, value),
            (None, Presence::Default(text)) => {
                let default = DeValue::parse(text);
                debug_assert!(default.is_ok(), "the default of {name} is TOML");
                reader(walk, key, &default.ok()?)
            }
            (None, _) => None,
        }
    }

    fn report_unknown(&self, walk: &mut Walk<'_>) {
        for (key, _) in self.values {
            let name = key.get_ref().as_ref();
            if self.table.key(name).is_some() {
                continue;
            }
            let fix = match nearest(name, self.table.keys.iter().map(|known| known.name)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("remove it; known here: {}", self.known_names()),
            };
            let place = walk.place(key.span());
            walk.faults
                .error(place, "unknown-key", format!("unknown key {}", quoted(name)), fix);
        }
    }

    fn report_missing(&self, walk: &mut Walk<'_>) {
        for key in self.table.keys {
            let Presence::Required(example) = key.presence else {
                continue;
            };
            if self.at(key.name).is_some() {
                continue;
            }
            let message = match self.table.name {
                "" => format!("`{}` is missing", key.name),
                table => format!("`{table}` has no `{}`", key.name),
            };
            let fix = match key.kind {
                Kind::Table(_) => format!("add [{}]", key.name),
                _ => format!("add {} = {example}", key.name),
            };
            walk.faults.error(self.place, "missing-key", message, fix);
        }
    }

    fn known_names(&self) -> String {
        let names: Vec<&str> = self.table.keys.iter().map(|known| known.name).collect();
        names.join(", ")
    }
}
