//! A sync's change file: a line a change, kept beside the audit log, whose line names its hash.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Result, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::bindings::audit::Line;
use crate::bindings::model::credential::hex;

const FOLDER: &str = "audit-syncs";
/// Until its line in the log is known. One that a crash left is of no line, and written over.
const COMING: &str = "coming.jsonl";

/// So much is on its way to the disk at once: groups of others are committed meanwhile, and a file system that keeps data
/// and journal in order has their commits wait for it.
const PIECE: usize = 1 << 20;

/// Written and on disk, under a name that no line of the log has.
pub(super) struct ChangeFile {
    folder: PathBuf,
    hash: String,
}

/// What a line of a change file says.
#[derive(serde::Serialize)]
struct Change {
    what: &'static str,
    revision: Option<u64>,
}

impl ChangeFile {
    /// One at a time. Blocks.
    pub(super) fn write(state: &Path, changes: &[Line]) -> Result<ChangeFile> {
        let folder = state.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = BufWriter::new(options.open(folder.join(COMING))?);
        let (mut bytes, mut hash, mut piece) = (Vec::new(), Sha256::new(), 0);
        for line in changes {
            let change = Change {
                what: line.what,
                revision: line.revision,
            };
            bytes.clear();
            serde_json::to_writer(&mut bytes, &change).expect("writing to memory cannot fail");
            // What the line says follows as one more member.
            bytes.pop();
            bytes.extend_from_slice(b",\"change\":");
            line.write_members(&mut bytes);
            bytes.extend_from_slice(b"}\n");
            hash.update(&bytes);
            file.write_all(&bytes)?;
            piece += bytes.len();
            if piece >= PIECE {
                piece = 0;
                file.flush()?;
                file.get_ref().sync_data()?;
            }
        }
        file.into_inner()?.sync_data()?;
        let hash = hex(&hash.finalize());
        Ok(ChangeFile { folder, hash })
    }

    /// Its name and hash, for the line of the log with this number. By its line: a sync that changes nothing has no
    /// revision of its own.
    pub(super) fn place(&self, line: u64) -> Result<Line> {
        let name = format!("sync-{line}.jsonl");
        std::fs::rename(self.folder.join(COMING), self.folder.join(&name))?;
        File::open(&self.folder)?.sync_all()?;
        let told = Line::new("sync", None).with("file", format!("{FOLDER}/{name}"));
        Ok(told.with("sha256", self.hash.as_str()))
    }

    /// It is of no line.
    pub(super) fn remove(&self) {
        // What stays is written over by the next.
        let _ = std::fs::remove_file(self.folder.join(COMING));
    }
}
