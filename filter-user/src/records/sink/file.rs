//! The log as a file: appended to, rotated within bounds, followed where somebody else moves it.
//!
//! Lines are whole or not there: what a full disk tore is cut off again and written later, and nothing waits for it but
//! the kernel's half that it came from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};

use super::{Reached, tail};
use crate::policy::model;
use crate::records::ledger::{Ledger, Snapshot};
use crate::records::line::{Line, Names};

/// Lines that are written at once.
const CHUNK_BYTES: usize = 1 << 18;
/// A file that is not full is rotated this often within `keep-age`, so that what is too old can go.
const AGES: u32 = 10;
/// What is moved away without a last checkpoint.
const LEFT: &str = ".left";

pub(super) struct LogFile {
    path: PathBuf,
    rotate_size: u64,
    keep_size: u64,
    keep_age: Duration,
    open: Option<Open>,
    /// The last record that this daemon found there, until it writes there.
    found: Found,
}

#[derive(Clone, Copy)]
enum Found {
    NotYet,
    Last(u64),
    /// Nothing, or it has been looked at.
    Passed,
}

struct Open {
    file: Flock<File>,
    /// Of the whole lines.
    length: u64,
    began: SystemTime,
}

impl LogFile {
    pub(super) fn of(sink: &model::Sink) -> Self {
        Self {
            path: sink.path.clone(),
            rotate_size: sink.rotate_size,
            keep_size: sink.keep_size,
            keep_age: sink.keep_age,
            open: None,
            found: Found::NotYet,
        }
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }

    /// Finds the log's end, and cuts off what was torn.
    pub(super) fn open(&mut self, ledger: &mut Ledger, reached: &mut Reached) -> io::Result<()> {
        self.try_open(ledger, reached).map_err(|error| self.named(error))
    }

    fn try_open(&mut self, ledger: &mut Ledger, reached: &mut Reached) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.path)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::errno::Errno::EWOULDBLOCK => {
                io::Error::other("another process writes it: give each instance a log of its own")
            }
            error => error.into(),
        })?;
        let found = tail::read(&file)?;
        let length = file.metadata()?.len();
        if found.length < length {
            tracing::warn!(
                log = %self.path.display(),
                bytes = length - found.length,
                "the last line was torn: cut off, it is written again"
            );
            file.set_len(found.length)?;
        }
        // The chain of checkpoints goes on in the next file.
        let previous = ledger.previous.take();
        *ledger = found.ledger;
        if found.length == 0 {
            ledger.previous = previous;
        }
        if matches!(self.found, Found::NotYet) {
            let last = found.reached.as_ref().map(|there| there.sequence);
            self.found = last.map_or(Found::Passed, Found::Last);
        }
        match found.reached {
            Some(there) => *reached = there,
            // It was rotated just before the end, or moved away.
            None if reached.sequence == 0 => {
                if let Some(last) = siblings(&self.path)?.last() {
                    *reached = tail::read(&File::open(last)?)?.reached.unwrap_or_default();
                }
            }
            None => {}
        }
        let began = match found.length {
            0 => SystemTime::now(),
            _ => file.metadata()?.created().unwrap_or_else(|_| SystemTime::now()),
        };
        self.open = Some(Open {
            file,
            length: found.length,
            began,
        });
        Ok(())
    }

    /// Open, and where the next record belongs.
    pub(super) fn ready(
        &mut self,
        ledger: &mut Ledger,
        reached: &mut Reached,
        names: &Names,
        at: &Snapshot,
    ) -> io::Result<()> {
        self.look(ledger, reached, names, at)?;
        self.follow_on(ledger, reached, at)
    }

    /// Looks whether the path is still the file that is open, and the file as long as it was left.
    fn look(
        &mut self,
        ledger: &mut Ledger,
        reached: &mut Reached,
        names: &Names,
        at: &Snapshot,
    ) -> io::Result<()> {
        let Some(open) = &self.open else {
            return self.open(ledger, reached);
        };
        let ours = open.file.metadata()?;
        let moved = match fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) != (ours.dev(), ours.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(self.named(error)),
        };
        if moved {
            return self.reopen(ledger, reached, names, at);
        }
        if ours.len() != open.length {
            tracing::warn!(log = %self.path.display(), "somebody else cut or wrote the log: its end is read anew");
            self.open = None;
            return self.open(ledger, reached);
        }
        Ok(())
    }

    pub(super) fn reopen(
        &mut self,
        ledger: &mut Ledger,
        reached: &mut Reached,
        names: &Names,
        at: &Snapshot,
    ) -> io::Result<()> {
        if self.open.is_some() {
            // Moved or not, it is whole up to here.
            self.checkpoint(ledger, names, at)?;
        }
        self.open = None;
        self.open(ledger, reached)
    }

    pub(super) fn append(
        &mut self,
        lines: &[Line],
        epoch: &str,
        ledger: &mut Ledger,
        reached: &mut Reached,
        names: &Names,
        at: &Snapshot,
    ) -> io::Result<()> {
        let mut left = lines;
        while !left.is_empty() {
            let mut bytes = 0;
            let over = |line: &Line| {
                bytes += line.text.len();
                bytes > CHUNK_BYTES
            };
            let count = left.iter().position(over).unwrap_or(left.len()).max(1);
            let (chunk, rest) = left.split_at(count);
            let text: String = chunk.iter().map(|line| line.text.as_str()).collect();
            self.rotate_for(text.len() as u64, ledger, reached, names, at)?;
            self.write(text.as_bytes())?;
            for line in chunk {
                ledger.add(line);
            }
            if let Some(last) = chunk.last() {
                *reached = Reached {
                    epoch: epoch.to_owned(),
                    sequence: last.sequence,
                };
            }
            left = rest;
        }
        self.sync()
    }

    /// Begins the log anew where records were written down since its last one: another path has them, or they were taken
    /// out. What is there stays whole in itself: nothing is added to it, whose sums would be of what it lacks.
    fn follow_on(&mut self, ledger: &mut Ledger, reached: &mut Reached, at: &Snapshot) -> io::Result<()> {
        let Found::Last(last) = self.found else {
            return Ok(());
        };
        if last + 1 < at.next {
            tracing::warn!(
                log = %self.path.display(),
                last,
                next = at.next,
                "the log lacks the records between: they went elsewhere, or are gone; it is moved away, and begun anew"
            );
            let mut moved = rotated_name(&self.path, at, last);
            if ledger.first.is_some() {
                // A number at the end of its name would promise a checkpoint behind its last record.
                moved.as_mut_os_string().push(LEFT);
            }
            self.move_away(&moved, ledger, reached)?;
        }
        self.found = Found::Passed;
        Ok(())
    }

    pub(super) fn checkpoint(&mut self, ledger: &mut Ledger, names: &Names, at: &Snapshot) -> io::Result<()> {
        let line = ledger.checkpoint(names, at);
        self.write(line.as_bytes())?;
        ledger.checkpointed(line.as_bytes());
        self.sync()
    }

    /// Whole lines, or none of them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().ok_or_else(|| io::Error::other("not open"))?;
        if let Err(error) = (&*open.file).write_all(bytes) {
            // If not even this succeeds, what follows finds another length than it left, and cuts it off then.
            let cut = open.file.set_len(open.length);
            let error = match cut {
                Ok(()) => error,
                Err(cut) => io::Error::other(format!("{error}, and what was torn stays: {cut}")),
            };
            return Err(self.named(error));
        }
        open.length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let open = self.open.as_ref().ok_or_else(|| io::Error::other("not open"))?;
        open.file.sync_data().map_err(|error| self.named(error))
    }

    /// Moves a full or an old log away, its last checkpoint in it.
    fn rotate_for(
        &mut self,
        bytes: u64,
        ledger: &mut Ledger,
        reached: &mut Reached,
        names: &Names,
        at: &Snapshot,
    ) -> io::Result<()> {
        let Some(open) = &self.open else {
            return Err(io::Error::other("not open"));
        };
        let full = open.length + bytes > self.rotate_size;
        let old = open.began.elapsed().is_ok_and(|age| age > self.keep_age / AGES);
        if open.length == 0 || !full && !old {
            return Ok(());
        }
        self.checkpoint(ledger, names, at)?;
        let moved = rotated_name(&self.path, at, reached.sequence);
        self.move_away(&moved, ledger, reached)
    }

    /// Goes on in a new file, and removes what is too much or too old for good.
    fn move_away(&mut self, moved: &Path, ledger: &mut Ledger, reached: &mut Reached) -> io::Result<()> {
        fs::rename(&self.path, moved).map_err(|error| self.named(error))?;
        self.open = None;
        self.open(ledger, reached)?;
        self.prune().map_err(|error| self.named(error))
    }

    /// Removes rotated files beyond the policy's bounds, the oldest first. The log itself always stays.
    fn prune(&self) -> io::Result<()> {
        let ours = siblings(&self.path)?
            .into_iter()
            .filter(|path| is_rotated(&self.path, path));
        let mut kept = self.rotate_size;
        // The newest first: what is behind the bound goes.
        for path in ours.collect::<Vec<_>>().into_iter().rev() {
            let about = fs::metadata(&path)?;
            kept += about.len();
            let old = about.modified()?.elapsed().is_ok_and(|age| age > self.keep_age);
            if kept > self.keep_size || old {
                fs::remove_file(&path)?;
                tracing::info!(log = %path.display(), "removed: beyond keep-size or keep-age");
            }
        }
        Ok(())
    }
}

/// `drops.jsonl.20261122T193000-4711`.
fn rotated_name(path: &Path, at: &Snapshot, sequence: u64) -> PathBuf {
    let time = at.now.strftime("%Y%m%dT%H%M%S");
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{time}-{sequence}"));
    name.into()
}

/// Whether rotation here made this name; what others made is theirs to remove.
fn is_rotated(log: &Path, path: &Path) -> bool {
    let name = path.as_os_str().to_str();
    let path = name
        .and_then(|name| name.strip_suffix(LEFT))
        .map_or(path, Path::new);
    path.with_extension("") == log && rotated_behind(path).is_some()
}

/// The last record before a rotation here, as the file's name says it.
pub(in crate::records) fn rotated_behind(path: &Path) -> Option<u64> {
    let (time, sequence) = path.extension()?.to_str()?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.len() == 15
        && time.as_bytes()[8] == b'T'
        && time.is_ascii()
        && digits(&time[..8])
        && digits(&time[9..]);
    if is_time && digits(sequence) {
        sequence.parse().ok()
    } else {
        None
    }
}

/// The files that a log was moved to, by rotation here or elsewhere, the oldest first. Compressed ones are left out.
pub(in crate::records) fn siblings(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_ours = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .is_some_and(|end| {
                !["gz", "xz", "zst", "bz2"]
                    .iter()
                    .any(|packed| end.ends_with(packed))
            });
        if is_ours && entry.file_type()?.is_file() {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
