//! Reads the kernel's counters for scrapes and status, beside the engine and never waiting for it.

use filter_common::account;
use filter_common::bounds::SERVICES_MAX;
use filter_common::verdict::Verdict;

use crate::bindings::seam::OwnerUse;

use super::snapshot::{CounterValues, InterfaceCount, VerdictCount};
use crate::kernel::load::LoadError;
use crate::kernel::state::{State, WITHOUT_SERVICE};

/// The counters' reader: what a scrape asks, without the engine.
pub struct Reader {
    state: State,
    services: Vec<(String, u32)>,
    interfaces: Vec<(String, Vec<u32>)>,
}

impl Reader {
    pub(super) fn new(
        state: State,
        services: Vec<(String, u32)>,
        interfaces: Vec<(String, Vec<u32>)>,
    ) -> Self {
        Self {
            state,
            services,
            interfaces,
        }
    }

    pub fn read(&self) -> Result<CounterValues, String> {
        self.try_read().map_err(|error| error.to_string())
    }

    /// What the owner of a number has done.
    pub fn used(&self, number: u32) -> Option<OwnerUse> {
        let used = self.state.owner(number)?;
        Some(OwnerUse {
            packets: used.packets,
            bytes: used.bytes,
            last_seen: used.last_seen,
            buckets: used.buckets,
        })
    }

    fn try_read(&self) -> Result<CounterValues, LoadError> {
        let mut values = CounterValues::default();
        let mut count = |service: Option<&str>, number, verdict: Verdict, reason| {
            let count = self.state.count(account::index(verdict, reason, number))?;
            values.verdicts.push(VerdictCount {
                service: service.map(String::from),
                verdict: verdict.name(),
                reason: reason.name(),
                packets: count.packets,
                bytes: count.bytes,
            });
            Ok::<(), LoadError>(())
        };
        for (verdict, reason) in account::general_reasons() {
            count(None, WITHOUT_SERVICE, verdict, reason)?;
        }
        for (name, number) in &self.services {
            for (verdict, reason) in account::service_reasons() {
                count(Some(name), *number, verdict, reason)?;
            }
        }
        // What a service has counted stays when it leaves the policy: counters never fall.
        for number in 0..SERVICES_MAX {
            let Some(name) = self.state.service_name(number) else {
                continue;
            };
            if self.services.iter().any(|(known, _)| *known == name) {
                continue;
            }
            for (verdict, reason) in account::service_reasons() {
                count(Some(&name), number, verdict, reason)?;
            }
        }
        for (interface, slots) in &self.interfaces {
            let packets = self.state.interface(slots)?;
            for (verdict, packets) in Verdict::ALL.iter().zip(packets) {
                let (interface, verdict) = (interface.clone(), verdict.name());
                values.interfaces.push(InterfaceCount {
                    interface,
                    verdict,
                    packets,
                });
            }
        }
        values.shared_sources = self.state.count(account::SHARED_SOURCES)?.packets;
        Ok(values)
    }
}
