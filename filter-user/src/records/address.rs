//! Source addresses as records show them: whole, as their network, or as a pseudonym that only this host can make.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use filter_common::parse::{Address, Family};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::RecordsError;
use crate::policy::model::RecordAddresses;

/// Of the pseudonyms' key.
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "records.key";

/// How source addresses are shown.
pub(super) enum Veil {
    Full,
    Prefix,
    Hmac(Pseudonyms),
}

/// How a pseudonym begins.
pub const PSEUDONYM: &str = "hmac:";

/// Pseudonyms of addresses, under a key that nobody else has.
#[derive(Clone)]
pub struct Pseudonyms([u8; KEY_BYTES]);

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonyms")
    }
}

impl Pseudonyms {
    /// Those of a key's file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        fs::File::open(path)?.read_exact(&mut key)?;
        Ok(Self(key))
    }

    /// Those of a state folder, where any were ever made.
    pub(super) fn kept(state: &Path) -> io::Result<Option<Self>> {
        match Self::read(&state.join(KEY_FILE)) {
            Ok(pseudonyms) => Ok(Some(pseudonyms)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `hmac:` and 32 hex digits.
    pub fn of(&self, ip: IpAddr) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(ip.to_string().as_bytes());
        let digits = super::ledger::hex(&mac.finalize().into_bytes()[..16]);
        format!("{PSEUDONYM}{digits}")
    }
}

/// A source as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// The address, or the first of its network.
    pub(super) ip: Option<IpAddr>,
    /// The network or the pseudonym, where it is no whole address.
    pub(super) address: Option<String>,
}

impl Veil {
    /// Makes the key where there is none yet.
    pub(super) fn of(how: RecordAddresses, state: &Path) -> Result<Self, RecordsError> {
        match how {
            RecordAddresses::Full => Ok(Self::Full),
            RecordAddresses::Prefix => Ok(Self::Prefix),
            RecordAddresses::Hmac => {
                let path = state.join(KEY_FILE);
                let key = key(&path).map_err(|error| RecordsError::Key {
                    path: path.display().to_string(),
                    error,
                })?;
                Ok(Self::Hmac(Pseudonyms(key)))
            }
        }
    }

    /// The address as far as records with the same one share a line.
    pub(super) fn network(&self, address: Address, family: Family) -> Address {
        match (self, family) {
            (Veil::Prefix, Family::V4) => Address::of_v4(address.v4() & 0xffff_ff00),
            (Veil::Prefix, Family::V6) => Address {
                upper: address.upper & !0xffff,
                lower: 0,
            },
            _ => address,
        }
    }

    pub(super) fn show(&self, address: Address, family: Family) -> Shown {
        let ip = ip(self.network(address, family), family);
        match self {
            Veil::Full => Shown {
                ip: Some(ip),
                address: None,
            },
            Veil::Prefix => Shown {
                ip: Some(ip),
                address: Some(format!("{ip}/{}", if ip.is_ipv4() { 24 } else { 48 })),
            },
            Veil::Hmac(pseudonyms) => Shown {
                ip: None,
                address: Some(pseudonyms.of(ip)),
            },
        }
    }
}

/// The network that an overflow record is of.
pub(super) fn show_prefix(address: Address, family: Family) -> Shown {
    let ip = ip(address, family);
    Shown {
        ip: Some(ip),
        address: Some(format!("{ip}/{}", if ip.is_ipv4() { 16 } else { 32 })),
    }
}

pub(super) fn ip(address: Address, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(address.v4()).into(),
        Family::V6 => Ipv6Addr::from(address.octets()).into(),
    }
}

fn key(path: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    match fs::File::open(path) {
        Ok(mut file) => file.read_exact(&mut key)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
            let made = path.with_extension("key.new");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&made)?;
            file.write_all(&key)?;
            file.sync_all()?;
            fs::rename(made, path)?;
        }
        Err(error) => return Err(error),
    }
    Ok(key)
}
