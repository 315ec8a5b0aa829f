//! The tables themselves, a key a line or two.

use crate::policy::bounds::{INTERFACES_MAX, LABELS_MAX, NOTE_BYTES_MAX, PORT_RANGES_MAX, SOURCES_MAX};
use crate::policy::keys::{Key, Kind, Presence, Table, Taken};
use crate::policy::model::{
    Attach, Mode, OnExit, PassDrop, PassListedDrop, RecordAddresses, Role, Scheme, SinkType,
};
use crate::policy::words::{VERDICTS, Word};

use Kind::{Boolean, Bytes, Count, Duration, Form, List, Name, Tables, Text, Word as OneOf};
use Presence::{Default, Optional, Required};

const fn key(name: &'static str, kind: Kind, presence: Presence, about: &'static str) -> Key {
    Key { name, kind, presence, about }
}

const PREFIX: &str = "prefix or address";
const PREFIXES: Kind = List { of: PREFIX, min: 1, max: SOURCES_MAX };
const PORTS: Kind =
    List { of: "port (`443`) or range (`\"8443-8450\"`), 1 to 65535", min: 1, max: PORT_RANGES_MAX };
const ADDRESS: Kind = Form("list of prefixes, or `\"host\"`");
const PROTOCOL: Kind = Form("`\"tcp\"`, `\"udp\"` or `[\"tcp\", \"udp\"]`");
const ITEMS_MAX: usize = 1_000;
const TEN_YEARS: u64 = 3_650 * 86_400;

const NAME: Key = key("name", Name, Required("\"a-name\""), "Unique among entries of its kind.");
const NOTE: Key = key("note", Text { bytes_max: NOTE_BYTES_MAX }, Optional("none"),
    "For people: shown in explain, plan, drops and audit, never in metrics.");
const LABELS_KEY: Key = key("labels", Kind::Table(&LABELS), Optional("none"), "The same, as pairs.");

pub(crate) static ROOT: Table = Table {
    name: "",
    title: "Top level",
    about: "The root file. An included file holds `[[service]]`, `[[client]]`, `[[deny]]`, `[[management]]` \
            and `[[expect]]` only.",
    taken: Taken::Reload,
    included: true,
    keys: &[
        key("version", Count { min: 1, max: 1 }, Required("1"), "The version of this format."),
        key("include", List { of: "path or glob", min: 0, max: 1_000 }, Default("[]"),
            "Further files, relative to the root's folder and inside it, read in byte order of their \
             paths; included files include no others. A symbolic link that leads out of the folder is an error."),
        key("filter", Kind::Table(&FILTER), Required("{ interfaces = [\"eth0\"] }"),
            "How packets are judged."),
        key("service", Tables(&SERVICE), Optional("none"), "What is protected; at most 1,024."),
        key("client", Tables(&CLIENT), Optional("none"), "Who may reach services."),
        key("deny", Tables(&DENY), Optional("none"), "Who may reach nothing but management."),
        key("management", Tables(&MANAGEMENT), Optional("none"), "The way back in."),
        key("publisher", Tables(&PUBLISHER), Optional("none"), "Who may push bindings."),
        key("expect", Tables(&EXPECT), Optional("none"), "Tests of the policy."),
        key("daemon", Kind::Table(&DAEMON), Default("{}"), "The daemon itself."),
        key("listener", Tables(&LISTENER), Optional("two, see there"), "Where the API is served."),
        key("credentials", Kind::Table(&CREDENTIALS), Default("{}"), "How API keys are found and named."),
        key("authorize", Kind::Table(&AUTHORIZE), Default("{}"), "How gateways ask."),
        key("records", Kind::Table(&RECORDS), Default("{}"), "How drops are recorded."),
        key("sink", Tables(&SINK), Optional("one of type file"), "Where drop records go."),
    ],
};

pub(crate) static FILTER: Table = Table {
    name: "filter",
    title: "`[filter]`",
    about: "How packets are judged that no entry decides.",
    taken: Taken::Reload,
    included: false,
    keys: &[
        key("interfaces", List { of: "interface name or glob", min: 1, max: INTERFACES_MAX },
            Required("[\"eth0\"]"),
            "Ethernet interfaces whose arriving packets are judged; of stacked ones (`eth0` and \
             `eth0.100`) only one."),
        key("mode", OneOf(Mode::NAMES), Default("\"enforce\""), "Whether drops are drops or only recorded."),
        key("attach", OneOf(Attach::NAMES), Default("\"auto\""),
            "Where the program attaches: native, else generic."),
        key("other-traffic", OneOf(PassDrop::NAMES), Default("\"pass\""),
            "Packets to no service. With `drop`, connections that stand on this host go on, whoever opened them (`reply`)."),
        key("other-address", OneOf(PassDrop::NAMES), Default("\"pass\""),
            "A service's protocol and port at an address that is no service's."),
        key("fragments", OneOf(PassListedDrop::NAMES), Default("\"listed\""), "Later fragments."),
        key("ping", OneOf(PassListedDrop::NAMES), Default("\"pass\""),
            "Echo requests and later ICMP fragments."),
        key("non-ip", OneOf(PassDrop::NAMES), Default("\"pass\""), "Frames that are neither IP nor ARP."),
        key("management-none", Boolean, Default("false"),
            "Says that a policy that drops other traffic means to have no management entry."),
        key("source-limit-max", Count { min: 1, max: 1 << 26 }, Default("1048576"),
            "How many source buckets there are."),
        key("source-limit", Kind::Table(&LIMITS), Optional("no limit"), "One bucket for each listed source."),
        key("icmp-limit", Kind::Table(&LIMITS), Optional("no limit"),
            "One bucket for errors and echo replies, a second for echo requests and ICMP fragments."),
    ],
};

pub(crate) static SERVICE: Table = Table {
    name: "service",
    title: "`[[service]]`",
    about: "What is protected. Two services may not have one protocol and port at a common address.",
    taken: Taken::Reload,
    included: true,
    keys: &[
        NAME,
        key("environment", Name, Default("\"production\""), "`production`, `sandbox` or any name."),
        key("address", ADDRESS, Optional("every address"),
            "Destination addresses; `host` is every address that this host takes packets at, followed as they change."),
        key("protocol", PROTOCOL, Required("\"tcp\""), "The transport."),
        key("ports", PORTS, Required("[443]"), "Destination ports."),
        key("mode", OneOf(Mode::NAMES), Optional("the filter's"), "Enforce or observe, for this service."),
        key("limit", Kind::Table(&LIMITS), Optional("no limit"), "Shared by all who reach it."),
        NOTE,
        LABELS_KEY,
    ],
};

pub(crate) static CLIENT: Table = Table {
    name: "client",
    title: "`[[client]]`",
    about: "Sources that may reach services. One of `sources` and `sources-file` is needed; both add up.",
    taken: Taken::Reload,
    included: true,
    keys: &[
        NAME,
        key("sources", List { of: PREFIX, min: 0, max: SOURCES_MAX }, Optional("see `sources-file`"),
            "Source prefixes; at most 10 million in the whole policy."),
        key("sources-file", Text { bytes_max: 4_096 }, Optional("see `sources`"),
            "A file of prefixes, one a line, `#` begins a comment; relative to the file that names it, and inside the root's folder, also \
             by its links."),
        key("source-ports", List { of: "port or range, 0 to 65535", min: 0, max: PORT_RANGES_MAX },
            Default("[]"),
            "Source ports; empty is any."),
        key("services", List { of: "service name, or `\"*\"` alone", min: 1, max: 1_024 },
            Required("[\"*\"]"),
            "What they may reach."),
        key("credentials", List { of: "key id or fingerprint", min: 0, max: 100_000 }, Default("[]"),
            "Keys that authorize accepts from these sources: ids and fingerprints (see `[credentials]`); never a \
             key itself."),
        key("limit", Kind::Table(&LIMITS), Optional("no limit"),
            "Shared by all sources and services of the entry."),
        key("expires", Form("date and time with offset"), Optional("never"),
            "When the entry ends, by the wall clock."),
        key("enabled", Boolean, Default("true"), "Whether the entry is in force."),
        NOTE,
        LABELS_KEY,
    ],
};

pub(crate) static DENY: Table = Table {
    name: "deny",
    title: "`[[deny]]`",
    about: "Sources whose packets are dropped, whatever else admits them; only management comes before.",
    taken: Taken::Reload,
    included: true,
    keys: &[
        NAME,
        key("sources", PREFIXES, Required("[\"198.51.100.66\"]"), "Source prefixes."),
        NOTE,
        LABELS_KEY,
    ],
};

pub(crate) static MANAGEMENT: Table = Table {
    name: "management",
    title: "`[[management]]`",
    about: "Never denied, never limited: the way back in.",
    taken: Taken::Reload,
    included: true,
    keys: &[
        NAME,
        key("sources", PREFIXES, Required("[\"192.0.2.0/24\"]"), "Source prefixes."),
        key("address", ADDRESS, Optional("every address"), "Destination addresses."),
        key("protocol", PROTOCOL, Required("\"tcp\""), "The transport."),
        key("ports", PORTS, Required("[22]"), "Destination ports."),
        NOTE,
        LABELS_KEY,
    ],
};

pub(crate) static PUBLISHER: Table = Table {
    name: "publisher",
    title: "`[[publisher]]`",
    about: "Who may push bindings, told by exactly one of `user`, `group`, `socket` and `certificate`.",
    taken: Taken::Reload,
    included: false,
    keys: &[
        NAME,
        key("user", Text { bytes_max: 64 }, Optional("not by user"), "The peer's Unix user."),
        key("group", Text { bytes_max: 64 }, Optional("not by group"), "One of the peer's Unix groups."),
        key("socket", Text { bytes_max: 120 }, Optional("not by socket"),
            "The address of a listener of its own (`unix:/…`)."),
        key("certificate", Kind::Table(&CERTIFICATE), Optional("not by certificate"),
            "The peer's exact SAN."),
        key("services", List { of: "service name, or `\"*\"` alone", min: 0, max: 1_024 }, Default("[]"),
            "What its bindings may open."),
        key("environments", List { of: "name", min: 0, max: ITEMS_MAX }, Default("[]"),
            "Environments of these: a service of another one it may not open, also under `\"*\"`."),
        key("bindings-max", Count { min: 1, max: 10_000_000 }, Default("100000"),
            "How many bindings it may have."),
        key("sources-max", Count { min: 1, max: 65_536 }, Default("256"),
            "How many sources a binding may have."),
        key("widest-prefix", Kind::Table(&WIDEST_PREFIX), Default("{}"),
            "The shortest prefixes it may open."),
        key("lease-max", Form("duration of 1s to 3650d, or `\"none\"`"), Default("\"24h\""),
            "The longest lease; `none` allows bindings without an end."),
        key("lease-hold", Duration { min: 0, max: TEN_YEARS }, Default("\"0s\""),
            "How long past their end leases admit while this publisher has made no successful request."),
        key("revoke-max", Form("percentage, 0% to 100%"), Default("\"10%\""),
            "What one full sync may revoke, of its bindings, and at least 10: beyond, it is refused (409 \
             `mass-revocation`) unless the request says `?revoke_max=N`. A seat belt against a broken source of rows, \
             and no right: the publisher itself may raise it for one request."),
        key("limit-default", Kind::Table(&LIMITS), Default("{}"), "Given to a binding without a limit."),
        key("limit-max", Kind::Table(&LIMITS), Default("{}"), "No binding may have more."),
        key("limit", Kind::Table(&LIMITS), Default("{}"), "One bucket over all its bindings."),
        key("requests", Kind::Table(&BUCKET), Optional("no limit"), "Requests of the API."),
        NOTE,
        LABELS_KEY,
    ],
};

pub(crate) static EXPECT: Table = Table {
    name: "expect",
    title: "`[[expect]]`",
    about: "A packet and what must become of it: run by check, plan and apply.",
    taken: Taken::Reload,
    included: true,
    keys: &[
        key("from", Form("address and port"), Required("\"198.51.100.7:40000\""),
            "The source; the port may be left out."),
        key("to", Form("address, port and protocol"), Required("\"203.0.113.10:443/tcp\""),
            "The destination, with `/tcp`, `/udp` or, without port, `/icmp`."),
        key("verdict", OneOf(&VERDICTS), Required("\"pass\""), "What becomes of it."),
        key("reason", Form("a reason of that verdict"), Optional("any reason"), "Why."),
        NOTE,
        LABELS_KEY,
    ],
};

pub(crate) static DAEMON: Table = Table {
    name: "daemon",
    title: "`[daemon]`",
    about: "The daemon itself.",
    taken: Taken::Restart,
    included: false,
    keys: &[
        key("instance", Name, Default("\"main\""), "Pins are in its name under the BPF file system."),
        key("state", Text { bytes_max: 1_024 }, Default("\"/var/lib/keyfence\""),
            "The folder of bindings, audit log, policy history and backups; absolute."),
        key("on-exit", OneOf(OnExit::NAMES), Default("\"keep\""),
            "Whether the filter stays when the daemon stops."),
        key("operators", List { of: "user, or `\"@group\"`", min: 0, max: ITEMS_MAX }, Default("[\"root\"]"),
            "Who may use the role operate."),
    ],
};

pub(crate) static LISTENER: Table = Table {
    name: "listener",
    title: "`[[listener]]`",
    about: "Where the API is served. Without any: `unix:/run/keyfence/api.sock` with publish, authorize, \
            read, operate and deny, and `tcp:127.0.0.1:9469` with metrics.",
    taken: Taken::Restart,
    included: false,
    keys: &[
        key("address", Form("`\"unix:/path\"` or `\"tcp:address:port\"`"),
            Required("\"unix:/run/keyfence/api.sock\""),
            "Plain TCP only on loopback and without publish, operate and deny."),
        key("roles",
            List {
                of: "role: publish, authorize, read, operate, deny, metrics", min: 1, max: Role::NAMES.len()
            },
            Optional("as above"),
            "What can be asked here."),
        key("mode", Form("text of octal digits"), Default("\"0660\""), "Of a Unix socket."),
        key("group", Text { bytes_max: 64 }, Default("\"keyfence\""), "Of a Unix socket."),
        key("assert", Boolean, Default("false"),
            "Whether a gateway may name the credential that it has proved itself."),
        key("tls", Kind::Table(&TLS), Optional("plain"), "Of a TCP listener."),
    ],
};

pub(crate) static CREDENTIALS: Table = Table {
    name: "credentials",
    title: "`[credentials]`",
    about: "How API keys are found in requests and named in the store. The fingerprint of a key is `sha256:` and the \
            SHA-256 of its bytes in 64 lower-case hex digits (`printf %s \"$KEY\" | sha256sum`), or \
            `hmac-sha256:ID:` and the HMAC-SHA-256 (RFC 2104) of its bytes under the bytes of the secret with that \
            id, white space at the end of its file apart (`printf %s \"$KEY\" | openssl dgst -sha256 -hmac \
            \"$(cat /etc/keyfence/k1)\"`).",
    taken: Taken::Restart,
    included: false,
    keys: &[
        key("header", List { of: "header, or `\"Header: Scheme\"`", min: 1, max: 16 },
            Default("[\"X-Api-Key\", \"Authorization: Bearer\"]"),
            "Where a key is looked for, in this order."),
        key("scheme", OneOf(Scheme::NAMES), Default("\"sha256\""),
            "How keys are fingerprinted. hmac-sha256: who lacks the secret cannot tell which keys there are; `sha256:…` is found too."),
        key("secret-files", List { of: "`{ id = \"k2\", file = \"/…\" }`", min: 0, max: 16 }, Default("[]"),
            "Secrets of hmac-sha256: the first for new fingerprints, all are tried."),
        key("id-pattern", Form("regular expression"), Default("'^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$'"),
            "What a key's id looks like."),
    ],
};

pub(crate) static AUTHORIZE: Table = Table {
    name: "authorize",
    title: "`[authorize]`",
    about: "How gateways ask whether a key may be used from an address.",
    taken: Taken::Restart,
    included: false,
    keys: &[
        key("address-header", Text { bytes_max: 128 }, Default("\"Keyfence-Client-Address\""),
            "The header in which the proxy gives the client's address; `X-Forwarded-For` needs \
             `trusted-proxies`."),
        key("trusted-proxies", List { of: PREFIX, min: 0, max: ITEMS_MAX }, Default("[]"),
            "Proxies that are skipped in `X-Forwarded-For`."),
        key("reason-header", Boolean, Default("false"), "Whether answers carry `Keyfence-Reason`."),
    ],
};

pub(crate) static RECORDS: Table = Table {
    name: "records",
    title: "`[records]`",
    about: "How dropped and observed packets are recorded.",
    taken: Taken::Restart,
    included: false,
    keys: &[
        key("interval", Duration { min: 1, max: 3_600 }, Default("\"10s\""), "What one record covers."),
        key("addresses", OneOf(RecordAddresses::NAMES), Default("\"full\""),
            "Whole addresses, prefixes (/24, /48) or keyed hashes."),
    ],
};

pub(crate) static SINK: Table = Table {
    name: "sink",
    title: "`[[sink]]`",
    about: "Where drop records go. Without any: one of type file. `path`, `rotate-size`, `keep-size` and \
            `keep-age` belong to type file only.",
    taken: Taken::Restart,
    included: false,
    keys: &[
        key("type", OneOf(SinkType::NAMES), Default("\"file\""),
            "A file, the local syslog socket, journald or standard output."),
        key("path", Text { bytes_max: 1_024 }, Default("\"/var/log/keyfence/drops.jsonl\""), "Absolute."),
        key("rotate-size", Bytes { min: 1 << 10, max: 1 << 40 }, Default("\"100MB\""),
            "When a new file is begun."),
        key("keep-size", Bytes { min: 1 << 10, max: 1 << 50 }, Default("\"2GB\""),
            "All rotated files together; at least `rotate-size`."),
        key("keep-age", Duration { min: 60, max: TEN_YEARS }, Default("\"90d\""),
            "When a rotated file is removed."),
    ],
};

pub(crate) static LIMITS: Table = Table {
    name: "limits",
    title: "Limits",
    about: "Token buckets of a `limit`, `source-limit`, `icmp-limit`, `limit-default` or `limit-max`. One \
            that is not set is no limit.",
    taken: Taken::Reload,
    included: true,
    keys: &[
        key("packets", Kind::Table(&BUCKET), Optional("no limit"), "A packet costs 1."),
        key("bytes", Kind::Table(&BUCKET), Optional("no limit"), "The length of the IP packet."),
        key("connections", Kind::Table(&BUCKET), Optional("no limit"), "A TCP SYN costs 1."),
    ],
};

pub(crate) static BUCKET: Table = Table {
    name: "bucket",
    title: "Buckets",
    about: "One token bucket. It fills from empty within five years.",
    taken: Taken::Reload,
    included: true,
    keys: &[
        key("rate", Form("count a second, or text with `/s`, `/m`, `/h`"), Required("1000"),
            "Tokens gained; above 0 and at most 1e9 a second, of bytes 1e12."),
        key("burst", Form("count"), Required("2000"),
            "Tokens held when full; 1 to 2^40, and best 20 ms of the rate or more."),
    ],
};

pub(crate) static LABELS: Table = Table {
    name: "labels",
    title: "Labels",
    about: "Pairs of text under keys of one's own choice: at most 16, of 64 and 256 bytes.",
    taken: Taken::Reload,
    included: true,
    keys: &[],
};

const _: () = assert!(LABELS_MAX == 16);

pub(crate) static CERTIFICATE: Table = Table {
    name: "certificate",
    title: "Certificates",
    about: "Exactly one subject alternative name.",
    taken: Taken::Reload,
    included: false,
    keys: &[
        key("uri", Text { bytes_max: 1_024 }, Optional("not by URI"),
            "As in `spiffe://example.org/gateway`."),
        key("dns", Text { bytes_max: 255 }, Optional("not by DNS name"), "As in `gateway.example.org`."),
        key("email", Text { bytes_max: 320 }, Optional("not by address"), "As in `gateway@example.org`."),
    ],
};

pub(crate) static WIDEST_PREFIX: Table = Table {
    name: "widest-prefix",
    title: "Widest prefixes",
    about: "The shortest prefix lengths.",
    taken: Taken::Reload,
    included: false,
    keys: &[
        key("ipv4", Count { min: 0, max: 32 }, Default("32"), "Of an IPv4 source."),
        key("ipv6", Count { min: 0, max: 128 }, Default("64"), "Of an IPv6 source."),
    ],
};

pub(crate) static TLS: Table = Table {
    name: "tls",
    title: "TLS",
    about: "Of a TCP listener; files are absolute paths.",
    taken: Taken::Restart,
    included: false,
    keys: &[
        key("certificate", Text { bytes_max: 1_024 }, Required("\"/etc/keyfence/tls.crt\""),
            "The chain, PEM."),
        key("key", Text { bytes_max: 1_024 }, Required("\"/etc/keyfence/tls.key\""), "Its key, PEM."),
        key("client-ca", Text { bytes_max: 1_024 }, Optional("no client certificates"),
            "Who signs client certificates; needed for publish, operate and deny."),
    ],
};

pub(crate) static SECRET_FILE: Table = Table {
    name: "secret-file",
    title: "Secret files",
    about: "One secret of hmac-sha256.",
    taken: Taken::Restart,
    included: false,
    keys: &[
        key("id", Name, Required("\"k1\""), "Its id, as it stands in fingerprints."),
        key("file", Text { bytes_max: 1_024 }, Required("\"/etc/keyfence/k1\""),
            "The file that holds it; absolute."),
    ],
};
