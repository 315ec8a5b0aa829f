//! HTTP on the policy's listeners: who is asking, what may be asked where, and the answers.
//!
//! `bind` opens the listeners, `serve` accepts until it is told to stop and then drains. What a listener answers
//! follows from its roles and the table in `routes`. It decides nothing about packets or policy: it shows the
//! engine's `View` and hands commands to it.

mod answers;
mod around;
mod authorize;
mod bind;
mod body;
mod capture;
mod connection;
mod drops;
mod error;
mod explain;
#[cfg(test)]
mod fixture;
mod head;
mod host;
mod openapi;
mod operate;
mod peer;
mod policy;
mod problem;
mod prose;
mod publisher;
mod query;
mod rates;
mod reference;
mod reload;
mod routes;
mod single;
mod slots;
mod stall;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_bind;
#[cfg(test)]
mod tests_bindings;
#[cfg(test)]
mod tests_bounds;
#[cfg(test)]
mod tests_callers;
#[cfg(test)]
mod tests_capture;
#[cfg(test)]
mod tests_codes;
#[cfg(test)]
mod tests_fuzz;
#[cfg(test)]
mod tests_gateways;
#[cfg(test)]
mod tests_openapi;
#[cfg(test)]
mod tests_operate;
#[cfg(test)]
mod tests_policy;
#[cfg(test)]
mod tests_quick;
#[cfg(test)]
mod tests_readers;
#[cfg(test)]
mod tests_streams;
#[cfg(test)]
mod tests_trial;
mod top;
mod who;
mod why;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[cfg(test)]
pub(crate) use bind::bind;
pub use bind::{Bound, bind_each};
pub use error::{Fault, ListenError};
pub use peer::{Operators, Peer};
pub use problem::{Code, Problem};
pub use reference::reference;

use crate::bindings::Bindings;
use crate::bindings::seam::Grants;
use crate::engine::snapshot::View;
use crate::metrics::Metrics;
use crate::policies::Policies;
use crate::policy::Policy;
use crate::policy::model::Role;
use crate::records;
use crate::records::capture::Captures;
use authorize::Gateways;
use publisher::Directory;
use rates::Rates;

/// What a listener takes at most. The defaults are those of the daemon; tests use smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections of one listener. No user or address has more than twice as many as are left free; the surplus is
    /// answered 503, closed and counted.
    pub connections_max: usize,
    /// From the first byte that could be read until the header is complete; also the idle time of a connection.
    pub header_timeout: Duration,
    /// Until an answer is ready.
    pub request_timeout: Duration,
    /// The same for what an operator asks of the engine, which may compile a policy of millions of sources.
    pub operate_timeout: Duration,
    /// How long a reader may take nothing of its answer.
    pub stall_timeout: Duration,
    /// How long requests in flight may take when the daemon stops.
    pub drain_timeout: Duration,
    /// How long a sender may take for one line of a stream, or for the whole body of a single binding.
    pub line_timeout: Duration,
    /// Of a request; streams have bounds of their own.
    pub body_bytes_max: u64,
    /// Of a request that brings a whole policy; one is read and judged at a time.
    pub policy_bytes_max: u64,
    /// Reads of the kernel's counters at one time, over all listeners; further ones wait for their turn.
    pub reads_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections_max: 2_048,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            operate_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            line_timeout: Duration::from_secs(10),
            body_bytes_max: 64 << 10,
            policy_bytes_max: 256 << 20,
            reads_max: 4,
        }
    }
}

/// The bindings and who holds their grants. Without it, what needs it is answered 503 `starting`.
pub struct Backing {
    pub bindings: Bindings,
    pub grants: Arc<dyn Grants>,
    gateways: Gateways,
    /// The drop log; `None` where nobody keeps one.
    pub records: Option<records::Handle>,
    /// Who starts captures; `None` where there is no filter.
    pub captures: Option<Arc<Captures>>,
    /// Who changes policies; `None` where there is no filter.
    pub policies: Option<Policies>,
}

impl Backing {
    /// `policy` is the file's: `[credentials]` and `[authorize]` are read at start only.
    pub fn new(bindings: Bindings, grants: Arc<dyn Grants>, policy: &Policy) -> Backing {
        Backing {
            bindings,
            grants,
            gateways: Gateways::new(&policy.credentials, &policy.authorize),
            records: None,
            captures: None,
            policies: None,
        }
    }
}

/// What all listeners share.
pub(crate) struct Context {
    view: Arc<dyn View>,
    backing: Option<Backing>,
    metrics: Arc<Metrics>,
    /// `[daemon] operators`.
    operators: Vec<String>,
    /// Who they were at the start, for their places: nothing there may wait for the host's databases.
    operator_ids: Operators,
    directory: Directory,
    rates: Rates,
    bounds: Bounds,
    reads: Arc<Semaphore>,
    /// Policies that are on their way in, each as large as all sources.
    policy_bodies: Semaphore,
    started: Instant,
    stopping: watch::Receiver<bool>,
}

/// Answers on all of `bound` until `shutdown` holds true (or its sender is gone), then drains: nothing is accepted
/// any more, the sockets' files are removed, and what is in flight has `drain_timeout` to end.
pub async fn serve(
    bound: Vec<Bound>,
    view: Arc<dyn View>,
    backing: Option<Backing>,
    metrics: Arc<Metrics>,
    operators: Vec<String>,
    bounds: Bounds,
    shutdown: watch::Receiver<bool>,
) {
    if let Some(backing) = &backing {
        let (_, policy) = backing.grants.policy();
        policy
            .services
            .iter()
            .for_each(|service| metrics.authorizes(&service.name));
    }
    let named = operators.clone();
    // The host's databases may be on a network.
    let operator_ids = tokio::task::spawn_blocking(move || Operators::of(&named)).await;
    let context = Arc::new(Context {
        view,
        backing,
        metrics,
        operators,
        operator_ids: operator_ids.unwrap_or_default(),
        directory: Directory::default(),
        rates: Rates::default(),
        bounds,
        reads: Arc::new(Semaphore::new(bounds.reads_max)),
        policy_bodies: Semaphore::new(1),
        started: Instant::now(),
        stopping: shutdown.clone(),
    });
    let (asked, others): (Vec<_>, Vec<_>) = bound
        .into_iter()
        .partition(|bound| bound.roles.contains(&Role::Authorize));
    let asked = on_a_thread(asked, Arc::clone(&context), shutdown.clone());
    tokio::join!(asked, accept_each(others, context, shutdown, None));
}

/// Gateways wait with a request of somebody's for each answer: what they ask is answered on a thread of its own, beside
/// whatever the runtime's threads are at.
async fn on_a_thread(bound: Vec<Bound>, context: Arc<Context>, shutdown: watch::Receiver<bool>) {
    if bound.is_empty() {
        return;
    }
    let left = Arc::new(Mutex::new(bound));
    let take =
        |left: &Mutex<Vec<Bound>>| std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
    let elsewhere = tokio::runtime::Handle::current();
    let (ended, end) = oneshot::channel();
    let serve = {
        let (left, context, shutdown) = (Arc::clone(&left), Arc::clone(&context), shutdown.clone());
        move || {
            crate::sys::run_soon();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(accept_each(take(&left), context, shutdown, Some(elsewhere)));
            std::io::Result::Ok(())
        }
    };
    let thread = std::thread::Builder::new().name("authorize".to_owned());
    let started = thread.spawn(move || drop(ended.send(serve())));
    let result = match started {
        Ok(_) => end.await.unwrap_or(Ok(())),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::warn!("authorize has no thread of its own and may be slow: {error}");
        accept_each(take(&left), context, shutdown, None).await;
    }
}

async fn accept_each(
    bound: Vec<Bound>,
    context: Arc<Context>,
    shutdown: watch::Receiver<bool>,
    elsewhere: Option<tokio::runtime::Handle>,
) {
    let mut listeners = JoinSet::new();
    for bound in bound {
        listeners.spawn(connection::accept_all(
            bound,
            Arc::clone(&context),
            shutdown.clone(),
            elsewhere.clone(),
        ));
    }
    while let Some(ended) = listeners.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a listener ended by a fault of keyfence; please report it");
        }
    }
}
