//! Fields of resources whose effect only the wire or the kernel shows, and that no case of parity with BIRD has: what an observer
//! sees of each. (AS numbers, restart times, next hops, source, port, scope, `reachableBy`, filters, communities and encapsulations are
//! compared with BIRD in `parity`; passwords are in `keys`.)

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::replace;
use proto_tests::live::message::{KEEPALIVE, keepalive};
use proto_tests::live::{Daemon, Heard, Neighbour, Observer, PeerPlan, Plan, enclosed};
use socket2::{Domain, Protocol, Socket, Type};

use super::session::WAIT;

/// Longer than a connect on the loopback could take, were it answered.
const UNANSWERED: Duration = Duration::from_millis(1500);
/// Less than the keepalive that would be sent without the setting (80 s).
const SOON: Duration = Duration::from_secs(20);

/// Changes a file of the resources, and waits until the configuration in force says so.
fn edit(daemon: &Daemon, file: &str, (from, to): (&str, &str), in_force: &str) -> Result<()> {
    let path = daemon.resources().join(file);
    let text = std::fs::read_to_string(&path)?;
    ensure!(text.contains(from), "{from} in {text}");
    replace(&path, &text.replace(from, to))?;
    wait_until(WAIT, in_force, || {
        let config = daemon.api_text("/v1/config")?;
        ensure!(config.contains(in_force), "{}", daemon.api("/v1/problems")?);
        Ok(())
    })
}

fn spec(daemon: &Daemon, peer: &PeerPlan, field: &str, in_force: &str) -> Result<()> {
    edit(daemon, &format!("{}.yaml", peer.name), ("filters: [all]", &format!("filters: [all], {field}")), in_force)
}

/// A session whose packets have this TTL.
fn with_ttl(daemon: &Daemon, plan: &PeerPlan, ttl: u32) -> Result<Neighbour> {
    let mut neighbour = connected(daemon, plan, ttl)?;
    neighbour.send(&[plan.open().message(), keepalive()].concat())?;
    neighbour.confirm()?;
    Ok(neighbour)
}

/// A connection whose packets have it; the listener lets it in, whatever its TTL.
fn connected(daemon: &Daemon, plan: &PeerPlan, ttl: u32) -> Result<Neighbour> {
    let remote = daemon.address(true);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_ttl_v4(ttl)?;
    socket.bind(&SocketAddr::new(plan.address, 0).into())?;
    socket.connect_timeout(&remote.into(), UNANSWERED)?;
    Ok(Neighbour::over(socket.into(), plan))
}

#[test]
fn t8_ttl_security_drops_what_came_too_far() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let [near, plain] = &daemon.peers[..] else { unreachable!("two peers") };
        spec(&daemon, near, "ttlSecurity: 2", "\"Gtsm\":{\"hops\":2}")?;
        for ttl in [253, 64] {
            let mut far = connected(&daemon, near, ttl)?;
            let heard = far.hear(WAIT)?;
            ensure!(matches!(heard, Heard::Fin | Heard::Reset), "TTL {ttl}: not a word is answered: {heard:?}");
        }
        for ttl in [254, 255] {
            // After a session that was dropped margay pauses for a moment.
            wait_until(WAIT, "a session with this TTL", || with_ttl(&daemon, near, ttl).map(drop))?;
        }
        with_ttl(&daemon, plain, 64)?;
        Ok(())
    });
}

#[test]
fn keepalive_time_is_the_pause_between_keepalives() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let peer = &daemon.peers[0];
        spec(&daemon, peer, "keepaliveTime: 1s", "\"keepalive\":{")?;
        let mut session = Neighbour::establish(&daemon, peer)?;
        let mut heard = 0;
        while heard < 3 {
            match session.hear(SOON)? {
                Heard::Message(KEEPALIVE, _) => heard += 1,
                Heard::Message(..) => {}
                other => anyhow::bail!("{heard} keepalives, then {other:?}"),
            }
        }
        Ok(())
    });
}

/// The node's address listens, others do not; changing it is no matter to sessions.
#[test]
fn bind_mode_is_where_margay_listens() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let session = Neighbour::establish(&daemon, &daemon.peers[0])?;
        let node = daemon.address(true);
        let other = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), node.port()));
        let listens = |address: SocketAddr| TcpStream::connect_timeout(&address, UNANSWERED).is_ok();
        ensure!(listens(node) && listens(other), "everywhere, unless told otherwise");
        edit(&daemon, "base.yaml", ("listenPort:", "bindMode: NodeIP, listenPort:"), "\"addresses\":[\"127.0.0.1\"")?;
        wait_until(WAIT, "the other address is deaf", || {
            ensure!(!listens(other), "{other} still listens");
            Ok(())
        })?;
        ensure!(listens(node), "the node's address");
        edit(&daemon, "base.yaml", ("bindMode: NodeIP, ", ""), "\"addresses\":[]")?;
        wait_until(WAIT, "everywhere again", || {
            ensure!(listens(other), "{other} is deaf");
            Ok(())
        })?;
        ensure!(daemon.peer_view(&daemon.peers[0])?["state"] == "Established", "the session is not touched");
        drop(session);
        Ok(())
    });
}

/// The subnet of a link is a device route, which the filter lets out here, unless its interface is ignored.
#[test]
fn ignored_interfaces_are_no_device_routes() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        edit(&daemon, "base.yaml", ("{action: Reject, matchOperator: In, cidr: \"192.0.2.0/24\"}, ", ""), "\"peers\"")?;
        let mut told = Observer::establish(&daemon, &daemon.peers[0])?;
        told.route("192.0.2.0/24")?;
        edit(&daemon, "base.yaml", ("listenPort:", "ignoredInterfaces: [\"link*\"], listenPort:"), "\"link*\"")?;
        told.no_route("192.0.2.0/24")?;
        ensure!(daemon.peer_view(&daemon.peers[0])?["state"] == "Established", "the session is not touched");
        Ok(())
    });
}

/// LOCAL_PREF of our own routes is 2147483647 less the normal priority.
#[test]
fn normal_route_priority_is_local_pref() {
    enclosed(|| {
        let block = "kind: BlockAffinity\nmetadata: {name: b}\nspec: {node: bench, cidr: 10.244.1.0/26, state: confirmed}\n";
        let plan = Plan { documents: vec![block.to_owned()], ..Plan::default() };
        let daemon = plan.internal(1).start()?;
        let mut told = Observer::establish(&daemon, &daemon.peers[0])?;
        told.route("10.244.1.0/26")?;
        let with = |priority: u32| {
            let value = (2_147_483_647 - priority).to_be_bytes();
            move |told: &Observer| told.routes.iter().any(|((prefix, _), route)| prefix.prefix_len() == 26 && route.has(5, &value))
        };
        told.until("the usual priority", with(1024))?;
        edit(&daemon, "base.yaml", ("listenPort:", "ipv4NormalRoutePriority: 512, listenPort:"), "\"peers\"")?;
        told.until("the priority of the configuration", with(512))?;
        ensure!(daemon.peer_view(&daemon.peers[0])?["state"] == "Established", "the session is not touched");
        Ok(())
    });
}
