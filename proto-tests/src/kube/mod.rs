//! A Kubernetes API server for tests, and Calico's resources as its objects.
//!
//! ```text
//! ApiServer ─ served on loopback by a runtime of its own, so that killing it resets every connection
//!   Store     collections of objects, one history of changes with versions, compaction
//!   Behaviour what it does today: no initial events (an old etcd), 403, 404, watches closed early, small pages
//! objects   v3 documents as the objects that Calico's client makes of them
//! real      a real kube-apiserver, where there is one
//! ```
//!
//! It answers as the real one does, as far as a reader can tell: list with pages and selectors, watch with initial events,
//! bookmarks, resumption and 410, metadata-only objects, `Status` objects for every refusal. Tests compare it with
//! recordings of a real server, and with a live one where that is found.

pub mod objects;
pub mod real;
mod server;
mod store;

pub use server::{ApiServer, Asked, Behaviour};
