//! Words of the shards as messages. Each shard tells of all sessions, at its own pace: a session is up with the first of them that says so,
//! down with the first that says so, and a view is told in full when all have told theirs.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::rib::Monitored;
use crate::telemetry::bmp::{self, Moment, Subject, View};
use crate::types::{ConnectionId, Family, PeerId, ShardId};

/// See the module.
#[derive(Debug)]
pub(super) struct Teller {
    shards: usize,
    loc_rib: Subject,
    /// Sessions that the collector knows.
    peers: BTreeMap<PeerId, (ConnectionId, Subject)>,
    /// Which session of a peer each shard speaks of.
    heard: BTreeMap<(ShardId, PeerId), ConnectionId>,
    /// How many shards have told all of a view.
    ended: BTreeMap<(Option<PeerId>, View, Family), usize>,
}

impl Teller {
    /// One that has told nothing yet.
    pub(super) fn new(shards: usize, loc_rib: Subject) -> Self {
        Self { shards, loc_rib, peers: BTreeMap::new(), heard: BTreeMap::new(), ended: BTreeMap::new() }
    }

    /// Peers that the collector knows.
    pub(super) fn peers(&self) -> impl Iterator<Item = (PeerId, &Subject)> {
        self.peers.iter().map(|(peer, (_, subject))| (*peer, subject))
    }

    /// The Loc-RIB.
    pub(super) fn loc_rib(&self) -> &Subject {
        &self.loc_rib
    }

    /// Appends the messages for what a shard says.
    pub(super) fn tell(&mut self, shard: ShardId, words: Vec<Monitored>, at: Moment, out: &mut Vec<Bytes>) {
        for word in words {
            match word {
                Monitored::Up(facts) => {
                    self.heard.insert((shard, facts.peer), facts.connection);
                    if self.peers.get(&facts.peer).is_none_or(|(connection, _)| *connection < facts.connection) {
                        self.ended.retain(|(peer, ..), _| *peer != Some(facts.peer));
                        self.peers.insert(facts.peer, (facts.connection, Subject::peer(&facts)));
                        out.push(bmp::peer_up(&facts, at));
                    }
                }
                Monitored::Down(peer, end) => {
                    if let Some(subject) = self.subject(shard, Some(peer)) {
                        out.push(bmp::peer_down(subject, &end, at));
                        self.peers.remove(&peer);
                    }
                    self.heard.remove(&(shard, peer));
                }
                Monitored::Routes { peer, view, attributes, list } => {
                    if let Some(subject) = self.subject(shard, peer) {
                        bmp::routes(subject, view, attributes.as_deref(), &list, at, out);
                    }
                }
                Monitored::Sent(peer, frames) => {
                    if let Some(subject) = self.subject(shard, Some(peer)) {
                        bmp::sent(subject, &frames, at, out);
                    }
                }
                Monitored::Ended(peer, view, family) => {
                    if self.subject(shard, peer).is_some() {
                        self.end(peer, view, family, at, out);
                    }
                }
            }
        }
    }

    fn end(&mut self, peer: Option<PeerId>, view: View, family: Family, at: Moment, out: &mut Vec<Bytes>) {
        let told = self.ended.entry((peer, view, family)).or_default();
        *told += 1;
        if *told < self.shards {
            return;
        }
        self.ended.remove(&(peer, view, family));
        let subject = match peer {
            Some(peer) => self.peers.get(&peer).map(|(_, subject)| subject),
            None => Some(&self.loc_rib),
        };
        out.extend(subject.map(|subject| bmp::end_of_rib(subject, view, family, at)));
    }

    /// Whom a word is about, unless the shard speaks of a session that is over, or not the collector's yet.
    fn subject(&self, shard: ShardId, peer: Option<PeerId>) -> Option<&Subject> {
        let Some(peer) = peer else { return Some(&self.loc_rib) };
        let (connection, subject) = self.peers.get(&peer)?;
        (self.heard.get(&(shard, peer)) == Some(connection)).then_some(subject)
    }
}
