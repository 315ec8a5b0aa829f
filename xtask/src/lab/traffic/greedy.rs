//! The greedy client: listed, but floods with far more datagrams than its limit lets through.

use std::{sync::Arc, thread};

use anyhow::Result;

use super::{Counter, Report, Stop, flood, lost_on_the_cable, report_while};
use crate::lab::names::{EVENTS_PORT, GREEDY_SENDS_PER_SECOND};

#[derive(Default)]
struct Numbers {
    sent: Counter,
    answered: Counter,
}

pub(super) fn play(stop: &Stop) -> Result<()> {
    let numbers = Arc::new(Numbers::default());
    let work = {
        let (stop, numbers) = (stop.clone(), Arc::clone(&numbers));
        thread::spawn(move || {
            let flooded = flood(
                GREEDY_SENDS_PER_SECOND,
                EVENTS_PORT,
                &stop,
                &numbers.sent,
                &numbers.answered,
            );
            if let Err(error) = flooded {
                eprintln!("{error:#}");
            }
        })
    };
    report_while(&[work], &|| {
        Report::of([
            ("sent", numbers.sent.value()),
            ("answered", numbers.answered.value()),
            ("lost", lost_on_the_cable()),
        ])
    })
}
