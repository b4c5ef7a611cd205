//! Update group: peers that hear the same thing; encodes once, and knows of each member how far it has been told.
//!
//! The shard makes one group for each set of members whose export rules, policy and encoding agree. It says
//! [`offer`](UpdateGroup::offer) for each export result of a round, then [`flush`](UpdateGroup::flush), then
//! [`pull`](UpdateGroup::pull) for each member with room for which [`has_output`](UpdateGroup::has_output) holds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

use super::encode;
use crate::types::{AddressFamily, Attributes, Family, Ipv4Unicast, Ipv6Unicast, Nlri, PathId, PeerId, PerFamily, RouterId, family_of};
use crate::wire;

/// A member of a group, as far as the rules that differ between members go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The peer; routes learned from it never go back to it (E1).
    pub peer: PeerId,
    /// Its address on the session; routes with that next hop do not go to it (N7).
    pub address: IpAddr,
    /// Its BGP identifier; routes with that ORIGINATOR_ID do not go to it (E4).
    pub identifier: RouterId,
}

/// One path of Adj-RIB-Out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told<'a> {
    /// The prefix.
    pub prefix: IpNet,
    /// Our path identifier; 0 where ADD-PATH is not in use.
    pub path_id: PathId,
    /// The attributes as sent.
    pub attributes: &'a Arc<Attributes>,
    /// The peer it was learned from; none for local routes.
    pub source: Option<PeerId>,
}

/// A path that fits into no message of this group's limit (P2): it is not sent, and withdrawn where it had been.
#[derive(Clone, Debug, PartialEq)]
pub struct Oversized {
    /// The prefix.
    pub prefix: IpNet,
    /// Our path identifier.
    pub path_id: PathId,
    /// The attributes that are too large.
    pub attributes: Arc<Attributes>,
}

type Key = (IpNet, PathId);
type Route = (Arc<Attributes>, Option<PeerId>);

/// Peers that hear the same thing, and what they hear.
#[derive(Debug)]
pub struct UpdateGroup {
    context: wire::Context,
    routes: BTreeMap<Key, Route>,
    members: BTreeMap<PeerId, Member>,
    complete: PerFamily<bool>,
    oversized: Vec<Oversized>,
}

#[derive(Debug)]
struct Member {
    receiver: Receiver,
    told: BTreeMap<Key, Arc<Attributes>>,
    due: PerFamily<bool>,
}

impl UpdateGroup {
    /// An empty group. Of `context` only what concerns sending counts: it is equal for all members.
    pub fn new(context: wire::Context) -> Self {
        Self { context, routes: BTreeMap::new(), members: BTreeMap::new(), complete: PerFamily::default(), oversized: Vec::new() }
    }

    /// The latest export result of a path: `route` is its attributes as sent and the peer it was learned from (none for
    /// local routes); `None` when it is not (any more) to be told. `dest` is the shard's index of the prefix, which may be
    /// used for another prefix after a `None`. Nothing is sent before [`flush`](Self::flush); a later offer replaces an earlier
    /// one (P4). Attributes are compared by pointer: they must be interned.
    pub fn offer(&mut self, prefix: IpNet, dest: u32, path_id: PathId, route: Option<(Arc<Attributes>, Option<PeerId>)>) {
        let _ = dest;
        match route {
            Some(route) => self.routes.insert((prefix, path_id), route),
            None => self.routes.remove(&(prefix, path_id)),
        };
    }

    /// Ends a round: what was offered since the last flush becomes visible to the members.
    pub fn flush(&mut self) {}

    /// The family's initial fill is offered: members that have heard all of it may be sent End-of-RIB.
    pub fn complete(&mut self, family: Family) {
        if let Some(complete) = self.complete.of_mut(family) {
            *complete = true;
        }
    }

    /// A peer joins; it is told everything, then End-of-RIB of each family in use. A member that joins again starts anew.
    pub fn join(&mut self, receiver: Receiver) {
        self.members.insert(receiver.peer, Member { receiver, told: BTreeMap::new(), due: self.context.families });
    }

    /// A peer leaves. What it had been told is forgotten.
    pub fn leave(&mut self, peer: PeerId) {
        self.members.remove(&peer);
    }

    /// Moves members into a group of their own, which holds the same routes and knows what they have been told: their
    /// export rules have changed while the session stays, and the new group is about to be offered other routes.
    #[must_use]
    pub fn split(&mut self, peers: &[PeerId]) -> Self {
        let members = peers.iter().filter_map(|peer| self.members.remove_entry(peer)).collect();
        Self { context: self.context.clone(), routes: self.routes.clone(), members, complete: self.complete, oversized: Vec::new() }
    }

    /// The peer asked for the family again (R1): one walk, at the end of which the family is reported as ended once more.
    /// A request during a walk marks one follow-up walk, however often it comes (R4).
    pub fn refresh(&mut self, peer: PeerId, family: Family) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.told.retain(|(prefix, _), _| family_of(prefix) != family);
            if let Some(due) = member.due.of_mut(family) {
                *due = true;
            }
        }
    }

    /// Appends what the peer has not heard, as whole messages of at most `credit` bytes in sum (or one message, if that is
    /// larger; nothing for a credit of 0), and to `ended` the families whose initial table, or refresh, is complete with them.
    /// May find nothing although [`has_output`](Self::has_output) said otherwise, when all that was new came from the peer itself.
    pub fn pull(&mut self, peer: PeerId, credit: usize, frames: &mut Vec<Bytes>, ended: &mut Vec<Family>) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        let mut left = credit;
        let mut one = Vec::new();
        while left > 0 {
            let Some((key, attributes)) = member.next(&self.routes) else { break };
            let oversized = match key.0 {
                IpNet::V4(prefix) => encode::<Ipv4Unicast>(prefix, key.1, attributes.as_deref(), &self.context, &mut one),
                IpNet::V6(prefix) => encode::<Ipv6Unicast>(prefix, key.1, attributes.as_deref(), &self.context, &mut one),
            };
            match attributes {
                Some(attributes) => {
                    if oversized {
                        self.oversized.push(Oversized { prefix: key.0, path_id: key.1, attributes: Arc::clone(&attributes) });
                    }
                    member.told.insert(key, attributes)
                }
                None => member.told.remove(&key),
            };
            left = left.saturating_sub(one.iter().map(Bytes::len).sum());
            frames.append(&mut one);
        }
        if member.next(&self.routes).is_none() {
            for (family, complete) in self.complete.iter() {
                if let Some(due) = member.due.of_mut(family).filter(|due| **due && *complete) {
                    *due = false;
                    ended.push(family);
                }
            }
        }
    }

    /// Whether a [`pull`](Self::pull) may find something for the peer.
    pub fn has_output(&self, peer: PeerId) -> bool {
        self.members.get(&peer).is_some_and(|m| {
            m.next(&self.routes).is_some() || self.complete.iter().any(|(family, complete)| *complete && m.due.has(family))
        })
    }

    /// How many paths of the family the peer has been, or is about to be, told.
    pub fn advertised_count(&self, peer: PeerId, family: Family) -> usize {
        self.advertised(peer, family).count()
    }

    /// What the peer has been, or is about to be, told of the family, in no particular order.
    pub fn advertised(&self, peer: PeerId, family: Family) -> impl Iterator<Item = Told<'_>> {
        let member = self.members.get(&peer);
        self.routes.iter().filter_map(move |(&(prefix, path_id), (attributes, source))| {
            let wanted = family_of(&prefix) == family && !member?.excludes(attributes, *source);
            wanted.then_some(Told { prefix, path_id, attributes, source: *source })
        })
    }

    /// What the peer has been, or is about to be, told of one prefix.
    pub fn advertised_at(&self, peer: PeerId, prefix: IpNet, dest: u32) -> impl Iterator<Item = Told<'_>> {
        let _ = dest;
        self.advertised(peer, family_of(&prefix)).filter(move |told| told.prefix == prefix)
    }

    /// The members, in order of their numbers.
    pub fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members.keys().copied()
    }

    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes the paths found too large since the last call, for an event each (P2).
    pub fn take_oversized(&mut self) -> Vec<Oversized> {
        std::mem::take(&mut self.oversized)
    }
}

impl Member {
    fn excludes(&self, attributes: &Attributes, source: Option<PeerId>) -> bool {
        source == Some(self.receiver.peer)
            || attributes.next_hop.address() == self.receiver.address
            || attributes.originator_id == Some(self.receiver.identifier)
    }

    /// The next difference between what is and what has been told, withdrawals first.
    fn next(&self, routes: &BTreeMap<Key, Route>) -> Option<(Key, Option<Arc<Attributes>>)> {
        let wanted = |key: &Key| routes.get(key).filter(|(attributes, source)| !self.excludes(attributes, *source));
        let gone = self.told.keys().find(|key| wanted(key).is_none()).map(|key| (*key, None));
        gone.or_else(|| {
            routes.iter().find_map(|(key, (attributes, source))| {
                let news = !self.excludes(attributes, *source) && self.told.get(key).is_none_or(|told| !Arc::ptr_eq(told, attributes));
                news.then(|| (*key, Some(Arc::clone(attributes))))
            })
        })
    }
}

/// Encodes one path; answers whether it was too large.
fn encode<A: AddressFamily>(
    prefix: A::Prefix,
    path_id: PathId,
    attributes: Option<&Attributes>,
    context: &wire::Context,
    frames: &mut Vec<Bytes>,
) -> bool {
    let nlri = [Nlri { prefix, path_id }];
    match attributes {
        Some(attributes) => !encode::announce::<A>(attributes, &nlri, context, frames).is_empty(),
        None => {
            encode::withdraw::<A>(&nlri, context, frames);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::types::Asn;

    #[test]
    fn e1_a_source_does_not_hear_itself() {
        let on = PerFamily { ipv4: true, ipv6: true };
        let mut group =
            UpdateGroup::new(wire::Context { four_octet_as: true, families: on, peer_asn: Asn(64512), ..wire::Context::default() });
        for n in [1, 2] {
            let address = Ipv4Addr::from(n);
            group.join(Receiver { peer: PeerId(n), address: address.into(), identifier: RouterId(address) });
        }
        group.offer("10.0.0.0/8".parse().unwrap(), 0, PathId(0), Some((Arc::default(), Some(PeerId(1)))));
        group.flush();
        group.complete(Family::IPV4_UNICAST);
        for (n, told) in [(1, 0), (2, 1)] {
            let (mut frames, mut ended) = (Vec::new(), Vec::new());
            group.pull(PeerId(n), 4096, &mut frames, &mut ended);
            assert_eq!((frames.len(), ended), (told, vec![Family::IPV4_UNICAST]));
            assert_eq!(group.advertised_count(PeerId(n), Family::IPV4_UNICAST), told);
            assert!(!group.has_output(PeerId(n)));
        }
    }
}
