//! margay beside other speakers: the same tables, the same sessions, one after the other on the same machine.
//!
//! ```text
//! scenario (which sessions, which table, which phases) ─→ speaker: its configuration, its process
//!                                                     └─→ table: prefixes and attribute sets ─pack→ feed: octets, ready before any clock runs
//! run, stage: the phases ─→ world: sessions (one task each, one thread) ⇄ the speaker over loopback
//!                       └─→ apart: another world with a thread of its own, for what is timed while a hundred others are served
//! said: octets that were heard, decoded once for all who hear them
//! meter: who has which prefix, how many messages it took, how long the speaker was silent
//! usage: the processes' CPU and memory from /proc      report: medians, ratios to the best peer, JSON      chart: SVG
//! ```
//!
//! The generator is built on margay's own codec (`margay::wire`): whatever it is fed, it decodes in full, so what every speaker sends
//! is checked as it is counted; the same octets once for all who hear them, so that the generator is not what takes the time ([`said`]).
//! A phase ends when every receiver has exactly what it should have, not when it has become quiet.
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
//! | idler *k*, who is told nothing | 127.3.(k / 250).(k mod 250 + 1) | 300001 + k |
//! | the speaker, its IPv6 sender and receiver | fd07::2, fd07:1::1, fd07:2::1 | 65000, the next of senders, of receivers |
//!
//! A session carries the family of its address: a Calico peer with an IPv4 address carries IPv4 alone, so there is no session that has both
//! families everywhere. D1, a million IPv4 prefixes and 200,000 IPv6 prefixes, is two sessions on each side for that reason, with all
//! speakers alike.
//!
//! | what is asked | scenarios |
//! |---|---|
//! | throughput and memory | S1 (with S6, S5), S2, S3, D1 |
//! | reflectors | S4, S4-herd, S4-125 to S4-1000 (with 30 s of nothing); `--curve S4` |
//! | full meshes: members that hear nobody's routes but the speaker's, and an eBGP peer that hears all | mesh-125 to mesh-1000; `--curve mesh` |
//! | latency of single changes: at rest; while another sender reloads; while 100 join; while 100 ask for everything again | S7, S7-reload, S5-100, refresh-100 (`-1M` with larger tables) |
//! | keepalives: at rest; of 1,000 sessions with hold time 3 s in a storm | S8, storm-1000 |
//!
//! Where changes are timed beside other work, the session that makes them and the one that hears them have a thread of their own, and the
//! row `…-rest` has the same without that work. `storm-1000` prints the longest time without a message on any session; a hold timer that
//! expires on either side fails the row.
//!
//! [`hostile`] has other questions than speed: malformed messages, and what each speaker makes of them (`cargo score`, `proto-tests/hostile.txt`).
//!
//! What others do, met here:
//! - GoBGP and RustyBGP originate nothing by configuration: `gobgp global rib add` tells them their own blocks in the meshes.
//! - RustyBGP reads GoBGP's configuration (`-f`), without its policies: it tells the idlers of `storm-1000` everything.
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

pub mod apart;
pub mod chart;
pub mod feed;
pub mod hostile;
pub mod meter;
pub mod report;
pub mod run;
pub mod said;
pub mod scenario;
pub mod session;
pub mod speaker;
mod stage;
pub mod table;
pub mod usage;
pub mod world;

use anyhow::Result;

use crate::lab::process;
use scenario::{Peer, Scenario, TARGET, TARGET6};

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

/// The same for a scenario's IPv6 peers, which need addresses of the loopback one by one.
///
/// # Errors
/// Likewise, or the kernel has no IPv6.
pub fn furnish_ipv6(scenario: &Scenario) -> Result<()> {
    let peers = scenario.peers().into_iter().map(|Peer { address, .. }| address).filter(|address| address.is_ipv6());
    let lines: Vec<String> =
        std::iter::once(TARGET6.into()).chain(peers).map(|address| format!("addr replace {address}/128 dev lo nodad\n")).collect();
    let mut command = std::process::Command::new("ip");
    command.args(["-batch", "-"]);
    process::run(command, Some(&lines.concat()))?;
    Ok(())
}
