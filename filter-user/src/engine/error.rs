//! Why a policy could not be put in force. What was in force before still is.

use std::io;

use thiserror::Error;

use crate::compiler::CompileError;
use crate::kernel::attach::AttachError;
use crate::kernel::interfaces::InterfaceError;
use crate::kernel::load::LoadError;
use crate::kernel::pins::PinError;

#[derive(Debug, Error)]
pub enum FilterError {
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(
        "the policy has {needed} clients and bindings and the owner table holds {max}: restart the daemon, which makes a larger \
         one with nothing open in between"
    )]
    OwnersFull { needed: u32, max: u32 },
    #[error(
        "the policy and the one that is to stand by have more owners, services or publishers together than there is \
         room for: apply it without --confirm-within"
    )]
    BothFull,
    #[error(
        "another daemon runs as instance {0}: stop it first, or name another instance in [daemon] instance"
    )]
    Instance(String),
    #[error("the filter was detached while this daemon ran, and every packet passes: restart the daemon")]
    Detached,
    #[error(
        "pins of the filter are missing and cannot be made again ({0}): packets are judged as long as this daemon runs, and \
         no policy can be put in force. Mend the BPF file system before it ends: without them every packet may be dropped, \
         or pass"
    )]
    Unpinned(String),
    #[error("pins of the filter were removed while the tables were made: try again")]
    Parted,
    #[error(
        "the filter of an earlier daemon stays in force as it is, since what was pushed, or the policy, cannot be \
         read: `keyfence reload` begins anew"
    )]
    Kept,
    #[error(
        "the filter in force is of another layout (version {0}), and what was pushed, or the policy, cannot be read: it \
         is left as it is. Run the release that made it, `keyfence restore` a backup or apply a policy, then start this one"
    )]
    Unknown(u32),
    #[error(
        "pins of the filter in force are missing ({0}), so that it cannot be taken over, and what was pushed, or the policy, \
         cannot be read: it is left as it is, and goes on judging. `keyfence restore` a backup and start again; or \
         `keyfence detach --yes`, which opens the interfaces, and start with the policy's clients alone"
    )]
    UnknownAndTorn(String),
    #[error("the bindings do not follow the kernel's tables")]
    Behind,
    #[error("making the tables: {0}")]
    Panicked(String),
    #[error("the daemon is stopping")]
    Abandoned,
    #[error(
        "bindings were pushed meanwhile that the new tables had no room for, {0} times in a row: try again, when \
         less is pushed"
    )]
    Overtaken(u32),
    #[error("the host's addresses cannot be read: {0}")]
    HostAddresses(io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
}
