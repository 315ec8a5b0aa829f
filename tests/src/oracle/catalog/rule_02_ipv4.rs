//! SPEC 3.2, where a packet ends, and the IPv4 header.

use super::*;
use crate::oracle::frames::{Extension, Tcp, Udp};

const BAD: fn() -> Expected = || drop("malformed");
const YES: fn() -> Expected = || allowed("payments", "acme");

pub(super) fn pages() -> Vec<Page> {
    vec![packet_end(), merged(), ipv4(), ipv4_offset_1()]
}

fn packet_end() -> Page {
    let mut p = Page::new(
        "02-packet-end",
        "Rule 2: a packet ends where its IP header says",
        policy(OPEN, ENTRIES),
    );
    let past = "3.2: any header that runs past its packet is malformed";
    let padding = "3.2: the packet ends where the IP header says; Ethernet padding is never read as payload";
    let ours = || v4(LISTED, API).tcp(40000, 443);
    let ours6 = || v6(LISTED6, API6).tcp(40000, 443);
    case!(
        p,
        "an IPv4 EtherType with nothing after it is malformed",
        Frame::new(0x0800, []),
        BAD(),
        past
    );
    case!(
        p,
        "an IPv6 EtherType with nothing after it is malformed",
        Frame::new(0x86dd, []),
        BAD(),
        past
    );
    case!(
        p,
        "an IPv4 header of 19 bytes is malformed",
        v4(LISTED, API).frame().cut(1),
        BAD(),
        past
    );
    case!(
        p,
        "an IPv4 header alone is a packet of another protocol",
        v4(LISTED, API).frame(),
        pass("other"),
        past
    );
    case!(
        p,
        "an IPv6 header of 39 bytes is malformed",
        v6(LISTED6, API6).frame().cut(1),
        BAD(),
        past
    );
    case!(
        p,
        "an IPv6 header alone is a packet without next header",
        v6(LISTED6, API6).frame(),
        pass("other"),
        past
    );
    case!(
        p,
        "IPv4 options cut by the frame are malformed",
        v4(LISTED, API).options(&[1; 8]).frame().cut(4),
        BAD(),
        past
    );
    case!(
        p,
        "zero padding after a short packet is ignored",
        ours().frame().pad(6, 0),
        YES(),
        padding
    );
    case!(
        p,
        "padding of any bytes is ignored",
        ours().frame().pad(6, 0xff),
        YES(),
        padding
    );
    case!(
        p,
        "padding after IPv6 is ignored",
        ours6().frame().pad(20, 0xff),
        YES(),
        padding
    );
    case!(
        p,
        "padding without end is ignored",
        ours().frame().pad(1400, 0x45),
        YES(),
        padding
    );
    case!(
        p,
        "a TCP header in the padding is none",
        ours().total_length(20),
        BAD(),
        padding
    );
    case!(
        p,
        "a TCP header half in the padding is cut",
        ours().total_length(39),
        BAD(),
        padding
    );
    case!(
        p,
        "a TCP header in IPv6 padding is none",
        ours6().payload_length(0),
        BAD(),
        padding
    );
    case!(
        p,
        "a TCP header half in IPv6 padding is cut",
        ours6().payload_length(19),
        BAD(),
        padding
    );
    case!(
        p,
        "TCP options in the padding are cut",
        v4(LISTED, API)
            .tcp_with(Tcp {
                data_offset: Some(6),
                ..Tcp::new(40000, 443)
            })
            .frame()
            .pad(4, 1),
        BAD(),
        padding
    );
    case!(
        p,
        "a UDP header in the padding is none",
        v4(LISTED, DNS).udp(40000, 53).total_length(27),
        BAD(),
        padding
    );
    case!(
        p,
        "a UDP length that counts the padding is past the packet",
        v4(LISTED, DNS)
            .udp_with(Udp {
                length: Some(20),
                ..Udp::new(40000, 53)
            })
            .frame()
            .pad(4, 0),
        BAD(),
        padding
    );
    case!(
        p,
        "an ICMP header half in the padding is cut",
        v4(LISTED, API).icmp(8, 0).total_length(27),
        BAD(),
        padding
    );
    case!(
        p,
        "an ICMPv6 header half in the padding is cut",
        v6(LISTED6, API6).icmp(128, 0).payload_length(7),
        BAD(),
        padding
    );
    case!(
        p,
        "an extension header in the padding is none",
        v6(LISTED6, API6)
            .ext(Extension::hop_by_hop())
            .tcp(40000, 443)
            .payload_length(0),
        BAD(),
        padding
    );
    case!(
        p,
        "an extension header half in the padding is cut",
        v6(LISTED6, API6)
            .ext(Extension::options(60, 2))
            .tcp(40000, 443)
            .payload_length(8),
        BAD(),
        padding
    );
    case!(
        p,
        "another protocol's header in the padding is not missed",
        v4(LISTED, API).payload(47, vec![0; 4]).total_length(20),
        pass("other"),
        "3.2: the headers of other protocols are not looked at"
    );
    p
}

fn merged() -> Page {
    let mut p = Page::new(
        "02-merged",
        "Rule 2: merged frames above 65,535 bytes (too long for the kernel's test run)",
        policy(OPEN, ENTRIES),
    );
    let why = "3.2: a merged frame above 65,535 bytes whose length field is 0 ends at the frame's end";
    let only =
        "3.2: only above 65,535 bytes; else a total length under the header, or a header past its packet";
    case!(
        p,
        "IPv4 of length 0 in 65,536 bytes ends at the frame's end",
        v4(LISTED, API).tcp(40000, 443).total_length(0),
        YES(),
        why
    )
    .zeros = 65_536 - 54;
    case!(
        p,
        "IPv4 of length 0 in 65,535 bytes is malformed",
        v4(LISTED, API).tcp(40000, 443).total_length(0),
        BAD(),
        only
    )
    .zeros = 65_535 - 54;
    case!(
        p,
        "IPv4 of length 0 in a short frame is malformed",
        v4(LISTED, API).tcp(40000, 443).total_length(0),
        BAD(),
        only
    );
    case!(
        p,
        "a stranger's merged frame is dropped",
        v4(STRANGER, API).tcp(40000, 443).total_length(0),
        drop("unlisted").at("payments"),
        why
    )
    .zeros = 90_000;
    case!(
        p,
        "IPv6 of length 0 in 65,536 bytes ends at the frame's end",
        v6(LISTED6, API6).tcp(40000, 443).payload_length(0),
        YES(),
        why
    )
    .zeros = 65_536 - 74;
    case!(
        p,
        "IPv6 of length 0 in 65,535 bytes is malformed",
        v6(LISTED6, API6).tcp(40000, 443).payload_length(0),
        BAD(),
        only
    )
    .zeros = 65_535 - 74;
    case!(
        p,
        "a merged frame with a jumbo option is judged behind it",
        v6(LISTED6, API6)
            .ext(Extension::hop_by_hop())
            .tcp(40000, 443)
            .payload_length(0),
        YES(),
        why
    )
    .zeros = 100_000;
    case!(
        p,
        "a long frame whose length is not 0 ends where it says",
        v4(LISTED, API).tcp(40000, 443).total_length(39),
        BAD(),
        "3.2: the packet ends where the IP header says"
    )
    .zeros = 90_000;
    p
}

fn ipv4() -> Page {
    let mut p = Page::new("02-ipv4", "Rule 2: the IPv4 header", policy(OPEN, ENTRIES));
    let ours = || v4(LISTED, API).tcp(40000, 443);
    let version = "3.2: IPv4: version not 4";
    for number in [0, 1, 3, 5, 6, 15] {
        p.add(
            format!("IPv4 of version {number} is malformed"),
            &format!("tcp 40000 > 443, version {number}"),
            ours().version(number),
            BAD(),
            version,
        );
    }
    case!(
        p,
        "IPv6 under IPv4's EtherType is malformed",
        v6(LISTED6, API6).tcp(40000, 443).frame().ether_type(0x0800),
        BAD(),
        version
    );
    for words in 0..=4 {
        p.add(
            format!("a header of {words} words is malformed"),
            &format!("tcp 40000 > 443, header length {words}"),
            ours().header_words(words),
            BAD(),
            "3.2: IPv4: header under 20 bytes",
        );
    }
    case!(
        p,
        "a header of five words is let in",
        ours().header_words(5),
        YES(),
        "3.2: IPv4: header under 20 bytes"
    );
    for words in 6..=15 {
        let options = vec![1; (words - 5) * 4];
        let what = format!("tcp 40000 > 443 behind {} bytes of options", options.len());
        p.add(
            format!("behind a header of {words} words a listed source is let in"),
            &what,
            ours().options(&options),
            YES(),
            "3.2: the packet's headers follow the IPv4 header, options and all",
        );
        p.add(
            format!("behind a header of {words} words a stranger is dropped"),
            &what,
            v4(STRANGER, API).tcp(40000, 443).options(&options),
            drop("unlisted").at("payments"),
            "3.2: the packet's headers follow the IPv4 header, options and all",
        );
    }
    let under = "3.2: IPv4: total length under the header";
    case!(
        p,
        "a total length of 0 is malformed",
        ours().total_length(0),
        BAD(),
        under
    );
    case!(
        p,
        "a total length of 19 is malformed",
        ours().total_length(19),
        BAD(),
        under
    );
    case!(
        p,
        "a total length of 20 under a header of 24 is malformed",
        ours().options(&[1; 4]).total_length(20),
        BAD(),
        under
    );
    case!(
        p,
        "a total length of 23 under a header of 24 is malformed",
        ours().options(&[1; 4]).total_length(23),
        BAD(),
        under
    );
    case!(
        p,
        "a total length of the header alone is no fault of its own",
        v4(LISTED, API).options(&[1; 4]).total_length(24),
        pass("other"),
        under
    );
    let past = "3.2: IPv4: total length past the frame";
    case!(
        p,
        "a total length one past the frame is malformed",
        ours().total_length(41),
        BAD(),
        past
    );
    case!(
        p,
        "the greatest total length in a short frame is malformed",
        ours().total_length(65_535),
        BAD(),
        past
    );
    case!(
        p,
        "a total length that is the frame's is let in",
        ours().total_length(40),
        YES(),
        past
    );
    case!(
        p,
        "a total length past the frame by its tag is malformed",
        ours().frame().tag(0x8100, 5).cut(4),
        BAD(),
        past
    );
    let reserved = "3.2: the reserved flag is ignored";
    case!(
        p,
        "a listed source with the reserved flag is let in",
        ours().reserved_flag(),
        YES(),
        reserved
    );
    case!(
        p,
        "a stranger with the reserved flag is dropped",
        v4(STRANGER, API).tcp(40000, 443).reserved_flag(),
        drop("unlisted").at("payments"),
        reserved
    );
    let dont = |mut packet: crate::oracle::frames::Ipv4| {
        packet.dont_fragment = true;
        packet
    };
    case!(
        p,
        "don't-fragment is no matter",
        dont(ours()),
        YES(),
        "3: packets are judged by the rules named"
    );
    case!(
        p,
        "don't-fragment on a first fragment is no matter",
        dont(ours()).fragment(0, true),
        YES(),
        "3.7: a first fragment names its service"
    );
    let sums = "3: checksums are not verified";
    case!(
        p,
        "a wrong IPv4 checksum is no matter",
        ours().frame().flip(10, 0xff),
        YES(),
        sums
    );
    case!(
        p,
        "a wrong TCP checksum is no matter",
        ours().frame().flip(36, 0xff),
        YES(),
        sums
    );
    case!(
        p,
        "a wrong IPv4 checksum does not let a stranger in",
        v4(STRANGER, API).tcp(40000, 443).frame().flip(10, 0xff),
        drop("unlisted").at("payments"),
        sums
    );
    p
}

fn ipv4_offset_1() -> Page {
    let mut p = Page::new(
        "02-ipv4-offset-1",
        "Rule 2: a TCP fragment of offset 1",
        policy(OPEN, ENTRIES),
    );
    let why = "3.2: IPv4: a TCP fragment of offset 1 (8 bytes)";
    case!(
        p,
        "a TCP fragment of offset 1 is malformed",
        v4(LISTED, API).tcp(40000, 443).fragment(1, false),
        BAD(),
        why
    );
    case!(
        p,
        "with more to come too",
        v4(LISTED, API).tcp(40000, 443).fragment(1, true),
        BAD(),
        why
    );
    case!(
        p,
        "with the reserved flag too",
        v4(LISTED, API).tcp(40000, 443).fragment(1, true).reserved_flag(),
        BAD(),
        why
    );
    case!(
        p,
        "to no service too",
        v4(STRANGER, ELSE).tcp(40000, 80).fragment(1, false),
        BAD(),
        why
    );
    case!(
        p,
        "without a byte of payload too",
        v4(LISTED, API).payload(6, vec![]).fragment(1, true),
        BAD(),
        why
    );
    case!(
        p,
        "a TCP fragment of offset 2 is a later fragment",
        v4(LISTED, API).tcp(40000, 443).fragment(2, false),
        pass("fragment"),
        "3.8: fragments decides"
    );
    case!(
        p,
        "a UDP fragment of offset 1 is a later fragment",
        v4(LISTED, DNS).udp(40000, 53).fragment(1, false),
        pass("fragment"),
        why
    );
    case!(
        p,
        "an ICMP fragment of offset 1 to no service is judged as ICMP",
        v4(LISTED, ELSE).icmp(8, 0).fragment(1, false),
        pass("icmp"),
        why
    );
    case!(
        p,
        "an IPv6 fragment of offset 1 is a later fragment",
        v6(LISTED6, API6)
            .ext(Extension::fragment(1, false))
            .tcp(40000, 443),
        pass("fragment"),
        "3.2: the rule of offset 1 is IPv4's"
    );
    p
}
