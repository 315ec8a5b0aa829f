//! The files of `[credentials] secret-files`.

use std::path::Path;

/// A secret, or what is wrong with its file and how to mend it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let read = crate::policy::read_regular(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("{shown}: {error}; the daemon's user (of the service: keyfence) must be able to read it")
        }
        _ => format!("{shown}: {error}; write the secret into it, for the daemon's user to read"),
    })?;
    // The newline that an editor leaves is no part of the secret.
    match read.trim_ascii_end() {
        [] => Err(format!("{shown} is empty: write a secret into it")),
        secret => Ok(secret.to_owned()),
    }
}
