//! `bird.ctl` and `bird6.ctl`: BIRD's control sockets, read-only, for the programs that ask them: calico-node's
//! readiness and liveness checks, `calicoctl node status`, CalicoNodeStatus reporters, bird_exporter, birdcl.
//!
//! ```text
//! socket ─line→ request ─Command→ answer (asks the owners of state) ─→ status, protocols, routes: plain data → Reply ─→ socket
//! ```
//!
//! | command | |
//! |---|---|
//! | `show status` | version, router ID, times, recovery in progress |
//! | `show protocols [all] [NAME\|"PATTERN"]` | the peers of the socket's family, after `static1`, `kernel1`, `device1` and `direct1` |
//! | `show route [PREFIX\|for PREFIX] [all] [primary] [protocol NAME] [export NAME] [count] [table master]` | the routes of the family |
//! | `show memory`, `show symbols` | resident memory; the names in use |
//! | `echo …`, `restrict`, `help`, `?` | taken; answered; the commands of this table |
//! | `configure`, `enable`, `restart` and the like | `8007 Access denied`, as a restricted BIRD says |
//!
//! Codes and layouts are those of Calico's BIRD 1.6; BIRD 2's birdcl reads them as well. The two sockets are
//! independent: each knows its own family, and neither needs the other. A reply is made as the shards tell their
//! rows, so a large table stalls nobody.
//!
//! Where margay has no such number it prints nothing in its place: "Route change stats" and timers are left out.
//! `show route` gives the time since when the route's session (or margay itself) runs, since paths carry no time of
//! their own. A session that comes up shows as `up` at once, never `feed`; `wait` while our own restart is not over.
//! Until margay has a configuration, `show protocols` and `show route` are refused with 8003: whoever asks for
//! readiness must not take "no peers are configured" from it, while `show status` shows that the process lives.
//!
//! A client gets [`socket::MAX_LINE`] octets a line, [`socket::MAX_CLIENTS`] connections a socket together with all
//! others, and as long to take what was sent as [`socket::SLOWEST`].

mod answer;
mod clock;
mod protocols;
mod reply;
mod request;
mod routes;
mod socket;
mod status;

pub use answer::{failed, sessions};
pub use clock::Clock;
pub use protocols::{Protocol, sum};
pub use routes::{kind, local_protocol};
pub use socket::serve;
pub use status::VERSION;

/// Whether a line is understood; else BIRD's code and the words of the refusal.
///
/// # Errors
/// It is no command, or one that is refused.
pub fn understand(line: &str) -> Result<(), (u16, String)> {
    request::parse(line).map(drop).map_err(|request::Refusal(code, words)| (code, words))
}
