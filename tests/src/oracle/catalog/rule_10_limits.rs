//! SPEC 3.10. Times keep well away from the moment a token comes back.

use super::*;
use crate::oracle::frames::{ACK, Extension, FIN, RST, SYN, Tcp};

const ORDER: &str =
    "3.10: order the matching grants by prefix length, longest first, then by owner; keep each owner once";
const EIGHT: &str = "3.10: with 8 or fewer, try all from the first";
const MANY: &str = "3.10: with n > 8, try eight from index (source port mod n), wrapping";
const NONE: &str = "3.10: none pays: limit-grant; its owner is the first tried";
const TAKEN: &str = "3.10: what is taken stays taken";
const LEVELS: &str =
    "3.10: if the service's bucket then refuses, the packet is dropped and no other is tried";
const COSTS: &str =
    "3.10: a packet costs 1; its bytes are the IP packet's length; a TCP SYN without ACK is 1 connection";
const RATE: &str = "3.10: never more than rate x time + burst, and at least 99 % of what conforms";
const SHARED: &str = "3.10: a bucket is shared by all sources and services of its owner";

/// A service, with keys of its own.
fn service(name: &str, port: u16, more: &str) -> String {
    format!(
        "\n[[service]]\nname = \"{name}\"\naddress = [\"203.0.113.10\", \"2001:db8::10\"]\nprotocol = \"tcp\"\nports = [{port}]\n{more}"
    )
}

/// A client of every service.
fn client(name: &str, sources: &str, limit: &str) -> String {
    format!(
        "\n[[client]]\nname = \"{name}\"\nsources = [{sources}]\nservices = [\"*\"]\nlimit = {{ {limit} }}\n"
    )
}

const ONE: &str = "packets = { rate = 1, burst = 1 }";

pub(super) fn pages() -> Vec<Page> {
    vec![
        order(),
        once(),
        once_of_ten(),
        eight(),
        many(),
        bytes(),
        connections(),
        taken(),
        not_taken(),
        taken_between(),
        services(),
        service_costs(),
        rates(),
        shared(),
        none(),
    ]
}

fn order() -> Page {
    let clients = [
        client("a", "\"198.51.100.0/24\"", ONE),
        client("A", "\"198.51.100.0/24\"", ONE),
        client("a.b", "\"198.51.100.0/24\"", ONE),
        client("a-b", "\"198.51.100.0/24\"", ONE),
        client("0", "\"198.51.0.0/16\"", ONE),
        client("zz", "\"198.51.100.7\"", ONE),
    ];
    let mut p = Page::new(
        "10-order",
        "Rule 10: in which order grants are tried",
        policy(
            "",
            &format!("{}{}", service("payments", 443, ""), clients.concat()),
        ),
    );
    for (place, owner) in ["zz", "A", "a", "a-b", "a.b", "0"].into_iter().enumerate() {
        p.add(
            format!("{owner} is number {}", place + 1),
            "tcp 1 > 443",
            v4(LISTED, API).tcp(1, 443),
            allowed("payments", owner),
            ORDER,
        );
    }
    case!(
        p,
        "then none pays, and the first tried is named",
        v4(LISTED, API).tcp(1, 443),
        drop("limit-grant").at("payments").by("zz"),
        NONE
    );
    case!(
        p,
        "of another source's grants the first is another",
        v4(ACME, API).tcp(1, 443),
        drop("limit-grant").at("payments").by("A"),
        NONE
    );
    p
}

fn once() -> Page {
    let clients = [
        client(
            "twice",
            "\"198.51.100.0/24\", \"198.51.100.7\", \"198.51.0.0/16\"",
            "packets = { rate = 1, burst = 2 }",
        ),
        client("last", "\"198.51.100.0/28\"", ONE),
    ];
    let mut p = Page::new(
        "10-once",
        "Rule 10: an owner with several prefixes is tried once, at its longest",
        policy(
            "",
            &format!("{}{}", service("payments", 443, ""), clients.concat()),
        ),
    );
    case!(
        p,
        "the owner pays by its longest prefix",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "twice"),
        ORDER
    )
    .times = 2;
    case!(
        p,
        "then the next owner",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "last"),
        ORDER
    );
    case!(
        p,
        "then none",
        v4(LISTED, API).tcp(1, 443),
        drop("limit-grant").at("payments").by("twice"),
        NONE
    );
    case!(
        p,
        "for another source the shorter prefix comes after",
        v4("198.51.100.8", API).tcp(1, 443),
        drop("limit-grant").at("payments").by("last"),
        ORDER
    );
    p
}

/// Eleven grants of two owners are two, not more than eight.
fn once_of_ten() -> Page {
    let lengths: Vec<String> = (23..=32).map(|bits| format!("\"198.51.100.0/{bits}\"")).collect();
    let clients = [
        client("ten", &lengths.join(", "), ONE),
        client("last", "\"198.51.0.0/16\"", ONE),
    ];
    let mut p = Page::new(
        "10-once-of-ten",
        "Rule 10: owners are counted, not prefixes",
        policy(
            "",
            &format!("{}{}", service("payments", 443, ""), clients.concat()),
        ),
    );
    let ours = || v4("198.51.100.0", API).tcp(10, 443);
    case!(
        p,
        "the owner of ten prefixes is tried first",
        ours(),
        allowed("payments", "ten"),
        ORDER
    );
    case!(
        p,
        "the other owner is tried next",
        ours(),
        allowed("payments", "last"),
        ORDER
    );
    case!(
        p,
        "then none",
        ours(),
        drop("limit-grant").at("payments").by("ten"),
        NONE
    );
    p
}

fn owners(count: usize) -> String {
    (0..count)
        .map(|n| client(&format!("c{n}"), "\"198.51.100.0/24\", \"2001:db8:ac::/48\"", ONE))
        .collect()
}

fn eight() -> Page {
    let mut p = Page::new(
        "10-eight",
        "Rule 10: eight owners are all tried, from the first",
        policy("", &format!("{}{}", service("payments", 443, ""), owners(8))),
    );
    for owner in ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"] {
        p.add(
            format!("{owner} pays whatever the source port"),
            "tcp 40005 > 443",
            v4(LISTED, API).tcp(40005, 443),
            allowed("payments", owner),
            EIGHT,
        );
    }
    case!(
        p,
        "then none",
        v4(LISTED, API).tcp(40005, 443),
        drop("limit-grant").at("payments").by("c0"),
        NONE
    );
    p
}

fn many() -> Page {
    let mut p = Page::new(
        "10-many",
        "Rule 10: of ten owners eight are tried, from the source port's",
        policy("", &format!("{}{}", service("payments", 443, ""), owners(10))),
    );
    for owner in ["c3", "c4", "c5", "c6", "c7", "c8", "c9", "c0"] {
        p.add(
            format!("from index 3: {owner} pays"),
            "tcp 40003 > 443",
            v4(LISTED, API).tcp(40003, 443),
            allowed("payments", owner),
            MANY,
        );
    }
    case!(
        p,
        "the ninth and tenth from there are not tried",
        v4(LISTED, API).tcp(40003, 443),
        drop("limit-grant").at("payments").by("c3"),
        MANY
    );
    case!(
        p,
        "from index 2 the first pays",
        v4(LISTED, API).tcp(40002, 443),
        allowed("payments", "c2"),
        MANY
    );
    case!(
        p,
        "from index 2 none pays now",
        v4(LISTED, API).tcp(40002, 443),
        drop("limit-grant").at("payments").by("c2"),
        MANY
    );
    case!(
        p,
        "from index 5 of IPv6 the seventh pays",
        v6(LISTED6, API6).tcp(65_535, 443),
        allowed("payments", "c1"),
        MANY
    );
    case!(
        p,
        "from index 0 none pays",
        v4(LISTED, API).tcp(0, 443),
        drop("limit-grant").at("payments").by("c0"),
        MANY
    );
    case!(
        p,
        "from index 9 none pays",
        v4(LISTED, API).tcp(9, 443),
        drop("limit-grant").at("payments").by("c9"),
        MANY
    );
    p
}

fn bytes() -> Page {
    let clients = [
        client(
            "acme",
            "\"198.51.100.0/24\"",
            "bytes = { rate = 10, burst = 100 }",
        ),
        client(
            "six",
            "\"2001:db8:ac::/48\"",
            "bytes = { rate = 10, burst = 200 }",
        ),
    ];
    let mut p = Page::new(
        "10-bytes",
        "Rule 10: bytes",
        policy(
            "",
            &format!("{}{}", service("payments", 443, ""), clients.concat()),
        ),
    );
    let ours = || v4(LISTED, API).tcp(1, 443);
    let no = drop("limit-grant").at("payments").by("acme");
    case!(
        p,
        "a packet of 101 bytes never pays, and takes nothing",
        v4(LISTED, API).tcp_with(Tcp {
            data: vec![0; 61],
            ..Tcp::new(1, 443)
        }),
        no,
        COSTS
    )
    .times = 3;
    case!(p, "40 of 100 bytes", ours(), allowed("payments", "acme"), COSTS);
    case!(
        p,
        "40 more, for padding and tags are not counted",
        ours().frame().tag(0x88a8, 1).tag(0x8100, 2).pad(100, 0),
        allowed("payments", "acme"),
        COSTS
    );
    case!(p, "20 are left, which 40 do not fit", ours(), no, COSTS);
    case!(
        p,
        "after three seconds 50 are there",
        ours(),
        allowed("payments", "acme"),
        RATE
    )
    .at_ms = 3000;
    case!(p, "and 10 are left", ours(), no, RATE);
    case!(
        p,
        "after a minute the burst and no more: 100 bytes",
        v4(LISTED, API).tcp_with(Tcp {
            data: vec![0; 60],
            ..Tcp::new(1, 443)
        }),
        allowed("payments", "acme"),
        RATE
    )
    .at_ms = 63_000;
    case!(p, "and nothing is left", ours(), no, RATE);
    let six = drop("limit-grant").at("payments").by("six");
    case!(
        p,
        "an IPv6 packet of 201 bytes never pays",
        v6(LISTED6, API6).tcp_with(Tcp {
            data: vec![0; 141],
            ..Tcp::new(1, 443)
        }),
        six,
        COSTS
    );
    case!(
        p,
        "an IPv6 packet of 200 bytes, its headers counted",
        v6(LISTED6, API6).ext(Extension::hop_by_hop()).tcp_with(Tcp {
            data: vec![0; 132],
            ..Tcp::new(1, 443)
        }),
        allowed("payments", "six"),
        COSTS
    );
    case!(
        p,
        "and nothing is left of IPv6",
        v6(LISTED6, API6).tcp(1, 443),
        six,
        COSTS
    );
    p
}

fn connections() -> Page {
    let limit = client(
        "acme",
        "\"198.51.100.0/24\"",
        "connections = { rate = 1, burst = 1 }",
    );
    let both = service("both", 444, "").replace("protocol = \"tcp\"", "protocol = [\"tcp\", \"udp\"]");
    let mut p = Page::new(
        "10-connections",
        "Rule 10: connections",
        policy("", &format!("{}{both}{limit}", service("payments", 443, ""))),
    );
    let with = |flags| {
        v4(LISTED, API).tcp_with(Tcp {
            flags,
            ..Tcp::new(1, 443)
        })
    };
    let yes = allowed("payments", "acme");
    let no = drop("limit-grant").at("payments").by("acme");
    case!(p, "a SYN with ACK is no connection", with(SYN | ACK), yes, COSTS).times = 5;
    case!(p, "no SYN is no connection", with(ACK), yes, COSTS).times = 5;
    case!(p, "no flag at all is no connection", with(0), yes, COSTS).times = 5;
    case!(
        p,
        "UDP is no connection",
        v4(LISTED, API).udp(1, 444),
        allowed("both", "acme"),
        COSTS
    )
    .times = 5;
    case!(p, "one SYN pays", with(SYN), yes, COSTS);
    case!(p, "a second does not", with(SYN), no, COSTS);
    case!(p, "SYN and FIN is a SYN without ACK", with(SYN | FIN), no, COSTS);
    case!(p, "SYN and RST is a SYN without ACK", with(SYN | RST), no, COSTS);
    case!(
        p,
        "a SYN in a first fragment is one",
        with(SYN).fragment(0, true),
        no,
        COSTS
    );
    case!(
        p,
        "to another service from another source it is the same bucket",
        v4(ACME, API).tcp(1, 444),
        drop("limit-grant").at("both").by("acme"),
        SHARED
    );
    case!(p, "the connection goes on meanwhile", with(ACK), yes, COSTS).times = 5;
    case!(
        p,
        "after a second and a half a SYN pays",
        with(SYN | FIN),
        yes,
        RATE
    )
    .at_ms = 1500;
    p
}

fn taken() -> Page {
    let limit = client(
        "acme",
        "\"198.51.100.0/24\"",
        "packets = { rate = 1, burst = 3 }, bytes = { rate = 1, burst = 100 }, connections = { rate = 1, burst = 1 }",
    );
    let mut p = Page::new(
        "10-taken",
        "Rule 10: packets, then bytes, then connections; what is taken stays taken",
        policy("", &format!("{}{limit}", service("payments", 443, ""))),
    );
    let no = drop("limit-grant").at("payments").by("acme");
    let big = || {
        v4(LISTED, API).tcp_with(Tcp {
            flags: ACK,
            data: vec![0; 200],
            ..Tcp::new(1, 443)
        })
    };
    case!(
        p,
        "two large ones are refused by bytes, and take a packet each",
        big(),
        no,
        TAKEN
    )
    .times = 2;
    case!(
        p,
        "one small SYN takes the last packet, 40 bytes and the connection",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "acme"),
        TAKEN
    );
    case!(
        p,
        "then no packet is left",
        v4(LISTED, API).tcp_with(Tcp {
            flags: ACK,
            ..Tcp::new(1, 443)
        }),
        no,
        TAKEN
    );
    p
}

fn not_taken() -> Page {
    let limit = client(
        "acme",
        "\"198.51.100.0/24\"",
        "packets = { rate = 1, burst = 1 }, bytes = { rate = 1, burst = 100 }",
    );
    let mut p = Page::new(
        "10-not-taken",
        "Rule 10: a bucket after the one that refuses is not asked",
        policy("", &format!("{}{limit}", service("payments", 443, ""))),
    );
    let why = "3.10: at each level packets, then bytes, then connections";
    let ours = || v4(LISTED, API).tcp(1, 443);
    let no = drop("limit-grant").at("payments").by("acme");
    case!(
        p,
        "one takes the packet and 40 of 100 bytes",
        ours(),
        allowed("payments", "acme"),
        why
    );
    case!(p, "those that packets refuse take no bytes", ours(), no, why).times = 5;
    case!(
        p,
        "so 60 bytes are there for the next packet",
        ours(),
        allowed("payments", "acme"),
        why
    )
    .at_ms = 1500;
    case!(p, "and 20 do not do for a third", ours(), no, why).at_ms = 3000;
    p
}

fn taken_between() -> Page {
    let clients = [
        client(
            "near",
            "\"198.51.100.7\"",
            "packets = { rate = 1, burst = 2 }, bytes = { rate = 1, burst = 60 }",
        ),
        client("far", "\"198.51.100.0/24\"", "packets = { rate = 1, burst = 2 }"),
    ];
    let mut p = Page::new(
        "10-taken-by-the-next",
        "Rule 10: a grant that refuses keeps what it took, and the next is tried",
        policy(
            "",
            &format!("{}{}", service("payments", 443, ""), clients.concat()),
        ),
    );
    let big = || {
        v4(LISTED, API).tcp_with(Tcp {
            data: vec![0; 200],
            ..Tcp::new(1, 443)
        })
    };
    case!(
        p,
        "near's bytes refuse, after its packet was taken; far pays",
        big(),
        allowed("payments", "far"),
        TAKEN
    );
    case!(
        p,
        "near pays a small one with its last packet",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "near"),
        TAKEN
    );
    case!(
        p,
        "near has no packet left; far pays its last",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "far"),
        TAKEN
    );
    case!(
        p,
        "then none pays",
        v4(LISTED, API).tcp(1, 443),
        drop("limit-grant").at("payments").by("near"),
        NONE
    );
    p
}

fn services() -> Page {
    let clients = [
        client("near", "\"198.51.100.7\"", "packets = { rate = 1, burst = 3 }"),
        client("far", "\"198.51.100.0/24\"", "packets = { rate = 1, burst = 2 }"),
    ];
    let narrow = service("payments", 443, "limit = { packets = { rate = 1, burst = 2 } }\n");
    let mut p = Page::new(
        "10-service",
        "Rule 10: the service's bucket comes last",
        policy(
            "",
            &format!("{narrow}{}{}", service("free", 444, ""), clients.concat()),
        ),
    );
    case!(
        p,
        "two pay both",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "near"),
        LEVELS
    )
    .times = 2;
    case!(
        p,
        "the third pays its grant, and the service refuses",
        v4(LISTED, API).tcp(1, 443),
        drop("limit-service").at("payments").by("near"),
        LEVELS
    );
    case!(
        p,
        "near's bucket is empty; far pays, and the service refuses",
        v4(LISTED, API).tcp(1, 443),
        drop("limit-service").at("payments").by("far"),
        TAKEN
    );
    case!(
        p,
        "far had a packet left: no other was tried before",
        v4(LISTED, API).tcp(1, 444),
        allowed("free", "far"),
        LEVELS
    );
    case!(
        p,
        "now none pays, before the service is asked",
        v4(LISTED, API).tcp(1, 443),
        drop("limit-grant").at("payments").by("near"),
        NONE
    );
    case!(
        p,
        "strangers do not touch the service's bucket",
        v4(STRANGER, API).tcp(1, 443),
        drop("unlisted").at("payments"),
        "3.9 comes before 3.10"
    )
    .times = 10;
    case!(
        p,
        "after a second and a half near pays and so does the service",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "near"),
        RATE
    )
    .at_ms = 1500;
    case!(
        p,
        "the service's is empty again",
        v4(LISTED, API).tcp(1, 443),
        drop("limit-service").at("payments").by("far"),
        LEVELS
    );
    p
}

fn service_costs() -> Page {
    let clients = "\n[[client]]\nname = \"acme\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"*\"]\n";
    let sized = service("sized", 443, "limit = { bytes = { rate = 10, burst = 100 } }\n");
    let dialled = service(
        "dialled",
        444,
        "limit = { connections = { rate = 1, burst = 1 } }\n",
    );
    let all = service(
        "all",
        445,
        "limit = { packets = { rate = 1, burst = 3 }, bytes = { rate = 1, burst = 100 }, connections = { rate = 1, burst = 1 } }\n",
    );
    let mut p = Page::new(
        "10-service-costs",
        "Rule 10: the service's packets, bytes and connections",
        policy("", &format!("{sized}{dialled}{all}{clients}")),
    );
    case!(
        p,
        "80 of 100 bytes",
        v4(LISTED, API).tcp(1, 443),
        allowed("sized", "acme"),
        COSTS
    )
    .times = 2;
    case!(
        p,
        "40 more do not fit",
        v4(LISTED, API).tcp(1, 443),
        drop("limit-service").at("sized").by("acme"),
        COSTS
    );
    case!(
        p,
        "one connection",
        v4(LISTED, API).tcp(1, 444),
        allowed("dialled", "acme"),
        COSTS
    );
    case!(
        p,
        "no second",
        v4(ACME, API).tcp(1, 444),
        drop("limit-service").at("dialled").by("acme"),
        COSTS
    );
    case!(
        p,
        "without SYN there is none to pay",
        v4(ACME, API).tcp_with(Tcp {
            flags: ACK,
            ..Tcp::new(1, 444)
        }),
        allowed("dialled", "acme"),
        COSTS
    )
    .times = 5;
    case!(
        p,
        "refused by bytes, the packets stay taken",
        v4(LISTED, API).tcp_with(Tcp {
            data: vec![0; 100],
            ..Tcp::new(1, 445)
        }),
        drop("limit-service").at("all").by("acme"),
        TAKEN
    )
    .times = 3;
    case!(
        p,
        "so that a small one finds none",
        v4(LISTED, API).tcp(1, 445),
        drop("limit-service").at("all").by("acme"),
        TAKEN
    );
    p
}

fn rates() -> Page {
    let clients = [
        client("second", "\"10.0.0.0/8\"", "packets = { rate = 10, burst = 5 }"),
        client(
            "minute",
            "\"172.16.0.0/12\"",
            "packets = { rate = \"60/m\", burst = 5 }",
        ),
        client(
            "hour",
            "\"192.168.0.0/16\"",
            "packets = { rate = \"3600/h\", burst = 5 }",
        ),
    ];
    let mut p = Page::new(
        "10-rates",
        "Rule 10: rates a second, a minute and an hour",
        policy(
            "",
            &format!("{}{}", service("payments", 443, ""), clients.concat()),
        ),
    );
    for (source, owner) in [
        ("10.0.0.1", "second"),
        ("172.16.0.1", "minute"),
        ("192.168.0.1", "hour"),
    ] {
        p.add(
            format!("{owner}: the burst"),
            "tcp 1 > 443",
            v4(source, API).tcp(1, 443),
            allowed("payments", owner),
            RATE,
        )
        .times = 5;
        p.add(
            format!("{owner}: not one more"),
            "tcp 1 > 443",
            v4(source, API).tcp(1, 443),
            drop("limit-grant").at("payments").by(owner),
            RATE,
        )
        .times = 3;
    }
    case!(
        p,
        "after 350 ms three of ten a second",
        v4("10.0.0.1", API).tcp(1, 443),
        allowed("payments", "second"),
        RATE
    )
    .at_ms = 350;
    case!(
        p,
        "the second and third of them",
        v4("10.0.0.1", API).tcp(1, 443),
        allowed("payments", "second"),
        RATE
    )
    .times = 2;
    case!(
        p,
        "and no fourth",
        v4("10.0.0.1", API).tcp(1, 443),
        drop("limit-grant").at("payments").by("second"),
        RATE
    );
    for (source, owner) in [("172.16.0.1", "minute"), ("192.168.0.1", "hour")] {
        p.add(
            format!("{owner}: two after two seconds and a half"),
            "tcp 1 > 443",
            v4(source, API).tcp(1, 443),
            allowed("payments", owner),
            RATE,
        )
        .at_ms = 2500;
        p.add(
            format!("{owner}: the second of them"),
            "tcp 1 > 443",
            v4(source, API).tcp(1, 443),
            allowed("payments", owner),
            RATE,
        );
        p.add(
            format!("{owner}: and no third"),
            "tcp 1 > 443",
            v4(source, API).tcp(1, 443),
            drop("limit-grant").at("payments").by(owner),
            RATE,
        );
    }
    case!(
        p,
        "after a day the burst and no more",
        v4("10.0.0.1", API).tcp(1, 443),
        allowed("payments", "second"),
        RATE
    )
    .at_ms = 86_400_000;
    case!(
        p,
        "the rest of the burst",
        v4("10.0.0.1", API).tcp(1, 443),
        allowed("payments", "second"),
        RATE
    )
    .times = 4;
    case!(
        p,
        "and not one more after a day",
        v4("10.0.0.1", API).tcp(1, 443),
        drop("limit-grant").at("payments").by("second"),
        RATE
    );
    p
}

fn shared() -> Page {
    let limit = client(
        "acme",
        "\"198.51.100.0/24\", \"2001:db8:ac::/48\"",
        "packets = { rate = 1, burst = 4 }",
    );
    let mut p = Page::new(
        "10-shared",
        "Rule 10: one bucket for all sources and services of an owner",
        policy(
            "",
            &format!(
                "{}{}{limit}",
                service("payments", 443, ""),
                service("reports", 444, "")
            ),
        ),
    );
    case!(
        p,
        "one source",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "acme"),
        SHARED
    );
    case!(
        p,
        "another source",
        v4(ACME, API).tcp(1, 443),
        allowed("payments", "acme"),
        SHARED
    );
    case!(
        p,
        "another service",
        v4(LISTED, API).tcp(1, 444),
        allowed("reports", "acme"),
        SHARED
    );
    case!(
        p,
        "another family",
        v6(LISTED6, API6).tcp(1, 443),
        allowed("payments", "acme"),
        SHARED
    );
    case!(
        p,
        "then none of IPv4",
        v4(ACME, API).tcp(1, 444),
        drop("limit-grant").at("reports").by("acme"),
        SHARED
    );
    case!(
        p,
        "then none of IPv6",
        v6(ACME6, API6).tcp(1, 444),
        drop("limit-grant").at("reports").by("acme"),
        SHARED
    );
    p
}

fn none() -> Page {
    let clients = "\n[[client]]\nname = \"free\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"*\"]\n";
    let narrow = client("narrow", "\"198.51.100.7\"", ONE);
    let mut p = Page::new(
        "10-no-limit",
        "Rule 10: a limit that is not set is no limit",
        policy("", &format!("{}{clients}{narrow}", service("payments", 443, ""))),
    );
    let why = "3.10: a limit that is not set is no limit";
    case!(
        p,
        "without limit there is no end",
        v4(ACME, API).tcp(1, 443),
        allowed("payments", "free"),
        why
    )
    .times = 1000;
    case!(
        p,
        "the longer prefix pays first",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "narrow"),
        ORDER
    );
    case!(
        p,
        "then the owner without limit pays always",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "free"),
        why
    )
    .times = 1000;
    p
}
