//! Publishers, listeners, sinks and credentials: what they say about one another.

use std::collections::HashMap;

use crate::policy::model::{ListenerAddress, PublisherIdentity, Role, ServiceSet, SinkType};
use crate::policy::schema::{
    Draft, ListenerDraft, PublisherDraft, SinkDraft, check_name, compile_id_pattern,
};
use crate::policy::secret::looks_like_a_key;
use crate::policy::source::Place;
use crate::policy::suggest::{nearest, quoted};
use crate::policy::validate::Judge;
use crate::policy::words::Word;

impl Judge<'_> {
    pub(crate) fn serving(&mut self, draft: &Draft) {
        self.listener_addresses(&draft.listeners);
        self.sink_paths(&draft.sinks);
        self.publisher_identities(&draft.publishers);
        if !draft.incomplete {
            for publisher in &draft.publishers {
                self.publisher_socket(publisher, &draft.listeners);
            }
        }
    }

    fn listener_addresses(&mut self, listeners: &[ListenerDraft]) {
        let mut seen: HashMap<String, Place> = HashMap::new();
        for draft in listeners {
            let address = shown_address(&draft.listener.address);
            // An empty path stands for an address that could not be read.
            if address != "unix:" {
                self.once(&mut seen, address, "listener", draft.address);
            }
        }
    }

    fn sink_paths(&mut self, sinks: &[SinkDraft]) {
        let mut seen: HashMap<String, Place> = HashMap::new();
        for draft in sinks {
            let what = match draft.sink.kind {
                SinkType::File => draft.sink.path.display().to_string(),
                other => other.name().to_owned(),
            };
            if !what.is_empty() {
                self.once(&mut seen, what, "sink", draft.path);
            }
        }
    }

    /// Two publishers that one peer matches at one step are refused at run time: two equal ones always are.
    fn publisher_identities(&mut self, publishers: &[PublisherDraft]) {
        let mut seen: HashMap<String, Place> = HashMap::new();
        for draft in publishers {
            let identity = match &draft.publisher.identity {
                PublisherIdentity::User(name) if name.is_empty() => continue,
                PublisherIdentity::User(name) => format!("user {name}"),
                PublisherIdentity::Group(name) => format!("group {name}"),
                PublisherIdentity::Socket(address) => format!("socket {address}"),
                PublisherIdentity::Certificate { kind, value } => format!("certificate {kind} {value}"),
            };
            self.once(&mut seen, identity, "publisher", draft.identity);
        }
    }

    fn once(&mut self, seen: &mut HashMap<String, Place>, what: String, kind: &str, place: Place) {
        if let Some(first) = seen.get(&what) {
            let first = self.sources.shown(*first);
            let message = format!("a second {kind} has {}; the first is at {first}", quoted(&what));
            self.faults
                .error(place, "repeated", message, "remove or change one");
            return;
        }
        seen.insert(what, place);
    }

    /// A publisher may push nothing where it has no services, no environments, or none of its services is of one of them.
    pub(crate) fn publishers_open(&mut self, draft: &Draft, sets: &[ServiceSet]) {
        if draft.incomplete {
            return;
        }
        for (publisher, set) in draft.publishers.iter().zip(sets) {
            let environments = &publisher.publisher.environments;
            let named: Vec<&str> = match set {
                ServiceSet::All => draft.services.iter().collect::<Vec<_>>(),
                ServiceSet::Some(indexes) => {
                    indexes.iter().filter_map(|at| draft.services.get(*at)).collect()
                }
            }
            .into_iter()
            .map(|service| service.service.environment.as_str())
            .collect();
            let (why, fix) = if named.is_empty() {
                let fix = "write services = [\"…\"], or [\"*\"] for all of its environments".to_owned();
                ("it has no services", fix)
            } else if named.iter().any(|of| environments.iter().any(|own| own == of)) {
                continue;
            } else {
                let mut wanted = named;
                wanted.sort_unstable();
                wanted.dedup();
                let why = match environments.is_empty() {
                    true => "it has no environments",
                    false => "none of its services is of one of its environments",
                };
                (
                    why,
                    format!("write environments = [\"{}\"]", wanted.join("\", \"")),
                )
            };
            let message = format!("the publisher may open nothing: {why}");
            self.faults
                .warning(publisher.name, "publisher-opens-nothing", message, fix);
        }
    }

    fn publisher_socket(&mut self, draft: &PublisherDraft, listeners: &[ListenerDraft]) {
        let PublisherIdentity::Socket(socket) = &draft.publisher.identity else {
            return;
        };
        let addresses: Vec<String> = listeners
            .iter()
            .map(|draft| shown_address(&draft.listener.address))
            .collect();
        let Some(index) = addresses.iter().position(|address| address == socket) else {
            let fix = match nearest(socket, addresses.iter().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("add a [[listener]] with address = \"{socket}\" and roles = [\"publish\"]"),
            };
            let message = format!("no listener has the address {}", quoted(socket));
            self.faults
                .error(draft.identity, "unknown-listener", message, fix);
            return;
        };
        if !listeners[index].listener.roles.contains(&Role::Publish) {
            let message = format!("the listener {} does not have the role publish", quoted(socket));
            self.faults.error(
                draft.identity,
                "unknown-listener",
                message,
                "add publish to its roles",
            );
        }
    }

    /// Ids and fingerprints only. What is refused could be a key: it is neither quoted nor shown.
    pub(crate) fn credentials(&mut self, draft: &Draft) {
        let pattern = draft
            .credentials
            .as_ref()
            .and_then(|c| compile_id_pattern(&c.id_pattern).ok());
        for credential in draft.clients.iter().flat_map(|client| &client.credentials) {
            let text = credential.value.as_str();
            if looks_like_a_key(text) {
                let message = "this looks like a key itself, which must not stand in a policy";
                let fix = "write the key's id or its fingerprint (sha256:…), and withdraw the key";
                self.refuse_credential(credential.place, "secret-key", message, fix);
            } else if ["sha256:", "hmac-sha256:"]
                .iter()
                .any(|scheme| text.starts_with(scheme))
            {
                if !is_fingerprint(text) {
                    let message = "this is no fingerprint";
                    let fix = "write sha256: or hmac-sha256:KEYID: and 64 lower-case hex digits";
                    self.refuse_credential(credential.place, "bad-credential", message, fix);
                }
            } else if pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
                let message = "this is neither a key's id (see `id-pattern`) nor a fingerprint";
                let fix = "write the key's id, sha256: or hmac-sha256:KEYID: and 64 lower-case hex digits";
                self.refuse_credential(credential.place, "bad-credential", message, fix);
            }
        }
    }

    fn refuse_credential(&mut self, place: Place, code: &'static str, message: &str, fix: &str) {
        self.faults.error(place, code, message, fix);
        self.faults.secret(place);
    }
}

fn is_fingerprint(text: &str) -> bool {
    let is_digest =
        |hex: &str| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if let Some(digest) = text.strip_prefix("sha256:") {
        return is_digest(digest);
    }
    let keyed = text
        .strip_prefix("hmac-sha256:")
        .and_then(|rest| rest.split_once(':'));
    keyed.is_some_and(|(id, digest)| check_name(id) && is_digest(digest))
}

pub(crate) fn shown_address(address: &ListenerAddress) -> String {
    match address {
        ListenerAddress::Unix(path) => format!("unix:{}", path.display()),
        ListenerAddress::Tcp(address) => format!("tcp:{address}"),
    }
}
