//! Policies that an older release has kept, in this one's schema.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::Store;
use crate::policies::schema::{self, SCHEMA};

impl Store {
    /// Writes anew what an older release has written: all or nothing. As it was it is copied aside before.
    pub(in crate::policies) fn migrate(&mut self) -> io::Result<()> {
        let Some((oldest, _)) = self.schemas.filter(|(oldest, _)| *oldest < SCHEMA) else {
            return Ok(());
        };
        let aside = schema::aside(&self.folder, oldest);
        fs::rename(self.copy()?.keep(), &aside)?;
        if let Err(error) = self.rewrite() {
            // Nothing has changed: whoever tries again copies again.
            fs::remove_dir_all(&aside)?;
            return Err(error);
        }
        tracing::warn!(
            "the kept policies are of schema {oldest}, and are written anew in schema {SCHEMA}; as they were they are in {}",
            aside.display()
        );
        self.schemas = Some((SCHEMA, SCHEMA));
        Ok(())
    }

    fn rewrite(&self) -> io::Result<()> {
        let copy = self.copy()?;
        let next = Store {
            folder: copy.path().to_owned(),
            ..Store::default()
        };
        for entry in &self.entries {
            if let Ok(text) = self.text(&entry.hash) {
                next.write(&next.text_path(&entry.hash), &text)?;
            }
            next.write(&next.entry_path(entry.number), entry)?;
        }
        renameat2(
            AT_FDCWD,
            &next.folder,
            AT_FDCWD,
            &self.folder,
            RenameFlags::RENAME_EXCHANGE,
        )?;
        // Both names, on disk before anything is written under them.
        File::open(self.beside())?.sync_all()
    }

    fn beside(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// A copy beside the folder, on disk, which goes with its value.
    fn copy(&self) -> io::Result<tempfile::TempDir> {
        let copy = tempfile::Builder::new()
            .prefix("policy.")
            .tempdir_in(self.beside())?;
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let to = copy.path().join(file.file_name());
            fs::copy(file.path(), &to)?;
            File::open(to)?.sync_all()?;
        }
        Ok(copy)
    }
}
