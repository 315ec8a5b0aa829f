//! A binding's limits as JSON, and within the publisher's `limit-default` and `limit-max`.

use serde_json::{Map, Value};

use super::json::{Faults, Json, Members, child};
use crate::policy::bounds::{BURST_MAX, BYTES_RATE_MAX, RATE_MAX, REFILL_SECONDS_MAX};
use crate::policy::model::{Limit, Limits};
use crate::policy::units::{Unit, count_from_text, rate_from_text};

const KINDS: [&str; 3] = ["packets", "bytes", "connections"];

/// `None` is none at all: omitted, or `{}`.
pub(crate) fn read(json: &Json, pointer: &str, faults: &mut Faults) -> Option<Box<Limits>> {
    let members = Members::open(json, pointer, &KINDS, faults)?;
    let mut bucket = |kind: &str, unit| {
        let json = members.find(kind)?;
        read_bucket(json, &members.at(kind), unit, faults)
    };
    let limits = Limits {
        packets: bucket("packets", Unit::Plain),
        bytes: bucket("bytes", Unit::Bytes),
        connections: bucket("connections", Unit::Plain),
    };
    (limits != Limits::default()).then(|| Box::new(limits))
}

fn read_bucket(json: &Json, pointer: &str, unit: Unit, faults: &mut Faults) -> Option<Limit> {
    let members = Members::open(json, pointer, &["rate", "burst"], faults)?;
    let mut number = |name: &str, read: &dyn Fn(&str) -> Option<(u64, u32)>| {
        let fix = match (name, unit) {
            ("rate", Unit::Plain) => {
                "write a number a second, or text such as \"100/s\", \"100/m\" or \"5k/h\""
            }
            ("rate", Unit::Bytes) => {
                "write a number a second, or text such as \"10MB\", \"80Mbit/s\" or \"1GB/h\""
            }
            (_, Unit::Plain) => "write a number, or text such as \"2k\"",
            (_, Unit::Bytes) => "write a number, or text such as \"10MB\"",
        };
        let read = match members.find(name) {
            None => {
                let detail = format!("{name} is missing");
                faults.add("missing-member", pointer, detail, fix);
                return None;
            }
            Some(Json::Whole(number)) => Some((*number, 1)),
            Some(Json::Text(text)) => read(text),
            Some(_) => None,
        };
        let good = read.filter(|(number, _)| *number > 0);
        if good.is_none() {
            let detail = format!("{name} is no quantity above 0");
            faults.add("bad-quantity", members.at(name), detail, fix);
        }
        good
    };
    let rate = number("rate", &|text| rate_from_text(text, unit).ok());
    let burst = number("burst", &|text| count_from_text(text, unit).ok().map(|n| (n, 1)));
    let ((rate, per_seconds), (burst, _)) = rate.zip(burst)?;
    let limit = Limit {
        rate,
        per_seconds,
        burst,
    };
    if let Some(detail) = out_of_bounds(&limit, unit) {
        faults.add("out-of-bounds", pointer, detail, "write less, or no limit");
        return None;
    }
    Some(limit)
}

fn out_of_bounds(limit: &Limit, unit: Unit) -> Option<String> {
    let rate_max = match unit {
        Unit::Bytes => BYTES_RATE_MAX,
        Unit::Plain => RATE_MAX,
    };
    let (rate, per, burst) = (
        u128::from(limit.rate),
        u128::from(limit.per_seconds),
        u128::from(limit.burst),
    );
    if rate > u128::from(rate_max) * per {
        return Some(format!("the rate is above {rate_max} a second"));
    }
    if limit.burst > BURST_MAX {
        return Some(format!("the burst is above {BURST_MAX}"));
    }
    (burst * per > rate * u128::from(REFILL_SECONDS_MAX))
        .then(|| "the burst takes longer than five years to refill at its rate".to_owned())
}

/// As it is shown: `{"packets": {"rate": 100, "burst": 200}}`.
pub(crate) fn show(limits: Option<&Limits>) -> Value {
    let mut shown = Map::new();
    let limits = limits.copied().unwrap_or_default();
    for (kind, limit) in each(&limits) {
        if let Some(limit) = limit {
            let rate = match limit.per_seconds {
                60 => Value::from(format!("{}/m", limit.rate)),
                3600 => Value::from(format!("{}/h", limit.rate)),
                _ => Value::from(limit.rate),
            };
            shown.insert(
                kind.to_owned(),
                serde_json::json!({"rate": rate, "burst": limit.burst}),
            );
        }
    }
    Value::Object(shown)
}

fn each(limits: &Limits) -> [(&'static str, Option<Limit>); 3] {
    [
        (KINDS[0], limits.packets),
        (KINDS[1], limits.bytes),
        (KINDS[2], limits.connections),
    ]
}

/// Records each limit that is above the publisher's `limit-max`.
pub(crate) fn judge(limits: &Limits, max: &Limits, faults: &mut Faults) {
    for ((kind, limit), (_, max)) in each(limits).into_iter().zip(each(max)) {
        if let (Some(limit), Some(max)) = (limit, max)
            && is_above(&limit, &max)
        {
            let detail = format!("the limit of {kind} is above the publisher's limit-max");
            let fix = format!("write at most {}", show_one(&max));
            faults.add("limit-too-high", child("/limit", kind), detail, fix);
        }
    }
}

/// The limits that the kernel gets: the default where none was given, never more than the most.
pub(crate) fn effective(given: Option<&Limits>, default: &Limits, max: &Limits) -> Limits {
    let given = given.unwrap_or(default);
    let within = |limit: Option<Limit>, max: Option<Limit>| match (limit, max) {
        (Some(limit), Some(max)) if is_above(&limit, &max) => Some(max),
        (None, max) => max,
        (limit, _) => limit,
    };
    Limits {
        packets: within(given.packets, max.packets),
        bytes: within(given.bytes, max.bytes),
        connections: within(given.connections, max.connections),
    }
}

fn is_above(limit: &Limit, max: &Limit) -> bool {
    let rate = u128::from(limit.rate) * u128::from(max.per_seconds);
    let rate_max = u128::from(max.rate) * u128::from(limit.per_seconds);
    rate > rate_max || limit.burst > max.burst
}

fn show_one(limit: &Limit) -> String {
    let per = match limit.per_seconds {
        60 => "/m",
        3600 => "/h",
        _ => "/s",
    };
    format!("rate {}{per}, burst {}", limit.rate, limit.burst)
}

#[cfg(test)]
mod tests {
    use super::super::json::parse;
    use super::*;

    fn read_text(text: &str) -> (Option<Box<Limits>>, Vec<(&'static str, String)>) {
        let mut faults = Faults::default();
        let limits = read(&parse(text.as_bytes()).unwrap(), "/limit", &mut faults);
        let told = faults.into_vec().into_iter().map(|f| (f.code, f.pointer));
        (limits, told.collect())
    }

    #[test]
    fn limits_take_numbers_and_texts_and_show_as_they_read() {
        let text =
            r#"{"packets": {"rate": "100/m", "burst": 20}, "bytes": {"rate": "10MB", "burst": "1MB"}}"#;
        let (limits, faults) = read_text(text);
        assert_eq!(faults, []);
        let shown = show(limits.as_deref());
        assert_eq!(shown["packets"]["rate"], "100/m");
        assert_eq!(shown["bytes"]["burst"], 1_000_000);
        assert_eq!(read_text(&shown.to_string()).0, limits);
        assert_eq!(read_text("{}"), (None, vec![]));
    }

    #[test]
    fn faults_of_limits_name_their_place() {
        let text = r#"{"packets": {"rate": 0}, "connections": {"rate": 1, "burst": 999999999999}, "x": 1}"#;
        let (_, faults) = read_text(text);
        let expected = [
            ("unknown-member", "/limit"),
            ("bad-quantity", "/limit/packets/rate"),
            ("missing-member", "/limit/packets"),
            ("out-of-bounds", "/limit/connections"),
        ];
        assert_eq!(faults, expected.map(|(code, pointer)| (code, pointer.to_owned())));
    }

    #[test]
    fn nobody_has_more_than_the_most() {
        let limit = |rate, per_seconds| Limit {
            rate,
            per_seconds,
            burst: 10,
        };
        let packets = |limit| Limits {
            packets: Some(limit),
            ..Limits::default()
        };
        let max = packets(limit(60, 60));
        assert_eq!(effective(None, &Limits::default(), &max), max);
        assert_eq!(
            effective(Some(&packets(limit(2, 1))), &Limits::default(), &max),
            max
        );
        let less = packets(limit(59, 60));
        assert_eq!(effective(Some(&less), &Limits::default(), &max), less);
        let mut faults = Faults::default();
        judge(&packets(limit(2, 1)), &max, &mut faults);
        judge(&less, &max, &mut faults);
        assert_eq!(faults.into_vec().len(), 1);
    }
}
