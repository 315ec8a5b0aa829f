//! What the kernel says by itself of this host's links, addresses and routes: that something has changed, not what.
//!
//! Who is woken looks for itself, so an event that is lost (a full socket says so) costs nothing but time.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use rtnetlink::packet_route::route::RouteType;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

/// Groups of linux/rtnetlink.h: links, then addresses and routes of both families.
const GROUPS: [i32; 5] = [
    libc::RTNLGRP_LINK as i32,
    libc::RTNLGRP_IPV4_IFADDR as i32,
    libc::RTNLGRP_IPV6_IFADDR as i32,
    libc::RTNLGRP_IPV4_ROUTE as i32,
    libc::RTNLGRP_IPV6_ROUTE as i32,
];
/// One change makes several events: they have come when none has for this long, or after `TOGETHER_MAX`.
const QUIET: Duration = Duration::from_millis(3);
const TOGETHER_MAX: Duration = Duration::from_millis(30);
/// `struct nlmsghdr`, with the type at 4; in `struct rtmsg` behind it the route's own is at 7.
const HEADER: usize = 16;
const ROUTE_TYPE: usize = HEADER + 7;

/// A socket that hears them.
pub struct Events {
    socket: AsyncFd<OwnedFd>,
    /// The first of those that nobody has been told of yet.
    since: Option<Instant>,
}

impl Events {
    /// Needs the runtime of the daemon.
    pub fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let route = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
        let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // SAFETY: the descriptor is the socket's own as long as that lives, and nothing takes it out.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self {
            socket: socket.map_err(|error| error.into_parts().1)?,
            since: None,
        })
    }

    /// Returns when something has changed. What a caller that gave up did not hear is told at the next call.
    pub async fn changed(&mut self) -> io::Result<()> {
        let since = match self.since {
            Some(since) => since,
            None => {
                while !self.heard().await? {}
                *self.since.insert(Instant::now())
            }
        };
        let end = since + TOGETHER_MAX;
        while let Ok(heard) = timeout_at(end.min(Instant::now() + QUIET), self.heard()).await {
            heard?;
        }
        self.since = None;
        Ok(())
    }

    /// Takes one event; whether it is of interest.
    async fn heard(&self) -> io::Result<bool> {
        // More of a message is not looked at.
        let mut buffer = [0; ROUTE_TYPE + 1];
        let read = |socket: &OwnedFd| {
            let read = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
            read.map_err(io::Error::from)
        };
        match self.socket.async_io(Interest::READABLE, read).await {
            Ok(length) => Ok(matters(&buffer[..length])),
            // Events were lost: there were some.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// All but routes that do not end at this host: a router's tables never rest.
fn matters(message: &[u8]) -> bool {
    let kind = message
        .get(4..6)
        .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let is_route = kind == Some(libc::RTM_NEWROUTE) || kind == Some(libc::RTM_DELROUTE);
    let route = message.get(ROUTE_TYPE).map(|kind| RouteType::from(*kind));
    !is_route || route.is_none_or(|route| super::addresses::HERE.contains(&route))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_lead_elsewhere_are_not_heard() {
        let message = |kind: u16, route: u8| {
            let mut message = vec![0; ROUTE_TYPE + 1];
            message[4..6].copy_from_slice(&kind.to_ne_bytes());
            message[ROUTE_TYPE] = route;
            message
        };
        let (unicast, local) = (1, 2);
        assert!(matters(&message(libc::RTM_NEWROUTE, local)));
        assert!(matters(&message(libc::RTM_DELROUTE, local)));
        assert!(!matters(&message(libc::RTM_NEWROUTE, unicast)));
        assert!(matters(&message(libc::RTM_NEWADDR, unicast)));
        assert!(matters(&message(libc::RTM_NEWLINK, unicast)));
        // What cannot be told is looked at.
        assert!(matters(&[]));
    }
}
