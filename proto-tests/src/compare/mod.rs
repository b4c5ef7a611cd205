//! margay beside other speakers: the same tables, the same sessions, one after the other on the same machine.
//!
//! ```text
//! scenario (which sessions, which table, which phases) ─→ speaker: its configuration, its process
//!                                                     └─→ table: prefixes and attribute sets ─pack→ feed: octets, ready before any clock runs
//! run: sessions (one task each, one thread) ⇄ the speaker over loopback;   meter: who has which prefix, how many messages it took
//! usage: the processes' CPU and memory from /proc      report: medians, ratios to the best peer, JSON      chart: SVG
//! ```
//!
//! The generator is built on margay's own codec (`margay::wire`): whatever it is fed, it decodes in full, so what every speaker sends
//! is checked as it is counted. A phase ends when every receiver has exactly what it should have, not when it has become quiet.
//! CPU is counted until the speaker has become quiet, so that work put off is work all the same.
//!
//! Everything happens in a network and PID namespace that `cargo bench` makes for itself (`lab::enclosure`): addresses and ports are
//! free there, and with it ends whatever was started in it. No speaker writes to a kernel's table; all accept everything.
//!
//! | who | address | AS |
//! |---|---|---|
//! | the speaker | 10.7.0.2, port 1790 | 65000 |
//! | sender *i* | 127.1.(i / 250).(i mod 250 + 1) | 100001 + i, or 65000 for iBGP |
//! | receiver *j* | 127.2.(j / 250).(j mod 250 + 1) | 200001 + j |
//!
//! All tables are IPv4: a Calico peer with an IPv4 address carries IPv4 alone, so there is no session that has both families everywhere.
//!
//! [`hostile`] has other questions than speed: malformed messages, and what each speaker makes of them (`cargo score`, `proto-tests/hostile.txt`).
//!
//! What others do, met here:
//! - BIRD listens on the wildcard address with a backlog of 8.
//! - FRR as a reflector tells a client its own routes too, with the client as originator: they count as messages, and are looked at
//!   no further.
//! - margay tells the addresses of the loopback, the speaker's among them, as Calico's BIRD does; BIRD needs a `protocol direct` for that.
//! - FRR waits 1 s and 50 ms a session, at most 10 s, before it tells a new update group anything (`coalesce-time`).
//! - FRR 8.4 writes AS_PATH with a length of two octets whatever its length, which is allowed, and resets sessions for most faults that
//!   RFC 7606 has treated as withdrawals in optional attributes.
//! - GoBGP 3.10 ends at VPN prefixes of a family that was never agreed, and at an MP_REACH_NLRI of three octets; after many another fault
//!   it goes on using the path that the faulty one has replaced.
//! - OpenBGPD 7.7 ends at any MP_UNREACH_NLRI of IPv4 unicast.
//! - GoBGP without `--pprof-disable`, where it knows that option, opens a port of its own.

pub mod chart;
pub mod feed;
pub mod hostile;
pub mod meter;
pub mod report;
pub mod run;
pub mod scenario;
pub mod session;
pub mod speaker;
pub mod table;
pub mod usage;

use anyhow::Result;

use crate::lab::process;
use scenario::TARGET;

/// Gives the namespace that this process is in the addresses of the scenarios; all of 127/8 is there once the loopback is up.
///
/// # Errors
/// There is no `ip`, or the namespace is not ours to change.
pub fn furnish() -> Result<()> {
    let mut command = std::process::Command::new("ip");
    command.args(["-batch", "-"]);
    process::run(command, Some(&format!("link set lo up\naddr replace {TARGET}/32 dev lo\n")))?;
    Ok(())
}
