//! margay: a native BGP route-distribution speaker for Calico-style networks. One daemon a node reads Calico's
//! resources, learns the node's workload routes from the kernel, speaks BGP, and installs what it learns.
//!
//! # The idea
//!
//! The protocol is a set of **machines**: plain structs that take `(now, input)` and append to an outbox. A machine
//! never sees a socket, clock, lock or channel. Whose output goes to whose inbox is one pure table ([`node::wiring`]).
//! Every piece of state has one owner; what enters a shard is queued and bounded, what leaves it is *pulled*. Every
//! source of facts (peer, kernel, datastore, local agent) speaks one vocabulary, [`types::Sync`]: begin, upsert, remove, end.
//! Configuration is compiled by a pure, total function and applied as a diff. Whatever margay decides, it remembers why.
//!
//! # The layers (imports go down only)
//!
//! ```text
//! cli                arguments, exit codes, tables and JSON for people
//! runtime  kernel  datastore  control  agent     tokio, netlink, files, the API, workloads
//! ───────────── the wall: below it no tokio, no OS, no clock, no lock ─────────────
//! node               the wiring table; when our own restart is over
//! session  rib  fib  origin  calico       machines; others use their message types only
//! telemetry          what has happened, as data
//! policy  config     compiled policy; what this node is to do
//! wire               bytes ↔ messages
//! types              the vocabulary
//! ```
//!
//! # The walk of an UPDATE
//!
//! ```text
//! socket ─bytes→ wire::frame ─Message→ session ─RouteBatch→ │ rib: Adj-RIB-In → import → (dirty prefixes)
//!                                                           │ decision → Loc-RIB ─┬→ export → Adj-RIB-Out (group)
//! datastore ─Sync→ calico ─diff→ everyone   origin ─Sync→   │                     │       → journal → frames ─pull→ session → socket
//! kernel ─Sync→ origin, fib, rib (next hops)                │                     └→ fib changes ─pull→ fib → netlink
//! ```
//!
//! 1. The peer's task reads once and hands the bytes to its [`session::Peer`], which decodes whole messages and gathers
//!    the UPDATEs of that read into [`session::RouteBatch`]es per shard, each about a thousand prefixes.
//! 2. [`rib::Shard`] keeps what the peer said before and after import policy, marks prefixes dirty, and at the end of its
//!    round decides each: step by step, each loser keeping the step that removed it ([`rib::Step`]).
//! 3. A change of the Loc-RIB waits, coalesced by prefix, until [`fib::FibSyncer`] pulls it, compares it with what the
//!    kernel holds and writes the difference in batches; and it is offered to the update groups: peers that hear the same
//!    thing share one export, one Adj-RIB-Out and one encoding; each has only a cursor.
//! 4. A peer with room in its socket pulls frames from its cursor on; a slow one gets the newest state only.
//!
//! # The walk of a changed BGPPeer
//!
//! [`datastore::FileDatastore`] sees the file change and tells the document ([`calico::Input`]); [`calico::Compiler`]
//! compiles the store into a [`config::NodeConfig`] and problems; the runtime's supervisor takes the
//! [`config::diff`](config::diff::diff) of old and new and tells only those concerned: the task of a new, changed or removed
//! peer, which passes changed policies on to the shards ([`rib::Input::PeerReload`], no session is touched), the listeners for
//! keys and addresses.
#![warn(rustdoc::broken_intra_doc_links)]
// The documentation is for those who work on the house, and is built with private items.
#![allow(rustdoc::private_intra_doc_links)]

pub mod agent;
pub mod bfd;
pub mod calico;
pub mod cli;
pub mod config;
pub mod control;
pub mod datastore;
pub mod fib;
pub mod kernel;
pub mod node;
pub mod origin;
pub mod policy;
pub mod rib;
pub mod runtime;
pub mod session;
pub mod telemetry;
pub mod types;
pub mod wire;
