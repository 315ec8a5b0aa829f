//! `keyfence explain`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_HELP: &str = "\
Shows each rule and its answer, the entry that matched with file and line, and the verdict of the kernel program \
itself. Takes no token and counts nothing.

Exit codes:
  0  judged, whatever the verdict
  1  failed
  3  the policy is invalid

Examples:
  keyfence explain --from 198.51.100.7:40000 --to 203.0.113.10:443/tcp
  keyfence explain --policy keyfence.toml --from [2001:db8::7]:40000 --to [2001:db8::1]:53/udp --json";

/// Show how one packet would be judged, and why
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = super::POLICY_FILE)]
    pub(crate) policy: PathBuf,
    /// The packet's source, as in 198.51.100.7:40000 or [2001:db8::7]:40000
    #[arg(long, value_name = "ADDR:PORT", required_unless_present = "frame")]
    pub(crate) from: Option<SocketAddr>,
    /// The packet's destination and protocol, as in 203.0.113.10:443/tcp
    #[arg(long, value_name = "ADDR:PORT/PROTO", required_unless_present = "frame")]
    pub(crate) to: Option<Destination>,
    /// A whole Ethernet frame instead, in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with_all = ["from", "to"])]
    pub(crate) frame: Option<String>,
    /// The interface it arrives on; the default is the policy's first
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ADDR:PORT/PROTO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Destination, String> {
        let (address, protocol) = text
            .rsplit_once('/')
            .ok_or("the protocol is missing; write it as in 203.0.113.10:443/tcp")?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err("the protocol is tcp or udp".to_owned()),
        };
        let address = address
            .parse()
            .map_err(|_| "address and port are written as in 203.0.113.10:443 or [2001:db8::1]:443")?;
        Ok(Destination { address, protocol })
    }
}

pub(crate) fn run(arguments: &Arguments, _shell: &Shell) -> Result<Exit, Failure> {
    let Arguments {
        policy,
        from: _,
        to,
        frame: _,
        interface: _,
        json: _,
    } = arguments;
    let _ = to.map(|Destination { address, protocol }| (address, protocol));
    Err(Failure::new(
        Exit::Failed,
        format!("{}: this build does not explain packets yet", policy.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_has_address_port_and_protocol() {
        let destination: Destination = "[2001:db8::1]:53/udp".parse().unwrap();
        assert_eq!(destination.protocol, Protocol::Udp);
        assert_eq!(destination.address.to_string(), "[2001:db8::1]:53");
        for wrong in [
            "203.0.113.10:443",
            "203.0.113.10/tcp",
            "203.0.113.10:443/icmp",
            "host:443/tcp",
            "",
        ] {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong}");
        }
    }
}
