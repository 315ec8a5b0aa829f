//! Batch updates of maps by raw bpf(2): aya 0.14 has none, and a call for each of a million entries is too slow.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Writes all entries; on an error says how many went in before it.
pub(super) fn update<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<(), (u32, io::Error)> {
    assert_eq!(keys.len(), values.len(), "a value for each key");
    if keys.is_empty() {
        return Ok(());
    }
    // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the batch member is plain data.
    let batch = unsafe { &mut attributes.batch };
    batch.map_fd = map.as_raw_fd().cast_unsigned();
    batch.keys = keys.as_ptr() as u64;
    batch.values = values.as_ptr() as u64;
    batch.count = keys.len() as u32;
    // SAFETY: keys and values are as many as said and live through the call; K and V are the map's own types,
    // which the loader checked against the map when it was made.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_MAP_UPDATE_BATCH as libc::c_int,
            &raw mut attributes,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        // SAFETY: the kernel wrote back how many it took.
        let done = unsafe { attributes.batch.count };
        return Err((done, io::Error::last_os_error()));
    }
    Ok(())
}
