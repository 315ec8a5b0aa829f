//! What a stream is likely to bring, by what it has brought so far: the kernel's tables have room for it before it comes,
//! and by one generation, not by one for each doubling.

use std::sync::Arc;

use ipnet::IpNet;

use super::seam::{Grants, Many};

/// Fewer find their room without being told of.
const TOLD_FROM: u64 = 4_096;
/// One line of so many is looked up: whether it is new.
const LOOKED_UP: u64 = 16;

#[derive(Default)]
pub(super) struct Outlook {
    /// Of the whole stream, where it was told.
    bytes_all: Option<u64>,
    bytes: u64,
    lines: u64,
    /// Estimates, of those that were looked up.
    new: Many,
    /// How many were told of last.
    told: u64,
}

impl Outlook {
    /// The stream has so many bytes in all.
    pub(super) fn is_of(&mut self, bytes: u64) {
        self.bytes_all = Some(bytes);
    }

    pub(super) fn bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// A line that puts a binding, which may be there already.
    pub(super) fn put(&mut self, sources: &[IpNet], is_new: impl FnOnce() -> bool) {
        self.lines += 1;
        if self.lines % LOOKED_UP == 1 && is_new() {
            let Many { owners, v4, v6 } = many([sources]);
            self.new.owners += owners * LOOKED_UP;
            self.new.v4 += v4 * LOOKED_UP;
            self.new.v6 += v6 * LOOKED_UP;
        }
    }

    /// What is to be told of now: all that the stream is likely to bring, and an eighth more. Where its length is not known,
    /// as much again as it has brought. `most` owners may come.
    fn due(&mut self, most: u64) -> Option<Many> {
        if self.new.owners < TOLD_FROM.max(self.told) {
            return None;
        }
        let (all, so_far) = match self.bytes_all {
            // By the first estimate it has ended: whatever is wrong with it, it goes on.
            Some(all) if self.told == 0 => (all.max(self.bytes), self.bytes.max(1)),
            _ => (2, 1),
        };
        let scaled = |count: u64, (by, of): (u64, u64)| {
            u64::try_from(u128::from(count) * u128::from(by) / u128::from(of)).unwrap_or(u64::MAX)
        };
        let expected = scaled(self.new.owners, (all, so_far));
        let owners = expected.saturating_add(expected / 8).min(most);
        self.told = expected;
        let of_each = |count| scaled(count, (owners, self.new.owners));
        Some(Many {
            owners,
            v4: of_each(self.new.v4),
            v6: of_each(self.new.v6),
        })
    }

    /// Tells the engine, where it is time.
    pub(super) fn tell(&mut self, most: impl FnOnce() -> u64, grants: Option<&Arc<dyn Grants>>) {
        if self.new.owners < TOLD_FROM.max(self.told) {
            return;
        }
        if let (Some(many), Some(grants)) = (self.due(most()), grants) {
            tokio::spawn(grants.expect(many));
        }
    }
}

/// Owners with these sources, as far as none is another's too.
pub(super) fn many<'s>(sources: impl IntoIterator<Item = &'s [IpNet]>) -> Many {
    let mut many = Many::default();
    for sources in sources {
        many.owners += 1;
        for net in sources
            .iter()
            .filter(|net| net.prefix_len() == net.max_prefix_len())
        {
            match net {
                IpNet::V4(_) => many.v4 += 1,
                IpNet::V6(_) => many.v6 += 1,
            }
        }
    }
    many
}

/// With room for no others, the last of what comes would wait for more.
pub(super) fn and_an_eighth(many: Many) -> Many {
    let [owners, v4, v6] = [many.owners, many.v4, many.v6].map(|count| count + count / 8);
    Many { owners, v4, v6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brought(outlook: &mut Outlook, lines: u64, sources: &[&str]) {
        let sources: Vec<IpNet> = sources.iter().map(|text| text.parse().unwrap()).collect();
        for _ in 0..lines {
            outlook.bytes(100);
            outlook.put(&sources, || true);
        }
    }

    #[test]
    fn stream_of_known_length_is_told_of_once_and_whole() {
        let mut outlook = Outlook::default();
        outlook.is_of(100 * 64_000);
        brought(&mut outlook, TOLD_FROM - LOOKED_UP, &["192.0.2.1/32"]);
        assert_eq!(outlook.due(u64::MAX), None, "few find their room anyway");
        brought(&mut outlook, LOOKED_UP, &["192.0.2.1/32"]);
        let expected = Many {
            owners: 72_000,
            v4: 72_000,
            v6: 0,
        };
        assert_eq!(outlook.due(u64::MAX), Some(expected));
        brought(&mut outlook, 50_000, &["192.0.2.1/32"]);
        assert_eq!(outlook.due(u64::MAX), None);
    }

    #[test]
    fn stream_of_unknown_length_is_told_of_at_each_doubling() {
        let mut outlook = Outlook::default();
        brought(
            &mut outlook,
            TOLD_FROM,
            &["192.0.2.1/32", "2001:db8::1/128", "198.51.100.0/24"],
        );
        let expected = Many {
            owners: 9_216,
            v4: 9_216,
            v6: 9_216,
        };
        assert_eq!(outlook.due(u64::MAX), Some(expected));
        assert_eq!(outlook.due(u64::MAX), None);
        brought(&mut outlook, TOLD_FROM, &["192.0.2.1/32"]);
        assert_eq!(
            outlook.due(10_000).map(|many| many.owners),
            Some(10_000),
            "no more than may come"
        );
    }

    #[test]
    fn stream_of_what_is_there_already_is_not_told_of() {
        let mut outlook = Outlook::default();
        outlook.is_of(1 << 40);
        for _ in 0..100_000 {
            outlook.bytes(100);
            outlook.put(&[], || false);
        }
        assert_eq!(outlook.due(u64::MAX), None);
    }
}
