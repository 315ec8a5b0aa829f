//! A real Prometheus reads a working daemon and judges the alert rules: quiet where all is well, and loud where not.

use std::net::{IpAddr, Ipv4Addr};

use keyfence_tests::harness::frames;
use keyfence_tests::harness::{
    Attach, Daemon, METRICS, Policy, Probe, Prometheus, SERVER, Site, Wire, until,
};

fn policy() -> Policy {
    let listener = format!("[[listener]]\naddress = \"tcp:{METRICS}\"\nroles = [\"metrics\"]\n");
    Policy::new(Attach::Auto, Probe::ENTRIES).and(&listener)
}

#[test]
fn alerts_of_a_live_daemon_fire_when_they_should_and_not_before() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    let prometheus = Prometheus::start(&site);
    until("the daemon is scraped", || {
        (prometheus.value("keyfence_filter_attached") == Some(1.0)).then_some(())
    });
    let rules = until("all rules are evaluated", || {
        let groups = prometheus.ask("rules");
        let groups = groups["groups"].as_array().expect("a list").clone();
        let rules: Vec<_> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().expect("a list").clone())
            .collect();
        let healthy = rules.iter().all(|rule| rule["health"] == "ok");
        (healthy && !rules.is_empty()).then_some(rules)
    });
    assert!(rules.len() > 15, "{rules:?}");
    assert_eq!(prometheus.firing(), [""; 0]);

    // Over a hundred a second within the five minutes that the rule looks at.
    let mut wire = Wire::open(&site);
    for number in 0..40_000u32 {
        let source: IpAddr = Ipv4Addr::from(0x0a0a_0000 + number).into();
        let to = IpAddr::V4(SERVER.v4);
        wire.send(&frames::udp(source, 9, to, Probe::PORT, b"flood"));
    }
    until("the flood has its alert", || {
        (prometheus.firing() == ["KeyfenceUnlistedRate"]).then_some(())
    });
    site.write_text("version = = 1");
    daemon.reload_in_vain();
    until("the bad policy has its alert", || {
        let firing = prometheus.firing();
        (firing == ["KeyfencePolicyNotInForce", "KeyfenceUnlistedRate"]).then_some(())
    });
    daemon.kill();
    until("the dead daemon has its alert", || {
        prometheus
            .firing()
            .contains(&"KeyfenceDaemonDown".to_owned())
            .then_some(())
    });
    probe.assert_filtered();
}
