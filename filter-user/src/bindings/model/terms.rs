//! Terms that many grants share: each distinct one is held once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::bindings::seam::Terms;

/// Terms that are kept to be shared; more are kept by each grant itself.
const SHARED_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct TermsTable(Mutex<HashSet<Arc<Terms>>>);

impl TermsTable {
    pub(super) fn share(&self, terms: Terms) -> Arc<Terms> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&terms) {
            return Arc::clone(known);
        }
        let terms = Arc::new(terms);
        if known.len() < SHARED_MAX {
            known.insert(Arc::clone(&terms));
        }
        terms
    }
}
