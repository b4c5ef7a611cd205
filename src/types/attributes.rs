//! Path attributes as one value: what decides, what policy changes, what goes out again.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::Serialize;

use super::{AsPath, Asn, Community, LargeCommunity, NextHop, Rare, SharedList};

/// ORIGIN (RFC 4271 5.1.1); lower is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Origin {
    /// From an interior protocol or the node itself.
    #[default]
    Igp = 0,
    /// From the historic EGP.
    Egp = 1,
    /// By other means.
    Incomplete = 2,
}

/// AGGREGATOR (RFC 4271 5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Aggregator {
    /// The AS that aggregated.
    pub asn: Asn,
    /// The router that did.
    pub address: Ipv4Addr,
}

/// An optional transitive attribute that margay does not know: carried, never parsed (U20).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UnknownAttribute {
    /// Flags octet as received; Partial is set and extended length made anew when it is sent on.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// The value, untouched; shared by the forms of a route on its way through import and export.
    pub value: Arc<[u8]>,
}

/// Which known optional transitive attributes came with the Partial bit: some router on the way did not know them, so they may lack
/// what it should have added. The bit, once set, is set for all who come after (RFC 4271 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Partial(u8);

impl Partial {
    /// The attributes that have a place here, by code: AGGREGATOR, COMMUNITIES, EXTENDED COMMUNITIES, IPv6 EXTENDED COMMUNITIES, LARGE
    /// COMMUNITIES, ONLY_TO_CUSTOMER.
    const CODES: [u8; 6] = [7, 8, 16, 25, 32, 35];

    /// Notes that the attribute came with the bit. One that has no place here never carries it: margay sends it in its own name.
    pub fn insert(&mut self, code: u8) {
        self.0 |= Self::bit(code);
    }

    /// Whether the attribute came with the bit.
    pub fn contains(self, code: u8) -> bool {
        self.0 & Self::bit(code) != 0
    }

    /// Whether none did, as nearly always.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    fn bit(code: u8) -> u8 {
        Self::CODES.iter().position(|known| *known == code).map_or(0, |at| 1 << at)
    }
}

/// The path attributes of a route, next hop included. Lists keep the order received (E9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// ATOMIC_AGGREGATE is present.
    pub atomic_aggregate: bool,
    /// Which of the known attributes are marked as partial.
    #[serde(skip_serializing_if = "Partial::is_empty")]
    pub partial: Partial,
    /// NEXT_HOP, or the one of MP_REACH_NLRI.
    pub next_hop: NextHop,
    /// AS_PATH, merged with AS4_PATH.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// COMMUNITIES.
    pub communities: SharedList<Community>,
    /// What most routes have none of.
    #[serde(flatten)]
    pub rare: Rare,
}

impl Attributes {
    /// The attributes of a route that this node originates: ORIGIN IGP, an empty path, nothing else.
    pub fn originated(next_hop: NextHop) -> Self {
        Self {
            origin: Origin::Igp,
            atomic_aggregate: false,
            partial: Partial::default(),
            next_hop,
            as_path: AsPath::default(),
            med: None,
            local_pref: None,
            communities: SharedList::default(),
            rare: Rare::default(),
        }
    }

    /// The same but for the next hop and the path.
    #[must_use]
    pub fn by_way_of(&self, next_hop: NextHop, as_path: AsPath) -> Self {
        let Self { origin, atomic_aggregate, partial, med, local_pref, .. } = *self;
        let (communities, rare) = (self.communities.clone(), self.rare.clone());
        Self { origin, atomic_aggregate, partial, next_hop, as_path, med, local_pref, communities, rare }
    }

    /// Octets of memory that the set takes as an `Arc`, its own lists included; a list or value that other sets share counts for each of them.
    pub fn octets(&self) -> usize {
        // With the two counters of its `Arc`.
        2 * size_of::<usize>() + size_of::<Self>() + self.as_path.octets() + size_of_val(&*self.communities) + self.rare.octets()
    }

    /// Whether the community is among the standard ones.
    pub fn has_community(&self, community: Community) -> bool {
        self.communities.contains(&community)
    }

    /// Adds a standard community, keeping the list sorted and without duplicates (E9: only lists we change).
    pub fn add_community(&mut self, community: Community) {
        if let Some(longer) = with_sorted(&self.communities, community) {
            self.communities = longer.into();
        }
    }

    /// Adds a large community, keeping the list sorted and without duplicates.
    pub fn add_large_community(&mut self, community: LargeCommunity) {
        if let Some(longer) = with_sorted(&self.rare.large_communities, community) {
            self.rare.large_communities = longer;
        }
    }
}

impl Default for Attributes {
    fn default() -> Self {
        Self::originated(NextHop::Global(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }
}

/// The list with the item, sorted and without duplicates; none if it is there.
fn with_sorted<T: Ord + Copy>(list: &[T], item: T) -> Option<Vec<T>> {
    if list.contains(&item) {
        return None;
    }
    let mut longer: Vec<T> = list.iter().copied().chain([item]).collect();
    longer.sort_unstable();
    longer.dedup();
    Some(longer)
}
