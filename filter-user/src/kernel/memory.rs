//! Map memory in the daemon's own address space: single words are read and changed while packets flow, which
//! an update of a whole value could not do without losing what the kernel counted meanwhile.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Pod;
use aya::maps::MapData;

/// Writes the first values of an array that was made with BPF_F_MMAPABLE: a copy, not a call for each entry.
pub fn fill<T: Pod>(map: &MapData, values: &[T]) -> io::Result<()> {
    // The kernel spaces values by whole words.
    let stride = size_of::<T>().next_multiple_of(8);
    if values.is_empty() {
        return Ok(());
    }
    let mapping = Mapping::of(map, stride)?;
    if values.len() > mapping.entries {
        return Err(io::Error::other("more values than the map has entries"));
    }
    let source = values.as_ptr().cast::<u8>();
    let target = mapping.start.as_ptr().cast::<u8>();
    if stride == size_of::<T>() {
        // SAFETY: both hold as many bytes, checked above; a mapping just made overlaps nothing of the program's own.
        unsafe { std::ptr::copy_nonoverlapping(source, target, std::mem::size_of_val(values)) };
        return Ok(());
    }
    for at in 0..values.len() {
        // SAFETY: inside the values.
        let from = unsafe { source.add(at * size_of::<T>()) };
        // SAFETY: inside the mapping, checked above.
        let to = unsafe { target.add(at * stride) };
        // SAFETY: one value, in both.
        unsafe { std::ptr::copy_nonoverlapping(from, to, size_of::<T>()) };
    }
    Ok(())
}

/// Makes every value of an array zero again.
pub(super) fn clear<T: Pod>(map: &MapData) -> io::Result<()> {
    let mapping = Mapping::of(map, size_of::<T>().next_multiple_of(8))?;
    for word in 0..mapping.bytes / 8 {
        // SAFETY: inside the mapping; whole words.
        let word = unsafe { mapping.start.add(word) };
        // SAFETY: a live mapping, touched by atomic words alone.
        unsafe { word.as_ref() }.store(0, Ordering::Relaxed);
    }
    Ok(())
}

/// A mapped array map of any values, as the words that they are.
pub(super) struct Words(Mapping);

// SAFETY: shared memory that is only touched by atomic words.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    pub(super) fn of(map: &MapData) -> io::Result<Self> {
        let info = map.info();
        let info = info.map_err(|error| io::Error::other(super::chain(&error)))?;
        Ok(Self(Mapping::of(
            map,
            (info.value_size() as usize).next_multiple_of(8),
        )?))
    }

    pub(super) fn all(&self) -> &[AtomicU64] {
        // SAFETY: the whole mapping, aligned to a page, which lives as long as self; atomics may be shared.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.bytes / 8) }
    }
}

/// A whole array map in the daemon's address space.
struct Mapping {
    start: NonNull<AtomicU64>,
    bytes: usize,
    entries: usize,
}

impl Mapping {
    fn of(map: &MapData, stride: usize) -> io::Result<Self> {
        let info = map
            .info()
            .map_err(|error| io::Error::other(super::chain(&error)))?;
        if (info.value_size() as usize).next_multiple_of(8) != stride {
            return Err(io::Error::other(
                "the map's values have another size than this program's",
            ));
        }
        let entries = info.max_entries() as usize;
        let bytes = entries * stride;
        // SAFETY: a new mapping wherever the kernel likes; the arguments are plain numbers and an open descriptor.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self {
            start,
            bytes,
            entries,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `of`, not used after.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A mapped array map of `T`, seen as 64-bit words.
pub(super) struct Memory<T> {
    mapping: Mapping,
    shape: PhantomData<T>,
}

// SAFETY: shared memory that is only touched by atomic words.
unsafe impl<T> Send for Memory<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Memory<T> {}

impl<T: Pod> Memory<T> {
    /// Maps a whole array that was made with BPF_F_MMAPABLE.
    pub(super) fn of(map: &MapData) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        Ok(Self {
            mapping: Mapping::of(map, size_of::<T>())?,
            shape: PhantomData,
        })
    }

    pub(super) fn entries(&self) -> usize {
        self.mapping.entries
    }

    /// The words of one value.
    pub(super) fn words(&self, entry: usize) -> Option<&[AtomicU64]> {
        if entry >= self.mapping.entries {
            return None;
        }
        let words = size_of::<T>() / 8;
        // SAFETY: inside the mapping, checked above; aligned to a page and to whole words.
        let first = unsafe { self.mapping.start.add(entry * words) };
        // SAFETY: this value's words, inside the mapping, which lives as long as self; atomics may be shared.
        Some(unsafe { std::slice::from_raw_parts(first.as_ptr(), words) })
    }
}
