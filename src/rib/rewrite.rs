//! What becomes of an attribute set on its way to the members of a group, where that is soon said: most of what is sent differs from
//! what is held in its next hop, in the ASes in front of its path, and in what an AS or its reflectors keep to themselves; and
//! that difference is the same for nearly all routes of a group.

use std::hash::{Hash, Hasher};

use smallvec::SmallVec;

use crate::types::{Asn, Attributes, ClusterId, NextHop, RareAttributes, RouterId};

/// What becomes of one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field<T> {
    #[default]
    Kept,
    Set(T),
}

impl<T: Copy + PartialEq> Field<T> {
    fn between(held: T, sent: T) -> Self {
        if held == sent { Self::Kept } else { Self::Set(sent) }
    }

    fn set(self) -> Option<T> {
        match self {
            Self::Kept => None,
            Self::Set(sent) => Some(sent),
        }
    }

    fn of(self, held: T) -> T {
        self.set().unwrap_or(held)
    }
}

impl<T: Copy + PartialEq> Field<Option<T>> {
    /// One that is not sent is dropped, whether or not it is held: so there are fewer rewrites.
    fn sent(held: Option<T>, sent: Option<T>) -> Self {
        if sent.is_none() { Self::Set(None) } else { Self::between(held, sent) }
    }
}

/// What becomes of CLUSTER_LIST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Clusters {
    #[default]
    Kept,
    /// With one more in front.
    Behind(ClusterId),
    Dropped,
}

impl Clusters {
    fn between(held: &[ClusterId], sent: &[ClusterId]) -> Option<Self> {
        match sent.split_first() {
            _ if sent == held => Some(Self::Kept),
            None => Some(Self::Dropped),
            Some((first, rest)) => (rest == held).then_some(Self::Behind(*first)),
        }
    }
}

/// The difference between a set that is held and what is sent of it, but for its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    next_hop: Field<NextHop>,
    med: Field<Option<u32>>,
    local_pref: Field<Option<u32>>,
    originator_id: Field<Option<RouterId>>,
    only_to_customer: Field<Option<Asn>>,
    clusters: Clusters,
}

/// The difference between a set that is held and what is sent of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rewrite {
    fields: Fields,
    prepended: SmallVec<[Asn; 4]>,
}

impl Hash for Rewrite {
    /// What many of a group may differ in.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Fields { next_hop, med, originator_id, .. } = &self.fields;
        next_hop.set().map(NextHop::address).hash(state);
        med.set().hash(state);
        originator_id.set().hash(state);
    }
}

impl Fields {
    fn with_rare(self, held: &RareAttributes, sent: &RareAttributes) -> Option<Self> {
        let RareAttributes {
            aggregator,
            originator_id,
            only_to_customer,
            cluster_list,
            extended_communities,
            ipv6_extended_communities,
            large_communities,
            unknown,
        } = sent;
        let kept = *aggregator == held.aggregator
            && *extended_communities == held.extended_communities
            && *ipv6_extended_communities == held.ipv6_extended_communities
            && *large_communities == held.large_communities
            && *unknown == held.unknown;
        kept.then_some(())?;
        Some(Self {
            originator_id: Field::between(held.originator_id, *originator_id),
            only_to_customer: Field::between(held.only_to_customer, *only_to_customer),
            clusters: Clusters::between(&held.cluster_list, cluster_list)?,
            ..self
        })
    }
}

impl Rewrite {
    /// What makes `sent` of `held`, if a rewrite does: its fields, and the ASes that it puts in front of the path.
    pub fn between<'a>(held: &Attributes, sent: &'a Attributes) -> Option<(Fields, &'a [Asn])> {
        let Attributes { origin, atomic_aggregate, partial, next_hop, as_path, med, local_pref, communities, rare } = sent;
        let kept = (origin, atomic_aggregate, partial) == (&held.origin, &held.atomic_aggregate, &held.partial);
        if !kept || *communities != held.communities {
            return None;
        }
        let fields = Fields {
            next_hop: Field::between(held.next_hop, *next_hop),
            med: Field::sent(held.med, *med),
            local_pref: Field::sent(held.local_pref, *local_pref),
            ..Fields::default()
        };
        let fields = if *rare == held.rare { fields } else { fields.with_rare(&held.rare, rare)? };
        Some((fields, as_path.prepended_to(&held.as_path)?))
    }

    /// The one of these fields that prepends these ASes.
    pub fn new((fields, prepended): (Fields, &[Asn])) -> Self {
        Self { fields, prepended: prepended.into() }
    }

    /// Whether it is the one of these fields that prepends these ASes.
    pub fn is(&self, (fields, prepended): &(Fields, &[Asn])) -> bool {
        self.fields == *fields && self.prepended[..] == **prepended
    }

    /// What is sent of the set.
    pub fn of(&self, held: &Attributes) -> Attributes {
        let mut sent = held.by_way_of(self.next_hop(held), held.as_path.prepend(&self.prepended));
        sent.med = self.fields.med.of(held.med);
        sent.local_pref = self.fields.local_pref.of(held.local_pref);
        if let Field::Set(originator) = self.fields.originator_id {
            sent.rare.originator_id = originator;
        }
        if let Field::Set(asn) = self.fields.only_to_customer {
            sent.rare.only_to_customer = asn;
        }
        match self.fields.clusters {
            Clusters::Kept => {}
            Clusters::Behind(cluster) => sent.rare.cluster_list.insert(0, cluster),
            Clusters::Dropped => sent.rare.cluster_list = Vec::new(),
        }
        sent
    }

    /// The next hop that is sent.
    pub fn next_hop(&self, held: &Attributes) -> NextHop {
        self.fields.next_hop.of(held.next_hop)
    }

    /// The ORIGINATOR_ID that is sent.
    pub fn originator_id(&self, held: &Attributes) -> Option<RouterId> {
        self.fields.originator_id.of(held.rare.originator_id)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::types::{AsPath, Community, LargeCommunity};

    const CLUSTER: ClusterId = ClusterId(Ipv4Addr::new(244, 0, 0, 1));
    const OTHER: ClusterId = ClusterId(Ipv4Addr::new(244, 0, 0, 2));

    fn held() -> Attributes {
        let mut held = Attributes {
            as_path: AsPath::sequence([Asn(1), Asn(2)]),
            med: Some(1),
            local_pref: Some(100),
            communities: [Community(7)].into(),
            ..Attributes::default()
        };
        held.rare.cluster_list = vec![CLUSTER];
        held.rare.large_communities = vec![LargeCommunity(1, 2, 3)];
        held
    }

    fn sent(change: impl FnOnce(&mut Attributes)) -> Attributes {
        let mut sent = held();
        change(&mut sent);
        sent
    }

    #[test]
    fn what_a_rewrite_says_comes_out_again() {
        let said: [fn(&mut Attributes); 11] = [
            |_| {},
            |sent| sent.next_hop = NextHop::Global(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            |sent| sent.as_path = sent.as_path.prepend(&[Asn(9), Asn(9)]),
            |sent| sent.med = None,
            |sent| sent.med = Some(5),
            |sent| sent.local_pref = None,
            |sent| sent.rare.originator_id = Some(RouterId(Ipv4Addr::new(9, 9, 9, 9))),
            |sent| sent.rare.only_to_customer = Some(Asn(9)),
            |sent| sent.rare.cluster_list = vec![OTHER, CLUSTER],
            |sent| sent.rare.cluster_list = Vec::new(),
            |sent| {
                (sent.med, sent.local_pref, sent.as_path) = (None, Some(0), sent.as_path.prepend(&[Asn(9)]));
                sent.rare.cluster_list = vec![CLUSTER, CLUSTER];
            },
        ];
        for change in said {
            let sent = sent(change);
            let rewrite = Rewrite::new(Rewrite::between(&held(), &sent).unwrap());
            assert!(rewrite.is(&Rewrite::between(&held(), &sent).unwrap()));
            assert_eq!(rewrite.of(&held()), sent);
            assert_eq!((rewrite.next_hop(&held()), rewrite.originator_id(&held())), (sent.next_hop, sent.rare.originator_id));
        }
    }

    #[test]
    fn what_none_says() {
        let unsaid: [fn(&mut Attributes); 7] = [
            |sent| sent.as_path = AsPath::sequence([Asn(2)]),
            |sent| sent.communities = [Community(8)].into(),
            |sent| sent.atomic_aggregate = true,
            |sent| sent.partial.insert(8),
            |sent| sent.rare.cluster_list = vec![OTHER],
            |sent| sent.rare.large_communities.clear(),
            |sent| sent.rare = Default::default(),
        ];
        for change in unsaid {
            assert_eq!(Rewrite::between(&held(), &sent(change)), None);
        }
    }
}
