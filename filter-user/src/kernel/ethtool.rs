//! What ethtool(8) asks of a driver: its name, and whether it takes VLAN tags out of the frames it receives.
//!
//! By ioctl, which every driver answers and which needs no rights.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;

/// Commands of linux/ethtool.h.
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`.
const FLAG_RX_VLAN: u32 = 1 << 8;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    rest: [u8; 32 * 4 + 12 + 4 * 5],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// The driver's name.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut asked = Driver {
        command: GET_DRIVER,
        name: [0; 32],
        rest: [0; 160],
    };
    ask(interface, std::ptr::from_mut(&mut asked).cast())?;
    let name = asked.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Whether VLAN tags are taken out of frames before anybody sees them.
pub fn strips_tags(interface: &str) -> io::Result<bool> {
    let mut asked = Value {
        command: GET_FLAGS,
        data: 0,
    };
    ask(interface, std::ptr::from_mut(&mut asked).cast())?;
    Ok(asked.data & FLAG_RX_VLAN != 0)
}

/// `data` is what the command in it says, whole and ours to be written.
fn ask(interface: &str, data: *mut libc::c_char) -> io::Result<()> {
    // Any socket leads to the devices of its namespace.
    let socket = UnixDatagram::unbound()?;
    // SAFETY: plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let places = request.ifr_name.iter_mut();
    // The last place stays zero.
    for (place, byte) in places.zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = data;
    // SAFETY: a request of this command's shape, whose data is as large as the command in it says.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_is_told_where_there_is_one_and_what_is_missing_is_an_error() {
        // The loopback has no driver in all kernels: that is an answer as well.
        if let Err(error) = strips_tags("lo") {
            assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
        }
        let error = driver("none-such0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
