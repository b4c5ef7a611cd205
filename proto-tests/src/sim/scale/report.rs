//! What was counted, for people.

use std::fmt;
use std::time::Duration;

use margay::session::MessageCounts;

use super::node::{Tally, Weight};
use super::plan::Role;

/// All that was counted.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In order.
    pub phases: Vec<Phase>,
    /// Some nodes, weighed.
    pub memory: Vec<Memory>,
    /// Equal for equal runs.
    pub digest: u64,
}

impl Report {
    /// A phase by its name.
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// The mean weight of the nodes of a role that were weighed: sessions, and octets in all.
    pub fn mean(&self, role: Role) -> Option<(usize, u64)> {
        let of: Vec<&Memory> = self.memory.iter().filter(|memory| memory.role == role).collect();
        let total: u64 = of.iter().map(|memory| memory.total()).sum();
        Some((of.first()?.sessions, total / of.len() as u64))
    }
}

/// One node, weighed.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// What it is.
    pub role: Role,
    /// Its sessions.
    pub sessions: usize,
    /// Its destinations.
    pub prefixes: usize,
    /// Octets that its shard says it has reserved.
    pub said: u64,
    /// What the allocator got back.
    pub weight: Weight,
}

impl Memory {
    /// Octets in all.
    pub fn total(&self) -> u64 {
        self.weight.rib + self.weight.sessions + self.weight.configs
    }
}

/// What the nodes of a role did in a phase.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Which.
    pub role: Role,
    /// Whole nodes, or light ones.
    pub whole: bool,
    /// How many.
    pub nodes: u64,
    /// Messages sent by all of them.
    pub messages: MessageCounts,
    /// Octets sent by all.
    pub octets: u64,
    /// The most that one of them sent: messages and octets.
    pub most: (u64, u64),
    /// The longest that the core of one worked, by the model.
    pub worked: Duration,
    /// Routes that all of them told the FIB to write.
    pub writes: u64,
}

/// A part of the story.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// How long it lasted.
    pub lasted: Duration,
    /// When something was last under way, since it began.
    pub moved: Duration,
    /// When each node had what was waited for, since it began, sorted.
    pub had: Vec<Duration>,
    /// By role.
    pub shares: Vec<Share>,
}

impl Phase {
    /// From what each node had done before and after.
    pub fn new(
        name: &'static str,
        lasted: Duration,
        moved: Duration,
        had: Vec<Duration>,
        nodes: impl Iterator<Item = ((Role, bool), (Tally, Tally))>,
    ) -> Self {
        let mut shares: Vec<Share> = Vec::new();
        for ((role, whole), (before, after)) in nodes {
            let index = shares.iter().position(|share| (share.role, share.whole) == (role, whole)).unwrap_or_else(|| {
                shares.push(Share::none(role, whole));
                shares.len() - 1
            });
            shares[index].add(before, after);
        }
        Self { name, lasted, moved, had, shares }
    }

    /// What the whole nodes with workloads did.
    pub fn whole(&self) -> Option<&Share> {
        self.shares.iter().find(|share| share.role == Role::Node && share.whole)
    }

    /// Messages that all nodes sent.
    pub fn messages(&self) -> u64 {
        self.shares.iter().map(|share| sum(share.messages)).sum()
    }

    /// UPDATEs that all nodes sent.
    pub fn updates(&self) -> u64 {
        self.shares.iter().map(|share| share.messages.update).sum()
    }

    /// Octets that all nodes sent.
    pub fn octets(&self) -> u64 {
        self.shares.iter().map(|share| share.octets).sum()
    }

    /// When so many percent of the nodes had it.
    pub fn percentile(&self, percent: usize) -> Duration {
        let index = (self.had.len() * percent).div_ceil(100).max(1) - 1;
        self.had.get(index).copied().unwrap_or_default()
    }
}

impl Share {
    fn none(role: Role, whole: bool) -> Self {
        Self { role, whole, nodes: 0, messages: MessageCounts::default(), octets: 0, most: (0, 0), worked: Duration::ZERO, writes: 0 }
    }

    fn add(&mut self, before: Tally, after: Tally) {
        let messages = less(after.messages, before.messages);
        let octets = after.octets - before.octets;
        self.nodes += 1;
        self.messages = super::node::add(self.messages, messages);
        self.octets += octets;
        self.most = (self.most.0.max(sum(messages)), self.most.1.max(octets));
        self.worked = self.worked.max(after.worked - before.worked);
        self.writes += after.writes - before.writes;
    }
}

fn less(a: MessageCounts, b: MessageCounts) -> MessageCounts {
    MessageCounts {
        open: a.open - b.open,
        update: a.update - b.update,
        notification: a.notification - b.notification,
        keepalive: a.keepalive - b.keepalive,
        route_refresh: a.route_refresh - b.route_refresh,
    }
}

/// All kinds together.
pub fn sum(counts: MessageCounts) -> u64 {
    counts.each().into_iter().map(|(_, count)| count).sum()
}

impl fmt::Display for Phase {
    /// A line for all, and one for each role.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, last] = [50, 99, 100].map(|percent| seconds(self.percentile(percent)));
        let (messages, updates, octets) = (self.messages(), self.updates(), self.octets());
        writeln!(f, "{}: {messages} messages, {updates} of them UPDATEs, {octets} octets in {}", self.name, seconds(self.lasted))?;
        writeln!(
            f,
            "  had by half of the nodes after {half}, by 99 % after {most}, by the last after {last}; quiet after {}",
            seconds(self.moved)
        )?;
        for share in &self.shares {
            let (mean, octets) = (sum(share.messages) / share.nodes, share.octets / share.nodes);
            let (most, most_octets) = share.most;
            let (worked, writes) = (seconds(share.worked), share.writes / share.nodes);
            let role = format!("{}{:?}", if share.whole { "" } else { "light " }, share.role).to_lowercase();
            writeln!(
                f,
                "  {role} ({}): {mean} messages each, {most} at most; {octets} octets, {most_octets} at most; {writes} routes to write; \
                 its core works {worked} at most",
                share.nodes
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Weight { rib, sessions, configs } = self.weight;
        let each = (sessions + configs) / self.sessions.max(1) as u64;
        let role = format!("{:?}", self.role).to_lowercase();
        write!(
            f,
            "{role} with {} sessions and {} prefixes: {} octets: RIB {rib} (it says {}), sessions {sessions}, their configurations {configs} \
             ({each} a session)",
            self.sessions,
            self.prefixes,
            self.total(),
            self.said
        )
    }
}

/// Seconds, with as many digits as tell something.
fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) { format!("{:.2} ms", time.as_secs_f64() * 1000.0) } else { format!("{:.2} s", time.as_secs_f64()) }
}
