//! With everything else dropped, a host goes on being a host: pings, errors, neighbours, leases, names and its own
//! connections, by the programs people use; and what scanners and fragmenters send gets nowhere.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Daemon, INSIDE, LISTED, Namespace, Nginx, OUTSIDE, Policy, SERVER, STRANGER, Sender, Sink, Site,
    Wire, frames, output, run, system, until,
};

const UDP_PORT: u16 = 9000;

/// Everything shut but what is listed.
fn policy() -> Policy {
    Policy::of_two_services(Attach::Auto, UDP_PORT).filter(
        "other-traffic = \"drop\"\nother-address = \"drop\"\nnon-ip = \"drop\"\nping = \"listed\"\n\
         fragments = \"listed\"\nmanagement-none = true",
    )
}

/// A program that serves until the test is over.
struct Background(Child);

impl Background {
    fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(namespace: &Namespace, name: &str, arguments: &str) -> Command {
    let mut command = namespace.command(system(name).get_program());
    command.args(arguments.split(' '));
    command
}

fn succeeds(namespace: &Namespace, name: &str, arguments: &str) -> bool {
    output(&mut program(namespace, name, arguments)).status.success()
}

#[test]
fn a_listed_source_may_ping_and_a_stranger_may_not_and_the_host_pings_whom_it_likes() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    for (listed, stranger, server) in LISTED
        .addresses()
        .into_iter()
        .zip(STRANGER.addresses())
        .zip(SERVER.addresses())
        .map(|((l, s), h)| (l, s, h))
    {
        assert!(
            succeeds(&site.outside, "ping", &format!("-c 1 -W 5 -I {listed} {server}")),
            "{listed}"
        );
        assert!(
            !succeeds(
                &site.outside,
                "ping",
                &format!("-c 2 -i 0.2 -W 1 -I {stranger} {server}")
            ),
            "{stranger}"
        );
        assert!(
            succeeds(&site.server, "ping", &format!("-c 1 -W 5 {stranger}")),
            "the host cannot ping {stranger}"
        );
    }
    let dropped = site.counters().packets("", Verdict::Drop, Reason::Icmp);
    assert_eq!(dropped, 4, "two requests of each family");
}

#[test]
fn neighbour_discovery_works_in_both_directions() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    let found = run(&mut program(
        &site.outside,
        "ndisc6",
        &format!("-1 -w 5000 {} {OUTSIDE}", SERVER.v6),
    ));
    assert!(
        found.contains("02:00:00:77:00:01") || found.to_uppercase().contains("02:00:00:77:00:01"),
        "{found}"
    );
    site.server.ip(&format!("neigh del {} dev {INSIDE}", STRANGER.v6));
    site.server.ip(&format!("neigh del {} dev {INSIDE}", STRANGER.v4));
    for stranger in STRANGER.addresses() {
        assert!(
            succeeds(&site.server, "ping", &format!("-c 1 -W 5 {stranger}")),
            "{stranger} is not resolved"
        );
    }
}

#[test]
fn the_hosts_own_connections_and_name_queries_are_answered() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    // A real resolver on the outside; its address is no client's.
    let _names = Background::start(&mut program(
        &site.outside,
        "dnsmasq",
        &format!(
            "--keep-in-foreground --no-resolv --no-hosts --user=root --pid-file --bind-interfaces \
             --listen-address={} --listen-address={} --address=/keyfence.test/192.0.2.9",
            STRANGER.v4, STRANGER.v6
        ),
    ));
    for resolver in STRANGER.addresses() {
        for transport in ["+notcp", "+tcp"] {
            let ask = format!("@{resolver} +short +time=1 +tries=1 {transport} keyfence.test");
            until("an answer of the resolver", || {
                let answer = output(&mut program(&site.server, "dig", &ask));
                String::from_utf8_lossy(&answer.stdout)
                    .contains("192.0.2.9")
                    .then_some(())
            });
        }
    }
    let replies = site.counters().packets("", Verdict::Pass, Reason::Reply);
    assert!(replies >= 4, "{replies} replies");
    // The same packets without a connection of the host's are not replies.
    let mut wire = Wire::open(&site);
    let before = site.counters().packets("", Verdict::Drop, Reason::Other);
    let (from, to): (IpAddr, IpAddr) = (STRANGER.v4.into(), SERVER.v4.into());
    wire.send(&frames::udp(from, 53, to, 40_000, b"nobody asked"));
    wire.send(&frames::tcp(from, 80, to, 40_000, 0x12));
    until("both are dropped", || {
        let dropped = site.counters().packets("", Verdict::Drop, Reason::Other) - before;
        (dropped >= 2).then_some(())
    });
}

#[test]
fn a_lease_is_had_by_dhcp() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    let leases = site.folder().join("leases");
    let _server = Background::start(&mut program(
        &site.outside,
        "dnsmasq",
        &format!(
            "--keep-in-foreground --port=0 --user=root --pid-file --interface={OUTSIDE} --bind-interfaces \
             --dhcp-authoritative --dhcp-range=10.77.0.100,10.77.0.120,1h --dhcp-leasefile={}",
            leases.display()
        ),
    ));
    let folder = site.folder().display();
    let said = site.folder().join("dhclient.log");
    let log = std::fs::File::create(&said).expect("a temporary folder can be written");
    let words =
        format!("-4 -1 -d -v -sf /bin/true -lf {folder}/client.leases -pf {folder}/client.pid {INSIDE}");
    let mut client = program(&site.server, "dhclient", &words);
    let client = client.stdout(Stdio::null()).stderr(log).spawn();
    let _client = Background(client.expect("dhclient can be started"));
    until("a lease", || {
        let said = std::fs::read_to_string(&said).unwrap_or_default();
        said.contains("DHCPACK").then_some(())
    });
}

#[test]
fn path_mtu_discovery_reaches_the_host() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    // A router with a narrower road behind it.
    let far = Namespace::new("far");
    site.outside.ip("link add road0 type veth peer name far0");
    site.outside.ip(&format!("link set far0 netns {}", far.name()));
    site.outside.ip("link set road0 mtu 1300");
    far.ip("link set far0 mtu 1300");
    site.outside.ip("addr add 10.78.0.1/24 dev road0");
    far.ip("addr add 10.78.0.2/24 dev far0");
    site.outside.ip("link set road0 up");
    far.ip("link set far0 up");
    far.ip("route add default via 10.78.0.1");
    site.outside.sysctl("net/ipv4/ip_forward", "1");
    site.server
        .ip(&format!("route add 10.78.0.0/24 via {}", LISTED.v4));
    // Too large for the road, and not to be fragmented: the router says so.
    let _ = output(&mut program(
        &site.server,
        "ping",
        "-c 2 -i 0.3 -W 1 -M do -s 1400 10.78.0.2",
    ));
    until("the host knows the narrower road", || {
        site.server
            .ip("route get 10.78.0.2")
            .contains("mtu 1300")
            .then_some(())
    });
}

#[test]
fn scans_of_a_stranger_find_nothing_and_those_of_a_listed_client_find_the_service() {
    let site = Site::new();
    let _nginx = Nginx::start(&site);
    let _daemon = Daemon::start(&site, &policy());
    let port = Nginx::PORT;
    let scan = |kind: &str, source: &str| {
        let words = format!(
            "-n -Pn --max-retries 0 --host-timeout 20s {kind} -p {port},22,80 -e {OUTSIDE} -S {source} {}",
            SERVER.v4
        );
        run(&mut program(&site.outside, "nmap", &words))
    };
    let listed = scan("-sS", &LISTED.v4.to_string());
    assert!(listed.contains(&format!("{port}/tcp open")), "{listed}");
    for kind in [
        "-sS",
        "-sA",
        "-sF",
        "-sX",
        "-sS -f",
        "-sS --mtu 24",
        "-sS --badsum",
    ] {
        let found = scan(kind, &STRANGER.v4.to_string());
        let open = found
            .lines()
            .any(|line| line.contains("/tcp") && line.contains(" open ") && !line.contains("filtered"));
        assert!(
            !open && !found.contains("unfiltered") && !found.contains("closed"),
            "{kind}: {found}"
        );
    }
    let probe = format!(
        "--udp -p {UDP_PORT} -c 3 --rate 100 -S {} -e {OUTSIDE} {}",
        STRANGER.v4, SERVER.v4
    );
    let _ = output(&mut program(&site.outside, "nping", &probe));
    let sink = site
        .counters()
        .packets("datagrams", Verdict::Drop, Reason::Unlisted);
    assert!(sink >= 3, "{sink} datagrams of nping dropped");
}

/// Datagrams that need fragments, and how many of them: few enough for the wire's queue.
const DATAGRAMS: u64 = 100;

#[test]
fn a_flood_of_fragments_does_not_stop_a_listed_clients_fragmented_datagrams() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    for (listed, stranger, server) in LISTED
        .addresses()
        .into_iter()
        .zip(STRANGER.addresses())
        .zip(SERVER.addresses())
        .map(|((l, s), h)| (l, s, h))
    {
        let to = SocketAddr::new(server, UDP_PORT);
        let sink = Sink::open(&site.server, to);
        let socket = site
            .outside
            .inside(|| std::net::UdpSocket::bind((listed, 0)))
            .expect("an address of the outside");
        let mut wire = Wire::open(&site);
        let mut flooded = 0u32;
        let large = vec![7u8; 4000];
        for _ in 0..DATAGRAMS {
            // Later fragments of datagrams that never come: what fills the memory of reassembly.
            for _ in 0..20 {
                wire.send(&later_fragment(stranger, server, flooded));
                flooded += 1;
            }
            socket.send_to(&large, to).expect("a datagram can be sent");
        }
        until("all datagrams of the listed client arrive", || {
            (sink.count(listed) == DATAGRAMS).then_some(())
        });
        until("all fragments of the stranger are dropped", || {
            let dropped = site.counters().packets("", Verdict::Drop, Reason::Fragment);
            (dropped >= u64::from(flooded)).then_some(())
        });
        assert_eq!(sink.count(stranger), 0);
    }
    // And the tools that are made for it.
    let floods = [
        (
            "hping3",
            format!(
                "-q -c 200 -i u500 --udp -p {UDP_PORT} -f -d 400 -a {} {}",
                STRANGER.v4, SERVER.v4
            ),
        ),
        ("atk6-fragmentation6", format!("-p {OUTSIDE} {}", SERVER.v6)),
    ];
    for (tool, words) in floods {
        let _ = output(&mut program(&site.outside, tool, &words));
    }
    let sink = Sink::open(&site.server, SocketAddr::new(SERVER.v4.into(), UDP_PORT));
    let mut sender = Sender::open(
        &site.outside,
        LISTED.v4.into(),
        SocketAddr::new(SERVER.v4.into(), UDP_PORT),
    );
    sender.send();
    until("the listed client is served after the tools", || {
        (sink.count(LISTED.v4.into()) == 1).then_some(())
    });
}

/// A later fragment of UDP with an identification of its own.
fn later_fragment(from: IpAddr, to: IpAddr, identification: u32) -> Vec<u8> {
    const OFFSET: u16 = 185;
    let piece = [0u8; 64];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = frames::ipv4(from, to, frames::UDP, OFFSET, &piece);
            packet[4..6].copy_from_slice(&(identification as u16).to_be_bytes());
            frames::ethernet(frames::IPV4, &packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut fragment = frames::fragment(frames::UDP, OFFSET, true, &piece);
            fragment[4..8].copy_from_slice(&identification.to_be_bytes());
            frames::ethernet(
                frames::IPV6,
                &frames::ipv6(from, to, frames::FRAGMENT, 64, &fragment),
            )
        }
        _ => panic!("addresses of one family"),
    }
}
