//! The soak: a margay under churn and violence for as long as one likes, on a real kernel, with real sockets and a real datastore.
//!
//! ```text
//! cargo soak ─cli→ two worlds at once, each in an enclosure of its own
//!   world   one margay that writes to the kernel ← etcd (killed, restarted) or files (rewritten, taken away, broken)
//!     storm   events by a seeded die: churn, resets, silences, datastore trouble, strangers at the kernel's routes, kill -9 and SIGTERM
//!     calm    everybody is back: kernel and observers hold exactly what the model says; the process is measured
//!     speaker fifty peers and two observers, octets of the tests' own, on a thread beside
//! ```
//!
//! The `steady` world never ends its margay and uses etcd: at the end its memory must be flat, its file descriptors, threads and tasks
//! as many as at the beginning. The `restarting` world ends its margay again and again, also during its own restart, and uses files.
//! The seed says which events come in which order; when exactly they meet margay, the machine says.

pub mod cli;
mod kernel;
mod measure;
mod model;
mod speaker;
mod storm;
mod world;
