//! A packet's cost live: frames out of one veth into another, whose filter runs inside the sender's thread.

mod ground;
pub(crate) mod peers;

use anyhow::{Result, ensure};
use filter_common::account;

use crate::figures::{Live, Spread, Traffic};
use crate::population::Population;
use crate::progress::Progress;
use crate::selection::Kind;
use crate::{Effort, drive};
use ground::{Ground, Sender};
use peers::{AtWork, Peer};

const SERVICE_NUMBER: u32 = 0;

/// Every peer with so many /32s, each in turn.
pub(crate) fn run(object: &[u8], sizes: &[usize], effort: Effort, progress: &Progress) -> Result<Vec<Live>> {
    let mut live = Vec::new();
    for size in sizes {
        live.extend(at(object, *size, effort, progress)?);
    }
    Ok(live)
}

fn at(object: &[u8], size: usize, effort: Effort, progress: &Progress) -> Result<Vec<Live>> {
    let what = format!("live at {}", crate::short(size));
    progress.step(&format!("{what}: making the population"));
    let population = Population::new(Kind::HostsV4, size);
    let mut ground = Ground::new();
    let mut working = Vec::new();
    for peer in Peer::ALL {
        progress.step(&format!("{what}: setting up {}", peer.name()));
        let pair = ground.pair()?;
        working.push(AtWork::start(peer, pair, &population.sources, object)?);
    }
    let pairs: Vec<_> = working.iter().map(|working| &working.pair).collect();
    let open = ground::open(&ground, &pairs, object)?;
    let (hits, strangers) = (population.hits(), population.strangers());
    let measured = ground.outside.inside(|| -> Result<_> {
        drive::stay_on_one_cpu()?;
        let mut senders = [Sender::new(object, &hits)?, Sender::new(object, &strangers)?];
        rounds(&working, &mut senders, effort, |round| {
            progress.step(&format!("{what}: round {round} of {}", effort.rounds));
        })
    });
    drop(open);
    Ok(measured?
        .into_iter()
        .map(|(peer, traffic, ns)| Live {
            sources: size,
            peer,
            traffic,
            ns,
        })
        .collect())
}

/// All peers and both kinds of traffic in turn; the first round warms up.
fn rounds(
    working: &[AtWork],
    senders: &mut [Sender; 2],
    effort: Effort,
    say: impl Fn(usize),
) -> Result<Vec<(Peer, Traffic, Spread)>> {
    let cells: Vec<(&AtWork, Traffic)> = working
        .iter()
        .flat_map(|working| Traffic::BOTH.map(|traffic| (working, traffic)))
        .filter(|(working, traffic)| working.peer.meets(*traffic))
        .collect();
    let mut values = vec![Vec::new(); cells.len()];
    for round in 0..=effort.rounds {
        say(round);
        for ((working, traffic), values) in cells.iter().zip(&mut values) {
            let sender = &mut senders[usize::from(*traffic == Traffic::Stranger)];
            let (ns, judged) = one(working, *traffic, sender, effort.packets)?;
            if round > 0 {
                ensure!(
                    judged.is_none_or(|judged| judged == u64::from(effort.packets)),
                    "{}: of {} packets {judged:?} were judged as they should be",
                    working.peer.name(),
                    effort.packets
                );
                values.push(ns);
            }
        }
    }
    let spreads = values.into_iter().map(Spread::of);
    let cells = cells.iter().map(|(working, traffic)| (working.peer, *traffic));
    Ok(cells
        .zip(spreads)
        .map(|((peer, traffic), ns)| (peer, traffic, ns))
        .collect())
}

/// The cost, and how many packets Keyfence judged as it should: while it warms up, limits are not yet exhausted.
fn one(working: &AtWork, traffic: Traffic, sender: &mut Sender, packets: u32) -> Result<(f64, Option<u64>)> {
    let judged = || -> Result<Option<u64>> {
        match (&working.keyfence, working.expected(traffic)) {
            (Some(loaded), Some((verdict, reason))) => {
                let index = account::index(verdict, reason, SERVICE_NUMBER);
                Ok(Some(loaded.state.count(index)?.packets))
            }
            _ => Ok(None),
        }
    };
    let before = (working.pair.received()?, judged()?);
    let ns = sender.send(&working.pair, packets)?;
    let received = working.pair.received()? - before.0;
    ensure!(
        received == u64::from(packets),
        "{}: {packets} frames were sent and {received} received: the figure would not be a packet's",
        working.peer.name()
    );
    let judged = judged()?.zip(before.1).map(|(after, before)| after - before);
    Ok((ns, judged))
}
