//! Gives up all rights but those to filter, before the first thread that lives: a thread has its own.
//!
//! What is never had again cannot be taken by who takes over the daemon. Root stays root by its number, and reaches
//! only what that number's files and modes admit.

use std::path::{Path, PathBuf};

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{AccessFlags, access};
use thiserror::Error;

use crate::policy::open_regular;

/// To load programs, to attach them, and to have them verified as they are.
const KEPT: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

#[derive(Debug, Error)]
pub enum RightsError {
    #[error("the rights that the daemon does not need cannot be given up: {0}")]
    Caps(#[from] CapsError),
    #[error("the daemon cannot give up gaining rights by what it executes: {0}")]
    NewPrivileges(#[from] nix::Error),
}

/// What the daemon must reach while it runs.
#[derive(Clone, Debug)]
pub(crate) enum Need {
    /// A file that is read again at each reload.
    Read(PathBuf),
    /// A folder that things are made in; where it is missing, it is made.
    Write(PathBuf),
}

/// Gives up what this process does not need: capabilities of all kinds, and gaining any by what it executes.
///
/// Where root is to use what only another user may, it keeps the right to that, and says so: it was started by hand.
pub(crate) fn keep_few(needs: Vec<Need>) -> Result<(), RightsError> {
    nix::sys::prctl::set_no_new_privs()?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut kept: CapsHashSet = KEPT.into_iter().filter(|kept| permitted.contains(kept)).collect();
    if kept.len() < KEPT.len() && permitted.contains(&Capability::CAP_SYS_ADMIN) {
        // Of a container that knows no finer ones: it stands for them.
        tracing::warn!("keeps CAP_SYS_ADMIN, which stands for what is missing of {KEPT:?}");
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    if permitted.contains(&Capability::CAP_DAC_OVERRIDE)
        && let Some(path) = barred(needs, &kept)?
    {
        tracing::warn!(
            path = %path.display(),
            "keeps CAP_DAC_OVERRIDE: this is another user's, and needed; run the daemon as the service \
             (`systemctl start keyfence`), or give root the right to it by owner and mode"
        );
        kept.insert(Capability::CAP_DAC_OVERRIDE);
    }
    reduce(&kept)
}

fn reduce(kept: &CapsHashSet) -> Result<(), RightsError> {
    // The right to change the bounding set is itself given up below; who lacks it executes nothing with more rights
    // either, since no program gives any from here on.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for other in caps::all().into_iter().filter(|other| !kept.contains(other)) {
            if caps::has_cap(None, CapSet::Bounding, other)? {
                caps::drop(None, CapSet::Bounding, other)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, kept)?;
    caps::set(None, CapSet::Permitted, kept)?;
    Ok(())
}

/// The first of these that cannot be reached with these rights alone: tried on a thread that has given up the others.
fn barred(needs: Vec<Need>, kept: &CapsHashSet) -> Result<Option<PathBuf>, RightsError> {
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| {
            caps::set(None, CapSet::Effective, kept)?;
            caps::set(None, CapSet::Permitted, kept)?;
            Ok(needs.into_iter().find_map(|need| need.barred()))
        });
        tried
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Need {
    fn barred(self) -> Option<PathBuf> {
        use std::io::ErrorKind::PermissionDenied;
        match self {
            Self::Read(path) => {
                let denied = open_regular(&path).is_err_and(|error| error.kind() == PermissionDenied);
                denied.then_some(path)
            }
            Self::Write(folder) => {
                let denied = |path: &&Path| access(*path, AccessFlags::W_OK | AccessFlags::X_OK);
                // Of what is missing, the nearest that is there.
                let near = folder
                    .ancestors()
                    .find(|path| denied(path) != Err(nix::Error::ENOENT))?;
                (denied(&near) == Err(nix::Error::EACCES)).then(|| near.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_nobody_special<R: Send>(work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| scope.spawn(work).join()).unwrap()
    }

    #[test]
    fn few_are_kept_and_none_returns() {
        let held = caps::read(None, CapSet::Permitted).unwrap();
        let sets = as_nobody_special(|| {
            keep_few(Vec::new()).unwrap();
            let sets = [
                CapSet::Permitted,
                CapSet::Effective,
                CapSet::Inheritable,
                CapSet::Ambient,
            ];
            sets.map(|set| caps::read(None, set).unwrap())
        });
        let few: CapsHashSet = KEPT.into_iter().filter(|kept| held.contains(kept)).collect();
        assert_eq!(sets, [few.clone(), few, CapsHashSet::new(), CapsHashSet::new()]);
        assert_eq!(
            caps::read(None, CapSet::Permitted).unwrap(),
            held,
            "of the thread alone"
        );
    }

    #[test]
    fn what_belongs_to_another_user_is_found() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "gives folders to another user: run it as root"
        );
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("policy.toml"), "").unwrap();
        let kept: CapsHashSet = KEPT.into_iter().collect();
        let read = || vec![Need::Read(theirs.join("policy.toml"))];
        let write = || vec![Need::Write(theirs.join("to/be/made"))];
        assert_eq!(barred(read(), &kept).unwrap(), None);
        assert_eq!(barred(write(), &kept).unwrap(), None);
        std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
        assert_eq!(barred(read(), &kept).unwrap(), None, "everybody may read it");
        assert_eq!(barred(write(), &kept).unwrap(), Some(theirs.clone()));
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&theirs, own).unwrap();
        assert_eq!(barred(read(), &kept).unwrap(), Some(theirs.join("policy.toml")));
    }
}
