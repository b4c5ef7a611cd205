//! One run: one speaker, one scenario, all its phases.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ipnet::IpNet;
use margay::types::Asn;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{sleep, sleep_until, timeout_at};

use super::feed::{self, Feed};
use super::meter::{Goal, Meter};
use super::scenario::{PORT, Phase, Scenario, TARGET};
use super::session::{self, Order, Plan, Shared};
use super::speaker::{Running, Speaker};
use super::table::{self, Numbers};
use super::usage::{self, Usage};

/// As long without a message the speaker is quiet.
const QUIET: Duration = Duration::from_millis(500);
/// Between two changes of one prefix (S7).
const CHANGE: Duration = Duration::from_millis(10);

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
}

/// The messages of a scenario, made once for all speakers.
#[derive(Debug)]
pub struct Prepared {
    scenario: Scenario,
    prefixes: Vec<IpNet>,
    best: Vec<Asn>,
    feeds: Vec<Feed>,
}

impl Prepared {
    /// Makes tables and encodes them.
    pub fn new(scenario: Scenario) -> Self {
        let mut numbers = Numbers::new(2026);
        let tables = if scenario.same { 1 } else { scenario.senders };
        let prefixes = if scenario.mesh {
            (0..scenario.senders).flat_map(|sender| table::blocks(sender, scenario.ipv4)).collect()
        } else {
            table::ipv4(scenario.ipv4 * tables, &mut numbers)
        };
        let best = if scenario.same {
            let senders = scenario.senders as u32;
            prefixes.iter().map(|_| Asn(scenario.sender(numbers.below(senders) as usize).1)).collect()
        } else {
            Vec::new()
        };
        let mut prepared = Self { scenario, prefixes, best, feeds: Vec::new() };
        prepared.feeds = (0..scenario.senders).map(|sender| prepared.feed(sender, &mut numbers)).collect();
        prepared
    }

    /// The numbers of a sender's IPv4 prefixes.
    fn own(&self, sender: usize) -> std::ops::Range<usize> {
        let count = self.scenario.ipv4;
        if self.scenario.same { 0..count } else { sender * count..(sender + 1) * count }
    }

    fn feed(&self, sender: usize, numbers: &mut Numbers) -> Feed {
        let (address, asn) = self.scenario.sender(sender);
        let ebgp = !self.scenario.mesh;
        let next_hop = IpAddr::V4(std::net::Ipv4Addr::from(u32::from(address) & 0x00ff_ffff | 0x0a00_0000));
        let first = ebgp.then_some(Asn(asn));
        let mut own: Vec<IpNet> = self.prefixes[self.own(sender)].to_vec();
        if self.scenario.same {
            return self.contest(sender, &mut own, numbers, next_hop);
        }
        let runs = if self.scenario.mesh { vec![own.len()] } else { table::runs(own.len(), 8, numbers) };
        Feed::new(&own, &runs, ebgp, |_| {
            let mut set = table::attributes(first, next_hop, self.scenario.mesh.then_some(0), numbers);
            if self.scenario.mesh {
                (set.communities, set.large_communities) = Default::default();
            }
            set
        })
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

    /// The prefixes of all senders.
    pub fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// margay's names of the sessions: senders, receivers, those that come late.
    pub fn peer_names(&self) -> Vec<String> {
        self.scenario.peers().iter().map(|(address, _)| format!("Node_{}", address.to_string().replace('.', "_"))).collect()
    }

    fn try_run(&self, speaker: &Speaker, limit: Duration, rows: &mut Vec<Row>, then: impl FnOnce(&Running) -> Result<()>) -> Result<()> {
        let running = speaker.start(&self.scenario)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result: Result<()> = tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut stage = Stage::new(self, &running, limit);
            for (phase, name) in self.scenario.phases {
                let row = stage.phase(*phase).await.with_context(|| format!("{phase:?}"))?;
                if let Some(name) = name {
                    rows.push(Row { row: (*name).to_owned(), speaker: speaker.name.clone(), ..row });
                }
            }
            then(&running)
        });
        result.map_err(|error| anyhow::anyhow!("{error:#} (the end of its log: {})", running.last_words()))
    }
}

/// A run under way.
struct Stage<'a> {
    prepared: &'a Prepared,
    running: &'a Running,
    limit: Duration,
    shared: Rc<Shared>,
    orders: Vec<mpsc::Sender<Order>>,
}

impl<'a> Stage<'a> {
    fn new(prepared: &'a Prepared, running: &'a Running, limit: Duration) -> Self {
        let Prepared { scenario, prefixes, best, .. } = prepared;
        let own = match scenario.mesh {
            true => (0..scenario.senders).map(|sender| prepared.own(sender)).map(|own| own.start as u32..own.end as u32).collect(),
            false => vec![0..0; scenario.receivers + scenario.late],
        };
        let shared = Rc::new(Shared {
            target: SocketAddr::new(TARGET.into(), PORT),
            hold: scenario.hold,
            ebgp: !scenario.mesh,
            handshakes: Semaphore::new(scenario.parallel),
            meter: RefCell::new(Meter::new(prefixes, best.clone(), own)),
            up: Cell::new(0),
            began: Cell::new(None),
            changed: Notify::new(),
            failure: RefCell::new(None),
        });
        Self { prepared, running, limit, shared, orders: Vec::new() }
    }

    async fn phase(&mut self, phase: Phase) -> Result<Row> {
        let scenario = &self.prepared.scenario;
        let first = self.orders.is_empty();
        if first && !scenario.mesh {
            self.connect(0..scenario.senders + scenario.receivers);
            self.until("the sessions are up", |shared| shared.up.get() == scenario.senders + scenario.receivers).await?;
        }
        usage::forget_peaks(self.running.pid());
        let (before, generator) = (self.running.usage()?, usage::own_cpu());
        let mut began = Instant::now();
        let mut latency = None;
        match phase {
            Phase::Feed if scenario.mesh => {
                self.aim(Goal::Full, scenario.senders);
                self.connect(0..scenario.senders);
                self.until_arrived().await?;
                began = self.shared.began.get().unwrap_or(began);
            }
            Phase::Feed => {
                self.aim(if scenario.same { Goal::Right } else { Goal::Full }, scenario.receivers);
                self.say(|feed| &feed.announce).await?;
                self.until_arrived().await?;
            }
            Phase::Withdraw => {
                self.aim(Goal::Empty, scenario.receivers);
                self.say(|feed| &feed.withdraw).await?;
                self.until_arrived().await?;
            }
            Phase::Late => {
                self.aim(Goal::Full, scenario.receivers + scenario.late);
                let start = scenario.senders + scenario.receivers;
                self.connect(start..start + scenario.late);
                self.until_arrived().await?;
            }
            Phase::Churn => latency = Some(self.churn().await?),
            Phase::Idle(seconds) => {
                self.aim(Goal::Full, scenario.senders);
                sleep(Duration::from_secs(seconds)).await;
                self.check()?;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let done = self.running.usage()?;
        self.until_quiet().await?;
        self.row(seconds, latency, [before, done, self.running.usage()?], usage::own_cpu() - generator)
    }

    fn row(&self, seconds: f64, latency: Option<(f64, f64)>, [before, done, quiet]: [Usage; 3], generator_cpu: f64) -> Result<Row> {
        let heard = self.shared.meter.borrow().heard();
        ensure!(self.shared.meter.borrow().away() == 0, "receivers have lost again what they had");
        Ok(Row {
            seconds,
            cpu_until_done: done.cpu - before.cpu,
            cpu: quiet.cpu - before.cpu,
            generator_cpu,
            peak: quiet.peak,
            resident: quiet.resident,
            messages: heard.messages,
            octets: heard.octets,
            announced: heard.announced,
            again: heard.again,
            withdrawn: heard.withdrawn,
            latency,
            ..Row::default()
        })
    }

    fn aim(&self, goal: Goal, receivers: usize) {
        self.shared.meter.borrow_mut().aim(goal, receivers);
    }

    fn connect(&mut self, peers: std::ops::Range<usize>) {
        let scenario = &self.prepared.scenario;
        let all = scenario.peers();
        for number in peers {
            let (address, asn) = all[number];
            let (sender, orders) = mpsc::channel(4);
            let at_once = if scenario.mesh { self.prepared.feeds[number].announce.clone() } else { Vec::new() };
            let receiver = if scenario.mesh { Some(number) } else { number.checked_sub(scenario.senders) };
            let plan = Plan { address, asn: Asn(asn), receiver, at_once };
            tokio::task::spawn_local(session::run(Rc::clone(&self.shared), plan, orders));
            self.orders.push(sender);
        }
    }

    async fn say(&self, part: impl Fn(&Feed) -> &Vec<Bytes>) -> Result<()> {
        for (orders, feed) in self.orders.iter().zip(&self.prepared.feeds) {
            orders.send(Order::Say(part(feed).clone())).await.context("a session has ended")?;
        }
        Ok(())
    }

    /// Single changes at a steady pace; how long until each was heard: half of all, 99 of 100.
    async fn churn(&self) -> Result<(f64, f64)> {
        let scenario = &self.prepared.scenario;
        self.aim(Goal::Full, scenario.receivers);
        let mut numbers = Numbers::new(7);
        let context = feed::context(true);
        let (address, asn) = scenario.sender(0);
        let mut next = tokio::time::Instant::now();
        for _ in 0..scenario.changes {
            let prefix = numbers.below(self.prepared.prefixes.len() as u32);
            let set = table::attributes(Some(Asn(asn)), address.into(), None, &mut numbers);
            let next_hop = margay::types::NextHop::Global(std::net::Ipv4Addr::from(u32::from(address) & 0x00ff_ffff | 0x0a00_0000).into());
            let set = margay::types::Attributes { next_hop, ..set };
            let mut frames = Vec::new();
            feed::announce_run(&[self.prepared.prefixes[prefix as usize]], &set, &context, &mut frames);
            sleep_until(next).await;
            next += CHANGE;
            for frame in frames {
                self.orders[0].send(Order::Change(prefix, frame)).await.context("the sender has ended")?;
            }
        }
        self.until("every change is heard", |shared| shared.meter.borrow().unheard() == 0).await?;
        let latencies = self.shared.meter.borrow().latencies();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
        Ok((at(0.5), at(0.99)))
    }

    async fn until_arrived(&self) -> Result<()> {
        self.until("every receiver has what it should", |shared| shared.meter.borrow().away() == 0).await
    }

    /// Nothing has been heard for a while.
    async fn until_quiet(&self) -> Result<()> {
        let mut end = tokio::time::Instant::now() + QUIET;
        loop {
            sleep_until(end).await;
            self.check()?;
            let last = self.shared.meter.borrow().last().map(tokio::time::Instant::from_std);
            match last.map(|last| last + QUIET).filter(|quiet| *quiet > tokio::time::Instant::now()) {
                Some(later) => end = later,
                None => return Ok(()),
            }
        }
    }

    async fn until(&self, what: &str, is_true: impl Fn(&Shared) -> bool) -> Result<()> {
        let end = tokio::time::Instant::now() + self.limit;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            self.check()?;
            if is_true(&self.shared) {
                return Ok(());
            }
            if timeout_at(end, changed).await.is_err() {
                let (up, away) = (self.shared.up.get(), self.shared.meter.borrow().away());
                bail!("not true within {:?}: {what} ({up} sessions up, {away} receivers not there)", self.limit);
            }
        }
    }

    fn check(&self) -> Result<()> {
        match self.shared.failure.borrow().as_ref() {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        }
    }
}
