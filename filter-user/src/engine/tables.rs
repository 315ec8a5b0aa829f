//! A policy's tables as this host has them compiled: with its addresses, and ends by its clocks.

use std::net::IpAddr;

use super::error::FilterError;
use crate::compiler::{self, Numbers, Surroundings};
use crate::kernel::{clock, interfaces};
use crate::policy::Policy;
use crate::policy::model::Addresses;

/// What `"host"` means now; empty where the policy does not say it.
pub(super) fn host_addresses(policy: &Policy) -> Result<Vec<IpAddr>, FilterError> {
    let services = policy.services.iter().map(|service| &service.address);
    let mut all = services.chain(policy.management.iter().map(|entry| &entry.address));
    if !all.any(|address| *address == Addresses::Host) {
        return Ok(Vec::new());
    }
    interfaces::host_addresses().map_err(FilterError::HostAddresses)
}

/// What to do where `"host"` holds an address that a service with the same port names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlaps {
    /// An operator who asks for it is told.
    Refuse,
    /// Where nobody can be asked (a start, an address that comes): the written service keeps the address, and the
    /// daemon is not ready until it is mended. Going on with the old addresses would leave the new ones open.
    Narrow,
}

pub(super) fn compile(
    policy: &Policy,
    numbers: &Numbers,
    host: &[IpAddr],
    overlaps: Overlaps,
) -> Result<(compiler::Compiled, Option<String>), FilterError> {
    let offset = clock::wall_offset();
    let end = |expires| clock::monotonic_end(expires, offset);
    let compiled = |host: &[IpAddr]| {
        compiler::compile(
            policy,
            numbers,
            &Surroundings {
                host_addresses: host,
                end: &end,
            },
        )
    };
    match compiled(host) {
        Err(error @ compiler::CompileError::Overlap { .. }) if overlaps == Overlaps::Narrow => {
            let written = |address: &IpAddr| {
                policy.services.iter().any(|service| match &service.address {
                    Addresses::Prefixes(prefixes) => prefixes.iter().any(|prefix| prefix.contains(address)),
                    _ => false,
                })
            };
            let rest: Vec<IpAddr> = host.iter().copied().filter(|address| !written(address)).collect();
            Ok((compiled(&rest)?, Some(error.to_string())))
        }
        other => Ok((other?, None)),
    }
}
