//! Known ways past a port filter, tried live: first what Linux alone does with the frames, then that the filter lets
//! nothing of a stranger's through to it, and of a listed client's what SPEC 3 says.
//!
//! `stage` tries them, `sender` makes the frames, `host` says what has reached it; the other modules are the ways.

mod addresses;
mod fragments;
mod headers;
mod host;
mod icmp;
mod lengths;
mod link;
mod sender;
mod stage;
mod tunnels;
