//! The daemon with etcd: whatever happens to etcd, no session notices. BGPPeers are in etcd; the node itself and the
//! cluster's configuration are in files beside it.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use proto_tests::lab::etcd::Etcd;
use proto_tests::lab::process::{Signal, wait_until};
use proto_tests::live::daemon::external;
use proto_tests::live::remote::{DEADLINE, bgp_peer, establish, in_sync, node_status, peer_count, problem, saved, state, undisturbed};
use proto_tests::live::{Daemon, PeerPlan, Plan, enclosed};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{RESOURCES, node, possible};

/// An etcd with the BGPPeers of these plans, and what a daemon needs that reads them there.
struct Place {
    folder: TempDir,
    etcd: Etcd,
}

impl Place {
    fn with(peers: &[PeerPlan]) -> Result<Self> {
        let folder = TempDir::new()?;
        let etcd = Etcd::start(&folder.path().join("etcd"))?;
        let place = Self { folder, etcd };
        place.put(peers)?;
        Ok(place)
    }

    fn put(&self, peers: &[PeerPlan]) -> Result<()> {
        let entry = |peer: &PeerPlan| (format!("{RESOURCES}/bgppeers/{}", peer.name), bgp_peer(peer).to_string());
        self.etcd.put(&peers.iter().map(entry).collect::<Vec<_>>())
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A daemon that has these peers from etcd (or from what an earlier one has saved).
    fn daemon(&self, peers: &[PeerPlan]) -> Result<Daemon> {
        let environment = vec![("ETCD_ENDPOINTS".to_owned(), self.etcd.url()), ("DATASTORE_TYPE".to_owned(), "etcdv3".to_owned())];
        Plan { peers: peers.to_vec(), peers_elsewhere: true, environment, state: Some(self.state()), ..Plan::default() }.start()
    }
}

/// A story of a daemon with `count` peers from etcd.
fn story(test: &str, count: u16, tell: impl FnOnce(&mut Place, Daemon, &[PeerPlan]) -> Result<()>) {
    if possible(test) {
        enclosed(|| {
            let peers: Vec<PeerPlan> = (0..count).map(external).collect();
            let mut place = Place::with(&peers)?;
            let daemon = place.daemon(&peers)?;
            tell(&mut place, daemon, &peers)
        });
    }
}

#[test]
fn sessions_outlive_etcd() {
    story("sessions_outlive_etcd", 3, |place, daemon, peers| {
        let _sessions = establish(&daemon, peers)?;
        in_sync(&daemon, "etcd")?;
        place.etcd.kill()?;
        problem(&daemon, &["etcd has been away since", "what it told last stays in force"])?;
        state(&daemon, "away")?;
        let ready = daemon.api_text("/readyz")?;
        ensure!(ready.starts_with("ready; etcd has been away since"), "{ready}");
        undisturbed(&daemon, peers)?;
        place.etcd.restart()?;
        in_sync(&daemon, "etcd")?;
        place.put(&[external(3)])?;
        peer_count(&daemon, 4)?;
        undisturbed(&daemon, peers)
    });
}

#[test]
fn no_session_notices_kill_9_while_a_thousand_nodes_change() {
    story("no_session_notices_kill_9_while_a_thousand_nodes_change", 3, |place, daemon, peers| {
        let _sessions = establish(&daemon, peers)?;
        let since: Vec<Value> = peers.iter().map(|plan| Ok(daemon.peer_view(plan)?["since"].clone())).collect::<Result<_>>()?;
        for round in 0..3u16 {
            let nodes: Vec<(String, String)> = (0..1000).map(|number| node(number, round.into())).collect();
            let (before, after) = nodes.split_at(500);
            place.etcd.put(before)?;
            place.etcd.kill()?;
            place.etcd.restart()?;
            place.etcd.put(after)?;
            // Watches go on where they were, that of the peers among them.
            place.put(&[external(3 + round)])?;
            peer_count(&daemon, usize::from(4 + round))?;
            undisturbed(&daemon, peers)?;
        }
        in_sync(&daemon, "etcd")?;
        for (plan, since) in peers.iter().zip(since) {
            let now = daemon.peer_view(plan)?["since"].clone();
            ensure!(now == since, "{now} {since}");
        }
        Ok(())
    });
}

#[test]
fn wish_14_calico_925_away_at_the_start_margay_runs_from_the_last_known_resources() {
    story("wish_14_calico_925_away_at_the_start_margay_runs_from_the_last_known_resources", 3, |place, mut daemon, peers| {
        saved(&place.state(), peers)?;
        daemon.end(Signal::TERM)?;
        drop(daemon);
        place.etcd.kill()?;

        let daemon = place.daemon(peers)?;
        let _sessions = establish(&daemon, peers)?;
        problem(&daemon, &["etcd has been away since", "the last known resources, saved at", "are in force"])?;
        let status = daemon.api("/v1/datastore")?;
        ensure!(status["state"] == "away" && status["last_known"].is_string() && status["kind"] == "etcd", "{status}");

        // It returns with a peer more: that one comes, and nobody else notices.
        place.etcd.restart()?;
        place.put(&[external(3)])?;
        peer_count(&daemon, 4)?;
        in_sync(&daemon, "etcd")?;
        undisturbed(&daemon, peers)?;
        ensure!(daemon.api("/v1/datastore")?["last_known"].is_null());
        saved(&place.state(), &[external(3)])
    });
}

#[test]
fn away_at_the_first_start_margay_says_what_it_waits_for() {
    if !possible("away_at_the_first_start_margay_says_what_it_waits_for") {
        return;
    }
    enclosed(|| {
        let mut place = Place::with(&[])?;
        place.etcd.kill()?;
        let daemon = place.daemon(&[])?;
        problem(&daemon, &["etcd has been away since", "nothing was saved by an earlier run"])?;
        place.etcd.restart()?;
        in_sync(&daemon, "etcd")?;
        ensure!(daemon.api("/v1/config")?["node"] == "bench");
        Ok(())
    });
}

#[test]
fn an_etcd_that_comes_back_empty_gets_a_second_look() {
    story("an_etcd_that_comes_back_empty_gets_a_second_look", 3, |place, daemon, peers| {
        let _sessions = establish(&daemon, peers)?;
        place.etcd.kill()?;
        place.etcd.forget()?;
        place.etcd.restart()?;
        problem(&daemon, &["etcd no longer lists 3 of 3 BGPPeer (external-0, external-1, external-2)", "held back"])?;
        state(&daemon, "held-back")?;
        undisturbed(&daemon, peers)?;
        // Somebody restores the backup.
        place.put(peers)?;
        in_sync(&daemon, "etcd")?;
        peer_count(&daemon, 3)?;
        undisturbed(&daemon, peers)
    });
}

#[test]
fn a_calico_node_status_is_filled_and_followed_and_its_failure_disturbs_nobody() {
    story("a_calico_node_status_is_filled_and_followed_and_its_failure_disturbs_nobody", 2, |place, daemon, peers| {
        let key = format!("{RESOURCES}/caliconodestatuses/mine");
        let status = |place: &Place| -> Result<Value> {
            let object: Value = serde_json::from_str(&place.etcd.ctl(&["get", "--print-value-only", &key])?)?;
            Ok(object["status"].clone())
        };
        let _sessions = establish(&daemon, &peers[..1])?;
        place.etcd.put(&[(key.clone(), node_status(&["Agent", "BGP", "Routes"]).to_string())])?;
        wait_until(DEADLINE, "one session of two", || {
            let status = status(place)?;
            let bgp = &status["bgp"];
            ensure!(bgp["numberEstablishedV4"] == 1 && bgp["numberNotEstablishedV4"] == 1 && bgp["numberEstablishedV6"] == 0, "{status}");
            let first = &bgp["peersV4"][0];
            ensure!(first["peerIP"] == "127.1.0.10" && first["type"] == "NodePeer" && first["state"] == "Established", "{first}");
            ensure!(status["agent"]["birdV4"]["state"] == "Ready" && status["routes"]["routesV4"].is_array(), "{status}");
            ensure!(status["lastUpdated"].as_str().is_some_and(|time| time.ends_with('Z')), "{status}");
            Ok(())
        })?;
        // A second session shows within the period; another class replaces what was there.
        let _second = establish(&daemon, &peers[1..])?;
        wait_until(DEADLINE, "both sessions", || {
            let status = status(place)?;
            ensure!(status["bgp"]["numberEstablishedV4"] == 2, "{status}");
            Ok(())
        })?;
        place.etcd.put(&[(key.clone(), node_status(&["Agent"]).to_string())])?;
        wait_until(DEADLINE, "the class is followed", || {
            let status = status(place)?;
            ensure!(status["agent"].is_object() && status.get("bgp").is_none(), "{status}");
            Ok(())
        })?;
        // Away, it cannot be written where something is new; that is said, and goes by.
        place.etcd.put(&[(key.clone(), node_status(&["BGP"]).to_string())])?;
        wait_until(DEADLINE, "it is written", || {
            ensure!(status(place)?["bgp"].is_object());
            Ok(())
        })?;
        place.etcd.kill()?;
        problem(&daemon, &["its status cannot be written", "CalicoNodeStatus"])?;
        undisturbed(&daemon, peers)?;
        place.etcd.restart()?;
        wait_until(DEADLINE, "the problem goes", || {
            let problems = daemon.api_text("/v1/problems")?;
            ensure!(!problems.contains("its status cannot be written"), "{problems}");
            Ok(())
        })?;
        undisturbed(&daemon, peers)
    });
}
