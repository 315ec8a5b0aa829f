//! Bodies of many lines: cut from the stream as it comes, each read strictly, none longer than 64 KiB.

use super::model::allowance::{Allowance, PolicyView};
use super::model::body::{Shape, Wanted, lease, put_body, row_version};
use super::model::credential;
use super::model::json::{Faults, Json, Members, parse};
use super::model::owned::Credential;
use super::refusal::{Code, Refusal};
use super::requests::LINE_BYTES_MAX;
use super::shared::Shared;

/// What a line asks for.
#[derive(Debug)]
pub(super) enum Line {
    Put {
        credential: Credential,
        body: Wanted,
    },
    Renew {
        credential: Credential,
        lease_ms: Option<i64>,
        row_version: Option<u64>,
    },
    Delete {
        credential: Credential,
        row_version: Option<u64>,
    },
    End {
        count: u64,
    },
}

/// Why a line is none. The credential is told where it is one.
#[derive(Debug)]
pub(super) struct LineFault {
    pub(super) credential: Option<String>,
    pub(super) refusal: Refusal,
}

/// Whether a line without `op` is a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Batch,
    Sync,
}

/// Cuts a stream into lines.
#[derive(Default)]
pub(super) struct Splitter {
    begun: Vec<u8>,
    /// Lines that are complete, blank ones as well: an editor counts them too.
    number: u64,
    /// The line that is being skipped is too long.
    too_long: bool,
}

impl Splitter {
    /// Calls for each line that the bytes complete with its number, `None` for one that is too long. Blank ones are
    /// passed over.
    pub(super) fn push(&mut self, bytes: &[u8], mut call: impl FnMut(u64, Option<&[u8]>)) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(at);
            self.take(line);
            self.complete(&mut call);
            rest = &after[1..];
        }
        self.take(rest);
    }

    /// The stream's end: what was begun is a line.
    pub(super) fn finish(&mut self, mut call: impl FnMut(u64, Option<&[u8]>)) {
        self.complete(&mut call);
    }

    fn take(&mut self, bytes: &[u8]) {
        self.too_long |= self.begun.len() + bytes.len() > LINE_BYTES_MAX;
        match self.too_long {
            true => self.begun.clear(),
            false => self.begun.extend_from_slice(bytes),
        }
    }

    fn complete(&mut self, call: &mut impl FnMut(u64, Option<&[u8]>)) {
        self.number += 1;
        if std::mem::take(&mut self.too_long) {
            call(self.number, None);
        } else if !self.begun.trim_ascii().is_empty() {
            call(self.number, Some(&self.begun));
        }
        self.begun.clear();
    }
}

/// Reads and judges a line.
pub(super) fn read(
    line: Option<&[u8]>,
    body: Body,
    shared: &Shared,
    view: &PolicyView,
    allowance: &Allowance,
) -> Result<Line, LineFault> {
    let refused = |refusal| LineFault {
        credential: None,
        refusal,
    };
    let line = line.ok_or_else(|| {
        let detail = format!("a line has at most {LINE_BYTES_MAX} bytes");
        refused(Refusal::new(Code::LineTooLong, detail))
    })?;
    let json = parse(line).map_err(|detail| refused(Refusal::new(Code::Malformed, detail)))?;
    let mut faults = Faults::default();
    if !matches!(json, Json::Object(_)) {
        Members::open(&json, "", &[], &mut faults);
        return Err(refused(Refusal::of_faults(faults.into_vec())));
    }
    let op = op_of(&json, body, &mut faults);
    if op == Some("end") {
        return read_end(&json, faults).map_err(refused);
    }
    let credential = credential_of(&json, shared, &mut faults);
    let line = op.map(|op| read_op(op, &json, credential, view, allowance, &mut faults));
    match line {
        Some(Some(line)) if faults.is_empty() => Ok(line),
        _ => Err(LineFault {
            credential: credential.map(str::to_owned),
            refusal: Refusal::of_faults(faults.into_vec()),
        }),
    }
}

fn op_of<'j>(json: &'j Json<'j>, body: Body, faults: &mut Faults) -> Option<&'j str> {
    let fix = match body {
        Body::Batch => "write put, renew, delete or end",
        Body::Sync => "write put or end, or leave it out",
    };
    match (find(json, "op"), body) {
        (Some(Json::Text(op)), _) if op == "put" || op == "end" => Some(op),
        (Some(Json::Text(op)), Body::Batch) if op == "renew" || op == "delete" => Some(op),
        (None, Body::Sync) => Some("put"),
        (None, Body::Batch) => {
            faults.add("missing-member", "", "op is missing", fix);
            None
        }
        (Some(_), _) => {
            faults.add("bad-op", "/op", "there is no such op here", fix);
            None
        }
    }
}

fn find<'j>(json: &'j Json<'j>, name: &str) -> Option<&'j Json<'j>> {
    let Json::Object(members) = json else { return None };
    members
        .iter()
        .find(|(member, _)| member == name)
        .map(|(_, value)| value)
}

fn read_end(json: &Json, mut faults: Faults) -> Result<Line, Refusal> {
    let members = Members::open(json, "", &["op", "count"], &mut faults);
    let count = members.and_then(|members| match members.find("count") {
        Some(Json::Whole(count)) => Some(*count),
        _ => {
            faults.add(
                "missing-member",
                "",
                "count is missing, or no whole number",
                "write how many lines came before",
            );
            None
        }
    });
    match count {
        Some(count) if faults.is_empty() => Ok(Line::End { count }),
        _ => Err(Refusal::of_faults(faults.into_vec())),
    }
}

/// The credential, if it is one: others are never quoted.
fn credential_of<'j>(json: &'j Json<'j>, shared: &Shared, faults: &mut Faults) -> Option<&'j str> {
    match find(json, "credential") {
        Some(Json::Text(text)) => match credential::fault(text, &shared.id_pattern) {
            None => Some(text),
            Some((code, detail, fix)) => {
                faults.add(code, "/credential", detail, fix);
                None
            }
        },
        Some(_) => {
            faults.add(
                "wrong-type",
                "/credential",
                "the credential is no text",
                "write its id",
            );
            None
        }
        None => {
            faults.add("missing-member", "", "credential is missing", "write its id");
            None
        }
    }
}

fn read_op(
    op: &str,
    json: &Json,
    credential: Option<&str>,
    view: &PolicyView,
    allowance: &Allowance,
    faults: &mut Faults,
) -> Option<Line> {
    let read = match op {
        "put" => match put_body(json, Shape::Line, view, allowance) {
            Ok(body) => Some((Some(body), None, None)),
            Err(found) => {
                faults.extend(found);
                None
            }
        },
        _ => {
            let known: &[&str] = match op {
                "renew" => &["op", "credential", "lease_seconds", "row_version"],
                _ => &["op", "credential", "row_version"],
            };
            Members::open(json, "", known, faults).map(|members| {
                let lease_ms = match op {
                    "renew" => lease(&members, allowance, faults),
                    _ => None,
                };
                (None, lease_ms, row_version(&members, faults))
            })
        }
    };
    let (credential, (body, lease_ms, row_version)) =
        (Credential::new(&allowance.publisher.name, credential?), read?);
    Some(match (body, op) {
        (Some(body), _) => Line::Put { credential, body },
        (None, "renew") => Line::Renew {
            credential,
            lease_ms,
            row_version,
        },
        (None, _) => Line::Delete {
            credential,
            row_version,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<(u64, Option<String>)> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        let mut keep = |number: u64, line: Option<&[u8]>| {
            lines.push((number, line.map(|l| String::from_utf8(l.to_vec()).unwrap())));
        };
        for piece in pieces {
            splitter.push(piece, &mut keep);
        }
        splitter.finish(&mut keep);
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let whole = b"{\"a\":1}\r\n\n  \n{\"b\":2}\nlast";
        let expected = cut(&[whole]);
        let numbers: Vec<u64> = expected.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 4, 5]);
        for at in 0..whole.len() {
            assert_eq!(cut(&[&whole[..at], &whole[at..]]), expected, "cut at {at}");
        }
    }

    #[test]
    fn line_that_is_too_long_is_told_and_the_next_is_read() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(
            cut(&[&long, b"yy\nok\n"]),
            [(1, None), (2, Some("ok".to_owned()))]
        );
        let just = vec![b'x'; LINE_BYTES_MAX];
        assert!(cut(&[&just, b"\n"])[0].1.is_some());
    }
}
