//! A live margay, driven from loopback addresses as several neighbours.
//!
//! ```text
//! enclosed(test)            the test, run again in a network namespace of its own
//!   Plan → Daemon           resources on disk, `margay run --dry-run`, its control socket
//!     Neighbour             one TCP connection: raw messages out, whole messages in
//!       Observer            a well-behaved neighbour that remembers what it was told
//! ```
//!
//! Nothing of margay's own code is used to write or to read a message: [`message`] writes octets, and [`reading`] is a strict
//! decoder that complains of whatever a strict neighbour could complain of (Q15).

pub mod daemon;
mod enclosed;
pub mod faults;
mod manager;
pub mod message;
pub mod neighbour;
mod observer;
pub mod reading;
pub mod remote;
pub mod signature;
pub mod terminal;

pub use daemon::{Daemon, PeerPlan, Plan};
pub use enclosed::{enclosed, furnish};
pub use manager::ServiceManager;
pub use neighbour::{Heard, Neighbour, Open};
pub use observer::{Observer, Route};
