//! Routes that go by next-hop objects of the kernel (`--next-hop-objects`): a next hop that dies costs no write a route.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::Daemon;
use proto_tests::live::message::{announce, as_path, next_hop, origin};
use proto_tests::live::{Neighbour, Plan, enclosed};

use super::session::WAIT;

const ROUTES: usize = 4000;
/// What a move takes: a single object made and one deleted, the group changed, and some to spare.
const FEW: u64 = 8;
const ATTEMPTS: usize = 5;

fn ip(words: &str) -> Result<String> {
    let output = Command::new("ip").args(words.split(' ')).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn writes(daemon: &Daemon) -> Result<u64> {
    let text = daemon.api_text("/metrics")?;
    let line = text.lines().find(|line| line.starts_with("margay_kernel_writes_total{result=\"written\"}"));
    Ok(line.and_then(|line| line.rsplit(' ').next()).map_or(Ok(0), str::parse)?)
}

/// Every prefix, by way of `hop`.
fn tell(peer: &mut Neighbour, path: &[u32], hop: Ipv4Addr) -> Result<()> {
    let prefixes: Vec<String> = (0..ROUTES).map(|number| format!("10.{}.{}.0/24", number / 256, number % 256)).collect();
    for some in prefixes.chunks(500) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        peer.send(&announce(&[origin(0), as_path(path), next_hop(hop)], &some))?;
    }
    Ok(())
}

fn all_by_way_of(daemon: &mut Daemon, hop: Ipv4Addr, objects: bool) -> Result<u64> {
    wait_until(WAIT, "all routes by one way", || {
        let routes = ip("route show proto 12")?;
        let (here, by_object) = (routes.matches(&format!("via {hop} ")).count(), routes.matches("nhid").count());
        let expected = if objects { ROUTES } else { 0 };
        ensure!((here, by_object) == (ROUTES, expected), "{here} via {hop}, {by_object} by an object");
        // The counters are told after the kernel's answer.
        let (before, _) = (writes(daemon)?, daemon.alive()?);
        ensure!(writes(daemon)? == before, "still writing");
        Ok(())
    })?;
    writes(daemon)
}

/// The better of two sessions is lost, and comes back.
#[test]
fn a_lost_session_moves_all_routes_in_one_message() {
    enclosed(|| {
        let plan = Plan { arguments: vec!["--next-hop-objects".to_owned()], kernel: true, ..Plan::default() };
        let mut daemon = plan.external(2).start()?;
        let (near, far) = (Ipv4Addr::new(192, 0, 2, 66), Ipv4Addr::new(192, 0, 2, 77));
        let mut second = Neighbour::establish(&daemon, &daemon.peers[1])?;
        tell(&mut second, &[64601, 65001], far)?;
        all_by_way_of(&mut daemon, far, true)?;
        let mut first = Neighbour::establish(&daemon, &daemon.peers[0])?;
        tell(&mut first, &[64600], near)?;
        let mut before = all_by_way_of(&mut daemon, near, true)?;
        let mut fewest = u64::MAX;
        // On a busy machine the Loc-RIB may pause for so long that the first of them are not kept waiting for the rest.
        for _ in 0..ATTEMPTS {
            first.finish()?;
            fewest = fewest.min(all_by_way_of(&mut daemon, far, true)? - before);
            first = wait_until(WAIT, "the session back", || Neighbour::establish(&daemon, &daemon.peers[0]))?;
            tell(&mut first, &[64600], near)?;
            before = all_by_way_of(&mut daemon, near, true)?;
            if fewest <= FEW {
                break;
            }
        }
        ensure!(fewest <= FEW, "{fewest} writes for {ROUTES} routes");
        let status = daemon.api("/v1/kernel?prefix=10.0.7.0/24")?.to_string();
        ensure!(status.contains("next-hop object"), "{status}");
        // What is left leads to where routes go.
        let objects = ip("nexthop show")?;
        ensure!(objects.contains(&format!("via {near} ")) && objects.matches("via").count() == 1, "{objects}");
        Ok(())
    });
}
