//! Every verdict and reason that this build can give, of frames sent one by one: what bpftool reads from the
//! counters, and what the metrics say, is what was sent. Packets and bytes, and nothing else is counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::frames::{
    self, ARP, ETHERNET_BYTES, FRAGMENT, ICMPV6, IPV4, IPV6, SYN, TCP, UDP, ethernet, ethernet_to, icmp, ip,
    ipv4, ipv6, tagged, tcp, udp,
};
use keyfence_tests::harness::{
    Attach, Counts, Daemon, INSIDE, LISTED, Label, Policy, SERVER, STRANGER, Script, Site,
};

const API: u16 = 7000;
const NARROW: u16 = 7001;
const WATCHED: u16 = 7002;
const UNSERVED: u16 = 7999;
const LISTED4: IpAddr = IpAddr::V4(LISTED.v4);
const LISTED6: IpAddr = IpAddr::V6(LISTED.v6);
const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);
const STRANGER6: IpAddr = IpAddr::V6(STRANGER.v6);
const SERVER4: IpAddr = IpAddr::V4(SERVER.v4);
const SERVER6: IpAddr = IpAddr::V6(SERVER.v6);

const fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, number))
}

/// Of no service.
const ELSEWHERE: IpAddr = host(200);
const ADMIN_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const ADMIN: IpAddr = IpAddr::V4(ADMIN_V4);
const ADMIN_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 10);
const ADMIN6: IpAddr = IpAddr::V6(ADMIN_V6);
const SLOW: IpAddr = host(11);
const ENDED: IpAddr = host(12);
const PORTED: IpAddr = host(13);
const DENIED: IpAddr = host(14);

/// What the numbers above stand for; tokens do not come back while the test runs.
const ENTRIES: &str = include_str!("../fixtures/verdicts.toml");

const DROP_ALL: &str = "other-traffic = \"drop\"\nother-address = \"drop\"\nnon-ip = \"drop\"\nping = \"listed\"\n\
                        fragments = \"listed\"";
const PASS_ALL: &str = "other-traffic = \"pass\"\nother-address = \"pass\"\nnon-ip = \"pass\"\nping = \"pass\"\n\
                        fragments = \"pass\"";

/// Sends datagrams to the server; its port names the service.
fn datagrams(script: &mut Script, times: u64, source: (IpAddr, u16), port: u16, judged: (Verdict, Reason)) {
    let service = match port {
        API => "api",
        NARROW => "narrow",
        WATCHED => "watched",
        _ => "",
    };
    let to = if source.0.is_ipv6() { SERVER6 } else { SERVER4 };
    let frame = udp(source.0, source.1, to, port, b"data");
    script.send(times, &frame, service, judged.0, judged.1);
}

/// Rules 1 to 3, whatever the policy says.
fn send_essential(script: &mut Script) {
    use Reason::Essential;
    use Verdict::Pass;
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[0; 20]].concat();
    script.send(2, &ethernet(ARP, &arp), "", Pass, Essential);
    let lldp = ethernet_to([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, &[0; 46]);
    script.send(1, &lldp, "", Pass, Essential);
    let solicitation = icmp(STRANGER6, SERVER6, 135, 0, 255);
    script.send(3, &solicitation, "", Pass, Essential);
    let link_local = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66));
    script.send(1, &icmp(link_local, SERVER6, 143, 0, 1), "", Pass, Essential);
    script.send(1, &udp(STRANGER4, 67, SERVER4, 68, b"offer"), "", Pass, Essential);
}

/// Rule 2; `refused` is drop, or observe where the filter observes.
fn send_malformed(script: &mut Script, refused: Verdict) {
    let good = udp(LISTED4, 40_000, SERVER4, API, b"data");
    let broken = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[ETHERNET_BYTES + at] = value;
        frame
    };
    let mapped = Ipv4Addr::new(10, 77, 0, 2).to_ipv6_mapped();
    let nine = (0..9).fold(vec![0; 8], |rest, _| {
        [&[60, 0, 0, 0, 0, 0, 0, 0], &rest[..]].concat()
    });
    let frames = [
        ("version", broken(0, 0x55)),
        ("short header", broken(0, 0x44)),
        ("longer than the frame", broken(2, 0x40)),
        ("UDP longer than its packet", broken(24, 0x40)),
        (
            "three tags",
            tagged(0x8100, 0, &tagged(0x8100, 0, &tagged(0x8100, 0, &good))),
        ),
        ("cut tag", ethernet(0x8100, &[0, 0])),
        ("no IPv4 header", ethernet(IPV4, &[0x45; 6])),
        (
            "IPv4 inside IPv6",
            ip(IpAddr::V6(mapped), SERVER6, UDP, &frames::udp_header(1, API, 8)),
        ),
        (
            "nine extension headers",
            ethernet(IPV6, &ipv6(LISTED.v6, SERVER.v6, 60, 64, &nine)),
        ),
        ("cut TCP", ip(LISTED4, SERVER4, TCP, &[0; 12])),
        (
            "TCP fragment of offset 1",
            ethernet(IPV4, &ipv4(LISTED.v4, SERVER.v4, TCP, 1, &[0; 32])),
        ),
    ];
    for (what, frame) in frames {
        assert!(frame.len() >= ETHERNET_BYTES, "{what} is a frame");
        script.send(1, &frame, "", refused, Reason::Malformed);
    }
}

/// Rules 4 and 5.
fn send_management_and_denied(script: &mut Script, refused: Verdict) {
    use Reason::{Denied, Management};
    use Verdict::Pass;
    script.send(2, &tcp(ADMIN, 50_000, SERVER4, 22, SYN), "", Pass, Management);
    script.send(1, &tcp(ADMIN6, 50_000, SERVER6, 22, SYN), "", Pass, Management);
    let later = ipv4(ADMIN_V4, SERVER.v4, TCP, 185, &[0; 40]);
    script.send(1, &ethernet(IPV4, &later), "", Pass, Management);
    // In IPv6 a later fragment's protocol is never known.
    let piece = frames::fragment(UDP, 185, false, &[0; 40]);
    let later = ipv6(ADMIN_V6, SERVER.v6, FRAGMENT, 64, &piece);
    script.send(1, &ethernet(IPV6, &later), "", Pass, Management);
    datagrams(script, 3, (DENIED, 1), UNSERVED, (refused, Denied));
    script.send(1, &udp(DENIED, 1, SERVER4, API, b""), "", refused, Denied);
    script.send(1, &tcp(DENIED, 1, SERVER4, 22, SYN), "", refused, Denied);
}

/// Rules 9 and 10 of services that enforce, whatever the filter's mode.
fn send_to_services(script: &mut Script) {
    use Reason::*;
    use Verdict::{Drop, Pass};
    datagrams(script, 3, (LISTED4, 1), API, (Pass, Allowed));
    datagrams(script, 2, (LISTED6, 1), API, (Pass, Allowed));
    script.send(1, &tcp(LISTED4, 1, SERVER4, API, SYN), "api", Pass, Allowed);
    let inner = udp(LISTED4, 1, SERVER4, API, b"tagged");
    let frame = tagged(0x88a8, 0, &tagged(0x8100, 0, &inner));
    let label = Label::new("api", Pass, Allowed);
    script.send_counted(2, &frame, inner.len() - ETHERNET_BYTES, label.clone());
    // Ethernet padding is no part of the packet.
    let bare = udp(LISTED4, 1, SERVER4, API, b"");
    let padded = [&bare[..], &[0; 18]].concat();
    script.send_counted(1, &padded, bare.len() - ETHERNET_BYTES, label);

    datagrams(script, 4, (STRANGER4, 1), API, (Drop, Unlisted));
    datagrams(script, 2, (STRANGER6, 1), API, (Drop, Unlisted));
    script.send(1, &tcp(STRANGER4, 1, SERVER4, API, SYN), "api", Drop, Unlisted);
    datagrams(script, 2, (ENDED, 1), API, (Drop, Ended));
    datagrams(script, 1, (PORTED, 40_009), API, (Pass, Allowed));
    datagrams(script, 2, (PORTED, 40_010), API, (Drop, SourcePort));
    datagrams(script, 4, (SLOW, 1), API, (Pass, Allowed));
    datagrams(script, 3, (SLOW, 1), API, (Drop, LimitGrant));
    datagrams(script, 2, (LISTED4, 1), NARROW, (Pass, Allowed));
    datagrams(script, 5, (LISTED4, 1), NARROW, (Drop, LimitService));
}

/// A service that observes lets through what it would drop.
fn send_to_watched_service(script: &mut Script) {
    use Reason::*;
    use Verdict::{Observe, Pass};
    datagrams(script, 2, (STRANGER4, 1), WATCHED, (Observe, Unlisted));
    datagrams(script, 1, (ENDED, 1), WATCHED, (Observe, Ended));
    datagrams(script, 1, (PORTED, 1), WATCHED, (Observe, SourcePort));
    datagrams(script, 1, (SLOW, 1), WATCHED, (Observe, LimitGrant));
    datagrams(script, 5, (LISTED4, 1), WATCHED, (Pass, Allowed));
    datagrams(script, 3, (LISTED4, 1), WATCHED, (Observe, LimitService));
}

/// Rules 1, 6, 7 and 8 where everything is dropped that can be (or observed).
fn send_others_refused(script: &mut Script, refused: Verdict) {
    use Reason::*;
    use Verdict::{Drop, Pass};
    script.send(3, &ethernet(0x88b5, &[0; 46]), "", refused, NonIp);
    script.send(2, &ethernet(0x0040, &[0xaa; 64]), "", refused, NonIp);
    script.send(2, &udp(STRANGER4, 1, SERVER4, UNSERVED, b""), "", refused, Other);
    script.send(1, &udp(LISTED4, 1, SERVER4, UNSERVED, b""), "", refused, Other);
    script.send(2, &udp(LISTED4, 1, ELSEWHERE, API, b""), "", refused, Other);
    script.send(1, &ip(LISTED4, SERVER4, 47, &[0; 8]), "", refused, Other);
    // Neighbour discovery that came over a router is none.
    script.send(1, &icmp(STRANGER6, SERVER6, 135, 0, 254), "", refused, Other);

    script.send(1, &icmp(STRANGER4, SERVER4, 8, 0, 64), "", refused, Icmp);
    script.send(1, &icmp(STRANGER6, SERVER6, 128, 0, 64), "", refused, Icmp);
    script.send(2, &icmp(LISTED4, SERVER4, 8, 0, 64), "", Pass, Icmp);
    script.send(1, &icmp(LISTED6, SERVER6, 128, 0, 64), "", Pass, Icmp);
    script.send(2, &icmp(LISTED4, SERVER4, 8, 0, 64), "", refused, LimitIcmp);
    // Errors and echo replies have a bucket of their own.
    script.send(2, &icmp(STRANGER4, SERVER4, 3, 4, 64), "", Pass, Icmp);
    script.send(1, &icmp(STRANGER6, SERVER6, 2, 0, 64), "", Pass, Icmp);
    script.send(1, &icmp(STRANGER4, SERVER4, 0, 0, 64), "", refused, LimitIcmp);

    // At the server's address UDP has a service that enforces: its fragments are dropped, whatever the filter does.
    let later = |source| ethernet(IPV4, &ipv4(source, SERVER.v4, UDP, 185, &[0; 40]));
    script.send(2, &later(LISTED.v4), "", Pass, Fragment);
    script.send(3, &later(STRANGER.v4), "", Drop, Fragment);
    let later = |source| {
        let piece = frames::fragment(UDP, 185, false, &[0; 40]);
        ethernet(IPV6, &ipv6(source, SERVER.v6, FRAGMENT, 64, &piece))
    };
    script.send(1, &later(LISTED.v6), "", Pass, Fragment);
    script.send(2, &later(STRANGER.v6), "", Drop, Fragment);
}

/// The same where all of it passes.
fn send_others_passed(script: &mut Script, refused: Verdict) {
    use Reason::*;
    use Verdict::Pass;
    script.send(3, &ethernet(0x88b5, &[0; 46]), "", Pass, NonIp);
    script.send(2, &udp(STRANGER4, 1, SERVER4, UNSERVED, b""), "", Pass, Other);
    script.send(2, &udp(LISTED4, 1, ELSEWHERE, API, b""), "", Pass, Other);
    script.send(1, &ip(LISTED4, SERVER4, 47, &[0; 8]), "", Pass, Other);
    script.send(1, &ip(LISTED4, SERVER4, ICMPV6, &[0; 8]), "", Pass, Other);
    script.send(3, &icmp(STRANGER4, SERVER4, 8, 0, 64), "", Pass, Icmp);
    script.send(1, &icmp(STRANGER4, SERVER4, 8, 0, 64), "", refused, LimitIcmp);
    let later = ethernet(IPV4, &ipv4(STRANGER.v4, SERVER.v4, UDP, 185, &[0; 40]));
    script.send(3, &later, "", Pass, Fragment);
}

fn counters_equal_what_was_sent(
    attach: Attach,
    filter: &str,
    refused: Verdict,
    others: impl FnOnce(&Site, &mut Script, Verdict),
) {
    let site = Site::raw();
    let policy = Policy::new(attach, ENTRIES).filter(filter);
    let daemon = Daemon::start(&site, &policy);
    assert_eq!(site.counters(), Counts::default(), "nothing is sent yet");
    let mut script = Script::on(&site);
    send_essential(&mut script);
    send_malformed(&mut script, refused);
    script.settle(&daemon);
    send_management_and_denied(&mut script, refused);
    send_to_services(&mut script);
    script.settle(&daemon);
    send_to_watched_service(&mut script);
    others(&site, &mut script, refused);
    script.settle(&daemon);

    assert_eq!(site.counters().against(&script.expected), []);
    for (label, tally) in &script.expected.0 {
        let Label {
            service,
            verdict,
            reason,
        } = label;
        let labels = format!(
            "{{service=\"{service}\",verdict=\"{}\",reason=\"{}\"}}",
            verdict.name(),
            reason.name()
        );
        assert_eq!(
            daemon.metric(&format!("keyfence_packets_total{labels}")),
            tally.packets as f64
        );
        assert_eq!(
            daemon.metric(&format!("keyfence_bytes_total{labels}")),
            tally.bytes as f64
        );
    }
    for verdict in Verdict::ALL {
        let series = format!(
            "keyfence_interface_packets_total{{interface=\"{INSIDE}\",verdict=\"{}\"}}",
            verdict.name()
        );
        let of_verdict = script
            .expected
            .0
            .iter()
            .filter(|(label, _)| label.verdict == verdict);
        let sum: u64 = of_verdict.map(|(_, tally)| tally.packets).sum();
        assert_eq!(daemon.metric(&series), sum as f64, "{series}");
    }
}

/// Where other traffic is dropped, answers to the host's own questions pass.
fn replies_pass(site: &Site, script: &mut Script) {
    const REMOTE: u16 = 53;
    let asking = site.server.inside(|| {
        let socket = UdpSocket::bind((SERVER.v4, 0))?;
        socket.connect(SocketAddr::new(STRANGER4, REMOTE))?;
        Ok::<_, std::io::Error>(socket)
    });
    let asking = asking.expect("the host may open a socket");
    let port = asking.local_addr().expect("it is bound").port();
    let answer = udp(STRANGER4, REMOTE, SERVER4, port, b"answer");
    script.send(2, &answer, "", Verdict::Pass, Reason::Reply);
    let mut buffer = [0; 16];
    asking
        .set_read_timeout(Some(keyfence_tests::harness::PATIENCE))
        .expect("a time is valid");
    let length = asking.recv(&mut buffer).expect("the answer arrives");
    assert_eq!(&buffer[..length], b"answer");
}

#[test]
fn counters_equal_what_was_sent_where_all_is_dropped_natively() {
    counters_equal_what_was_sent(
        Attach::Native,
        DROP_ALL,
        Verdict::Drop,
        |site, script, refused| {
            send_others_refused(script, refused);
            replies_pass(site, script);
            let other = udp(STRANGER4, 54, SERVER4, UNSERVED, b"");
            script.send(1, &other, "", Verdict::Drop, Reason::Other);
        },
    );
}

#[test]
fn counters_equal_what_was_sent_where_all_is_dropped_generically() {
    counters_equal_what_was_sent(
        Attach::Generic,
        DROP_ALL,
        Verdict::Drop,
        |site, script, refused| {
            send_others_refused(script, refused);
            replies_pass(site, script);
        },
    );
}

#[test]
fn counters_equal_what_was_sent_where_all_is_passed_natively() {
    counters_equal_what_was_sent(Attach::Native, PASS_ALL, Verdict::Drop, |_, script, refused| {
        send_others_passed(script, refused);
    });
}

#[test]
fn counters_equal_what_was_sent_where_all_is_passed_generically() {
    counters_equal_what_was_sent(Attach::Generic, PASS_ALL, Verdict::Drop, |_, script, refused| {
        send_others_passed(script, refused);
    });
}

#[test]
fn counters_equal_what_was_sent_where_all_is_observed_natively() {
    let filter = format!("mode = \"observe\"\n{DROP_ALL}");
    counters_equal_what_was_sent(Attach::Native, &filter, Verdict::Observe, |_, script, refused| {
        send_others_refused(script, refused);
    });
}

#[test]
fn counters_equal_what_was_sent_where_all_is_observed_generically() {
    let filter = format!("mode = \"observe\"\n{DROP_ALL}");
    counters_equal_what_was_sent(
        Attach::Generic,
        &filter,
        Verdict::Observe,
        |_, script, refused| {
            send_others_refused(script, refused);
        },
    );
}
