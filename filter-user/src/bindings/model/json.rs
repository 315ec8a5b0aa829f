//! JSON read strictly: repeated members are kept, so that they can be told; pointers name the place of a fault.
//!
//! Faults never quote a value: what stands in the wrong place could be a key.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::bindings::refusal::FieldFault;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'t> {
    Null,
    Bool(bool),
    /// A whole number that fits.
    Whole(u64),
    /// Any other number.
    Number,
    /// Of the text that was read, where it has no escapes.
    Text(Cow<'t, str>),
    List(Vec<Json<'t>>),
    Object(Vec<(Cow<'t, str>, Json<'t>)>),
}

/// The text as JSON, or where it is none. Nesting is bounded by the library, size by the caller.
pub(crate) fn parse(bytes: &[u8]) -> Result<Json<'_>, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        // The category alone: the library's own text may hold what was sent.
        let what = match error.classify() {
            serde_json::error::Category::Eof => "the JSON ends too early",
            _ => "this is not JSON",
        };
        format!("{what}, line {} column {}", error.line(), error.column())
    })
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Whole(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json<'de>, A::Error> {
        let mut members = Vec::new();
        // A member's name is read like any text; JSON has no other.
        while let Some((Json::Text(name), value)) = entries.next_entry()? {
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

/// Faults as they are found, all of one body; beyond the bound they are counted in the last.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<FieldFault>);

const FAULTS_MAX: usize = 64;

impl Faults {
    pub(crate) fn add(
        &mut self,
        code: &'static str,
        pointer: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(FieldFault {
                code,
                pointer: pointer.into(),
                detail: detail.into(),
                fix: fix.into(),
            });
        }
    }

    pub(crate) fn extend(&mut self, faults: Vec<FieldFault>) {
        self.0.extend(faults);
        self.0.truncate(FAULTS_MAX);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<FieldFault> {
        self.0
    }
}

/// An object's members, each once, all of them known.
pub(crate) struct Members<'j> {
    members: &'j [(Cow<'j, str>, Json<'j>)],
    pub(crate) pointer: String,
}

impl<'j> Members<'j> {
    /// Records what is no object, and unknown and repeated members.
    pub(crate) fn open(
        json: &'j Json<'j>,
        pointer: &str,
        known: &[&str],
        faults: &mut Faults,
    ) -> Option<Members<'j>> {
        let Json::Object(members) = json else {
            faults.add("wrong-type", pointer, "this is no object", "write an object");
            return None;
        };
        for (at, (name, _)) in members.iter().enumerate() {
            // A member's name is the caller's text as well: only known ones are quoted.
            if !known.contains(&&**name) {
                let detail = format!("member {} is not known", at + 1);
                let fix = format!("remove it; known are {}", known.join(", "));
                faults.add("unknown-member", pointer, detail, fix);
            } else if members[..at].iter().any(|(earlier, _)| earlier == name) {
                faults.add(
                    "repeated-member",
                    child(pointer, name),
                    format!("{name} stands there twice"),
                    "write it once",
                );
            }
        }
        Some(Members {
            members,
            pointer: pointer.to_owned(),
        })
    }

    pub(crate) fn find(&self, name: &str) -> Option<&'j Json<'j>> {
        self.members
            .iter()
            .find(|(member, _)| member == name)
            .map(|(_, value)| value)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        child(&self.pointer, name)
    }
}

/// The pointer of a member or an item (RFC 6901, 3).
pub(crate) fn child(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_members_are_faults_with_pointers() {
        let json = parse(br#"{"a": 1, "b": 2, "a": 3, "ghp_0123456789abcdef0123": 4}"#).unwrap();
        let mut faults = Faults::default();
        let members = Members::open(&json, "/limit", &["a", "b"], &mut faults).unwrap();
        assert_eq!(members.find("b"), Some(&Json::Whole(2)));
        let faults = faults.into_vec();
        let told: Vec<_> = faults.iter().map(|f| (f.code, f.pointer.as_str())).collect();
        assert_eq!(
            told,
            [("repeated-member", "/limit/a"), ("unknown-member", "/limit")]
        );
        assert!(!format!("{faults:?}").contains("ghp_"), "keys are never quoted");
    }

    #[test]
    fn what_is_no_json_is_told_by_place_and_never_quoted() {
        let told = parse(b"{\"sources\": sk_live_1}").unwrap_err();
        assert_eq!(told, "this is not JSON, line 1 column 13");
        assert!(parse(b"{").unwrap_err().starts_with("the JSON ends too early"));
        assert!(parse(b"{} {}").is_err() && parse(&[0xff]).is_err());
        assert!(
            parse("[".repeat(10_000).as_bytes()).is_err(),
            "nesting is bounded"
        );
    }

    #[test]
    fn pointers_escape_what_they_must() {
        assert_eq!(child("/labels", "a/b~c"), "/labels/a~1b~0c");
    }
}
