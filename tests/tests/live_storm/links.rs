//! Links that come and go.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{GREEDY, INSIDE_MAC, OUTSIDE, SERVER, Traffic, until};

use super::actions::Storm;

const PORT: u16 = Traffic::PORT;
const MORE: &str = "srv9";
const MORE_OUTSIDE: &str = "cli9";
/// What is on its way on a wire of this machine arrives in far less.
const ARRIVES: Duration = Duration::from_millis(50);

impl Storm<'_> {
    /// The wire goes down and comes back.
    pub(super) fn flap(&mut self, traffic: &Traffic) {
        let _wire = traffic.wire.lock().expect("nobody panics with the wire");
        // What is on its way arrives first.
        sleep(ARRIVES);
        self.site.outside.ip(&format!("link set {OUTSIDE} down"));
        self.site.outside.ip(&format!("link set {OUTSIDE} up"));
        let mac = INSIDE_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let words = format!(
            "neigh replace {} lladdr {mac} dev {OUTSIDE} nud permanent",
            SERVER.v4
        );
        self.site.outside.ip(&words);
        until("the wire is up", || {
            let shown = self.site.outside.ip(&format!("link show dev {OUTSIDE}"));
            shown.contains("state UP").then_some(())
        });
        let unlisted = || {
            self.site
                .counters()
                .packets("api", Verdict::Drop, Reason::Unlisted)
        };
        let before = unlisted();
        let socket = self.site.outside.inside(|| UdpSocket::bind((GREEDY.v4, 0)));
        let socket = socket.expect("the address is there");
        // By another stranger, so that the client's numbers stay whole.
        until("packets pass the wire", || {
            let _ = socket.send_to(b"knocking", (SERVER.v4, PORT));
            (unlisted() > before).then_some(())
        });
    }

    /// One more interface that the policy means; its stranger knocks from the first moment.
    pub(super) fn interface(&mut self, traffic: &Traffic) {
        let (here, there) = (Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2));
        let before = traffic.sink.count(there.into());
        let words = format!(
            "link add {MORE} type veth peer name {MORE_OUTSIDE} netns {}",
            self.site.outside.name()
        );
        self.site.server.ip(&words);
        self.site.server.ip(&format!("addr add {here}/24 dev {MORE}"));
        self.site
            .outside
            .ip(&format!("addr add {there}/24 dev {MORE_OUTSIDE}"));
        self.site.server.ip(&format!("link set {MORE} up"));
        self.site.outside.ip(&format!("link set {MORE_OUTSIDE} up"));
        let socket = self.site.outside.inside(|| UdpSocket::bind((there, 0)));
        let socket = socket.expect("the address is there");
        until("the new interface is filtered", || {
            let _ = socket.send_to(b"knocking", (IpAddr::from(here), PORT));
            self.is_attached(MORE).then_some(())
        });
        sleep(ARRIVES);
        let passed = traffic.sink.count(there.into());
        for _ in 0..50 {
            let _ = socket.send_to(b"knocking", (IpAddr::from(here), PORT));
        }
        sleep(ARRIVES);
        assert_eq!(
            traffic.sink.count(there.into()),
            passed,
            "a stranger passed by a filtered interface"
        );
        self.passed_in_gaps += passed - before;
        self.interfaces_made += 1;
        self.site.server.ip(&format!("link del {MORE}"));
        until("the gone interface is forgotten", || {
            (!self.is_attached(MORE)).then_some(())
        });
    }

    fn is_attached(&self, name: &str) -> bool {
        let status = self.daemon().status();
        let interfaces = status["interfaces"].as_array().expect("a list");
        interfaces
            .iter()
            .any(|interface| interface["name"] == name && interface["attached"] == true)
    }
}
