//! The world: all nodes, the connections between them, and one heap of what is to happen.
//!
//! Whoever has nothing to do costs nothing: a node is looked at when something comes for it, or when its next timer is due.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;

use super::node::{Arrival, Node, Scene, Start, Tally, Word, add};
use super::pace;
use super::plan::{Plan, Role, Shape};
use super::tcp::{End, TcpId, Tcps};
use crate::story::Dice;

/// Nodes start within this time of each other.
const STARTS: Duration = Duration::from_secs(3);

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// One node in so many is whole, as reflectors always are; 1 for all.
    pub whole: usize,
}

/// An appointment.
#[derive(Debug)]
enum Happening {
    Start(u32),
    Wake(u32),
    Syn { from: u32, peer: u32, connection: u32, to: u32 },
    SynAck(TcpId, u32),
    Ack(TcpId),
    Refused { node: u32, peer: u32, connection: u32 },
    Octets(TcpId, u8, Bytes),
    End { tcp: TcpId, to: u8, broken: bool },
}

impl Happening {
    /// Somebody who waits until nothing is under way waits for it.
    fn counts(&self) -> bool {
        !matches!(self, Self::Wake(_) | Self::Syn { .. } | Self::Refused { .. })
    }
}

struct Appointment {
    at: u64,
    sequence: u64,
    what: Happening,
}

impl PartialEq for Appointment {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Appointment {}

impl PartialOrd for Appointment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Appointment {
    /// The soonest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// What a story waits for, and when each node had it.
#[derive(Debug, Default)]
struct Watch {
    /// A block, and whether it is to be there; none: all blocks.
    what: Option<(usize, bool)>,
    had: Vec<Option<u64>>,
}

/// See the module.
pub struct World {
    /// Who there is.
    pub plan: Plan,
    /// All nodes.
    pub nodes: Vec<Node>,
    options: Options,
    dice: Dice,
    origin: Instant,
    now: u64,
    agenda: BinaryHeap<Appointment>,
    sequence: u64,
    /// When each node is to be looked at.
    wakes: Vec<u64>,
    tcps: Tcps,
    /// What is under way, wakes and attempts to connect aside.
    flying: usize,
    /// Nodes that run and lack what is watched for.
    lacking: usize,
    /// When something was last under way.
    moved: u64,
    watch: Watch,
    digest: u64,
    words: Vec<(u64, Word)>,
    news: Vec<(usize, bool)>,
}

impl World {
    /// Nobody runs yet; all start within three seconds.
    pub fn new(plan: Plan, options: Options) -> Self {
        let count = plan.nodes.len();
        let nodes = (0..count).map(|number| Node::new(number as u32, plan.bound())).collect();
        let mut world = Self {
            plan,
            nodes,
            options,
            dice: Dice(options.seed),
            origin: Instant::now(),
            now: 0,
            agenda: BinaryHeap::new(),
            sequence: 0,
            wakes: vec![u64::MAX; count],
            tcps: Tcps::default(),
            flying: 0,
            lacking: 0,
            moved: 0,
            watch: Watch { what: None, had: vec![None; count] },
            digest: 0,
            words: Vec::new(),
            news: Vec::new(),
        };
        for node in 0..count as u32 {
            let at = world.dice.below(STARTS.as_nanos() as u64);
            world.appoint(at, Happening::Start(node));
        }
        world
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// When something was last under way.
    pub fn moved(&self) -> Duration {
        Duration::from_nanos(self.moved)
    }

    /// Everything that happened, digested: equal for equal runs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a node keeps all that it hears; in a mesh: whether it has all its sessions.
    pub fn is_whole(&self, node: usize) -> bool {
        self.plan.nodes[node].role != Role::Node || node.is_multiple_of(self.options.whole.max(1))
    }

    /// How many blocks a node is to know.
    fn wanted(&self, node: usize) -> usize {
        if self.plan.shape == Shape::Reflectors || self.is_whole(node) {
            return self.plan.total();
        }
        // A light node of a mesh hears of the whole ones, and has its own.
        (self.plan.workers.div_ceil(self.options.whole) + 1) * self.plan.blocks
    }

    /// What all nodes have done so far.
    pub fn total(&self) -> Tally {
        self.nodes.iter().map(Node::total).fold(Tally::default(), |a, b| Tally {
            messages: add(a.messages, b.messages),
            octets: a.octets + b.octets,
            ends: a.ends + b.ends,
            losses: a.losses + b.losses,
            writes: a.writes + b.writes,
            worked: a.worked + b.worked,
        })
    }

    // ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Lets time pass until then.
    ///
    /// # Errors
    /// The plan has no configuration for a node that starts.
    pub fn run_until(&mut self, until: Duration) -> Result<()> {
        let until = until.as_nanos() as u64;
        while self.agenda.peek().is_some_and(|next| next.at <= until) {
            self.next()?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Lets time pass until everybody has what is watched for and nothing is under way.
    ///
    /// # Errors
    /// That has not happened within this time; who lacks it.
    pub fn run_until_all_have_it(&mut self, within: Duration) -> Result<()> {
        let end = self.now + within.as_nanos() as u64;
        while !(self.flying == 0 && self.lacking == 0 && self.is_quiet()) {
            ensure!(self.agenda.peek().is_some_and(|next| next.at <= end), "{}", self.complaint(within));
            self.next()?;
        }
        Ok(())
    }

    fn complaint(&self, within: Duration) -> String {
        let lacking = self.nodes.iter().zip(&self.watch.had).filter(|(node, had)| node.runs() && had.is_none());
        let names: Vec<&str> = lacking.take(5).map(|(node, _)| self.plan.nodes[node.number as usize].name.as_str()).collect();
        let (lacking, flying) = (self.lacking, self.flying);
        let sessions = self.nodes.iter().filter(|node| node.sessions().1 != self.expected(node)).count();
        let within = within.as_secs();
        format!(
            "after {within} s {lacking} nodes lack what they should have ({}), {sessions} lack sessions, {flying} things are under way",
            names.join(", ")
        )
    }

    /// Nobody works, and every session that can be is Established.
    fn is_quiet(&self) -> bool {
        self.nodes.iter().all(|node| !node.is_busy() && node.sessions().1 == self.expected(node))
    }

    /// Sessions of a node whose other end runs.
    pub fn expected(&self, node: &Node) -> usize {
        let dead = self.nodes.iter().filter(|other| !other.runs() && node.session_with(other.number).is_some()).count();
        node.sessions().0 - dead
    }

    fn next(&mut self) -> Result<()> {
        let Some(next) = self.agenda.pop() else { return Ok(()) };
        if let Happening::Wake(node) = next.what
            && self.wakes[node as usize] != next.at
        {
            return Ok(());
        }
        self.now = self.now.max(next.at);
        if next.what.counts() {
            self.flying -= 1;
            self.moved = self.now;
        }
        self.happen(next.what)
    }

    fn appoint(&mut self, at: u64, what: Happening) {
        self.flying += usize::from(what.counts());
        self.sequence += 1;
        self.agenda.push(Appointment { at: at.max(self.now), sequence: self.sequence, what });
    }

    fn note(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
    }

    fn happen(&mut self, what: Happening) -> Result<()> {
        match what {
            Happening::Start(node) => self.start(node, false)?,
            Happening::Wake(node) => {
                self.wakes[node as usize] = u64::MAX;
                self.at_node(node, |node, now, scene| node.step(now, scene));
            }
            Happening::Syn { from, peer, connection, to } => self.syn(from, peer, connection, to),
            Happening::SynAck(tcp, connection) => self.syn_ack(tcp, connection),
            Happening::Ack(tcp) => {
                let end = *self.tcps.end_mut(tcp, 1);
                if end.open {
                    self.deliver(end.node, Arrival::Accepted { peer: end.peer, tcp });
                }
            }
            Happening::Refused { node, peer, connection } => {
                if self.nodes[node as usize].take_connecting(peer, connection) {
                    self.deliver(node, Arrival::Refused { peer, connection });
                }
            }
            Happening::Octets(tcp, to, octets) => {
                let End { node, peer, open, .. } = *self.tcps.end_mut(tcp, usize::from(to));
                if open {
                    self.note(octets.len() as u64 ^ u64::from(node) << 32 ^ self.now);
                    self.deliver(node, Arrival::Octets { peer, tcp, octets });
                }
            }
            Happening::End { tcp, to, broken } => {
                let end = self.tcps.end_mut(tcp, usize::from(to));
                if std::mem::take(&mut end.open) {
                    let (node, peer) = (end.node, end.peer);
                    self.deliver(node, Arrival::Closed { peer, tcp, broken });
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, node: u32, arrival: Arrival) {
        self.nodes[node as usize].hear(arrival);
        self.look(node);
    }

    /// Sees to it that the node gets its next step.
    fn look(&mut self, node: u32) {
        let Some(at) = self.nodes[node as usize].next(self.origin).map(|at| at.max(self.now)) else { return };
        if at < self.wakes[node as usize] {
            self.wakes[node as usize] = at;
            self.appoint(at, Happening::Wake(node));
        }
    }

    /// Lets a node act, and carries out what it wants.
    fn at_node(&mut self, node: u32, act: impl FnOnce(&mut Node, u64, &mut Scene<'_>)) {
        let (mut words, mut news) = (std::mem::take(&mut self.words), std::mem::take(&mut self.news));
        let mut scene = Scene { origin: self.origin, words: &mut words, news: &mut news };
        act(&mut self.nodes[node as usize], self.now, &mut scene);
        for (at, word) in words.drain(..) {
            self.carry_out(node, at, word);
        }
        self.hear_news(node, &mut news);
        (self.words, self.news) = (words, news);
        self.look(node);
    }

    fn hear_news(&mut self, node: u32, news: &mut Vec<(usize, bool)>) {
        let known = &self.nodes[node as usize].known;
        let has = match self.watch.what {
            None => known.count() >= self.wanted(node as usize),
            Some((block, on)) => known.has(block) == on,
        };
        if !news.is_empty() {
            self.has(node, has);
            news.clear();
        }
    }

    /// Whether a node has what is watched for, as of now.
    fn has(&mut self, node: u32, has: bool) {
        let had = &mut self.watch.had[node as usize];
        match (*had, has) {
            (None, true) => {
                *had = Some(self.now);
                self.lacking -= 1;
            }
            (Some(_), false) => {
                *had = None;
                self.lacking += 1;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    // ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn way(&mut self, from: u32, to: u32) -> u64 {
        let (from, to) = (self.plan.nodes[from as usize].place, self.plan.nodes[to as usize].place);
        pace::way(from, to, &mut self.dice).as_nanos() as u64
    }

    fn carry_out(&mut self, node: u32, at: u64, word: Word) {
        match word {
            Word::Connect { peer, connection } => {
                let Some(to) = self.nodes[node as usize].remote(peer) else { return };
                let at = at + self.way(node, to);
                self.appoint(at, Happening::Syn { from: node, peer, connection, to });
            }
            Word::Send { tcp, octets } => {
                let end = self.end_of(tcp, node);
                let at = self.in_order(tcp, end, at);
                let octets = if let [octets] = octets.as_slice() { octets.clone() } else { octets.concat().into() };
                self.appoint(at, Happening::Octets(tcp, 1 - end, octets));
            }
            Word::Close { tcp } => {
                let end = self.end_of(tcp, node);
                self.tcps.end_mut(tcp, usize::from(end)).open = false;
                let at = self.in_order(tcp, end, at);
                self.appoint(at, Happening::End { tcp, to: 1 - end, broken: false });
            }
        }
    }

    fn end_of(&self, tcp: TcpId, node: u32) -> u8 {
        u8::from(self.tcps.get(tcp).ends[0].node != node)
    }

    /// When what an end sends at `at` arrives: behind what it sent before.
    fn in_order(&mut self, tcp: TcpId, end: u8, at: u64) -> u64 {
        let [a, b] = self.tcps.get(tcp).ends;
        let (from, to) = if end == 0 { (a.node, b.node) } else { (b.node, a.node) };
        let at = at + self.way(from, to);
        let end = self.tcps.end_mut(tcp, usize::from(end));
        end.latest = end.latest.max(at);
        end.latest
    }

    fn syn(&mut self, from: u32, peer: u32, connection: u32, to: u32) {
        let back = self.now + self.way(to, from);
        match self.nodes[to as usize].session_with(from) {
            Some(theirs) => {
                let end = |node, peer| End { node, peer, open: true, latest: 0 };
                let tcp = self.tcps.open(end(from, peer), end(to, theirs));
                self.appoint(back, Happening::SynAck(tcp, connection));
            }
            None => self.appoint(back, Happening::Refused { node: from, peer, connection }),
        }
    }

    fn syn_ack(&mut self, tcp: TcpId, connection: u32) {
        let End { node, peer, open, .. } = self.tcps.get(tcp).ends[0];
        if open && self.nodes[node as usize].take_connecting(peer, connection) {
            let at = self.in_order(tcp, 0, self.now);
            self.appoint(at, Happening::Ack(tcp));
            self.deliver(node, Arrival::Connected { peer, connection, tcp });
        } else {
            // Nobody waits for it any more, and the other process has not heard of it.
            (0..2).for_each(|end| self.tcps.end_mut(tcp, end).open = false);
        }
    }

    // ── what a story does ───────────────────────────────────────────────────────────────────────────────────────────────

    /// Starts a node's margay. One that `restarts` finds routes of a past life in its kernel.
    ///
    /// # Errors
    /// The plan has no configuration for it.
    pub fn start(&mut self, node: u32, restarts: bool) -> Result<()> {
        let mut config = self.plan.config(node as usize)?;
        let mesh = self.plan.shape == Shape::Mesh;
        if mesh && !self.is_whole(node as usize) {
            config.peers.retain(|_, peer| self.plan.at(peer.address).is_some_and(|remote| self.is_whole(remote as usize)));
        }
        let how = Start {
            seed: self.options.seed ^ (u64::from(node) << 20) ^ self.now,
            restarts,
            whole: mesh || self.is_whole(node as usize),
            address: self.plan.nodes[node as usize].address,
            bound: self.plan.bound(),
            remotes: config.peers.values().filter_map(|peer| self.plan.at(peer.address)).collect(),
        };
        self.lacking += 1;
        self.at_node(node, |node, now, scene| node.start(now, config, how, scene));
        Ok(())
    }

    /// A node's process dies; its kernel closes the connections.
    pub fn kill(&mut self, node: u32) {
        self.lacking -= usize::from(self.watch.had[node as usize].take().is_none());
        self.nodes[node as usize].die();
        for (tcp, end) in self.tcps.held_by(node) {
            self.tcps.end_mut(tcp, end).open = false;
            let at = self.in_order(tcp, end as u8, self.now);
            self.appoint(at, Happening::End { tcp, to: 1 - end as u8, broken: true });
        }
    }

    /// From now on all blocks are watched for.
    pub fn watch_all(&mut self) {
        self.watch_for(None);
    }

    /// From now on a block is watched for: that it is there, or that it is not.
    pub fn watch_block(&mut self, block: usize, on: bool) {
        self.watch_for(Some((block, on)));
    }

    fn watch_for(&mut self, what: Option<(usize, bool)>) {
        let had = |node: &Node| match what {
            None => node.known.count() >= self.wanted(node.number as usize),
            Some((block, on)) => node.known.has(block) == on,
        };
        let now = self.now;
        let had: Vec<_> = self.nodes.iter().map(|node| (node.runs() && had(node)).then_some(now)).collect();
        self.lacking = self.nodes.iter().zip(&had).filter(|(node, had)| node.runs() && had.is_none()).count();
        self.watch = Watch { what, had };
    }

    /// When each node that runs had what is watched for, sorted.
    pub fn had(&self) -> Vec<Duration> {
        let nodes = self.nodes.iter().zip(&self.watch.had).filter(|(node, _)| node.runs());
        let mut had: Vec<_> = nodes.filter_map(|(_, had)| had.map(Duration::from_nanos)).collect();
        had.sort_unstable();
        had
    }

    /// A node gets one more block; its number.
    ///
    /// # Errors
    /// The plan has no configuration for the node.
    pub fn add_block(&mut self, node: u32) -> Result<usize> {
        let before = self.plan.config(node as usize)?;
        let block = self.plan.add_block(node as usize);
        self.watch_block(block, true);
        self.reconfigure(node, &before)?;
        Ok(block)
    }

    /// A node loses a block that was added.
    ///
    /// # Errors
    /// The plan has no configuration for the node.
    pub fn remove_block(&mut self, node: u32, block: usize) -> Result<()> {
        let before = self.plan.config(node as usize)?;
        self.plan.remove_block(node as usize, block);
        self.watch_block(block, false);
        self.reconfigure(node, &before)
    }

    fn reconfigure(&mut self, node: u32, before: &margay::config::NodeConfig) -> Result<()> {
        let after = self.plan.config(node as usize)?;
        self.at_node(node, |node, now, scene| node.apply(now, before, &after, scene));
        Ok(())
    }
}
