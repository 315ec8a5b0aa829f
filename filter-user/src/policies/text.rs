//! A policy as its files say it: what is sent over the API, and what is kept so that it stands alone.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine;
use crate::policy::{Loaded, MemoryFiles};

/// All files of a policy, sources files included, by their paths below the root's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// Which of them is the root.
    pub root: String,
    /// Where they were read, so that places are named as the operator knows them; a policy that was sent has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    pub files: BTreeMap<String, String>,
}

/// What of a text is no policy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFault {
    /// The root is none of the files.
    Root,
    /// A file's path leaves the folder, or is none.
    Path,
}

impl PolicyText {
    /// Of files that were read and are free of faults; `None` where one has a name that is no text.
    pub fn of(loaded: &Loaded, folder: Option<&Path>) -> Option<PolicyText> {
        let root = loaded.files.first()?.relative.clone();
        let files = loaded.files.iter();
        let text = PolicyText {
            root,
            folder: folder.map(Path::to_owned),
            files: files
                .map(|file| (file.relative.clone(), file.text.as_ref().to_owned()))
                .collect(),
        };
        let odd = |name: &String| name.contains(char::REPLACEMENT_CHARACTER);
        (!text.files.keys().any(odd)).then_some(text)
    }

    pub fn fault(&self) -> Option<TextFault> {
        if !self.files.contains_key(&self.root) {
            return Some(TextFault::Root);
        }
        let plain = |name: &String| {
            let mut parts = Path::new(name).components();
            !name.is_empty() && !name.contains('\0') && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        (!self.files.keys().all(plain)).then_some(TextFault::Path)
    }

    /// Read and judged, by the host's clock.
    pub fn load(&self) -> Loaded {
        let folder = self.folder.as_deref().unwrap_or(Path::new(""));
        let at = |name: &String| folder.join(name);
        let files = self
            .files
            .iter()
            .map(|(name, text)| (at(name), text.clone().into_bytes()));
        engine::load_policy_from(&MemoryFiles::new(files), &at(&self.root))
    }
}

#[cfg(test)]
impl PolicyText {
    /// The policy of one file without a fault.
    pub(super) fn policy(text: String) -> crate::policy::Policy {
        let text = PolicyText {
            root: "k.toml".to_owned(),
            folder: None,
            files: [("k.toml".to_owned(), text)].into(),
        };
        let loaded = text.load();
        loaded
            .policy
            .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(root: &str, files: &[(&str, &str)]) -> PolicyText {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        PolicyText {
            root: root.to_owned(),
            folder: None,
            files: files.iter().map(owned).collect(),
        }
    }

    const ROOT: &str = "version = 1\ninclude = [\"clients.d/*.toml\"]\n[filter]\ninterfaces = [\"eth0\"]\n\
        [[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [443]\n\
        [[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n";
    const CLIENT: &str = "[[client]]\nname = \"c\"\nservices = [\"a\"]\nsources-file = \"../lists/c.txt\"\n";

    #[test]
    fn text_of_files_on_disk_says_the_same_without_them() {
        let folder = tempfile::tempdir().unwrap();
        for below in ["clients.d", "lists"] {
            std::fs::create_dir(folder.path().join(below)).unwrap();
        }
        let files = [
            ("keyfence.toml", ROOT),
            ("clients.d/c.toml", CLIENT),
            ("lists/c.txt", "198.51.100.0/24\n192.0.2.9 # one\n"),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let loaded = engine::load_policy(&folder.path().join("keyfence.toml"));
        let kept = PolicyText::of(&loaded, Some(folder.path())).unwrap();
        assert_eq!(kept.files.len(), 3);
        drop(folder);
        let again = kept.load();
        assert_eq!(again.hash, loaded.hash);
        assert_eq!(again.policy, loaded.policy, "with the places of its entries");
        // Sent from another folder it has the same hash.
        assert_eq!(text("keyfence.toml", &files).load().hash, loaded.hash);
    }

    #[test]
    fn text_without_its_root_or_with_paths_outside_is_none() {
        assert_eq!(text("a.toml", &[("a.toml", "")]).fault(), None);
        assert_eq!(text("b.toml", &[("a.toml", "")]).fault(), Some(TextFault::Root));
        for path in ["/etc/passwd", "../a.txt", "", "a/../../b"] {
            let sent = text("a.toml", &[("a.toml", ""), (path, "")]);
            assert_eq!(sent.fault(), Some(TextFault::Path), "{path}");
        }
    }
}
