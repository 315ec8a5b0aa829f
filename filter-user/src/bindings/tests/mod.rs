//! The bindings from outside: requests in, answers, kernel, store and audit log out.

mod ahead;
mod clock;
mod crash;
mod cut;
mod detached;
mod fingerprints;
mod fixture;
mod kept;
mod large_syncs;
mod leases;
mod lines;
mod model_based;
mod others;
mod restores;
mod single;
mod spoilt;
mod standby;
mod streams;
mod tight;
mod turns;
