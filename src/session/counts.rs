//! How many paths a peer has, summed over the shards, and what happens when they are too many (Q3).

use crate::config::{MaxPrefixAction, MaxPrefixes};
use crate::types::{Family, PerFamily, ShardId};

use super::PrefixCounts;

/// What the peer's number of paths asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// People are told: three quarters of the limit, or the limit, are passed.
    Warn(Family, u64),
    /// The session is to end.
    Stop(Family),
}

/// How far a family is towards its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Below,
    Near,
    Above,
}

/// The counters of a peer by shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    shards: Vec<PerFamily<PrefixCounts>>,
    levels: PerFamily<Level>,
}

impl Counts {
    /// A shard's counters have changed.
    pub(super) fn set(&mut self, shard: ShardId, counts: PerFamily<PrefixCounts>) {
        let index = usize::from(shard.0);
        if self.shards.len() <= index {
            self.shards.resize(index + 1, PerFamily::default());
        }
        if let Some(slot) = self.shards.get_mut(index) {
            *slot = counts;
        }
    }

    /// The sums.
    pub(super) fn total(&self) -> PerFamily<PrefixCounts> {
        PerFamily::default().map(|family, _: ()| {
            self.shards.iter().filter_map(|shard| shard.of(family)).fold(PrefixCounts::default(), |sum, shard| PrefixCounts {
                received: sum.received + shard.received,
                accepted: sum.accepted + shard.accepted,
                advertised: sum.advertised + shard.advertised,
            })
        })
    }

    /// What the sums ask for. Each line is warned about once, until the number has fallen below it again.
    pub(super) fn judge(&mut self, limits: MaxPrefixes) -> Vec<Alarm> {
        let total = self.total();
        Family::ALL.into_iter().filter_map(|family| self.judge_one(family, total.of(family)?.received, limits)).collect()
    }

    /// The next session is warned about anew.
    pub(super) fn forget_warnings(&mut self) {
        self.levels = PerFamily::default();
    }

    fn judge_one(&mut self, family: Family, received: u64, limits: MaxPrefixes) -> Option<Alarm> {
        let limit = u64::from(limits.limit);
        let level = match received {
            _ if received > limit => Level::Above,
            _ if received * 4 > limit * 3 => Level::Near,
            _ => Level::Below,
        };
        let before = std::mem::replace(self.levels.of_mut(family)?, level);
        match level {
            Level::Above if limits.action != MaxPrefixAction::Warn => Some(Alarm::Stop(family)),
            _ if level > before => Some(Alarm::Warn(family, received)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(received: u64) -> PerFamily<PrefixCounts> {
        PerFamily { ipv4: PrefixCounts { received, accepted: received, advertised: 1 }, ipv6: PrefixCounts::default() }
    }

    #[test]
    fn q3_sums_over_shards_and_warns_once_a_line() {
        let limits = MaxPrefixes { limit: 100, action: MaxPrefixAction::Warn };
        let v4 = Family::IPV4_UNICAST;
        let mut sums = Counts::default();
        let mut step = |shard, received| {
            sums.set(ShardId(shard), counts(received));
            sums.judge(limits)
        };
        assert_eq!(step(0, 50), []);
        assert_eq!(step(1, 25), []);
        assert_eq!(step(1, 26), [Alarm::Warn(v4, 76)]);
        assert_eq!(step(1, 30), []);
        assert_eq!(step(1, 51), [Alarm::Warn(v4, 101)]);
        assert_eq!(step(1, 60), []);
        assert_eq!(step(1, 0), []);
        assert_eq!(step(1, 51), [Alarm::Warn(v4, 101)]);
        assert_eq!(sums.total().ipv4, PrefixCounts { received: 101, accepted: 101, advertised: 2 });
    }

    #[test]
    fn q3_idle_stops_the_session() {
        let limits = MaxPrefixes { limit: 100, action: MaxPrefixAction::Idle };
        let mut sums = Counts::default();
        sums.set(ShardId(0), counts(100));
        assert_eq!(sums.judge(limits), [Alarm::Warn(Family::IPV4_UNICAST, 100)]);
        sums.set(ShardId(0), counts(101));
        assert_eq!(sums.judge(limits), [Alarm::Stop(Family::IPV4_UNICAST)]);
    }
}
