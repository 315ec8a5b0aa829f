//! What all files wrote, with the places that later judgements need to point at.

use ipnet::IpNet;

use crate::policy::model::{
    Authorize, Client, Credentials, Daemon, Deny, Expect, Filter, Listener, Management, PortRange, Publisher,
    Records, Service, Sink,
};
use crate::policy::source::{Place, Placed};

#[derive(Default)]
pub(crate) struct Draft {
    /// Whether some file could not be walked: what is missing then is not known to be missing.
    pub(crate) incomplete: bool,
    /// Whether the policy is of another version: nothing else of it was read.
    pub(crate) other_version: bool,
    pub(crate) include: Vec<Placed<String>>,
    pub(crate) filter: Option<FilterDraft>,
    pub(crate) services: Vec<ServiceDraft>,
    pub(crate) clients: Vec<ClientDraft>,
    pub(crate) denies: Vec<DenyDraft>,
    pub(crate) management: Vec<ManagementDraft>,
    pub(crate) publishers: Vec<PublisherDraft>,
    pub(crate) expects: Vec<Expect>,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) listeners: Vec<ListenerDraft>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) authorize: Option<Authorize>,
    pub(crate) records: Option<Records>,
    pub(crate) sinks: Vec<SinkDraft>,
}

impl Draft {
    /// Sources written so far, of all entries.
    pub(crate) fn source_count(&self) -> usize {
        let clients = self.clients.iter().map(|client| client.sources.len());
        let denies = self.denies.iter().map(|deny| deny.sources.len());
        let management = self.management.iter().map(|management| management.sources.len());
        clients.chain(denies).chain(management).sum()
    }
}

pub(crate) struct FilterDraft {
    pub(crate) filter: Filter,
    pub(crate) place: Place,
    pub(crate) interfaces: Vec<Placed<String>>,
    pub(crate) other_traffic: Place,
    pub(crate) icmp_limit: Place,
}

pub(crate) struct ServiceDraft {
    pub(crate) service: Service,
    pub(crate) name: Place,
    pub(crate) ports: Vec<Placed<PortRange>>,
}

/// Services as named, not yet looked up.
pub(crate) enum ServiceNames {
    All,
    Named(Vec<Placed<String>>),
}

/// `sources` and `services` of the client are filled in once all files are read.
pub(crate) struct ClientDraft {
    pub(crate) client: Client,
    pub(crate) name: Place,
    pub(crate) sources: Vec<Placed<IpNet>>,
    pub(crate) sources_file: Option<Placed<String>>,
    pub(crate) services: ServiceNames,
    pub(crate) credentials: Vec<Placed<String>>,
    pub(crate) connections: Option<Place>,
    pub(crate) file: u32,
}

pub(crate) struct DenyDraft {
    pub(crate) deny: Deny,
    pub(crate) name: Place,
    pub(crate) sources: Vec<Placed<IpNet>>,
}

pub(crate) struct ManagementDraft {
    pub(crate) management: Management,
    pub(crate) name: Place,
    pub(crate) sources: Vec<Placed<IpNet>>,
}

pub(crate) struct PublisherDraft {
    pub(crate) publisher: Publisher,
    pub(crate) name: Place,
    pub(crate) identity: Place,
    pub(crate) services: ServiceNames,
}

pub(crate) struct ListenerDraft {
    pub(crate) listener: Listener,
    pub(crate) address: Place,
}

pub(crate) struct SinkDraft {
    pub(crate) sink: Sink,
    pub(crate) path: Place,
}
