//! `keyfence doctor` on hosts as they are: what stands in the filter's way or goes past it is named.
//!
//! Not every kernel has VLANs, bonds, WireGuard or IPIP; findings of these are tested on what netlink would say
//! (filter-user/src/doctor/tests.rs), and real VLAN devices, a bond and tunnels on the kernels of `cargo xtask vm`.

use std::net::{IpAddr, TcpListener, UdpSocket};

use keyfence_tests::harness::{
    Attach, Daemon, INSIDE, OUTSIDE, PATIENCE, Policy, Probe, Site, keyfence, keyfence_path, output, run,
    system,
};
use serde_json::Value;

struct Told {
    code: Option<i32>,
    object: Value,
}

impl Told {
    fn whats(&self, id: &str) -> Vec<&str> {
        let all = self.object["findings"].as_array().expect("a list");
        let of = all.iter().filter(|finding| finding["id"] == id);
        of.map(|finding| finding["what"].as_str().expect("a text"))
            .collect()
    }

    /// Those that say that something is wrong.
    fn wrong(&self) -> Vec<&str> {
        let all = self.object["findings"].as_array().expect("a list");
        let of = all.iter().filter(|finding| finding["severity"] != "note");
        of.map(|finding| finding["id"].as_str().expect("a word"))
            .collect()
    }
}

fn doctor(site: &Site) -> Told {
    let mut command = site.server.command(keyfence_path());
    command
        .args(["doctor", "--json", "--policy"])
        .arg(site.policy_file());
    command.arg("--socket").arg(site.socket());
    command.arg("--bpf-fs").arg(site.bpf.path());
    let output = output(&mut command);
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let object = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let code = output.status.code();
    Told { code, object }
}

fn policy() -> Policy {
    Policy::new(Attach::Native, Probe::ENTRIES)
}

#[test]
fn host_on_which_all_is_well_has_nothing_wrong_and_its_interface_is_told() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let told = doctor(&site);
    assert_eq!(told.wrong(), [""; 0], "{:#}", told.object);
    assert_eq!(told.code, Some(0));
    let interface = &told.object["interfaces"][0];
    assert_eq!(
        (&interface["name"], &interface["xdp"]),
        (&INSIDE.into(), &"native".into())
    );
    assert_eq!(
        (&interface["driver"], &interface["mtu"]),
        (&"veth".into(), &1500.into())
    );
    assert_eq!(told.object["schema"], 1);
    drop(daemon);
    // The filter goes on, and nobody follows it.
    let told = doctor(&site);
    assert_eq!(told.wrong(), ["daemon-unreachable"]);
    assert_eq!(told.code, Some(6));
}

#[test]
fn ways_past_the_filter_are_named() {
    let site = Site::new();
    let daemon = Daemon::start(
        &site,
        &policy().filter("other-traffic = \"pass\"").and(
            "[[service]]\nname = \"here\"\nprotocol = \"tcp\"\nports = [9443]\naddress = [\"10.77.0.1\"]",
        ),
    );
    site.server.ip("link add more0 type veth peer name more1");
    site.server.ip("link set more0 up");
    site.server.ip("link add br7 type bridge");
    site.server.ip("link set br7 up");
    let served = site.server.inside(|| {
        let probe = UdpSocket::bind(("0.0.0.0", Probe::PORT)).expect("the port is free");
        let local = UdpSocket::bind(("127.0.0.1", 9001)).expect("the port is free");
        let here = TcpListener::bind(("::", 9443)).expect("the port is free");
        (probe, local, here)
    });
    let told = doctor(&site);
    let open = told.whats("unfiltered-interface");
    assert_eq!(open.len(), 2, "{open:?}");
    let probe = open
        .iter()
        .find(|what| what.contains("(service probe)"))
        .expect("named");
    assert!(
        probe.contains("0.0.0.0:9000/udp")
            && probe.contains("by more0,")
            && probe.ends_with("10.77.0.1 (IPv4)"),
        "{probe}"
    );
    let unserved = told.whats("unserved-address");
    assert_eq!(unserved.len(), 1, "{unserved:?}");
    assert!(
        unserved[0].contains("fd77::1") && unserved[0].contains("service here"),
        "{unserved:?}"
    );
    assert_eq!(told.code, Some(6));

    site.server
        .ip(&format!("link add vx0 type vxlan id 1 dstport 4789 dev {INSIDE}"));
    assert_eq!(doctor(&site).whats("unwraps"), [""; 0], "it is down");
    site.server.ip("link set vx0 up");
    // A bridge with a port is a way in, and the port is its part.
    site.server.ip("link set more0 master br7");
    let rules = "table ip n { chain p { type nat hook prerouting priority dstnat; \
                 tcp dport 8080 dnat to 10.77.0.1:9443; udp dport 5000 redirect to :5001; }; }";
    let mut nft = site.server.command(system("nft").get_program());
    run(nft.arg(rules));
    site.server.ip("tuntap add mode tun name tun0");
    site.server.ip("link set tun0 up");
    let told = doctor(&site);
    assert_eq!(told.whats("unwraps"), ["tun0 (tun)", "vx0 (vxlan)"]);
    let open = told.whats("unfiltered-interface");
    assert!(open.iter().any(|what| what.contains("by br7,")), "{open:?}");
    assert!(open.iter().any(|what| what.contains("by vx0,")), "{open:?}");
    assert!(!open.iter().any(|what| what.contains("by more0,")), "{open:?}");
    assert_eq!(
        told.whats("nat-published"),
        ["NAT sends 8080/tcp to 10.77.0.1:9443, the port of service here"]
    );
    assert_eq!(told.whats("nat-other"), ["NAT sends 5000/udp to :5001"]);
    drop((served, daemon));
}

/// Whom the next datagram that comes in is from.
fn next_from(socket: &UdpSocket) -> IpAddr {
    let mut datagram = [0; 64];
    socket.recv_from(&mut datagram).expect("it comes in time").1.ip()
}

#[test]
fn what_comes_out_of_a_tunnel_is_judged_where_its_device_is_named_and_apply_says_so_where_not() {
    let site = Site::new();
    let client = "[[client]]\nname = \"inner\"\nsources = [\"10.99.0.2\"]\nservices = [\"probe\"]\n";
    let policy = Policy::new(Attach::Auto, Probe::ENTRIES).and(client);
    let daemon = Daemon::start(&site, &policy);
    for (here, there, device, [ours, theirs]) in [
        (&site.server, INSIDE, "vx0", ["10.77.0.1", "10.77.0.2"]),
        (&site.outside, OUTSIDE, "vx1", ["10.77.0.2", "10.77.0.1"]),
    ] {
        let ends = format!("local {ours} remote {theirs} dev {there}");
        here.ip(&format!("link add {device} type vxlan id 1 dstport 4789 {ends}"));
        here.ip(&format!("link set {device} up"));
    }
    site.server.ip("address add 10.99.0.1/24 dev vx0");
    for inner in ["10.99.0.2/24", "10.99.0.3/24"] {
        site.outside.ip(&format!("address add {inner} dev vx1"));
    }
    let served = site
        .server
        .inside(|| UdpSocket::bind(("0.0.0.0", Probe::PORT)).expect("the port is free"));
    served
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket takes it");
    let [listed, stranger] =
        ["10.99.0.2", "10.99.0.3"].map(|from| -> IpAddr { from.parse().expect("an address") });
    let send = |from: IpAddr| {
        let sender = site
            .outside
            .inside(|| UdpSocket::bind((from, 0)).expect("it is this host's"));
        sender
            .send_to(b"?", ("10.99.0.1", Probe::PORT))
            .expect("there is a route");
    };
    let apply = |policy: &Policy| {
        let file = site.folder().join("applied.toml");
        std::fs::write(&file, policy.text(&site.socket())).expect("a temporary folder can be written");
        let mut command = site.server.command(keyfence_path());
        command.arg("apply").arg(&file).arg("--socket").arg(site.socket());
        let output = output(&mut command);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };

    let said = apply(&policy);
    assert!(
        said.contains("warning: past the filter: unwraps: vx0 (vxlan)"),
        "{said}"
    );
    assert!(
        said.contains("is reachable by vx0, which is not filtered"),
        "{said}"
    );
    send(stranger);
    assert_eq!(next_from(&served), stranger, "only the outer packet was judged");

    let both = policy.interface(&format!("{INSIDE}\", \"vx0"));
    let said = apply(&both);
    assert!(!said.contains("vx0"), "{said}");
    site.write(&both);
    assert_eq!(doctor(&site).whats("unwraps"), [""; 0]);
    send(stranger);
    send(listed);
    assert_eq!(
        next_from(&served),
        listed,
        "the stranger's came first, and not through"
    );
    drop(daemon);
}

#[test]
fn hook_that_another_program_holds_is_named_with_it() {
    let site = Site::new();
    let other = Daemon::elsewhere(&site, "other", &policy());
    site.server.ip("link add held0 type veth peer name held1");
    let program = site.pins("other").join("keyfence");
    let mut attach = site.server.command(system("bpftool").get_program());
    attach.args(["net", "attach", "xdpgeneric", "pinned"]);
    run(attach.arg(program).args(["dev", "held0"]));
    site.write(&policy().interface(&format!("{INSIDE}\", \"held0\", \"none0")));
    let told = doctor(&site);
    let held = told.whats("hook-held");
    assert_eq!(held.len(), 2, "{held:?}");
    let find = |name: &str| *held.iter().find(|what| what.starts_with(name)).expect("named");
    assert!(find(INSIDE).contains("the filter of instance other"), "{held:?}");
    assert!(find("held0").contains(", keyfence"), "{held:?}");
    assert!(told.whats("interface-unfilterable")[0].contains("none0 does not exist"));
    assert_eq!(told.whats("not-filtering"), ["instance main"]);
    drop(other);
}

#[test]
fn generic_mode_and_large_frames_are_told_unless_they_are_meant() {
    let site = Site::new();
    site.server.ip(&format!("link set {INSIDE} mtu 9000"));
    let daemon = Daemon::start(&site, &Policy::new(Attach::Generic, Probe::ENTRIES));
    let told = doctor(&site);
    assert_eq!(told.object["interfaces"][0]["xdp"], "generic");
    assert_eq!(told.wrong(), ["mtu-page"], "{:#}", told.object);
    drop(daemon);
    let text = std::fs::read_to_string(site.policy_file()).expect("it is written");
    site.write_text(&text.replace("\"generic\"", "\"auto\""));
    let told = doctor(&site);
    assert_eq!(told.whats("mode-generic"), [INSIDE]);
}

#[test]
fn filter_that_is_gone_from_an_interface_is_told() {
    let site = Site::new();
    drop(Daemon::start(&site, &policy()));
    let mut take = system("rm");
    run(take.arg(site.pins("main").join("links").join(INSIDE)));
    let told = doctor(&site);
    assert_eq!(told.whats("interface-unfiltered"), [INSIDE]);
    assert_eq!(told.object["interfaces"][0]["xdp"], "none");
}

#[test]
fn ordinary_user_is_told_what_could_not_be_looked_at() {
    let site = Site::new();
    site.write(&policy());
    let program = site.program_for_everyone();
    run(system("chmod").arg("644").arg(site.policy_file()));
    let mut command = system("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "--"]);
    command
        .arg(program)
        .args(["doctor", "--json", "--policy"])
        .arg(site.policy_file());
    let output = output(&mut command);
    let text = String::from_utf8_lossy(&output.stdout);
    let object: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let told = Told {
        code: output.status.code(),
        object,
    };
    assert_eq!(told.code, Some(6));
    let unseen = told.whats("not-looked").join("\n");
    assert!(
        unseen.contains("whether the kernel takes the program"),
        "{unseen}"
    );
    assert!(unseen.contains("NAT by"), "{unseen}");
}

#[test]
fn policy_with_faults_is_a_finding_and_the_rest_is_looked_at() {
    let site = Site::raw();
    site.write_text("version = 1\nno = true\n");
    let told = doctor(&site);
    assert_eq!(told.whats("policy-invalid").len(), 1);
    let mut text = keyfence();
    text.args(["doctor", "--policy"]).arg(site.policy_file());
    let output = output(&mut text);
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(
        page.starts_with("Linux ") && page.contains("error policy-invalid: "),
        "{page}"
    );
    assert!(page.contains("Do: Run `keyfence check`"), "{page}");
}
