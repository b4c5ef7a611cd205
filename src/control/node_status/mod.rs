//! CalicoNodeStatus: margay fills the objects that ask for its node, in etcd and in the Kubernetes API.
//!
//! ```text
//! datastore ─Asked─▶ schedule (who is due) ─▶ task ─asks the owners of state─▶ content (the status as JSON) ─▶ StatusWriter
//!                         ▲                    │                                                                  │
//!                         └──── what came of it, problems, metric ◀───────────────────────────────────────────────┘
//! ```
//!
//! An object is filled when it appears or its `spec` changes, and every `updatePeriodSeconds` (0: only then; absent: the
//! object is refused, as Calico ignores it). What is the same but for `lastUpdated` is not written. A write that fails is
//! a problem and counts in `margay_node_status_writes_total`; it is tried again after a second, then twice as long each
//! time up to five minutes, and nothing else waits for it. Objects in files are named at level info and not filled:
//! files belong to whoever wrote them.
//!
//! Where it differs from Calico's reporter, which reads BIRD's sockets (both may run, and say the same of sessions):
//! a class that is not asked for is absent, not empty; a peer that waits passively has its state (`Idle`, `Active`), not
//! none; a Local_Workload peer is left out of `bgp`, and its routes are learned from `BGPPeer`, where Calico's whole update
//! fails; so are multipath routes, each of whose paths is a row of type FIB. Of more than [`content::MOST_ROUTES`] routes
//! the rest is left out, and a problem says so: neither etcd nor the Kubernetes API takes objects much larger.

pub mod content;
mod schedule;
mod task;

pub use task::Task;
