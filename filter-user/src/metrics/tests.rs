//! A page of metrics, line by line, and the reference of them all.

use super::definitions::{REASONS, VERDICTS};
use super::*;
use crate::engine::fixture::FakeView;
use crate::engine::snapshot::VerdictCount;

fn page(view: &FakeView) -> String {
    let refused = |verdict, packets| VerdictCount {
        service: Some("payments".to_owned()),
        verdict,
        reason: "limit-grant",
        packets,
        bytes: 60 * packets,
    };
    let mut counters = crate::engine::fixture::counters();
    counters
        .verdicts
        .extend([refused("drop", 4), refused("observe", 2)]);
    *view.counters.lock().unwrap() = Ok(counters);
    let metrics = Metrics::new();
    metrics.request_answered("/livez", 200, Duration::from_millis(2));
    metrics.sink("file-0");
    metrics.records_lost("syslog-1", 3);
    metrics.records_written(5, 2);
    metrics.encode(view, Some(&bindings::tests::status())).unwrap()
}

#[test]
fn every_metric_has_help_type_and_values_of_its_labels() {
    let page = page(&FakeView::default());
    for definition in DEFINITIONS {
        let name = definition.name;
        let kind = format!("{:?}", definition.kind).to_lowercase();
        assert!(
            page.contains(&format!(
                "# HELP {name} {}\n# TYPE {name} {kind}\n",
                definition.help
            )),
            "{page}"
        );
    }
    for line in [
        r#"keyfence_packets_total{service="payments",verdict="drop",reason="unlisted"} 0"#,
        r#"keyfence_bytes_total{service="",verdict="pass",reason="other"} 700"#,
        r#"keyfence_interface_packets_total{interface="eth0",verdict="pass"} 19"#,
        r#"keyfence_limit_refused_packets_total{level="grant",service="payments"} 6"#,
        r#"keyfence_table_capacity{table="grants"} 1024"#,
        r#"keyfence_http_requests_total{code="200",route="/livez"} 1"#,
        r#"keyfence_http_request_duration_seconds_bucket{le="0.005"} 1"#,
        r#"keyfence_filter_attached{interface="eth0",mode="native"} 1"#,
        r#"keyfence_bindings{publisher="gateway",state="active"} 5"#,
        r#"keyfence_bindings{publisher="gateway",state="suspended"} 2"#,
        r#"keyfence_bindings_ending{publisher="gateway",within="1h"} 3"#,
        r#"keyfence_publisher_last_success_timestamp_seconds{publisher="gateway"} 1795348800"#,
        r#"keyfence_publisher_last_success_timestamp_seconds{publisher="idle"} 0"#,
        "keyfence_bindings_revision 4711",
        "keyfence_bindings_alarms 1",
        "keyfence_store_errors_total 4",
        "keyfence_audit_head_line 17",
        "keyfence_audit_head_hash 281474976710655",
        "keyfence_policy_confirm_deadline_timestamp_seconds 0",
        "keyfence_generation 7",
        r#"keyfence_records_lost_total{sink="file-0"} 0"#,
        r#"keyfence_records_lost_total{sink="syslog-1"} 3"#,
        r#"keyfence_records_waiting{sink="file-0"} 0"#,
        r#"keyfence_records_total{kind="record"} 5"#,
        r#"keyfence_records_total{kind="overflow"} 2"#,
        r#"keyfence_build_info{version="0.1.0"} 1"#,
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in\n{page}"
        );
    }
}

#[test]
fn every_line_parses_and_no_label_set_stands_twice() {
    let page = page(&FakeView::default());
    let mut seen = std::collections::HashSet::new();
    for line in page.lines().filter(|line| !line.starts_with("# ")) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        assert!(
            DEFINITIONS
                .iter()
                .any(|definition| name.starts_with(definition.name)),
            "{line}"
        );
        assert!(seen.insert(series.to_owned()), "{line} stands twice");
    }
}

#[test]
fn daemons_own_figures_are_those_of_this_process() {
    let page = page(&FakeView::default());
    let value = |name: &str| -> f64 {
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{page}"))
            .parse()
            .unwrap()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs_f64();
    // The kernel counts the start in ticks since boot, and the boot in whole seconds.
    assert!((now - 3600.0..now + 2.0).contains(&value("process_start_time_seconds")));
    assert!(value("process_open_fds") > 2.0 && value("process_open_fds") < value("process_max_fds"));
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_cpu_seconds_total") >= 0.0);
}

#[test]
fn unreadable_counters_give_no_page_at_all() {
    let view = FakeView::default();
    *view.counters.lock().unwrap() = Err("map verdicts: permission denied".to_owned());
    assert_eq!(
        Metrics::new().encode(&view, None).unwrap_err(),
        "map verdicts: permission denied"
    );
}

#[test]
fn reference_names_every_metric_label_and_word() {
    let page = reference();
    for definition in DEFINITIONS {
        assert!(page.contains(&format!("## `{}`\n", definition.name)));
    }
    for word in VERDICTS.iter().chain(REASONS).chain(HTTP_ROUTES) {
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
}
