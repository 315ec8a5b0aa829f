//! What no vector saw until a mutant of the decision lived: each page kills some that nothing else did.

use super::*;
use crate::oracle::frames::{ACK, Extension, SYN, Tcp, Udp};

const CLIENT: &str = r#"
[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
services = ["*"]
"#;

pub(super) fn pages() -> Vec<Page> {
    vec![
        near_link_control(),
        behind_the_end(),
        echo_reply(),
        management_anywhere(),
        one_protocol(),
        many_services(),
        observed_by_protocol(),
        nine(),
        levels(),
        only_connections(),
        listed_and_managed(),
        one_port_of_two(),
        several_and_a_source_limit(),
    ]
}

fn listed_and_managed() -> Page {
    let mut p = Page::new(
        "09-listed-and-managed",
        "Rule 9: a source that one entry lists and management names is listed all the same",
        policy(
            "other-traffic = \"drop\"\n",
            &format!(
                "{ENTRIES}\n[[client]]\nname = \"operator\"\nsources = [\"192.0.2.5\", \"2001:db8:ad::5\"]\n\
                 services = [\"payments\"]\n"
            ),
        ),
    );
    let why = "3.9: a grant matches when its prefix holds the source address and it names the service";
    case!(
        p,
        "its grant admits it to the service",
        v4(ADMIN, API).tcp(1, 443),
        allowed("payments", "operator"),
        why
    );
    case!(
        p,
        "and so over IPv6",
        v6(ADMIN6, API6).tcp(1, 443),
        allowed("payments", "operator"),
        why
    );
    case!(
        p,
        "to a service that it is not listed for it is unlisted",
        v4(ADMIN, DNS).tcp(1, 53),
        drop("unlisted").at("resolver"),
        "3.9: no grant with that address and service: unlisted"
    );
    p
}

const TWO_AT_A_PORT: &str = r#"
[[service]]
name = "payments"
address = ["203.0.113.10", "2001:db8::/64"]
protocol = "tcp"
ports = [443]

[[service]]
name = "refunds"
address = ["203.0.113.53", "2001:db8:0:53::/64"]
protocol = "tcp"
ports = [443]

[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
services = ["refunds"]
"#;

fn one_port_of_two() -> Page {
    let mut p = Page::new(
        "07-one-port-of-two",
        "Rule 7: a port that two services have is the one's whose address it is",
        policy("other-address = \"drop\"\n", TWO_AT_A_PORT),
    );
    let names = "3.7: protocol, destination address and destination port name at most one service";
    case!(
        p,
        "the second service admits its client",
        v4(LISTED, DNS).tcp(1, 443),
        allowed("refunds", "acme"),
        names
    );
    case!(
        p,
        "the first one does not",
        v4(LISTED, API).tcp(1, 443),
        drop("unlisted").at("payments"),
        names
    );
    case!(
        p,
        "the same over IPv6",
        v6(LISTED6, DNS6).tcp(1, 443),
        allowed("refunds", "acme"),
        names
    );
    case!(
        p,
        "the first one's over IPv6",
        v6(LISTED6, API6).tcp(1, 443),
        drop("unlisted").at("payments"),
        names
    );
    case!(
        p,
        "an address that is neither's follows other-address",
        v4(LISTED, ELSE).tcp(1, 443),
        drop("other"),
        "3.7: none, but a service has that protocol and port at another address: other-address decides"
    );
    p
}

fn several_and_a_source_limit() -> Page {
    let mut p = Page::new(
        "10-source-several",
        "Rules 9 and 10: a source of several owners has one bucket of its own",
        policy(
            "source-limit = { packets = { rate = 1, burst = 3 }, connections = { rate = 1, burst = 1 } }\n",
            ENTRIES,
        ),
    );
    let order = "3.10: in this order: the source's own, the grant's; what is taken stays taken";
    let send = |flags| {
        v4(LISTED, API).tcp_with(Tcp {
            flags,
            ..Tcp::new(40000, 443)
        })
    };
    case!(
        p,
        "a first connection",
        send(SYN),
        allowed("payments", "acme"),
        order
    );
    case!(
        p,
        "a second connection is refused, and its packet is taken",
        send(SYN),
        drop("limit-source").at("payments"),
        order
    );
    case!(
        p,
        "the third packet is its last",
        send(ACK),
        allowed("payments", "acme"),
        order
    );
    case!(
        p,
        "the fourth is refused",
        send(ACK),
        drop("limit-source").at("payments"),
        order
    );
    p
}

fn near_link_control() -> Page {
    let why = "3.1: frames that are not IP to 01-80-C2-00-00-00 to -0F pass (essential); what else is not IP follows non-ip";
    let mut p = Page::new(
        "01-near-link-control",
        "Rule 1: non-ip is no other setting, and groups beside link control are not link control",
        policy("other-address = \"drop\"\nnon-ip = \"pass\"\n", ENTRIES),
    );
    let to = |destination| Frame::new(0x88b5, [0; 46]).to(destination);
    case!(
        p,
        "a frame that is not IP passes, whatever other-address says",
        to([2, 0, 0, 0, 0, 1]),
        pass("non-ip"),
        why
    );
    case!(
        p,
        "a group that differs in its fourth byte is none of them",
        to([1, 0x80, 0xc2, 1, 0, 0]),
        pass("non-ip"),
        why
    );
    case!(
        p,
        "a group that differs in its fifth byte is none of them",
        to([1, 0x80, 0xc2, 0, 1, 0]),
        pass("non-ip"),
        why
    );
    case!(
        p,
        "the last of them is",
        to([1, 0x80, 0xc2, 0, 0, 0x0f]),
        pass("essential"),
        why
    );
    p
}

fn behind_the_end() -> Page {
    let why =
        "3.2: any header named here that runs past its packet; Ethernet padding is never read as payload";
    let mut p = Page::new(
        "02-behind-the-end",
        "Rule 2: what stands behind the packet's end completes no header",
        policy(OPEN, ENTRIES),
    );
    let seven = || Udp::new(40000, 53).bytes()[..7].to_vec();
    case!(
        p,
        "a first fragment's UDP header whose last byte is padding",
        Ipv4 {
            protocol: 17,
            payload: seven(),
            ..v4(LISTED, DNS)
        }
        .fragment(0, true)
        .frame()
        .pad(30, 0),
        drop("malformed"),
        why
    );
    case!(
        p,
        "the same in IPv6",
        Ipv6 {
            protocol: 17,
            payload: seven(),
            ..v6(LISTED6, DNS6)
        }
        .ext(Extension::fragment(0, true))
        .frame()
        .pad(30, 0),
        drop("malformed"),
        why
    );
    case!(
        p,
        "an extension header that runs past the packet, before no next header",
        Ipv6 {
            protocol: 59,
            ..v6(LISTED6, ELSE6)
        }
        .ext(Extension::hop_by_hop().length(3))
        .frame()
        .pad(64, 0),
        drop("malformed"),
        why
    );
    case!(
        p,
        "an IPv4 total length under the header, before a protocol that is not looked at",
        Ipv4 {
            protocol: 47,
            payload: vec![0; 8],
            ..v4(LISTED, ELSE)
        }
        .options(&[1, 1, 1, 1])
        .total_length(20)
        .frame(),
        drop("malformed"),
        "3.2: IPv4: total length under the header"
    );
    case!(
        p,
        "the type of service is no length",
        v4(LISTED, API).tcp(40000, 443).frame().flip(1, 0xff),
        allowed("payments", "acme"),
        "3.2: the packet ends where the IP header says"
    );
    p
}

fn echo_reply() -> Page {
    let mut p = Page::new(
        "03-echo-reply",
        "Rule 3: ICMPv6 129 is no listener message",
        policy(OPEN, ENTRIES),
    );
    let why = "3.3: multicast listener messages (130-132, 143) from a link-local source";
    case!(
        p,
        "an echo reply from a link-local source is ICMP",
        v6("fe80::1", API6).icmp(129, 0),
        pass("icmp"),
        why
    );
    case!(
        p,
        "a listener query from there is essential",
        v6("fe80::1", API6).icmp(130, 0),
        pass("essential"),
        why
    );
    p
}

fn management_anywhere() -> Page {
    let entries = r#"
[[service]]
name = "anywhere"
protocol = "tcp"
ports = [443]

[[management]]
name = "ssh"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [22]
"#;
    let mut p = Page::new(
        "04-management-anywhere",
        "Rule 4: where no entry names an address",
        policy("other-traffic = \"drop\"\n", &format!("{entries}{CLIENT}")),
    );
    let why = "3.4: management entries (source, protocol, destination port, and address where given) pass";
    case!(
        p,
        "management passes",
        v4(ADMIN, ELSE).tcp(40000, 22),
        pass("management"),
        why
    );
    case!(
        p,
        "a stranger does not",
        v4(STRANGER, ELSE).tcp(40000, 22),
        drop("other"),
        why
    );
    p
}

fn one_protocol() -> Page {
    let entries = r#"
[[service]]
name = "by-tcp"
address = ["203.0.113.10"]
protocol = "tcp"
ports = [53]

[[service]]
name = "by-udp"
address = ["203.0.113.53"]
protocol = "udp"
ports = [53]
"#;
    let mut p = Page::new(
        "07-one-protocol",
        "Rule 7: one port, two services, each of one protocol",
        policy("other-address = \"drop\"\n", &format!("{entries}{CLIENT}")),
    );
    let why = "3.7: protocol, destination address and destination port name at most one service";
    case!(
        p,
        "TCP to TCP's address",
        v4(LISTED, API).tcp(1, 53),
        allowed("by-tcp", "acme"),
        why
    );
    case!(
        p,
        "UDP to UDP's address",
        v4(LISTED, DNS).udp(1, 53),
        allowed("by-udp", "acme"),
        why
    );
    case!(
        p,
        "TCP to UDP's address",
        v4(LISTED, DNS).tcp(1, 53),
        drop("other"),
        why
    );
    case!(
        p,
        "UDP to TCP's address",
        v4(LISTED, API).udp(1, 53),
        drop("other"),
        why
    );
    p
}

/// More than two words of services.
const SERVICES: usize = 130;

fn many_services() -> Page {
    let mut entries = String::new();
    for number in 0..SERVICES {
        entries += &format!(
            "\n[[service]]\nname = \"s{number}\"\naddress = [\"203.0.113.10\"]\nprotocol = \"tcp\"\nports = [{}]\n",
            1000 + number
        );
    }
    entries += r#"
[[client]]
name = "all"
sources = ["198.51.100.7"]
services = ["*"]

[[client]]
name = "two"
sources = ["198.51.100.200"]
services = ["s63", "s64"]
"#;
    let mut p = Page::new(
        "07-many-services",
        "Rules 7 to 9 with 130 services",
        policy("", &entries),
    );
    let names = "3.7: protocol, destination address and destination port name at most one service";
    let grants = "3.9: a grant matches when it names the service";
    for (number, service) in [
        (0, "s0"),
        (62, "s62"),
        (63, "s63"),
        (64, "s64"),
        (65, "s65"),
        (127, "s127"),
        (128, "s128"),
        (129, "s129"),
    ] {
        let frame = |source| v4(source, API).tcp(40000, 1000 + number);
        let what = format!("tcp 40000 > {}", 1000 + number);
        let name = format!("who has all has {service}");
        p.add(name, &what, frame(LISTED), allowed(service, "all"), names);
        let two = number == 63 || number == 64;
        let expected = if two {
            allowed(service, "two")
        } else {
            drop("unlisted").at(service)
        };
        let name = format!("who has two has {}{service}", if two { "" } else { "not " });
        p.add(name, &what, frame(ACME), expected, grants);
    }
    let listed = "3.8: listed asks for a grant for one of these services that has not ended";
    case!(
        p,
        "a later fragment is let in by one of many",
        v4(ACME, API).tcp(40000, 1063).fragment(100, false),
        pass("fragment").by("two"),
        listed
    );
    case!(
        p,
        "a stranger's later fragment is not",
        v4(STRANGER, API).tcp(40000, 1063).fragment(100, false),
        drop("fragment"),
        listed
    );
    p
}

fn observed_by_protocol() -> Page {
    let entries = r#"
[[service]]
name = "enforced"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "tcp"
ports = [443]

[[service]]
name = "watched"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "udp"
ports = [53]
mode = "observe"
"#;
    let mut p = Page::new(
        "08-observed-by-protocol",
        "Rule 8: only the services of the fragment's own protocol are considered",
        policy("fragments = \"drop\"\n", &format!("{entries}{CLIENT}")),
    );
    let why = "3.8: what (a) drops is observed only if every service considered observes";
    let later = |packet: Ipv4| packet.fragment(100, false);
    case!(
        p,
        "all of UDP's observe",
        later(v4(LISTED, API).udp(1, 53)),
        observe("fragment"),
        why
    );
    case!(
        p,
        "none of TCP's does",
        later(v4(LISTED, API).tcp(1, 443)),
        drop("fragment"),
        why
    );
    case!(
        p,
        "in IPv6 both are considered, and one does not",
        v6(LISTED6, API6).ext(Extension::fragment(100, false)).udp(1, 53),
        drop("fragment"),
        why
    );
    p
}

fn nine() -> Page {
    let mut entries = String::from(
        "\n[[service]]\nname = \"payments\"\naddress = [\"203.0.113.10\"]\nprotocol = \"tcp\"\nports = [443]\n",
    );
    for number in 0..9 {
        entries += &format!(
            "\n[[client]]\nname = \"c{number}\"\nsources = [\"198.51.100.7\"]\nservices = [\"*\"]\n"
        );
    }
    let mut p = Page::new("10-nine", "Rule 10: one more than eight", policy("", &entries));
    let why = "3.10: with n > 8, try eight from index (source port mod n), wrapping";
    case!(
        p,
        "port 5 of nine",
        v4(LISTED, API).tcp(5, 443),
        allowed("payments", "c5"),
        why
    );
    case!(
        p,
        "port 17 of nine",
        v4(LISTED, API).tcp(17, 443),
        allowed("payments", "c8"),
        why
    );
    case!(
        p,
        "port 18 of nine",
        v4(LISTED, API).tcp(18, 443),
        allowed("payments", "c0"),
        why
    );
    p
}

fn levels() -> Page {
    let entries = r#"
[[service]]
name = "payments"
address = ["203.0.113.10"]
protocol = "tcp"
ports = [443]
limit = { packets = { rate = 1, burst = 3 }, bytes = { rate = 10, burst = 200 }, connections = { rate = 1, burst = 2 } }
"#;
    let mut p = Page::new(
        "10-service-levels",
        "Rule 10: packets, bytes and connections of a service have buckets of their own",
        policy("", &format!("{entries}{CLIENT}")),
    );
    let why = "3.10: at each level packets, then bytes, then connections; what is taken stays taken";
    let refused = drop("limit-service").at("payments").by("acme");
    let send = |flags| {
        v4(LISTED, API).tcp_with(Tcp {
            flags,
            ..Tcp::new(1, 443)
        })
    };
    case!(
        p,
        "two connections are two packets and 80 bytes",
        send(SYN),
        allowed("payments", "acme"),
        why
    )
    .times = 2;
    case!(
        p,
        "a third connection is refused, and was a packet",
        send(SYN),
        refused,
        why
    );
    case!(p, "a fourth packet is refused", send(ACK), refused, why);
    case!(
        p,
        "after a second there is a packet again",
        send(ACK),
        allowed("payments", "acme"),
        why
    )
    .at_ms = 1100;
    p
}

fn only_connections() -> Page {
    let entries = r#"
[[service]]
name = "payments"
address = ["203.0.113.10"]
protocol = "tcp"
ports = [443]
limit = { connections = { rate = 1, burst = 1 } }
"#;
    let mut p = Page::new(
        "10-service-connections",
        "Rule 10: a limit of connections alone",
        policy("", &format!("{entries}{CLIENT}")),
    );
    let why = "3.10: a TCP SYN without ACK is 1 connection";
    let send = |flags| {
        v4(LISTED, API).tcp_with(Tcp {
            flags,
            ..Tcp::new(1, 443)
        })
    };
    case!(
        p,
        "the first connection",
        send(SYN),
        allowed("payments", "acme"),
        why
    );
    case!(
        p,
        "the second",
        send(SYN),
        drop("limit-service").at("payments").by("acme"),
        why
    );
    case!(
        p,
        "packets of the first",
        send(ACK),
        allowed("payments", "acme"),
        why
    )
    .times = 5;
    p
}
