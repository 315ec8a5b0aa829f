//! `keyfence explain`: one packet, each rule and its answer, and what the reference and the kernel program say of it.

mod show;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::engine;
use crate::judge::both::{Both, JudgeError};
use crate::judge::frame::{Flow, build};
use crate::policy::model::ExpectProtocol;
use crate::policy::{self, Policy};

const AFTER_HELP: &str = "\
Shows each rule and its answer, the entry that matched with file and line, and the verdict of the kernel program \
itself. Takes no token and counts nothing; buckets are those of a fresh copy, and full.

The kernel program is asked where this may load it: as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.

Exit codes:
  0  judged, whatever the verdict
  1  failed, or the reference and the kernel program do not agree
  2  the packet is not to be understood
  3  the policy is invalid

Examples:
  keyfence explain --from 198.51.100.7:40000 --to 203.0.113.10:443/tcp
  keyfence explain --from 198.51.100.7 --to 203.0.113.10/icmp
  keyfence explain --from [2001:db8::7]:40000 --to [2001:db8::1]:53/udp --json";

const USAGE: &str = "\
keyfence explain [OPTIONS] --from <ADDR:PORT> --to <ADDR:PORT/PROTO>
       keyfence explain [OPTIONS] --frame <HEX>";

/// Show how one packet would be judged, and why
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, override_usage = USAGE)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = super::POLICY_FILE)]
    pub(crate) policy: PathBuf,
    /// The packet's source, as in 198.51.100.7:40000 or [2001:db8::7]:40000
    #[arg(long, value_name = "ADDR:PORT", required_unless_present = "frame")]
    pub(crate) from: Option<Endpoint>,
    /// The packet's destination and protocol (tcp, udp, icmp), as in 203.0.113.10:443/tcp
    #[arg(long, value_name = "ADDR:PORT/PROTO", required_unless_present = "frame")]
    pub(crate) to: Option<Destination>,
    /// A whole Ethernet frame instead, in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with_all = ["from", "to"])]
    pub(crate) frame: Option<Hex>,
    /// The interface it arrives on; the default is the policy's first
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ADDR:PORT`, or the address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

/// `ADDR:PORT/PROTO`; an echo request (`/icmp`) needs no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) endpoint: Endpoint,
    pub(crate) protocol: ExpectProtocol,
}

/// Bytes as hexadecimal digits; blanks and colons between them are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        if let Ok(both) = text.parse::<SocketAddr>() {
            return Ok(Endpoint {
                address: both.ip().to_canonical(),
                port: Some(both.port()),
            });
        }
        let address = |text: &str| {
            let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            inner.unwrap_or(text).parse::<IpAddr>().ok()
        };
        let Some(address) = address(text) else {
            let is_number = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            return Err(match text.rsplit_once(':') {
                Some((before, port)) if address(before).is_some() && is_number(port) => {
                    format!("a port is 0 to 65535, and {port} is more")
                }
                _ => "address and port are written as in 203.0.113.10:443 or [2001:db8::1]:443".to_owned(),
            });
        };
        Ok(Endpoint {
            address: address.to_canonical(),
            port: None,
        })
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Destination, String> {
        let (address, protocol) = text
            .rsplit_once('/')
            .ok_or("the protocol is missing; write it as in 203.0.113.10:443/tcp")?;
        let protocol = match protocol {
            "tcp" => ExpectProtocol::Tcp,
            "udp" => ExpectProtocol::Udp,
            "icmp" => ExpectProtocol::Icmp,
            _ => return Err("the protocol is tcp, udp or icmp".to_owned()),
        };
        let endpoint: Endpoint = address.parse()?;
        if endpoint.port.is_none() && protocol != ExpectProtocol::Icmp {
            return Err("the port is missing; write it as in 203.0.113.10:443/tcp".to_owned());
        }
        Ok(Destination { endpoint, protocol })
    }
}

impl FromStr for Hex {
    type Err = String;

    fn from_str(text: &str) -> Result<Hex, String> {
        let digits = text
            .chars()
            .filter(|digit| !digit.is_whitespace() && *digit != ':');
        let digits: Option<Vec<u8>> = digits.map(|digit| Some(digit.to_digit(16)? as u8)).collect();
        let digits = digits.ok_or("a frame is written in hexadecimal digits")?;
        if digits.is_empty() || digits.len() % 2 != 0 {
            return Err("a frame is written in whole bytes, two digits each".to_owned());
        }
        Ok(Hex(digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()))
    }
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let frame = frame(arguments)?;
    let loaded = engine::load_policy(&arguments.policy);
    let Some(policy) = &loaded.policy else {
        return Err(super::run::invalid(&loaded, shell));
    };
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error);
    for missing in policy::not_enforced(policy) {
        shell.say(&format!(
            "warning: this build does not enforce {}: it is left out here",
            missing.what
        ));
    }
    let mut both = Both::new(policy, jiff::Timestamp::now()).map_err(|error| match error {
        JudgeError::Compile(error) => super::run::uncompilable(&error),
        error => failed(&error),
    })?;
    let answers = both.ask(&frame).map_err(|error| failed(&error))?;
    let (reading, kind, packet) = both.read(&frame);
    let explained = show::Explained {
        frame: &frame,
        kind,
        packet,
        interface: interface(arguments.interface.as_deref(), policy),
        reading,
        reference: show::Said::of(&answers.reference, &both.names),
        kernel: answers
            .kernel
            .as_ref()
            .map(|kernel| show::Said::of(kernel, &both.names))
            .map_err(Clone::clone),
    };
    if arguments.json {
        shell.write(&format!("{:#}\n", explained.object()))?;
    } else {
        shell.write(&explained.page(shell))?;
    }
    match explained.difference() {
        None => Ok(Exit::Done),
        Some(difference) => Err(Failure::new(Exit::Failed, difference)),
    }
}

fn frame(arguments: &Arguments) -> Result<Vec<u8>, Failure> {
    let (from, to) = match arguments {
        Arguments {
            frame: Some(Hex(frame)),
            ..
        } => return Ok(frame.clone()),
        Arguments {
            from: Some(from),
            to: Some(to),
            ..
        } => (from, to),
        _ => return Err(Failure::new(Exit::Usage, "give --from and --to, or --frame")),
    };
    let flow = Flow {
        from: (from.address, from.port.unwrap_or(0)),
        to: (to.endpoint.address, to.endpoint.port.unwrap_or(0)),
        protocol: to.protocol,
    };
    let families = "--from and --to are not of one address family; give two IPv4 or two IPv6 addresses";
    build(&flow).ok_or_else(|| Failure::new(Exit::Usage, families))
}

/// Where it arrives, and whether the policy names that.
fn interface(asked: Option<&str>, policy: &Policy) -> show::Interface {
    let names = &policy.filter.interfaces;
    let name = asked.or(names.first().map(String::as_str)).unwrap_or_default();
    let matches = |pattern: &String| {
        pattern == name || glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name))
    };
    show::Interface {
        name: name.to_owned(),
        filtered: names.iter().any(matches),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_has_address_port_and_protocol() {
        let destination: Destination = "[2001:db8::1]:53/udp".parse().unwrap();
        assert_eq!(destination.protocol, ExpectProtocol::Udp);
        assert_eq!(destination.endpoint, "[2001:db8::1]:53".parse().unwrap());
        let echo: Destination = "203.0.113.10/icmp".parse().unwrap();
        assert_eq!((echo.protocol, echo.endpoint.port), (ExpectProtocol::Icmp, None));
        for wrong in [
            "203.0.113.10:443",
            "203.0.113.10/tcp",
            "203.0.113.10:443/sctp",
            "host:443/tcp",
            "",
        ] {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn port_that_is_too_large_is_told_of_as_that() {
        for wrong in ["203.0.113.10:99999", "[2001:db8::1]:65536"] {
            let said = wrong.parse::<Endpoint>().unwrap_err();
            assert!(said.starts_with("a port is 0 to 65535"), "{said}");
        }
        let said = "203.0.113.256:443".parse::<Endpoint>().unwrap_err();
        assert!(said.starts_with("address and port are written"), "{said}");
    }

    #[test]
    fn frames_are_read_from_hexadecimal_digits() {
        assert_eq!("00 ff:0A\n".parse(), Ok(Hex(vec![0, 255, 10])));
        for wrong in ["", "0", "0x00", "gg", "001"] {
            assert!(wrong.parse::<Hex>().is_err(), "{wrong}");
        }
    }
}
