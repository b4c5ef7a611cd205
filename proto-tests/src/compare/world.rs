//! The sessions of one thread of the generator, and what they are to reach.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use margay::types::{Asn, Attributes, NextHop};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{sleep_until, timeout_at};

use super::feed::{self, Feed};
use super::meter::{Goal, Meter, Wants};
use super::run::{Prepared, next_hop};
use super::said::Sayings;
use super::scenario::{Peer, Role};
use super::session::{self, Order, Shared};
use super::table::{self, Numbers};

/// As long without a message the speaker is quiet.
const QUIET: Duration = Duration::from_millis(500);
/// Between two changes of one prefix (S7).
const CHANGE: Duration = Duration::from_millis(10);
/// Octets read at once, where that need not be soon.
const READ: usize = 256 << 10;
/// Where what is read is timed: what has been read before a change would delay it.
const READ_TIMED: usize = 16 << 10;

/// When single changes may end.
#[derive(Debug, Default)]
pub struct Pace {
    /// There have been as many as the scenario wants.
    pub enough: AtomicBool,
    /// What is done meanwhile is over.
    pub over: AtomicBool,
    /// How many prefixes the first receiver held at the last change.
    pub held: AtomicUsize,
}

/// See the module.
pub struct World {
    prepared: Prepared,
    peers: BTreeMap<usize, Peer>,
    /// The numbers of those who hear, late ones last.
    hearing: Vec<usize>,
    limit: Duration,
    shared: Rc<Shared>,
    orders: BTreeMap<usize, mpsc::Sender<Order>>,
    /// How often single changes were timed.
    churned: Cell<u64>,
}

impl World {
    /// Of these peers; none has connected. `timed`: what they are told is.
    pub fn new(prepared: &Prepared, peers: BTreeMap<usize, Peer>, limit: Duration, timed: bool) -> Self {
        let (hearing, wants): (_, Vec<Wants>) =
            peers.iter().filter_map(|(number, peer)| Some((*number, prepared.wants(*number, peer)?))).unzip();
        let shared = Rc::new(Shared {
            hold: prepared.scenario.hold,
            read: if timed { READ_TIMED } else { READ },
            handshakes: Semaphore::new(prepared.scenario.parallel),
            sayings: RefCell::new(Sayings::new(prepared.index.clone(), wants.len())),
            meter: RefCell::new(Meter::new(prepared.index.len(), prepared.best.clone(), wants)),
            up: Cell::new(0),
            began: Cell::new(None),
            changed: Notify::new(),
            failure: RefCell::new(None),
        });
        Self { prepared: prepared.clone(), peers, hearing, limit, shared, orders: BTreeMap::new(), churned: Cell::new(0) }
    }

    /// What all its sessions share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Sessions begin: those that come late, or the others.
    pub fn connect(&mut self, late: bool) {
        for (number, peer) in &self.peers {
            if (peer.role == Role::Late) != late {
                continue;
            }
            let (sender, orders) = mpsc::channel(4);
            let receiver = self.hearing.iter().position(|hears| hears == number);
            let plan = self.prepared.plan(*number, peer, receiver);
            tokio::task::spawn_local(session::run(Rc::clone(&self.shared), plan, orders));
            self.orders.insert(*number, sender);
        }
    }

    /// All who have begun to connect are there.
    ///
    /// # Errors
    /// Not within the limit, or a session was lost.
    pub async fn until_up(&self) -> Result<()> {
        let wanted = self.orders.len();
        self.until("the sessions are up", |shared| shared.up.get() == wanted).await
    }

    /// Those who have connected, or are about to, are to reach this.
    pub fn aim(&self, goal: Goal, late: bool) {
        let counted = self.hearing.iter().filter(|number| late || self.peers[number].role != Role::Late).count();
        self.shared.meter.borrow_mut().aim(goal, counted);
    }

    /// Every sender says a part of what it has to say.
    ///
    /// # Errors
    /// A session has ended.
    pub async fn say(&self, part: impl Fn(&Feed) -> &Vec<Bytes>) -> Result<()> {
        for (number, orders) in self.senders() {
            orders.send(Order::Say(part(&self.prepared.feeds[number]).clone())).await.context("a session has ended")?;
        }
        Ok(())
    }

    /// All receivers ask for everything again.
    ///
    /// # Errors
    /// A session has ended.
    pub async fn refresh(&self) -> Result<()> {
        for number in self.hearing.iter().filter(|number| self.peers[number].role == Role::Receiver) {
            self.orders[number].send(Order::Refresh).await.context("a session has ended")?;
        }
        Ok(())
    }

    fn senders(&self) -> impl Iterator<Item = (usize, &mpsc::Sender<Order>)> {
        self.orders.iter().filter(|(number, _)| self.peers[number].role == Role::Sender).map(|(number, orders)| (*number, orders))
    }

    /// Single changes by the first sender at a steady pace; how many milliseconds until each was heard: half of all, 99 of 100.
    ///
    /// # Errors
    /// A session was lost, or a change was never heard.
    pub async fn churn(&self, pace: &Pace) -> Result<(f64, f64)> {
        let scenario = &self.prepared.scenario;
        self.aim(Goal::Full, false);
        // Other attributes than those of the last time: what is no change is not told.
        self.churned.set(self.churned.get() + 1);
        let mut numbers = Numbers::new(7 * self.churned.get());
        let own = scenario.told_by(0);
        let (address, asn) = scenario.sender(0);
        let context = feed::context(true, feed::family(&self.prepared.prefixes[own.clone()]));
        let next_hop = NextHop::Global(next_hop(address));
        let orders = self.orders.get(&0).context("there is no first sender here")?;
        let mut next = tokio::time::Instant::now();
        let end = next + self.limit + CHANGE * scenario.changes as u32;
        let mut changes = 0;
        while changes < scenario.changes || !pace.over.load(Ordering::Relaxed) {
            anyhow::ensure!(next < end, "what was done meanwhile was not over within {:?}", self.limit);
            let number = own.start as u32 + numbers.below(own.len() as u32);
            let set = table::attributes(Some(Asn(asn)), address, None, &mut numbers);
            let mut frames = Vec::new();
            feed::announce_run(&[self.prepared.prefixes[number as usize]], &Attributes { next_hop, ..set }, &context, &mut frames);
            sleep_until(next).await;
            next += CHANGE;
            for frame in frames {
                orders.send(Order::Change(number, frame)).await.context("the sender has ended")?;
            }
            changes += 1;
            pace.held.store(self.shared.meter.borrow().first_holds(), Ordering::Relaxed);
            pace.enough.fetch_or(changes >= scenario.changes, Ordering::Relaxed);
            self.check()?;
        }
        self.until("every change is heard", |shared| shared.meter.borrow().unheard() == 0).await?;
        let latencies = self.shared.meter.borrow().latencies();
        anyhow::ensure!(!latencies.is_empty(), "no change was heard");
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
        Ok((at(0.5), at(0.99)))
    }

    /// All who count have reached the goal.
    ///
    /// # Errors
    /// Not within the limit, or a session was lost.
    pub async fn until_arrived(&self) -> Result<()> {
        self.until("every receiver has what it should", |shared| shared.meter.borrow().away() == 0).await
    }

    /// Nothing has been heard for a while.
    ///
    /// # Errors
    /// A session was lost.
    pub async fn until_quiet(&self) -> Result<()> {
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

    /// # Errors
    /// Something has gone wrong in a session.
    pub fn check(&self) -> Result<()> {
        match self.shared.failure.borrow().as_ref() {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        }
    }

    /// When the first of its sessions began to connect.
    pub fn began(&self) -> Option<Instant> {
        self.shared.began.get()
    }
}
