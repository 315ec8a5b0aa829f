//! A line before it has its place in the chain: its members are JSON text already, since a batch writes a million.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::AuditHead;
use crate::bindings::model::credential::hex;
use crate::bindings::requests::{Actor, Caller};

/// What each line has: no note may say it a second time.
const OWN_MEMBERS: [&str; 6] = ["line", "time", "what", "revision", "previous", "hash"];
/// Most lines are of a binding, and have this many bytes.
const USUAL_BYTES: usize = 512;

#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) revision: Option<u64>,
    /// Each behind a comma, in the order in which they were given.
    members: Vec<u8>,
    /// More of them, made into text when the line gets its place.
    later: Option<Arc<dyn Told>>,
}

/// What a line is to say.
pub(crate) trait Told: Send + Sync {
    fn tell(&self, line: Line) -> Line;
}

impl Line {
    /// Text is what a line costs most: made beside the store's work, not before it.
    pub(crate) fn later(what: &'static str, told: impl Told + 'static) -> Line {
        Line {
            what,
            revision: None,
            members: Vec::new(),
            later: Some(Arc::new(told)),
        }
    }

    pub(crate) fn new(what: &'static str, actor: Option<&Actor>) -> Line {
        let line = Line {
            what,
            revision: None,
            members: Vec::with_capacity(USUAL_BYTES),
            later: None,
        };
        line.by(actor)
    }

    /// Whose doing it was.
    #[must_use]
    pub(crate) fn by(self, actor: Option<&Actor>) -> Line {
        match actor {
            Some(actor) => self.with("actor", shown(actor)),
            None => self,
        }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Serialize) -> Line {
        debug_assert!(
            !OWN_MEMBERS.contains(&name),
            "{name} is a member of the chain's own"
        );
        self.members.push(b',');
        write(&mut self.members, &name);
        self.members.push(b':');
        write(&mut self.members, &value);
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, revision: u64) -> Line {
        self.revision = Some(revision);
        self
    }

    /// The members as the text of an object.
    pub(crate) fn write_members(&self, bytes: &mut Vec<u8>) {
        bytes.push(b'{');
        bytes.extend_from_slice(self.members().strip_prefix(b",").unwrap_or_default());
        bytes.push(b'}');
    }

    fn members(&self) -> Cow<'_, [u8]> {
        match &self.later {
            Some(later) => Cow::Owned(later.tell(Line::new(self.what, None)).members),
            None => Cow::Borrowed(&self.members),
        }
    }

    /// Appends it to the chain, and answers the head that it makes.
    pub(super) fn write(&self, bytes: &mut Vec<u8>, before: &AuditHead, time: &str) -> AuditHead {
        let number = before.line + 1;
        let start = bytes.len();
        let what = self.what;
        told(write!(
            bytes,
            r#"{{"line":{number},"time":"{time}","what":"{what}""#
        ));
        if let Some(revision) = self.revision {
            told(write!(bytes, r#","revision":{revision}"#));
        }
        bytes.extend_from_slice(&self.members());
        told(write!(bytes, r#","previous":"{}""#, before.hash));
        let hash = hex(&Sha256::digest(&bytes[start..]));
        told(writeln!(bytes, r#","hash":"{hash}"}}"#));
        AuditHead { line: number, hash }
    }
}

fn write(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(bytes, value).expect("texts, numbers and lists always have a JSON form");
}

fn told(written: std::io::Result<()>) {
    written.expect("writing to memory cannot fail");
}

/// Who did it, as a line says it.
#[derive(Serialize)]
struct Shown<'a> {
    kind: &'static str,
    name: &'a str,
    pid: Option<i32>,
    uid: Option<u32>,
    user: Option<&'a str>,
}

fn shown(actor: &Actor) -> Shown<'_> {
    let (kind, name) = match &actor.caller {
        Caller::Publisher(name) => ("publisher", name),
        Caller::Operator(name) => ("operator", name),
        Caller::Other(name) => ("user", name),
    };
    Shown {
        kind,
        name,
        pid: actor.peer.pid,
        uid: actor.peer.uid,
        user: actor.peer.user.as_deref(),
    }
}

#[cfg(test)]
impl Line {
    pub(crate) fn json(&self) -> serde_json::Value {
        let mut text = Vec::new();
        self.write_members(&mut text);
        serde_json::from_slice(&text).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn line_is_the_json_of_what_it_was_given() {
        let line = Line::new("put", None)
            .with("credential", "a\"b\n")
            .with("after", json!([1]));
        assert_eq!(line.json(), json!({"credential": "a\"b\n", "after": [1]}));
        assert_eq!(Line::new("start", None).json(), json!({}));
        let mut bytes = Vec::new();
        let before = AuditHead {
            line: 6,
            hash: "00".to_owned(),
        };
        let head = line.at(9).write(&mut bytes, &before, "now");
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let expected = json!({
            "line": 7, "time": "now", "what": "put", "revision": 9, "credential": "a\"b\n", "after": [1],
            "previous": "00", "hash": head.hash,
        });
        assert_eq!((value, head.line, bytes.last()), (expected, 7, Some(&b'\n')));
    }
}
