//! Limits: what a bucket may be, and what is only warned of.

use super::{BASE, fault, load_text, told, underlined, warning};

fn service(limit: &str) -> String {
    format!(
        "[[service]]\nname = \"b\"\nprotocol = \"tcp\"\naddress = [\"203.0.113.99\"]\nports = [80]\nlimit = {{ {limit} }}\n"
    )
}

#[test]
fn both_rate_and_burst_are_required() {
    fault(
        "missing-key",
        &service("packets = «{ rate = 1 }»"),
        "add burst = 2000",
        "{ rate = 1, burst = 1 }",
    );
    fault(
        "missing-key",
        &service("packets = «{ burst = 1 }»"),
        "add rate = 1000",
        "{ rate = 1, burst = 1 }",
    );
}

#[test]
fn a_zero_rate_and_a_zero_burst_are_faults() {
    let rate = "write a rate above 0; to admit nothing remove the entry, for no limit remove the limit";
    for zero in ["0", "-5", "\"0/m\"", "\"0\""] {
        fault(
            "zero-rate",
            &service(&format!("packets = {{ rate = «{zero}», burst = 1 }}")),
            rate,
            "1",
        );
    }
    let burst = "write a burst of at least 1: with 0 nothing passes";
    for zero in ["0", "-1", "\"0k\""] {
        fault(
            "zero-burst",
            &service(&format!("packets = {{ rate = 1, burst = «{zero}» }}")),
            burst,
            "1",
        );
    }
}

#[test]
fn rates_and_bursts_are_bounded() {
    let lower = "write a lower rate, or remove the limit";
    let packets = |rate: &str| service(&format!("packets = {{ rate = {rate}, burst = \"100M\" }}"));
    fault(
        "rate-too-high",
        &packets("«1_000_000_001»"),
        lower,
        "1_000_000_000",
    );
    fault(
        "rate-too-high",
        &packets("«99999999999999999999»"),
        lower,
        "\"1G\"",
    );
    fault(
        "rate-too-high",
        &packets("«\"60000000001/m\"»"),
        lower,
        "\"60000000000/m\"",
    );
    fault(
        "rate-too-high",
        &packets("«\"3600000000001/h\"»"),
        lower,
        "\"3600000000000/h\"",
    );
    let bytes = |rate: &str| service(&format!("bytes = {{ rate = {rate}, burst = \"100G\" }}"));
    fault(
        "rate-too-high",
        &bytes("«1_000_000_000_001»"),
        lower,
        "\"1000GB\"",
    );
    let burst = |burst: &str| service(&format!("bytes = {{ rate = \"1GB\", burst = {burst} }}"));
    fault(
        "burst-too-high",
        &burst("«1_099_511_627_777»"),
        "write a smaller burst",
        "1_099_511_627_776",
    );
}

#[test]
fn a_burst_that_takes_longer_than_five_years_to_refill_is_a_fault() {
    let text = |burst: &str| service(&format!("packets = {{ rate = \"1/h\", burst = {burst} }}"));
    fault(
        "refill-too-long",
        &text("«43801»"),
        "write at most 43800, or a higher rate",
        "43800",
    );
}

#[test]
fn a_burst_below_20_ms_of_its_rate_is_a_warning() {
    let text = |burst: &str| service(&format!("packets = {{ rate = 50_000, burst = {burst} }}"));
    warning("short-burst", &text("«999»"), "write at least 1000", "1000");
    let minutes = service("packets = { rate = \"600k/m\", burst = «199» }");
    warning("short-burst", &minutes, "write at least 200", "200");
}

#[test]
fn units_of_another_kind_are_faults() {
    let packets = |burst: &str| service(&format!("packets = {{ rate = 1000, burst = {burst} }}"));
    fault(
        "bad-quantity",
        &packets("«\"1MB\"»"),
        "units are k, M, G, Ki, Mi, Gi",
        "\"1M\"",
    );
    fault(
        "bad-quantity",
        &packets("«\"5K\"»"),
        "did you mean `k`?",
        "\"5k\"",
    );
    fault(
        "wrong-type",
        &packets("«1.5»"),
        "write a number or text such as \"500k\"",
        "2000",
    );
    let bytes = |burst: &str| service(&format!("bytes = {{ rate = 1000, burst = {burst} }}"));
    fault(
        "bad-quantity",
        &bytes("«\"4bit\"»"),
        "write what comes to a whole number",
        "\"8kbit\"",
    );
    let rate = |rate: &str| service(&format!("packets = {{ rate = {rate}, burst = 100 }}"));
    fault(
        "wrong-type",
        &rate("«0.5»"),
        "write text such as \"30/m\" for less than one a second",
        "\"30/m\"",
    );
    fault(
        "bad-quantity",
        &rate("«\"100/min\"»"),
        "did you mean `/m`?",
        "\"100/m\"",
    );
    fault(
        "bad-quantity",
        &rate("«\"100/x\"»"),
        "a rate is of a second, a minute or an hour: write /s, /m or /h",
        "\"100/m\"",
    );
}

#[test]
fn limits_of_connections_are_warned_of_where_only_udp_is() {
    let bucket = "{ connections = { rate = 1, burst = 1 } }";
    let service = |protocol: &str| {
        format!("{BASE}[[service]]\nname = \"b\"\nprotocol = {protocol}\nports = [80]\nlimit = {bucket}")
    };
    let loaded = load_text(&service("\"udp\""));
    assert_eq!(told(&loaded), ["policy.toml:23:25: connections-of-udp"]);
    assert_eq!(
        underlined(&loaded, &loaded.diagnostics[0]),
        "{ rate = 1, burst = 1 }"
    );
    assert_eq!(
        loaded.diagnostics[0].fix.as_deref(),
        Some("limit packets or bytes")
    );
    assert_eq!(
        told(&load_text(&service("[\"tcp\", \"udp\"]"))),
        Vec::<String>::new()
    );
    let client = |services: &str| {
        format!(
            "{BASE}[[client]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\nservices = [{services}]\nlimit = {bucket}"
        )
    };
    assert_eq!(
        told(&load_text(&client("\"dns\""))),
        ["policy.toml:23:25: connections-of-udp"]
    );
    assert_eq!(
        told(&load_text(&client("\"dns\", \"web\""))),
        Vec::<String>::new()
    );
}
