//! Open pulls: which peers have room, and whose turn it is.
//!
//! A pull stays open until there is something to say. Members that keep up are told in every round: their messages are encoded once for all.
//! **Walkers** (newcomers and laggards, whose messages are encoded for each alone) share [`PRIVATE`] octets a round, in turn: a hundred of
//! them that come at once do not keep the others waiting.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::types::PeerId;

/// Octets that one round encodes for single members.
pub(super) const PRIVATE: usize = 256 << 10;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulls {
    open: BTreeMap<PeerId, usize>,
    /// The walker that was told last.
    last: Option<PeerId>,
    /// Walkers have not had their turn.
    waiting: bool,
}

impl Pulls {
    /// The peer has room for so many octets.
    pub(super) fn open(&mut self, peer: PeerId, credit: usize) {
        self.open.insert(peer, credit);
    }

    /// The pull is answered, or its peer is gone.
    pub(super) fn close(&mut self, peer: PeerId) {
        self.open.remove(&peer);
    }

    /// Whether walkers wait for their turn, so that another round is due at once.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Those with room, and how much, beginning behind the walker that was told last.
    pub(super) fn turn(&self) -> Vec<(PeerId, usize)> {
        let last = self.last.unwrap_or(PeerId(u32::MAX));
        let behind = self.open.range((Bound::Excluded(last), Bound::Unbounded));
        behind.chain(self.open.range(..=last)).map(|(peer, credit)| (*peer, *credit)).collect()
    }

    /// A walker has been told something, for itself alone.
    pub(super) fn served(&mut self, walker: PeerId) {
        self.last = Some(walker);
    }

    /// The turn is over; `left` says that walkers still wait.
    pub(super) fn end_turn(&mut self, left: bool) {
        self.waiting = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(turn: &[(PeerId, usize)]) -> Vec<u32> {
        turn.iter().map(|(peer, _)| peer.0).collect()
    }

    #[test]
    fn walkers_take_turns() {
        let mut pulls = Pulls::default();
        (1..=4).for_each(|peer| pulls.open(PeerId(peer), 1));
        assert_eq!(peers(&pulls.turn()), [1, 2, 3, 4]);
        pulls.served(PeerId(2));
        pulls.end_turn(true);
        assert_eq!((peers(&pulls.turn()), pulls.is_waiting()), (vec![3, 4, 1, 2], true));
        pulls.close(PeerId(3));
        pulls.end_turn(false);
        assert_eq!((peers(&pulls.turn()), pulls.is_waiting()), (vec![4, 1, 2], false));
    }
}
