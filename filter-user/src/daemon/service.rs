//! What the service manager is told, where there is one: ready, reloading, stopping, and that the engine lives. It also
//! keeps the listeners' sockets, so that who connects while the daemon is restarted waits for the next one.
//!
//! Says what others have found; decides nothing, and never keeps the daemon from its work.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::api::Bound;
use crate::bindings::Bindings;
use crate::engine::Shared;
use crate::engine::snapshot::View as _;
use crate::records;

/// How often what is told is looked at, unless the watchdog wants it sooner.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A watchdog hears this often in the time that it grants.
const PINGS: u32 = 3;

/// Whose state is told of.
#[derive(Clone)]
pub(super) struct State {
    shared: Arc<Shared>,
    bindings: Bindings,
    log: records::Handle,
}

impl State {
    pub(super) fn of(shared: &Arc<Shared>, bindings: &Bindings, log: &records::Handle) -> Self {
        Self {
            shared: Arc::clone(shared),
            bindings: bindings.clone(),
            log: log.clone(),
        }
    }

    /// One line, as `systemctl status` shows it; the same faults as `/readyz`.
    fn sentence(&self) -> String {
        let snapshot = self.shared.snapshot();
        let attached = snapshot.interfaces.iter().filter(|interface| interface.attached);
        let names: Vec<&str> = attached.map(|interface| interface.name.as_str()).collect();
        let filtered = match names.as_slice() {
            [] => "filters no interface".to_owned(),
            names => format!("filters {}", names.join(", ")),
        };
        let others = [self.bindings.not_ready(), self.log.figures.failing()];
        match [&snapshot.not_ready[..], &others.concat()].concat().as_slice() {
            [] => filtered,
            faults => format!("not ready: {}; {filtered}", faults.join("; ")).replace('\n', " "),
        }
    }
}

/// By what name the service manager keeps the sockets.
const KEPT: &str = "listener";

/// Leaves the listeners with the service manager, in place of those that it has. It hands them to the next daemon, and
/// closes them when the service is stopped; their files are then stale, as after a kill.
pub(super) fn keep(bound: &mut [Bound]) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let descriptors: Vec<BorrowedFd<'_>> = bound.iter().map(Bound::descriptor).collect();
    let forgotten = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(KEPT)]);
    let kept = [NotifyState::FdStore, NotifyState::FdName(KEPT)];
    match forgotten.and_then(|()| sd_notify::notify_with_fds(&kept, &descriptors)) {
        Ok(()) => bound.iter_mut().for_each(Bound::outlives),
        Err(error) => tracing::warn!("the service manager does not keep the listeners: {error}"),
    }
}

/// Everything is in its place: the filter is in force as far as it can be, and the listeners answer.
pub(super) fn ready(state: &State) {
    tell(&[NotifyState::Ready, NotifyState::Status(&state.sentence())]);
}

pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("the service manager is not told of the reload: {error}"),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells of what changes, and of the engine's life while it looks after the filter; for ever.
pub(super) async fn follow(state: State) {
    let watchdog = sd_notify::watchdog_enabled();
    let interval = watchdog.map_or(LOOK_INTERVAL, |granted| LOOK_INTERVAL.min(granted / PINGS));
    let (mut looks, mut said) = (0, state.sentence());
    loop {
        tokio::time::sleep(interval).await;
        let (now, looked) = (state.sentence(), state.shared.looks());
        if now != said {
            tell(&[NotifyState::Status(&now)]);
            said = now;
        }
        // An engine that looks no more is none: the service manager starts another, and the filter stays.
        if watchdog.is_some() && looked != looks {
            tell(&[NotifyState::Watchdog]);
            looks = looked;
        }
    }
}

/// Where nobody asked to be told, this does nothing.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager cannot be told {state:?}: {error}");
    }
}
