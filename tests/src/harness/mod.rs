//! The harness of the live tests: a protected host and its outside, the daemon, traffic, and readers of what came
//! of it that share nothing with the daemon.
//!
//! All of it is guards: they go with the test, however it ends, and what a killed run left goes with the next.

mod bpffs;
mod counters;
mod daemon;
pub mod drops;
pub mod frames;
mod http;
mod listeners;
mod machine;
mod namespace;
mod nginx;
mod policy;
mod probe;
mod program;
mod prometheus;
mod raw;
mod script;
mod site;
mod stream;
mod terminal;
mod tiny;
mod traffic;
mod wait;
mod witness;

pub use bpffs::BpfFs;
pub use counters::{Counts, Label, Tally};
pub use daemon::{Daemon, Ended};
pub use http::{Answer, connect, fetch, get};
pub use listeners::Listeners;
pub use machine::{Files, Machine};
pub use namespace::Namespace;
pub use nginx::Nginx;
pub use policy::{Attach, Policy};
pub use probe::Probe;
pub use program::{keyfence, keyfence_path, next_path, output, run, schemathesis, static_path, system};
pub use prometheus::{METRICS, Prometheus, configuration};
pub use raw::{Relay, Wire};
pub use script::Script;
pub use site::{GREEDY, INSIDE, INSIDE_MAC, LISTED, OUTSIDE, OUTSIDE_MAC, Party, SERVER, STRANGER, Site};
pub use stream::{Pace, Sender, Sink};
pub use terminal::Terminal;
pub use tiny::Tiny;
pub use traffic::{Sent, Traffic};
pub use wait::{PATIENCE, StopOnDrop, until};
