//! A set of prefixes that answers "inside which one?" by one binary search for each length it holds.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::types::canonical;

/// Prefixes of either family, canonical, sorted, without duplicates. They may overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixSet {
    prefixes: Arc<[IpNet]>,
    /// The lengths that occur, longest first.
    lengths: Arc<[u8]>,
}

impl PrefixSet {
    /// The longest prefix of the set that `prefix` is inside of or equal to.
    pub fn covering(&self, prefix: &IpNet) -> Option<IpNet> {
        self.lengths.iter().find_map(|&length| {
            if length > prefix.prefix_len() {
                return None;
            }
            let wider = IpNet::new(prefix.network(), length).ok()?.trunc();
            self.contains(&wider).then_some(wider)
        })
    }

    /// Whether the very prefix is in the set.
    pub fn contains(&self, prefix: &IpNet) -> bool {
        self.prefixes.binary_search(prefix).is_ok()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// The prefixes in order.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.prefixes.iter()
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let mut prefixes: Vec<IpNet> = prefixes.into_iter().map(canonical).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut lengths: Vec<u8> = prefixes.iter().map(IpNet::prefix_len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { prefixes: prefixes.into(), lengths: lengths.into() }
    }
}

impl Serialize for PrefixSet {
    /// The list of prefixes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.prefixes.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn finds_the_longest_covering_prefix() {
        let set: PrefixSet = ["10.0.0.0/8", "10.1.0.7/16", "fd00::/16", "10.1.2.0/32", "10.1.0.0/16"].map(net).into_iter().collect();
        for (prefix, covering) in [
            ("10.2.3.0/24", Some("10.0.0.0/8")),
            ("10.1.2.0/24", Some("10.1.0.0/16")),
            ("10.1.2.0/32", Some("10.1.2.0/32")),
            ("10.1.2.1/32", Some("10.1.0.0/16")),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.0.0.0/7", None),
            ("0.0.0.0/0", None),
            ("11.0.0.0/8", None),
            ("fd00:1::/64", Some("fd00::/16")),
            ("a00::/32", None),
        ] {
            assert_eq!(set.covering(&net(prefix)), covering.map(net), "{prefix}");
        }
        assert_eq!(set.iter().count(), 4);
    }

    #[test]
    fn agrees_with_a_plain_search() {
        let all: Vec<IpNet> = (0..4000_u32)
            .map(|n| {
                let bits = n.wrapping_mul(2_654_435_761);
                IpNet::new(std::net::Ipv4Addr::from(bits).into(), (bits >> 3) as u8 % 33).unwrap().trunc()
            })
            .collect();
        let set: PrefixSet = all.iter().copied().step_by(40).collect();
        for prefix in &all {
            let plain = set.iter().filter(|p| p.contains(prefix)).max_by_key(|p| p.prefix_len()).copied();
            assert_eq!(set.covering(prefix), plain, "{prefix}");
        }
    }
}
