//! Frames sent one by one, with what is expected of each.

use filter_common::verdict::{Reason, Verdict};

use super::counters::{Counts, Label};
use super::daemon::Daemon;
use super::frames::{ETHERNET_BYTES, IPV4, IPV6};
use super::raw::Wire;
use super::site::Site;
use super::wait::until;

/// What was sent, and the counters that must come of it.
pub struct Script {
    wire: Wire,
    pub expected: Counts,
}

impl Script {
    pub fn on(site: &Site) -> Self {
        Self {
            wire: Wire::open(site),
            expected: Counts::default(),
        }
    }

    /// Sends a frame some times, all judged alike; the bytes of an IP packet are counted without its frame.
    pub fn send(&mut self, times: u64, frame: &[u8], service: &str, verdict: Verdict, reason: Reason) {
        let bytes = match u16::from_be_bytes([frame[12], frame[13]]) {
            IPV4 | IPV6 if reason != Reason::Malformed => frame.len() - ETHERNET_BYTES,
            _ => frame.len(),
        };
        self.send_counted(times, frame, bytes, Label::new(service, verdict, reason));
    }

    /// The same for a frame whose bytes that count are not all behind its Ethernet header.
    pub fn send_counted(&mut self, times: u64, frame: &[u8], bytes: usize, label: Label) {
        for _ in 0..times {
            self.wire.send(frame);
        }
        self.expected.add(label, times, times * bytes as u64);
    }

    /// Waits until the filter has judged as many packets as were sent.
    pub fn settle(&self, daemon: &Daemon) {
        until("all frames are judged", || {
            let page = daemon.scrape();
            let counts = page
                .lines()
                .filter(|line| line.starts_with("keyfence_packets_total{"));
            let values = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            (values.sum::<f64>() >= self.expected.total() as f64).then_some(())
        });
    }
}
