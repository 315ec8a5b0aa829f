//! Properties over generated text and generated policies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{BASE, ROOT, load_files, load_text, told};
use crate::cases::cases;
use crate::policy::model::{Origin, Policy};
use crate::policy::{fuzz, print};

/// The policy without places; that something was written at all stays.
fn without_places(mut policy: Policy) -> Policy {
    let nowhere = || Origin {
        file: "".into(),
        line: 0,
    };
    let forget = |origin: &mut Option<Origin>| {
        if let Some(origin) = origin {
            *origin = nowhere();
        }
    };
    forget(&mut policy.filter.source_limit_max_origin);
    forget(&mut policy.filter.source_limit_origin);
    forget(&mut policy.credentials.origin);
    forget(&mut policy.authorize.origin);
    forget(&mut policy.records.origin);
    policy
        .listeners
        .iter_mut()
        .for_each(|listener| forget(&mut listener.origin));
    policy.sinks.iter_mut().for_each(|sink| forget(&mut sink.origin));
    policy
        .services
        .iter_mut()
        .for_each(|entry| entry.origin = nowhere());
    policy
        .publishers
        .iter_mut()
        .for_each(|entry| entry.origin = nowhere());
    policy
        .expects
        .iter_mut()
        .for_each(|entry| entry.origin = nowhere());
    let clients = policy
        .clients
        .iter_mut()
        .map(|entry| (&mut entry.origin, &mut entry.sources));
    let denies = policy
        .denies
        .iter_mut()
        .map(|entry| (&mut entry.origin, &mut entry.sources));
    let management = policy
        .management
        .iter_mut()
        .map(|entry| (&mut entry.origin, &mut entry.sources));
    for (origin, sources) in clients.chain(denies).chain(management) {
        *origin = nowhere();
        sources.iter_mut().for_each(|source| source.origin = nowhere());
    }
    policy
}

fn prefix() -> impl Strategy<Value = String> {
    let v4 =
        (any::<u32>(), 0u8..=32).prop_map(|(bits, length)| (IpAddr::from(Ipv4Addr::from_bits(bits)), length));
    let v6 = (any::<u128>(), 0u8..=128)
        .prop_map(|(bits, length)| (IpAddr::from(Ipv6Addr::from_bits(bits)), length));
    prop_oneof![v4, v6].prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc().to_string())
}

fn list(
    items: impl Strategy<Value = String>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    proptest::collection::vec(items, count).prop_map(|items| format!("[{}]", items.join(", ")))
}

fn prefixes() -> BoxedStrategy<String> {
    list(prefix().prop_map(|prefix| format!("{prefix:?}")), 1..12).boxed()
}

/// A port of service `index`: services of a generated policy do not overlap.
fn ports(index: usize) -> impl Strategy<Value = String> {
    let first = 1 + index as u16 * 1000;
    let range = (first..first + 500, 0u16..400).prop_map(|(first, length)| match length {
        0..100 => format!("{first}"),
        _ => format!("\"{first}-{}\"", first + length),
    });
    list(range, 1..8)
}

fn bucket() -> BoxedStrategy<String> {
    let rate = prop_oneof![
        (1u64..1_000_000_000).prop_map(|rate| rate.to_string()),
        (1u64..100_000).prop_map(|rate| format!("\"{rate}/m\"")),
        (1u64..100_000).prop_map(|rate| format!("\"{rate}k/h\"")),
    ];
    (rate, 1u64..8_000)
        .prop_map(|(rate, burst)| format!("{{ rate = {rate}, burst = {burst} }}"))
        .boxed()
}

fn limit() -> BoxedStrategy<String> {
    let key = |name: &'static str| {
        proptest::option::of(bucket().prop_map(move |bucket| format!("{name} = {bucket}")))
    };
    (key("packets"), key("bytes"), key("connections"))
        .prop_map(|(packets, bytes, connections)| {
            let set: Vec<String> = [packets, bytes, connections].into_iter().flatten().collect();
            format!("{{ {} }}", set.join(", "))
        })
        .boxed()
}

fn remarks() -> BoxedStrategy<String> {
    let text = "[a-zA-Z0-9 \"\\\\\t\nä€]{1,20}";
    (
        proptest::option::of(text),
        proptest::collection::btree_map("[a-z \"]{1,8}", text, 0..4),
    )
        .prop_map(|(note, labels)| {
            let toml = |text: &str| toml::Value::String(text.to_owned()).to_string();
            let labels: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key:?} = {}", toml(value)))
                .collect();
            let note = note
                .map(|note| format!("note = {}\n", toml(&note)))
                .unwrap_or_default();
            format!("{note}labels = {{ {} }}\n", labels.join(", "))
        })
        .boxed()
}

fn service(index: usize) -> BoxedStrategy<String> {
    let address = prop_oneof![
        Just(String::new()),
        Just("address = \"host\"\n".to_owned()),
        prefixes().prop_map(|prefixes| format!("address = {prefixes}\n"))
    ];
    let protocol = prop_oneof![Just("\"tcp\""), Just("\"udp\""), Just("[\"udp\", \"tcp\"]")];
    let mode = prop_oneof![
        Just(""),
        Just("mode = \"observe\"\n"),
        Just("mode = \"enforce\"\n")
    ];
    (address, protocol, ports(index), mode, limit(), remarks()).prop_map(
        move |(address, protocol, ports, mode, limit, remarks)| {
            format!("[[service]]\nname = \"s{index}\"\n{address}protocol = {protocol}\nports = {ports}\n{mode}limit = {limit}\n{remarks}")
        },
    )
    .boxed()
}

fn client(index: usize) -> BoxedStrategy<String> {
    let services = prop_oneof![Just("[\"*\"]"), Just("[\"s1\", \"s0\"]"), Just("[\"s2\"]")];
    let expires = proptest::option::of((1970i16..=9998, 0u32..=999_999_999)).prop_map(|expires| {
        expires
            .map(|(year, nanos)| format!("expires = {year:04}-02-03T04:05:06.{nanos:09}+01:30\n"))
            .unwrap_or_default()
    });
    let credentials = list("\"[a-z][a-z0-9]{0,5}\"", 0..4);
    (prefixes(), services, ports(20), expires, credentials, limit(), any::<bool>(), remarks()).prop_map(
        move |(sources, services, ports, expires, credentials, limit, enabled, remarks)| {
            format!(
                "[[client]]\nname = \"c{index}\"\nsources = {sources}\nservices = {services}\nsource-ports = {ports}\n{expires}\
                 credentials = {credentials}\nlimit = {limit}\nenabled = {enabled}\n{remarks}"
            )
        },
    )
    .boxed()
}

fn publisher() -> BoxedStrategy<String> {
    let lease = prop_oneof![
        Just("none".to_owned()),
        (1u64..100_000_000).prop_map(|s| format!("{s}s"))
    ];
    (lease, 0u64..100_000, 0u32..=1000, limit(), bucket(), 0u8..=32, 0u8..=128).prop_map(
        |(lease, hold, revoke, limit, requests, ipv4, ipv6)| {
            format!(
                "[[publisher]]\nname = \"p\"\ncertificate = {{ uri = \"spiffe://a/b\" }}\nservices = [\"s1\"]\nlease-max = \"{lease}\"\n\
                 lease-hold = \"{hold}ms\"\nrevoke-max = \"{}%\"\nlimit-max = {limit}\nrequests = {requests}\n\
                 widest-prefix = {{ ipv4 = {ipv4}, ipv6 = {ipv6} }}\n",
                f64::from(revoke) / 10.0
            )
        },
    )
    .boxed()
}

fn rest() -> BoxedStrategy<String> {
    let parts = [
        "[[expect]]\nfrom = \"[2001:db8::1]:4\"\nto = \"[2001:db8::2]:443/udp\"\nverdict = \"drop\"\nreason = \"unlisted\"\n",
        "[[expect]]\nfrom = \"10.0.0.1\"\nto = \"10.0.0.2/icmp\"\nverdict = \"pass\"\nnote = \"x\"\n",
        "[daemon]\ninstance = \"b\"\non-exit = \"detach\"\noperators = [\"@wheel\"]\n",
        "[[listener]]\naddress = \"unix:/run/b.sock\"\nmode = \"600\"\ngroup = \"www\"\nroles = [\"read\", \"publish\"]\n",
        "[[listener]]\naddress = \"tcp:[::1]:80\"\nassert = true\n",
        "[[listener]]\naddress = \"tcp:10.0.0.1:80\"\nroles = [\"publish\"]\ntls = { certificate = \"/a\", key = \"/b\", client-ca = \"/c\" }\n",
        "[credentials]\nscheme = \"hmac-sha256\"\nsecret-files = [{ id = \"k1\", file = \"/k\" }]\nid-pattern = '^\\w{1,9}$'\n",
        "[authorize]\naddress-header = \"X-Forwarded-For\"\ntrusted-proxies = [\"10.0.0.0/8\", \"10.1.0.0/16\"]\n",
        "[records]\ninterval = \"1m30s\"\naddresses = \"prefix\"\n",
        "[[sink]]\ntype = \"syslog\"\n",
        "[[sink]]\npath = \"/a\"\nrotate-size = \"1Mi\"\nkeep-age = \"36h\"\n",
    ];
    proptest::collection::vec(any::<bool>(), parts.len())
        .prop_map(move |chosen| {
            parts
                .iter()
                .zip(chosen)
                .filter(|(_, chosen)| *chosen)
                .map(|(part, _)| *part)
                .collect()
        })
        .boxed()
}

fn filter() -> BoxedStrategy<String> {
    let source_limit = proptest::option::of(limit());
    (source_limit, limit(), any::<bool>(), any::<bool>()).prop_map(|(source_limit, icmp_limit, observe, max)| {
        let mode = if observe { "observe" } else { "enforce" };
        let max = if max { "source-limit-max = \"1Mi\"\n" } else { "" };
        let source_limit = source_limit.map(|limit| format!("source-limit = {limit}\n")).unwrap_or_default();
        format!(
            "[filter]\ninterfaces = [\"eth0\", \"wan*\"]\nmode = \"{mode}\"\nping = \"listed\"\nmanagement-none = true\n{max}{source_limit}icmp-limit = {icmp_limit}\n"
        )
    })
    .boxed()
}

fn policy() -> impl Strategy<Value = String> {
    let management = (prefixes(), ports(30)).prop_map(|(sources, ports)| {
        format!("[[management]]\nname = \"m\"\nsources = {sources}\nprotocol = \"tcp\"\nports = {ports}\n")
    });
    let deny = (prefixes(), remarks())
        .prop_map(|(sources, remarks)| format!("[[deny]]\nname = \"d\"\nsources = {sources}\n{remarks}"));
    let services = (service(0), service(1), service(2)).prop_map(|(a, b, c)| a + &b + &c);
    let clients = (client(0), client(1)).prop_map(|(a, b)| a + &b);
    (filter(), services, clients, deny, management, publisher(), rest()).prop_map(
        |(filter, services, clients, deny, management, publisher, rest)| {
            format!("version = 1\n{filter}{services}{clients}{deny}{management}{publisher}{rest}")
        },
    )
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_printed_policy_loads_as_the_same_policy(text in policy()) {
        let loaded = load_text(&text);
        prop_assert!(loaded.policy.is_some(), "{:?}\n{text}", loaded.diagnostics);
        let policy = loaded.policy.unwrap();
        let printed = print(&policy);
        let again = load_text(&printed);
        prop_assert!(again.policy.is_some(), "{:?}\n{printed}", again.diagnostics);
        prop_assert_eq!(without_places(policy), without_places(again.policy.unwrap()), "{}", printed);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz(&bytes);
    }

    #[test]
    fn a_mutated_policy_is_read_without_a_panic(
        text in policy(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[\\[\\]{}=\"'.,\n0-9a-z#\\\\-]{0,6}"), 1..8),
    ) {
        let mut bytes = text.into_bytes();
        for (at, removed, inserted) in changes {
            let start = at.index(bytes.len().max(1)).min(bytes.len());
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, inserted.into_bytes());
        }
        fuzz(&bytes);
    }

    #[test]
    fn a_policy_of_swapped_lines_is_read_without_a_panic(lines in proptest::sample::subsequence(BASE.lines().collect::<Vec<_>>(), 0..18).prop_shuffle()) {
        fuzz(lines.join("\n").as_bytes());
    }
}

#[test]
fn hostile_text_is_read_in_bounded_time() {
    for text in [
        "[",
        "{",
        "a.",
        "[[a]]\n",
        "[service.",
        "\"",
        "=\n",
        "[[service]]\n",
        "a=[{",
        "[a]\n",
        "\u{feff}",
        "service = [",
    ] {
        fuzz(text.repeat(100_000 / text.len()).as_bytes());
    }
}

/// Untimed: what it shows is that nothing takes the square of the number of sources.
#[test]
fn a_million_sources_load_and_covered_ones_among_them_are_found() {
    let lines: String = (0u32..1_000_000)
        .map(|i| format!("{}\n", Ipv4Addr::from_bits(0x0a00_0000 + 2 * i)))
        .collect();
    let client = |name: &str, file: &str| {
        format!("[[client]]\nname = \"{name}\"\nservices = [\"web\"]\nsources-file = \"{file}\"\n")
    };
    let root = format!("{BASE}{}{}", client("many", "many.txt"), client("few", "few.txt"));
    let loaded = load_files(&[
        (ROOT, &root),
        ("many.txt", &lines),
        ("few.txt", "10.0.0.4\n10.0.0.5\n10.0.0.6/31\n"),
    ]);
    assert_eq!(
        told(&loaded),
        ["many.txt:4:1: covered-source", "few.txt:1:1: covered-source"]
    );
    assert_eq!(loaded.policy.unwrap().clients[0].sources.len(), 1_000_000);
}

#[test]
fn every_entry_of_a_crowd_with_one_source_is_told_once() {
    let client =
        |i: usize| format!("[[client]]\nname = \"c{i}\"\nservices = [\"web\"]\nsources = [\"10.0.0.1\"]\n");
    let crowd: String = (0..3_000).map(client).collect();
    let loaded = load_text(&format!("{BASE}{crowd}"));
    assert_eq!((loaded.errors, loaded.warnings), (0, 2_999));
}
