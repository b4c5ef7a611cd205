//! One thing that happened, with its reason.

use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

use crate::calico::Severity;
use crate::fib::Target;
use crate::policy::RouteSource;
use crate::session::{self, DownReason, State};
use crate::types::Family;

/// See the module. Its JSON form has the kind as `event` and the fields beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A session came up or was lost. The steps of attempts in between are not events.
    State {
        /// Session name.
        peer: String,
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// A session ended, or an attempt failed.
    Down {
        /// Session name.
        peer: String,
        /// Who ended it and why.
        #[serde(flatten)]
        reason: DownReason,
    },
    /// The session went over to a new connection of the restarting peer.
    Superseded {
        /// Session name.
        peer: String,
        /// Why the older one ended.
        #[serde(flatten)]
        reason: DownReason,
    },
    /// An UPDATE had faults that did not cost the session.
    Fault {
        /// Session name.
        peer: String,
        /// Each fault with what was done about it.
        text: String,
        /// The whole message in hexadecimal, at most 4096 octets of it.
        message: String,
    },
    /// A peer's paths came near its limit, or passed it.
    PrefixLimit {
        /// Session name.
        peer: String,
        /// In which family.
        family: Family,
        /// Paths received, before policy.
        received: u64,
        /// The limit.
        limit: u32,
    },
    /// Memory is short, and this was done about it (Q2).
    Memory {
        /// Session name.
        peer: String,
        /// What was done.
        act: MemoryAct,
        /// Resident memory in octets.
        resident: u64,
        /// The ceiling in octets.
        ceiling: u64,
    },
    /// A peer's task panicked; its session starts anew.
    Panic {
        /// Session name.
        peer: String,
    },
    /// A new configuration is in force. Sessions by what became of them; those that are not named were not touched.
    Configured {
        /// Sessions added.
        added: Vec<String>,
        /// Sessions removed.
        removed: Vec<String>,
        /// Sessions reset.
        reset: Vec<String>,
        /// Sessions whose policies were judged anew, without a reset.
        reloaded: Vec<String>,
    },
    /// Something about the resources is wrong that was not before.
    Problem {
        /// How bad.
        severity: Severity,
        /// The problem in one line.
        text: String,
    },
    /// A problem is gone.
    Solved {
        /// The problem in one line.
        text: String,
    },
    /// The kernel refused a route.
    KernelRefused {
        /// The prefix.
        prefix: IpNet,
        /// The kernel's errno.
        errno: i32,
        /// In words.
        text: String,
    },
    /// The kernel's table is read anew: an overrun, an audit, or an answer that contradicted what was known.
    KernelResync,
    /// Our own restart is over.
    RestartOver,
    /// A collector of monitoring data (BMP) is being told, or is away.
    Collector {
        /// Its address and port.
        collector: String,
        /// It is being told.
        connected: bool,
        /// Why it is away.
        why: Option<String>,
    },
    /// A local agent has come, or its connection is gone.
    Agent {
        /// Its name.
        agent: String,
        /// It is connected.
        connected: bool,
        /// Routes that it has told and that stay.
        routes: usize,
        /// For how many seconds they stay without it.
        hold: Option<u64>,
    },
    /// A local agent has not come back in time: its routes were withdrawn.
    AgentExpired {
        /// Its name.
        agent: String,
        /// Its routes.
        routes: usize,
    },
    /// The best path of a watched prefix changed.
    BestPath {
        /// The prefix.
        prefix: IpNet,
        /// Where the new best route comes from; none when there is no route any more.
        source: Option<RouteSource>,
        /// Its LOCAL_PREF, where it has one.
        local_pref: Option<u32>,
        /// What happens to packets.
        target: Option<Target>,
    },
}

/// What is done about a peer when memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryAct {
    /// It is no longer read.
    Held,
    /// It is read again.
    Released,
    /// Its session was ended with 6/8, out of resources.
    Stopped,
}

impl MemoryAct {
    /// As a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Released => "released",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for MemoryAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "no longer read",
            Self::Released => "read again",
            Self::Stopped => "session ended",
        })
    }
}

/// What an event is about, for those who want to hear of one thing only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A session.
    Peer(&'a str),
    /// A prefix.
    Prefix(IpNet),
    /// The node as a whole.
    Node,
}

impl Event {
    /// What a session said, under its name.
    pub fn of_session(peer: &str, event: session::Event) -> Self {
        let peer = peer.to_owned();
        match event {
            session::Event::Superseded(reason) => Self::Superseded { peer, reason },
            session::Event::State { from, to } => Self::State { peer, from, to },
            session::Event::Down(reason) => Self::Down { peer, reason },
            session::Event::Fault { text, message } => Self::Fault { peer, text, message },
            session::Event::PrefixLimit { family, received, limit } => Self::PrefixLimit { peer, family, received, limit },
        }
    }

    /// What it is about.
    pub fn subject(&self) -> Subject<'_> {
        match self {
            Self::State { peer, .. }
            | Self::Down { peer, .. }
            | Self::Superseded { peer, .. }
            | Self::Fault { peer, .. }
            | Self::PrefixLimit { peer, .. }
            | Self::Memory { peer, .. }
            | Self::Panic { peer } => Subject::Peer(peer),
            Self::KernelRefused { prefix, .. } | Self::BestPath { prefix, .. } => Subject::Prefix(*prefix),
            Self::Configured { .. }
            | Self::Problem { .. }
            | Self::Solved { .. }
            | Self::KernelResync
            | Self::RestartOver
            | Self::Agent { .. }
            | Self::AgentExpired { .. }
            | Self::Collector { .. } => Subject::Node,
        }
    }

    /// Octets of text that remembering it takes, roughly.
    pub fn weight(&self) -> usize {
        let text = match self {
            Self::State { peer, .. } | Self::PrefixLimit { peer, .. } | Self::Memory { peer, .. } | Self::Panic { peer } => peer.len(),
            Self::Down { peer, reason } | Self::Superseded { peer, reason } => peer.len() + reason.text.len(),
            Self::Fault { peer, text, message } => peer.len() + text.len() + message.len(),
            Self::Configured { added, removed, reset, reloaded } => {
                [added, removed, reset, reloaded].into_iter().flatten().map(|name| name.len() + size_of::<String>()).sum()
            }
            Self::Problem { text, .. } | Self::Solved { text } | Self::KernelRefused { text, .. } => text.len(),
            Self::Collector { collector, why, .. } => collector.len() + why.as_ref().map_or(0, String::len),
            Self::Agent { agent, .. } | Self::AgentExpired { agent, .. } => agent.len(),
            Self::KernelResync | Self::RestartOver | Self::BestPath { .. } => 0,
        };
        size_of::<Self>() + text
    }
}

impl fmt::Display for Event {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { peer, from, to } => write!(f, "{peer}: {from:?} → {to:?}"),
            Self::Down { peer, reason } | Self::Superseded { peer, reason } => write!(f, "{peer}: {}", reason.text),
            Self::Fault { peer, text, .. } => write!(f, "{peer}: fault in UPDATE: {text}"),
            Self::PrefixLimit { peer, family, received, limit } => write!(f, "{peer}: {received} {family} paths, the limit is {limit}"),
            Self::Memory { peer, act, resident, ceiling } => {
                let percent = resident.saturating_mul(100).checked_div(*ceiling).unwrap_or(100);
                write!(f, "{peer}: {act}: memory is at {percent} % of its ceiling of {} MiB", ceiling >> 20)
            }
            Self::Panic { peer } => write!(f, "{peer}: its task panicked, the session starts anew; please report this"),
            Self::Configured { added, removed, reset, reloaded } => {
                f.write_str("new configuration in force")?;
                for (what, names) in [("added", added), ("removed", removed), ("reset", reset), ("policies reloaded", reloaded)] {
                    listed(f, what, names)?;
                }
                Ok(())
            }
            Self::Problem { text, .. } => write!(f, "problem: {text}"),
            Self::Solved { text } => write!(f, "no longer a problem: {text}"),
            Self::KernelRefused { prefix, errno, text } => write!(f, "{prefix}: the kernel refused the route: {text} (errno {errno})"),
            Self::KernelResync => f.write_str("the kernel's routes are read anew"),
            Self::RestartOver => f.write_str("our own restart is over"),
            Self::Collector { collector, connected: true, .. } => write!(f, "BMP collector {collector}: connected"),
            Self::Collector { collector, why, .. } => {
                write!(f, "BMP collector {collector}: away: {}", why.as_deref().unwrap_or("no reason is known"))
            }
            Self::Agent { agent, connected: true, routes, .. } => write!(f, "agent {agent}: connected, with {routes} routes from before"),
            Self::Agent { agent, routes, hold, .. } => {
                write!(f, "agent {agent}: its connection is gone; {routes} routes stay for {} s", hold.unwrap_or_default())
            }
            Self::AgentExpired { agent, routes } => write!(f, "agent {agent}: has not come back; {routes} routes are withdrawn"),
            Self::BestPath { prefix, source: None, .. } => write!(f, "{prefix}: no route any more"),
            Self::BestPath { prefix, source: Some(source), target, .. } => {
                write!(f, "{prefix}: best path from {source:?}")?;
                match target {
                    Some(Target::Via(hops)) => hops.iter().try_for_each(|hop| write!(f, " via {}", hop.next_hop)),
                    Some(Target::Blackhole) => f.write_str(", packets are dropped"),
                    Some(Target::Unreachable) => f.write_str(", its next hop cannot be reached"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The most names that a line tells.
const NAMES: usize = 5;

fn listed(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    match names.len() {
        0 => Ok(()),
        count if count <= NAMES => write!(f, "; {what}: {}", names.join(", ")),
        count => write!(f, "; {what}: {} and {} more", names[..NAMES].join(", "), count - NAMES),
    }
}
