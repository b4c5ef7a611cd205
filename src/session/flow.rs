//! What goes out in Established: credit for the shards, and the ends of walks.
//!
//! At most [`WINDOW`] octets of ours lie ahead of the socket, so that a KEEPALIVE never waits for long (S1): shards
//! are asked for frames only while there is room, and what changes meanwhile is coalesced by them.
//!
//! A walk is the telling of a whole table of a family: the initial one, or one that the peer asked for. There is at
//! most one at a time in a family (R4), so when all shards have named the family as `ended`, it is this walk that has
//! ended. An initial walk ends with End-of-RIB; a refresh is framed by BoRR and EoRR where both sides have RFC 7313.
//! A request during a walk starts one more walk when it is over.

use smallvec::SmallVec;

use crate::types::{ConnectionId, Family, PerFamily, ShardId};

/// Octets of ours ahead of the socket at most, those included that shards may still answer.
pub(super) const WINDOW: usize = 64 * 1024;

/// A message that the state of the walks asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The initial table has been told.
    EndOfRib(Family),
    /// A refresh begins: BoRR where agreed, then the shards are told to walk.
    RefreshBegins(Family),
    /// A refresh has ended: EoRR where agreed.
    RefreshEnds(Family),
}

/// A walk of one family that is under way.
#[derive(Clone, Debug)]
struct Walk {
    initial: bool,
    ended: Vec<bool>,
    again: bool,
}

/// The outgoing side of an Established session.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    connection: ConnectionId,
    families: PerFamily<bool>,
    /// Of each shard what it may answer; none if it has answered.
    asked: SmallVec<[Option<usize>; 1]>,
    walks: PerFamily<Option<Walk>>,
}

impl Flow {
    /// A session that comes up in these families: their initial walks are under way.
    pub(super) fn new(connection: ConnectionId, shards: u16, families: PerFamily<bool>) -> Self {
        let shards = usize::from(shards.max(1));
        let walks = families.map(|_, used| used.then(|| Walk { initial: true, ended: vec![false; shards], again: false }));
        let asked = SmallVec::from_elem(None, shards);
        Self { connection, families, asked, walks }
    }

    /// The connection of the session.
    pub(super) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Which shards are to be asked now, and for how many octets: none while there is no room, and none that has not answered yet. One
    /// that has nothing to say keeps what it was granted, and the others share the rest.
    pub(super) fn pull(&mut self, waiting: usize) -> SmallVec<[(ShardId, usize); 1]> {
        let granted: usize = self.asked.iter().flatten().sum();
        let idle = self.asked.iter().filter(|asked| asked.is_none()).count();
        let share = WINDOW.saturating_sub(waiting + granted).checked_div(idle).unwrap_or(0);
        if waiting > WINDOW / 2 || share < WINDOW / (4 * self.asked.len()) {
            return SmallVec::new();
        }
        let idle = (0..).zip(&mut self.asked).filter(|(_, asked)| asked.is_none());
        idle.map(|(shard, asked)| (ShardId(shard), *asked.insert(share))).collect()
    }

    /// A shard has answered; what is due after its frames.
    pub(super) fn answered(&mut self, shard: ShardId, ended: &[Family]) -> Vec<Mark> {
        let index = usize::from(shard.0);
        if let Some(asked) = self.asked.get_mut(index) {
            *asked = None;
        }
        ended.iter().flat_map(|family| self.ended(index, *family)).collect()
    }

    /// The peer asked for our table again; a family that is not in use is ignored (R2).
    pub(super) fn requested(&mut self, family: Family) -> Option<Mark> {
        if !self.families.has(family) {
            return None;
        }
        let shards = self.asked.len();
        match self.walks.of_mut(family)? {
            Some(walk) => {
                walk.again = true;
                None
            }
            idle @ None => {
                *idle = Some(Walk { initial: false, ended: vec![false; shards], again: false });
                Some(Mark::RefreshBegins(family))
            }
        }
    }

    fn ended(&mut self, shard: usize, family: Family) -> Vec<Mark> {
        let Some(slot) = self.walks.of_mut(family) else { return Vec::new() };
        let Some(walk) = slot else { return Vec::new() };
        if let Some(ended) = walk.ended.get_mut(shard) {
            *ended = true;
        }
        if !walk.ended.iter().all(|ended| *ended) {
            return Vec::new();
        }
        let (initial, again) = (walk.initial, walk.again);
        *slot = None;
        let mut marks = vec![if initial { Mark::EndOfRib(family) } else { Mark::RefreshEnds(family) }];
        if again {
            marks.extend(self.requested(family));
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Family = Family::IPV4_UNICAST;
    const V6: Family = Family::IPV6_UNICAST;

    fn flow(shards: u16) -> Flow {
        Flow::new(ConnectionId(1), shards, PerFamily { ipv4: true, ipv6: false })
    }

    #[test]
    fn s1_credit_is_what_fits_ahead_of_the_socket() {
        let (a, b) = (ShardId(0), ShardId(1));
        let mut flow = flow(2);
        assert_eq!(flow.pull(0).to_vec(), [(a, WINDOW / 2), (b, WINDOW / 2)]);
        assert_eq!(flow.pull(0).to_vec(), [], "all have been asked");
        flow.answered(b, &[]);
        assert_eq!(flow.pull(WINDOW / 2).to_vec(), [], "no room: the other one may still answer");
        assert_eq!(flow.pull(WINDOW / 4).to_vec(), [(b, WINDOW / 4)], "and is not asked twice, lest it answer twice");
        flow.answered(a, &[]);
        flow.answered(b, &[]);
        assert_eq!(flow.pull(WINDOW / 2 + 1).to_vec(), [], "no room");
        assert_eq!(flow.pull(WINDOW / 2).to_vec(), [(a, WINDOW / 4), (b, WINDOW / 4)]);
    }

    #[test]
    fn end_of_rib_waits_for_all_shards_and_for_its_family() {
        let mut flow = flow(2);
        assert_eq!(flow.answered(ShardId(0), &[V4, V6]), []);
        assert_eq!(flow.answered(ShardId(0), &[V4]), []);
        assert_eq!(flow.answered(ShardId(1), &[V4]), [Mark::EndOfRib(V4)]);
        assert_eq!(flow.answered(ShardId(1), &[V4]), []);
    }

    #[test]
    fn r4_requests_during_a_walk_cost_one_more() {
        let mut flow = flow(1);
        for _ in 0..1000 {
            assert_eq!(flow.requested(V4), None);
        }
        assert_eq!(flow.answered(ShardId(0), &[V4]), [Mark::EndOfRib(V4), Mark::RefreshBegins(V4)]);
        assert_eq!(flow.requested(V4), None);
        assert_eq!(flow.answered(ShardId(0), &[V4]), [Mark::RefreshEnds(V4), Mark::RefreshBegins(V4)]);
        assert_eq!(flow.answered(ShardId(0), &[V4]), [Mark::RefreshEnds(V4)]);
        assert_eq!(flow.requested(V4), Some(Mark::RefreshBegins(V4)));
        assert_eq!(flow.requested(V6), None, "not in use");
    }
}
