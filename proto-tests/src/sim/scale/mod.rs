//! Networks of thousands of margays in virtual time, to count what a size costs: messages, octets, time to convergence, memory.
//!
//! ```text
//! plan: resources ─calico::compile→ NodeConfig of each node        pace: how far, how long a step takes
//!         │                                                          │
//! world: heap of arrivals and appointments ─→ node: inbox → Peers → Shard → Peers → octets ─tcp→ world
//!         │                                         └ known: which blocks its Loc-RIB has told the FIB
//!         └→ story: cold start, an idle while, a block comes and goes, a node dies and starts, a reflector starts ─→ report
//! ```
//!
//! `cargo scale mesh 2000` and `cargo scale reflectors 10000` run it; `tests/scale.rs` runs small ones, with assertions on what is counted.
//!
//! Real: resources through margay's compiler; Peer, Shard, Origin and Recovery machines at both ends of every session, wired by
//! `margay::node::wiring`; every octet is encoded by one machine and decoded by another. One shard a node.
//!
//! Modelled: TCP (in order, never lost, any window), the way between two nodes and the time that a node needs ([`pace`]). Nobody
//! meddles: what goes wrong is [`super::world`]'s affair, whose steps cost a look at every host.
//!
//! Left out: the FibSyncer and its kernel (what the Loc-RIB tells the FIB is counted, as with `--no-fib`), BFD, and the compiler's own
//! memory. Resources are compiled once for each node and thrown away.
//!
//! **Light nodes.** Four million ends of sessions, or ten thousand nodes with twenty thousand paths each, do not fit into one machine's
//! memory. So only one node in so many is whole ([`world::Options::whole`]); the others are light, and what that means depends on the shape:
//!
//! * In a mesh a light node has its sessions with the whole nodes alone. A node of an iBGP mesh passes nothing on, so that a whole one
//!   sees, does and holds exactly what it would if all were whole; what a mesh costs is what a whole node costs, times the nodes.
//! * In a hierarchy reflectors are always whole. A light node has its sessions, what it announces comes from a real Shard, and what it hears is
//!   decoded; but then it sets a bit a prefix and session, and no Adj-RIB-In is kept. So messages, octets and times are of all nodes,
//!   and only the memory of a node is that of the whole ones.

pub mod bits;
pub mod node;
pub mod pace;
pub mod plan;
pub mod report;
pub mod story;
pub mod tcp;
pub mod world;
