//! The network between hosts: TCP as a process sees it, with everything that can go wrong on the way.
//!
//! Each direction of a connection keeps its order and has bounded room: what the receiver has not read holds up the sender.
//! Segments are split anywhere and delayed at random. A stall delays a direction, as loss does until TCP has sent again.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use margay::types::{ConnectionId, PeerId};

use crate::story::Dice;

/// Octets that a direction holds between the sender's process and the receiver's at most.
pub const WINDOW: usize = 128 * 1024;

/// Number of a connection; not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcpId(pub usize);

/// One end of a connection while a process holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The host.
    pub host: usize,
    /// Which life of its process.
    pub life: u32,
    /// The peer whose socket it is.
    pub peer: PeerId,
    /// The socket's number there.
    pub connection: ConnectionId,
}

/// What the receiver's process finds when it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Octets.
    Bytes(Bytes),
    /// The other end closed.
    End,
    /// The connection broke.
    Reset,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Direction {
    /// Written by the process and not yet taken by the kernel.
    pub queue: VecDeque<Bytes>,
    /// Under way.
    pub flying: VecDeque<(Duration, Arrival)>,
    /// There, not yet read.
    pub arrived: VecDeque<Arrival>,
    /// Octets under way or unread.
    pub held: usize,
    /// Nothing gets through before.
    pub stalled_until: Duration,
    latest: Duration,
}

impl Direction {
    /// Octets that wait in the sender's process.
    pub fn waiting(&self) -> usize {
        self.queue.iter().map(Bytes::len).sum()
    }

    /// Moves what there is room for out of the process, in segments; when each arrives. True if something moved.
    pub fn pump(&mut self, now: Duration, dice: &mut Dice, arrivals: &mut Vec<Duration>) -> bool {
        let mut moved = false;
        while self.held < WINDOW {
            let Some(mut first) = self.queue.pop_front() else { break };
            let whole = dice.below(4) != 0;
            let size = if whole { first.len() } else { 1 + dice.below(first.len() as u64) as usize };
            let segment = first.split_to(size.min(first.len()).min(WINDOW - self.held));
            if !first.is_empty() {
                self.queue.push_front(first);
            }
            self.held += segment.len();
            arrivals.push(self.fly(now, dice, Arrival::Bytes(segment)));
            moved = true;
        }
        moved
    }

    /// Sends something off, behind what was sent before; when it arrives.
    pub fn fly(&mut self, now: Duration, dice: &mut Dice, what: Arrival) -> Duration {
        let at = (now + delay(dice)).max(self.latest).max(self.stalled_until);
        self.latest = at;
        self.flying.push_back((at, what));
        at
    }

    /// Whether anything was ever sent this way.
    pub fn latest_sent(&self) -> bool {
        self.latest > Duration::ZERO
    }

    /// Takes in what is due.
    pub fn land(&mut self, now: Duration) {
        while let Some((_, what)) = self.flying.pop_front_if(|(at, _)| *at <= now) {
            self.arrived.push_back(what);
        }
    }

    /// What the receiver reads next.
    pub fn read(&mut self) -> Option<Arrival> {
        let what = self.arrived.pop_front()?;
        if let Arrival::Bytes(bytes) = &what {
            self.held -= bytes.len();
        }
        Some(what)
    }
}

/// Time on the way.
pub fn delay(dice: &mut Dice) -> Duration {
    let most = if dice.below(10) == 0 { 200_000 } else { 5_000 };
    Duration::from_micros(100 + dice.below(most))
}

/// A connection. End 0 opened it.
#[derive(Debug)]
pub struct Tcp {
    /// Who holds each end.
    pub ends: [Option<Holder>; 2],
    /// Addresses of the ends.
    pub addresses: [IpAddr; 2],
    /// Hosts of the ends.
    pub hosts: [usize; 2],
    /// What flows from each end.
    pub directions: [Direction; 2],
}

impl Tcp {
    /// Which end a holder has.
    pub fn end_of(&self, host: usize, life: u32, peer: PeerId, connection: ConnectionId) -> Option<usize> {
        self.ends.iter().position(|end| *end == Some(Holder { host, life, peer, connection }))
    }
}

/// Which pairs of hosts cannot hear each other, and until when. Direction matters.
#[derive(Debug, Default)]
pub struct Partitions {
    cut: Vec<(usize, usize, Duration)>,
}

impl Partitions {
    /// Nothing gets from `a` to `b` until then.
    pub fn add(&mut self, a: usize, b: usize, until: Duration) {
        self.cut.push((a, b, until));
    }

    /// When something that `a` sends now would get through to `b`.
    pub fn open_at(&self, a: usize, b: usize, now: Duration) -> Duration {
        let cut = self.cut.iter().filter(|(from, to, until)| (*from, *to) == (a, b) && *until > now);
        cut.map(|(.., until)| *until).max().unwrap_or(now)
    }

    /// Forgets those that are over.
    pub fn tidy(&mut self, now: Duration) {
        self.cut.retain(|(.., until)| *until > now);
    }
}
