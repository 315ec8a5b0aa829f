//! What the C library and the kernel do only by calls that Rust holds for unsafe: heaps of the allocator, the groups
//! of a connection's other end, a thread's slice of time, descriptors that were handed over.
//!
//! Wraps calls, and knows nothing of what they are asked for.
#![allow(
    unsafe_code,
    reason = "settings of the allocator and a socket option that nix lacks; each with its reason"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The heaps that threads share.
#[cfg(target_env = "gnu")]
const HEAPS_MAX: libc::c_int = 2;

/// Bounds the heaps of glibc's allocator, eight a CPU unless told otherwise. Each keeps what one load of the kernel
/// program took (20 MB), and loads run on whichever thread is free: a few dozen reloads would hold hundreds of MB.
/// Other C libraries have one heap.
pub(crate) fn bound_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers; called before there is a second thread.
    let bounded = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX) };
    #[cfg(target_env = "gnu")]
    if bounded == 0 {
        tracing::warn!("the allocator's heaps cannot be bounded: reloads may hold more memory");
    }
}

/// The program without shared libraries knows the users and groups of /etc/passwd and /etc/group alone: for all others
/// glibc would load the host's modules, which crash in it. To be called before any name is looked up.
pub(crate) fn look_names_up_in_files() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        use std::ffi::{c_char, c_int};
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        for (database, services) in [
            (c"passwd", c"files"),
            (c"group", c"files"),
            (c"initgroups", c"files"),
            (c"hosts", c"files dns"),
        ] {
            // SAFETY: takes two texts that live as long as the program; called before there is a second thread.
            let refused = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
            if refused != 0 {
                tracing::warn!(
                    "names of {database:?} are looked up as /etc/nsswitch.conf says, which may crash"
                );
            }
        }
    }
}

/// Gives memory that was freed back to the kernel: what a compile takes is many times what stays of it.
pub(crate) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and may be called at any time.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// The descriptors that the service manager has handed over (sd_listen_fds(3)); none when asked again.
pub(crate) fn handed_over() -> io::Result<Vec<OwnedFd>> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    if ASKED.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let numbers = sd_notify::listen_fds()?;
    // SAFETY: each is open, as setting its flag has shown, meant for this process, and taken here alone, once.
    Ok(numbers
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect())
}

/// The shortest slice that Linux gives, in nanoseconds.
const SLICE_SHORT_NANOS: u64 = 100_000;
/// Some seven times what others have.
const SLICE_LONG_NANOS: u64 = 20_000_000;

/// Asks that the calling thread runs soon after it wakes, for a short time each: it need not be more urgent than others
/// for that (Linux 6.12; an older one gives all threads the same slice).
pub(crate) fn run_soon() {
    ask_slice(SLICE_SHORT_NANOS);
}

/// Asks that the calling thread runs for long at a time, after whoever has less to do: it has its share all the same, and
/// a gateway or an API server of this host that wakes beside it need not wait for a core.
pub(crate) fn run_long() {
    ask_slice(SLICE_LONG_NANOS);
}

fn ask_slice(nanos: u64) {
    // SAFETY: numbers alone, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let bytes = size_of::<libc::sched_attr>();
    // SAFETY: the place has `bytes` bytes that are ours, and the kernel writes no more.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    attributes.sched_runtime = nanos;
    // SAFETY: the kernel reads a `sched_attr`, by the size in it.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if read != 0 || set != 0 {
        tracing::debug!("no slices of its own: {}", io::Error::last_os_error());
    }
}

/// Linux's bound on a process' groups (NGROUPS_MAX).
const GROUPS_MAX: usize = 65536;
/// Enough for nearly all; the kernel says how many there are where it is not.
const GROUPS_USUAL: usize = 64;

/// The supplementary groups of the peer of a Unix socket, as of its connect (SO_PEERGROUPS, Linux 4.13).
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; GROUPS_USUAL];
    loop {
        let bytes = std::mem::size_of_val(groups.as_slice());
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        let fd = socket.as_raw_fd();
        let value = groups.as_mut_ptr().cast();
        // SAFETY: `value` points to `length` bytes that are ours to write, and the kernel writes no more.
        let result =
            unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, value, &raw mut length) };
        let count = usize::try_from(length).map_err(io::Error::other)? / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > GROUPS_MAX {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn groups_of_the_peer_are_those_of_this_process() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut groups = peer_groups(near.as_fd()).unwrap();
        let mut own: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .iter()
            .map(|gid| gid.as_raw())
            .collect();
        groups.sort_unstable();
        own.sort_unstable();
        assert_eq!(groups, own);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(peer_groups(file.as_fd()).is_err());
    }
}
