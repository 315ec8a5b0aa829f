//! A request's header fields, as hyper holds them or as the quick way has read them: both ways decide by one function.

use axum::http::{HeaderMap, HeaderName};
use httparse::Header;

pub(crate) trait Fields {
    /// The values of a field, a line each, in the order in which they came.
    fn all<'f>(&'f self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'f [u8]>;

    fn has(&self, name: &HeaderName) -> bool {
        self.all(name).next().is_some()
    }
}

impl Fields for HeaderMap {
    fn all<'f>(&'f self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'f [u8]> {
        self.get_all(name).iter().map(|value| value.as_bytes())
    }
}

impl Fields for [Header<'_>] {
    fn all<'f>(&'f self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'f [u8]> {
        // A `HeaderName` is in lower case.
        let is = move |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name.as_str());
        self.iter().filter(is).map(|field| field.value)
    }
}
