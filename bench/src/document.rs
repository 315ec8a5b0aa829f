//! docs/PERFORMANCE.md: one run, told in full. The words are here, the figures are the run's.

use std::fmt::Write as _;

use crate::figures::Figures;
use crate::{floors, tables};

const HEAD: &str = "\
# Performance

Written by `cargo xtask bench --plots docs/performance --document docs/PERFORMANCE.md`, with the parts and sizes that the
tables have, from one run: every figure is that run's. Absolute ones are this machine's; ratios carry over, as far as caches, kernel and other work allow.
What was tried on the way, and what it brought, stands in [TUNING.md](TUNING.md).
";

const METHOD: &str = "\
## How it is measured

- **In the kernel's test run.** A driver writes another source address into the frame at each run, out of a list of up
  to 8 million, and jumps to the program under test: every table is walked as if all of it were in use at once. All
  variants are behind the same driver and run in turn, round after round; the first round is not counted, and each
  figure is the median of the others. It is the CPU time of the one thread that runs them, kept on one CPU.
- **The driver** costs what the column `driver` shows: an empty program behind it. `bare` is the same without it. Where
  a floor is said gross, the driver's own share (`driver` less `bare`) is taken off both sides.
- **LPM_TRIE** is Keyfence itself, built a second time so that the source is looked up in the kernel's own trie with the
  same values; parser, grants, limits, clock and counters are the same code.
- **Records of drops** are off in every figure but those that say so; Keyfence has them on by default. With them on, a
  stranger is measured twice: out of 1,024 addresses, each of which has a record of its own, and out of a million, which
  is a flood: the table is full, and what finds no line in it is counted by reason and source prefix. Beside either
  stands the same traffic with records off, since 1,024 addresses are cheaper to look up as well.
- **Sources.** Addresses are random over 1.0.0.0 to 126.255.255.255 and 2000::/3; IPv6 /128s are each in a /48 of their
  own. IPv4 mixed is 70 % /32, 15 % /28 to /31, 14 % /24 to /27, 1 % /20 to /23; IPv6 mixed is 40 % /128, 30 % /64,
  20 % /56, 9 % /48, 1 % /40. Strangers are random over the same space, in no listed prefix.
- **The policy** has a service with an address, a management entry and one packet limit that counts each hit and is
  never reached. Every packet is a TCP SYN to the service. After each call the filter's own counters must hold exactly
  as many packets, with the verdict and reason expected, as were run.
- **Live**, frames go from the test run's live mode out of a veth with one queue into another in a namespace of its own,
  whose filter (native XDP where it is XDP) runs inside the sender's thread; the figure is that thread's CPU time a
  packet, sending included, and the device must have received exactly what was sent. nft and its sets hang at the
  device's ingress, iptables in `raw`. Whatever a filter passes is dropped by the same nft chain behind it. `exhausted`
  are hits over their limit: they end in the filter, for all alike.
- **Updates** are wall-clock time. The kernel's memory is what it says its maps take; the daemon's is what is its own
  (RssAnon), less that of a daemon with one source.
";

/// Said of this design, whatever the run: read it beside the floors that are short.
const SHORTFALLS: &str = "\
## Where it is short, and why

- At 1k, where every table is in the nearest caches, what is left is fixed work: the column `parse` shows how little of
  it is the parser's, the features how little is a limit's. How the rest splits between calls, the desk that stages
  share and the counters is not measured here; the mitigations named above make each call and return dear.
- Against LPM_TRIE both sides pay that fixed work and the same test loop, so the ratio is smaller than that of the
  look-ups alone.
- An owner for each source touches two more lines a hit, its record and its state; a client's sources share theirs.
- A source limit touches one line more for each source.
- Live, a stranger still pays for the veth, which is most of what an empty drop costs. Other filters pay for a socket
  buffer before they look at anything.
- To go further: packets and bytes of an owner in one word (one locked instruction less a hit; another layout), a tag of
  8 bits in the table of records (5 ns less in a flood; another layout), and one function less between the entry and the
  verdict where the verifier leaves stack for it. [TUNING.md](TUNING.md) has what was tried of this, and what came of it.
";

/// Plots are told by their paths from the document's folder.
pub(crate) fn write(figures: &Figures, plots: &[String]) -> String {
    let mut text = String::from(HEAD);
    // Writing to a string cannot fail.
    _ = writeln!(text, "\n{}", machine(figures));
    _ = writeln!(text, "\n## Floors\n\n{}", floors_met(figures));
    _ = writeln!(text, "\n{SHORTFALLS}");
    for plot in plots {
        _ = writeln!(text, "![{plot}]({plot})\n");
    }
    _ = writeln!(text, "{METHOD}");
    let parts = [
        (
            !figures.judged.is_empty(),
            "In the kernel's test run, ns a packet",
            tables::judged(figures),
        ),
        (
            !figures.features.is_empty(),
            "Features on and off, ns a packet",
            tables::features(figures),
        ),
        (
            !figures.exhausted.is_empty(),
            "Exhausted grants, ns a packet",
            tables::exhausted(figures),
        ),
        (
            !figures.live.is_empty(),
            "Live on a veth, ns a packet",
            tables::live(figures),
        ),
        (
            !figures.bulk.is_empty(),
            "Updates and memory",
            tables::updates(figures),
        ),
    ];
    for (_, title, table) in parts.into_iter().filter(|(wanted, ..)| *wanted) {
        _ = writeln!(text, "## {title}\n\n{table}\n");
    }
    for bindings in &figures.bindings {
        let (size, table) = (crate::short(bindings.bindings), crate::bindings::table(bindings));
        _ = writeln!(text, "## The API with {size} bindings\n\n{table}\n");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// On what, when, and how quiet it was.
pub(crate) fn machine(figures: &Figures) -> String {
    let machine = &figures.machine;
    let quiet = if machine.load_before.max(machine.load_after) < QUIET {
        "The machine was quiet."
    } else {
        "**The machine was not quiet**: other work shared its CPUs and caches, and every figure is dearer for it."
    };
    let mut text = format!(
        "{}, commit {}: {}, {} CPUs, Linux {}. Load {:.2} when the run began and {:.2} when it ended (the run itself \
         is 1). {quiet} Medians of {} rounds of {} packets.",
        machine.date,
        machine.commit,
        machine.processor,
        machine.cpus,
        machine.kernel,
        machine.load_before,
        machine.load_after,
        figures.rounds,
        figures.packets
    );
    if !machine.mitigations.is_empty() {
        _ = write!(
            text,
            "\n\nMitigations that make calls and returns in the kernel dear, if not \"Not affected\": {}.",
            machine.mitigations.join("; ")
        );
    }
    text
}

/// Ours alone is 1.
const QUIET: f64 = 1.5;

fn floors_met(figures: &Figures) -> String {
    let floors = floors::of(figures);
    let short = floors.iter().filter(|floor| !floor.is_met()).count();
    let verdict = match short {
        0 => "All of them are reached.".to_owned(),
        short => format!("{short} of {} are not reached.", floors.len()),
    };
    format!("{verdict}\n\n{}", tables::floors(&floors))
}
