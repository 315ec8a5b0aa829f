//! Fingerprints that no key has: of a secret that nobody names, or that cannot be read. Said, since authorize answers 401 to
//! whoever is listed so, and nothing else shows why.

use std::collections::BTreeSet;

use super::Bindings;
use super::model::credential::secret_id;
use super::model::view::state;
use super::requests::State;
use crate::policy::Policy;
use crate::policy::model::Scheme;

/// Secrets named in one sentence.
const NAMED_MAX: usize = 4;

/// What is found of them on a look at all bindings.
pub(super) struct Unfound<'s> {
    known: BTreeSet<&'s str>,
    bindings: u64,
    clients: u64,
    /// Of those that are not known.
    ids: BTreeSet<String>,
}

impl<'s> Unfound<'s> {
    /// Where keys are tried with these secrets; with what clients of the policy have.
    pub(super) fn under(known: impl Iterator<Item = &'s str>, policy: &Policy) -> Self {
        let mut unfound = Self {
            known: known.collect(),
            bindings: 0,
            clients: 0,
            ids: BTreeSet::new(),
        };
        for credential in policy.clients.iter().flat_map(|client| &client.credentials) {
            unfound.clients += u64::from(unfound.has(credential));
        }
        unfound
    }

    pub(super) fn look(&mut self, binding: &str) {
        self.bindings += u64::from(self.has(binding));
    }

    fn has(&mut self, credential: &str) -> bool {
        let Some(id) = secret_id(credential).filter(|id| !self.known.contains(id)) else {
            return false;
        };
        // One more than is named, so that it shows.
        if self.ids.len() <= NAMED_MAX {
            self.ids.insert(id.escape_debug().collect());
        }
        true
    }

    pub(super) fn sentence(&self) -> Option<String> {
        let counted = [
            (self.bindings, "binding", "bindings"),
            (self.clients, "credential of a client", "credentials of clients"),
        ];
        let counted = counted.into_iter().filter(|(count, ..)| *count > 0);
        let counted: Vec<String> = counted
            .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
            .collect();
        if counted.is_empty() {
            return None;
        }
        let named: Vec<&str> = self.ids.iter().take(NAMED_MAX).map(String::as_str).collect();
        let more = if self.ids.len() > NAMED_MAX { ", …" } else { "" };
        let stand = if self.bindings + self.clients == 1 {
            "stands"
        } else {
            "stand"
        };
        Some(format!(
            "[credentials]: {} {stand} as hmac-sha256:…, under secrets that are not in use ({}{more}): authorize will not find \
             them, and answers 401. Name the secrets in secret-files, with scheme = \"hmac-sha256\", or have them pushed anew",
            counted.join(" and "),
            named.join(", ")
        ))
    }
}

impl Bindings {
    /// What authorize will not find once the daemon has started with this policy. Blocks for as long as a look at all
    /// bindings takes.
    pub fn unfound_under(&self, policy: &Policy) -> Option<String> {
        let credentials = &policy.credentials;
        let secrets = match credentials.scheme {
            Scheme::Sha256 => &[][..],
            Scheme::HmacSha256 => credentials.secret_files.as_slice(),
        };
        let mut unfound = Unfound::under(secrets.iter().map(|(id, _)| id.as_str()), policy);
        let (view, now) = (self.shared.view.load_full(), self.shared.clock.now());
        for shelf in self.shared.memory.shelves() {
            shelf.each(|credential, row| {
                let (state, _) = state(&view, &shelf.publisher, shelf.facts(), row, now.boot_ms);
                if state != State::Ended {
                    unfound.look(credential);
                }
            });
        }
        unfound.sentence()
    }
}
