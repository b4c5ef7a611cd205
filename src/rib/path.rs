//! Path: one candidate for a prefix, and the sources that paths come from.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::next_hop::NextHopId;
use super::original::OriginalId;
use super::stale::Epoch;
use crate::policy::RouteSource;
use crate::session::SessionFacts;
use crate::types::{Asn, Attributes, PathId, PeerId, RouterId};

/// Index of a [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceId(u32);

/// One candidate for a prefix. There may be millions: 24 bytes, nothing of its own on the heap.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// After import policy; as received where a fault keeps the path out.
    pub(super) attributes: Arc<Attributes>,
    /// Where it comes from. A destination has one path of each source.
    pub(super) source: SourceId,
    /// The tracked next hop; none for local routes that need none.
    pub(super) next_hop: Option<NextHopId>,
    /// As received; none where that is the same.
    pub(super) original: Option<OriginalId>,
    /// When it was last told.
    pub(super) told: Epoch,
    /// Preference between protocols.
    pub(super) preference: u8,
    standing: Standing,
}

/// What import and the last decision said of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It may be used.
    Fit,
    /// It is used together with the best.
    Together,
    /// It may not be used.
    Out(Fault),
}

impl Path {
    /// A path that has not been decided yet.
    pub(super) fn new(
        (attributes, original): (Arc<Attributes>, Option<OriginalId>),
        (source, next_hop): (SourceId, Option<NextHopId>),
        told: Epoch,
        (preference, fault): (u8, Option<Fault>),
    ) -> Self {
        Self { attributes, source, next_hop, original, told, preference, standing: fault.map_or(Standing::Fit, Standing::Out) }
    }

    /// Why it may not be used.
    pub(super) fn fault(&self) -> Option<Fault> {
        if let Standing::Out(fault) = self.standing { Some(fault) } else { None }
    }

    /// Whether it is used together with the best.
    pub(super) fn is_multipath(&self) -> bool {
        self.standing == Standing::Together
    }

    /// It is used together with the best from now on, or not any more; whether that is new. What may not be used is not.
    pub(super) fn set_multipath(&mut self, on: bool) -> bool {
        let was = self.is_multipath();
        if self.fault().is_none() {
            self.standing = if on { Standing::Together } else { Standing::Fit };
        }
        was != self.is_multipath()
    }
}

/// Why a path may not be used, whatever its competitors (step 0 of the decision).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The import policy refused it.
    Policy,
    /// Our AS is in its AS_PATH more often than allowed.
    AsLoop,
    /// ORIGINATOR_ID is ours.
    OriginatorLoop,
    /// CLUSTER_LIST has our cluster.
    ClusterLoop,
    /// Its next hop can be no router's address.
    NextHop,
    /// No peer may announce this prefix (M1).
    Martian,
    /// The prefix is an address or a connected subnet of this node (M2).
    OwnPrefix,
    /// ONLY_TO_CUSTOMER shows that it should not have come from this peer (RFC 9234).
    Leak,
}

impl Fault {
    /// In words; [`Fault::Policy`] has better ones, from the policy itself.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Policy => "refused by import policy",
            Self::AsLoop => "our AS is in its AS_PATH",
            Self::OriginatorLoop => "its ORIGINATOR_ID is ours",
            Self::ClusterLoop => "its CLUSTER_LIST has our cluster",
            Self::NextHop => "its next hop is unspecified, loopback or multicast",
            Self::Martian => "a martian: no peer may announce this prefix",
            Self::Leak => "a route leak: ONLY_TO_CUSTOMER (RFC 9234) shows that this peer should not have told it",
            Self::OwnPrefix => "the prefix is an address or connected subnet of this node",
        }
    }
}

/// Where paths come from: a peer and one path identifier, or one of our own protocols.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// What kind.
    pub(super) kind: RouteSource,
    /// Which peer, for BGP.
    pub(super) peer: Option<PeerId>,
    /// The path identifier received.
    pub(super) path_id: PathId,
    /// The peer's BGP identifier; ours, in effect never compared, for local routes.
    pub(super) identifier: RouterId,
    /// The peer's address.
    pub(super) address: IpAddr,
    /// The AS that we use on its session; 0 for local routes.
    pub(super) local_asn: Asn,
    /// The peer is a client of our cluster.
    pub(super) client: bool,
    /// The identifier under which its paths are sent to ADD-PATH peers: one for each source, so it is
    /// the same for a path's whole life, and never used again (X2).
    pub(super) sent: PathId,
    paths: u32,
}

impl Source {
    /// Of a peer; without a sent identifier yet.
    pub(super) fn of_peer(facts: &SessionFacts, path_id: PathId) -> Self {
        let config = &facts.config;
        Self {
            kind: if config.is_ibgp() { RouteSource::Ibgp } else { RouteSource::Ebgp },
            peer: Some(facts.peer),
            path_id,
            identifier: facts.identifier,
            address: facts.remote,
            local_asn: config.local_asn,
            client: config.reflector_client && config.is_ibgp(),
            sent: PathId(0),
            paths: 0,
        }
    }

    /// Whether this is an iBGP peer that is no client of our cluster.
    pub(super) fn is_plain_ibgp(&self) -> bool {
        self.kind == RouteSource::Ibgp && !self.client
    }
}

type Name = (Option<PeerId>, RouteSource, PathId);

/// The sources of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    slots: Vec<Source>,
    names: BTreeMap<Name, SourceId>,
    free: Vec<SourceId>,
    idle: Vec<SourceId>,
    sent: u32,
}

impl Sources {
    /// The source of a peer's paths with this path identifier.
    pub(super) fn of_peer(&mut self, facts: &SessionFacts, path_id: PathId) -> SourceId {
        self.named(Source::of_peer(facts, path_id))
    }

    /// The same, if it is known.
    pub(super) fn find_peer(&self, facts: &SessionFacts, path_id: PathId) -> Option<SourceId> {
        let kind = if facts.config.is_ibgp() { RouteSource::Ibgp } else { RouteSource::Ebgp };
        self.names.get(&(Some(facts.peer), kind, path_id)).copied()
    }

    /// The source of the paths of one of our own protocols.
    pub(super) fn of_local(&mut self, kind: RouteSource) -> SourceId {
        self.named(Source {
            kind,
            peer: None,
            path_id: PathId(0),
            identifier: RouterId(Ipv4Addr::UNSPECIFIED),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            local_asn: Asn(0),
            client: false,
            sent: PathId(0),
            paths: 0,
        })
    }

    /// The source of that number.
    pub(super) fn get(&self, id: SourceId) -> &Source {
        // Ids come from `named` only, and slots are never removed.
        &self.slots[id.0 as usize]
    }

    /// A path of this source has come.
    pub(super) fn hold(&mut self, id: SourceId) {
        self.slots[id.0 as usize].paths += 1;
    }

    /// A path of this source has gone. The source stays known until the end of the round, so a path that is
    /// withdrawn and announced again in one round keeps its sent identifier.
    pub(super) fn release(&mut self, id: SourceId) {
        let source = &mut self.slots[id.0 as usize];
        source.paths -= 1;
        if source.paths == 0 {
            self.idle.push(id);
        }
    }

    /// Forgets sources without paths.
    pub(super) fn finish_round(&mut self) {
        for id in std::mem::take(&mut self.idle) {
            let source = &self.slots[id.0 as usize];
            let name = (source.peer, source.kind, source.path_id);
            if source.paths == 0 && self.names.get(&name) == Some(&id) {
                self.names.remove(&name);
                self.free.push(id);
            }
        }
    }

    /// Takes over what a new session of a peer settled into its sources; true when anything changed that
    /// its old paths were judged by.
    pub(super) fn renew(&mut self, facts: &SessionFacts) -> bool {
        let names = (Some(facts.peer), RouteSource::Ebgp, PathId(0))..=(Some(facts.peer), RouteSource::Ibgp, PathId(u32::MAX));
        let client = facts.config.reflector_client && facts.config.is_ibgp();
        let mut changed = false;
        for id in self.names.range(names).map(|(_, id)| *id) {
            let source = &mut self.slots[id.0 as usize];
            let before = (source.identifier, source.address, source.client);
            (source.identifier, source.address, source.client) = (facts.identifier, facts.remote, client);
            changed |= before != (facts.identifier, facts.remote, client);
        }
        changed
    }

    fn named(&mut self, source: Source) -> SourceId {
        let name = (source.peer, source.kind, source.path_id);
        if let Some(id) = self.names.get(&name) {
            return *id;
        }
        self.sent = self.sent.wrapping_add(1);
        let source = Source { sent: PathId(self.sent), ..source };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id.0 as usize] = source;
                id
            }
            None => {
                self.slots.push(source);
                SourceId(self.slots.len() as u32 - 1)
            }
        };
        self.idle.push(id);
        self.names.insert(name, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_small() {
        assert_eq!(size_of::<Path>(), 24);
    }

    #[test]
    fn x2_sent_identifiers_are_not_used_again() {
        let mut sources = Sources::default();
        let a = sources.of_local(RouteSource::Kernel);
        sources.hold(a);
        let sent = sources.get(a).sent;
        sources.release(a);
        assert_eq!(sources.of_local(RouteSource::Kernel), a, "still known in the same round");
        sources.finish_round();
        let b = sources.of_local(RouteSource::Kernel);
        assert!(sources.get(b).sent > sent);
    }
}
