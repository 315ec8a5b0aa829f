//! Connections: accepted up to a bound, cut when they are too slow, drained at the end.
//!
//! One task a connection, all owned by their listener's task. Where gateways may ask, a connection begins on the thread
//! of authorize (`authorize::quick`), and goes over to the runtime with its first other request. `head` looks at what is asked before hyper does.
//! Slowness is bounded at each step: the header by hyper's timer, the answer by `answers`, the reader by `stall`.

use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service;

use super::authorize::quick::{self, End};
use super::bind::{Accepting, Bound, Socket};
use super::head::{HEAD_BYTES_MAX, Refusals, Screened};
use super::peer::Peer;
use super::problem::{Code, Problem};
use super::slots::{Slot, Slots, Source};
use super::stall::Stalling;
use super::who::{Listening, Who};
use super::{Context, authorize, routes};
use crate::metrics::ROUTE_OTHER;
use crate::policy::model::Role;

/// How long a daemon that stops waits for the first request of who has connected: it is on its way, as a rule.
pub(super) const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// After an accept that failed: the usual cause, no file descriptors left, needs time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A listener says so at most once in this time.
const ACCEPT_COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A stream that can go on on another runtime.
trait Movable: AsyncRead + AsyncWrite + Unpin + Send + Sized + 'static {
    type Still: Send;
    fn leave(self) -> io::Result<Self::Still>;
    fn arrive(still: Self::Still) -> io::Result<Self>;
}

macro_rules! movable {
    ($stream:ty, $still:ty) => {
        impl Movable for $stream {
            type Still = $still;

            fn leave(self) -> io::Result<$still> {
                self.into_std()
            }

            fn arrive(still: $still) -> io::Result<$stream> {
                <$stream>::from_std(still)
            }
        }
    };
}
movable!(UnixStream, std::os::unix::net::UnixStream);
movable!(TcpStream, std::net::TcpStream);

/// A listener's whole life: accept, until told to stop; then drain. `elsewhere`: this is the thread of authorize, and
/// all else goes there.
pub(super) async fn accept_all(
    bound: Bound,
    context: Arc<Context>,
    mut shutdown: watch::Receiver<bool>,
    elsewhere: Option<Handle>,
) {
    let Bound {
        name,
        roles,
        assert,
        socket,
    } = bound;
    let listener = Arc::new(Listening {
        address: name.clone(),
        roles: roles.clone(),
        assert,
    });
    let bounds = context.bounds;
    let router = routes::router(&roles, &context);
    let slots = Slots::new(bounds.connections_max, matches!(socket, Socket::Unix { .. }));
    let socket = match socket.accepting() {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(listener = name, %error, "cannot be served"),
    };
    let mut connections = JoinSet::new();
    let mut complained: Option<Instant> = None;
    let stop = shutdown.clone();
    let mut stopping = pin!(stopped(&mut shutdown));
    loop {
        let accepted = tokio::select! {
            () = &mut stopping => break,
            accepted = accept(&socket) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, other)) => match slots.take(other.source, other.is_operator(&context)) {
                Some(slot) => {
                    let connection = Connection {
                        router: router.clone(),
                        who: other.on(&listener),
                        context: Arc::clone(&context),
                        shutdown: stop.clone(),
                        elsewhere: elsewhere.clone(),
                    };
                    connections.spawn(connection.run(stream, slot));
                }
                None => {
                    context.metrics.connection_refused();
                    refuse(stream);
                }
            },
            Err(error) => {
                if complained.is_none_or(|then| then.elapsed() >= ACCEPT_COMPLAINT_INTERVAL) {
                    complained = Some(Instant::now());
                    tracing::warn!(listener = name, %error, "a connection cannot be accepted");
                }
                tokio::select! { () = &mut stopping => break, () = sleep(ACCEPT_PAUSE) => {} }
            }
        }
    }
    // Before the wait: a successor may bind the path at once.
    drop(socket);
    drain(&name, connections, bounds.drain_timeout).await;
}

async fn drain(name: &str, mut connections: JoinSet<()>, patience: Duration) {
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(patience, all).await.is_err() {
        tracing::warn!(
            listener = name,
            connections = connections.len(),
            "cut at the end of the drain"
        );
        connections.shutdown().await;
    }
}

pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody is left who could say it.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// What the kernel tells of the other end.
struct Other {
    source: Source,
    peer: Peer,
    pid: Option<i32>,
    groups: Vec<u32>,
}

impl Other {
    fn unknown(source: Source) -> Other {
        Other {
            source,
            peer: Peer::Unknown,
            pid: None,
            groups: Vec::new(),
        }
    }

    fn is_operator(&self, context: &Context) -> bool {
        // Root, in the policy or not: it could end the daemon as well.
        self.peer.is_root() || context.operator_ids.have(self.peer, &self.groups)
    }

    fn on(self, listener: &Arc<Listening>) -> Arc<Who> {
        Arc::new(Who::new(Arc::clone(listener), self.peer, self.pid, self.groups))
    }
}

async fn accept(socket: &Accepting) -> io::Result<(Stream, Other)> {
    match socket {
        Accepting::Unix { listener, .. } => {
            let (stream, _) = listener.accept().await?;
            let other = match stream.peer_cred() {
                Ok(credentials) => {
                    let peer = Peer::Unix {
                        uid: credentials.uid(),
                        gid: credentials.gid(),
                    };
                    Other {
                        source: Source::of_peer(peer),
                        peer,
                        pid: credentials.pid(),
                        // Whose groups the kernel does not tell is in none.
                        groups: crate::sys::peer_groups(stream.as_fd()).unwrap_or_default(),
                    }
                }
                Err(_) => Other::unknown(Source::Unknown),
            };
            Ok((Stream::Unix(stream), other))
        }
        Accepting::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            // Answers are small and written whole: nothing is gained by holding them back.
            let _ = stream.set_nodelay(true);
            Ok((Stream::Tcp(stream), Other::unknown(Source::of_address(from.ip()))))
        }
    }
}

/// Tells a surplus connection why, if that can be had without waiting, and closes it.
fn refuse(stream: Stream) {
    let body = Problem::new(Code::Busy, "nothing was done; try again in a second").to_json();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // These sockets do not block: what does not fit at once is not said.
    let _ = match stream {
        Stream::Unix(stream) => stream
            .into_std()
            .and_then(|mut stream| stream.write(answer.as_bytes())),
        Stream::Tcp(stream) => stream
            .into_std()
            .and_then(|mut stream| stream.write(answer.as_bytes())),
    };
}

struct Connection {
    router: Router,
    who: Arc<Who>,
    context: Arc<Context>,
    shutdown: watch::Receiver<bool>,
    elsewhere: Option<Handle>,
}

impl Connection {
    async fn run(self, stream: Stream, slot: Slot) {
        match stream {
            Stream::Unix(stream) => self.begin(stream).await,
            Stream::Tcp(stream) => self.begin(stream).await,
        }
        drop(slot);
    }

    async fn begin<S: Movable>(self, mut stream: S) {
        let Some(elsewhere) = self.elsewhere.clone() else {
            return self.serve(stream, Vec::new()).await;
        };
        let End::Other(read) =
            quick::serve(&mut stream, &self.context, &self.who, &self.shutdown, &elsewhere).await
        else {
            return;
        };
        let peer = self.who.peer;
        let moved = stream.leave().map(|still| {
            elsewhere.spawn(async move {
                let stream = S::arrive(still)?;
                self.serve(stream, read).await;
                io::Result::Ok(())
            })
        });
        let ended = match moved {
            // Cut where this task is cut.
            Ok(task) => CutWithUs(task).await.unwrap_or(Ok(())),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(peer = peer.describe(), %error, "a connection could not go over to the runtime");
        }
    }

    /// `read` was read of it already.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S, read: Vec<u8>) {
        let (router, who, bounds) = (self.router, self.who, self.context.bounds);
        let peer = who.peer;
        let refusals = Arc::new(Refusals::default());
        let stream = Screened::new(
            Stalling::new(stream, bounds.stall_timeout),
            Arc::clone(&refusals),
            read,
        );
        let context = self.context;
        let asked = Arc::new(Notify::new());
        let first = Arc::clone(&asked);
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let (mut router, who) = (router.clone(), Arc::clone(&who));
            asked.notify_one();
            let refused = refusals.next();
            if let Some(problem) = &refused {
                let status = problem.code.status().as_u16();
                context
                    .metrics
                    .request_answered(ROUTE_OTHER, status, Duration::ZERO);
            }
            async move {
                if let Some(problem) = refused {
                    return Ok(refusal(&who, problem));
                }
                let is_gateways = request.uri().path().starts_with("/v1/authorize");
                let in_chunks = request.headers().contains_key(header::TRANSFER_ENCODING);
                let mut request: Request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(Arc::clone(&who));
                let mut response: Result<_, Infallible> = router.call(request).await;
                if is_gateways {
                    response = response.map(authorize::unanswered);
                }
                if let (Ok(response), true) = (&mut response, in_chunks) {
                    // Where such a body ends is not looked for: no head behind it would be looked at.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                response
            }
        });
        let mut connection = pin!(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.header_timeout)
                .max_buf_size(HEAD_BYTES_MAX)
                // Who has said all and closed that side waits for its answer still.
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            // hyper would close who has not asked yet, also where the question is here already.
            () = stopped(&mut self.shutdown) => tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                _ = timeout(FIRST_PATIENCE, first.notified()) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            },
        };
        if let Err(error) = ended {
            tracing::debug!(peer = peer.describe(), %error, "connection ended early");
        }
    }
}

/// A task that ends with whoever waits for it.
struct CutWithUs<T>(JoinHandle<T>);

impl<T> Future for CutWithUs<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for CutWithUs<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The answer to a head that was refused: of what path it was cannot be said.
fn refusal(who: &Who, problem: Problem) -> Response {
    let response = problem.into_response();
    match who.listener.roles.contains(&Role::Authorize) {
        true => authorize::unanswered(response),
        false => response,
    }
}
