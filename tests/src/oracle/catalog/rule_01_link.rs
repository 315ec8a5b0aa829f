//! SPEC 3.1.

use super::*;

const NON_IP: &str = "3.1: what else is neither IPv4 nor IPv6 by its EtherType follows non-ip";
const CONTROL: &str = "3.1: frames that are not IP to 01-80-C2-00-00-00 to -0F pass (essential)";

pub(super) fn pages() -> Vec<Page> {
    vec![
        tags(),
        essential(),
        other("01-non-ip-dropped", CLOSED, drop("non-ip")),
        other("01-non-ip-passed", OPEN, pass("non-ip")),
    ]
}

fn tags() -> Page {
    let mut p = Page::new("01-vlan-tags", "Rule 1: VLAN tags", policy(CLOSED, ENTRIES));
    let up_to_two = "3.1: up to two VLAN tags (0x8100, 0x88a8) are skipped";
    let ours = || v4(LISTED, API).tcp(40000, 443).frame();
    let theirs = || v4(STRANGER, API).tcp(40000, 443).frame();
    let ours6 = || v6(LISTED6, API6).tcp(40000, 443).frame();
    let yes = allowed("payments", "acme");
    let no = drop("unlisted").at("payments");
    case!(p, "an untagged frame is judged", ours(), yes, up_to_two);
    for (name, tags) in [
        ("an 802.1Q tag", &[0x8100][..]),
        ("an 802.1ad tag", &[0x88a8]),
        ("a service and a customer tag", &[0x88a8, 0x8100]),
        ("two 802.1Q tags", &[0x8100, 0x8100]),
        ("two 802.1ad tags", &[0x88a8, 0x88a8]),
        ("a customer and a service tag", &[0x8100, 0x88a8]),
    ] {
        let tagged = |frame: Frame| tags.iter().fold(frame, |frame, tag| frame.tag(*tag, 0x2005));
        let what = format!("tcp 40000 > 443 behind the tags {tags:04x?}");
        p.add(
            format!("behind {name} a listed source is let in"),
            &what,
            tagged(ours()),
            yes,
            up_to_two,
        );
        p.add(
            format!("behind {name} a stranger is dropped"),
            &what,
            tagged(theirs()),
            no,
            up_to_two,
        );
        p.add(
            format!("behind {name} IPv6 is judged"),
            &what,
            tagged(ours6()),
            yes,
            up_to_two,
        );
    }
    case!(
        p,
        "a priority tag is a tag",
        ours().tag(0x8100, 0),
        yes,
        up_to_two
    );
    let third = "3.1: a third tag is malformed";
    case!(
        p,
        "a third 802.1Q tag is malformed",
        ours().tag(0x8100, 1).tag(0x8100, 2).tag(0x8100, 3),
        drop("malformed"),
        third
    );
    case!(
        p,
        "a third 802.1ad tag is malformed",
        ours().tag(0x8100, 1).tag(0x8100, 2).tag(0x88a8, 3),
        drop("malformed"),
        third
    );
    case!(
        p,
        "three priority tags are malformed",
        ours().tag(0x8100, 0).tag(0x8100, 0).tag(0x8100, 0),
        drop("malformed"),
        third
    );
    case!(
        p,
        "ARP behind a third tag is malformed",
        Frame::arp().tag(0x8100, 1).tag(0x8100, 2).tag(0x8100, 3),
        drop("malformed"),
        third
    );
    case!(
        p,
        "spanning tree behind a third tag is malformed",
        stp(0).tag(0x8100, 1).tag(0x8100, 2).tag(0x8100, 3),
        drop("malformed"),
        third
    );
    case!(
        p,
        "a third tag that is cut is malformed",
        Frame::new(0x8100, [0, 1]).tag(0x8100, 1).tag(0x8100, 2),
        drop("malformed"),
        third
    );
    let cut = "3.1: a cut tag is malformed";
    case!(
        p,
        "a frame that ends at its tag's EtherType is malformed",
        Frame::new(0x8100, []),
        drop("malformed"),
        cut
    );
    case!(
        p,
        "a tag cut after two bytes is malformed",
        Frame::new(0x8100, [0, 5]),
        drop("malformed"),
        cut
    );
    case!(
        p,
        "a tag cut after three bytes is malformed",
        Frame::new(0x88a8, [0, 5, 8]),
        drop("malformed"),
        cut
    );
    case!(
        p,
        "a second tag that is cut is malformed",
        Frame::new(0x8100, [0, 5, 8]).tag(0x88a8, 7),
        drop("malformed"),
        cut
    );
    case!(
        p,
        "a whole tag with an IPv4 EtherType and nothing after it is malformed",
        Frame::new(0x0800, []).tag(0x8100, 5),
        drop("malformed"),
        "3.2: a header that runs past its packet"
    );
    case!(
        p,
        "a whole tag with nothing after it is not IP",
        Frame::new(0x88cc, []).tag(0x8100, 5),
        drop("non-ip"),
        NON_IP
    );
    p
}

fn stp(last: u8) -> Frame {
    Frame::llc(0x42, 0x42, 3, &[0; 35]).to([0x01, 0x80, 0xc2, 0, 0, last])
}

fn essential() -> Page {
    let mut p = Page::new(
        "01-essential",
        "Rule 1: ARP and link control",
        policy(CLOSED, ENTRIES),
    );
    let arp = "3.1: ARP passes";
    case!(p, "ARP passes", Frame::arp(), pass("essential"), arp);
    case!(
        p,
        "ARP behind a tag passes",
        Frame::arp().tag(0x8100, 5),
        pass("essential"),
        arp
    );
    case!(
        p,
        "ARP behind two tags passes",
        Frame::arp().tag(0x88a8, 5).tag(0x8100, 5),
        pass("essential"),
        arp
    );
    case!(
        p,
        "ARP without a body passes, for it is not read",
        Frame::new(0x0806, []),
        pass("essential"),
        arp
    );
    case!(
        p,
        "reverse ARP is not ARP",
        Frame::new(0x8035, [0; 46]),
        drop("non-ip"),
        NON_IP
    );
    case!(p, "spanning tree passes", stp(0), pass("essential"), CONTROL);
    case!(
        p,
        "LACP passes",
        Frame::new(0x8809, [1; 46]).to([0x01, 0x80, 0xc2, 0, 0, 2]),
        pass("essential"),
        CONTROL
    );
    case!(
        p,
        "LLDP passes",
        Frame::new(0x88cc, [1; 46]).to([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        pass("essential"),
        CONTROL
    );
    case!(
        p,
        "the last address of link control passes",
        stp(0x0f),
        pass("essential"),
        CONTROL
    );
    case!(
        p,
        "link control behind a tag passes",
        stp(0).tag(0x8100, 5),
        pass("essential"),
        CONTROL
    );
    case!(
        p,
        "link control behind two tags passes",
        stp(3).tag(0x88a8, 5).tag(0x8100, 6),
        pass("essential"),
        CONTROL
    );
    case!(
        p,
        "the address after link control is not",
        stp(0x10),
        drop("non-ip"),
        NON_IP
    );
    case!(
        p,
        "an address near link control is not",
        stp(0).to([0x01, 0x80, 0xc2, 0, 1, 0]),
        drop("non-ip"),
        NON_IP
    );
    case!(
        p,
        "a unicast address that ends the same is not",
        stp(0).to([0x00, 0x80, 0xc2, 0, 0, 0]),
        drop("non-ip"),
        NON_IP
    );
    case!(
        p,
        "IPv4 to link control's address is judged",
        v4(STRANGER, API)
            .tcp(1, 443)
            .frame()
            .to([0x01, 0x80, 0xc2, 0, 0, 0]),
        drop("unlisted").at("payments"),
        CONTROL
    );
    case!(
        p,
        "IPv6 to link control's address is judged",
        v6(STRANGER6, API6)
            .tcp(1, 443)
            .frame()
            .to([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        drop("unlisted").at("payments"),
        CONTROL
    );
    case!(
        p,
        "broken IPv4 to link control's address is malformed",
        Frame::new(0x0800, [0x45; 19]).to([0x01, 0x80, 0xc2, 0, 0, 0]),
        drop("malformed"),
        CONTROL
    );
    case!(
        p,
        "tagged IPv4 to link control's address is judged",
        v4(LISTED, API)
            .tcp(1, 443)
            .frame()
            .tag(0x8100, 9)
            .to([0x01, 0x80, 0xc2, 0, 0, 0]),
        allowed("payments", "acme"),
        CONTROL
    );
    p
}

fn other(name: &'static str, filter: &str, answer: Expected) -> Page {
    let mut p = Page::new(
        name,
        "Rule 1: what is not IP follows non-ip",
        policy(filter, ENTRIES),
    );
    let lengths = "3.1: 802.3 lengths are neither IPv4 nor IPv6, so they follow non-ip";
    let inner = v4(LISTED, API).tcp(40000, 443);
    case!(
        p,
        "PPPoE is not IP",
        Frame::new(0x8864, [0x11; 46]),
        answer,
        NON_IP
    );
    case!(
        p,
        "MPLS is not IP",
        Frame::new(0x8847, [0; 4]).trailer(&inside(&inner)),
        answer,
        NON_IP
    );
    case!(p, "MACsec is not IP", Frame::new(0x88e5, [0; 46]), answer, NON_IP);
    case!(
        p,
        "LLDP to another address is not IP",
        Frame::new(0x88cc, [1; 46]),
        answer,
        NON_IP
    );
    case!(
        p,
        "a 0x9100 tag is no tag",
        inner.clone().frame().tag(0x9100, 5),
        answer,
        NON_IP
    );
    case!(
        p,
        "a 0x9100 tag within a tag is no tag",
        inner.clone().frame().tag(0x8100, 5).tag(0x9100, 6),
        answer,
        NON_IP
    );
    case!(
        p,
        "an EtherType one above IPv4 is not IP",
        inner.clone().frame().ether_type(0x0801),
        answer,
        NON_IP
    );
    case!(
        p,
        "EtherType 0 is not IP",
        inner.clone().frame().ether_type(0),
        answer,
        lengths
    );
    case!(
        p,
        "a frame of 14 bytes that is not IP has nothing to be malformed",
        Frame::new(0x9000, []),
        answer,
        NON_IP
    );
    case!(
        p,
        "LLC is not IP",
        Frame::llc(0x42, 0x42, 3, &[0; 35]),
        answer,
        lengths
    );
    case!(
        p,
        "IPv4 in LLC/SNAP is not IP by its EtherType",
        Frame::snap(0x0800, &inside(&inner)),
        answer,
        lengths
    );
    case!(
        p,
        "IPv4 right after an 802.3 length is not IP",
        Frame::new(40, inside(&inner)),
        answer,
        lengths
    );
    case!(
        p,
        "the longest 802.3 length is a length",
        Frame::new(1500, inside(&inner)),
        answer,
        lengths
    );
    case!(
        p,
        "LLC behind a tag is not IP",
        Frame::llc(0x42, 0x42, 3, &[0; 35]).tag(0x8100, 5),
        answer,
        lengths
    );
    case!(
        p,
        "a listed source is still let in",
        inner.frame(),
        allowed("payments", "acme"),
        "3.1: IPv4 by its EtherType"
    );
    p
}
