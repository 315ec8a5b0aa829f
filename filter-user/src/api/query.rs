//! The query and the path of a request, read strictly: each name once, none unknown, all faults at once.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::http::Uri;

use super::problem::{Code, Problem};

/// A request's query. Each parameter is taken; what is left when it is closed is unknown.
#[derive(Debug)]
pub(super) struct Query {
    /// With its number among them: an unknown name is never quoted, it may be a key.
    given: BTreeMap<String, (usize, String)>,
    known: Vec<&'static str>,
    faults: Vec<String>,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Query {
        let mut query = Query {
            given: BTreeMap::new(),
            known: Vec::new(),
            faults: Vec::new(),
        };
        let pairs = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        for (number, pair) in (1..).zip(pairs) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decoded(name), decoded(value)) {
                (Some(name), Some(value)) => {
                    if let Some((first, _)) = query.given.insert(name, (number, value)) {
                        let fault = format!("parameter {number} has the name of parameter {first}");
                        query.faults.push(fault);
                    }
                }
                _ => query.faults.push(format!("parameter {number} is no text")),
            }
        }
        query
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.given.remove(name).map(|(_, value)| value)
    }

    /// `what` completes "`name` is …".
    pub(super) fn parsed<T: FromStr>(&mut self, name: &'static str, what: &str) -> Option<T> {
        let text = self.text(name)?;
        // The library takes `+7` for a number.
        let parsed = text.parse().ok().filter(|_| !text.starts_with('+'));
        if parsed.is_none() {
            self.fault(name, what);
        }
        parsed
    }

    /// False where it is not given.
    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.parsed(name, "true or false").unwrap_or(false)
    }

    pub(super) fn fault(&mut self, name: &str, what: &str) {
        self.faults.push(format!("`{name}` is {what}"));
    }

    /// After the last parameter.
    pub(super) fn close(mut self) -> Result<(), Problem> {
        if !self.given.is_empty() {
            let mut numbers: Vec<usize> = self.given.values().map(|(number, _)| *number).collect();
            numbers.sort_unstable();
            let unknown: Vec<String> = numbers.iter().map(usize::to_string).collect();
            let (parameters, are) = match numbers.len() {
                1 => ("parameter", "is"),
                _ => ("parameters", "are"),
            };
            let known: Vec<String> = self.known.iter().map(|name| format!("`{name}`")).collect();
            let known = match known.as_slice() {
                [] => "it takes none".to_owned(),
                known => format!("it takes {}", known.join(", ")),
            };
            let unknown = unknown.join(", ");
            self.faults
                .push(format!("{parameters} {unknown} {are} not known here; {known}"));
        }
        match self.faults.as_slice() {
            [] => Ok(()),
            faults => Err(Problem::new(Code::BadQuery, faults.join("; "))),
        }
    }
}

/// Percent-encoding undone (RFC 3986, 2.1); a plus is a plus.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit()? << 4 | digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/v1/bindings?{text}").parse().unwrap())
    }

    #[test]
    fn parameters_are_decoded_and_taken_once() {
        let mut given = query("limit=10&after=a%2Fb%25&ends_before=2026-11-22T12:00:00+01:00&progress=true&");
        assert_eq!(given.parsed::<usize>("limit", "a number"), Some(10));
        assert_eq!(given.text("after").as_deref(), Some("a/b%"));
        assert!(given.parsed::<jiff::Timestamp>("ends_before", "a time").is_some());
        assert!(given.flag("progress") && !given.flag("renewals"));
        assert!(given.close().is_ok());
    }

    #[test]
    fn all_faults_are_told_at_once_and_nothing_of_the_callers_is_quoted() {
        let mut given = query("limit=ten&limit=11&sk_live_0123456789=1&more=2&x=%ff&y=%4");
        assert_eq!(given.parsed::<usize>("limit", "a number"), Some(11));
        let problem = given.close().unwrap_err();
        assert_eq!(problem.code, Code::BadQuery);
        for part in [
            "parameter 2 has the name of parameter 1",
            "parameters 3, 4 are not known here; it takes `limit`",
            "parameter 5 is no text; parameter 6 is no text",
        ] {
            assert!(problem.detail.contains(part), "{}", problem.detail);
        }
        assert!(!problem.detail.contains("more"), "{}", problem.detail);
        let key = query("sk_live_aaaaaaaaaaaaaaaaaaaaaaaa=1").close().unwrap_err();
        assert_eq!(key.detail, "parameter 1 is not known here; it takes none");
        let mut given = query("row_version=%2B7");
        assert_eq!(given.parsed::<u64>("row_version", "a number"), None);
        assert!(given.close().is_err());
        let mut given = query("limit=ten");
        given.parsed::<usize>("limit", "a number");
        assert_eq!(given.close().unwrap_err().detail, "`limit` is a number");
    }
}
