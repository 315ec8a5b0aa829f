//! From the root's path to a checked policy: reads the root, what it includes and the files of sources.
//!
//! All faults of all files are collected; a policy is only handed out when there is none.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::policy::bounds::{FILE_BYTES_MAX, FILES_MAX, TOTAL_BYTES_MAX};
use crate::policy::diagnostic::{Diagnostic, Faults};
use crate::policy::files::{DiskFiles, Files};
use crate::policy::model::Policy;
use crate::policy::schema::{Draft, FileKind, Walk, walk_file};
use crate::policy::source::{Place, Placed, Source, SourceFile, Sources, shown_for};
use crate::policy::sources_file;
use crate::policy::suggest::{is_unprintable, quoted};
use crate::policy::validate::validate;

/// What judging a policy needs to know of the host.
#[derive(Clone, Debug)]
pub struct LoadContext {
    pub now: jiff::Timestamp,
    /// First and last, as in `net.ipv4.ip_local_port_range`.
    pub ephemeral_ports: (u16, u16),
}

impl LoadContext {
    /// With the kernel's own default for ephemeral ports.
    pub fn at(now: jiff::Timestamp) -> Self {
        LoadContext {
            now,
            ephemeral_ports: (32_768, 60_999),
        }
    }
}

/// What became of a policy file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// `None` when there are faults.
    pub policy: Option<Policy>,
    /// By file and position; of each severity at most `DIAGNOSTICS_KEPT_MAX`.
    pub diagnostics: Vec<Diagnostic>,
    /// All that were found, also those not kept.
    pub errors: usize,
    pub warnings: usize,
    /// The root first, then in the order of reading.
    pub files: Vec<SourceFile>,
    /// SHA-256 over the files' names below the root's folder and their bytes. The root's own name does not
    /// count: a policy is the same wherever it lies.
    pub hash: String,
    /// Why the root could not be read: nothing is known of the policy then.
    pub unreadable: Option<String>,
}

const UNREADABLE_FIX: &str = "correct the path or the file's permissions";
/// Root reads all, and seldom sees it.
const BARRED_FIX: &str = "let the user read it that asks, and enter its folders; the daemon of the service is the user keyfence: \
                          `chgrp keyfence FILE && chmod 640 FILE`";

/// Loads a policy from this host's files.
pub fn load(root: &Path, context: &LoadContext) -> Loaded {
    load_from(&DiskFiles, root, context)
}

/// Loads a policy from any files.
pub fn load_from(files: &dyn Files, root: &Path, context: &LoadContext) -> Loaded {
    let folder = root.parent().unwrap_or(Path::new("")).to_owned();
    let mut loader = Loader {
        files,
        folder,
        root: root.to_owned(),
        sources: Sources::default(),
        faults: Faults::default(),
        hash: Sha256::new(),
        bytes: 0,
        read: HashMap::new(),
        not_utf8: HashMap::new(),
        without_root: false,
    };
    let mut draft = Draft::default();
    loader.read_root(context, &mut draft);
    for path in loader.included(&draft.include) {
        loader.read_included(&path, context, &mut draft);
    }
    sources_file::read_all(&mut loader, &mut draft);
    let policy = validate(draft, &loader.sources, &mut loader.faults);
    loader.finish(policy)
}

/// Reads files, once each, within the bounds of one policy.
pub(crate) struct Loader<'a> {
    files: &'a dyn Files,
    folder: PathBuf,
    root: PathBuf,
    pub(crate) sources: Sources,
    pub(crate) faults: Faults,
    hash: Sha256,
    bytes: usize,
    /// By path below the root's folder; `None` could not be read.
    read: HashMap<PathBuf, Option<u32>>,
    /// Where files hold what is not UTF-8, in what is shown of them.
    pub(crate) not_utf8: HashMap<u32, Vec<usize>>,
    without_root: bool,
}

impl Loader<'_> {
    fn read_root(&mut self, context: &LoadContext, draft: &mut Draft) {
        let name: Arc<str> = shown_path(&self.root).into();
        let bytes = self.files.read(&self.root);
        let relative = self
            .root
            .file_name()
            .map(Path::new)
            .map(shown_path)
            .unwrap_or_default();
        // The root has a place in the list even if it cannot be read: its fault needs one.
        let index = match bytes {
            Ok(bytes) => self.add(name, relative, "", bytes, None),
            Err(error) => {
                self.without_root = true;
                self.push(name, relative, "");
                self.unreadable(Place::start_of(0), &shown_path(&self.root.clone()), &error);
                None
            }
        };
        self.walk_if_text(index, FileKind::Root, context, draft);
    }

    fn read_included(&mut self, path: &Placed<PathBuf>, context: &LoadContext, draft: &mut Draft) {
        let index = self.read_below(&path.value, path.place);
        self.walk_if_text(index, FileKind::Included, context, draft);
    }

    /// What is not UTF-8 is no TOML, not even in part.
    fn walk_if_text(&mut self, index: Option<u32>, kind: FileKind, context: &LoadContext, draft: &mut Draft) {
        match index.filter(|index| !self.not_utf8.contains_key(index)) {
            Some(index) => self.walk(index, kind, context, draft),
            None => draft.incomplete = true,
        }
    }

    fn walk(&mut self, index: u32, kind: FileKind, context: &LoadContext, draft: &mut Draft) {
        let source = &self.sources.list[index as usize];
        let text = source.file.text.clone();
        let mut walk = Walk {
            faults: &mut self.faults,
            source,
            file: index,
            context,
        };
        walk_file(&mut walk, kind, &text, draft);
    }

    /// The files that the patterns name, each once, in byte order of their paths.
    fn included(&mut self, patterns: &[Placed<String>]) -> Vec<Placed<PathBuf>> {
        let mut paths: Vec<Placed<PathBuf>> = Vec::new();
        for pattern in patterns {
            for path in self.matching(pattern) {
                paths.push(Placed {
                    value: path,
                    place: pattern.place,
                });
            }
        }
        paths.sort_by(|a, b| a.value.as_os_str().cmp(b.value.as_os_str()));
        paths.dedup_by(|a, b| a.value == b.value);
        let root_name = self.root.file_name().map(PathBuf::from);
        paths.retain(|path| Some(&path.value) != root_name.as_ref());
        paths
    }

    fn matching(&mut self, pattern: &Placed<String>) -> Vec<PathBuf> {
        let Some(below) = path_below(Path::new(""), &pattern.value) else {
            self.outside(pattern);
            return Vec::new();
        };
        let text = below.to_string_lossy();
        if text.contains("**") {
            let message = format!("{} asks for folders of any depth", quoted(&pattern.value));
            self.faults.error(
                pattern.place,
                "include-path",
                message,
                "name the folders, as in \"clients.d/*.toml\"",
            );
            return Vec::new();
        }
        if !text.contains(['*', '?', '[']) {
            return vec![below];
        }
        match self.files.glob(&self.folder, &text) {
            Ok(paths) if paths.is_empty() => {
                let message = format!("{} matches no file", quoted(&pattern.value));
                self.faults.warning(
                    pattern.place,
                    "include-matches-nothing",
                    message,
                    "correct or remove it",
                );
                Vec::new()
            }
            Ok(paths) => paths,
            Err(error) => {
                self.unreadable(pattern.place, &pattern.value, &error);
                Vec::new()
            }
        }
    }

    /// A path is outside of the root's folder.
    pub(crate) fn outside(&mut self, path: &Placed<String>) {
        let message = format!("{} is not below the root file's folder", quoted(&path.value));
        let fix = "write a relative path that stays inside it";
        self.faults.error(path.place, "include-path", message, fix);
    }

    /// A path is inside of the root's folder, and the file is not.
    fn link_outside(&mut self, named_at: Place, path: &Path, real: &Path) {
        let (path, real) = (shown_path(path), shown_path(real));
        let message = format!(
            "{} is a link to {}, which is not below the root file's folder",
            quoted(&path),
            quoted(&real)
        );
        let fix = "put the file itself into the folder; a link may lead to a file inside it";
        self.faults.error(named_at, "include-path", message, fix);
    }

    /// The index of a file below the root's folder; reads it if it has not been read.
    pub(crate) fn read_below(&mut self, path: &Path, named_at: Place) -> Option<u32> {
        if let Some(index) = self.read.get(path) {
            return *index;
        }
        let index = self.read_new(path, named_at);
        self.read.insert(path.to_owned(), index);
        index
    }

    fn read_new(&mut self, path: &Path, named_at: Place) -> Option<u32> {
        if self.read.len() >= FILES_MAX {
            if self.read.len() == FILES_MAX {
                let message = format!("the policy has more than {FILES_MAX} files");
                self.faults
                    .error(named_at, "too-many", message, "put several entries into one file");
            }
            return None;
        }
        let relative = shown_path(path);
        let whole = self.folder.join(path);
        if let Some(real) = self.files.outside(&self.folder, &whole) {
            self.link_outside(named_at, &whole, &real);
            return None;
        }
        match self.files.read(&whole) {
            Ok(bytes) => self.add(
                shown_path(&whole).into(),
                relative.clone(),
                &relative,
                bytes,
                Some(named_at),
            ),
            Err(error) => {
                self.unreadable(named_at, &shown_path(&whole), &error);
                None
            }
        }
    }

    /// Takes in what was read. `named_at` is where the file is named, itself for the root.
    fn add(
        &mut self,
        name: Arc<str>,
        relative: String,
        hashed: &str,
        bytes: Vec<u8>,
        named_at: Option<Place>,
    ) -> Option<u32> {
        if bytes.len() > FILE_BYTES_MAX || self.bytes + bytes.len() > TOTAL_BYTES_MAX {
            let place = named_at.unwrap_or_else(|| Place::start_of(self.push(name.clone(), relative, "")));
            let message = format!("{} is too large", quoted(&name));
            let fix = format!(
                "a file may have {} MiB, all together {} MiB",
                FILE_BYTES_MAX >> 20,
                TOTAL_BYTES_MAX >> 20
            );
            self.faults.error(place, "file-too-large", message, fix);
            return None;
        }
        self.bytes += bytes.len();
        for part in [hashed.as_bytes(), &bytes] {
            self.hash.update((part.len() as u64).to_be_bytes());
            self.hash.update(part);
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(self.push(name, relative, &text)),
            Err(error) => {
                let (text, places) = shown_for(error.as_bytes());
                let index = self.push(name, relative, &text);
                for at in &places {
                    let place = Place::new(index, *at..*at + char::REPLACEMENT_CHARACTER.len_utf8());
                    self.faults
                        .error(place, "not-utf8", "this is not UTF-8", "save the file as UTF-8");
                }
                self.not_utf8.insert(index, places);
                Some(index)
            }
        }
    }

    fn push(&mut self, name: Arc<str>, relative: String, text: &str) -> u32 {
        let index = self.sources.list.len();
        self.sources.list.push(Source::new(SourceFile {
            name,
            relative,
            text: text.into(),
        }));
        // Bounded by `FILES_MAX`.
        index as u32
    }

    fn unreadable(&mut self, place: Place, name: &str, error: &std::io::Error) {
        let message = format!("{} cannot be read: {error}", quoted(name));
        let fix = match error.kind() {
            std::io::ErrorKind::PermissionDenied => BARRED_FIX,
            _ => UNREADABLE_FIX,
        };
        self.faults.error(place, "file-unreadable", message, fix);
    }

    fn finish(self, policy: Option<Policy>) -> Loaded {
        let (errors, warnings) = (self.faults.errors, self.faults.warnings);
        let (mut diagnostics, files) = self.faults.finish(self.sources);
        let fault = diagnostics.first_mut().filter(|_| self.without_root);
        let unreadable = fault.map(Diagnostic::without_place);
        let hash = format!("{:x}", self.hash.finalize());
        Loaded {
            policy: policy.filter(|_| errors == 0),
            diagnostics,
            errors,
            warnings,
            files,
            hash,
            unreadable,
        }
    }
}

/// A path as people may see it: without characters that a terminal would act on.
fn shown_path(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|c| if is_unprintable(c) { '\u{fffd}' } else { c })
        .collect()
}

/// A path as written in a file of `folder` (itself below the root's folder), relative to the root's folder.
/// `None` where it is absolute or leaves the root's folder.
pub(crate) fn path_below(folder: &Path, written: &str) -> Option<PathBuf> {
    if written.is_empty() || written.contains('\0') {
        return None;
    }
    let mut path = folder.to_owned();
    for component in Path::new(written).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_roots_folder() {
        let below = |folder: &str, written: &str| path_below(Path::new(folder), written);
        assert_eq!(below("", "a/b.txt"), Some("a/b.txt".into()));
        assert_eq!(below("clients.d", "acme.txt"), Some("clients.d/acme.txt".into()));
        assert_eq!(
            below("clients.d", "../lists/./acme.txt"),
            Some("lists/acme.txt".into())
        );
        for (folder, written) in [
            ("", "/etc/passwd"),
            ("", "../a"),
            ("a", "../../b"),
            ("", "a/../../b"),
            ("", ""),
        ] {
            assert_eq!(below(folder, written), None, "{folder} {written}");
        }
    }
}
