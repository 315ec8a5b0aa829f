//! The paths that a Rust file names, `a::b::c`, those of `use` trees written out, each told from the crate's root:
//! what the check of directions judges.

use super::source::{Kind, Source, Token};

/// The depth of braces in one `use`; a tree beyond it is not followed.
const USE_DEPTH_MAX: usize = 16;

/// One path as written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// From the crate's root where it is of this crate (`crate`, `policy`, `model`), else as written.
    pub(crate) segments: Vec<String>,
    /// The byte of its first word.
    pub(crate) at: usize,
    /// Inside a module `tests`.
    pub(crate) in_tests: bool,
}

/// Every path of two or more segments, and each leaf of each `use`. `module` is the file's own place: `policy::model`.
pub(crate) fn named(source: &Source, module: &[&str]) -> Vec<Named> {
    let tokens = source.tokens();
    let mut walk = Walk {
        tokens: &tokens,
        module,
        inner: Vec::new(),
        depth: 0,
        found: Vec::new(),
    };
    walk.run();
    walk.found
}

struct Walk<'a> {
    tokens: &'a [Token<'a>],
    module: &'a [&'a str],
    /// The modules written out in the file that are open, and the depth of braces each began at.
    inner: Vec<(&'a str, usize)>,
    depth: usize,
    found: Vec<Named>,
}

impl<'a> Walk<'a> {
    fn run(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            at = match self.tokens[at].kind {
                Kind::Word("mod") => self.module(at + 1),
                Kind::Word("use") => self.use_tree(at + 1, &[], 0),
                Kind::Word(_) => self.path(at),
                Kind::Mark(mark) => {
                    self.brace(mark);
                    at + 1
                }
                Kind::PathSep => at + 1,
            };
        }
    }

    /// After `mod`: notes the name of a module that is written out here. Its brace is still to come.
    fn module(&mut self, at: usize) -> usize {
        if let (Some(Kind::Word(name)), Some(Kind::Mark(b'{'))) = (self.kind(at), self.kind(at + 1)) {
            self.inner.push((name, self.depth));
        }
        at + 1
    }

    fn brace(&mut self, mark: u8) {
        match mark {
            b'{' => self.depth += 1,
            b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.inner.retain(|(_, began)| *began < self.depth);
            }
            _ => {}
        }
    }

    /// A path outside of `use`; answers where to go on.
    fn path(&mut self, from: usize) -> usize {
        let mut segments = Vec::new();
        let mut at = from;
        while let Some(Kind::Word(word)) = self.kind(at) {
            segments.push(word);
            at += 1;
            if self.kind(at) != Some(Kind::PathSep) {
                break;
            }
            at += 1;
        }
        if segments.len() > 1 {
            self.note(&segments, from);
        }
        at
    }

    /// One branch of a `use`; answers the place of the `,`, `}` or `;` that ends it.
    fn use_tree(&mut self, from: usize, prefix: &[&'a str], depth: usize) -> usize {
        let mut segments = prefix.to_vec();
        let mut at = from;
        loop {
            match self.kind(at) {
                Some(Kind::Word("as")) => at += 2,
                Some(Kind::Word("self")) if !prefix.is_empty() => at += 1,
                Some(Kind::Word(word)) => {
                    segments.push(word);
                    at += 1;
                }
                Some(Kind::Mark(b'{')) if depth < USE_DEPTH_MAX => {
                    return self.use_branches(at + 1, &segments, depth + 1);
                }
                Some(Kind::PathSep | Kind::Mark(b'*' | b'#')) => at += 1,
                _ => break,
            }
        }
        if !segments.is_empty() {
            self.note(&segments, from);
        }
        at
    }

    fn use_branches(&mut self, from: usize, prefix: &[&'a str], depth: usize) -> usize {
        let mut at = from;
        loop {
            match self.kind(at) {
                Some(Kind::Mark(b'}')) | None => return at + 1,
                Some(Kind::Mark(b',')) => at += 1,
                // A branch that moves nothing on is not Rust: step over it.
                Some(_) => at = self.use_tree(at, prefix, depth).max(at + 1),
            }
        }
    }

    fn note(&mut self, segments: &[&str], at: usize) {
        let inner: Vec<&str> = self.inner.iter().map(|(name, _)| *name).collect();
        let in_tests = inner.contains(&"tests") || self.module.contains(&"tests");
        let here: Vec<&str> = self.module.iter().copied().chain(inner).collect();
        let segments = from_root(segments, &here);
        let at = self.tokens.get(at).map_or(0, |token| token.at);
        self.found.push(Named {
            segments,
            at,
            in_tests,
        });
    }

    fn kind(&self, at: usize) -> Option<Kind<'a>> {
        self.tokens.get(at).map(|token| token.kind)
    }
}

/// The path with `self` and `super` replaced by what they stand for in the module `here`.
fn from_root(segments: &[&str], here: &[&str]) -> Vec<String> {
    let supers = segments.iter().take_while(|segment| **segment == "super").count();
    let relative = supers > 0 || segments[0] == "self";
    if !relative {
        return segments.iter().map(|segment| (*segment).to_owned()).collect();
    }
    let rest = if supers > 0 {
        &segments[supers..]
    } else {
        &segments[1..]
    };
    let base = &here[..here.len().saturating_sub(supers)];
    ["crate"]
        .iter()
        .chain(base)
        .chain(rest)
        .map(|segment| (*segment).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, module: &[&str]) -> Vec<String> {
        let source = Source::new("a.rs", text);
        named(&source, module)
            .into_iter()
            .map(|named| named.segments.join("::"))
            .collect()
    }

    #[test]
    fn a_use_tree_is_written_out() {
        let text = "use crate::{policy::{self, Model as M}, kernel};\nuse std::fs;\n";
        let expected = [
            "crate::policy",
            "crate::policy::Model",
            "crate::kernel",
            "std::fs",
        ];
        assert_eq!(texts(text, &["engine"]), expected);
    }

    #[test]
    fn super_and_self_are_told_from_the_root() {
        let text = "use super::super::kernel::Map;\nfn f() { self::g(); super::h() }\n";
        let expected = [
            "crate::kernel::Map",
            "crate::policy::model::g",
            "crate::policy::h",
        ];
        assert_eq!(texts(text, &["policy", "model"]), expected);
    }

    #[test]
    fn a_module_in_the_file_counts_for_super_until_it_closes() {
        let text =
            "mod inner { fn f() { super::g() } }\nfn f() { super::h() }\nmod tests { use super::*; }\n";
        assert_eq!(
            texts(text, &["policy", "model"]),
            [
                "crate::policy::model::g",
                "crate::policy::h",
                "crate::policy::model"
            ]
        );
        let source = Source::new("a.rs", text);
        let in_tests: Vec<bool> = named(&source, &["policy"])
            .iter()
            .map(|named| named.in_tests)
            .collect();
        assert_eq!(in_tests, [false, false, true]);
    }

    #[test]
    fn paths_in_expressions_and_types_are_seen() {
        let text =
            "fn f(x: crate::kernel::Map) -> std::io::Result<()> { tokio::spawn(g()); Vec::<u8>::new() }";
        assert_eq!(
            texts(text, &[]),
            ["crate::kernel::Map", "std::io::Result", "tokio::spawn"]
        );
    }
}
