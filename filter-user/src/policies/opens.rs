//! What a policy would open that the one in force keeps shut, a sentence each: observing where it was enforced, ports,
//! addresses and interfaces that nothing guards any more, traffic to no service that passes. Pure.
//!
//! A warning and no refusal: the file says it, and a reload that could not open would leave an operator with `detach`.

mod narrowed;

use ipnet::IpNet;

use crate::compiler::service_mode;
use crate::policy::Policy;
use crate::policy::model::{Mode, PassDrop, Service};
use narrowed::narrowed;

/// Names and ports told in a sentence; what is beyond is counted.
const NAMED_MAX: usize = 10;
const PORTS: usize = 1 << 16;

/// The gravest first; `host` are the addresses that `"host"` means.
pub(super) fn opens(old: &Policy, new: &Policy, host: &[IpNet]) -> Vec<String> {
    let mut said = Vec::new();
    if let (Mode::Enforce, Mode::Observe) = (old.filter.mode, new.filter.mode) {
        let all = new
            .services
            .iter()
            .all(|service| service_mode(new, service) == Mode::Observe);
        let what = match all {
            true => "nothing is dropped any more",
            false => "nothing is dropped any more but by services with mode enforce of their own",
        };
        said.push(format!(
            "this opens the filter: its mode goes from enforce to observe, and {what} (for a while, `keyfence observe --for` \
             opens and closes by itself)"
        ));
    }
    let unfiltered = old.filter.interfaces.iter();
    let unfiltered = unfiltered.filter(|name| !new.filter.interfaces.contains(name));
    let unfiltered: Vec<String> = unfiltered.cloned().collect();
    if !unfiltered.is_empty() {
        let names = listed(&unfiltered);
        said.push(format!(
            "this opens what comes in by {names}: named in `interfaces` no more, and not filtered unless another name means it"
        ));
    }
    // Where everything is observed, the first sentence says so.
    if new.filter.mode == Mode::Observe && old.filter.mode == Mode::Enforce {
        return said;
    }
    said.extend(services(old, new, host));
    for (key, was, is) in [
        (
            "other-traffic",
            old.filter.other_traffic,
            new.filter.other_traffic,
        ),
        (
            "other-address",
            old.filter.other_address,
            new.filter.other_address,
        ),
    ] {
        if (old.filter.mode, was, is) == (Mode::Enforce, PassDrop::Drop, PassDrop::Pass) {
            said.push(format!(
                "this opens what is for no service: {key} goes from drop to pass"
            ));
        }
    }
    said
}

/// Those that are observed, ports that they no longer have, and ports that they have at fewer addresses.
fn services(old: &Policy, new: &Policy, host: &[IpNet]) -> Vec<String> {
    let mut said = Vec::new();
    let observed = old.services.iter().filter(|service| {
        let same = new.services.iter().find(|same| same.name == service.name);
        let then = same.map(|same| service_mode(new, same));
        service_mode(old, service) == Mode::Enforce && then == Some(Mode::Observe)
    });
    let observed: Vec<String> = observed.map(|service| service.name.clone()).collect();
    if !observed.is_empty() {
        let names = listed(&observed);
        said.push(format!(
            "this opens {names} to everybody: the mode goes from enforce to observe"
        ));
    }
    let passes = new.filter.other_traffic == PassDrop::Pass || new.filter.mode == Mode::Observe;
    for protocol in [Protocol::Tcp, Protocol::Udp].into_iter().filter(|_| passes) {
        let left = left_alone(old, new, protocol);
        if !left.is_empty() {
            said.push(format!(
                "this opens {} {} to everybody: no service has them any more, and what is for no service passes \
                 (other-traffic)",
                protocol.name(),
                ports_shown(&left)
            ));
        }
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        said.extend(narrowed(old, new, protocol, host));
    }
    said
}

#[derive(Clone, Copy)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP ports",
            Protocol::Udp => "UDP ports",
        }
    }

    fn is_of(self, service: &Service) -> bool {
        match self {
            Protocol::Tcp => service.protocols.tcp,
            Protocol::Udp => service.protocols.udp,
        }
    }

    /// Those that go by one of these modes.
    fn services<'a>(self, policy: &'a Policy, modes: &[Mode]) -> Vec<&'a Service> {
        let services = policy.services.iter().filter(|service| self.is_of(service));
        services
            .filter(|service| modes.contains(&service_mode(policy, service)))
            .collect()
    }

    /// By number, whether a service that goes by one of these modes has the port at any address.
    fn ports(self, policy: &Policy, modes: &[Mode]) -> Vec<bool> {
        let mut ports = vec![false; PORTS];
        for service in self.services(policy, modes) {
            for range in &service.ports {
                ports[usize::from(range.first)..=usize::from(range.last)].fill(true);
            }
        }
        ports
    }
}

/// Ports that a service guards and, at whatever address, none will have; as ranges.
fn left_alone(old: &Policy, new: &Policy, protocol: Protocol) -> Vec<(usize, usize)> {
    let guarded = protocol.ports(old, &[Mode::Enforce]);
    let kept = protocol.ports(new, &[Mode::Enforce, Mode::Observe]);
    let alone = |port: &usize| guarded[*port] && !kept[*port];
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for port in (0..PORTS).filter(alone) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == port => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    ranges
}

fn ports_shown(ranges: &[(usize, usize)]) -> String {
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    listed(&ranges.iter().map(text).collect::<Vec<_>>())
}

fn listed(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::opens as opens_at;
    use super::*;
    use crate::policies::text::PolicyText;

    pub(super) fn policy(filter: &str, services: &[(&str, &str, &str)]) -> Policy {
        let mut text = format!("version = 1\n[filter]\nmanagement-none = true\n{filter}\n");
        for (name, ports, more) in services {
            text +=
                &format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nports = [{ports}]\n{more}\n");
        }
        PolicyText::policy(text)
    }

    pub(super) const ETH0: &str = "interfaces = [\"eth0\"]";

    fn opens(old: &Policy, new: &Policy) -> Vec<String> {
        opens_at(old, new, &[])
    }

    #[test]
    fn what_is_observed_that_was_enforced_is_said() {
        let web: &[(&str, &str, &str)] = &[("web", "443", ""), ("own", "444", "mode = \"enforce\"")];
        let enforced = policy(ETH0, web);
        let observed = policy("interfaces = [\"eth0\"]\nmode = \"observe\"", web);
        assert_eq!(opens(&enforced, &enforced), [""; 0]);
        assert_eq!(opens(&observed, &enforced), [""; 0]);
        let said = opens(&enforced, &observed);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("from enforce to observe, and nothing is dropped any more but by"));
        let said = opens(
            &enforced,
            &policy(ETH0, &[("web", "443", "mode = \"observe\""), web[1]]),
        );
        assert_eq!(
            said,
            ["this opens web to everybody: the mode goes from enforce to observe"]
        );
    }

    #[test]
    fn ports_and_interfaces_that_nobody_guards_any_more_are_said() {
        let old = policy(
            "interfaces = [\"eth0\", \"eth1\"]",
            &[("web", "443, \"8000-8002\"", "")],
        );
        let renamed = policy(
            "interfaces = [\"eth0\", \"eth1\"]",
            &[("site", "443, \"8000-8002\"", "")],
        );
        assert_eq!(opens(&old, &renamed), [""; 0]);
        let said = opens(&old, &policy(ETH0, &[("web", "443, 8001", "")]));
        assert!(
            said[0].starts_with("this opens what comes in by eth1:"),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("this opens TCP ports 8000, 8002 to everybody"),
            "{said:?}"
        );
        let shut = "interfaces = [\"eth0\", \"eth1\"]\nother-traffic = \"drop\"";
        let said = opens(&old, &policy(shut, &[]));
        assert_eq!(said, [""; 0], "it is dropped as other traffic");
        let said = opens(
            &policy(shut, &[]),
            &policy("interfaces = [\"eth0\", \"eth1\"]", &[]),
        );
        assert_eq!(
            said,
            ["this opens what is for no service: other-traffic goes from drop to pass"]
        );
    }

    #[test]
    fn port_at_fewer_addresses_is_said_after_those_without_a_service() {
        let said = opens(
            &policy(ETH0, &[("web", "443, 444", "")]),
            &policy(ETH0, &[("web", "443", "address = [\"192.0.2.10\"]")]),
        );
        assert!(
            said[0].starts_with("this opens TCP ports 444 to everybody: no"),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("this opens TCP ports 443 at every address but 192.0.2.10 to everybody"),
            "{said:?}"
        );
        assert_eq!(said.len(), 2);
    }
}
