//! Many mutants in one build: each function keeps its text and gains a copy for each of its mutants, and asks at its
//! start which of them it is to be. What cannot be woven so (constants, `const fn`, functions of a trait's
//! implementation) is built alone.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    ops::RangeInclusive,
};

use super::{
    operators::{Bounds, Edit, Family, edits},
    syntax::{File, Function, Place},
};

/// One mutant. Its number is its place in the list, from 1.
#[derive(Clone, Debug)]
pub(super) struct Mutant {
    pub(super) number: usize,
    /// Index of its file.
    pub(super) file: usize,
    /// The function or constant.
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) edit: Edit,
    /// In one line, before and after.
    pub(super) change: String,
    pub(super) is_woven: bool,
}

/// All of them, in the order of the files.
pub(super) fn list(files: &[File], families: &[Family], bounds: &Bounds) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let functions = file.functions.iter().map(|function| {
            let edits = edits(&function.tokens, &function.returns, families, bounds);
            (&function.name, is_weavable(function), edits)
        });
        let constants = file.constants.iter();
        let constants = constants.map(|constant| {
            (
                &constant.name,
                false,
                edits(&constant.tokens, "-", families, bounds),
            )
        });
        for (name, is_woven, edits) in functions.chain(constants) {
            mutants.extend(edits.into_iter().map(|edit| Mutant {
                number: 0,
                file: index,
                name: name.clone(),
                line: file.line(edit.at.0),
                change: change(&file.text, &edit),
                edit,
                is_woven,
            }));
        }
    }
    // The same change in another line of a function is another mutant.
    let mut seen: HashMap<(usize, String, String), BTreeSet<usize>> = HashMap::new();
    for (mutant, number) in mutants.iter_mut().zip(1..) {
        mutant.number = number;
        let lines = seen
            .entry((mutant.file, mutant.name.clone(), mutant.change.clone()))
            .or_default();
        lines.insert(mutant.line);
        if lines.len() > 1 {
            mutant.change += &format!(" (number {})", lines.len());
        }
    }
    mutants
}

fn is_weavable(function: &Function) -> bool {
    let is_passable = |name: &String| name.chars().all(|c| c.is_alphanumeric() || c == '_') && name != "_";
    !function.is_const
        && function.place != Place::TraitImpl
        && !function.returns.starts_with("impl ")
        && function.parameters.iter().all(is_passable)
}

/// The line before and after; of more than one line, their joined text.
fn change(text: &str, edit: &Edit) -> String {
    let (start, end) = edit.at;
    let from = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let to = text[end..].find('\n').map_or(text.len(), |at| end + at);
    let short = |text: &str| {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(100) {
            Some((at, _)) => format!("{} …", &text[..at]),
            None => text,
        }
    };
    let new = format!("{}{}{}", &text[from..start], edit.new, &text[end..to]);
    let gone = |text: String| if text.is_empty() { "(nothing)".into() } else { text };
    format!("{} => {}", short(&text[from..to]), gone(short(&new)))
}

/// A file with its mutants in it, and at which lines each stands.
pub(super) fn weave(file: &File, mutants: &[&Mutant]) -> (String, Vec<(RangeInclusive<usize>, usize)>) {
    let mut woven = Woven {
        text: String::new(),
        lines: 1,
        places: Vec::new(),
    };
    let mut done = 0;
    for function in &file.functions {
        let inside: Vec<&Mutant> = mutants
            .iter()
            .copied()
            .filter(|mutant| function.body.start <= mutant.edit.at.0 && mutant.edit.at.1 <= function.body.end)
            .collect();
        if inside.is_empty() {
            continue;
        }
        let open = function.body.start + 1;
        woven.push(&file.text[done..open]);
        woven.push(&dispatch(function, &inside));
        woven.push(&file.text[open..function.body.end]);
        for mutant in inside {
            let (start, end) = mutant.edit.at;
            let text = |from: usize, to: usize| &file.text[from..to];
            let signature = text(function.signature.start, function.signature.end);
            let before = text(function.body.start, start);
            let behind = text(end, function.body.end);
            let copy = format!(
                "\nfn {}__{}{signature}{before}{}{behind}\n",
                function.name, mutant.number, mutant.edit.new
            );
            let first = woven.lines;
            woven.push(&copy);
            woven.places.push((first + 1..=woven.lines - 1, mutant.number));
        }
        done = function.body.end;
    }
    woven.push(&file.text[done..]);
    (woven.text, woven.places)
}

struct Woven {
    text: String,
    /// The number of the line that is being written.
    lines: usize,
    places: Vec<(RangeInclusive<usize>, usize)>,
}

impl Woven {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.lines += text.matches('\n').count();
    }
}

fn dispatch(function: &Function, mutants: &[&Mutant]) -> String {
    let caller = match (function.place, function.has_receiver) {
        (Place::Free, _) => "",
        (_, true) => "self.",
        (_, false) => "Self::",
    };
    let passed = function.parameters.join(", ");
    let mut text = String::from(" match crate::mutant() {");
    for mutant in mutants {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            " {} => return {caller}{}__{}({passed}),",
            mutant.number, function.name, mutant.number
        );
    }
    text + " _ => {} } "
}

/// Put at the end of the crate's root: which mutant this run is, 0 for none.
pub(super) const SWITCH: &str = "
extern crate std as switch;
#[inline(never)]
pub(crate) fn mutant() -> u32 {
    static NUMBER: switch::sync::OnceLock<u32> = switch::sync::OnceLock::new();
    *NUMBER.get_or_init(|| {
        switch::env::var(\"KEYFENCE_MUTANT\").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
    })
}
";

/// The file with one edit.
pub(super) fn alone(file: &File, edit: &Edit) -> String {
    format!(
        "{}{}{}",
        &file.text[..edit.at.0],
        edit.new,
        &file.text[edit.at.1..]
    )
}

/// The numbers of the mutants that stand where the compiler found fault.
pub(super) fn faulty(
    errors: &[(String, usize)],
    path: &str,
    places: &[(RangeInclusive<usize>, usize)],
) -> BTreeSet<usize> {
    let lines = errors
        .iter()
        .filter(|(file, _)| file.ends_with(path))
        .map(|(_, line)| line);
    lines
        .filter_map(|line| places.iter().find(|(range, _)| range.contains(line)))
        .map(|(_, number)| *number)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mutant_is_a_copy_that_its_number_calls() {
        let text = "impl A {\n    fn f(self, b: u32) -> bool {\n        b > 1\n    }\n}\n";
        let files = [File::read("a.rs", text)];
        let mutants = list(&files, &[], &Vec::new());
        let (woven, places) = weave(&files[0], &mutants.iter().collect::<Vec<_>>());
        assert_eq!(mutants.len(), 6, "{mutants:#?}");
        assert!(
            woven.contains("{ match crate::mutant() { 1 => return self.f__1(b), 2 => "),
            "{woven}"
        );
        for (mutant, (lines, number)) in mutants.iter().zip(&places) {
            let copy: Vec<_> = woven
                .lines()
                .skip(lines.start() - 1)
                .take(lines.clone().count())
                .collect();
            assert!(
                *number == mutant.number && copy[0].starts_with(&format!("fn f__{number}(self")),
                "{copy:?}"
            );
        }
        assert!(
            mutants.iter().any(|mutant| mutant.change == "b > 1 => b <= 1"),
            "{mutants:#?}"
        );
        let errors = [("filter-common/src/a.rs".into(), *places[2].0.start())];
        assert_eq!(faulty(&errors, "src/a.rs", &places), BTreeSet::from([3]));
    }
}
