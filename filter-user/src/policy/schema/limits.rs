//! Limits: token buckets with a rate and a burst, each within what the kernel can count without wrapping.

use toml::de::DeValue;

use crate::policy::bounds::{
    BURST_MAX, BURST_MILLISECONDS_MIN, BYTES_RATE_MAX, RATE_MAX, REFILL_SECONDS_MAX,
};
use crate::policy::keys::{BUCKET, Key, LIMITS};
use crate::policy::model::{Limit, Limits};
use crate::policy::schema::quantities::{bad_quantity, integer, quantity};
use crate::policy::schema::{Fields, Value, Walk};
use crate::policy::units::{Unit, rate_from_text};

pub(crate) fn limits(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Limits> {
    let fields = Fields::open(walk, &LIMITS, key, value)?;
    Some(Limits {
        packets: fields.read(walk, "packets", plain_bucket),
        bytes: fields.read(walk, "bytes", bytes_bucket),
        connections: fields.read(walk, "connections", plain_bucket),
    })
}

/// Of packets, connections or requests.
pub(crate) fn plain_bucket(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Limit> {
    bucket(walk, key, value, Unit::Plain)
}

fn bytes_bucket(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>) -> Option<Limit> {
    bucket(walk, key, value, Unit::Bytes)
}

fn bucket(walk: &mut Walk<'_>, key: &'static Key, value: &Value<'_>, unit: Unit) -> Option<Limit> {
    let fields = Fields::open(walk, &BUCKET, key, value)?;
    let rate = fields.read(walk, "rate", |walk, key, value| rate(walk, key, value, unit));
    let burst = fields.read(walk, "burst", |walk, key, value| burst(walk, key, value, unit));
    let ((rate, per_seconds), burst) = rate.zip(burst)?;
    let limit = Limit {
        rate,
        per_seconds,
        burst,
    };
    judge_burst(walk, fields.at("burst").unwrap_or(value), &limit)?;
    Some(limit)
}

fn rate(walk: &mut Walk<'_>, key: &Key, value: &Value<'_>, unit: Unit) -> Option<(u64, u32)> {
    let (rate, per_seconds) = match value.get_ref() {
        DeValue::String(text) => match rate_from_text(text, unit) {
            Ok(rate) => rate,
            Err(fault) => {
                bad_quantity(walk, key, value, text, &fault, unit);
                return None;
            }
        },
        DeValue::Float(_) => {
            walk.wrong_type(
                key,
                value,
                "a whole number or text",
                "write text such as \"30/m\" for less than one a second",
            );
            return None;
        }
        DeValue::Integer(number) => {
            // A rate below zero or past 64 bits is past a bound, whichever it is.
            let number = integer(number).unwrap_or(i128::MAX);
            (
                u64::try_from(number.clamp(-1, i128::from(u64::MAX)).max(0)).ok()?,
                1,
            )
        }
        _ => {
            walk.wrong_type(
                key,
                value,
                "a number a second or text",
                "write a number or text such as \"100/m\"",
            );
            return None;
        }
    };
    if rate == 0 {
        let fix = "write a rate above 0; to admit nothing remove the entry, for no limit remove the limit";
        walk.error(value, "zero-rate", "the rate is not above 0", fix);
        return None;
    }
    let rate_max = if unit == Unit::Bytes {
        BYTES_RATE_MAX
    } else {
        RATE_MAX
    };
    if u128::from(rate) > u128::from(rate_max) * u128::from(per_seconds) {
        let message = format!("the rate is above {rate_max} a second");
        walk.error(
            value,
            "rate-too-high",
            message,
            "write a lower rate, or remove the limit",
        );
        return None;
    }
    Some((rate, per_seconds))
}

fn burst(walk: &mut Walk<'_>, key: &Key, value: &Value<'_>, unit: Unit) -> Option<u64> {
    let burst = quantity(walk, key, value, unit)?;
    if burst <= 0 {
        walk.error(
            value,
            "zero-burst",
            "the burst is not above 0",
            "write a burst of at least 1: with 0 nothing passes",
        );
        return None;
    }
    match u64::try_from(burst) {
        Ok(burst) if burst <= BURST_MAX => Some(burst),
        _ => {
            let message = format!("the burst is above {BURST_MAX}");
            walk.error(value, "burst-too-high", message, "write a smaller burst");
            None
        }
    }
}

fn judge_burst(walk: &mut Walk<'_>, value: &Value<'_>, limit: &Limit) -> Option<()> {
    let (rate, per, burst) = (
        u128::from(limit.rate),
        u128::from(limit.per_seconds),
        u128::from(limit.burst),
    );
    if burst * per > rate * u128::from(REFILL_SECONDS_MAX) {
        let longest = rate * u128::from(REFILL_SECONDS_MAX) / per;
        let message = "the burst takes longer than five years to refill at its rate";
        walk.error(
            value,
            "refill-too-long",
            message,
            format!("write at most {longest}, or a higher rate"),
        );
        return None;
    }
    if burst * per * 1_000 < rate * u128::from(BURST_MILLISECONDS_MIN) {
        let least = (rate * u128::from(BURST_MILLISECONDS_MIN)).div_ceil(per * 1_000);
        let message = format!(
            "the burst covers less than {BURST_MILLISECONDS_MIN} ms of its rate: even traffic is refused"
        );
        walk.warning(value, "short-burst", message, format!("write at least {least}"));
    }
    Some(())
}
