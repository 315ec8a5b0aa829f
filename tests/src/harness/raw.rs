//! Frames as they are, out of an interface and between two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender};

use super::frames;
use super::namespace::Namespace;
use super::program::{run, system};
use super::site::{OUTSIDE, Site};

/// Room for what a device merges.
const FRAME_BYTES_MAX: usize = 1 << 17;
/// How long a relay may take to hear that it is over.
const LISTEN: Duration = Duration::from_millis(50);

type Ends = (Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>);

fn open(namespace: &Namespace, device: &str) -> Ends {
    namespace.inside(|| {
        let interfaces = pnet_datalink::interfaces();
        let interface = interfaces.iter().find(|interface| interface.name == device);
        let interface = interface.unwrap_or_else(|| panic!("{device} is not in {}", namespace.name()));
        let config = Config {
            read_timeout: Some(LISTEN),
            read_buffer_size: FRAME_BYTES_MAX,
            promiscuous: false,
            ..Config::default()
        };
        match pnet_datalink::channel(interface, config) {
            Ok(Channel::Ethernet(sender, receiver)) => (sender, receiver),
            Ok(_) => panic!("{device} is not Ethernet"),
            Err(error) => panic!("no packet socket on {device}: {error}"),
        }
    })
}

/// Sends raw frames out of an interface.
pub struct Wire {
    sender: Box<dyn DataLinkSender>,
}

impl Wire {
    /// Out of the outside end of the site's wire.
    pub fn open(site: &Site) -> Self {
        let (sender, _) = open(&site.outside, OUTSIDE);
        Self { sender }
    }

    pub fn send(&mut self, frame: &[u8]) {
        let sent = self.sender.send_to(frame, None);
        sent.expect("the backend always answers")
            .unwrap_or_else(|error| panic!("a frame of {} bytes cannot be sent: {error}", frame.len()));
    }
}

/// A host on the outside whose frames reach the wire with a priority tag (VLAN id 0), as switches and hypervisors
/// send them. Answers come back as they are.
pub struct Relay {
    pub clients: Namespace,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// On a site without addresses outside.
    pub fn start(site: &Site) -> Self {
        const MIDDLE: &str = "mid0";
        let clients = Namespace::new("clients");
        clients.ip(&format!("link add {OUTSIDE} type veth peer name {MIDDLE}"));
        clients.ip(&format!("link set {MIDDLE} netns {}", site.outside.name()));
        // The relay reads frames before a device would have completed or cut them.
        let mut command = clients.command(system("ethtool").get_program());
        run(command.args(["-K", OUTSIDE, "tx", "off", "tso", "off", "gso", "off"]));
        let mut command = site.server.command(system("ethtool").get_program());
        run(command.args(["-K", super::site::INSIDE, "tx", "off", "tso", "off", "gso", "off"]));
        site.outside
            .sysctl(&format!("net/ipv6/conf/{MIDDLE}/disable_ipv6"), "1");
        site.outside.ip(&format!("link set {MIDDLE} up"));
        site.inhabit(&clients);
        let over = Arc::new(AtomicBool::new(false));
        let (to_server, from_server) = open(&site.outside, OUTSIDE);
        let (to_clients, from_clients) = open(&site.outside, MIDDLE);
        let threads = vec![
            pass_on(from_clients, to_server, Arc::clone(&over), |frame| {
                frames::tagged(0x8100, 5 << 13, frame)
            }),
            pass_on(from_server, to_clients, Arc::clone(&over), <[u8]>::to_vec),
        ];
        Self {
            clients,
            over,
            threads,
        }
    }
}

fn pass_on(
    mut from: Box<dyn DataLinkReceiver>,
    mut to: Box<dyn DataLinkSender>,
    over: Arc<AtomicBool>,
    change: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            // An error is a listen in vain.
            if let Ok(frame) = from.next() {
                let frame = change(frame);
                // What a full device loses, TCP sends again.
                let _ = to.send_to(&frame, None);
            }
        }
    })
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic has been shown.
            let _ = thread.join();
        }
    }
}
