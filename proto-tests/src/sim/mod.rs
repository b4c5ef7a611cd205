//! The simulator: the real machines of many margays, wired by the runtime's own table, in virtual time, with everything going
//! wrong that can. A seed and a topology are the whole of a run.
//!
//! ```text
//! topologies/x.clab.yml ─spec→ hosts, resources        dice ─→ whose turn, which fault, which delay
//!                                 │                              │
//!   world: [ host: model_kernel + process (Compiler, Origin, Peers, Shards, FibSyncer, Recovery) ]… ─link→ TCP, split and delayed
//!                                 │                              ▲
//!   script: start, trouble, calm ─┴→ invariant: always, after calm ← oracle     fault: what goes wrong
//! ```
//!
//! `cargo simulate` runs it by hand (`--help`); `tests/simulation.rs` in CI: fixed seeds, those of `seeds.txt`, and fresh ones.
//!
//! Always: no panic; what waits anywhere stays within the runtime's bounds; no path of a peer that is down unless it is stale;
//! nothing installed that nobody tells. After calm: every session that two configurations agree on is up; each kernel holds
//! what the [`oracle`] says; what a node has told a peer (Adj-RIB-Out) is what the peer holds (Adj-RIB-In); counters add up.
//!
//! BFD runs beside the sessions that ask for it, at one packet a second, of which one in fifty is lost; nodes are drained and shut down.
//!
//! What is not here: sockets, netlink encoding, files and the control API, which are the lab's and the soak's affair. No machine
//! writes to a disk or asks a wall clock, so a full disk (`tests/live/disk.rs`) and a changed date have nothing to act on; a host's
//! monotonic clock does jump here, and processes are suspended. Links have no link-local addresses.

pub mod clock;
pub mod fault;
pub mod invariant;
pub mod link;
pub mod model_kernel;
pub mod oracle;
pub mod process;
pub mod scale;
pub mod script;
pub mod spec;
pub mod world;
