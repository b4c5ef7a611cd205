//! Everything that proves margay from outside: the lab of topologies, live sessions with neighbours of every kind, stories in
//! virtual time, transcripts, a Kubernetes API server, parity with BIRD, and the wire against a second codec.
// The documentation is for those who work on the tests, and is built with private items.
#![allow(rustdoc::private_intra_doc_links)]

pub mod compare;
pub mod fuzz;
pub mod guide;
pub mod kube;
pub mod lab;
pub mod layout;
pub mod live;
pub mod package;
pub mod parity;
pub mod questions;
pub mod scale;
pub mod shard;
pub mod sim;
pub mod soak;
pub mod story;
pub mod transcript;
pub mod wire;
