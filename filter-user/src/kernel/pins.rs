//! The pin directory of an instance: what of the filter outlives the daemon, and where it stands.
//!
//! `maps/` holds what outlives a generation, `generation-N/` the tables of the one in force (and of one that stands by), `links/` a link for
//! each interface, `keyfence` the entry program. `META` is written last, once all else stands.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::ProgramInfo;
use filter_common::abi::{LAYOUT_CHECKSUM, LAYOUT_VERSION, MAGIC, Meta, names};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::{Uid, geteuid};
use thiserror::Error;

use super::chain;
use super::load::LoadError;
use super::succession::is_instance;

/// Where the BPF file system is, unless told otherwise.
pub const BPF_FS_DEFAULT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);

#[derive(Debug, Error)]
pub enum PinError {
    #[error(
        "{0} is not a BPF file system; mount one: mount -t bpf -o mode=0700 bpf {0} (or name another with --bpf-fs)"
    )]
    NotBpfFs(PathBuf),
    #[error(
        "{path}: {error}: there is no BPF file system there; mount one: mkdir -p {path} && mount -t bpf -o mode=0700 bpf \
         {path} (or name another with --bpf-fs)"
    )]
    NoBpfFs { path: PathBuf, error: io::Error },
    #[error(
        "{0:?} is no instance's name: a letter or digit, then up to 62 of letters, digits, `.`, `_` and `-`"
    )]
    Name(String),
    #[error(
        "{path} is not a folder of this user's alone (owner {owner}, mode {mode:04o}), and whoever may write there could \
         take the filter away. If it is the service's own (owner keyfence): `systemctl start keyfence`. Else see who made \
         it, and mount the BPF file system with mode=0700. Its pins are the filter: whoever removes the folder opens the \
         host, every packet passes then"
    )]
    Foreign { path: PathBuf, owner: String, mode: u32 },
    #[error(
        "{path} belongs to another user ({owner}), who alone may change the filter there, or root may take it off. If it is \
         the service's own (owner keyfence): `systemctl start keyfence`"
    )]
    Others { path: PathBuf, owner: String },
    #[error(
        "{path} has no {meta}, which says which release's layout the filter there has: it is left as it is, and goes on \
         judging. `keyfence run --downgrade` takes its place with nothing open in between, whichever release made it \
         (`keyfence detach --yes` opens the interfaces)",
        meta = names::META
    )]
    Unmarked { path: PathBuf },
    #[error("another daemon has taken {0}")]
    Taken(PathBuf),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{path} holds a filter of a newer layout (version {found}; this program's is version {LAYOUT_VERSION}): it is \
         left as it is. Run the release that made it; or go back to this one with `keyfence run --downgrade`, which \
         takes its place with nothing open in between (`keyfence detach --yes` opens the interfaces)"
    )]
    Newer { path: PathBuf, found: u32, meta: Meta },
    #[error(
        "{path} holds a filter that this program cannot read ({found}): it is left as it is. Run the release that \
         made it, or `keyfence detach --yes` first (which opens the interfaces)"
    )]
    OtherLayout { path: PathBuf, found: String },
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// What stands in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// A start that did not get as far as to attach anything: nothing depends on it.
    Half,
    /// A filter of this layout.
    Ours(Meta),
    /// Of an older one, or of this version with other shapes: it can be succeeded, and not be taken over.
    Other(Meta),
    /// Of this layout, and maps of it are not pinned any more; of none that is known, where it judges nothing either. It
    /// can be succeeded.
    Torn(Meta),
}

/// The pin directory of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    pub(super) root: PathBuf,
}

impl Pins {
    pub fn of(bpf_fs: &Path, instance: &str) -> Result<Self, PinError> {
        let pins = Self::named(bpf_fs, instance)?;
        pins.refuse_strangers_folders(&|owner| owner == geteuid())?;
        Ok(pins)
    }

    /// As `of`, to take the filter away: root may do so with what another user's daemon pinned.
    pub fn to_clear(bpf_fs: &Path, instance: &str) -> Result<Self, PinError> {
        let pins = Self::named(bpf_fs, instance)?;
        pins.refuse_strangers_folders(&|owner| geteuid().is_root() || owner == geteuid())?;
        Ok(pins)
    }

    fn named(bpf_fs: &Path, instance: &str) -> Result<Self, PinError> {
        let kind = |path: &Path| {
            let found = statfs(path).map_err(|error| PinError::NoBpfFs {
                path: path.into(),
                error: error.into(),
            });
            found.map(|found| found.filesystem_type())
        };
        // A service may be shown the one folder of it that is ours.
        let ours = bpf_fs.join("keyfence");
        if kind(bpf_fs)? != BPF_FS && kind(&ours).ok() != Some(BPF_FS) {
            return Err(PinError::NotBpfFs(bpf_fs.into()));
        }
        if !is_name(instance) {
            return Err(PinError::Name(instance.into()));
        }
        Ok(Self {
            root: bpf_fs.join("keyfence").join(instance.replace('.', "%")),
        })
    }

    /// Whoever may write in these folders may move the filter's pins away: they must be one user's alone.
    fn refuse_strangers_folders(&self, trusted: &dyn Fn(Uid) -> bool) -> Result<(), PinError> {
        let parent = self.root.parent().unwrap_or(&self.root);
        for folder in [parent, self.root.as_path()] {
            let found = match fs::symlink_metadata(folder) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.io(folder, error)),
            };
            let uid = Uid::from_raw(found.uid());
            let user = nix::unistd::User::from_uid(uid).ok().flatten();
            let owner = user.map_or_else(|| uid.to_string(), |user| user.name);
            let path = PathBuf::from(folder);
            if found.mode() & 0o022 != 0 || !found.is_dir() {
                let mode = found.mode() & 0o7777;
                return Err(PinError::Foreign { path, owner, mode });
            }
            if !trusted(uid) {
                return Err(PinError::Others { path, owner });
            }
        }
        Ok(())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub fn entry(&self) -> PathBuf {
        self.root.join(names::ENTRY)
    }

    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub fn link(&self, interface: &str) -> PathBuf {
        // bpffs takes no dot in a name; % appears in no interface name that has one.
        self.links().join(interface.replace('.', "%"))
    }

    /// Looks at what is there and changes nothing.
    pub fn look(&self) -> Result<Found, PinError> {
        if !self
            .root
            .try_exists()
            .map_err(|error| self.io(&self.root, error))?
        {
            return Ok(Found::Nothing);
        }
        let meta = match MapData::from_pin(self.maps().join(names::META)) {
            Ok(meta) => meta,
            Err(_) if self.linked()?.is_empty() => return Ok(Found::Half),
            Err(error) if self.stands() => return Err(self.other(chain(&error))),
            // Of whichever layout it was: nothing of it is in force that a newer release has put there.
            Err(_) if !self.judges() => return Ok(Found::Torn(Meta::default())),
            Err(_) => {
                let path = self.root.clone();
                return Err(PinError::Unmarked { path });
            }
        };
        let read = || -> Result<Meta, MapError> {
            let meta: Array<MapData, Meta> = Map::from_map_data(meta)?.try_into()?;
            meta.get(&0, 0)
        };
        let meta = read().map_err(|error| self.other(chain(&error)))?;
        if meta == Meta::default() && self.linked()?.is_empty() {
            return Ok(Found::Half);
        }
        if meta.magic != MAGIC {
            return Err(self.other(String::from("no Keyfence wrote it")));
        }
        if meta.layout_version > LAYOUT_VERSION {
            return Err(PinError::Newer {
                path: self.root.clone(),
                found: meta.layout_version,
                meta,
            });
        }
        let ours = (meta.layout_version, meta.layout_checksum) == (LAYOUT_VERSION, LAYOUT_CHECKSUM);
        Ok(match ours {
            true if !self.missing().is_empty() => Found::Torn(meta),
            true => Found::Ours(meta),
            false => Found::Other(meta),
        })
    }

    /// The interfaces that have a link here.
    pub fn linked(&self) -> Result<Vec<String>, PinError> {
        self.list(&self.links())
            .map(|found| found.into_iter().map(|name| name.replace('%', ".")).collect())
    }

    /// Whether a filter stands here: what says so is written last.
    pub fn stands(&self) -> bool {
        self.maps().join(names::META).exists()
    }

    pub fn create(&self) -> Result<(), PinError> {
        for path in [self.maps(), self.links()] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|error| self.io(&path, error))?;
        }
        Ok(())
    }

    /// Takes an interface's filter off.
    pub fn unpin_link(&self, interface: &str) -> io::Result<()> {
        super::attach::remove_link(&self.link(interface))
    }

    /// Follows an interface that has got another name.
    pub fn rename_link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.link(from), self.link(to))
    }

    /// The other instance beside this one whose link holds an interface, if the program there is its.
    pub fn holder(&self, program: u32, interface: &str) -> Option<String> {
        let beside = self.root.parent()?;
        let names = self.list(beside).ok()?.into_iter();
        let mut others = names.filter(|name| is_instance(name)).map(|name| Self {
            root: beside.join(name),
        });
        let other = others.find(|other| {
            let entry = ProgramInfo::from_pin(other.entry());
            entry.is_ok_and(|entry| entry.id() == program) && other.link(interface).exists()
        })?;
        Some(other.root.file_name()?.to_str()?.replace('%', "."))
    }

    /// The entry program's id, where it is pinned.
    pub fn entry_program(&self) -> Option<u32> {
        Some(ProgramInfo::from_pin(self.entry()).ok()?.id())
    }

    /// What takes an instance off that is pinned beside this one.
    pub fn detach_command(&self, instance: &str) -> String {
        let mut command = format!("keyfence detach --yes --instance {instance}");
        let bpf_fs = self.root.parent().and_then(Path::parent);
        if let Some(path) = bpf_fs.filter(|path| *path != Path::new(BPF_FS_DEFAULT)) {
            let _ = write!(command, " --bpf-fs {}", path.display());
        }
        command
    }

    /// Makes this process the one that owns the filter; `None` where another does.
    pub fn lock(&self) -> Result<Option<Flock<fs::File>>, PinError> {
        let folder = fs::File::open(&self.root).map_err(|error| self.io(&self.root, error))?;
        Ok(Flock::lock(folder, FlockArg::LockExclusiveNonblock).ok())
    }

    /// Removes everything: links first, so that no interface is left with an entry without a generation.
    pub fn clear(&self) -> Result<(), PinError> {
        // What is no link of ours keeps none of ours in place: it goes with the folder, or is told at the end.
        let unpinned = self.linked()?.into_iter().map(|interface| {
            self.unpin_link(&interface)
                .map_err(|error| self.io(&self.link(&interface), error))
        });
        let stray = unpinned.collect::<Vec<_>>().into_iter().find_map(Result::err);
        if let Some(error) = stray.filter(|_| remove(&self.links()).is_err()) {
            return Err(error);
        }
        for root in [self.beside().root, self.root.clone()] {
            remove(&root).map_err(|error| self.io(&root, error))?;
        }
        // Of all instances: it stays where another has its pins there, and where it was made for the daemon's user.
        let parent = self.root.parent().unwrap_or(&self.root);
        let stays = [
            io::ErrorKind::NotFound,
            io::ErrorKind::DirectoryNotEmpty,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
            io::ErrorKind::ResourceBusy,
        ];
        match fs::remove_dir(parent) {
            Err(error) if !stays.contains(&error.kind()) => Err(self.io(parent, error)),
            _ => Ok(()),
        }
    }

    pub(super) fn list(&self, folder: &Path) -> Result<Vec<String>, PinError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.io(folder, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.io(folder, error))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn io(&self, path: &Path, error: io::Error) -> PinError {
        PinError::Io {
            path: path.into(),
            error,
        }
    }

    pub(super) fn other(&self, found: String) -> PinError {
        PinError::OtherLayout {
            path: self.root.clone(),
            found,
        }
    }
}

/// SPEC 1: what the policy file admits as a name.
fn is_name(text: &str) -> bool {
    let rest = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    let first = |character: char| character.is_ascii_alphanumeric();
    text.len() <= 63 && text.starts_with(first) && text.chars().all(rest)
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
