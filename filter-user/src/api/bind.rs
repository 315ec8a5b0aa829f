//! Binds the policy's listeners: Unix sockets with mode and group, TCP as written.
//!
//! A live socket is never replaced, nor is anything that is no socket; a stale one is removed. A socket takes its
//! group and mode between bind and listen, so nobody connects before they hold. Those who start at the same time
//! take turns by a lock on the folder. The file goes again when its `Bound` is dropped, if it is still ours. What an
//! earlier daemon left with the service manager is taken up as it is, with the connections that wait at it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener as StdTcpListener};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, getsockname};
use nix::sys::stat::{FchmodatFlags, Mode};
use nix::unistd::{Gid, Group};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::error::{Fault, ListenError};
use crate::policy::model::{Listener, ListenerAddress, Role};

/// Connections that the kernel holds until they are accepted; beyond, a connect fails or waits.
const BACKLOG: i32 = 1024;
/// How long another start may hold the folder's lock before this one gives up.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How long a connect to an existing socket may take; one that takes longer is alive, only busy.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Of folders made for a socket.
const FOLDER_MODE: u32 = 0o755;

/// A listener that accepts connections. They wait until it is served.
#[derive(Debug)]
pub struct Bound {
    pub(super) name: String,
    pub(super) roles: Vec<Role>,
    /// Whether ids that a gateway has proved are taken.
    pub(super) assert: bool,
    pub(super) socket: Socket,
}

/// Of no runtime yet: it is bound while there are rights to, and served by whichever thread.
#[derive(Debug)]
pub(super) enum Socket {
    /// The file first, as below.
    Unix {
        file: SocketFile,
        listener: StdUnixListener,
    },
    Tcp(StdTcpListener),
}

#[derive(Debug)]
pub(super) enum Accepting {
    /// The file first: it is gone before the socket closes, so nobody finds a dead one.
    Unix {
        _file: SocketFile,
        listener: UnixListener,
    },
    Tcp(TcpListener),
}

impl Socket {
    /// In the runtime that is to serve it.
    pub(super) fn accepting(self) -> io::Result<Accepting> {
        Ok(match self {
            Self::Unix { file, listener } => Accepting::Unix {
                _file: file,
                listener: UnixListener::from_std(listener)?,
            },
            Self::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
        })
    }
}

impl Bound {
    /// As in the policy: `unix:/run/keyfence/api.sock`, `tcp:127.0.0.1:9469` (with the port that port 0 became).
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix { listener, .. } => listener.as_fd(),
            Socket::Tcp(listener) => listener.as_fd(),
        }
    }

    /// Somebody else holds it as well from here on: its file stays when this one is done.
    pub(crate) fn outlives(&mut self) {
        if let Socket::Unix { file, .. } = &mut self.socket {
            file.stays = true;
        }
    }
}

/// Binds all of `listeners`, or none: on an error those bound before are closed and their files removed.
#[cfg(test)]
pub(crate) async fn bind(listeners: &[Listener]) -> Result<Vec<Bound>, ListenError> {
    let (bound, faults) = bind_each(listeners, Vec::new()).await;
    match faults.into_iter().next() {
        None => Ok(bound),
        Some(fault) => Err(fault),
    }
}

/// Binds each of `listeners` that can be, and tells of each that cannot. Of the sockets handed over, those that the
/// listeners name are taken up, and the others closed.
pub async fn bind_each(listeners: &[Listener], mut handed: Vec<OwnedFd>) -> (Vec<Bound>, Vec<ListenError>) {
    let (mut all, mut faults) = (Vec::with_capacity(listeners.len()), Vec::new());
    for listener in listeners {
        let taken = handed.iter().position(|socket| is_of(socket, &listener.address));
        let taken = taken.map(|at| handed.swap_remove(at));
        match bind_one(listener, taken).await {
            Ok(bound) => {
                tracing::info!(listener = bound.name, "listening");
                all.push(bound);
            }
            Err(fault) => faults.push(ListenError::new(listener, fault)),
        }
    }
    (all, faults)
}

/// Whether a socket is bound to this address, and can be reached there.
fn is_of(socket: &OwnedFd, address: &ListenerAddress) -> bool {
    let Ok(bound) = getsockname::<SockaddrStorage>(socket.as_raw_fd()) else {
        return false;
    };
    match address {
        ListenerAddress::Unix(path) => {
            let is_there = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            is_there && bound.as_unix_addr().and_then(UnixAddr::path) == Some(path)
        }
        ListenerAddress::Tcp(SocketAddr::V4(address)) => bound
            .as_sockaddr_in()
            .is_some_and(|bound| SocketAddrV4::from(*bound) == *address),
        ListenerAddress::Tcp(SocketAddr::V6(address)) => bound
            .as_sockaddr_in6()
            .is_some_and(|bound| SocketAddrV6::from(*bound) == *address),
    }
}

async fn bind_one(listener: &Listener, taken: Option<OwnedFd>) -> Result<Bound, Fault> {
    if listener.tls.is_some() {
        return Err(Fault::Tls);
    }
    let roles = listener.roles.clone();
    match &listener.address {
        ListenerAddress::Unix(path) => {
            let (file, socket) = bind_unix(path, listener, taken).await?;
            Ok(Bound {
                name: format!("unix:{}", path.display()),
                roles,
                assert: listener.assert,
                socket: Socket::Unix {
                    file,
                    listener: socket,
                },
            })
        }
        ListenerAddress::Tcp(address) => {
            let socket = match taken {
                Some(socket) => StdTcpListener::from(socket),
                None => {
                    let socket = TcpListener::bind(address).await;
                    socket.and_then(TcpListener::into_std).map_err(Fault::Tcp)?
                }
            };
            socket.set_nonblocking(true).map_err(Fault::Tcp)?;
            let address = socket.local_addr().map_err(Fault::Tcp)?;
            Ok(Bound {
                name: format!("tcp:{address}"),
                roles,
                assert: listener.assert,
                socket: Socket::Tcp(socket),
            })
        }
    }
}

async fn bind_unix(
    path: &Path,
    listener: &Listener,
    taken: Option<OwnedFd>,
) -> Result<(SocketFile, StdUnixListener), Fault> {
    let group = find_group(listener)?;
    let permitted = || {
        permit(path, listener.mode, group).map_err(|error| Fault::Permit {
            mode: listener.mode,
            group: listener.group.clone(),
            error,
        })
    };
    if let Some(socket) = taken {
        permitted()?;
        let socket = StdUnixListener::from(socket);
        socket.set_nonblocking(true).map_err(Fault::Bind)?;
        return Ok((SocketFile::of(path).map_err(Fault::Bind)?, socket));
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    create_folder(folder).map_err(|error| Fault::Folder {
        folder: folder.to_owned(),
        error,
    })?;
    let lock = lock_folder(folder).await?;
    clear_stale(path).await?;
    let socket = bound_socket(path).map_err(Fault::Bind)?;
    // From here on the file is ours, and goes with `file` if a later step fails.
    let file = SocketFile::of(path).map_err(Fault::Bind)?;
    permitted()?;
    let socket = listen(socket).map_err(Fault::Bind)?;
    drop(lock);
    Ok((file, socket))
}

/// The group that the socket gets; `None` leaves it its owner's.
fn find_group(listener: &Listener) -> Result<Option<Gid>, Fault> {
    let name = &listener.group;
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        Ok(None) if listener.group_written => Err(Fault::NoSuchGroup(name.clone())),
        Ok(None) => {
            tracing::warn!(
                group = name,
                "this host has no group {name}: the socket keeps its owner's; create it with `groupadd --system {name}`"
            );
            Ok(None)
        }
        Err(errno) => Err(Fault::GroupLookup {
            group: name.clone(),
            error: errno.into(),
        }),
    }
}

/// Makes what is missing of the folder. What is there is left as it is.
fn create_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing
        .into_iter()
        .rev()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        match std::fs::create_dir(folder) {
            // The mode that is asked for at creation would be cut by the umask.
            Ok(()) => std::fs::set_permissions(folder, std::fs::Permissions::from_mode(FOLDER_MODE))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Holds the folder until the file is dropped: between the look at a stale socket and the new one, no other start.
async fn lock_folder(folder: &Path) -> Result<File, Fault> {
    let fault = |error| Fault::Folder {
        folder: folder.to_owned(),
        error,
    };
    let file = File::open(folder).map_err(fault)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::Error(error)) => return Err(fault(error)),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_RETRY).await,
            Err(std::fs::TryLockError::WouldBlock) => return Err(Fault::Locked(folder.to_owned())),
        }
    }
}

/// Removes a socket that nobody listens on; whatever else is at `path` is a fault and stays.
async fn clear_stale(path: &Path) -> Result<(), Fault> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Fault::Probe(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Fault::NotASocket);
    }
    match timeout(PROBE_PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {}
        // Accepted; or alive with a full backlog, which a connect shows by waiting or by EAGAIN.
        Ok(Ok(_)) | Err(_) => return Err(Fault::Live),
        Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => return Err(Fault::Live),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(()),
        // A socket of another type, or one that this user may not open: not ours to judge.
        Ok(Err(error)) => return Err(Fault::Probe(error)),
    }
    tracing::info!(path = %path.display(), "removing a stale socket");
    std::fs::remove_file(path).map_err(Fault::Stale)
}

/// Bound, but not listening: a connect is refused, whatever the file's mode is.
fn bound_socket(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// Never through a link: who could swap the file for one must gain nothing.
fn permit(path: &Path, mode: u32, group: Option<Gid>) -> io::Result<()> {
    if group.is_some() {
        nix::unistd::fchownat(AT_FDCWD, path, None, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    let mode = Mode::from_bits_truncate(mode);
    Ok(nix::sys::stat::fchmodat(
        AT_FDCWD,
        path,
        mode,
        FchmodatFlags::NoFollowSymlink,
    )?)
}

fn listen(socket: OwnedFd) -> io::Result<StdUnixListener> {
    nix::sys::socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(StdUnixListener::from(socket))
}

/// The file of a bound socket, known by its inode.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Others hold its socket as well.
    stays: bool,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(SocketFile {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            stays: false,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = !self.stays
            && std::fs::symlink_metadata(&self.path)
                .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode));
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file stays: it cannot be removed");
        }
    }
}
