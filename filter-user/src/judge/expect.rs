//! What a policy expects of itself: each `[[expect]]` asked of the reference and, where this process may, of the
//! kernel program.

use std::fmt;

use filter_common::verdict::Judgement;

use super::both::{Both, JudgeError};
use super::frame::{Flow, build};
use crate::policy::Policy;
use crate::policy::model::{Expect, ExpectProtocol, Origin};

/// All of a policy's expectations, tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    pub outcomes: Vec<Outcome>,
    /// Why the kernel program was not asked, if it was not.
    pub kernel_missing: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub origin: Origin,
    /// `198.51.100.7:40000 to 203.0.113.10:443/tcp`
    pub packet: String,
    /// A verdict, and a reason where one is written.
    pub expected: (String, Option<String>),
    pub reference: (&'static str, &'static str),
    pub kernel: Option<(&'static str, &'static str)>,
}

/// One that differs: `keyfence.toml:40: … is expected to pass; it is drop (unlisted)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectFault {
    pub origin: Origin,
    pub message: String,
}

impl fmt::Display for ExpectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.origin.file, self.origin.line, self.message)
    }
}

impl Outcome {
    pub fn holds(&self) -> bool {
        self.meets(self.reference) && self.kernel.is_none_or(|kernel| self.meets(kernel))
    }

    fn meets(&self, (verdict, reason): (&str, &str)) -> bool {
        let (expected, because) = &self.expected;
        expected == verdict && because.as_deref().is_none_or(|because| because == reason)
    }

    fn fault(&self) -> ExpectFault {
        let said = |(verdict, reason): (&str, &str)| format!("{verdict} ({reason})");
        let (verdict, reason) = &self.expected;
        let expected = match reason {
            Some(reason) => said((verdict, reason)),
            None => verdict.clone(),
        };
        let found = match self.kernel {
            Some(kernel) if kernel != self.reference => format!(
                "the kernel program says {} and the reference {}: please report this",
                said(kernel),
                said(self.reference)
            ),
            Some(_) => format!("it is {}", said(self.reference)),
            None => format!("it is {} by the reference on the host", said(self.reference)),
        };
        ExpectFault {
            origin: self.origin.clone(),
            message: format!("{} is expected to be {expected}, and {found}", self.packet),
        }
    }
}

impl Tried {
    pub fn faults(&self) -> Vec<ExpectFault> {
        let failing = self.outcomes.iter().filter(|outcome| !outcome.holds());
        failing.map(Outcome::fault).collect()
    }
}

/// Tries all of them, each with full buckets. Without any, nothing is compiled or loaded. Blocks as long as the kernel
/// takes to verify its program.
pub fn expects(policy: &Policy, now: jiff::Timestamp) -> Result<Tried, JudgeError> {
    if policy.expects.is_empty() {
        return Ok(Tried::default());
    }
    let mut both = Both::new(policy, now)?;
    let kernel_missing = both.kernel_missing().map(str::to_owned);
    let mut outcomes = Vec::new();
    for expect in &policy.expects {
        outcomes.push(one(expect, &mut both)?);
    }
    Ok(Tried {
        outcomes,
        kernel_missing,
    })
}

fn one(expect: &Expect, both: &mut Both<'_>) -> Result<Outcome, JudgeError> {
    let flow = Flow {
        from: expect.from,
        to: expect.to,
        protocol: expect.protocol,
    };
    let frame = build(&flow).expect("a policy with two families in one expect is refused when it is loaded");
    let answers = both.ask(&frame)?;
    let said = |judgement: &Judgement| (judgement.verdict.name(), judgement.reason.name());
    Ok(Outcome {
        origin: expect.origin.clone(),
        packet: shown(&flow),
        expected: (expect.verdict.clone(), expect.reason.clone()),
        reference: said(&answers.reference),
        kernel: answers.kernel.ok().as_ref().map(said),
    })
}

/// A packet in the words of the policy file.
pub fn shown(flow: &Flow) -> String {
    let [from, to] = [flow.from, flow.to].map(|(address, port)| std::net::SocketAddr::new(address, port));
    match flow.protocol {
        ExpectProtocol::Tcp => format!("{from} to {to}/tcp"),
        ExpectProtocol::Udp => format!("{from} to {to}/udp"),
        ExpectProtocol::Icmp => format!("{} to {}/icmp", from.ip(), to.ip()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::policy::{LoadContext, MemoryFiles, load_from};

    fn tried(expects: &str) -> Tried {
        let text = format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nping = \"listed\"\n\
             [[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [443]\n\
             [[client]]\nname = \"a\"\nsources = [\"198.51.100.0/24\", \"2001:db8::/32\"]\nservices = [\"web\"]\n\
             [[client]]\nname = \"old\"\nsources = [\"192.0.2.1\"]\nservices = [\"web\"]\nexpires = 2001-01-01T00:00:00Z\n\
             [[management]]\nname = \"ssh\"\nsources = [\"192.0.2.9\"]\nprotocol = \"tcp\"\nports = [22]\n{expects}"
        );
        let root = PathBuf::from("policy.toml");
        let files = MemoryFiles::new([(root.clone(), text.into_bytes())]);
        let now: jiff::Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let loaded = load_from(&files, &root, &LoadContext::at(now));
        let policy = loaded
            .policy
            .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
        super::expects(&policy, now).unwrap()
    }

    fn expect(from: &str, to: &str, verdict: &str, reason: &str) -> String {
        let reason = if reason.is_empty() {
            String::new()
        } else {
            format!("reason = \"{reason}\"\n")
        };
        format!("[[expect]]\nfrom = \"{from}\"\nto = \"{to}\"\nverdict = \"{verdict}\"\n{reason}")
    }

    #[test]
    fn what_a_policy_does_is_what_it_expects() {
        let all = [
            expect("198.51.100.7:40000", "203.0.113.10:443/tcp", "pass", "allowed"),
            expect("[2001:db8::7]:40000", "[2001:db8:1::1]:443/tcp", "pass", ""),
            expect("203.0.113.9:40000", "203.0.113.10:443/tcp", "drop", "unlisted"),
            expect("192.0.2.1", "203.0.113.10:443/tcp", "drop", "ended"),
            expect("192.0.2.9:40000", "203.0.113.10:22/tcp", "pass", "management"),
            expect("203.0.113.9", "203.0.113.10/icmp", "drop", "icmp"),
            expect("198.51.100.7", "203.0.113.10/icmp", "pass", "icmp"),
            expect("203.0.113.9:1", "203.0.113.10:53/udp", "pass", "other"),
        ];
        let tried = tried(&all.concat());
        assert_eq!(tried.outcomes.len(), all.len());
        assert_eq!(tried.faults(), []);
    }

    #[test]
    fn what_differs_is_named_with_its_line_and_what_was_found() {
        let wrong = [
            expect("203.0.113.9:40000", "203.0.113.10:443/tcp", "pass", ""),
            expect("203.0.113.9:40000", "203.0.113.10:443/tcp", "drop", "ended"),
        ];
        let faults = tried(&wrong.concat()).faults();
        assert_eq!(faults.len(), 2);
        let shown = faults[0].to_string();
        assert!(
            shown.starts_with("policy.toml:23: 203.0.113.9:40000 to 203.0.113.10:443/tcp"),
            "{shown}"
        );
        assert!(
            shown.contains("expected to be pass") && shown.contains("drop (unlisted)"),
            "{shown}"
        );
        assert!(
            faults[1].to_string().contains("expected to be drop (ended)"),
            "{}",
            faults[1]
        );
    }

    #[test]
    fn without_expectations_nothing_is_tried() {
        assert_eq!(tried(""), Tried::default());
    }
}
