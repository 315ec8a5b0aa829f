//! `GET /v1/capture`: judged packets as they come, as pcapng.
//!
//! Frames hold what others send, so it is for operators alone, and each capture is told in the audit log. It ends with
//! its bounds, its reader, the daemon, or the request's own body where that comes in chunks.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use filter_common::abi::Limit;
use filter_common::capture::{SNAP_MAX, Wanted};
use filter_common::parse::{Address, Family};
use filter_common::verdict::{NO_SERVICE, Reason, Verdict};
use futures_util::stream;
use http_body_util::BodyExt as _;
use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::watch;

use super::Context;
use super::problem::{Code, Problem};
use super::query::Query;
use super::who::Who;
use crate::bindings::requests::{Actor, AuditNote};
use crate::records::capture::{Bounds, CAPTURES_MAX, Ended, Running, StartError, Until};

/// Bounds of what may be asked, and what holds where nothing is said.
const RATE_DEFAULT: u64 = 1_000;
const RATE_MAX: u64 = 1_000_000;
const SAMPLE_MAX: u32 = 1_000_000;
const SNAP_MIN: u32 = 14;
const SECONDS_DEFAULT: u64 = 3_600;
const SECONDS_MAX: u64 = 86_400;
const BYTES_DEFAULT: u64 = 1_000_000_000;
const BYTES_MIN: u64 = 1_000_000;
const BYTES_MAX: u64 = 1_000_000_000_000;

const PCAPNG: HeaderValue = HeaderValue::from_static("application/x-pcapng");

/// What was asked for, without the service's number.
struct Asked {
    wanted: Wanted,
    service: Option<String>,
    bounds: Bounds,
    /// In the request's own words, for the file's header and the audit log.
    words: Vec<(&'static str, String)>,
}

pub(super) async fn capture(
    context: &Context,
    who: &Who,
    request: &Parts,
    body: &mut Body,
) -> Result<Response, Problem> {
    let mut asked = Asked::of(Query::of(&request.uri))?;
    let captures = context
        .backing
        .as_ref()
        .and_then(|backing| backing.captures.as_ref());
    let captures = captures.ok_or_else(|| Problem::new(Code::Starting, "nothing can be captured yet"))?;
    let actor = who.operator(context).await?;
    let snapshot = context.view.snapshot();
    if let Some(name) = &asked.service {
        let mut services = snapshot.services.iter();
        let found = services.find(|service| service.name == *name);
        let unknown = || Problem::new(Code::BadQuery, "`service` is none of the policy's services");
        asked.wanted.service = found.ok_or_else(unknown)?.number;
    }
    let interfaces = snapshot.interfaces.iter();
    let interfaces = interfaces.map(|interface| (interface.ifindex, interface.name.clone()));
    let until = until(std::mem::take(body), context.stopping.clone());
    let what = asked.what();
    let running = captures
        .start(asked.wanted, asked.bounds, what, interfaces.collect(), until)
        .await
        .map_err(|error| match error {
            StartError::Busy => Problem::new(
                Code::CapturesMax,
                format!("{CAPTURES_MAX} captures run already; end one, or wait for its end"),
            ),
            error => Problem::new(Code::CaptureFailed, error.to_string()),
        })?;
    tell(context, actor, &asked).await;
    let frames = stream::unfold(running, |running: Running| async {
        let (bytes, running) = running.next().await?;
        Some((Ok::<_, Infallible>(bytes), running))
    });
    Ok(([(header::CONTENT_TYPE, PCAPNG)], Body::from_stream(frames)).into_response())
}

/// The line of the audit log. The capture runs: where the disk refuses the line, the log says so.
async fn tell(context: &Context, actor: Actor, asked: &Asked) {
    let members = asked.words.iter();
    let members = members.map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())));
    let note = AuditNote {
        actor: Some(actor),
        what: "capture",
        members: members.collect(),
    };
    let Ok(bindings) = context.bindings() else { return };
    if let Err(refusal) = bindings.audit(note).await {
        tracing::error!("the audit log does not tell of a capture: {}", refusal.detail);
    }
}

/// What ends a capture beside its bounds. A body that was announced by its length alone says nothing.
fn until(mut body: Body, mut stopping: watch::Receiver<bool>) -> Until {
    let in_chunks = !body.is_end_stream() && body.size_hint().exact().is_none();
    Box::pin(async move {
        let asked = async {
            if !in_chunks {
                std::future::pending::<()>().await;
            }
            // A reader that is gone has asked as well.
            while let Some(Ok(_)) = body.frame().await {}
        };
        tokio::select! {
            () = asked => Ended::Asked,
            // An error means that nobody is left who could say it.
            _ = stopping.wait_for(|stop| *stop) => Ended::Stopping,
        }
    })
}

impl Asked {
    fn of(mut query: Query) -> Result<Self, Problem> {
        let mut words = Vec::new();
        let source = query.text("source").and_then(|text| {
            let prefix = crate::policy::prefix::prefix_from_text(&text).ok();
            match &prefix {
                Some(prefix) => words.push(("source", prefix.to_string())),
                None => query.fault("source", "an address or a prefix without host bits"),
            }
            prefix
        });
        let service = query.text("service");
        let verdicts = mask(
            &mut query,
            "verdict",
            &Verdict::ALL.map(Verdict::name),
            &mut words,
        );
        let reasons = mask(&mut query, "reason", &Reason::ALL.map(Reason::name), &mut words);
        let mut number = |name, least, most, default: Option<u64>| {
            let given = query.parsed::<u64>(name, &format!("a number from {least} to {most}"));
            match given {
                Some(given) if (least..=most).contains(&given) => {
                    words.push((name, given.to_string()));
                    Some(given)
                }
                Some(_) => {
                    query.fault(name, &format!("a number from {least} to {most}"));
                    default
                }
                None => default,
            }
        };
        let sample = number("sample", 1, SAMPLE_MAX.into(), None).unwrap_or(1);
        let snap = number("snap", SNAP_MIN.into(), SNAP_MAX.into(), None).unwrap_or(SNAP_MAX.into());
        let rate = number("rate", 1, RATE_MAX, None).unwrap_or(RATE_DEFAULT);
        let bounds = Bounds {
            packets: number("count", 1, u64::MAX >> 2, None),
            duration: Duration::from_secs(number("seconds", 1, SECONDS_MAX, None).unwrap_or(SECONDS_DEFAULT)),
            bytes: number("bytes", BYTES_MIN, BYTES_MAX, None).unwrap_or(BYTES_DEFAULT),
        };
        query.close()?;
        if let Some(service) = &service {
            words.push(("service", service.clone()));
        }
        let (family, source, mask) = source.map_or((0, Address::default(), Address::default()), prefix);
        Ok(Self {
            wanted: Wanted {
                source,
                mask,
                limit: Limit::of_tokens(rate, 1, rate).unwrap_or(Limit::NONE),
                family,
                service: NO_SERVICE,
                verdicts: verdicts.unwrap_or(Wanted::ALL.verdicts),
                reasons: reasons.unwrap_or(Wanted::ALL.reasons),
                sample: threshold(sample),
                snap: snap as u32,
            },
            service,
            bounds,
            words,
        })
    }

    /// One line.
    fn what(&self) -> String {
        let mut what = String::from("captured by keyfence:");
        for (name, value) in &self.words {
            // Writing into a text cannot fail.
            let _ = write!(what, " {name}={value}");
        }
        if self.words.is_empty() {
            what.push_str(" all");
        }
        what
    }
}

/// The bits of a list of words, by their numbers.
fn mask(
    query: &mut Query,
    name: &'static str,
    known: &[&'static str],
    words: &mut Vec<(&'static str, String)>,
) -> Option<u32> {
    let text = query.text(name)?;
    let place = |word: &str| known.iter().position(|known| *known == word);
    let bits: Option<u32> = text
        .split(',')
        .try_fold(0, |bits, word| Some(bits | 1 << place(word)?));
    match bits {
        Some(_) => words.push((name, text)),
        None => query.fault(
            name,
            &format!("some of {}, with commas between", known.join(", ")),
        ),
    }
    bits
}

/// A random number up to this takes one of `sample` packets.
fn threshold(sample: u64) -> u32 {
    u32::try_from((u64::from(u32::MAX) + 1) / sample - 1).unwrap_or(u32::MAX)
}

fn prefix(net: IpNet) -> (u32, Address, Address) {
    let ones = |bits: u32| u64::MAX.checked_shl(64 - bits).unwrap_or(0);
    match net {
        IpNet::V4(net) => {
            let mask = Address {
                upper: u64::MAX,
                lower: ones(32 + u32::from(net.prefix_len())),
            };
            (Family::V4 as u32, Address::of_v4(net.network().to_bits()), mask)
        }
        IpNet::V6(net) => {
            let (bits, length) = (net.network().to_bits(), u32::from(net.prefix_len()));
            let source = Address {
                upper: (bits >> 64) as u64,
                lower: bits as u64,
            };
            let mask = Address {
                upper: ones(length.min(64)),
                lower: ones(length.saturating_sub(64)),
            };
            (Family::V6 as u32, source, mask)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, Problem> {
        let uri = format!("/v1/capture?{query}").parse().unwrap();
        Asked::of(Query::of(&uri))
    }

    #[test]
    fn nothing_asked_for_is_everything_within_the_bounds() {
        let Asked { wanted, bounds, .. } = asked("").ok().unwrap();
        let limit = Limit::of_tokens(RATE_DEFAULT, 1, RATE_DEFAULT).unwrap();
        assert_eq!(wanted, Wanted { limit, ..Wanted::ALL });
        assert_eq!(
            (bounds.packets, bounds.duration),
            (None, Duration::from_secs(3_600))
        );
    }

    #[test]
    fn words_become_bits_and_prefixes_masks() {
        let given =
            "verdict=drop,observe&reason=unlisted&source=10.0.0.0/8&sample=4&snap=96&count=5&seconds=9";
        let Asked {
            wanted,
            bounds,
            words,
            ..
        } = asked(given).ok().unwrap();
        assert_eq!((wanted.verdicts, wanted.reasons), (0b110, 1 << 10));
        assert_eq!((wanted.sample, wanted.snap, wanted.family), (u32::MAX / 4, 96, 4));
        assert_eq!(wanted.source, Address::of_v4(0x0a00_0000));
        assert_eq!((wanted.mask.upper, wanted.mask.lower), (u64::MAX, u64::MAX << 24));
        assert_eq!(
            (bounds.packets, bounds.duration),
            (Some(5), Duration::from_secs(9))
        );
        assert_eq!(words[0], ("source", "10.0.0.0/8".to_owned()));
        let of = |text: &str| prefix(text.parse().unwrap());
        let ends = |(_, _, mask): (u32, Address, Address)| (mask.upper, mask.lower);
        assert_eq!(ends(of("::/0")), (0, 0));
        assert_eq!(ends(of("2001:db8::/48")), (u64::MAX << 16, 0));
        assert_eq!(ends(of("2001:db8::1/128")), (u64::MAX, u64::MAX));
        assert_eq!(ends(of("0.0.0.0/0")), (u64::MAX, u64::MAX << 32));
        assert_eq!(ends(of("192.0.2.1/32")), (u64::MAX, u64::MAX));
    }

    #[test]
    fn faults_are_told_all_at_once() {
        let given = "verdict=dropped&reason=&source=10.0.0.1/8&sample=0&snap=13&rate=x&count=0&seconds=0&bytes=1&more=1";
        let problem = asked(given).err().unwrap();
        assert_eq!(problem.code, Code::BadQuery);
        let parts = [
            "verdict", "reason", "source", "sample", "snap", "rate", "count", "seconds", "bytes",
        ];
        for part in parts {
            assert!(
                problem.detail.contains(&format!("`{part}`")),
                "{}",
                problem.detail
            );
        }
        let unknown = "parameter 10 is not known here";
        assert!(problem.detail.contains(unknown), "{}", problem.detail);
    }

    #[test]
    fn one_of_one_is_all() {
        assert_eq!(threshold(1), u32::MAX);
        assert_eq!(threshold(2), u32::MAX / 2);
    }
}
