//! Import: what the protocol's rules and the peer's policy make of what it said.
//!
//! What was received and what was made of it are both kept with the path, as one pointer where they are equal, so a policy change asks nothing of
//! the peer. A refused path stays too: `show` and `explain` name what refused it.

use std::borrow::Cow;
use std::sync::Arc;

use ipnet::IpNet;

use super::RibConfig;
use super::attributes::Interner;
use super::next_hop::{Key, NextHops};
use super::path::Fault;
use crate::config::{PeerConfig, Role, Ttl};
use crate::policy::{Policy, RouteSource, Subject, Verdict};
use crate::session::SessionFacts;
use crate::types::{Asn, Attributes, ClusterId, Community, Family, is_martian};

/// What import makes of a path.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    /// After policy; as received where there is a fault.
    pub(super) attributes: Arc<Attributes>,
    /// As received, where that differs.
    pub(super) received: Option<Arc<Attributes>>,
    /// Why it may not be used.
    pub(super) fault: Option<Fault>,
    /// Preference between protocols.
    pub(super) preference: u8,
}

/// The import rules for one attribute set of one peer: what can be said of it once for all its prefixes.
pub(super) struct Import {
    received: Arc<Attributes>,
    normal: Arc<Attributes>,
    fault: Option<Fault>,
    source: RouteSource,
    policy: Arc<Policy>,
    interface: Option<Arc<str>>,
    changed: Option<Arc<Attributes>>,
}

impl Import {
    /// Looks at an attribute set. `received` must be interned; `interface` is where its next hop resolves to.
    pub(super) fn new(
        rib: &RibConfig,
        facts: &SessionFacts,
        family: Family,
        received: Arc<Attributes>,
        interface: Option<Arc<str>>,
        interner: &mut Interner,
    ) -> Self {
        let config = &facts.config;
        let source = if config.is_ibgp() { RouteSource::Ibgp } else { RouteSource::Ebgp };
        Self {
            fault: loops(rib, config, &received).or_else(|| is_leak(config, &received).then_some(Fault::Leak)),
            normal: normal(config, source, &received, interner),
            received,
            source,
            policy: config.import.of(family).map_or_else(|| Arc::new(Policy::reject()), Arc::clone),
            interface,
            changed: None,
        }
    }

    /// Judges the set for one prefix.
    pub(super) fn judge(&mut self, prefix: IpNet, next_hops: &NextHops, interner: &mut Interner) -> Judgement {
        let fault = self.fault.or_else(|| {
            if is_martian(&prefix) { Some(Fault::Martian) } else { next_hops.is_own_prefix(&prefix).then_some(Fault::OwnPrefix) }
        });
        if fault.is_some() {
            return self.refused(fault);
        }
        let mut subject = self.subject(prefix);
        let ruling = self.policy.apply(&mut subject);
        let preference = subject.preference;
        if ruling.verdict == Verdict::Reject {
            return self.refused(Some(Fault::Policy));
        }
        let attributes = match subject.attributes {
            Cow::Borrowed(_) => Arc::clone(&self.normal),
            Cow::Owned(changed) => self.intern(changed, interner),
        };
        let received = (!Arc::ptr_eq(&attributes, &self.received)).then(|| Arc::clone(&self.received));
        Judgement { attributes, received, fault: None, preference }
    }

    /// The words of the policy about a prefix, for people.
    pub(super) fn explain(
        rib: &RibConfig,
        facts: &SessionFacts,
        family: Family,
        received: &Arc<Attributes>,
        interface: Option<Arc<str>>,
        prefix: IpNet,
    ) -> String {
        let import = Self::new(rib, facts, family, Arc::clone(received), interface, &mut Interner::new(0));
        let ruling = import.policy.apply(&mut import.subject(prefix));
        import.policy.reason(&ruling, &prefix)
    }

    fn subject(&self, prefix: IpNet) -> Subject<'_> {
        Subject {
            prefix,
            source: self.source,
            interface: self.interface.as_deref(),
            session_is_ebgp: self.source == RouteSource::Ebgp,
            metric: None,
            preference: self.source.preference(),
            attributes: Cow::Borrowed(&self.normal),
        }
    }

    fn refused(&self, fault: Option<Fault>) -> Judgement {
        Judgement { attributes: Arc::clone(&self.received), received: None, fault, preference: self.source.preference() }
    }

    /// Neighbouring prefixes of one UPDATE mostly come out the same: look at the last result before hashing.
    fn intern(&mut self, changed: Attributes, interner: &mut Interner) -> Arc<Attributes> {
        match &self.changed {
            Some(last) if **last == changed => Arc::clone(last),
            _ => Arc::clone(self.changed.insert(interner.intern(Arc::new(changed)))),
        }
    }
}

/// How a peer's next hops resolve: one-hop eBGP needs a connected subnet (N9).
pub(super) fn next_hop_key(config: &PeerConfig, attributes: &Attributes) -> Key {
    Key::new(attributes.next_hop, config.ttl == Ttl::Direct && !config.is_ibgp())
}

/// Faults that depend on the attributes alone.
fn loops(rib: &RibConfig, config: &PeerConfig, attributes: &Attributes) -> Option<Fault> {
    let cluster = config.cluster_id.or(rib.cluster_id).unwrap_or(ClusterId(rib.router_id.0));
    if attributes.as_path.count(config.local_asn) > config.allow_local_as as usize {
        Some(Fault::AsLoop)
    } else if attributes.rare.originator_id == Some(rib.router_id) {
        Some(Fault::OriginatorLoop)
    } else if attributes.rare.cluster_list.contains(&cluster) {
        Some(Fault::ClusterLoop)
    } else if attributes.next_hop.is_martian() {
        Some(Fault::NextHop)
    } else {
        None
    }
}

/// L2: a customer, or a client of our route server, passes on what only its own customers should hear; a lateral peer what
/// another one told it.
fn is_leak(config: &PeerConfig, attributes: &Attributes) -> bool {
    let role = config.role.filter(|_| !config.is_ibgp()).map(|ours| ours.role.counterpart());
    match (attributes.rare.only_to_customer, role) {
        (Some(_), Some(Role::Customer | Role::RouteServerClient)) => true,
        (Some(asn), Some(Role::Peer)) => asn != config.remote_asn,
        _ => false,
    }
}

/// L2: what a provider, a lateral peer or a route server tells goes to customers only from here on.
fn marked_by(config: &PeerConfig) -> Option<Asn> {
    let role = config.role.filter(|_| !config.is_ibgp())?.role.counterpart();
    matches!(role, Role::Provider | Role::Peer | Role::RouteServer).then_some(config.remote_asn)
}

/// What the protocol itself changes: LOCAL_PREF of another AS does not count (none stands for 100), and a
/// route that is about to go is the last choice (GRACEFUL_SHUTDOWN, E7).
fn normal(config: &PeerConfig, source: RouteSource, received: &Arc<Attributes>, interner: &mut Interner) -> Arc<Attributes> {
    if source != RouteSource::Ebgp {
        return Arc::clone(received);
    }
    let local_pref = received.has_community(Community::GRACEFUL_SHUTDOWN).then_some(0);
    let only_to_customer = received.rare.only_to_customer.or_else(|| marked_by(config));
    if (received.local_pref, received.rare.only_to_customer) == (local_pref, only_to_customer) {
        return Arc::clone(received);
    }
    let mut normal = Attributes { local_pref, ..Attributes::clone(received) };
    if normal.rare.only_to_customer != only_to_customer {
        normal.rare.only_to_customer = only_to_customer;
    }
    interner.intern(Arc::new(normal))
}
