//! A packet as it is asked about in words: `198.51.100.7:40000`, `203.0.113.10:443/tcp`, or a frame in hexadecimal.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::frame::{Flow, build};
use crate::policy::model::ExpectProtocol;

/// `ADDR:PORT`, or the address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: Option<u16>,
}

/// `ADDR:PORT/PROTO`; an echo request (`/icmp`) needs no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub endpoint: Endpoint,
    pub protocol: ExpectProtocol,
}

/// Bytes as hexadecimal digits; blanks and colons between them are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

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

/// The frame of a packet from here to there; `None` where the two are not of one address family.
pub fn frame(from: Endpoint, to: Destination) -> Option<Vec<u8>> {
    build(&Flow {
        from: (from.address, from.port.unwrap_or(0)),
        to: (to.endpoint.address, to.endpoint.port.unwrap_or(0)),
        protocol: to.protocol,
    })
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
