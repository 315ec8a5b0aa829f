//! SPEC 3.9.

use super::*;

const MATCH: &str = "3.9: a grant matches when its prefix holds the source, the source port is in its range, it names the service and it has not ended";
const UNION: &str = "3.9: any matching grant admits (a /32 for key A never hides key B's /8)";
const UNLISTED: &str = "3.9: no grant with that address and service: unlisted";
const ENDED: &str = "3.9: some, but all ended: ended";
const SOURCE_PORT: &str = "3.9: some not ended, but none with that source port: source-port";
const FIRST: &str = "3.10: longest prefix first, then owner; the first whose own buckets pay is used";

const SERVICES: &str = r#"
[[service]]
name = "payments"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "tcp"
ports = [443]

[[service]]
name = "reports"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "tcp"
ports = [444]
"#;

const CLIENTS: &str = r#"
[[client]]
name = "wide"
sources = ["10.0.0.0/8", "2001:db8:a::/48"]
services = ["payments"]

[[client]]
name = "key"
sources = ["10.1.2.3", "2001:db8:a::7"]
source-ports = [1000, "2000-2010"]
services = ["payments"]

[[client]]
name = "report"
sources = ["10.1.2.0/24"]
services = ["reports"]

[[client]]
name = "all"
sources = ["10.9.0.0/16"]
services = ["*"]

[[client]]
name = "ported"
sources = ["172.16.0.0/12"]
source-ports = [0, "1024-65535"]
services = ["payments"]

[[client]]
name = "off"
sources = ["192.168.0.0/16"]
services = ["payments"]
enabled = false

[[client]]
name = "mapped"
sources = ["::ffff:100.65.0.0/112"]
services = ["payments"]

[[client]]
name = "half"
sources = ["100.66.0.0/17"]
services = ["payments"]

[[client]]
name = "odd"
sources = ["2001:db8:b:8000::/49"]
services = ["payments"]
"#;

const ENDING: &str = r#"
[[client]]
name = "brief"
sources = ["10.0.0.0/8", "2001:db8:a::/48"]
services = ["payments"]
expires = 2026-11-01T00:00:10Z

[[client]]
name = "past"
sources = ["10.1.0.0/16", "172.16.0.0/12"]
services = ["payments"]
expires = 2026-10-01T00:00:00Z

[[client]]
name = "lasting"
sources = ["10.1.2.0/24"]
source-ports = [5000]
services = ["payments"]

[[client]]
name = "elsewhere"
sources = ["192.168.0.0/16"]
services = ["reports"]
expires = 2026-10-01T00:00:00Z

[[client]]
name = "elsewhere-still"
sources = ["172.16.0.0/12"]
services = ["reports"]
"#;

pub(super) fn pages() -> Vec<Page> {
    vec![union(), ends()]
}

fn union() -> Page {
    let mut p = Page::new(
        "09-grants",
        "Rule 9: which grants match",
        policy("", &format!("{SERVICES}{CLIENTS}")),
    );
    let by = |owner| allowed("payments", owner);
    case!(
        p,
        "the wide prefix admits",
        v4("10.200.0.1", API).tcp(1, 443),
        by("wide"),
        MATCH
    );
    case!(
        p,
        "its first address",
        v4("10.0.0.0", API).tcp(1, 443),
        by("wide"),
        MATCH
    );
    case!(
        p,
        "its last address",
        v4("10.255.255.255", API).tcp(1, 443),
        by("wide"),
        MATCH
    );
    case!(
        p,
        "the address before it",
        v4("9.255.255.255", API).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    case!(
        p,
        "the address after it",
        v4("11.0.0.0", API).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    case!(
        p,
        "the key admits at its source port",
        v4("10.1.2.3", API).tcp(1000, 443),
        by("key"),
        FIRST
    );
    case!(
        p,
        "and hides nothing at another",
        v4("10.1.2.3", API).tcp(1001, 443),
        by("wide"),
        UNION
    );
    case!(
        p,
        "the first of the key's range",
        v4("10.1.2.3", API).tcp(2000, 443),
        by("key"),
        MATCH
    );
    case!(
        p,
        "the last of the key's range",
        v4("10.1.2.3", API).tcp(2010, 443),
        by("key"),
        MATCH
    );
    case!(
        p,
        "before the key's range",
        v4("10.1.2.3", API).tcp(1999, 443),
        by("wide"),
        UNION
    );
    case!(
        p,
        "after the key's range",
        v4("10.1.2.3", API).tcp(2011, 443),
        by("wide"),
        UNION
    );
    case!(
        p,
        "a longer prefix for another service hides nothing",
        v4("10.1.2.9", API).tcp(1, 443),
        by("wide"),
        UNION
    );
    case!(
        p,
        "and admits to its own",
        v4("10.1.2.9", API).tcp(1, 444),
        allowed("reports", "report"),
        MATCH
    );
    case!(
        p,
        "a grant for one service is none for another",
        v4("10.200.0.1", API).tcp(1, 444),
        drop("unlisted").at("reports"),
        UNLISTED
    );
    case!(
        p,
        "a grant for every service admits to one",
        v4("10.9.0.1", API).tcp(1, 444),
        allowed("reports", "all"),
        MATCH
    );
    case!(
        p,
        "and to another, by the longer prefix",
        v4("10.9.0.1", API).tcp(1, 443),
        by("all"),
        FIRST
    );
    case!(
        p,
        "IPv6: the wide prefix admits",
        v6("2001:db8:a:ffff::1", API6).tcp(1, 443),
        by("wide"),
        MATCH
    );
    case!(
        p,
        "IPv6: the key admits at its source port",
        v6("2001:db8:a::7", API6).tcp(1000, 443),
        by("key"),
        FIRST
    );
    case!(
        p,
        "IPv6: and hides nothing at another",
        v6("2001:db8:a::7", API6).tcp(1, 443),
        by("wide"),
        UNION
    );
    case!(
        p,
        "IPv6: the address after the key is the wide prefix's",
        v6("2001:db8:a::8", API6).tcp(1000, 443),
        by("wide"),
        MATCH
    );
    case!(
        p,
        "IPv6: after the wide prefix",
        v6("2001:db8:b::", API6).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    case!(
        p,
        "IPv6: a prefix of 49 bits admits its half",
        v6("2001:db8:b:8000::", API6).tcp(1, 443),
        by("odd"),
        MATCH
    );
    case!(
        p,
        "IPv6: and not the other",
        v6("2001:db8:b:7fff:ffff:ffff:ffff:ffff", API6).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    case!(
        p,
        "a prefix of 17 bits admits its half",
        v4("100.66.127.255", API).tcp(1, 443),
        by("half"),
        MATCH
    );
    case!(
        p,
        "and not the other",
        v4("100.66.128.0", API).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    case!(
        p,
        "source port 0 is a port",
        v4("172.16.0.1", API).tcp(0, 443),
        by("ported"),
        MATCH
    );
    case!(
        p,
        "source port 1",
        v4("172.16.0.1", API).tcp(1, 443),
        drop("source-port").at("payments"),
        SOURCE_PORT
    );
    case!(
        p,
        "source port 1023",
        v4("172.31.255.255", API).tcp(1023, 443),
        drop("source-port").at("payments"),
        SOURCE_PORT
    );
    case!(
        p,
        "source port 1024",
        v4("172.16.0.1", API).tcp(1024, 443),
        by("ported"),
        MATCH
    );
    case!(
        p,
        "source port 65535",
        v4("172.16.0.1", API).tcp(65_535, 443),
        by("ported"),
        MATCH
    );
    case!(
        p,
        "a source port is not asked at a service that is not named",
        v4("172.16.0.1", API).tcp(1, 444),
        drop("unlisted").at("reports"),
        UNLISTED
    );
    case!(
        p,
        "a client that is off grants nothing",
        v4("192.168.0.1", API).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    case!(
        p,
        "an IPv4-mapped prefix in the policy is IPv4",
        v4("100.65.3.4", API).tcp(1, 443),
        by("mapped"),
        "2: IPv4-mapped prefixes in policy and API are read as IPv4"
    );
    case!(
        p,
        "and ends where IPv4 says",
        v4("100.67.0.0", API).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    case!(
        p,
        "a source that looks like the destination",
        v4(API, API).tcp(443, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    p
}

fn ends() -> Page {
    let mut p = Page::new(
        "09-ends",
        "Rule 9: grants that end",
        policy("", &format!("{SERVICES}{ENDING}")),
    );
    let near = "3.9: a grant ends in the kernel, to within two ticks";
    case!(
        p,
        "before its end a grant admits",
        v4("10.9.9.9", API).tcp(1, 443),
        allowed("payments", "brief"),
        MATCH
    );
    case!(
        p,
        "in IPv6 too",
        v6("2001:db8:a::1", API6).tcp(1, 443),
        allowed("payments", "brief"),
        MATCH
    );
    case!(
        p,
        "a longer prefix that has ended hides nothing",
        v4("10.1.9.9", API).tcp(1, 443),
        allowed("payments", "brief"),
        UNION
    );
    case!(
        p,
        "the longest that has not ended is used",
        v4("10.1.2.9", API).tcp(5000, 443),
        allowed("payments", "lasting"),
        FIRST
    );
    case!(
        p,
        "and hides nothing at another source port",
        v4("10.1.2.9", API).tcp(5001, 443),
        allowed("payments", "brief"),
        UNION
    );
    case!(
        p,
        "all ended",
        v4("172.16.0.1", API).tcp(1, 443),
        drop("ended").at("payments"),
        ENDED
    );
    case!(
        p,
        "ended for another service",
        v4("192.168.0.1", API).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    case!(
        p,
        "not ended for another service",
        v4("172.16.0.1", API).tcp(1, 444),
        allowed("reports", "elsewhere-still"),
        MATCH
    );
    case!(
        p,
        "a second before the end",
        v4("10.9.9.9", API).tcp(1, 443),
        allowed("payments", "brief"),
        near
    )
    .at_ms = 9000;
    case!(
        p,
        "a second after the end",
        v4("10.9.9.9", API).tcp(1, 443),
        drop("ended").at("payments"),
        near
    )
    .at_ms = 11_000;
    case!(
        p,
        "in IPv6 too, a second after the end",
        v6("2001:db8:a::1", API6).tcp(1, 443),
        drop("ended").at("payments"),
        near
    );
    case!(
        p,
        "two that have ended",
        v4("10.1.9.9", API).tcp(1, 443),
        drop("ended").at("payments"),
        ENDED
    );
    case!(
        p,
        "two that have ended, and one of another source port",
        v4("10.1.2.9", API).tcp(1, 443),
        drop("source-port").at("payments"),
        SOURCE_PORT
    );
    case!(
        p,
        "two that have ended, and one of this source port",
        v4("10.1.2.9", API).tcp(5000, 443),
        allowed("payments", "lasting"),
        UNION
    );
    case!(
        p,
        "a stranger all the while",
        v4(STRANGER, API).tcp(1, 443),
        drop("unlisted").at("payments"),
        UNLISTED
    );
    p
}
