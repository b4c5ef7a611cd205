//! `show status`, `show memory`, `show symbols`.

use jiff::Timestamp;

use super::clock::Clock;
use super::reply::{OK, Reply};
use crate::types::RouterId;

/// The version that clients see. Calico's reporters want it to begin with `v`.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"), "+margay");

/// The process as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Our identifier; none without a configuration.
    pub router_id: Option<RouterId>,
    /// When the process began.
    pub started: Timestamp,
    /// When the configuration in force was taken.
    pub configured: Timestamp,
    /// Our own restart is not over.
    pub recovering: Option<Recovering>,
}

/// What our own restart waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovering {
    /// Peers.
    pub waiting: usize,
    /// Seconds until nobody is waited for any more, and how many there were at first.
    pub seconds: (u64, u64),
}

/// The block of `show status`.
pub fn status(status: &Status, clock: &Clock) -> Reply {
    let mut reply = Reply::default();
    reply.line(1000, format_args!("BIRD {VERSION}"));
    let id = status.router_id.map_or_else(|| "0.0.0.0".to_owned(), |id| id.to_string());
    reply.line(1011, format_args!("Router ID is {id}"));
    reply.line(1011, format_args!("Current server time is {}", clock.long(clock.current())));
    reply.line(1011, format_args!("Last reboot on {}", clock.long(status.started)));
    reply.line(1011, format_args!("Last reconfiguration on {}", clock.long(status.configured)));
    if let Some(Recovering { waiting, seconds: (left, all) }) = status.recovering {
        reply.line(24, "Graceful restart recovery in progress");
        reply.line(24, format_args!("  Waiting for {waiting} protocols to recover"));
        reply.line(24, format_args!("  Wait timer is {left}/{all}"));
    }
    reply.end(13, "Daemon is up and running");
    reply
}

/// `show memory`: the whole of it, since its parts are not counted.
pub fn memory(resident_kib: Option<u64>) -> Reply {
    let mut reply = Reply::default();
    reply.line(1018, "BIRD memory usage");
    let total = resident_kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{kib:>4} kB"));
    reply.line(1018, format_args!("Total:           {total}"));
    reply.end(OK, "");
    reply
}

/// `show symbols`.
pub fn symbols<'a>(protocols: impl Iterator<Item = &'a str>) -> Reply {
    let mut reply = Reply::default();
    reply.line(1010, "master\trouting table");
    for name in protocols {
        reply.line(1010, format_args!("{name}\tprotocol"));
    }
    reply.end(OK, "");
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_bird_writes_it() {
        let clock = Clock::standing("2026-08-22T10:00:05Z");
        let at = |text: &str| text.parse().unwrap();
        let quiet = Status {
            router_id: Some(RouterId([10, 0, 0, 1].into())),
            started: at("2026-08-22T10:00:00Z"),
            configured: at("2026-08-22T10:00:01Z"),
            recovering: None,
        };
        let text = status(&quiet, &clock).take();
        let expected = format!(
            "1000-BIRD {VERSION}\n1011-Router ID is 10.0.0.1\n Current server time is 2026-08-22 10:00:05\n \
             Last reboot on 2026-08-22 10:00:00\n Last reconfiguration on 2026-08-22 10:00:01\n0013 Daemon is up and running\n"
        );
        assert_eq!(text, expected);
        let recovering = Status { recovering: Some(Recovering { waiting: 1, seconds: (215, 240) }), ..quiet };
        let text = status(&recovering, &clock).take();
        let block = "0024-Graceful restart recovery in progress\n   Waiting for 1 protocols to recover\n   Wait timer is 215/240\n0013 ";
        assert!(text.contains(block), "{text}");
    }
}
