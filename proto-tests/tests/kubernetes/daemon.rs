//! The daemon with an API server: whatever happens to that, no session notices. BGPPeers are in the API; the node itself and
//! the cluster's configuration are in files beside it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use proto_tests::kube::objects::{Group, collection, object};
use proto_tests::kube::{ApiServer, Behaviour};
use proto_tests::lab::process::{Signal, wait_until};
use proto_tests::live::daemon::external;
use proto_tests::live::remote::{
    DEADLINE, bgp_peer, establish, in_sync, metric, node_status, peer_count, problem, saved, says, state, undisturbed,
};
use proto_tests::live::{Daemon, PeerPlan, Plan, enclosed};
use tempfile::TempDir;

/// An API server with the BGPPeers of these plans, and what a daemon needs that reads them there.
struct Place {
    folder: TempDir,
    server: ApiServer,
}

impl Place {
    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn put(&self, peers: &[PeerPlan]) {
        self.server.put(peers.iter().map(|peer| object(Group::Crd, &bgp_peer(peer))));
    }

    fn daemon(&self, peers: &[PeerPlan]) -> Result<Daemon> {
        let environment = vec![("K8S_API_ENDPOINT".to_owned(), self.server.url()), ("DATASTORE_TYPE".to_owned(), "kubernetes".to_owned())];
        Plan { peers: peers.to_vec(), peers_elsewhere: true, environment, state: Some(self.state()), ..Plan::default() }.start()
    }
}

/// A story of a daemon with `count` peers from a server that behaves like this.
fn story(behaviour: Behaviour, count: u16, tell: impl FnOnce(&mut Place, Daemon, &[PeerPlan]) -> Result<()>) {
    enclosed(|| {
        let peers: Vec<PeerPlan> = (0..count).map(external).collect();
        let mut place = Place { folder: TempDir::new()?, server: ApiServer::start_with(behaviour)? };
        place.put(&peers);
        let daemon = place.daemon(&peers)?;
        tell(&mut place, daemon, &peers)
    });
}

#[test]
fn sessions_outlive_an_api_server_that_closes_every_watch_each_second_and_dies_and_forgets() {
    let behaviour = Behaviour { watches_last: Duration::from_secs(1), bookmarks: Duration::from_millis(100), ..Behaviour::default() };
    story(behaviour, 3, |place, daemon, peers| {
        let _sessions = establish(&daemon, peers)?;
        in_sync(&daemon, "Kubernetes")?;
        let since: Vec<_> = peers.iter().map(|plan| Ok(daemon.peer_view(plan)?["since"].clone())).collect::<Result<_>>()?;
        // A peer more each round: before a watch is closed, after it, while the server is away, and with its history gone.
        for round in 0..12u16 {
            match round % 4 {
                0 => place.put(&[external(3 + round)]),
                1 => {
                    let closed = place.server.resumed("bgppeers") + 1;
                    wait_until(DEADLINE, "the watch is closed and opened", || {
                        ensure!(place.server.resumed("bgppeers") >= closed);
                        Ok(())
                    })?;
                    place.put(&[external(3 + round)]);
                }
                2 => {
                    place.server.kill();
                    place.put(&[external(3 + round)]);
                    place.server.restart()?;
                }
                _ => {
                    place.server.put_and_forget([object(Group::Crd, &bgp_peer(&external(3 + round)))]);
                    place.server.restart()?;
                }
            }
            peer_count(&daemon, usize::from(4 + round))?;
            undisturbed(&daemon, peers)?;
        }
        // Away while peers go, and back with no history of it: the listing says so.
        place.server.kill();
        (3..9).for_each(|number| place.server.delete(&collection(Group::Crd, "BGPPeer"), "", &external(number).name));
        place.server.compact();
        place.server.restart()?;
        peer_count(&daemon, 9)?;
        // Nothing is done twice: as the watches go on being closed, no configuration is applied.
        in_sync(&daemon, "Kubernetes")?;
        let applied = metric(&daemon, "margay_configurations_total")?;
        let closed = place.server.resumed("bgppeers") + 3;
        wait_until(DEADLINE, "watches are closed", || {
            ensure!(place.server.resumed("bgppeers") >= closed);
            Ok(())
        })?;
        ensure!(metric(&daemon, "margay_configurations_total")? == applied);
        ensure!(applied <= 20.0, "one for each change: {applied}");
        undisturbed(&daemon, peers)?;
        for (plan, since) in peers.iter().zip(since) {
            let now = daemon.peer_view(plan)?["since"].clone();
            ensure!(now == since, "{now} {since}");
        }
        Ok(())
    });
}

#[test]
fn away_at_the_start_the_last_known_resources_are_in_force_and_everything_says_so() {
    story(Behaviour::default(), 3, |place, mut daemon, peers| {
        saved(&place.state(), peers)?;
        daemon.end(Signal::TERM)?;
        drop(daemon);
        place.server.kill();

        let daemon = place.daemon(peers)?;
        let _sessions = establish(&daemon, peers)?;
        problem(&daemon, &["Kubernetes has been away since", "the last known resources, saved at", "are in force"])?;
        state(&daemon, "away")?;
        says(&daemon, "/readyz", &["ready; Kubernetes has been away since"])?;
        ensure!(metric(&daemon, "margay_datastore_last_known_in_force")? == 1.0);
        ensure!(metric(&daemon, "margay_datastore_listings_total")? == 0.0);

        place.server.restart()?;
        place.put(&[external(3)]);
        peer_count(&daemon, 4)?;
        in_sync(&daemon, "Kubernetes")?;
        undisturbed(&daemon, peers)?;
        ensure!(metric(&daemon, "margay_datastore_last_known_in_force")? == 0.0);
        ensure!(metric(&daemon, "margay_datastore_listings_total")? > 0.0);
        ensure!(metric(&daemon, "margay_datastore_last_word_timestamp_seconds")? > 0.0);
        saved(&place.state(), &[external(3)])
    });
}

#[test]
fn a_calico_node_status_is_filled_and_a_missing_right_disturbs_nobody() {
    story(Behaviour::default(), 2, |place, daemon, peers| {
        let _sessions = establish(&daemon, peers)?;
        let status =
            |place: &Place| place.server.get(&collection(Group::Crd, "CalicoNodeStatus"), "mine").unwrap_or_default()["status"].clone();
        let object = |classes: &[&str]| object(Group::Crd, &node_status(classes));
        place.server.put([object(&["BGP", "Agent"])]);
        wait_until(DEADLINE, "it is filled", || {
            let status = status(place);
            ensure!(status["bgp"]["numberEstablishedV4"] == 2 && status["agent"]["birdV6"]["state"] == "Ready", "{status}");
            Ok(())
        })?;
        place.server.behave(|behaviour| behaviour.forbidden.extend(["caliconodestatuses/status".to_owned()]));
        place.server.put([object(&["Routes"])]);
        problem(&daemon, &["its status cannot be written", "grant verb patch"])?;
        ensure!(metric(&daemon, "margay_node_status_writes_total{result=\"failed\"}")? >= 1.0);
        undisturbed(&daemon, peers)?;
        place.server.behave(|behaviour| behaviour.forbidden.clear());
        wait_until(DEADLINE, "it is filled again", || {
            let status = status(place);
            ensure!(status["routes"]["routesV4"].is_array() && status.get("bgp").is_none(), "{status}");
            Ok(())
        })?;
        undisturbed(&daemon, peers)
    });
}
