//! What tidy reads: the repository's text files, and for Rust the same text with comments and strings blanked out,
//! cut into tokens, paths and functions. A textual reading that knows no types; it needs none.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A larger file is no source.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One text file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// From the root, with `/` between: `filter-user/src/policy/model.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// For Rust: the text, byte for byte, with blanks for comments and the insides of strings. Else empty.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = if is_rust(path) {
            blank_comments_and_strings(text)
        } else {
            String::new()
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        is_rust(&self.path)
    }

    /// The line, from 1, of a byte of the text.
    pub(crate) fn line_at(&self, byte: usize) -> usize {
        self.text.as_bytes()[..byte]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }

    pub(crate) fn tokens(&self) -> Vec<Token<'_>> {
        tokens(&self.code)
    }
}

fn is_rust(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

/// Every text file below the root but what cargo built and what git keeps.
pub(crate) fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() && !is_skipped(&entry.file_name().to_string_lossy()) {
                folders.push(path);
            } else if kind.is_file() && entry.metadata()?.len() <= FILE_BYTES_MAX {
                sources.extend(read_one(root, path)?);
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn is_skipped(folder: &str) -> bool {
    folder == "target" || (folder.starts_with('.') && ![".cargo", ".ci", ".config"].contains(&folder))
}

/// None for a file that is no text, or that went away meanwhile.
fn read_one(root: &Path, path: PathBuf) -> Result<Option<Source>> {
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(None);
    };
    let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
    Ok((!text.contains('\0')).then(|| Source::new(&relative, &text)))
}

/// The text with blanks for comments and for what is between the quotes of a string; lines and offsets stay.
pub(crate) fn blank_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => at + line_len(&bytes[at..]),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at + block_comment_len(&bytes[at..]),
            b'"' => at + string_len(&bytes[at..]),
            b'\'' => at + char_len(&text[at..]),
            b'r' if !after_word(bytes, at) || is_string_prefix(bytes, at) => {
                at + raw_string_len(&bytes[at..])
            }
            _ => at,
        };
        // A blank for each byte but the line ends: what is left is valid text of the same length.
        code[at..end]
            .iter_mut()
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn after_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

/// `br"` and `cr"`, where the letter before is the string's own.
fn is_string_prefix(bytes: &[u8], at: usize) -> bool {
    at > 0 && matches!(bytes[at - 1], b'b' | b'c') && !after_word(bytes, at - 1)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_len(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len())
}

fn block_comment_len(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") if depth == 1 => return at + 2,
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Of `r"…"` and `r#"…"#`; 0 for a name that begins with r.
fn raw_string_len(bytes: &[u8]) -> usize {
    let marks = bytes[1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(1 + marks) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'"'];
    close.resize(1 + marks, b'#');
    let body = 2 + marks;
    let end = bytes[body..]
        .windows(close.len())
        .position(|window| window == close);
    end.map_or(bytes.len(), |end| body + end + close.len())
}

/// Of a character between quotes; 0 for a lifetime.
fn char_len(text: &str) -> usize {
    let mut rest = text.char_indices().skip(1);
    match (rest.next(), rest.next()) {
        (Some((_, '\\')), Some((escaped, _))) => text[escaped + 1..]
            .find('\'')
            .map_or(0, |close| escaped + 1 + close + 1),
        (Some(_), Some((close, '\''))) => close + 1,
        _ => 0,
    }
}

/// A word, the `::` between words, or one other character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    Word(&'a str),
    PathSep,
    Mark(u8),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind<'a>,
    /// The byte where it begins.
    pub(crate) at: usize,
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let word = bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
        let (kind, len) = match bytes[at] {
            _ if word > 0 => (Kind::Word(&code[at..at + word]), word),
            b':' if bytes.get(at + 1) == Some(&b':') => (Kind::PathSep, 2),
            mark => (Kind::Mark(mark), 1),
        };
        if !bytes[at].is_ascii_whitespace() {
            tokens.push(Token { kind, at });
        }
        at += len;
    }
    tokens
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// From the line of `fn` to the line of the closing brace, from 1.
    pub(crate) lines: Range<usize>,
}

pub(crate) fn functions(source: &Source) -> Vec<Function> {
    let tokens = source.tokens();
    let mut functions = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        let (Kind::Word("fn"), Kind::Word(name)) = (pair[0].kind, pair[1].kind) else {
            continue;
        };
        let Some(open) = body_of(&tokens, at + 2) else {
            continue;
        };
        let close = closing_brace(&tokens, open).map_or(source.text.len(), |close| tokens[close].at);
        let lines = source.line_at(pair[0].at)..source.line_at(close) + 1;
        functions.push(Function {
            name: name.to_owned(),
            lines,
        });
    }
    functions
}

/// The opening brace of the body of a function whose signature begins here; none for one that is only declared.
fn body_of(tokens: &[Token<'_>], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.kind {
            Kind::Mark(b'(' | b'[') => depth += 1,
            Kind::Mark(b')' | b']') => depth = depth.saturating_sub(1),
            Kind::Mark(b'{') if depth == 0 => return Some(at),
            Kind::Mark(b';') if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

pub(crate) fn closing_brace(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Mark(b'{') => depth += 1,
            Kind::Mark(b'}') if depth <= 1 => return Some(at),
            Kind::Mark(b'}') => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_and_nothing_moves() {
        let text =
            "let a = \"unsafe \\\" {\"; // unsafe\n/* unsafe /* { */ } */ let b = r#\"unsafe \" \"#;\n";
        let code = blank_comments_and_strings(text);
        assert_eq!(code.len(), text.len());
        assert!(!code.contains("unsafe") && !code.contains('{'), "{code}");
        assert!(code.contains("let a =") && code.contains("let b ="), "{code}");
    }

    #[test]
    fn a_lifetime_is_no_open_quote() {
        let text =
            "fn f<'a>(x: &'a str) -> char { if true { '\\'' } else { '{' } } fn g() { unsafe { h() } }";
        let code = blank_comments_and_strings(text);
        assert!(code.contains("&'a str") && code.contains("unsafe"), "{code}");
        assert_eq!(code.matches('{').count(), code.matches('}').count(), "{code}");
    }

    #[test]
    fn raw_and_byte_strings_end_where_they_end() {
        for text in [
            r##"let r = br#"unsafe"#; fn r() {}"##,
            r#"let r = cr"unsafe"; fn r() {}"#,
        ] {
            let code = blank_comments_and_strings(text);
            assert!(
                !code.contains("unsafe") && code.ends_with("; fn r() {}"),
                "{code}"
            );
        }
    }

    #[test]
    fn a_function_is_measured_from_its_name_to_its_brace() {
        let text = "trait T {\n    fn declared(&self, _: [u8; 4]);\n}\nfn long(\n    a: u8,\n) -> u8 {\n    a\n}\nfn one() {}\n";
        let functions = functions(&Source::new("a.rs", text));
        let named = |name: &str, lines: Range<usize>| Function {
            name: name.to_owned(),
            lines,
        };
        assert_eq!(functions, [named("long", 4..9), named("one", 9..10)]);
    }
}
