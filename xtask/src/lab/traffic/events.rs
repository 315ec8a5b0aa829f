//! The server of datagrams: answers each that reaches it, so that the sender sees what was let through.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Counter, LAST_ANSWERS, RECEIVE_BYTES, Report, Stop, report_while};
use crate::lab::names::{EVENTS_PORT, SERVER_V4, SERVER_V6};

pub(super) fn play(stop: &Stop) -> Result<()> {
    let received = Arc::new(Counter::default());
    let mut working = Vec::new();
    for server in [SERVER_V4, SERVER_V6] {
        let address = SocketAddr::new(server.parse::<IpAddr>()?, EVENTS_PORT);
        let socket = UdpSocket::bind(address).with_context(|| format!("cannot serve at {address}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES)?;
        // It looks up from its wait now and then, to see whether it is time to end.
        socket.set_read_timeout(Some(LAST_ANSWERS))?;
        let (stop, received) = (stop.clone(), Arc::clone(&received));
        working.push(thread::spawn(move || serve(&socket, &stop, &received)));
    }
    report_while(&working, &|| Report::of([("received", received.value())]))
}

/// Ends once nothing came for a while after it was told to.
fn serve(socket: &UdpSocket, stop: &Stop, received: &Counter) {
    let mut event = [0; 2048];
    loop {
        match socket.recv_from(&mut event) {
            Ok((_, sender)) => {
                received.add(1);
                // The sender counts its answers: one that is lost shows there.
                _ = socket.send_to(b"ok", sender);
            }
            Err(_) if stop.is_set() => return,
            Err(_) => {}
        }
    }
}
