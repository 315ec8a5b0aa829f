//! The alert rules and the dashboard of config/, held to the table of metrics, and to Prometheus' own checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use filter_user::metrics::{DEFINITIONS, Definition, Kind, Values};
use keyfence_tests::harness::{configuration, output, system};
use regex::Regex;
use serde_json::Value;

/// Labels that a scrape adds, that a histogram has, and that an alert gives itself.
const OTHERS_LABELS: [&str; 4] = ["job", "instance", "le", "severity"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    let text = read(&configuration().join("../grafana/keyfence.json"));
    serde_json::from_str(&text).expect("a dashboard is JSON")
}

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a test's expression is one")
}

/// The definition of a metric as it stands in an expression; a histogram has series with other ends.
fn definition(name: &str) -> &'static Definition {
    let is = |definition: &&Definition| {
        let ends: &[&str] = match definition.kind {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Counter | Kind::Gauge => &[""],
        };
        ends.iter()
            .any(|end| name.strip_suffix(end) == Some(definition.name))
    };
    let found = DEFINITIONS.iter().find(is);
    found.unwrap_or_else(|| panic!("{name} is no metric: docs/METRICS.md has them all"))
}

/// Holds an expression to the definitions; answers the labels that its metrics have.
fn labels_of(expression: &str) -> BTreeSet<String> {
    let mut labels: BTreeSet<String> = OTHERS_LABELS.map(str::to_owned).into();
    for found in regex(r"(keyfence_[a-z0-9_]+)(?:\{([^}]*)\})?").captures_iter(expression) {
        let definition = definition(&found[1]);
        let own = definition.labels.iter();
        labels.extend(own.clone().map(|label| label.name.to_owned()));
        let matchers = found.get(2).map_or("", |matchers| matchers.as_str());
        for matcher in regex(r#"([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).captures_iter(matchers) {
            let (name, values) = (&matcher[1], &matcher[3]);
            let Some(label) = own.clone().find(|label| label.name == name) else {
                assert!(
                    OTHERS_LABELS.contains(&name),
                    "{} has no label {name}",
                    definition.name
                );
                continue;
            };
            if let (Values::Words(words), false) = (&label.values, values.starts_with('$')) {
                for value in values.split('|') {
                    assert!(words.contains(&value), "{name} is never {value}: {expression}");
                }
            }
        }
    }
    labels
}

/// The labels that an expression groups or joins by.
fn grouped_by(expression: &str) -> BTreeSet<String> {
    let lists = regex(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)");
    let lists = lists.captures_iter(expression);
    let names = lists.flat_map(|list| {
        list[1]
            .split(',')
            .map(str::trim)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// One rule: its name, whether it is recorded or alerts, its expression, and all of its text.
struct Rule {
    name: String,
    alerts: bool,
    expression: String,
    text: String,
}

/// The rules in the file's own form: each begins with `- alert:` or `- record:`.
fn rules() -> Vec<Rule> {
    let text = read(&configuration().join("keyfence.rules.yml"));
    let starts: Vec<_> = regex(r"(?m)^ +- (alert|record): (\S+)$")
        .captures_iter(&text)
        .map(|found| {
            let whole = found.get(0).expect("the whole match");
            (whole.start(), found[1] == *"alert", found[2].to_owned())
        })
        .collect();
    let ends = starts
        .iter()
        .skip(1)
        .map(|(start, ..)| *start)
        .chain([text.len()]);
    let rule = |((start, alerts, name), end): (&(usize, bool, String), usize)| {
        let text = text[*start..end].to_owned();
        let expression = regex(r"(?m)^        expr: (?:>-\n((?:          .*\n)+)|(.*)\n)");
        let expression = expression
            .captures(&text)
            .unwrap_or_else(|| panic!("{name} has no expression"));
        let expression = expression.get(1).or(expression.get(2)).expect("one of the two");
        Rule {
            name: name.clone(),
            alerts: *alerts,
            expression: expression.as_str().to_owned(),
            text: text.clone(),
        }
    };
    starts.iter().zip(ends).map(rule).collect()
}

#[test]
fn every_metric_and_label_of_the_rules_exists() {
    let rules = rules();
    assert!(rules.len() > 15);
    let recorded = |expression: &str| {
        let used = |rule: &&Rule| !rule.alerts && expression.contains(&rule.name);
        rules
            .iter()
            .filter(used)
            .map(|rule| rule.expression.clone())
            .collect::<String>()
    };
    for Rule {
        name,
        expression,
        text,
        ..
    } in &rules
    {
        let whole = expression.clone() + &recorded(expression);
        let labels = labels_of(&whole);
        assert!(whole.contains("keyfence_"), "{name} asks for nothing of ours");
        for label in grouped_by(&whole) {
            assert!(
                labels.contains(&label),
                "{name}: {label} is no label of its metrics"
            );
        }
        let shown = grouped_by(expression);
        for found in regex(r"\$labels\.([a-z_]+)").captures_iter(text) {
            let label = &found[1];
            // What a sum drops is not there any more to be shown.
            let kept = !expression.starts_with("sum") || shown.contains(label);
            assert!(labels.contains(label) && kept, "{name} has no {label} to show");
        }
    }
    for found in regex("keyfence:[a-z_0-9:]+").find_iter(&read(&configuration().join("keyfence.rules.yml"))) {
        assert!(
            rules.iter().any(|rule| rule.name == found.as_str()),
            "nobody records {}",
            found.as_str()
        );
    }
}

#[test]
fn every_metric_and_label_of_the_dashboard_exists_and_it_can_be_imported() {
    let dashboard = dashboard();
    assert!(
        dashboard["id"].is_null() && dashboard["uid"].is_null(),
        "it would replace another dashboard"
    );
    let text = dashboard.to_string();
    for found in regex(r#""uid":"([^"]*)""#).captures_iter(&text) {
        assert_eq!(
            &found[1], "${datasource}",
            "no other data source is there after an import"
        );
    }
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    assert_eq!(
        (&variables[0]["name"], &variables[0]["type"]),
        (&"datasource".into(), &"datasource".into())
    );
    let mut checked = String::from("groups:\n  - name: panels\n    rules:\n");
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("a list") {
        assert!(places.insert(panel["id"].as_u64()), "two panels of one id");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("a text");
            let labels = labels_of(expression);
            assert!(expression.contains("keyfence_"), "{expression}");
            let legend = target["legendFormat"].as_str().expect("a text");
            let legend = regex(r"\{\{([a-z_]+)\}\}")
                .captures_iter(legend)
                .map(|found| found[1].to_owned())
                .collect::<Vec<_>>();
            for label in grouped_by(expression).into_iter().chain(legend) {
                assert!(labels.contains(&label), "{label} is no label of {expression}");
            }
            let expression = expression.replace("$__rate_interval", "5m");
            checked += &format!(
                "      - record: panel\n        labels: {{ at: '{}' }}\n        expr: {expression:?}\n",
                checked.len()
            );
        }
    }
    let variables = variables
        .iter()
        .filter_map(|variable| variable["definition"].as_str());
    let annotations = dashboard["annotations"]["list"]
        .as_array()
        .expect("a list")
        .iter();
    for expression in variables.chain(annotations.filter_map(|annotation| annotation["expr"].as_str())) {
        labels_of(expression);
    }
    // Whether the expressions are any: Prometheus' own parser says.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("panels.yml");
    fs::write(&file, checked).expect("a temporary folder can be written");
    succeeds(&output(system("promtool").args(["check", "rules"]).arg(&file)));
}

fn succeeds(output: &Output) {
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn rules_pass_promtool_and_each_alert_is_shown_to_fire_and_to_be_quiet() {
    let promtool = |arguments: &[&str]| {
        let mut command = system("promtool");
        succeeds(&output(command.current_dir(configuration()).args(arguments)));
    };
    promtool(&[
        "check",
        "rules",
        "--lint=all",
        "--lint-fatal",
        "keyfence.rules.yml",
    ]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "keyfence.tests.yml"]);
    let tests = read(&configuration().join("keyfence.tests.yml"));
    for rule in rules().iter().filter(|rule| rule.alerts) {
        for end in ["fires", "is quiet"] {
            let name = format!("  - name: {} {end}\n", rule.name);
            assert!(
                tests.contains(&name),
                "keyfence.tests.yml does not show that {} {end}",
                rule.name
            );
        }
    }
}

/// What operators are to be told of, each by its alert.
#[test]
fn nothing_that_an_operator_must_hear_of_is_without_an_alert() {
    let rules = rules();
    for metric in [
        "keyfence_filter_attached",
        "keyfence_policy_reload_success",
        "keyfence_policy_confirm_deadline_timestamp_seconds",
        "keyfence_drift_entries",
        "keyfence_canary_differing_frames",
        "keyfence_packets_total",
        "keyfence_limit_refused_packets_total",
        "keyfence_table_entries",
        "keyfence_publisher_last_success_timestamp_seconds",
        "keyfence_bindings_ending",
        "keyfence_records_lost_total",
        "keyfence_records_waiting",
        "keyfence_store_errors_total",
        "keyfence_audit_head_line",
        "keyfence_bindings_alarms",
    ] {
        assert!(
            rules.iter().any(|rule| rule.expression.contains(metric)),
            "no rule asks for {metric}"
        );
    }
    assert!(
        rules.iter().any(|rule| rule.expression.contains("up == 0")),
        "nobody is told of a dead daemon"
    );
}
