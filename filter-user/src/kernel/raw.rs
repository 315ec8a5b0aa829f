//! bpf(2) itself, for what aya 0.14 does not offer: batch updates of maps (a call for each of a million entries is
//! too slow), taking a link off at once and asking it for its interface, pinning twice, and waiting for the packets
//! under way.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_map_type};

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
    // Keys and values are as many as said and live through the call; K and V are the map's own types, which the
    // loader checked against the map when it was made.
    let result = call(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attributes);
    if let Err(error) = result {
        // SAFETY: the kernel wrote back how many it took.
        let done = unsafe { attributes.batch.count };
        return Err((done, error));
    }
    Ok(())
}

/// The word that stands for an entry of a map whose keys and values are words: of programs, their id.
pub(super) fn look_up(map: BorrowedFd<'_>, key: u32) -> io::Result<u32> {
    let mut value = 0u32;
    // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the element's member is plain data.
    let element = unsafe { &mut attributes.__bindgen_anon_2 };
    element.map_fd = map.as_raw_fd().cast_unsigned();
    element.key = std::ptr::from_ref(&key) as u64;
    element.__bindgen_anon_1.value = std::ptr::from_mut(&mut value) as u64;
    call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
    Ok(value)
}

/// Takes a pinned link's program off its interface before this returns: a link whose pin is only removed goes when
/// the kernel comes to it.
pub(super) fn detach_link(pin: &Path) -> io::Result<()> {
    detach(pinned(pin)?.as_fd())
}

/// The same by a descriptor, wherever its pin may be.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    call(bpf_cmd::BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// The program of an XDP link, and the number of the interface that it holds; 0 where it holds none any more.
pub(super) fn program_and_interface(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // SAFETY: bpf_link_info is a struct of integers and a union of such: zero is a value of each.
    let mut told: bpf_link_info = unsafe { std::mem::zeroed() };
    // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.info.bpf_fd = link.as_raw_fd().cast_unsigned();
    attributes.info.info_len = size_of::<bpf_link_info>() as u32;
    attributes.info.info = std::ptr::from_mut(&mut told) as u64;
    // What is told of lives through the call and is as long as said.
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    // SAFETY: all of it is integers, whichever kind of link this is.
    let interface = unsafe { told.__bindgen_anon_1.xdp.ifindex };
    Ok((told.prog_id, interface))
}

/// Puts another program in the place of a pinned link's: a packet meets the one or the other.
pub(super) fn update_link(pin: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let link = pinned(pin)?;
    // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attributes.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    call(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Pins a pinned object once more.
pub(super) fn pin_again(from: &Path, to: &Path) -> io::Result<()> {
    pin(pinned(from)?.as_fd(), to)
}

/// Pins an object.
pub(super) fn pin(object: BorrowedFd<'_>, to: &Path) -> io::Result<()> {
    let path = CString::new(to.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = object.as_raw_fd().cast_unsigned();
    // The path lives through the call.
    call(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// What is pinned.
pub(super) fn pinned(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    let descriptor = call(bpf_cmd::BPF_OBJ_GET, &mut attributes)?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: a new descriptor that the kernel just gave, and that nothing else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Waits for packets: the kernel ends an update of a map of maps only when every program has left that was running.
pub(super) struct Barrier {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Barrier {
    pub(super) fn new() -> io::Result<Self> {
        let inner = array("", 4)?;
        let outer = create(bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS, ("", 4), Some(&inner))?;
        Ok(Self { outer, inner })
    }

    /// Returns when no program runs any more that ran when it was called.
    pub(super) fn wait(&self) -> io::Result<()> {
        let key = 0u32;
        let value = self.inner.as_raw_fd().cast_unsigned();
        // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the element member is plain data.
        let element = unsafe { &mut attributes.__bindgen_anon_2 };
        element.map_fd = self.outer.as_raw_fd().cast_unsigned();
        element.key = std::ptr::from_ref(&key) as u64;
        element.__bindgen_anon_1.value = std::ptr::from_ref(&value) as u64;
        // Key and value live through the call and have the map's sizes.
        call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes).map(|_| ())
    }
}

/// An array of one value.
pub(super) fn array(name: &str, value_size: u32) -> io::Result<OwnedFd> {
    create(bpf_map_type::BPF_MAP_TYPE_ARRAY, (name, value_size), None)
}

/// An array of one entry; of maps, where it is told what kind.
fn create(kind: bpf_map_type, (name, value_size): (&str, u32), of: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    // SAFETY: bpf_attr is a union of plain structs: zero is a value of each.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the creation member is plain data.
    let made = unsafe { &mut attributes.__bindgen_anon_1 };
    // The last byte ends it.
    let last = made.map_name.len() - 1;
    for (to, from) in made.map_name[..last].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    made.map_type = kind as u32;
    made.key_size = 4;
    made.value_size = value_size;
    made.max_entries = 1;
    made.inner_map_fd = of.map_or(0, |inner| inner.as_raw_fd().cast_unsigned());
    let descriptor = call(bpf_cmd::BPF_MAP_CREATE, &mut attributes)?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: a new descriptor that the kernel just gave, and that nothing else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: a whole union of this size, whose pointers the callers keep alive through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
