//! SPEC 3.11.

use super::*;
use crate::oracle::frames::{Extension, Tcp};

const SERVICE: &str = "3.11: what rules 9 and 10 drop follows the service's mode";
const FILTER: &str = "3.11: everything else follows the filter's mode";
const PASSED: &str = "3.11: in observe mode it passes with verdict observe and its reason";

const MODES: &str = r#"
[[service]]
name = "enforced"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "tcp"
ports = [443]
mode = "enforce"
limit = { packets = { rate = 1, burst = 2 } }

[[service]]
name = "observed"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "tcp"
ports = [444]
mode = "observe"
limit = { packets = { rate = 1, burst = 2 } }

[[service]]
name = "plain"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "tcp"
ports = [445]
limit = { packets = { rate = 1, burst = 2 } }

[[client]]
name = "acme"
sources = ["198.51.100.0/24"]
services = ["*"]

[[client]]
name = "ported"
sources = ["198.18.0.0/24"]
source-ports = [5000]
services = ["*"]

[[client]]
name = "over"
sources = ["198.18.1.0/24"]
services = ["*"]
expires = 2026-10-01T00:00:00Z

[[client]]
name = "broke"
sources = ["198.18.2.0/24"]
services = ["*"]
limit = { bytes = { rate = 1, burst = 39 } }

[[deny]]
name = "abuse"
sources = ["198.51.100.66"]
"#;

pub(super) fn pages() -> Vec<Page> {
    vec![
        modes("11-observe-filter", true),
        modes("11-enforce-filter", false),
    ]
}

fn modes(name: &'static str, observes: bool) -> Page {
    let mode = if observes { "observe" } else { "enforce" };
    let none = if observes { "" } else { "management-none = true\n" };
    let filter = format!(
        "mode = \"{mode}\"\n{none}{CLOSED}[filter.icmp-limit]\npackets = {{ rate = 1, burst = 1 }}\n"
    );
    let mut p = Page::new(name, "Rule 11: whose mode it is", policy(&filter, MODES));
    let by_filter = |reason| if observes { observe(reason) } else { drop(reason) };
    for (name, port, answer) in [
        ("enforced", 443, drop as fn(&'static str) -> Expected),
        ("observed", 444, observe),
        ("plain", 445, if observes { observe } else { drop }),
    ] {
        let what = format!("tcp 1 > {port}");
        let to = |source| v4(source, API).tcp(1, port);
        p.add(
            format!("{name}: unlisted"),
            &what,
            to(STRANGER),
            answer("unlisted").at(name),
            SERVICE,
        );
        p.add(
            format!("{name}: source-port"),
            &what,
            to("198.18.0.1"),
            answer("source-port").at(name),
            SERVICE,
        );
        p.add(
            format!("{name}: ended"),
            &what,
            to("198.18.1.1"),
            answer("ended").at(name),
            SERVICE,
        );
        p.add(
            format!("{name}: limit-grant"),
            &what,
            to("198.18.2.1"),
            answer("limit-grant").at(name).by("broke"),
            SERVICE,
        );
        p.add(
            format!("{name}: what is allowed passes"),
            &what,
            to(LISTED),
            allowed(name, "acme"),
            PASSED,
        )
        .times = 2;
        p.add(
            format!("{name}: limit-service"),
            &what,
            to(LISTED),
            answer("limit-service").at(name).by("acme"),
            SERVICE,
        );
        p.add(
            format!("{name}: denied goes by the filter"),
            &what,
            to(DENIED),
            by_filter("denied"),
            FILTER,
        );
        p.add(
            format!("{name}: malformed goes by the filter"),
            &what,
            to(LISTED).shorten(8),
            by_filter("malformed"),
            FILTER,
        );
    }
    case!(
        p,
        "non-ip goes by the filter",
        Frame::llc(0x42, 0x42, 3, &[0; 35]),
        by_filter("non-ip"),
        FILTER
    );
    case!(
        p,
        "a third tag goes by the filter",
        v4(LISTED, API)
            .tcp(1, 443)
            .frame()
            .tag(0x8100, 1)
            .tag(0x8100, 2)
            .tag(0x8100, 3),
        by_filter("malformed"),
        FILTER
    );
    case!(
        p,
        "ping goes by the filter",
        v4(LISTED, API).icmp(8, 0),
        by_filter("icmp"),
        FILTER
    );
    case!(
        p,
        "the one error there is",
        v4(LISTED, API).icmp(3, 4),
        pass("icmp"),
        "3.6: errors pass"
    );
    case!(
        p,
        "limit-icmp goes by the filter",
        v4(LISTED, API).icmp(3, 4),
        by_filter("limit-icmp"),
        FILTER
    );
    case!(
        p,
        "other traffic goes by the filter",
        v4(LISTED, API).tcp(1, 80),
        by_filter("other"),
        FILTER
    );
    case!(
        p,
        "another address goes by the filter",
        v4(LISTED, ELSE).tcp(1, 443),
        by_filter("other"),
        FILTER
    );
    case!(
        p,
        "another protocol goes by the filter",
        v4(LISTED, API).payload(47, vec![]),
        by_filter("other"),
        FILTER
    );
    case!(
        p,
        "a fragment to services of which one enforces is dropped",
        v4(LISTED, API).tcp(1, 444).fragment(9, true),
        drop("fragment"),
        "3.8 (d): observed only if every service considered observes, whatever the filter's mode"
    );
    case!(
        p,
        "a first fragment to no service's address goes by the filter",
        v6(STRANGER6, ELSE6)
            .ext(Extension::fragment(0, true))
            .tcp_with(Tcp::new(1, 80)),
        by_filter("other"),
        FILTER
    );
    case!(
        p,
        "what passes anyway passes",
        Frame::arp(),
        pass("essential"),
        PASSED
    );
    p
}
