//! margay: a native BGP route-distribution speaker for Calico-style networks.
#![warn(rustdoc::broken_intra_doc_links)]

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
pub mod types;
pub mod wire;
