//! Bindings that API servers push, against the real daemon and the real kernel: what an answer of the API says, the
//! next packet finds.

mod audit;
mod beside;
mod commands;
mod confirm;
mod crash;
mod crowded;
mod detached;
mod disk;
mod explain;
mod full;
mod lost;
mod older;
mod restart;
mod room;
mod single;
mod stage;
mod streams;
mod union;
mod unsynced;
