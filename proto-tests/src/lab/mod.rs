//! The lab: networks of `topologies/*.clab.yml` brought up on the real kernel, in namespaces, with real speakers.

pub mod cli;
pub mod enclosure;
mod expand;
pub mod image;
mod kernel;
mod namespace;
pub mod process;
mod runner;
pub mod suite;
mod topology;

pub use kernel::KernelRoute;
pub use runner::{Lab, Node};
pub use topology::{Bind, End, Healthcheck, Link, Network, Stage, Topology, WaitFor};
