//! What changes around the policy in force: the wall clock, this host's addresses and its interfaces.
//!
//! The kernel tells of links, addresses and routes as they change; a look a second finds what it does not tell.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::error::FilterError;
use super::snapshot::View as _;
use super::under_way::Purpose;
use super::{Engine, clock};
use crate::kernel::events::Events;

/// How far the wall clock may drift from the monotonic one before ends are armed anew: less than the second between
/// two looks, far more than the two reads of the clocks can differ.
const CLOCK_JUMP_NANOS: u128 = 100_000_000;
/// Looks that nobody asked for take at most this share of the time, however many routes there are.
const LOOK_SHARE: u32 = 100;
/// Addresses named in one sentence.
const NAMED_MAX: usize = 8;

/// What woke the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    ByClock,
    ByEvent,
}

/// What the watch keeps between two looks.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Why the tables in force are not those of the host as it is.
    pub(super) behind: Option<String>,
    /// Which pins are not there, and cannot be made again.
    pub(super) unpinned: Option<String>,
    /// Before, the addresses are looked at only where the kernel tells of a change.
    addresses_due: Option<Instant>,
    /// The kernel has told of a change that was not looked at yet.
    pub(super) missed: bool,
}

impl Watch {
    /// Other tables are in force, of an earlier host.
    pub(super) fn look_anew(&mut self) {
        self.behind = None;
        self.addresses_due = None;
    }
}

/// Hears the kernel's events, as long as it can.
pub(super) struct Listener(Option<Events>);

impl Listener {
    pub(super) fn open() -> Self {
        let events = Events::listen();
        Self(events.inspect_err(Self::say).ok())
    }

    pub(super) async fn changed(&mut self) {
        if let Some(events) = &mut self.0 {
            match events.changed().await {
                Ok(()) => return,
                Err(error) => Self::say(&error),
            }
            self.0 = None;
        }
        std::future::pending().await
    }

    fn say(error: &std::io::Error) {
        tracing::warn!("the kernel's events cannot be heard ({error}): changes are found within a second");
    }
}

impl Engine {
    /// Looks at all of it, and makes the tables anew where something has changed.
    pub(super) async fn watch(&mut self, woken: Woken) {
        if woken == Woken::ByClock {
            self.look_after_pins();
        }
        if self.filter.kept {
            // Whatever has changed: only who reloads lets go of it.
            if self.filter.look(&self.policy).await.shown {
                self.publish(self.shared.snapshot().policy.clone());
            }
            return;
        }
        let started = Instant::now();
        let mut causes = Vec::new();
        let offset = clock::wall_offset();
        let jumped = offset.abs_diff(self.wall_offset) > CLOCK_JUMP_NANOS;
        let has_ends = self.policy.clients.iter().any(|client| client.expires.is_some());
        if jumped && has_ends {
            causes.push(Cause::Clock);
        }
        if woken == Woken::ByClock {
            self.shared.looks.fetch_add(1, Ordering::Relaxed);
            self.filter.check_clock();
            // What has ended has ended in the kernel; from here on its program need not ask any more.
            if let Err(error) = self.filter.settle_observed() {
                tracing::warn!("{error}");
            }
        }
        self.told.look(self.filter.fill());
        self.filter.settle();
        if self.under_way.is_some() {
            // Whatever has changed still differs when that is done.
            self.watch.missed |= woken == Woken::ByEvent;
            return;
        }
        if self.filter.in_part {
            causes.push(Cause::Part);
        }
        let look = self.filter.look(&self.policy).await;
        if look.moved {
            causes.push(Cause::Interfaces);
        }
        let due = self.watch.addresses_due.is_none_or(|due| due <= started);
        if due || woken == Woken::ByEvent || self.watch.behind.is_some() {
            causes.extend(self.addresses().await);
        }
        if causes.is_empty() && self.filter.standby_is_behind() {
            self.begin(Purpose::Standby(Vec::new(), None));
        } else if causes.is_empty() {
            let behind = self.watch.behind.take();
            if look.shown || behind.is_some() {
                self.publish(self.shared.snapshot().policy.clone());
            }
        } else {
            self.begin(Purpose::Around(causes, started));
        }
        if jumped && !has_ends {
            self.wall_offset = offset;
        }
    }

    async fn addresses(&mut self) -> Option<Cause> {
        let started = Instant::now();
        let moved = self.filter.host_moved(&self.policy).await;
        self.watch.addresses_due = Some(Instant::now() + started.elapsed() * LOOK_SHARE);
        match moved {
            Ok(missing) => missing.map(Cause::Addresses),
            Err(error) => {
                tracing::error!("{error}");
                None
            }
        }
    }

    /// The policy in force once more, for what has changed around it.
    pub(super) fn followed(&mut self, causes: &[Cause], started: Instant, wall_offset: i128) {
        let took = Duration::as_millis(&started.elapsed());
        for cause in causes {
            tracing::info!(milliseconds = took, "{}", cause.followed());
        }
        self.watch.behind = None;
        self.wall_offset = wall_offset;
        self.refresh_reader();
        self.publish(self.shared.snapshot().policy.clone());
    }

    /// It is tried again with every look, and told once.
    pub(super) fn not_followed(&mut self, causes: &[Cause], error: &FilterError) {
        let still: Vec<String> = causes.iter().map(Cause::otherwise).collect();
        let behind = format!("{}: the tables could not be made anew: {error}", still.join(", "));
        if self.watch.behind.as_ref() != Some(&behind) {
            tracing::error!("{behind}");
        }
        self.watch.behind = Some(behind);
        self.publish(self.shared.snapshot().policy.clone());
    }
}

/// Why the tables are made anew.
pub(super) enum Cause {
    /// A change that was refused could not be taken back.
    Part,
    Clock,
    Interfaces,
    /// With those that the tables do not know.
    Addresses(Vec<IpNet>),
}

impl Cause {
    fn followed(&self) -> &'static str {
        match self {
            Self::Part => "what was left of a refused change is gone",
            Self::Clock => "the wall clock was set (or the machine slept): ends are armed anew",
            Self::Interfaces => "the interfaces, or a bond's members, have changed: the filter follows",
            Self::Addresses(_) => "the addresses of this host have changed: \"host\" follows them",
        }
    }

    /// What is while it is not followed.
    fn otherwise(&self) -> String {
        match self {
            Self::Part => "a change that was refused is in force in part".to_owned(),
            Self::Clock => "ends go by the old clock".to_owned(),
            Self::Interfaces => "new interfaces are not filtered, or not counted".to_owned(),
            Self::Addresses(missing) if missing.is_empty() => {
                "\"host\" still means addresses that this host has no longer".to_owned()
            }
            Self::Addresses(missing) => {
                let named: Vec<String> = missing.iter().take(NAMED_MAX).map(shown).collect();
                let more = match missing.len().saturating_sub(NAMED_MAX) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!("\"host\" does not mean {}{more} yet", named.join(", "))
            }
        }
    }
}

fn shown(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_followed_are_named_up_to_a_bound() {
        let nets = |count: u8| (0..count).map(|last| IpNet::from(std::net::IpAddr::from([10, 0, 0, last])));
        let said = |nets: Vec<IpNet>| Cause::Addresses(nets).otherwise();
        assert_eq!(
            said(nets(2).collect()),
            "\"host\" does not mean 10.0.0.0, 10.0.0.1 yet"
        );
        assert!(said(nets(10).collect()).ends_with("10.0.0.7 and 2 more yet"));
        assert!(said(vec!["10.5.0.0/24".parse().unwrap()]).contains("10.5.0.0/24"));
        assert!(said(Vec::new()).contains("no longer"));
    }
}
