//! Terms that many grants share: each distinct one is held once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::bindings::seam::Terms;

/// Terms that are kept to be shared; more are kept by each grant itself.
const SHARED_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct TermsTable(Mutex<Known>);

#[derive(Default)]
struct Known {
    all: HashSet<Arc<Terms>>,
    /// Bindings beside each other often have the same.
    last: Option<Arc<Terms>>,
}

impl TermsTable {
    pub(super) fn share(&self, terms: Terms) -> Arc<Terms> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = known.last.as_ref().filter(|last| ***last == terms) {
            return Arc::clone(last);
        }
        let shared = match known.all.get(&terms) {
            Some(known) => Arc::clone(known),
            None => Arc::new(terms),
        };
        if known.all.len() < SHARED_MAX {
            known.all.insert(Arc::clone(&shared));
        }
        known.last = Some(Arc::clone(&shared));
        shared
    }
}
