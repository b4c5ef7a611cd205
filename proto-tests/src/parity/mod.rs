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
