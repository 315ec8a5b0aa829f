//! Who sends meanwhile, and what must have become of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{LISTED, Pace, SERVER, STRANGER, Sender, Sink, Site};

pub(crate) const PORT: u16 = 9000;
/// Of each of the two.
const PACKETS_PER_SECOND: u32 = 500;
/// Packets on their way at most: what a wire or a socket has no room for is no verdict.
const WINDOW: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(20);

/// The listed client and the stranger on the wire that stays; a receiver that knows nothing of the filter.
pub(crate) struct Traffic {
    pub(crate) over: AtomicBool,
    /// Held while the wire is down.
    pub(crate) wire: Mutex<()>,
    pub(crate) sink: Sink,
}

pub(crate) struct Sent {
    pub(crate) listed: u64,
    pub(crate) strangers: u64,
}

impl Traffic {
    pub(crate) fn open(site: &Site) -> Self {
        let anywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        Self {
            over: AtomicBool::new(false),
            wire: Mutex::new(()),
            sink: Sink::open(&site.server, anywhere),
        }
    }

    pub(crate) fn run(&self, site: &Site) -> Sent {
        let to = SocketAddr::new(SERVER.v4.into(), PORT);
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

    pub(crate) fn assert_none_misjudged(&self, site: &Site, sent: &Sent) {
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
        let counts = site.counters();
        let dropped = counts.packets("api", Verdict::Drop, Reason::Unlisted);
        // On other interfaces a stranger knocks as well.
        assert!(dropped >= sent.strangers, "{counts:?}");
        assert_eq!(counts.packets("", Verdict::Drop, Reason::Internal), 0);
    }
}
