//! What is counted of a shard: how long each stage of its rounds takes, and how much it holds.
//!
//! | metric (prefix `margay_`) | labels | meaning |
//! |---|---|---|
//! | `stage_seconds_total` | shard, stage | time spent in: receive, the stages of a round (prepare, walk, decide, encode, answer), deliver |
//! | `rounds_total` | shard | rounds |
//! | `rib_octets` | shard, part | memory that tables have reserved: destinations, attributes, advertised |
//! | `rib_prefixes` | shard, family | destinations |
//! | `rib_attribute_sets` | shard | different attribute sets |
//! | `rib_update_groups` | shard | update groups |
//! | `rib_decisions_total` | shard | how often a destination has been decided |
//!
//! Times are added up every round; the rest is read every second while rounds go on, and once more after the last.

use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::rib::{Shard, Stage};
use crate::types::{self, ShardId};

/// How often what a shard holds is read.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfShard {
    shard: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStage {
    shard: u16,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPart {
    shard: u16,
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFamily {
    shard: u16,
    family: String,
}

type Seconds = Counter<f64, std::sync::atomic::AtomicU64>;

/// The numbers of all shards; cheap to clone, all clones count together.
#[derive(Clone, Debug, Default)]
pub struct ShardMeters {
    stages: Family<OfStage, Seconds>,
    rounds: Family<OfShard, Counter>,
    octets: Family<OfPart, Gauge>,
    prefixes: Family<OfFamily, Gauge>,
    sets: Family<OfShard, Gauge>,
    groups: Family<OfShard, Gauge>,
    decisions: Family<OfShard, Counter>,
}

impl ShardMeters {
    /// Puts the numbers into `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("stage_seconds", "Time that shards have spent, by stage of their rounds", self.stages.clone());
        registry.register("rounds", "Rounds of shards", self.rounds.clone());
        registry.register("rib_octets", "Memory that a shard's tables have reserved, by what it is for", self.octets.clone());
        registry.register("rib_prefixes", "Destinations", self.prefixes.clone());
        registry.register("rib_attribute_sets", "Different attribute sets", self.sets.clone());
        registry.register("rib_update_groups", "Update groups", self.groups.clone());
        registry.register("rib_decisions", "How often a destination has been decided", self.decisions.clone());
    }

    /// The numbers of one shard.
    pub fn of(&self, shard: ShardId) -> Meter {
        let of_stage = |stage| self.stages.get_or_create_owned(&OfStage { shard: shard.0, stage });
        let of = OfShard { shard: shard.0 };
        Meter {
            receive: of_stage("receive"),
            stages: Stage::ALL.map(|stage| of_stage(stage.name())),
            deliver: of_stage("deliver"),
            rounds: self.rounds.get_or_create_owned(&of),
            decisions: self.decisions.get_or_create_owned(&of),
            decided: 0,
            all: self.clone(),
            of,
            due: None,
            read: None,
        }
    }
}

/// What one shard's task counts with.
#[derive(Debug)]
pub struct Meter {
    receive: Seconds,
    stages: [Seconds; Stage::ALL.len()],
    deliver: Seconds,
    rounds: Counter,
    decisions: Counter,
    /// Decisions that are counted already.
    decided: u64,
    all: ShardMeters,
    of: OfShard,
    /// When what the shard holds is to be read; none if nothing has happened since.
    due: Option<Instant>,
    read: Option<Instant>,
}

impl Meter {
    /// A round has ended: `receive` began at `lap`'s start.
    pub fn round(&mut self, lap: Lap) {
        self.receive.inc_by(lap.receive.as_secs_f64());
        for (counter, time) in self.stages.iter().zip(lap.stages) {
            counter.inc_by(time.as_secs_f64());
        }
        self.deliver.inc_by(lap.deliver.as_secs_f64());
        self.rounds.inc();
        if self.due.is_none() {
            self.due = Some(self.read.map_or(lap.at, |read| (read + EVERY).max(lap.at)));
        }
    }

    /// When [`Meter::read`] wants to be called.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Reads what the shard holds.
    #[inline(never)]
    pub fn read(&mut self, now: Instant, shard: &Shard) {
        (self.due, self.read) = (None, Some(now));
        let (stats, octets) = (shard.stats(), shard.octets());
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (part, count) in [("destinations", octets.destinations), ("attributes", octets.attributes), ("advertised", octets.advertised)] {
            self.all.octets.get_or_create(&OfPart { shard: self.of.shard, part }).set(number(count));
        }
        for (family, count) in [(types::Family::IPV4_UNICAST, stats.ipv4), (types::Family::IPV6_UNICAST, stats.ipv6)] {
            let label = OfFamily { shard: self.of.shard, family: family.to_string() };
            self.all.prefixes.get_or_create(&label).set(number(count));
        }
        self.all.sets.get_or_create(&self.of).set(number(stats.attribute_sets));
        self.all.groups.get_or_create(&self.of).set(number(stats.groups));
        self.decisions.inc_by(stats.decisions - self.decided);
        self.decided = stats.decisions;
    }
}

/// Where the time of one round goes.
#[derive(Debug)]
pub struct Lap {
    at: Instant,
    receive: Duration,
    stages: [Duration; Stage::ALL.len()],
    deliver: Duration,
}

impl Lap {
    /// A round begins.
    pub fn begin() -> Self {
        Self { at: Instant::now(), receive: Duration::ZERO, stages: [Duration::ZERO; Stage::ALL.len()], deliver: Duration::ZERO }
    }

    /// Its messages are taken in; what time it is.
    pub fn received(&mut self) -> Instant {
        self.receive = self.since();
        self.at
    }

    /// A stage has ended.
    pub fn done(&mut self, stage: Stage) {
        self.stages[stage as usize] = self.since();
    }

    /// What it says is handed out.
    pub fn delivered(mut self) -> Self {
        self.deliver = self.since();
        self
    }

    fn since(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.at, now))
    }
}
