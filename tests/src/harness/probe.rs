//! The short question whether a filter judges: one datagram of the listed client's arrives, a stranger's does not.

use std::net::{IpAddr, SocketAddr};

use super::site::{LISTED, SERVER, STRANGER, Site};
use super::stream::{Sender, Sink};
use super::wait::until;

/// Its port is a service's that the listed client may reach.
pub struct Probe {
    sink: Sink,
    listed: Sender,
    stranger: Sender,
}

const LISTED4: IpAddr = IpAddr::V4(LISTED.v4);
const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);

impl Probe {
    pub const PORT: u16 = 9000;

    /// The least policy for it.
    pub const ENTRIES: &str = "[[service]]\nname = \"probe\"\nprotocol = \"udp\"\nports = [9000]\n\
                               [[client]]\nname = \"listed\"\nsources = [\"10.77.0.2\"]\nservices = [\"probe\"]\n";

    pub fn open(site: &Site) -> Self {
        let to = SocketAddr::new(SERVER.v4.into(), Self::PORT);
        Self {
            sink: Sink::open(&site.server, to),
            listed: Sender::open(&site.outside, LISTED4, to),
            stranger: Sender::open(&site.outside, STRANGER4, to),
        }
    }

    /// The listed one's datagrams arrive, and the stranger's, sent before, do not.
    pub fn assert_filtered(&mut self) {
        let before = self.sink.count(STRANGER4);
        self.round();
        assert_eq!(self.sink.count(STRANGER4), before, "a stranger's packet passed");
    }

    /// Everybody's arrive.
    pub fn assert_open(&mut self) {
        let before = self.sink.count(STRANGER4);
        self.round();
        until("the stranger's packet arrives", || {
            (self.sink.count(STRANGER4) > before).then_some(())
        });
    }

    /// One of the listed client's, whatever becomes of it.
    pub fn send_listed(&mut self) {
        self.listed.send();
    }

    /// One of each, the listed one's last: what came before it on this wire has been judged when it arrives.
    fn round(&mut self) {
        let before = self.sink.count(LISTED4);
        self.stranger.send();
        self.listed.send();
        until("the listed client's packet arrives", || {
            (self.sink.count(LISTED4) > before).then_some(())
        });
    }
}
