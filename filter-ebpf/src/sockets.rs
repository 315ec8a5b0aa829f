//! The only socket look-ups: whether a packet answers one of this host's own connections.

use aya_ebpf::bindings::{bpf_sock_tuple, xdp_md};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::macros::btf_map;
use filter_common::parse::{Address, Family, Packet};

/// Where the socket look-ups find a packet's four values: off the stack, which is small.
#[btf_map]
static TUPLE: PerCpuArray<bpf_sock_tuple, 1> = PerCpuArray::new();

/// The namespace that the packet arrived in.
const CURRENT_NAMESPACE: u64 = u64::MAX;
const STATE_ESTABLISHED: u32 = 1;
const STATE_LISTEN: u32 = 10;

/// Lays the packet's four values out as the socket look-ups take them; gives their length.
#[inline(always)]
fn lay_tuple(packet: &Packet) -> Option<(*mut bpf_sock_tuple, u32)> {
    let tuple = TUPLE.get_ptr_mut(0)?;
    let (source_port, destination_port) = (packet.source_port.to_be(), packet.destination_port.to_be());
    // SAFETY: this CPU's own value, all of it integers.
    let tuple = unsafe { &mut *tuple };
    if matches!(packet.family, Family::V4) {
        // SAFETY: the union's IPv4 member, all of it integers.
        let four = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        four.saddr = packet.source.v4().to_be();
        four.daddr = packet.destination.v4().to_be();
        four.sport = source_port;
        four.dport = destination_port;
        Some((tuple, 12))
    } else {
        // SAFETY: the union's IPv6 member, all of it integers.
        let six = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        six.saddr = words(&packet.source);
        six.daddr = words(&packet.destination);
        six.sport = source_port;
        six.dport = destination_port;
        Some((tuple, 36))
    }
}

#[inline(always)]
fn words(address: &Address) -> [u32; 4] {
    [
        ((address.upper >> 32) as u32).to_be(),
        (address.upper as u32).to_be(),
        ((address.lower >> 32) as u32).to_be(),
        (address.lower as u32).to_be(),
    ]
}

#[inline(never)]
pub fn tcp_connection(ctx: *mut xdp_md, packet: &Packet) -> bool {
    let Some((tuple, length)) = lay_tuple(packet) else {
        return false;
    };
    // SAFETY: a tuple of the length given; the reference is released below on every path.
    let socket = unsafe { bpf_skc_lookup_tcp(ctx.cast(), tuple, length, CURRENT_NAMESPACE, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and held until it is released.
    let state = unsafe { core::ptr::read_volatile(&raw const (*socket).state) };
    // SAFETY: released once, not used after.
    unsafe { bpf_sk_release(socket.cast()) };
    state != STATE_LISTEN
}

#[inline(never)]
pub fn udp_connection(ctx: *mut xdp_md, packet: &Packet) -> bool {
    let Some((tuple, length)) = lay_tuple(packet) else {
        return false;
    };
    // SAFETY: a tuple of the length given; the reference is released below on every path.
    let socket = unsafe { bpf_sk_lookup_udp(ctx.cast(), tuple, length, CURRENT_NAMESPACE, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and held until it is released.
    let held = unsafe { &*socket };
    let remote_port = held.dst_port as u16;
    let mut connected = held.state == STATE_ESTABLISHED
        && held.src_port == packet.destination_port as u32
        && remote_port == packet.source_port.to_be();
    // The look-up finds sockets bound to the wildcard too: the four values are compared here.
    if matches!(packet.family, Family::V4) {
        connected &= held.src_ip4 == packet.destination.v4().to_be();
        connected &= held.dst_ip4 == packet.source.v4().to_be();
    } else {
        let (local, remote) = (words(&packet.destination), words(&packet.source));
        connected &= held.src_ip6[0] == local[0] && held.src_ip6[1] == local[1];
        connected &= held.src_ip6[2] == local[2] && held.src_ip6[3] == local[3];
        connected &= held.dst_ip6[0] == remote[0] && held.dst_ip6[1] == remote[1];
        connected &= held.dst_ip6[2] == remote[2] && held.dst_ip6[3] == remote[3];
    }
    // SAFETY: released once, not used after.
    unsafe { bpf_sk_release(socket.cast()) };
    connected
}
