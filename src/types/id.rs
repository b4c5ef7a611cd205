//! Identifiers: on the wire (router, cluster, path) and in the house (peer, connection, shard, query).

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// BGP identifier: any non-zero 32-bit number, written as a dotted quad (RFC 6286).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouterId(pub Ipv4Addr);

/// Cluster identifier of a route reflector (RFC 4456).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub Ipv4Addr);

/// Path identifier of ADD-PATH (RFC 7911); 0 where ADD-PATH is not in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PathId(pub u32);

/// A configured peer, for the life of its configuration; numbers are not used again while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub u32);

/// One TCP connection of a peer; numbers grow and are not used again within a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u32);

/// A slice of the prefixes and the task that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

/// One question of the control API to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryId(pub u64);

macro_rules! display_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_inner!(RouterId, ClusterId, PathId, PeerId, ConnectionId, ShardId, QueryId);
