//! When a binding is to be looked at again: its end, the end of its hold, a day after that.
//!
//! By whole seconds of this boot's time; the kernel ends grants by itself and to the tick. A renewed binding leaves
//! its old timer behind, which finds nothing to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bindings::model::owned::Credential;

type Key = (Arc<str>, Credential);

#[derive(Default)]
pub(crate) struct Timers {
    by_second: BTreeMap<i64, Vec<Key>>,
}

impl Timers {
    pub(crate) fn add(&mut self, boot_ms: i64, publisher: &Arc<str>, credential: &Credential) {
        // The first whole second at which it is over.
        let second = boot_ms
            .div_euclid(1_000)
            .saturating_add(i64::from(boot_ms.rem_euclid(1_000) > 0));
        let key = (Arc::clone(publisher), credential.clone());
        self.by_second.entry(second).or_default().push(key);
    }

    /// Up to `most` that are due; the rest stays due.
    pub(crate) fn due(&mut self, now_boot_ms: i64, most: usize) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some(mut first) = self.by_second.first_entry() {
            if *first.key() > now_boot_ms.div_euclid(1_000) || due.len() >= most {
                break;
            }
            let keys = first.get_mut();
            let room = most - due.len();
            if keys.len() > room {
                due.extend(keys.drain(keys.len() - room..));
                break;
            }
            due.append(&mut first.remove());
        }
        due
    }

    /// Milliseconds until the next is due.
    pub(crate) fn next_in_ms(&self, now_boot_ms: i64) -> Option<u64> {
        let (second, _) = self.by_second.first_key_value()?;
        let wait = second.saturating_mul(1_000).saturating_sub(now_boot_ms);
        Some(u64::try_from(wait).unwrap_or(0))
    }

    pub(crate) fn clear(&mut self) {
        self.by_second.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_due_at_the_next_whole_second_and_in_portions() {
        let mut timers = Timers::default();
        let publisher: Arc<str> = "p".into();
        for at in 0..5 {
            timers.add(1_001, &publisher, &Credential::new("p", &format!("key-{at}")));
        }
        timers.add(2_000, &publisher, &Credential::new("p", "late"));
        assert_eq!(timers.next_in_ms(500), Some(1_500));
        assert!(timers.due(1_999, 10).is_empty());
        assert_eq!(timers.due(2_000, 4).len(), 4);
        assert_eq!(timers.next_in_ms(2_500), Some(0));
        assert_eq!(timers.due(2_000, 4).len(), 2);
        assert_eq!(timers.next_in_ms(2_000), None);
    }
}
