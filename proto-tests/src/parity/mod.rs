//! Parity: the same Calico node twice, once as BIRD run the way Calico's confd configures it, once as margay from the resources.
//!
//! ```text
//! fixtures/parity/CASE/case.yaml ─┬─ nodes, kernel routes, observers ──→ bench (namespaces) × 2 ─ snapshot ─→ lines
//!                                 ├─ bird: what the documents say ──→ bird (its configuration)               │
//! fixtures/parity/CASE/cluster.yaml ─────────────────────────────────→ margay run                            ↓
//! fixtures/parity/CASE/truth.txt ←── BLESS=1 writes what BIRD did ─────────────────────────────────── compare: equal,
//!                                                                           but for the case's announced `differences`
//! ```
//!
//! A side is one network: the nodes under test, and an outside that is switch, router and all their neighbours. The neighbours are
//! observers ([`observer`]): they speak BGP byte by byte, announce what the case says, and write down all that they hear. What a side
//! comes to is a list of lines ([`snapshot`]): each session's OPEN, each announced path with all its attributes, each route of
//! protocol 12 in the kernel. BIRD's lines are kept in `truth.txt`, so that the comparison is also possible where no BIRD 1.6 can be
//! had; where it can, it is run and must still say the same.
//!
//! A case is data: resources (`cluster`, `resources`), what Calico makes of them for BIRD (`bird`), and who stands around. To write one, copy
//! the nearest; `BLESS=1 cargo test -p proto-tests --test parity -- NAME` lets BIRD write its `truth.txt`, then margay must say the same.
//! Many situations fit into one case, one observer for each:
//!
//! | case | situations |
//! |---|---|
//! | example-… | the worked example of three nodes, each alone, then together |
//! | mesh, mesh-options | full mesh; AS, port and restart time of the cluster, a node in another AS, blocks in every state, a hidden pool in another |
//! | cluster-routes-… | every encapsulation × programClusterRoutes, both families, a node in the subnet and one behind a router |
//! | session-options-v4/-v6 | AS numbers, own AS in paths, restart times, nextHopMode, source, port, scope by node and selector, reachableBy |
//! | filters-export-…, filters-import-… | every operator, condition and operation of a BGPFilter, and filters in a row |
//! | reflectors | one of the same cluster, one of another, clients by reverse peering, a node with two reflectors |
//! | services, services-disaggregated | ranges and single addresses of the three lists, an excluded node |
//! | communities | prefixAdvertisements by value and name, a node's own list |
//! | two-tors | multipath, NO_EXPORT, disableBGPExport, a filter each way |
//! | ipv6-only, restart | no IPv4 address, identifier by hash; routes of a past life |
//!
//! Calico's BIRD is 1.6.8 with changes of its own. What only those can do (writing routes into an IP-in-IP device) stands in the
//! case as an announced difference, worked out by hand.

mod bench;
mod bird;
mod case;
mod compare;
mod message;
mod observer;
mod snapshot;
pub mod suite;

pub use case::Case;
