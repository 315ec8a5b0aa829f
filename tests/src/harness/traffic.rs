//! Who sends while something else happens to the filter, and what must have become of it.
//!
//! The policy has a service `api` at its port for UDP, which the listed client may reach and the stranger may not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::site::{LISTED, SERVER, STRANGER, Site};
use super::stream::{Pace, Sender, Sink};
use filter_common::verdict::{Reason, Verdict};

/// Of each of the two.
const PACKETS_PER_SECOND: u32 = 500;
/// Packets on their way at most: what a wire or a socket has no room for is no verdict.
const WINDOW: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(20);

/// The listed client and the stranger on the wire that stays; a receiver that knows nothing of the filter.
pub struct Traffic {
    /// Set when it is enough.
    pub over: AtomicBool,
    /// Held while the wire is down.
    pub wire: Mutex<()>,
    pub sink: Sink,
}

/// How many packets of each.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub listed: u64,
    pub strangers: u64,
}

impl Traffic {
    pub const PORT: u16 = 9000;

    pub fn open(site: &Site) -> Self {
        let anywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), Self::PORT);
        Self {
            over: AtomicBool::new(false),
            wire: Mutex::new(()),
            sink: Sink::open(&site.server, anywhere),
        }
    }

    /// Sends until it is over.
    pub fn run(&self, site: &Site) -> Sent {
        let to = SocketAddr::new(SERVER.v4.into(), Self::PORT);
        let mut listed = Sender::open(&site.outside, LISTED.v4.into(), to);
        let mut stranger = Sender::open(&site.outside, STRANGER.v4.into(), to);
        let mut pace = Pace::per_second(PACKETS_PER_SECOND);
        while !self.over.load(Ordering::Relaxed) {
            {
                let _wire = self.wire.lock().expect("nobody panics with the wire");
                listed.send();
                stranger.send();
            }
            pace.wait();
            let deadline = Instant::now() + PATIENCE;
            while listed.sent() - self.sink.count(LISTED.v4.into()) > WINDOW {
                assert!(
                    Instant::now() < deadline,
                    "more than {WINDOW} of the listed client's packets are lost"
                );
                pace.wait();
            }
        }
        Sent {
            listed: listed.sent(),
            strangers: stranger.sent(),
        }
    }

    /// The same, and the filter's own counters say so.
    pub fn assert_none_misjudged(&self, site: &Site, sent: &Sent) {
        self.assert_all_judged(sent);
        let counts = site.counters();
        let dropped = counts.packets("api", Verdict::Drop, Reason::Unlisted);
        // On other interfaces a stranger knocks as well.
        assert!(dropped >= sent.strangers, "{counts:?}");
        assert_eq!(counts.packets("", Verdict::Drop, Reason::Internal), 0);
    }

    /// All of the client's have arrived, each once, and none of the stranger's.
    pub fn assert_all_judged(&self, sent: &Sent) {
        let (client, stranger): (IpAddr, IpAddr) = (LISTED.v4.into(), STRANGER.v4.into());
        let started = Instant::now();
        while self.sink.count(client) < sent.listed && started.elapsed() < PATIENCE / 4 {
            std::thread::yield_now();
        }
        let numbers = self.sink.numbers(client);
        let missing: Vec<u64> = (0..sent.listed)
            .filter(|number| numbers.binary_search(number).is_err())
            .collect();
        assert!(missing.is_empty(), "lost of {}: {missing:?}", sent.listed);
        assert_eq!(numbers.len() as u64, sent.listed, "none arrives twice");
        assert_eq!(self.sink.count(stranger), 0, "a stranger's packets passed");
    }
}
