//! The stranger: tries to connect to the web server and to SSH, and floods the other service with datagrams.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::Result;

use super::{Counter, PATIENCE, Report, Stop, flood, lost_on_the_cable, report_while};
use crate::lab::names::{EVENTS_PORT, SERVER_V4, SERVER_V6, SSH_PORT, STRANGER_SENDS_PER_SECOND, WEB_PORT};

#[derive(Default)]
struct Numbers {
    connects: Counter,
    timed_out: Counter,
    connected: Counter,
    sent: Counter,
    answered: Counter,
}

pub(super) fn play(stop: &Stop) -> Result<()> {
    let numbers = Arc::new(Numbers::default());
    let goals = [
        SocketAddr::new(SERVER_V4.parse()?, WEB_PORT),
        SocketAddr::new(SERVER_V6.parse()?, WEB_PORT),
        SocketAddr::new(SERVER_V4.parse()?, SSH_PORT),
    ];
    let mut working: Vec<thread::JoinHandle<()>> = goals
        .into_iter()
        .map(|goal| {
            let (stop, numbers) = (stop.clone(), Arc::clone(&numbers));
            thread::spawn(move || knock(goal, &stop, &numbers))
        })
        .collect();
    working.push({
        let (stop, numbers) = (stop.clone(), Arc::clone(&numbers));
        thread::spawn(move || {
            let flooded = flood(
                STRANGER_SENDS_PER_SECOND,
                EVENTS_PORT,
                &stop,
                &numbers.sent,
                &numbers.answered,
            );
            if let Err(error) = flooded {
                eprintln!("{error:#}");
            }
        })
    });
    report_while(&working, &|| {
        Report::of([
            ("connects", numbers.connects.value()),
            ("timed_out", numbers.timed_out.value()),
            ("connected", numbers.connected.value()),
            ("sent", numbers.sent.value()),
            ("answered", numbers.answered.value()),
            ("lost", lost_on_the_cable()),
        ])
    })
}

/// Tries one connect after the other, each counted when it is decided.
fn knock(goal: SocketAddr, stop: &Stop, numbers: &Numbers) {
    while !stop.is_set() {
        let started = Instant::now();
        let outcome = TcpStream::connect_timeout(&goal, PATIENCE);
        numbers.connects.add(1);
        match outcome {
            Ok(_) => numbers.connected.add(1),
            Err(error) if error.kind() == ErrorKind::TimedOut => numbers.timed_out.add(1),
            // Refused, or no way: an answer of some kind, and no time-out.
            Err(_) => {}
        }
        while !stop.is_set() && started.elapsed() < PATIENCE {
            thread::sleep(super::TICK * 10);
        }
    }
}
