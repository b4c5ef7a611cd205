//! The lab: networks of `topologies/*.clab.yml` on the real kernel, with real speakers, without containers.
//!
//! ```text
//! x.clab.yml ─topology→ Topology ─runner→ Lab { nodes: namespaces + programs } ←story─ tests/{topologies,bfd,restarts}, `cargo lab`
//! x/expect.yaml ─expect→ what must come true ── asks ──→ speaker (sessions, paths), kernel (routes), traffic (pings)
//! ```
//!
//! A lab file is real containerlab's format, the strict subset that [`Topology`] lists, and deploys there unchanged ([`container`] makes
//! images of those names, deploys, and asks the same questions); here an image stands for programs of the host (`image`), and a node for
//! namespaces (`namespace`): its own network, its own host name, its own `/run`, and layers over `/etc`, `/var/lib` and `/var/log`. As in
//! containerlab, a node's `cmd` starts before its links exist, and its `exec` lines run when they do.
//!
//! `lab up` leaves a lab running, to which the other verbs find their way (`running`); what goes wrong on it is [`fault`]'s, what is
//! true of it [`Status`]', and what is left of a failure is gathered by `evidence`.
//!
//! What this kernel cannot do another one may: [`vm`]. And [`draw`] makes the pictures.
//!
//! Everything happens in an [`enclosure`], whose end is the end of every process in it: no lab outlives its test, however that dies,
//! several runs cannot collide, and the host's own network is out of reach. Root is not needed where the host lets users make
//! namespaces, except for speakers that change to a user of their own.
//!
//! Workloads are made as Felix makes them: a veth `cali…` with a host route of scope link, and proxy ARP for 169.254.1.1. Proxy ARP
//! answers only if the node has a route to that address, so every node has a default route, as real ones do; and it answers
//! after a random delay unless `proxy_delay` is 0, which Felix sets as well.

pub mod cli;
pub mod container;
mod documented;
pub mod draw;
pub mod enclosure;
pub mod etcd;
mod evidence;
mod expand;
mod expect;
pub mod fault;
pub mod image;
mod kernel;
pub(crate) mod namespace;
pub mod process;
mod runner;
mod running;
pub mod skip;
mod speaker;
mod status;
pub mod suite;
mod topology;
mod traffic;
pub mod vm;
mod witness;

pub use expect::{Carried, Expectations, Verdict};
pub use kernel::{KernelRoute, RouteWatch};
pub use runner::{Lab, Node, Processes};
pub use speaker::{Learned, LearnedPath};
pub use status::Status;
pub use topology::{Bind, End, Healthcheck, Link, Network, Stage, Topology, WaitFor};
pub use traffic::{PacketWatch, Pings, Report};
pub use witness::Witness;
