//! Export: whether and how a path is advertised to the members of a group.
//!
//! ```text
//! path → rules of the protocol (who may hear it; next hop, AS_PATH, reflection) → export policy → what only
//!        the wire drops (LOCAL_PREF and reflection attributes towards another AS) → as sent
//! ```
//! What comes out is mostly said as a rewrite of what went in ([`sent`](super::sent)), and not kept.
//!
//! As in BIRD, the protocol's changes come before the policy: a condition on the AS path sees our AS in front,
//! and a prepended list stands in front of it. What differs between the members of a group (split horizon, a
//! peer's own address as next hop) is applied inside the group.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::RibConfig;
use super::attributes::Interner;
use super::next_hop::NextHops;
use super::path::Source;
use super::sent::{Rewrites, Sent};
use crate::config::{self, NextHopMode};
use crate::origin::{LocalRoute, LocalTarget};
use crate::policy::{DEFAULT_LOCAL_PREF, Policy, RouteSource, Ruling, Subject, Verdict};
use crate::session::SessionFacts;
use crate::types::{
    AsPath, Asn, AttributeCodes, Attributes, ClusterId, Community, Family, NextHop, PeerId, PerFamily, SegmentKind, family_of,
};
use crate::wire;

/// What a peer is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// In another AS.
    External,
    /// In our AS, no client of our cluster.
    Internal,
    /// In our AS and a client of our cluster.
    Client,
}

/// All that decides what a peer hears: peers with equal keys form one group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GroupKey {
    /// What encoding depends on; what concerns receiving is made equal.
    pub(super) context: wire::Context,
    /// What the peers are to us.
    pub(super) role: Role,
    local_asn: Asn,
    /// They may hear LLGR_STALE paths.
    long_lived: bool,
    /// They do not know LLGR_STALE and hear such paths all the same, as the last choice inside our AS.
    partial: bool,
    local: IpAddr,
    local_link: Option<(std::net::Ipv6Addr, u32)>,
    /// We and the peer are on one link (N4).
    shared_link: bool,
    mode: NextHopMode,
    cluster: ClusterId,
    policies: PerFamily<Arc<Policy>>,
    /// The node is drained (RFC 8326).
    draining: bool,
    /// Our role towards them (RFC 9234).
    ours: Option<config::Role>,
    /// Private AS numbers are left out of paths.
    remove_private: bool,
    /// This AS number in paths is replaced by ours.
    replaced: Option<Asn>,
}

impl GroupKey {
    /// The key of a session. Our identifier stands in for a cluster id that is not configured (E4).
    pub(super) fn new(facts: &SessionFacts, rib: &RibConfig, draining: bool) -> Self {
        let config = &facts.config;
        let role = match (config.is_ibgp(), config.reflector_client) {
            (false, _) => Role::External,
            (true, false) => Role::Internal,
            (true, true) => Role::Client,
        };
        let context = wire::Context {
            add_path_receive: PerFamily::default(),
            enhanced_refresh: false,
            receive_limit: 0,
            peer_asn: Asn(0),
            check_first_as: false,
            allow_as_set: false,
            discard: AttributeCodes::default(),
            ebgp: role == Role::External,
            ..facts.context.clone()
        };
        Self {
            context,
            role,
            local_asn: config.local_asn,
            long_lived: facts.long_lived,
            partial: config.long_lived_partial && !facts.long_lived && role != Role::External,
            local: facts.local,
            local_link: facts.local_link,
            shared_link: config.is_directly_connected(),
            mode: config.next_hop_mode,
            cluster: config.cluster_id.or(rib.cluster_id).unwrap_or(ClusterId(rib.router_id.0)),
            policies: config.export.clone(),
            draining,
            ours: config.role.filter(|_| role == Role::External).map(|ours| ours.role),
            remove_private: config.as_path.remove_private && role == Role::External,
            replaced: (config.as_path.replace_peer && role == Role::External).then_some(config.remote_asn),
        }
    }

    /// The next hop that stands for us (N6, N8); none where we have no address that could.
    fn own_next_hop(&self, family: Family, next_hops: &NextHops) -> Option<NextHop> {
        let sibling = |v4| next_hops.sibling_address(self.local, v4).map(NextHop::Global);
        match (family, self.local) {
            (Family::IPV4_UNICAST, IpAddr::V4(_)) => Some(NextHop::Global(self.local)),
            (Family::IPV4_UNICAST, IpAddr::V6(_)) if self.context.extended_next_hop => Some(self.own_v6(next_hops)),
            (Family::IPV4_UNICAST, IpAddr::V6(_)) => sibling(true),
            (Family::IPV6_UNICAST, IpAddr::V6(_)) => Some(self.own_v6(next_hops)),
            (Family::IPV6_UNICAST, IpAddr::V4(_)) => sibling(false),
            _ => None,
        }
    }

    fn own_v6(&self, next_hops: &NextHops) -> NextHop {
        match (self.local, self.local_link) {
            (IpAddr::V6(local), Some((link_local, interface))) if local.is_unicast_link_local() => match next_hops.global_on(interface) {
                Some(global) => NextHop::GlobalAndLinkLocal { global, link_local, interface },
                None => NextHop::LinkLocal { address: link_local, interface },
            },
            (IpAddr::V6(global), None) if self.shared_link => match next_hops.link_local_beside(global) {
                Some((link_local, interface)) => NextHop::GlobalAndLinkLocal { global, link_local, interface },
                None => NextHop::Global(self.local),
            },
            _ => NextHop::Global(self.local),
        }
    }

    /// Whether a message of this group can carry the next hop.
    fn carries(&self, family: Family, next_hop: NextHop) -> bool {
        match (family, next_hop.address()) {
            (Family::IPV4_UNICAST, IpAddr::V6(_)) => self.context.extended_next_hop,
            (Family::IPV6_UNICAST, IpAddr::V4(_)) => false,
            _ => true,
        }
    }
}

/// A path as export sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// The prefix.
    pub(super) prefix: IpNet,
    /// After import policy; interned.
    pub(super) attributes: &'a Arc<Attributes>,
    /// Its source.
    pub(super) source: &'a Source,
    /// The local route, for those.
    pub(super) local: Option<&'a LocalRoute>,
    /// Name of the outgoing interface.
    pub(super) interface: Option<&'a str>,
    /// Preference between protocols.
    pub(super) preference: u8,
}

/// Why a path is not advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Our restart is not over: routes of peers are held back (section 11 of the bar).
    Recovery,
    /// iBGP to iBGP, and neither is a client (E1, E4).
    NotReflected,
    /// NO_ADVERTISE (E5).
    NoAdvertise,
    /// LLGR_STALE towards a peer that does not understand it (RFC 9494 section 4.3).
    LongLivedStale,
    /// NO_EXPORT or NO_EXPORT_SUBCONFED towards another AS (E5).
    NoExport,
    /// ONLY_TO_CUSTOMER towards a provider, a lateral peer or a route server (RFC 9234).
    OnlyToCustomer,
    /// An AS_SET, which is sent to nobody (RFC 9774), although this peer's are let in.
    AsSet,
    /// The next hop cannot be sent, and we have no address to stand in for it (N8).
    NextHop,
    /// The export policy.
    Policy(Ruling),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recovery => "held back until our own restart is over",
            Self::NotReflected => "learned over iBGP, and neither side is a route reflector client",
            Self::NoAdvertise => "carries NO_ADVERTISE",
            Self::NoExport => "carries NO_EXPORT",
            Self::LongLivedStale => "carries LLGR_STALE, and the peer does not know long-lived graceful restart",
            Self::OnlyToCustomer => "carries ONLY_TO_CUSTOMER, and the peer is a provider, a lateral peer or a route server (RFC 9234)",
            Self::AsSet => "its AS_PATH holds an AS_SET, which is told to nobody (RFC 9774)",
            Self::NextHop => "no next hop that the peer could use: no address of the family on the session's interface",
            Self::Policy(_) => "refused by export policy",
        })
    }
}

/// Export of one group.
#[derive(Clone, Debug)]
pub(super) struct Exporter {
    key: GroupKey,
    own: PerFamily<Option<NextHop>>,
    /// Of this round; nothing is in it between rounds.
    memo: Vec<Option<Memo>>,
    /// A bit for each place of it that is in use.
    used: u8,
    changed: Option<Changed>,
}

/// What the protocol makes of an attribute set of a source: the same for all its prefixes.
#[derive(Clone, Debug)]
struct Memo {
    attributes: Arc<Attributes>,
    origin: Origin,
    next_hop: NextHop,
    before_policy: Attributes,
    sent: Sent,
}

/// What an export policy made of an attribute set last.
#[derive(Clone, Debug)]
struct Changed {
    attributes: Arc<Attributes>,
    content: Attributes,
    sent: Sent,
}

/// All that the protocol's rules look at besides the attributes, but for the local route of those that are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    kind: RouteSource,
    peer: Option<PeerId>,
    is_plain_ibgp: bool,
    local_asn: Asn,
    family: Family,
}

impl Origin {
    fn of(path: &Candidate<'_>) -> Self {
        let Source { kind, peer, local_asn, .. } = *path.source;
        Self { kind, peer, is_plain_ibgp: path.source.is_plain_ibgp(), local_asn, family: family_of(&path.prefix) }
    }
}

impl Exporter {
    const MEMO: usize = u8::BITS as usize;

    /// Export by this key.
    pub(super) fn new(key: GroupKey, next_hops: &NextHops) -> Self {
        let own = PerFamily::<()>::default().map(|family, ()| key.own_next_hop(family, next_hops));
        Self { key, own, memo: Vec::new(), used: 0, changed: None }
    }

    /// The key.
    pub(super) fn key(&self) -> &GroupKey {
        &self.key
    }

    /// Looks again at our own addresses; true if another next hop stands for us now.
    pub(super) fn renew(&mut self, next_hops: &NextHops) -> bool {
        let own = PerFamily::<()>::default().map(|family, ()| self.key.own_next_hop(family, next_hops));
        let changed = own != self.own;
        if changed {
            self.own = own;
            self.forget();
        }
        changed
    }

    /// Drops what is remembered between the paths of a round, so that it keeps no attributes alive.
    pub(super) fn forget(&mut self) {
        while self.used != 0 {
            if let Some(slot) = self.memo.get_mut(self.used.trailing_zeros() as usize) {
                *slot = None;
            }
            self.used &= self.used - 1;
        }
        self.changed = None;
    }

    /// What is sent to the group, or why it is not told.
    pub(super) fn export(&mut self, path: &Candidate<'_>, interner: &mut Interner, rewrites: &mut Rewrites) -> Result<Sent, Refusal> {
        let memo = self.prepare(path, interner, rewrites)?;
        let prepared = self.memo.get(memo).and_then(Option::as_ref).ok_or(Refusal::NextHop)?;
        let mut subject = self.subject(path, &prepared.before_policy);
        let ruling = self.policy(path).apply(&mut subject);
        if ruling.verdict == Verdict::Reject {
            return Err(Refusal::Policy(ruling));
        }
        match subject.attributes {
            Cow::Borrowed(_) => Ok(prepared.sent.clone()),
            Cow::Owned(changed) => Ok(self.send_changed(path.attributes, self.strip(changed), interner, rewrites)),
        }
    }

    fn send_changed(&mut self, held: &Arc<Attributes>, content: Attributes, interner: &mut Interner, rewrites: &mut Rewrites) -> Sent {
        let last = self.changed.as_ref().filter(|last| Arc::ptr_eq(&last.attributes, held) && last.content == content);
        if let Some(last) = last {
            return last.sent.clone();
        }
        let sent = rewrites.send(held, &content, interner);
        self.changed = Some(Changed { attributes: Arc::clone(held), content, sent: sent.clone() });
        sent
    }

    /// The same, and why, in words.
    pub(super) fn explain(
        &mut self,
        path: &Candidate<'_>,
        interner: &mut Interner,
        rewrites: &mut Rewrites,
    ) -> (Result<Sent, Refusal>, String) {
        let result = self.export(path, interner, rewrites);
        let because = match &result {
            Err(Refusal::Policy(ruling)) => self.policy(path).reason(ruling, &path.prefix),
            Err(refusal) => refusal.to_string(),
            Ok(_) if self.key.draining => {
                let term = self.accepting_term(path, interner, rewrites).unwrap_or_default();
                format!("{term}; with GRACEFUL_SHUTDOWN (65535:0), because the node is drained")
            }
            Ok(_) => self.accepting_term(path, interner, rewrites).unwrap_or_default(),
        };
        (result, because)
    }

    fn accepting_term(&mut self, path: &Candidate<'_>, interner: &mut Interner, rewrites: &mut Rewrites) -> Option<String> {
        let memo = self.prepare(path, interner, rewrites).ok()?;
        let prepared = self.memo.get(memo)?.as_ref()?;
        let ruling = self.policy(path).apply(&mut self.subject(path, &prepared.before_policy));
        Some(self.policy(path).reason(&ruling, &path.prefix))
    }

    fn policy(&self, path: &Candidate<'_>) -> &Policy {
        match path.prefix {
            IpNet::V4(_) => &self.key.policies.ipv4,
            IpNet::V6(_) => &self.key.policies.ipv6,
        }
    }

    fn subject<'a>(&self, path: &Candidate<'a>, attributes: &'a Attributes) -> Subject<'a> {
        Subject {
            prefix: path.prefix,
            source: path.source.kind,
            interface: path.interface,
            session_is_ebgp: self.key.role == Role::External,
            metric: path.local.and_then(|local| local.metric),
            preference: path.preference,
            attributes: Cow::Borrowed(attributes),
        }
    }

    fn admit(&self, path: &Candidate<'_>) -> Result<(), Refusal> {
        if path.source.is_plain_ibgp() && self.key.role == Role::Internal && self.is_of_our_as(path) {
            return Err(Refusal::NotReflected);
        }
        let upwards = matches!(self.key.ours, Some(config::Role::Customer | config::Role::Peer | config::Role::RouteServerClient));
        if upwards && path.attributes.rare.only_to_customer.is_some() {
            return Err(Refusal::OnlyToCustomer);
        }
        self.well_known(path.attributes)
    }

    /// With `localASNumber` this node may be inside two ASes. From one to the other is no reflection, as in BIRD.
    fn is_of_our_as(&self, path: &Candidate<'_>) -> bool {
        path.source.local_asn == self.key.local_asn
    }

    /// Decided on the path as we hold it. What the export policy adds is meant for the peer: NO_EXPORT among the communities of
    /// Calico's `prefixAdvertisements` is for a top-of-rack router to obey, as in BIRD.
    fn well_known(&self, attributes: &Attributes) -> Result<(), Refusal> {
        let external = self.key.role == Role::External;
        for community in &attributes.communities {
            match *community {
                Community::LLGR_STALE if !self.key.long_lived && !self.key.partial => return Err(Refusal::LongLivedStale),
                Community::NO_ADVERTISE => return Err(Refusal::NoAdvertise),
                Community::NO_EXPORT | Community::NO_EXPORT_SUBCONFED if external => return Err(Refusal::NoExport),
                _ => {}
            }
        }
        Ok(())
    }

    /// Finds or makes the memo of a path's attributes, if the protocol lets them through; its place.
    fn prepare(&mut self, path: &Candidate<'_>, interner: &mut Interner, rewrites: &mut Rewrites) -> Result<usize, Refusal> {
        let origin = Origin::of(path);
        let place = (Arc::as_ptr(path.attributes).addr() >> 6) % Self::MEMO;
        let known = |memo: &&Memo| Arc::ptr_eq(&memo.attributes, path.attributes) && memo.origin == origin;
        let memo = self.memo.get(place).and_then(Option::as_ref).filter(known);
        if memo.is_some() && path.local.is_none() {
            return Ok(place);
        }
        self.admit(path)?;
        let next_hop = self.next_hop(path)?;
        if memo.is_some_and(|memo| memo.next_hop == next_hop) {
            return Ok(place);
        }
        if path.attributes.as_path.segments().any(|segment| segment.kind == SegmentKind::Set) {
            return Err(Refusal::AsSet);
        }
        let before_policy = self.before_policy(path, next_hop);
        let sent = match self.carries_as_it_is(&before_policy) {
            true => rewrites.send(path.attributes, &before_policy, interner),
            false => rewrites.send(path.attributes, &self.strip(before_policy.clone()), interner),
        };
        if self.memo.is_empty() {
            self.memo.resize_with(Self::MEMO, || None);
        }
        self.used |= 1 << place;
        if let Some(slot) = self.memo.get_mut(place) {
            *slot = Some(Memo { attributes: Arc::clone(path.attributes), origin, next_hop, before_policy, sent });
        }
        Ok(place)
    }

    fn before_policy(&self, path: &Candidate<'_>, next_hop: NextHop) -> Attributes {
        let as_path = match self.key.role {
            Role::External => self.path_outside(&path.attributes.as_path),
            Role::Internal | Role::Client => path.attributes.as_path.clone(),
        };
        let mut out = path.attributes.by_way_of(next_hop, as_path);
        match self.key.role {
            Role::External => self.leave_as(path, &mut out),
            Role::Internal | Role::Client if path.source.kind == RouteSource::Ibgp && self.is_of_our_as(path) => {
                out.rare.originator_id.get_or_insert(path.source.identifier);
                out.rare.cluster_list.insert(0, self.key.cluster);
            }
            Role::Internal | Role::Client => {}
        }
        out
    }

    /// E2: our AS in front; nothing that belongs inside an AS.
    fn path_outside(&self, path: &AsPath) -> AsPath {
        let confederation = |kind| matches!(kind, SegmentKind::ConfedSequence | SegmentKind::ConfedSet);
        let inside = path.segments().any(|segment| confederation(segment.kind));
        if !inside && !self.key.remove_private && self.key.replaced.is_none() {
            return path.prepend(&[self.key.local_asn]);
        }
        let mut path = path.of_kinds(|kind| !confederation(kind));
        if self.key.remove_private {
            path = path.rewritten(|asn| (!asn.is_private()).then_some(asn));
        }
        if let Some(replaced) = self.key.replaced {
            path = path.rewritten(|asn| Some(if asn == replaced { self.key.local_asn } else { asn }));
        }
        path.prepend(&[self.key.local_asn])
    }

    /// E2 of all but the path. A MED learned from one AS is not shown to another.
    fn leave_as(&self, path: &Candidate<'_>, out: &mut Attributes) {
        if path.source.kind.is_bgp() {
            out.med = None;
        }
        if let Some(config::Role::Provider | config::Role::Peer | config::Role::RouteServer) = self.key.ours {
            out.rare.only_to_customer.get_or_insert(self.key.local_asn);
        }
        if !out.rare.extended_communities.iter().all(|community| community.is_transitive()) {
            out.rare.extended_communities.retain(|community| community.is_transitive());
        }
        if !out.rare.ipv6_extended_communities.iter().all(|community| community.is_transitive()) {
            out.rare.ipv6_extended_communities.retain(|community| community.is_transitive());
        }
    }

    /// Calico's rule of next hops. Routes of our own: ourselves, unless they have one gateway and the session
    /// is iBGP or keeps next hops. Learned routes: kept on iBGP and where next hops are kept, else ourselves.
    fn next_hop(&self, path: &Candidate<'_>) -> Result<NextHop, Refusal> {
        let family = family_of(&path.prefix);
        let own = self.own.of(family).copied().flatten();
        let keeps = match self.key.mode {
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => self.key.role != Role::External,
        };
        let theirs = match path.local {
            Some(local) => gateway(local).map(NextHop::Global),
            None => passed_on(path.attributes.next_hop),
        };
        let kept = theirs.filter(|next_hop| keeps && self.key.carries(family, *next_hop));
        kept.or(own).ok_or(Refusal::NextHop)
    }

    /// Whether [`strip`](Self::strip) would change nothing: mostly so, and that is told without a copy.
    fn carries_as_it_is(&self, attributes: &Attributes) -> bool {
        let plain = match self.key.role {
            Role::External => {
                attributes.local_pref.is_none() && attributes.rare.originator_id.is_none() && attributes.rare.cluster_list.is_empty()
            }
            Role::Internal | Role::Client => attributes.local_pref.is_some(),
        };
        plain && !self.key.draining && !(self.key.partial && attributes.has_community(Community::LLGR_STALE))
    }

    /// What the wire to this group does not carry, or must.
    fn strip(&self, mut attributes: Attributes) -> Attributes {
        if self.key.role == Role::External {
            attributes.local_pref = None;
            if attributes.rare.originator_id.is_some() || !attributes.rare.cluster_list.is_empty() {
                (attributes.rare.originator_id, attributes.rare.cluster_list) = (None, Vec::new());
            }
        } else {
            attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        }
        if self.key.partial && attributes.has_community(Community::LLGR_STALE) {
            attributes.add_community(Community::NO_EXPORT);
            attributes.local_pref = Some(0);
        }
        if self.key.draining {
            attributes.add_community(Community::GRACEFUL_SHUTDOWN);
            attributes.local_pref = attributes.local_pref.map(|_| 0);
        }
        attributes
    }
}

/// The only gateway of a local route.
fn gateway(local: &LocalRoute) -> Option<IpAddr> {
    match &local.target {
        LocalTarget::Via(hops) => match hops.as_slice() {
            [hop] => hop.gateway,
            _ => None,
        },
        LocalTarget::Gateway(gateway) => Some(*gateway),
        LocalTarget::Blackhole => None,
    }
}

/// A link-local address means nothing on another link (N3).
fn passed_on(next_hop: NextHop) -> Option<NextHop> {
    match next_hop {
        NextHop::Global(_) => Some(next_hop),
        NextHop::GlobalAndLinkLocal { global, .. } => Some(NextHop::Global(global.into())),
        NextHop::LinkLocal { .. } => None,
    }
}
