//! Update group: the peers that hear the same thing; encodes once, and knows of each member how far it has been told.
//!
//! The shard makes one group for each set of members whose export rules, policy and encoding agree, and drives it so:
//! ```text
//!   offer, offer, …   export results of a round, in any order; a later offer for a path replaces an earlier one
//!   flush             the round is over: changes are ordered, encoded once, appended to the journal
//!   pull              for each member with room for which has_output holds
//!   complete          once, when the initial fill of a family has been offered: End-of-RIB may follow
//!   join, leave, refresh   at any time
//! ```
//! Inside, for each family ([`outbound`](super::outbound)):
//! ```text
//!   offer → Adj-RIB-Out (24 octets a path) → flush → log of changes ──────────→ walk of a newcomer or laggard → own frames
//!                                               └──→ journal: frames, encoded once ──→ members that keep up, same octets for all
//! ```
//! A member that keeps up costs a cursor. One that is new, or that fell behind the bounded journal, walks the log and is told the latest
//! state only, so slow peers coalesce by construction, and memory is bounded by the table, not by their slowness. It reads the journal
//! again once it has heard everything or, while paths only come, from the end of a round on (a table that many are told at once).
//!
//! What members hear differs in one thing: a route is kept from the peer it was learned from (E1), from the peer that is its next
//! hop (N7) and from its originator (E4). If such a peer had been told the path in an earlier form it gets the withdrawal (the *twin*).
//!
//! Rules kept here: withdrawals before announcements in a round, and for one prefix always (P5); never both in one message (P3); no path twice in a
//! round, nothing for a path that came and went within one (P4); withdrawals only to members that had been told (E10); what no
//! message can carry is withdrawn and reported (P2).
//!
//! For the caller:
//! - `dest` is the shard's index of the prefix. It may be used for another prefix as soon as the group was offered `None` for all its paths.
//! - A route is offered as a set that is held anyway and what becomes of it ([`Sent`]). It is told again where that is another, whatever
//!   sets it was and is made of.
//! - `frames` hold one *or more* whole messages each; messages are counted by their headers.
//! - `ended` names a family once for the initial table and once for each refresh walk. Requests during a walk are merged into one
//!   follow-up walk (R4); the session, which must count the answers of all shards, asks for one walk at a time anyway.

use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

pub use super::adj_rib_out::LogLimits;
use super::journal::Credit;
pub use super::journal::RingLimits;
use super::outbound::Outbound;
pub use super::receiver::Receiver;
use super::receiver::Receivers;
use super::sent::Rewrites;
pub use super::sent::Sent;
use crate::types::{Attributes, Family, Ipv4Unicast, Ipv6Unicast, PathId, PeerId, Seeded, family_of};
use crate::wire;

/// One path of Adj-RIB-Out.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The prefix.
    pub prefix: IpNet,
    /// Our path identifier; 0 where ADD-PATH is not in use.
    pub path_id: PathId,
    /// The attributes as sent.
    pub attributes: Arc<Attributes>,
    /// The peer it was learned from; none for local routes.
    pub source: Option<PeerId>,
}

/// A path that no message of this group can carry (P2), because it exceeds the limit or its next hop has no form here: it is
/// not sent, and withdrawn where it had been.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsendable {
    /// The prefix.
    pub prefix: IpNet,
    /// Our path identifier.
    pub path_id: PathId,
    /// The attributes in question.
    pub attributes: Arc<Attributes>,
}

/// Messages that a group has encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Once for all members that keep up.
    pub shared: u64,
    /// For one newcomer or laggard.
    pub private: u64,
}

/// Peers that hear the same thing, and what they hear.
#[derive(Clone, Debug)]
pub struct UpdateGroup {
    context: wire::Context,
    receivers: Receivers,
    ipv4: Outbound<Ipv4Unicast>,
    ipv6: Outbound<Ipv6Unicast>,
}

impl UpdateGroup {
    /// An empty group. Of `context` only what concerns sending counts: it is equal for all members. `seeded` keys its hash tables.
    pub fn new(context: wire::Context, seeded: Seeded) -> Self {
        Self::with_limits(context, seeded, RingLimits::default(), LogLimits::default())
    }

    /// An empty group whose journals and logs are bounded otherwise than by default.
    pub fn with_limits(context: wire::Context, seeded: Seeded, ring: RingLimits, log: LogLimits) -> Self {
        let (ipv4, ipv6) = (Outbound::new(&context, ring, log, seeded.clone()), Outbound::new(&context, ring, log, seeded));
        Self { context, receivers: Receivers::default(), ipv4, ipv6 }
    }

    /// What the group encodes for.
    pub fn context(&self) -> &wire::Context {
        &self.context
    }

    /// Messages encoded since the group was made.
    pub fn encoded(&self) -> Encoded {
        let (ipv4, ipv6) = (self.ipv4.encoded(), self.ipv6.encoded());
        Encoded { shared: ipv4.shared + ipv6.shared, private: ipv4.private + ipv6.private }
    }

    /// Octets of memory that Adj-RIB-Out and the frames for its members take.
    pub fn octets(&self) -> usize {
        self.ipv4.octets() + self.ipv6.octets()
    }

    /// What a set that is held becomes when its routes are offered to this group as `content`, if that is soon said. Else they are offered
    /// with the set that they become.
    pub fn rewritten(&mut self, family: Family, held: &Arc<Attributes>, content: &Attributes) -> Option<Sent> {
        self.rewrites(family).send_rewritten(held, content)
    }

    /// All that sets become in a family.
    pub(super) fn rewrites(&mut self, family: Family) -> &mut Rewrites {
        match family {
            Family::IPV4_UNICAST => self.ipv4.rib.rewrites_mut(),
            _ => self.ipv6.rib.rewrites_mut(),
        }
    }

    /// The latest export result of a path: `route` is what is sent and the peer it was learned from (none for local
    /// routes), or `None` when it is not (any more) to be told. Ignored for families that are not in use. Nothing is sent
    /// before [`flush`](Self::flush).
    pub fn offer(&mut self, prefix: IpNet, dest: u32, path_id: PathId, route: Option<(Sent, Option<PeerId>)>) {
        if !self.context.families.has(family_of(&prefix)) {
            return;
        }
        match prefix {
            IpNet::V4(prefix) => self.ipv4.offer(prefix, dest, path_id, route),
            IpNet::V6(prefix) => self.ipv6.offer(prefix, dest, path_id, route),
        }
    }

    /// Ends a round: what was offered since the last flush becomes visible to the members. Cheap if nothing was.
    pub fn flush(&mut self) {
        self.ipv4.flush(&self.receivers, &self.context);
        self.ipv6.flush(&self.receivers, &self.context);
    }

    /// Whether memory is being tidied up, in steps: go on with [`compact`](Self::compact).
    pub fn is_compacting(&self) -> bool {
        self.ipv4.is_compacting() || self.ipv6.is_compacting()
    }

    /// Tidies up memory by a step, if that has begun.
    pub fn compact(&mut self) {
        self.ipv4.compact();
        self.ipv6.compact();
    }

    /// The family's initial fill is offered: members that have heard all of it may be sent End-of-RIB.
    pub fn complete(&mut self, family: Family) {
        match family {
            Family::IPV4_UNICAST => self.ipv4.complete(),
            Family::IPV6_UNICAST => self.ipv6.complete(),
            _ => {}
        }
    }

    /// A peer joins; it is told everything, then End-of-RIB of each family in use. A member that joins again starts anew.
    pub fn join(&mut self, receiver: Receiver) {
        self.leave(receiver.peer);
        self.receivers.insert(receiver);
        if self.context.families.ipv4 {
            self.ipv4.join(&receiver);
        }
        if self.context.families.ipv6 {
            self.ipv6.join(&receiver);
        }
    }

    /// A peer leaves. What it had been told is forgotten.
    pub fn leave(&mut self, peer: PeerId) {
        self.flush();
        self.receivers.remove(peer);
        self.ipv4.leave(peer);
        self.ipv6.leave(peer);
    }

    /// Moves members into a group of their own, which holds the same routes and knows what they have been told: their
    /// export rules have changed while the session stays, and the new group is about to be offered other routes. Those that are no
    /// members are ignored.
    #[must_use]
    pub fn split(&mut self, peers: &[PeerId]) -> Self {
        self.flush();
        let moving: Vec<Receiver> = peers.iter().filter_map(|peer| self.receivers.get(*peer)).copied().collect();
        let (ipv4, ipv6) = (self.ipv4.split(&moving), self.ipv6.split(&moving));
        let mut receivers = Receivers::default();
        for receiver in moving {
            self.receivers.remove(receiver.peer);
            receivers.insert(receiver);
        }
        Self { context: self.context.clone(), receivers, ipv4, ipv6 }
    }

    /// The peer asked for the family again (R1): one walk, at the end of which the family is reported as ended once more.
    /// A request during a walk marks one follow-up walk, however often it comes (R4).
    #[inline(never)]
    pub fn refresh(&mut self, peer: PeerId, family: Family) {
        self.flush();
        let Some(receiver) = self.receivers.get(peer) else { return };
        match family {
            Family::IPV4_UNICAST => self.ipv4.refresh(receiver),
            Family::IPV6_UNICAST => self.ipv6.refresh(receiver),
            _ => {}
        }
    }

    /// Appends what the peer has not heard, as whole messages of at most `credit` octets in sum (or one message, if that is larger;
    /// nothing for a credit of 0), and to `ended` the families whose initial table, or refresh, is complete with them.
    /// If both families have something each gets its share of the credit.
    /// May find nothing although [`has_output`](Self::has_output) held, when all that was new came from the peer itself.
    pub fn pull(&mut self, peer: PeerId, credit: usize, frames: &mut Vec<Bytes>, ended: &mut Vec<Family>) {
        self.flush();
        let Some(receiver) = self.receivers.get(peer) else { return };
        let half = if self.ipv6.has_output(peer) { credit / 2 } else { 0 };
        let mut credit = Credit::new(credit);
        credit.reserve(half);
        self.ipv4.pull(receiver, &self.receivers, &self.context, &mut credit, frames, ended);
        credit.reserve(0);
        self.ipv6.pull(receiver, &self.receivers, &self.context, &mut credit, frames, ended);
    }

    /// Whether a [`pull`](Self::pull) may find something for the peer; as of the last flush.
    pub fn has_output(&self, peer: PeerId) -> bool {
        self.ipv4.has_output(peer) || self.ipv6.has_output(peer)
    }

    /// Whether what a [`pull`](Self::pull) finds for the peer is encoded for it alone: it is new, or has fallen behind.
    pub fn is_walking(&self, peer: PeerId) -> bool {
        self.ipv4.is_walking(peer) || self.ipv6.is_walking(peer)
    }

    /// How many paths of the family the peer has been, or is about to be, told; as of the last flush.
    pub fn advertised_count(&self, peer: PeerId, family: Family) -> usize {
        match family {
            Family::IPV4_UNICAST => self.ipv4.advertised_count(peer),
            Family::IPV6_UNICAST => self.ipv6.advertised_count(peer),
            _ => 0,
        }
    }

    /// What the peer has been, or is about to be, told of the family, in no particular order. Looks at the whole table: for
    /// bounded steps see [`advertised_at`](Self::advertised_at).
    pub fn advertised(&self, peer: PeerId, family: Family) -> impl Iterator<Item = Told> {
        let receiver = self.receivers.get(peer);
        let ipv4 = receiver.filter(|_| family == Family::IPV4_UNICAST).into_iter().flat_map(|receiver| self.ipv4.advertised(receiver));
        let ipv6 = receiver.filter(|_| family == Family::IPV6_UNICAST).into_iter().flat_map(|receiver| self.ipv6.advertised(receiver));
        ipv4.chain(ipv6)
    }

    /// What the peer has been, or is about to be, told of one prefix.
    pub fn advertised_at(&self, peer: PeerId, prefix: IpNet, dest: u32) -> impl Iterator<Item = Told> {
        let receiver = self.receivers.get(peer);
        let (v4, v6) = match prefix {
            IpNet::V4(prefix) => (receiver.map(|receiver| self.ipv4.advertised_at(receiver, prefix, dest)), None),
            IpNet::V6(prefix) => (None, receiver.map(|receiver| self.ipv6.advertised_at(receiver, prefix, dest))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }

    /// The members, in order of their numbers.
    pub fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.receivers.iter().map(|receiver| receiver.peer)
    }

    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// Takes the paths found too large since the last call, for an event each (P2); the first thousand or so of them.
    pub fn take_unsendable(&mut self) -> Vec<Unsendable> {
        let mut unsendable = self.ipv4.take_unsendable();
        unsendable.append(&mut self.ipv6.take_unsendable());
        unsendable
    }
}
