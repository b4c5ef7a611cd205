//! Agents machine: who has the door of the local agents, what each has told, and what of it counts.
//!
//! ```text
//! connections ─Connect, Lines, Gone→ Agents ─changes of the merged table→ Origin
//!                                      └───── answers ─────→ connections
//! ```
//!
//! - An agent is a name. Its connection tells its table as every source does ([`Sync`]): between `Begin` and `End` the whole of it, and what is
//!   not told again goes; outside of that, changes.
//! - A line that is refused changes nothing. In the middle of a resync it also takes away the sweep at its end: the agent meant to
//!   tell a route that we have not understood, so none is taken to be gone.
//! - A second connection of the same name takes over; the first hears so and is closed.
//! - The routes of an agent whose connection is gone stay for a while, as a peer's do over its restart; then they go, and it is forgotten.
//!   An agent that comes back finds them, and its resync changes only what is different.
//! - What several agents give is said once: of a connected agent rather than of one that is gone, then of the name that is first in
//!   order. The others' routes stay theirs and take over when that one goes.
//! - Agents, routes of an agent, and the octets of a line are bounded, so that no agent costs the others anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{AgentRoute, Facts};
use crate::types::{Outbox, Sync, is_martian};

/// Agents at a time, those among them that are gone and still have routes.
pub const AGENTS: usize = 16;
/// Routes of one agent.
pub const ROUTES: usize = 16_384;
/// Octets of an agent's name.
pub const NAME: usize = 63;

/// What the Agents machine hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection of an agent, by a number that no other has.
    Connect(u64, Arc<str>),
    /// What has come on a connection.
    Lines(u64, Vec<Line>),
    /// The connection is gone.
    Gone(u64),
}

/// One line of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number on this connection, from 1.
    pub number: u64,
    /// What it says, or why that cannot be understood.
    pub word: Result<Sync<IpNet, AgentRoute>, String>,
}

/// What the Agents machine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The merged table changed; to the Origin machine.
    Route(Sync<IpNet, AgentRoute>),
    /// To the connection.
    Answer(u64, Answer),
    /// The connection is to be closed.
    Close(u64),
    /// For the history.
    Told(Happening),
}

/// What an agent is told, as one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// Begin.
    Hello {
        /// The agent's own name.
        agent: Arc<str>,
        /// Routes that it has from before.
        routes: usize,
        /// For how many seconds they stay when the connection is gone.
        hold: u64,
        /// How many it may have.
        limit: usize,
    },
    /// All lines up to this `end` count.
    End {
        /// The line.
        line: u64,
        /// Routes that the agent has now.
        routes: usize,
        /// Routes that were not told again, and are gone.
        removed: usize,
    },
    /// A line was refused and changed nothing.
    Error {
        /// The line.
        line: u64,
        /// Why, and what to do.
        error: String,
    },
    /// The connection ends, and why.
    Bye {
        /// The reason.
        error: String,
    },
}

/// What has happened to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It is connected; it has so many routes from before.
    Connected(Arc<str>, usize),
    /// Its connection is gone; so many routes stay for so long.
    Gone(Arc<str>, usize, Duration),
    /// It has not come back; so many routes were withdrawn.
    Expired(Arc<str>, usize),
}

/// How an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is connected.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Instant,
    /// When its routes go, if it does not come back.
    pub expires: Option<Instant>,
    /// Routes that it has told.
    pub routes: usize,
    /// Those that another agent gives as well, and that are that one's.
    pub shadowed: usize,
    /// Whole resyncs since we started.
    pub resyncs: u64,
    /// Lines that were refused since we started.
    pub refused: u64,
}

/// The table of one agent, to be kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub name: Arc<str>,
    /// Its routes.
    pub routes: Vec<(IpNet, AgentRoute)>,
}

#[derive(Clone, Debug)]
struct Agent {
    connection: Option<u64>,
    since: Instant,
    routes: Facts<IpNet, AgentRoute>,
    count: usize,
    resync: Option<Resync>,
    resyncs: u64,
    refused: u64,
}

/// A resync under way.
#[derive(Clone, Copy, Debug, Default)]
struct Resync {
    /// The first line of it that was refused.
    refused: Option<u64>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Agents {
    hold: Duration,
    agents: BTreeMap<Arc<str>, Agent>,
    connections: BTreeMap<u64, Arc<str>>,
    /// Who gives a prefix, in order.
    holders: BTreeMap<IpNet, SmallVec<[Arc<str>; 1]>>,
}

impl Agents {
    /// A machine that keeps the routes of a lost agent for `hold`.
    pub fn new(hold: Duration) -> Self {
        Self { hold, agents: BTreeMap::new(), connections: BTreeMap::new(), holders: BTreeMap::new() }
    }

    /// Takes over what agents had told before our own restart: as if their connections had been lost just now.
    pub fn restore(&mut self, now: Instant, kept: Vec<Kept>, out: &mut Outbox<Output>) {
        for Kept { name, routes } in kept.into_iter().take(AGENTS) {
            self.agents.entry(Arc::clone(&name)).or_insert_with(|| Agent::new(now));
            for (prefix, route) in routes.into_iter().filter(|(prefix, route)| fault(prefix, route).is_none()).take(ROUTES) {
                self.upsert(&name, prefix, route, out);
            }
        }
    }

    /// What is to be kept over a restart.
    pub fn kept(&self) -> Vec<Kept> {
        let table = |agent: &Agent| agent.routes.iter().map(|(prefix, route)| (*prefix, route.clone())).collect();
        let with_routes = self.agents.iter().filter(|(_, agent)| agent.count > 0);
        with_routes.map(|(name, agent)| Kept { name: Arc::clone(name), routes: table(agent) }).collect()
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Connect(connection, name) => self.connect(now, connection, name, out),
            Input::Lines(connection, lines) => {
                let Some(name) = self.connections.get(&connection).cloned() else { return };
                for line in lines {
                    self.line(connection, &name, line, out);
                }
            }
            Input::Gone(connection) => self.gone(now, connection, out),
        }
    }

    /// When the routes of the next lost agent go.
    pub fn deadline(&self) -> Option<Instant> {
        self.agents.values().filter(|agent| agent.connection.is_none()).map(|agent| agent.since + self.hold).min()
    }

    /// Withdraws the routes of agents that have not come back.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        let due = self.agents.iter().filter(|(_, agent)| agent.connection.is_none() && now >= agent.since + self.hold);
        for name in due.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            let prefixes = self.prefixes(&name);
            for prefix in &prefixes {
                self.remove(&name, *prefix, out);
            }
            self.agents.remove(&name);
            out.push(Output::Told(Happening::Expired(name, prefixes.len())));
        }
    }

    /// How each agent is, by name.
    pub fn status(&self) -> Vec<AgentStatus> {
        let shadowed = |name: &Arc<str>, agent: &Agent| agent.routes.iter().filter(|(prefix, _)| self.giver(prefix) != Some(name)).count();
        self.agents.iter().map(|(name, agent)| self.status_of(name, agent, shadowed(name, agent))).collect()
    }

    /// The same without what takes a look at every route.
    pub fn summary(&self) -> Vec<AgentStatus> {
        self.agents.iter().map(|(name, agent)| self.status_of(name, agent, 0)).collect()
    }

    fn status_of(&self, name: &Arc<str>, agent: &Agent, shadowed: usize) -> AgentStatus {
        AgentStatus {
            name: Arc::clone(name),
            connected: agent.connection.is_some(),
            since: agent.since,
            expires: agent.connection.is_none().then(|| agent.since + self.hold),
            routes: agent.count,
            shadowed,
            resyncs: agent.resyncs,
            refused: agent.refused,
        }
    }

    /// The agent whose route of a prefix counts.
    pub fn giver(&self, prefix: &IpNet) -> Option<&Arc<str>> {
        let holders = self.holders.get(prefix)?;
        let connected = |name: &&Arc<str>| self.agents.get(*name).is_some_and(|agent| agent.connection.is_some());
        holders.iter().find(connected).or_else(|| holders.first())
    }

    /// All agents that give a prefix, in order.
    pub fn givers(&self, prefix: &IpNet) -> &[Arc<str>] {
        self.holders.get(prefix).map_or(&[], |holders| holders)
    }

    fn connect(&mut self, now: Instant, connection: u64, name: Arc<str>, out: &mut Outbox<Output>) {
        if let Some(error) = name_fault(&name).or_else(|| self.is_full(&name)) {
            out.push(Output::Answer(connection, Answer::Bye { error }));
            return out.push(Output::Close(connection));
        }
        let agent = self.agents.entry(Arc::clone(&name)).or_insert_with(|| Agent::new(now));
        agent.since = now;
        agent.resync = None;
        let routes = agent.count;
        if let Some(older) = agent.connection.replace(connection) {
            self.connections.remove(&older);
            let error = format!("another connection has come as agent {name} and has taken over: two agents need two names");
            out.push(Output::Answer(older, Answer::Bye { error }));
            out.push(Output::Close(older));
        }
        self.connections.insert(connection, Arc::clone(&name));
        self.judge_shared(&name, out);
        out.push(Output::Answer(connection, Answer::Hello { agent: Arc::clone(&name), routes, hold: self.hold.as_secs(), limit: ROUTES }));
        out.push(Output::Told(Happening::Connected(name, routes)));
    }

    fn is_full(&self, name: &Arc<str>) -> Option<String> {
        let full = self.agents.len() >= AGENTS && !self.agents.contains_key(name);
        full.then(|| format!("there are {AGENTS} agents already, those among them that are gone and whose routes are kept: wait, or use one of their names"))
    }

    fn gone(&mut self, now: Instant, connection: u64, out: &mut Outbox<Output>) {
        let Some(name) = self.connections.remove(&connection) else { return };
        let Some(agent) = self.agents.get_mut(&name) else { return };
        agent.connection = None;
        agent.since = now;
        agent.resync = None;
        let routes = agent.count;
        self.judge_shared(&name, out);
        out.push(Output::Told(Happening::Gone(name, routes, self.hold)));
    }

    fn line(&mut self, connection: u64, name: &Arc<str>, line: Line, out: &mut Outbox<Output>) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let number = line.number;
        let answer = match line.word.and_then(|word| agent.allowed(word)) {
            Ok(Sync::Begin) => {
                agent.routes.hear(Sync::Begin);
                agent.resync = Some(Resync::default());
                None
            }
            Ok(Sync::Upsert(prefix, route)) => {
                self.upsert(name, prefix, route, out);
                None
            }
            Ok(Sync::Remove(prefix)) => {
                self.remove(name, prefix, out);
                None
            }
            Ok(Sync::End) => Some(self.end(name, number, out)),
            Err(error) => {
                agent.refused += 1;
                if let Some(resync) = &mut agent.resync {
                    resync.refused.get_or_insert(number);
                }
                Some(Answer::Error { line: number, error })
            }
        };
        if let Some(answer) = answer {
            out.push(Output::Answer(connection, answer));
        }
    }

    fn upsert(&mut self, name: &Arc<str>, prefix: IpNet, route: AgentRoute, out: &mut Outbox<Output>) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let Some((_, before)) = agent.routes.hear(Sync::Upsert(prefix, route)).pop() else { return };
        if before.is_none() {
            agent.count += 1;
            let holders = self.holders.entry(prefix).or_default();
            if let Err(place) = holders.binary_search(name) {
                holders.insert(place, Arc::clone(name));
            }
        }
        self.say(prefix, out);
    }

    fn remove(&mut self, name: &Arc<str>, prefix: IpNet, out: &mut Outbox<Output>) {
        if let Some(agent) = self.agents.get_mut(name)
            && !agent.routes.hear(Sync::Remove(prefix)).is_empty()
        {
            self.forget(name, prefix, out);
        }
    }

    /// The route is no longer in the agent's table.
    fn forget(&mut self, name: &Arc<str>, prefix: IpNet, out: &mut Outbox<Output>) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.count -= 1;
        }
        if let Some(holders) = self.holders.get_mut(&prefix) {
            holders.retain(|holder| holder != name);
            if holders.is_empty() {
                self.holders.remove(&prefix);
            }
        }
        self.say(prefix, out);
    }

    fn end(&mut self, name: &Arc<str>, line: u64, out: &mut Outbox<Output>) -> Answer {
        let Some(agent) = self.agents.get_mut(name) else { return Answer::End { line, routes: 0, removed: 0 } };
        let swept = match agent.resync.take() {
            // A fence: it says how far we are.
            None => Vec::new(),
            Some(Resync { refused: Some(refused) }) => {
                let error = format!("nothing is removed, for line {refused} of this resync was refused: begin again without it");
                return Answer::Error { line, error };
            }
            Some(Resync { refused: None }) => {
                agent.resyncs += 1;
                agent.routes.hear(Sync::End).into_iter().map(|(prefix, _)| prefix).collect()
            }
        };
        for prefix in &swept {
            self.forget(name, *prefix, out);
        }
        let routes = self.agents.get(name).map_or(0, |agent| agent.count);
        Answer::End { line, routes, removed: swept.len() }
    }

    /// Who is connected decides between agents that give the same prefix.
    fn judge_shared(&self, name: &Arc<str>, out: &mut Outbox<Output>) {
        let shared = |prefix: &IpNet| self.holders.get(prefix).is_some_and(|holders| holders.len() > 1);
        for prefix in self.prefixes(name).into_iter().filter(shared) {
            self.say(prefix, out);
        }
    }

    fn prefixes(&self, name: &Arc<str>) -> Vec<IpNet> {
        self.agents.get(name).map(|agent| agent.routes.iter().map(|(prefix, _)| *prefix).collect()).unwrap_or_default()
    }

    fn say(&self, prefix: IpNet, out: &mut Outbox<Output>) {
        let route = self.giver(&prefix).and_then(|name| self.agents.get(name)?.routes.get(&prefix));
        out.push(Output::Route(match route {
            Some(route) => Sync::Upsert(prefix, route.clone()),
            None => Sync::Remove(prefix),
        }));
    }
}

impl Agent {
    fn new(now: Instant) -> Self {
        Self { connection: None, since: now, routes: Facts::default(), count: 0, resync: None, resyncs: 0, refused: 0 }
    }

    /// The word, unless the agent may not say it.
    fn allowed(&self, word: Sync<IpNet, AgentRoute>) -> Result<Sync<IpNet, AgentRoute>, String> {
        if let Sync::Upsert(prefix, route) = &word {
            if let Some(fault) = fault(prefix, route) {
                return Err(fault);
            }
            if self.count >= ROUTES && self.routes.get(prefix).is_none() {
                return Err(format!("{prefix} is one route too many: an agent may have {ROUTES}"));
            }
        }
        Ok(word)
    }
}

/// Why a name is none.
fn name_fault(name: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (name.is_empty() || name.len() > NAME || !name.chars().all(good))
        .then(|| format!("an agent's name is 1 to {NAME} of the letters a-z, A-Z, 0-9, `-`, `_` and `.`"))
}

/// Why a route cannot be one.
fn fault(prefix: &IpNet, route: &AgentRoute) -> Option<String> {
    if prefix.trunc() != *prefix {
        return Some(format!("{prefix} has bits set beyond its length: is {} meant?", prefix.trunc()));
    }
    if prefix.prefix_len() == 0 {
        return Some(format!("{prefix} is everything: an agent gives routes to what is on this node"));
    }
    if is_martian(prefix) {
        return Some(format!("{prefix} is multicast, loopback, link-local or otherwise no hosts' address"));
    }
    let via = match route {
        AgentRoute::Device { via, .. } => *via,
        AgentRoute::Gateway(gateway) => Some(*gateway),
        AgentRoute::Blackhole => None,
    };
    let wrong = |gateway: &IpAddr| gateway.is_unspecified() || gateway.is_multicast() || gateway.is_ipv4() && prefix.addr().is_ipv6();
    via.filter(wrong).map(|gateway| format!("{gateway} can be no gateway of {prefix}"))
}

#[cfg(test)]
mod tests;
