//! The decision's source as its mutants need it: tokens with their places, functions with what it takes to call them,
//! constants, and which tokens are patterns. A textual reading of formatted Rust; it knows no types.

use std::ops::Range;

use crate::tidy::source::blank_comments_and_strings;

/// One file.
pub(super) struct File {
    /// From the root.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) functions: Vec<Function>,
    pub(super) constants: Vec<Constant>,
}

/// One word, number or operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) at: Range<usize>,
    /// Blanks or line ends on both sides: an operator of two operands, in formatted source.
    pub(super) is_spaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    Inherent,
    Trait,
    /// Takes no functions beside those of its trait.
    TraitImpl,
}

#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) is_const: bool,
    pub(super) has_receiver: bool,
    /// Names of what is passed, without the receiver.
    pub(super) parameters: Vec<String>,
    /// As written; empty for none.
    pub(super) returns: String,
    /// Between the name and the body's brace.
    pub(super) signature: Range<usize>,
    /// From brace to brace, both with it.
    pub(super) body: Range<usize>,
    pub(super) tokens: Vec<Token>,
}

/// A constant outside of functions.
#[derive(Debug)]
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) tokens: Vec<Token>,
}

impl File {
    pub(super) fn read(path: &str, text: &str) -> Self {
        let tokens = tokens(&blank_comments_and_strings(text));
        let mut file = Self {
            path: path.into(),
            text: text.into(),
            functions: Vec::new(),
            constants: Vec::new(),
        };
        // Open braces, and what each began.
        let mut open: Vec<Place> = Vec::new();
        let mut next = Place::Free;
        let mut at = 0;
        while at < tokens.len() {
            match tokens[at].text.as_str() {
                "#" if is(&tokens, at, &["#", "[", "cfg", "(", "test", ")", "]"]) => break,
                "impl" if !before(&tokens, at, "->") => next = impl_place(&tokens[at..]),
                "trait" => next = Place::Trait,
                "{" => open.push(std::mem::replace(&mut next, Place::Free)),
                "}" => drop(open.pop()),
                "fn" => {
                    let place = open.last().copied().unwrap_or(Place::Free);
                    let (function, behind) = function(text, &tokens, at, place);
                    file.functions.extend(function);
                    at = behind;
                    continue;
                }
                "const" if tokens[at + 1].text != "fn" && tokens[at + 1].text != "_" => {
                    let end = at + position(&tokens[at..], |token| token.text == ";");
                    let start = at + position(&tokens[at..end], |token| token.text == "=");
                    let name = tokens[at + 1].text.clone();
                    file.constants.push(Constant {
                        name,
                        tokens: tokens[start..end].to_vec(),
                    });
                    at = end;
                }
                _ => {}
            }
            at += 1;
        }
        file
    }

    /// From 1.
    pub(super) fn line(&self, byte: usize) -> usize {
        self.text[..byte].matches('\n').count() + 1
    }
}

/// The function whose `fn` stands here, if it has a body, and where to go on.
fn function(text: &str, tokens: &[Token], at: usize, place: Place) -> (Option<Function>, usize) {
    let name = &tokens[at + 1];
    let open = at + position(&tokens[at..], |token| token.text == "(");
    let close = closing(tokens, open);
    let end = close + position(&tokens[close..], |token| token.text == "{" || token.text == ";");
    if tokens.get(end).is_none_or(|token| token.text == ";") {
        return (None, end);
    }
    let last = closing(tokens, end);
    let returns = tokens[close + 1..end].first().filter(|token| token.text == "->");
    let stop = tokens[close..end].iter().find(|token| token.text == "where");
    let stop = stop.map_or(tokens[end].at.start, |token| token.at.start);
    let parameters = parameters(&tokens[open + 1..close]);
    let function = Function {
        name: name.text.clone(),
        place,
        is_const: at > 0 && tokens[at - 1].text == "const",
        has_receiver: parameters.first().is_some_and(|name| name == "self"),
        parameters: parameters.into_iter().filter(|name| name != "self").collect(),
        returns: returns.map_or_else(String::new, |arrow| text[arrow.at.end..stop].trim().into()),
        signature: name.at.end..tokens[end].at.start,
        body: tokens[end].at.start..tokens[last].at.end,
        tokens: tokens[end..=last].to_vec(),
    };
    (Some(function), last + 1)
}

/// The word before each colon at the first level; `self` as it stands.
fn parameters(tokens: &[Token]) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "<" => depth += 1,
            ")" | "]" | ">" => depth = depth.saturating_sub(1),
            "self" if depth == 0 => names.push("self".into()),
            ":" if depth == 0 && index > 0 => names.push(tokens[index - 1].text.clone()),
            _ => {}
        }
    }
    names
}

fn impl_place(tokens: &[Token]) -> Place {
    let end = position(tokens, |token| token.text == "{");
    if tokens[..end].iter().any(|token| token.text == "for") {
        Place::TraitImpl
    } else {
        Place::Inherent
    }
}

fn is(tokens: &[Token], at: usize, words: &[&str]) -> bool {
    tokens[at..]
        .iter()
        .map(|token| token.text.as_str())
        .take(words.len())
        .eq(words.iter().copied())
}

fn before(tokens: &[Token], at: usize, word: &str) -> bool {
    at > 0 && tokens[at - 1].text == word
}

/// Where it holds first; the end where it never does.
pub(super) fn position(tokens: &[Token], holds: impl Fn(&Token) -> bool) -> usize {
    tokens.iter().position(holds).unwrap_or(tokens.len())
}

/// The index of the bracket that closes the one here.
pub(super) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index;
                }
            }
            _ => {}
        }
    }
    tokens.len() - 1
}

/// The longest first.
const OPERATORS: [&str; 25] = [
    "..=", "<<=", ">>=", "=>", "->", "::", "==", "!=", "<=", ">=", "&&", "||", "<<", ">>", "+=", "-=", "*=",
    "/=", "%=", "|=", "&=", "^=", "..", "|", "&",
];

fn tokens(code: &str) -> Vec<Token> {
    let bytes = code.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let is_blank = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = if bytes[at].is_ascii_whitespace() {
            at += 1;
            continue;
        } else if is_word(&bytes[at]) {
            bytes[at..].iter().take_while(|byte| is_word(byte)).count()
        } else {
            let longest = OPERATORS
                .iter()
                .find(|operator| code[at..].starts_with(**operator));
            longest.map_or(1, |operator| operator.len())
        };
        let is_spaced = at > 0 && is_blank(bytes.get(at - 1)) && is_blank(bytes.get(at + length));
        tokens.push(Token {
            text: code[at..at + length].into(),
            at: at..at + length,
            is_spaced,
        });
        at += length;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_with_what_it_takes_to_call_them() {
        let text = "const A: u32 = 3 + 4;\nimpl<T> X for [u8] {\n fn a(&self, mut at: u32) -> bool {\n  at > 1 // fn b()\n }\n}\n\
            trait T {\n fn none(&self);\n fn c<F: X + ?Sized>(frame: &F, (w): [u8; 2]) -> Option<()> { None }\n}\n\
            #[cfg(test)]\nmod tests { fn d() {} }";
        let file = File::read("a.rs", text);
        let found: Vec<_> = file
            .functions
            .iter()
            .map(|f| {
                (
                    f.name.as_str(),
                    f.place,
                    f.has_receiver,
                    f.returns.as_str(),
                    f.parameters.join(","),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("a", Place::TraitImpl, true, "bool", "at".into()),
                ("c", Place::Trait, false, "Option<()>", "frame,)".into())
            ]
        );
        assert!(file.constants.len() == 1 && file.constants[0].name == "A");
        assert_eq!(file.functions[0].tokens.len(), 5);
    }
}
