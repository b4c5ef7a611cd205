//! What Prometheus is told. Every number is kept up to date where it changes, and a scrape only prints it, but for the tasks, which the
//! runtime counts.
//!
//! | metric (prefix `margay_`) | labels | meaning |
//! |---|---|---|
//! | `bgp_peer_state` | peer, as | 0 Idle, 1 Connect, 2 Active, 3 OpenSent, 4 OpenConfirm, 5 Established |
//! | `bgp_peer_up` | peer, as | 1 while Established |
//! | `bgp_peer_flaps_total` | peer, as | Established sessions lost |
//! | `bgp_peer_last_down_code`, `…_subcode` | peer, as | NOTIFICATION of the last loss or failed attempt; 0 where there was none |
//! | `bgp_peer_messages_total` | peer, direction, type | messages |
//! | `bgp_peer_prefixes` | peer, family, stage | paths received, accepted, advertised |
//! | `bgp_peer_faulty_updates_total` | peer, as | UPDATEs with faults that did not cost the session |
//! | `bgp_peer_end_of_rib_seconds` | | from Established to End-of-RIB |
//! | `kernel_writes_total` | result | routes written to the kernel, or refused by it |
//! | `kernel_refusals_total` | errno | refusals that are news, by errno |
//! | `kernel_resyncs_total` | | how often the kernel's table was read anew after the first time |
//! | `kernel_programming_seconds` | | from a change of the Loc-RIB until the kernel has answered, by batch |
//! | `best_path_changes_total` | | changes of the Loc-RIB handed to the kernel side |
//! | `problems` | severity | what is wrong with the resources now |
//! | `configurations_total`, `configuration_timestamp_seconds` | | configurations applied; when the last one was |
//! | `restarting` | | 1 until our own restart is over |
//! | `silent_machines` | | threads and machines of the daemon that do not answer; `/livez` names them |
//! | `memory_resident_bytes`, `memory_ceiling_bytes` | | memory in use, and how much may be; 0 where nothing bounds it |
//! | `memory_acts_total` | act | peers held, released and stopped because memory was short |
//! | `tasks` | | tasks of the runtime that are alive; with the same peers it stays the same |
//! | `events_lost_total` | | events that the history had no room for |
//! | `datastore_state` | datastore, state | 1 for the state that it is in: starting, in-sync, away, held-back |
//! | `datastore_last_word_timestamp_seconds` | | when the datastore said something last; one in which nothing changes is silent |
//! | `datastore_last_known_in_force` | | 1 while the resources of an earlier run are in force |
//! | `datastore_listings_total` | | whole listings: of etcd, of the files, of one kind of the Kubernetes API |
//! | `node_status_writes_total` | result | CalicoNodeStatus objects written, unchanged, missing, conflict, failed |
//! | `bmp_connected` | collector | 1 while the collector is being told |
//! | `bmp_messages_total`, `bmp_octets_total` | collector | BMP messages for the collector, and their octets |
//! | `agent_connected` | agent | 1 while the local agent is connected; gone with its routes when it does not come back |
//! | `agent_routes` | agent | routes that the local agent has told |
//! | `start_timestamp_seconds`, `build_info` | version | the process |
//!
//! What is counted of shards (stage times, memory by what it is for) is in `runtime::shard_meters`.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use crate::calico::{Problem, Severity};
use crate::config::PeerConfig;
use crate::datastore::Meters;
use crate::origin::agents::AgentStatus;
use crate::runtime::shard_meters::ShardMeters;
use crate::session::{DownReason, MessageCounts, PrefixCounts, State, Traffic};
use crate::telemetry::MemoryAct;
use crate::types::{self, PerFamily};

/// Where paths are counted: Adj-RIB-In before policy, after it, Adj-RIB-Out.
const STAGES: [&str; 3] = ["received", "accepted", "advertised"];

/// Which way messages go.
const RECEIVED: &str = "received";
const SENT: &str = "sent";

/// The tasks of this runtime, counted when somebody asks.
#[derive(Debug)]
struct Tasks(Handle);

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let alive = ConstGauge::new(i64::try_from(self.0.metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        alive.encode(encoder.encode_descriptor("tasks", "Tasks of the runtime that are alive", None, alive.metric_type())?)
    }
}

/// A peer, by session name and AS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: String,
    r#as: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMessages {
    peer: String,
    direction: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPrefixes {
    peer: String,
    family: String,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Errno {
    errno: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAct {
    act: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCollector {
    collector: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAgent {
    agent: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSeverity {
    severity: &'static str,
}

/// The numbers of the whole speaker; cheap to clone, all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    state: Family<OfPeer, Gauge>,
    up: Family<OfPeer, Gauge>,
    flaps: Family<OfPeer, Counter>,
    down_code: Family<OfPeer, Gauge>,
    down_subcode: Family<OfPeer, Gauge>,
    messages: Family<OfMessages, Counter>,
    prefixes: Family<OfPrefixes, Gauge>,
    faults: Family<OfPeer, Counter>,
    end_of_rib: Histogram,
    writes: Family<Outcome, Counter>,
    refusals: Family<Errno, Counter>,
    resyncs: Counter,
    programming: Histogram,
    best_paths: Counter,
    problems: Family<OfSeverity, Gauge>,
    configurations: Counter,
    configured: Gauge,
    restarting: Gauge,
    silent: Gauge,
    memory_resident: Gauge,
    memory_ceiling: Gauge,
    memory_acts: Family<OfAct, Counter>,
    lost: Counter,
    started: Gauge,
    bmp_connected: Family<OfCollector, Gauge>,
    bmp_messages: Family<OfCollector, Counter>,
    bmp_octets: Family<OfCollector, Counter>,
    agent_connected: Family<OfAgent, Gauge>,
    agent_routes: Family<OfAgent, Gauge>,
    /// Those of the datastore.
    pub datastore: Meters,
    /// Those of the shards.
    pub shards: ShardMeters,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            state: Family::default(),
            up: Family::default(),
            flaps: Family::default(),
            down_code: Family::default(),
            down_subcode: Family::default(),
            messages: Family::default(),
            prefixes: Family::default(),
            faults: Family::default(),
            end_of_rib: Histogram::new(exponential_buckets(0.001, 4.0, 10)),
            writes: Family::default(),
            refusals: Family::default(),
            resyncs: Counter::default(),
            programming: Histogram::new(exponential_buckets(0.0001, 4.0, 10)),
            best_paths: Counter::default(),
            problems: Family::default(),
            configurations: Counter::default(),
            configured: Gauge::default(),
            restarting: Gauge::default(),
            silent: Gauge::default(),
            memory_resident: Gauge::default(),
            memory_ceiling: Gauge::default(),
            memory_acts: Family::default(),
            lost: Counter::default(),
            started: Gauge::default(),
            bmp_connected: Family::default(),
            bmp_messages: Family::default(),
            bmp_octets: Family::default(),
            agent_connected: Family::default(),
            agent_routes: Family::default(),
            datastore: Meters::default(),
            shards: ShardMeters::default(),
        };
        metrics.started.set(unix_now());
        metrics.problems(&[]);
        for act in [MemoryAct::Held, MemoryAct::Released, MemoryAct::Stopped] {
            metrics.memory_acts.get_or_create(&OfAct { act: act.name() }).inc_by(0);
        }
        metrics
    }
}

impl Metrics {
    /// Everything under its name, ready to be printed.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("margay");
        registry.register(
            "bgp_peer_state",
            "FSM state: 0 Idle, 1 Connect, 2 Active, 3 OpenSent, 4 OpenConfirm, 5 Established",
            self.state.clone(),
        );
        registry.register("bgp_peer_up", "Whether the session is Established", self.up.clone());
        registry.register("bgp_peer_flaps", "Established sessions lost", self.flaps.clone());
        registry.register(
            "bgp_peer_last_down_code",
            "NOTIFICATION code of the last loss or failed attempt, 0 for none",
            self.down_code.clone(),
        );
        registry.register(
            "bgp_peer_last_down_subcode",
            "NOTIFICATION subcode of the last loss or failed attempt",
            self.down_subcode.clone(),
        );
        registry.register("bgp_peer_messages", "BGP messages by direction and type", self.messages.clone());
        registry.register("bgp_peer_prefixes", "Paths received before policy, accepted, and advertised", self.prefixes.clone());
        registry.register("bgp_peer_faulty_updates", "UPDATEs with faults that did not cost the session", self.faults.clone());
        registry.register("bgp_peer_end_of_rib_seconds", "From Established to the peer's End-of-RIB", self.end_of_rib.clone());
        registry.register("kernel_writes", "Routes written to the kernel, or refused by it", self.writes.clone());
        registry.register(
            "kernel_refusals",
            "Refused routes by errno; the same refusal of a route again does not count",
            self.refusals.clone(),
        );
        registry.register("kernel_resyncs", "How often the kernel's routes were read anew", self.resyncs.clone());
        registry.register(
            "kernel_programming_seconds",
            "From a change of best paths until the kernel has answered",
            self.programming.clone(),
        );
        registry.register("best_path_changes", "Changes of best paths handed to the kernel side", self.best_paths.clone());
        registry.register("problems", "What is wrong with the resources, by severity", self.problems.clone());
        registry.register("configurations", "Configurations put in force", self.configurations.clone());
        registry.register("configuration_timestamp_seconds", "When the configuration in force was put in force", self.configured.clone());
        registry.register("restarting", "1 until our own restart is over", self.restarting.clone());
        registry.register("silent_machines", "Threads and machines of the daemon that do not answer", self.silent.clone());
        registry.register(
            "memory_resident_bytes",
            "Resident memory at the last look; 0 where nothing bounds it",
            self.memory_resident.clone(),
        );
        registry.register("memory_ceiling_bytes", "How much memory may be used; 0 where nothing bounds it", self.memory_ceiling.clone());
        registry.register("memory_acts", "Peers held, released and stopped because memory was short", self.memory_acts.clone());
        if let Ok(runtime) = Handle::try_current() {
            registry.register_collector(Box::new(Tasks(runtime)));
        }
        registry.register("events_lost", "Events that the history had no room for", self.lost.clone());
        registry.register("bmp_connected", "Whether the BMP collector is being told", self.bmp_connected.clone());
        registry.register("bmp_messages", "BMP messages for the collector", self.bmp_messages.clone());
        registry.register("bmp_octets", "Octets of BMP messages for the collector", self.bmp_octets.clone());
        registry.register("agent_connected", "Whether the local agent is connected", self.agent_connected.clone());
        registry.register("agent_routes", "Routes that the local agent has told", self.agent_routes.clone());
        self.datastore.register(&mut registry);
        self.shards.register(&mut registry);
        registry.register("start_timestamp_seconds", "When the process began", self.started.clone());
        registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry
    }

    /// The numbers of a peer; they begin at zero, so that rates do.
    pub fn peer(&self, config: &PeerConfig) -> PeerMetrics {
        let labels = OfPeer { peer: config.name.clone(), r#as: config.remote_asn.to_string() };
        let mut peer = PeerMetrics {
            traffic: Traffic::default(),
            all: self.clone(),
            labels,
            received: MessageCounters::default(),
            sent: MessageCounters::default(),
            gauges: PerFamily::default(),
        };
        peer.all.state.get_or_create(&peer.labels).set(State::Idle as i64);
        peer.all.up.get_or_create(&peer.labels).set(0);
        peer.all.flaps.get_or_create(&peer.labels).inc_by(0);
        peer.all.faults.get_or_create(&peer.labels).inc_by(0);
        for family in config.offered() {
            peer.prefixes(family, PrefixCounts::default());
        }
        peer
    }

    /// The numbers of a BMP collector; they begin at zero.
    pub fn collector(&self, address: SocketAddr) -> CollectorMeter {
        let labels = OfCollector { collector: address.to_string() };
        let meter = CollectorMeter {
            connected: self.bmp_connected.get_or_create(&labels).clone(),
            messages: self.bmp_messages.get_or_create(&labels).clone(),
            octets: self.bmp_octets.get_or_create(&labels).clone(),
        };
        meter.connected(false);
        meter
    }

    /// The local agents there are now; those of `before` that are no more are no longer told of.
    pub fn agents(&self, before: &[AgentStatus], now: &[AgentStatus]) {
        let labels = |agent: &AgentStatus| OfAgent { agent: agent.name.to_string() };
        for gone in before.iter().filter(|old| now.iter().all(|new| new.name != old.name)) {
            self.agent_connected.remove(&labels(gone));
            self.agent_routes.remove(&labels(gone));
        }
        for agent in now {
            self.agent_connected.get_or_create(&labels(agent)).set(i64::from(agent.connected));
            self.agent_routes.get_or_create(&labels(agent)).set(i64::try_from(agent.routes).unwrap_or(i64::MAX));
        }
    }

    /// The problems there are now.
    pub fn problems(&self, problems: &[Problem]) {
        for (severity, label) in [(Severity::Info, "info"), (Severity::Warning, "warning"), (Severity::Error, "error")] {
            let count = problems.iter().filter(|problem| problem.severity == severity).count();
            self.problems.get_or_create(&OfSeverity { severity: label }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A configuration was put in force.
    pub fn configured(&self) {
        self.configurations.inc();
        self.configured.set(unix_now());
    }

    /// Whether our own restart goes on.
    pub fn restarting(&self, restarting: bool) {
        self.restarting.set(i64::from(restarting));
    }

    /// So many machines do not answer.
    pub fn silent_machines(&self, count: usize) {
        self.silent.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Resident memory and its ceiling in octets.
    pub fn memory(&self, resident: u64, ceiling: u64) {
        self.memory_resident.set(i64::try_from(resident).unwrap_or(i64::MAX));
        self.memory_ceiling.set(i64::try_from(ceiling).unwrap_or(i64::MAX));
    }

    /// Something was done about short memory.
    pub fn memory_act(&self, act: MemoryAct) {
        self.memory_acts.get_or_create(&OfAct { act: act.name() }).inc();
    }

    /// The history had no room for an event.
    pub fn event_lost(&self) {
        self.lost.inc();
    }

    /// So many best paths changed.
    pub fn best_paths(&self, changes: usize) {
        self.best_paths.inc_by(changes as u64);
    }

    /// The kernel has answered a batch: so many writes, so many of them refused.
    pub fn written(&self, routes: usize, refused: usize) {
        self.writes.get_or_create(&Outcome { result: "written" }).inc_by(routes.saturating_sub(refused) as u64);
        self.writes.get_or_create(&Outcome { result: "refused" }).inc_by(refused as u64);
    }

    /// So long after the first of them, the changes of best paths are in the kernel.
    pub fn programmed(&self, after: Duration) {
        self.programming.observe(after.as_secs_f64());
    }

    /// The kernel refused a route, which is news.
    pub fn refused(&self, errno: i32) {
        self.refusals.get_or_create(&Errno { errno }).inc();
    }

    /// The kernel's table is read anew.
    pub fn resync(&self) {
        self.resyncs.inc();
    }
}

/// The numbers of one BMP collector.
#[derive(Clone, Debug)]
pub struct CollectorMeter {
    connected: Gauge,
    messages: Counter,
    octets: Counter,
}

impl CollectorMeter {
    /// Whether it is being told.
    pub fn connected(&self, connected: bool) {
        self.connected.set(i64::from(connected));
    }

    /// So many messages of so many octets in all.
    pub fn told(&self, messages: usize, octets: usize) {
        self.messages.inc_by(messages as u64);
        self.octets.inc_by(octets as u64);
    }
}

/// Where messages of one direction are counted, by type. Each is found by its labels the first time.
type MessageCounters = [Option<Counter>; 5];

/// The numbers of one peer, until it is dropped.
#[derive(Debug)]
pub struct PeerMetrics {
    labels: OfPeer,
    all: Metrics,
    /// What was counted already.
    traffic: Traffic,
    received: MessageCounters,
    sent: MessageCounters,
    /// Where paths are counted, by stage; found as those are.
    gauges: PerFamily<[Option<Gauge>; STAGES.len()]>,
}

impl PeerMetrics {
    /// The FSM's state changed.
    pub fn state(&mut self, from: State, to: State) {
        // A peer that came back under its name may have found what the one before it takes along when it is dropped.
        (self.received, self.sent, self.gauges) = Default::default();
        self.all.state.get_or_create(&self.labels).set(to as i64);
        self.all.up.get_or_create(&self.labels).set(i64::from(to == State::Established));
        if from == State::Established {
            self.all.flaps.get_or_create(&self.labels).inc();
        }
    }

    /// The session ended, or an attempt failed.
    pub fn down(&self, reason: &DownReason) {
        self.all.down_code.get_or_create(&self.labels).set(i64::from(reason.code));
        self.all.down_subcode.get_or_create(&self.labels).set(i64::from(reason.subcode));
    }

    /// An UPDATE had faults.
    pub fn fault(&self) {
        self.all.faults.get_or_create(&self.labels).inc();
    }

    /// End-of-RIB came so long after Established.
    pub fn end_of_rib(&self, after: Duration) {
        self.all.end_of_rib.observe(after.as_secs_f64());
    }

    /// Paths of a family.
    pub fn prefixes(&mut self, family: types::Family, counts: PrefixCounts) {
        let Some(gauges) = self.gauges.of_mut(family) else { return };
        for ((stage, count), gauge) in STAGES.into_iter().zip([counts.received, counts.accepted, counts.advertised]).zip(gauges) {
            let labels = || OfPrefixes { peer: self.labels.peer.clone(), family: family.to_string(), stage };
            let gauge = gauge.get_or_insert_with(|| self.all.prefixes.get_or_create_owned(&labels()));
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Messages so far. Cheap while nothing was said.
    pub fn traffic(&mut self, now: &Traffic) {
        if *now == self.traffic {
            return;
        }
        for (direction, counters, now, before) in
            [(RECEIVED, &mut self.received, &now.received, &self.traffic.received), (SENT, &mut self.sent, &now.sent, &self.traffic.sent)]
        {
            for (((kind, now), (_, before)), counter) in now.each().into_iter().zip(before.each()).zip(counters) {
                if now > before {
                    let labels = || OfMessages { peer: self.labels.peer.clone(), direction, r#type: kind };
                    counter.get_or_insert_with(|| self.all.messages.get_or_create_owned(&labels())).inc_by(now - before);
                }
            }
        }
        self.traffic = *now;
    }
}

impl Drop for PeerMetrics {
    fn drop(&mut self) {
        let all = &self.all;
        for gauge in [&all.state, &all.up, &all.down_code, &all.down_subcode] {
            gauge.remove(&self.labels);
        }
        for counter in [&all.flaps, &all.faults] {
            counter.remove(&self.labels);
        }
        for direction in [RECEIVED, SENT] {
            for (kind, _) in MessageCounts::default().each() {
                all.messages.remove(&OfMessages { peer: self.labels.peer.clone(), direction, r#type: kind });
            }
        }
        for family in types::Family::ALL {
            for stage in STAGES {
                all.prefixes.remove(&OfPrefixes { peer: self.labels.peer.clone(), family: family.to_string(), stage });
            }
        }
    }
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::types::{Asn, RouterId};

    #[test]
    fn a_peer_that_comes_back_before_the_one_of_its_name_is_gone_is_counted() {
        let all = Metrics::default();
        let config = PeerConfig::new("tor", (Asn(64512), RouterId([10, 0, 0, 1].into())), ([10, 0, 0, 2].into(), Asn(64513)));
        let (old, mut new) = (all.peer(&config), all.peer(&config));
        drop(old);
        new.state(State::Idle, State::Connect);
        new.prefixes(types::Family::IPV4_UNICAST, PrefixCounts { received: 3, ..PrefixCounts::default() });
        let mut traffic = Traffic::default();
        for _ in 0..2 {
            traffic.sent.keepalive += 1;
            new.traffic(&traffic);
        }
        let mut text = String::new();
        encode(&mut text, &all.registry()).unwrap();
        let has = |line: &str| text.lines().any(|found| found == line);
        assert!(has(r#"margay_bgp_peer_messages_total{peer="tor",direction="sent",type="keepalive"} 2"#), "{text}");
        assert!(has(r#"margay_bgp_peer_prefixes{peer="tor",family="ipv4-unicast",stage="received"} 3"#), "{text}");
    }
}
