//! The closed words of the policy file and the types they stand for: one list for reading, printing and docs.

use filter_common::verdict::{Reason, Verdict};

use crate::policy::model::{
    Attach, Mode, OnExit, PassDrop, PassListedDrop, RecordAddresses, Role, Scheme, SinkType,
};

/// A type whose every value is one word of the file.
pub(crate) trait Word: Copy + PartialEq + 'static {
    const NAMES: &'static [&'static str];
    const VALUES: &'static [Self];

    fn name(self) -> &'static str {
        let index = Self::VALUES.iter().position(|value| *value == self);
        index
            .and_then(|index| Self::NAMES.get(index))
            .copied()
            .unwrap_or_default()
    }

    fn named(name: &str) -> Option<Self> {
        let index = Self::NAMES.iter().position(|candidate| *candidate == name)?;
        Self::VALUES.get(index).copied()
    }
}

macro_rules! words {
    ($type:ident { $($name:literal => $value:ident),+ $(,)? }) => {
        impl Word for $type {
            const NAMES: &'static [&'static str] = &[$($name),+];
            const VALUES: &'static [Self] = &[$($type::$value),+];
        }
    };
}

words!(Mode { "enforce" => Enforce, "observe" => Observe });
words!(Attach { "auto" => Auto, "native" => Native, "generic" => Generic });
words!(PassDrop { "pass" => Pass, "drop" => Drop });
words!(PassListedDrop { "pass" => Pass, "listed" => Listed, "drop" => Drop });
words!(OnExit { "keep" => Keep, "detach" => Detach });
words!(Role {
    "publish" => Publish,
    "authorize" => Authorize,
    "read" => Read,
    "operate" => Operate,
    "deny" => Deny,
    "metrics" => Metrics,
});
words!(Scheme { "sha256" => Sha256, "hmac-sha256" => HmacSha256 });
words!(RecordAddresses { "full" => Full, "prefix" => Prefix, "hmac" => Hmac });
words!(SinkType { "file" => File, "syslog" => Syslog, "journald" => Journald, "stdout" => Stdout });

/// Verdicts and their reasons, as in what is expected of a packet.
pub(crate) const VERDICTS: [&str; 3] = Verdict::NAMES;
pub(crate) const PASS_REASONS: [&str; 8] = Reason::names_of(Verdict::Pass);
/// Of `drop` and `observe`.
pub(crate) const DROP_REASONS: [&str; 15] = Reason::names_of(Verdict::Drop);
