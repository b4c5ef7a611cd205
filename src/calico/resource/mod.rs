//! Calico v3 resources as serde types, a file each. Keys are Calico's; unknown fields are ignored.
//! Absent, null and empty mean the same unless a field says otherwise.

mod bgp_filter;

use serde::{Deserialize, Deserializer};

pub use bgp_filter::{
    AddCommunity, BgpFilterRule, BgpFilterSpec, FilterRule, MatchCommunities, Operation, PrefixLength, PrependAsPath, SetPriority,
};

/// Reads null as the default value.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
