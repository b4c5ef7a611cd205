//! One run: one speaker, one scenario, all its phases.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use margay::types::Asn;
use serde::Serialize;

use super::feed::Feed;
use super::meter::Wants;
use super::scenario::{PORT, Peer, Phase, Role, Scenario, Shape};
use super::session::Plan;
use super::speaker::{Running, Speaker};
use super::stage::Stage;
use super::table::{self, Index, Numbers};

/// What one phase of one run took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Under which name it is reported.
    pub row: String,
    /// The speaker.
    pub speaker: String,
    /// Why there are no figures.
    pub error: Option<String>,
    /// From the beginning until the last receiver had arrived.
    pub seconds: f64,
    /// CPU of the speaker until then.
    pub cpu_until_done: f64,
    /// CPU of the speaker until it was quiet.
    pub cpu: f64,
    /// CPU of the generator until then.
    pub generator_cpu: f64,
    /// The most memory in this phase, in octets.
    pub peak: u64,
    /// Memory when it was quiet.
    pub resident: u64,
    /// UPDATE messages, octets in them, prefixes announced, of these held already, and withdrawn, over all receivers.
    pub messages: u64,
    /// See `messages`.
    pub octets: u64,
    /// See `messages`.
    pub announced: u64,
    /// See `messages`.
    pub again: u64,
    /// See `messages`.
    pub withdrawn: u64,
    /// Milliseconds from sending a change to hearing it: half of all, 99 of 100.
    pub latency: Option<(f64, f64)>,
    /// CPU until it was quiet, in hundredths of one core's time, where nothing was done.
    pub idle: Option<f64>,
    /// Where sessions idle beside the others: the longest silence of the speaker on any session, in seconds.
    pub silence: Option<f64>,
    /// Sessions that were up in the end.
    pub sessions: usize,
    /// How often it was done, of what was done while single changes were timed.
    pub rounds: usize,
    /// The fewest messages in which a mesh can be told this: one a receiver for each set of attributes.
    pub least: u64,
}

/// The messages of a scenario, made once for all speakers; clones share them.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(super) scenario: Scenario,
    pub(super) prefixes: Arc<[IpNet]>,
    pub(super) index: Arc<Index>,
    pub(super) best: Arc<[Asn]>,
    pub(super) feeds: Arc<[Feed]>,
}

impl Prepared {
    /// Makes tables and encodes them.
    pub fn new(scenario: Scenario) -> Self {
        let mut numbers = Numbers::new(2026);
        let mut prefixes = if scenario.is_mesh() {
            (0..scenario.senders).flat_map(|sender| table::blocks(sender, scenario.ipv4)).collect()
        } else {
            table::ipv4(scenario.all_ipv4().len(), &mut numbers)
        };
        prefixes.extend(scenario.own_blocks());
        prefixes.extend(table::ipv6(scenario.ipv6, &mut numbers));
        let best = if scenario.same {
            let senders = scenario.senders as u32;
            prefixes.iter().map(|_| Asn(scenario.sender(numbers.below(senders) as usize).1)).collect()
        } else {
            Vec::new()
        };
        let index = Arc::new(Index::new(&prefixes));
        let mut prepared = Self { scenario, prefixes: prefixes.into(), index, best: best.into(), feeds: Arc::default() };
        prepared.feeds = (0..scenario.all_senders()).map(|sender| prepared.feed(sender, &mut numbers)).collect();
        prepared
    }

    fn feed(&self, sender: usize, numbers: &mut Numbers) -> Feed {
        let (address, asn) = self.scenario.sender(sender);
        let mesh = self.scenario.is_mesh();
        let next_hop = next_hop(address);
        let first = (!mesh).then_some(Asn(asn));
        let mut own: Vec<IpNet> = self.prefixes[self.scenario.told_by(sender)].to_vec();
        if self.scenario.same {
            return self.contest(sender, &mut own, numbers, next_hop);
        }
        let runs = if mesh { vec![own.len()] } else { table::runs(own.len(), 8, numbers) };
        Feed::new(&own, &runs, !mesh, |_| {
            let mut set = table::attributes(first, next_hop, mesh.then_some(0), numbers);
            if mesh {
                (set.communities, set.rare) = Default::default();
            }
            set
        })
    }

    /// What a peer is to hear; nothing of it if the peer does not hear.
    pub(super) fn wants(&self, number: usize, peer: &Peer) -> Option<Wants> {
        let range = |range: Range<usize>| range.start as u32..range.end as u32;
        let ipv4 = self.scenario.all_ipv4().len() + self.scenario.blocks;
        match (peer.role, self.scenario.shape) {
            (Role::Idler, _) | (Role::Sender, Shape::Transit) => None,
            (Role::Sender, Shape::Reflector) => Some(Wants { all: range(0..ipv4), own: range(self.scenario.told_by(number)) }),
            (Role::Sender, Shape::Member) => Some(Wants { all: range(self.scenario.all_ipv4().end..ipv4), own: 0..0 }),
            (Role::Receiver | Role::Late, _) if peer.address.is_ipv6() => Some(Wants { all: range(ipv4..self.prefixes.len()), own: 0..0 }),
            (Role::Receiver | Role::Late, _) => Some(Wants { all: range(0..ipv4), own: 0..0 }),
        }
    }

    /// The session of a peer, which is the given one of the receivers, if it is one.
    pub(super) fn plan(&self, number: usize, peer: &Peer, receiver: Option<usize>) -> Plan {
        let at_once = if self.scenario.is_mesh() && peer.role == Role::Sender { self.feeds[number].announce.clone() } else { Vec::new() };
        let ebgp = !(self.scenario.is_mesh() && peer.role == Role::Sender);
        Plan { address: peer.address, speaker: SocketAddr::new(peer.target(), PORT), asn: Asn(peer.asn), ebgp, receiver, at_once }
    }

    /// A sender's part where all tell the same prefixes: a shorter path where it is to win. Each tells them in an order of its own,
    /// those that it wins among the others.
    fn contest(&self, sender: usize, own: &mut [IpNet], numbers: &mut Numbers, next_hop: IpAddr) -> Feed {
        let asn = Asn(self.scenario.sender(sender).1);
        // Runs of one kind, begun anywhere in the table.
        own.rotate_left(sender * self.prefixes.len() / self.scenario.senders);
        let index = table::Index::new(&self.prefixes);
        let wins = |prefix: &IpNet| index.find(*prefix).is_some_and(|number| self.best[number as usize] == asn);
        let mut sorted = Vec::with_capacity(own.len());
        let (mut runs, mut kinds) = (Vec::new(), Vec::new());
        for part in own.chunks(96) {
            for kind in [false, true] {
                let same: Vec<IpNet> = part.iter().filter(|prefix| wins(prefix) == kind).copied().collect();
                let lengths = table::runs(same.len(), 8, numbers);
                kinds.extend(lengths.iter().map(|_| kind));
                runs.extend(lengths);
                sorted.extend(same);
            }
        }
        Feed::new(&sorted, &runs, true, |run| {
            let hops = if kinds[run] { 2 } else { 3 + numbers.below(3) as usize };
            table::attributes(Some(asn), next_hop, Some(hops), numbers)
        })
    }

    /// Runs the scenario against a speaker. A phase that fails ends the run; its row, and those that would have followed, say why.
    pub fn run(&self, speaker: &Speaker, limit: Duration) -> Vec<Row> {
        self.run_then(speaker, limit, |_| Ok(()))
    }

    /// The same; in the end, with its sessions up, `then` looks at the speaker.
    pub fn run_then(&self, speaker: &Speaker, limit: Duration, then: impl FnOnce(&Running) -> Result<()>) -> Vec<Row> {
        let mut rows = Vec::new();
        let result = self.try_run(speaker, limit, &mut rows, then);
        if let Err(error) = result {
            let reported = self.scenario.phases.iter().filter_map(|(_, name)| *name).skip(rows.len());
            let failed = reported.map(|row| Row {
                row: row.to_owned(),
                speaker: speaker.name.clone(),
                error: Some(format!("{error:#}")),
                ..Row::default()
            });
            rows.extend(failed.collect::<Vec<_>>());
        }
        rows
    }

    /// Of a mesh: inside the AS each sender's blocks have their attributes in common, and so have the speaker's own; for other ASes the
    /// next hop is the speaker's, and all blocks have the same.
    fn least(&self) -> u64 {
        let Scenario { senders, receivers, blocks, .. } = self.scenario;
        let own = usize::from(blocks > 0);
        let least = match self.scenario.shape {
            Shape::Transit => 0,
            Shape::Reflector => senders * (senders - 1 + own),
            Shape::Member => senders * own + receivers,
        };
        least as u64
    }

    /// The prefixes of all senders.
    pub fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// margay's names of the sessions: senders, receivers, those that come late.
    pub fn peer_names(&self) -> Vec<String> {
        self.scenario.peers().iter().map(|peer| format!("Node_{}", peer.address.to_string().replace('.', "_"))).collect()
    }

    fn try_run(&self, speaker: &Speaker, limit: Duration, rows: &mut Vec<Row>, then: impl FnOnce(&Running) -> Result<()>) -> Result<()> {
        if self.scenario.ipv6 > 0 {
            super::furnish_ipv6(&self.scenario)?;
        }
        let running = speaker.start(&self.scenario)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result: Result<()> = tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut stage = Stage::new(self, &running, limit)?;
            for (phase, name) in self.scenario.phases {
                let row = stage.phase(*phase).await.with_context(|| format!("{phase:?}"))?;
                if let Some(name) = name {
                    let least = if *phase == Phase::Feed { self.least() } else { 0 };
                    rows.push(Row { row: (*name).to_owned(), speaker: speaker.name.clone(), least, ..row });
                }
            }
            then(&running)
        });
        result.map_err(|error| anyhow::anyhow!("{error:#} (the end of its log: {})", running.last_words()))
    }
}

/// The next hop that a sender tells: none of its own addresses, which are also the speaker's.
pub(super) fn next_hop(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) & 0x00ff_ffff | 0x0a00_0000).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !(0xffff << 112) | 0xfd08 << 112).into(),
    }
}
