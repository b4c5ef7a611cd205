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
//! | passwords | TCP-MD5 on mesh sessions and a BGPPeer's; the keys change |
//! | workload-peers | local workloads as peers, both families, another AS and the node's own; one goes |
//! | priorities | normal priorities of each family; they change |
//! | filter-deletion | a filter that two peers name is deleted and comes back; one that never was |
//! | live-changes | labels, a filter and an endpoint that change under running sessions |
//! | reflectors, reflectors-v6 | one of the same cluster, one of another, clients by reverse peering, a node with two reflectors |
//! | services, services-disaggregated | ranges and single addresses of the three lists, an excluded node |
//! | communities | prefixAdvertisements by value and name, a node's own list |
//! | two-tors | multipath, NO_EXPORT, disableBGPExport, a filter each way |
//! | ipv6-only, restart | no IPv4 address, identifier by hash; routes of a past life |
//!
//! confd's own fixtures, by name (those that are there twice, for explicit and for global peers or for both families, once), and where each is:
//!
//! | confd | here |
//! |---|---|
//! | mesh/ipip-always, ipip-cross-subnet, ipip-off, vxlan-always; cluster_routes/default, enabled, ipip-only, noencap-only; mesh/restart-time/pcr-… | cluster-routes-… |
//! | mesh/bgp-export | two-tors, mesh-options |
//! | mesh/communities, its step2 | communities; the change of a list as a step: `tests/calico/laws.rs` |
//! | mesh/hash, static-routes-no-ipv4-address | ipv6-only; the hash itself: `calico::compile` |
//! | mesh/password step1 to step3 | passwords: mesh and BGPPeer, and the change of each key; a key that is lost: `tests/live/keys.rs` (better: BIRD then goes on unsigned) |
//! | mesh/restart-time | mesh-options |
//! | mesh/route-reflector-mesh-enabled | reflectors for the sessions; both kinds beside each other: `tests/calico/edge_cases.rs`, `topologies/mesh-to-reflectors.clab.yml` |
//! | mesh/static-routes, -exclude-node | services, services-disaggregated; an endpoint that comes and goes: live-changes |
//! | explicit_peering/global, global-external, global-ipv6, specific_node, local-as…, keepnexthop… | session-options-v4/-v6 |
//! | explicit_peering/selectors, its step2 | live-changes, reflectors |
//! | explicit_peering/route_reflector, route_reflector_v6_by_ip | reflectors, reflectors-v6 |
//! | explicit_peering/local_bgp_peer | workload-peers |
//! | bgpfilter/match_operators, match_source, match_interface, peer_type, as_path_and_priority, large_community, communities_and_operations, import_only, export_only, single_filter, multi_filter, v4_only, v6_only | filters-… |
//! | bgpfilter/node_mesh and its priorities, kubevirt_live_migration | mesh, example-…: rank and LOCAL_PREF of elevated routes; priorities: other normal priorities, which change |
//! | bgpfilter/filter_deletion, non_existent_filter | filter-deletion; better: BIRD drops the restriction silently, margay does so with a problem that names the filter (`tests/calico/bad_documents.rs`) |
//! | bgpfilter/filter_names | not applicable: names of functions in BIRD's configuration |
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
