//! Patterns and arms: where no operator stands, and what is left out of them instead.

use std::ops::Range;

use super::{
    operators::{Edit, edit, span},
    syntax::{Token, closing, position},
};

/// The arms of a `match`: pattern, up to the arrow, and the whole arm.
struct Arm {
    pattern: Range<usize>,
    whole: Range<usize>,
}

fn arms_of(tokens: &[Token], at: usize) -> Vec<Arm> {
    let mut open = at;
    while open < tokens.len() && tokens[open].text != "{" {
        open = if matches!(tokens[open].text.as_str(), "(" | "[") {
            closing(tokens, open) + 1
        } else {
            open + 1
        };
    }
    if open >= tokens.len() {
        return Vec::new();
    }
    let close = closing(tokens, open);
    let mut arms = Vec::new();
    let mut start = open + 1;
    while start < close {
        let arrow = start + position(&tokens[start..close], |token| token.text == "=>");
        let mut end = arrow + 1;
        if tokens[end].text == "{" {
            end = closing(tokens, end);
            end += usize::from(tokens[end + 1].text == ",");
        } else {
            while end < close && tokens[end].text != "," {
                let opens = matches!(tokens[end].text.as_str(), "(" | "[" | "{");
                end = if opens { closing(tokens, end) + 1 } else { end + 1 };
            }
            end = end.min(close - 1);
        }
        arms.push(Arm {
            pattern: start..arrow,
            whole: start..end + 1,
        });
        start = end + 1;
    }
    arms
}

/// Each arm left out, where a last one takes the rest.
pub(super) fn arms(tokens: &[Token]) -> Vec<Edit> {
    let mut edits = Vec::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at].text == "match") {
        let arms = arms_of(tokens, at);
        let Some((last, others)) = arms.split_last() else {
            continue;
        };
        if tokens[last.pattern.start].text == "_" {
            let span = |arm: &Arm| span(tokens, arm.whole.start, arm.whole.end - 1);
            edits.extend(others.iter().map(|arm| edit(&span(arm), "")));
        }
    }
    edits
}

/// Where tokens are patterns: arms up to a guard, the second argument of `matches!`, what follows `let`.
pub(super) fn patterns(tokens: &[Token]) -> Vec<Range<usize>> {
    let mut patterns = Vec::new();
    for at in 0..tokens.len() {
        match tokens[at].text.as_str() {
            "match" => patterns.extend(arms_of(tokens, at).into_iter().map(|arm| {
                let guard = position(&tokens[arm.pattern.clone()], |token| token.text == "if");
                arm.pattern.start..arm.pattern.start + guard
            })),
            "matches" if tokens.get(at + 1).is_some_and(|token| token.text == "!") => {
                let end = closing(tokens, at + 2);
                let mut comma = at + 3;
                while comma < end && tokens[comma].text != "," {
                    let opens = matches!(tokens[comma].text.as_str(), "(" | "[");
                    comma = if opens {
                        closing(tokens, comma) + 1
                    } else {
                        comma + 1
                    };
                }
                patterns.push(comma + 1..end);
            }
            "let" => {
                let length = position(&tokens[at..], |token| token.text == "=" || token.text == ":");
                patterns.push(at + 1..at + length);
            }
            _ => {}
        }
    }
    patterns
}

/// `a | b | c` with each left out in turn.
pub(super) fn alternatives(tokens: &[Token], pattern: &Range<usize>) -> Vec<Edit> {
    let mut edits = Vec::new();
    for at in pattern.clone().filter(|at| tokens[*at].text == "|") {
        let is_end = |text: &str| matches!(text, "|" | "," | ")" | "=>");
        let mut end = at + 1;
        while end < pattern.end && !is_end(&tokens[end].text) {
            end = if tokens[end].text == "(" {
                closing(tokens, end) + 1
            } else {
                end + 1
            };
        }
        edits.push(edit(&span(tokens, at, end - 1), ""));
        // The first of them has its bar behind it.
        let mut start = at - 1;
        while start > pattern.start && !matches!(tokens[start - 1].text.as_str(), "|" | "(" | ",") {
            start -= 1;
        }
        if tokens[start - 1].text != "|" && tokens[at - 1].text != ")" {
            edits.push(edit(&span(tokens, start, at), ""));
        }
    }
    edits
}
