//! The attributes that most routes have none of, in a box that is there only where it is needed. What was received and what is sent share it.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::attributes::{Aggregator, UnknownAttribute};
use super::{Asn, ClusterId, ExtendedCommunity, Ipv6ExtendedCommunity, LargeCommunity, RouterId};

/// Path attributes that most routes have none of. Lists keep the order received (E9); they are `Vec`s because an empty one is a constant.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RareAttributes {
    /// AGGREGATOR, merged with AS4_AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<RouterId>,
    /// ONLY_TO_CUSTOMER (RFC 9234).
    pub only_to_customer: Option<Asn>,
    /// CLUSTER_LIST, the last reflector first.
    pub cluster_list: Vec<ClusterId>,
    /// EXTENDED COMMUNITIES.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// IPv6 EXTENDED COMMUNITIES.
    pub ipv6_extended_communities: Vec<Ipv6ExtendedCommunity>,
    /// LARGE COMMUNITIES.
    pub large_communities: Vec<LargeCommunity>,
    /// Unknown transitive attributes in ascending code order.
    pub unknown: Vec<UnknownAttribute>,
}

static NONE: RareAttributes = RareAttributes {
    aggregator: None,
    originator_id: None,
    only_to_customer: None,
    cluster_list: Vec::new(),
    extended_communities: Vec::new(),
    ipv6_extended_communities: Vec::new(),
    large_communities: Vec::new(),
    unknown: Vec::new(),
};

/// [`RareAttributes`] where there are any. Read as if they were always there; whoever writes to one makes room for all, so look
/// before writing that there is none. Two are equal if their attributes are, whether or not they have made room.
#[derive(Clone, Default)]
pub struct Rare(Option<Arc<RareAttributes>>);

impl Rare {
    /// Whether there is none of them.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|rare| **rare == NONE)
    }

    /// Octets of memory that they take, lists included; a value that other sets share counts for each of them.
    pub fn octets(&self) -> usize {
        let Some(rare) = &self.0 else { return 0 };
        let unknown: usize = rare.unknown.iter().map(|attribute| attribute.value.len()).sum();
        size_of::<RareAttributes>()
            + unknown
            + size_of_val(&*rare.cluster_list)
            + size_of_val(&*rare.extended_communities)
            + size_of_val(&*rare.ipv6_extended_communities)
            + size_of_val(&*rare.large_communities)
            + size_of_val(&*rare.unknown)
    }
}

impl From<RareAttributes> for Rare {
    fn from(rare: RareAttributes) -> Self {
        Self((rare != NONE).then(|| Arc::new(rare)))
    }
}

impl Deref for Rare {
    type Target = RareAttributes;

    fn deref(&self) -> &RareAttributes {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Rare {
    fn deref_mut(&mut self) -> &mut RareAttributes {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl std::fmt::Debug for Rare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Rare {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            _ => **self == **other,
        }
    }
}

impl Eq for Rare {}

impl PartialOrd for Rare {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rare {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

impl Hash for Rare {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Most have none, and are not to pay for eight that are not there.
        match self.is_empty() {
            true => state.write_u8(0),
            false => (**self).hash(state),
        }
    }
}

impl Serialize for Rare {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Seeded;

    #[test]
    fn what_has_made_room_for_nothing_is_as_if_it_had_not() {
        let (mut written, none) = (Rare::default(), Rare::default());
        written.only_to_customer = Some(Asn(1));
        assert!(written != none && none < written && !written.is_empty());
        written.only_to_customer = None;
        let seeded = Seeded::new(7);
        assert!(written == none && written.is_empty());
        assert_eq!(seeded.hash(&written), seeded.hash(&none));
        assert_eq!((none.octets(), Rare::from(RareAttributes::default()).octets()), (0, 0));
    }
}
