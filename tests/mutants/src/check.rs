//! Judges every case on the host and holds verdict, reason, service, owner and every count to what the case says:
//! dry first, where nothing may change, then for good.

use filter_common::abi::EVERYTHING;
use filter_common::limit::Effect;
use filter_common::parse::Packet;
use filter_common::pipeline;
use filter_common::units::Nanos;
use filter_common::verdict::{NO_OWNER, Verdict};

use crate::cases::{Case, Group, Wanted};
use crate::compiler::host::HostTables;

/// How many frames were judged; or the first fault, in words.
pub fn all(groups: Vec<Group>) -> Result<u64, String> {
    let mut frames = 0;
    for Group {
        name,
        compiled,
        cases,
    } in groups
    {
        let tables = HostTables::new(compiled);
        let mut wanted = Counts::of(&tables);
        // One for all, as in the kernel: what an earlier frame left in it changes nothing.
        let mut packet = Packet::default();
        for case in &cases {
            for _ in 0..case.times {
                frames += 1;
                one(&tables, case, &mut packet).map_err(|fault| format!("{name}: {}: {fault}", case.name))?;
                wanted.add(case);
            }
        }
        // Once a group: the counters are many, and what a frame counts wrongly stays wrong.
        if Counts::of(&tables) != wanted {
            return Err(format!("{name}: not counted as it was judged"));
        }
    }
    Ok(frames)
}

fn one(tables: &HostTables, case: &Case, packet: &mut Packet) -> Result<(), String> {
    let mut judge = || judge(tables, &case.frame, packet);
    tables.now.set(Nanos(case.now));
    tables.effect.set(Effect::Dry);
    tables.is_reply.set(true);
    compare("with a connection", judge(), case.wanted_as_reply)?;
    tables.is_reply.set(false);
    compare("dry", judge(), case.wanted)?;
    // Whatever is dropped is let through while everything is observed, and nothing else is changed by that.
    *tables.observed.borrow_mut() = vec![(EVERYTHING, u64::MAX)];
    let observed = judge();
    tables.observed.borrow_mut().clear();
    compare("observed for a while", observed, case.wanted.observed())?;
    tables.effect.set(Effect::Commit);
    compare("for good", judge(), case.wanted)
}

impl Wanted {
    /// The same while everything is observed.
    fn observed(self) -> Self {
        let is_drop = self.verdict == Verdict::Drop as u8;
        let verdict = if is_drop {
            Verdict::Observe as u8
        } else {
            self.verdict
        };
        Self { verdict, ..self }
    }
}

/// The counter is the decision's own: what is compared here is left out there.
fn judge(tables: &HostTables, frame: &[u8], packet: &mut Packet) -> Wanted {
    let judgement = pipeline::judge(frame, tables, packet);
    Wanted {
        verdict: judgement.verdict as u8,
        reason: judgement.reason as u8,
        service: judgement.service,
        owner: judgement.owner,
        bytes: judgement.bytes,
        counter: 0,
    }
}

fn compare(run: &str, got: Wanted, wanted: Wanted) -> Result<(), String> {
    let wanted = Wanted { counter: 0, ..wanted };
    if got == wanted {
        return Ok(());
    }
    Err(format!("{run}: {got:?}, not {wanted:?}"))
}

/// All that judgements count.
#[derive(PartialEq)]
struct Counts {
    verdicts: Vec<(u64, u64)>,
    interface: [u64; 3],
    /// Packets, bytes and the last moment of each owner.
    owners: Vec<[u64; 3]>,
}

impl Counts {
    fn of(tables: &HostTables) -> Self {
        let owners = tables.owners.borrow();
        let owners = owners
            .iter()
            .map(|owner| [owner.packets, owner.bytes, owner.last_seen]);
        Self {
            verdicts: tables.counts.borrow().clone(),
            interface: *tables.interface.borrow(),
            owners: owners.collect(),
        }
    }

    fn add(&mut self, case: &Case) {
        let Wanted {
            verdict,
            owner,
            bytes,
            counter,
            ..
        } = case.wanted;
        let bytes = u64::from(bytes);
        let count = &mut self.verdicts[counter as usize];
        *count = (count.0 + 1, count.1 + bytes);
        self.interface[verdict as usize] += 1;
        if verdict == Verdict::Pass as u8 && owner != NO_OWNER {
            let [packets, sum, _] = self.owners[owner as usize];
            self.owners[owner as usize] = [packets + 1, sum + bytes, case.now];
        }
    }
}
