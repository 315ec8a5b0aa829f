//! What a mutant is: one small wrong of the kind that slips into a rule. Each is one replaced piece of text; whether
//! it compiles is found out by building it.

use std::ops::Range;

use super::{
    patterns::{alternatives, arms, patterns},
    syntax::{File, Token, closing},
};

/// One replaced piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edit {
    pub(super) at: (usize, usize),
    pub(super) new: String,
}

/// Names that stand for each other: the unit variants of an enum, the flags of a module.
pub(super) struct Family {
    pub(super) name: String,
    pub(super) members: Vec<String>,
}

/// Constants that are off by one where they are used.
pub(super) type Bounds = Vec<String>;

const SWAPS: &[(&str, &[&str])] = &[
    ("==", &["!="]),
    ("!=", &["=="]),
    ("<", &["<=", ">="]),
    (">", &[">=", "<="]),
    ("<=", &["<", ">"]),
    (">=", &[">", "<"]),
    ("&&", &["||"]),
    ("||", &["&&"]),
    ("+", &["-"]),
    ("-", &["+"]),
    ("*", &["/"]),
    ("/", &["*"]),
    ("%", &["/"]),
    ("<<", &[">>"]),
    (">>", &["<<"]),
    ("&", &["|"]),
    ("|", &["&"]),
    ("+=", &["-="]),
    ("|=", &["&="]),
    (">>=", &["<<="]),
];

/// Words that are swapped wherever they stand.
const WORDS: &[(&str, &str)] = &[
    ("true", "false"),
    ("false", "true"),
    ("is_some", "is_none"),
    ("is_some_and", "is_none_or"),
    ("min", "max"),
    ("saturating_sub", "wrapping_sub"),
    ("div_ceil", "saturating_div"),
];

/// The mutants of a run of tokens: a function's body, from brace to brace, or a constant's value.
pub(super) fn edits(tokens: &[Token], returns: &str, families: &[Family], bounds: &Bounds) -> Vec<Edit> {
    let patterns = patterns(tokens);
    let mut edits = Vec::new();
    for at in 0..tokens.len() {
        let in_pattern = patterns.iter().any(|range| range.contains(&at));
        edits.extend(number(tokens, at));
        edits.extend(member(tokens, at, families));
        if in_pattern {
            continue;
        }
        edits.extend(operator(tokens, at));
        edits.extend(bound(tokens, at, bounds));
        edits.extend(condition(tokens, at));
        edits.extend(statement(tokens, at));
        if returns == "Option<()>" {
            edits.extend(unit_option(tokens, at));
        }
    }
    edits.extend(patterns.iter().flat_map(|range| alternatives(tokens, range)));
    edits.extend(arms(tokens));
    if let (Some(first), Some(last)) = (tokens.first(), tokens.last())
        && first.text == "{"
    {
        let at = (first.at.start, last.at.end);
        edits.extend(bodies(returns).iter().map(|body| Edit {
            at,
            new: format!("{{ {body} }}"),
        }));
    }
    edits.sort();
    edits.dedup();
    edits
}

pub(super) fn edit(at: &Range<usize>, new: impl Into<String>) -> Edit {
    Edit {
        at: (at.start, at.end),
        new: new.into(),
    }
}

/// From the start of one token to the end of another.
pub(super) fn span(tokens: &[Token], from: usize, to: usize) -> Range<usize> {
    tokens[from].at.start..tokens[to].at.end
}

/// One more and one less. Fields of tuples are no numbers.
fn number(tokens: &[Token], at: usize) -> Vec<Edit> {
    let digits: String = tokens[at].text.chars().filter(|c| *c != '_').collect();
    let is_field = at > 0 && tokens[at - 1].text == ".";
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    };
    let Some(value) = value.filter(|_| !is_field) else {
        return Vec::new();
    };
    let near = [value.checked_add(1), value.checked_sub(1)];
    near.into_iter()
        .flatten()
        .map(|near| edit(&tokens[at].at, near.to_string()))
        .collect()
}

/// `Reason::Other` -> the next of its family.
fn member(tokens: &[Token], at: usize, families: &[Family]) -> Option<Edit> {
    let [family, separator, member, ..] = &tokens[at..] else {
        return None;
    };
    let family = families
        .iter()
        .find(|known| known.name == family.text)
        .filter(|_| separator.text == "::")?;
    let index = family.members.iter().position(|known| *known == member.text)?;
    Some(edit(
        &member.at,
        &*family.members[(index + 1) % family.members.len()],
    ))
}

fn operator(tokens: &[Token], at: usize) -> Vec<Edit> {
    let token = &tokens[at];
    let near = |offset: usize| {
        tokens
            .get(at.wrapping_add(offset))
            .map_or("", |token| token.text.as_str())
    };
    let (before, behind) = (near(usize::MAX), near(1));
    if let Some((_, new)) = WORDS.iter().find(|(old, _)| *old == token.text) {
        return vec![edit(&token.at, *new)];
    }
    if token.text == "!" && before.chars().last().is_none_or(|last| !last.is_alphanumeric()) {
        return vec![edit(&token.at, "")];
    }
    let is_operand =
        |text: &str| text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ')' | ']'));
    if token.text.starts_with("..") && is_operand(before) && is_operand(behind) {
        let other = if token.text == ".." { "..=" } else { ".." };
        return vec![edit(&token.at, other)];
    }
    let new = SWAPS
        .iter()
        .find(|(old, _)| *old == token.text && token.is_spaced && behind != "?");
    new.map_or_else(Vec::new, |(_, new)| {
        new.iter().map(|new| edit(&token.at, *new)).collect()
    })
}

fn bound(tokens: &[Token], at: usize, bounds: &Bounds) -> Vec<Edit> {
    let name = &tokens[at].text;
    if !bounds.contains(name) {
        return Vec::new();
    }
    ["+", "-"]
        .map(|sign| edit(&tokens[at].at, format!("({name} {sign} 1)")))
        .into()
}

/// `if` of a condition without `let`: taken always, and never.
fn condition(tokens: &[Token], at: usize) -> Vec<Edit> {
    if tokens[at].text != "if" {
        return Vec::new();
    }
    let mut end = at + 1;
    while !matches!(tokens[end].text.as_str(), "{" | "=>" | "let") {
        end = if matches!(tokens[end].text.as_str(), "(" | "[") {
            closing(tokens, end) + 1
        } else {
            end + 1
        };
    }
    if tokens[end].text == "let" {
        return Vec::new();
    }
    ["true", "false"]
        .map(|new| edit(&span(tokens, at + 1, end - 1), new))
        .into()
}

/// A statement that returns, leaves a loop, assigns or calls: left out.
fn statement(tokens: &[Token], at: usize) -> Option<Edit> {
    let starts = at > 0 && matches!(tokens[at - 1].text.as_str(), "{" | "}" | ";");
    let first = tokens[at].text.as_str();
    let is_word = first.starts_with(|c: char| c.is_alphabetic() || c == '*') || first == "*";
    if !starts || !is_word || matches!(first, "let" | "const" | "if" | "match" | "for" | "while" | "use") {
        return None;
    }
    let mut end = at;
    while !matches!(tokens.get(end)?.text.as_str(), ";" | "}" | ",") {
        end = if matches!(tokens[end].text.as_str(), "(" | "[" | "{") {
            closing(tokens, end) + 1
        } else {
            end + 1
        };
    }
    (tokens[end].text == ";").then(|| edit(&span(tokens, at, end), ""))
}

/// Malformed or not, the other way round.
fn unit_option(tokens: &[Token], at: usize) -> Option<Edit> {
    if tokens[at].text == "None" {
        return Some(edit(&tokens[at].at, "Some(())"));
    }
    let words = tokens.get(at..at + 5)?.iter().map(|token| token.text.as_str());
    words
        .eq(["Some", "(", "(", ")", ")"])
        .then(|| edit(&span(tokens, at, at + 4), "None"))
}

/// What a whole function may give instead of its work.
fn bodies(returns: &str) -> &'static [&'static str] {
    match returns {
        "" => &[""],
        "bool" => &["true", "false"],
        "Option<()>" => &["None", "Some(())"],
        "u16" | "u32" | "u64" => &["0", "1"],
        option if option.starts_with("Option<") => &["None"],
        _ => &[],
    }
}

/// The families of a file: unit variants of its enums, constants of its modules of flags.
pub(super) fn families(file: &File) -> Vec<Family> {
    let mut families = Vec::new();
    for (at, _) in file
        .text
        .match_indices("enum ")
        .chain(file.text.match_indices("pub mod "))
    {
        let rest = &file.text[at..];
        let rest = rest.trim_start_matches("enum ").trim_start_matches("pub mod ");
        let Some((name, body)) = rest.split_once(" {\n") else {
            continue;
        };
        let Some((body, _)) = body.split_once("\n}") else {
            continue;
        };
        let is_plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let members: Vec<String> = body
            .lines()
            .map(|line| line.trim().trim_start_matches("pub const ").trim_end_matches(','))
            .filter_map(|line| line.split([':', '=']).next())
            .map(|name| name.trim().to_owned())
            .filter(|name| is_plain(name))
            .collect();
        if is_plain(name) && members.len() > 1 {
            families.push(Family {
                name: name.into(),
                members,
            });
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutants(text: &str) -> Vec<String> {
        let file = File::read("a.rs", text);
        let family = Family {
            name: "R".into(),
            members: vec!["A".into(), "B".into()],
        };
        let function = &file.functions[0];
        let edits = edits(
            &function.tokens,
            &function.returns,
            &[family],
            &vec!["MAX".into()],
        );
        let apply = |edit: &Edit| format!("{}{}{}", &text[..edit.at.0], edit.new, &text[edit.at.1..]);
        edits.iter().map(apply).collect()
    }

    #[test]
    fn operators_numbers_conditions_and_returns_are_mutated() {
        let all = mutants(
            "fn f(a: u32) -> Option<()> {\n    if a < MAX && !b {\n        return None;\n    }\n    Some(())\n}",
        );
        for wanted in [
            "a <= MAX",
            "a >= MAX",
            "a < (MAX - 1)",
            "< MAX || !b",
            "&& b",
            "if true {",
            "if false {",
            "{\n        \n    }",
            "return Some(());",
            "\n    None\n}",
            "-> Option<()> { None }",
        ] {
            assert!(
                all.iter().any(|mutant| mutant.contains(wanted)),
                "{wanted}: {all:#?}"
            );
        }
    }

    #[test]
    fn patterns_lose_alternatives_and_arms_and_no_operator() {
        let all = mutants(
            "fn f(a: u32) -> u32 {\n    match a {\n        0 | 3 => R::A,\n        4..=5 if a > 1 => 2,\n        _ => 7,\n    }\n}",
        );
        for wanted in [
            "{\n        0  =>",
            "{\n         3 =>",
            "3 => R::B",
            "4..=6 if",
            "if a >= 1",
            "if true =>",
            "\n        \n        _ => 7",
        ] {
            assert!(
                all.iter().any(|mutant| mutant.contains(wanted)),
                "{wanted}: {all:#?}"
            );
        }
        assert!(
            !all.iter()
                .any(|mutant| mutant.contains("0 & 3") || mutant.contains("4..5"))
        );
    }
}
