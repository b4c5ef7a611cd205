//! The daemon with etcd: whatever happens to etcd, no session notices. BGPPeers are in etcd; the node itself and the
//! cluster's configuration are in files beside it.

use std::time::Duration;

use anyhow::{Result, ensure};
use proto_tests::lab::etcd::Etcd;
use proto_tests::lab::process::{Signal, wait_until};
use proto_tests::live::daemon::external;
use proto_tests::live::{Daemon, Observer, PeerPlan, Plan, enclosed};
use serde_json::json;
use tempfile::TempDir;

use crate::world::{RESOURCES, possible};

const DEADLINE: Duration = Duration::from_secs(60);

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
        let entry = |peer: &PeerPlan| {
            let spec = json!({ "node": "bench", "peerIP": format!("{}:1791", peer.address), "asNumber": peer.asn, "filters": ["all"] });
            let value = json!({ "apiVersion": "projectcalico.org/v3", "kind": "BGPPeer", "metadata": { "name": peer.name }, "spec": spec });
            (format!("{RESOURCES}/bgppeers/{}", peer.name), value.to_string())
        };
        self.etcd.put(&peers.iter().map(entry).collect::<Vec<_>>())
    }

    /// A daemon that has these peers from etcd (or from what an earlier one has saved).
    fn daemon(&self, peers: &[PeerPlan]) -> Result<Daemon> {
        let state = self.folder.path().join("state");
        let environment = vec![("ETCD_ENDPOINTS".to_owned(), self.etcd.url()), ("DATASTORE_TYPE".to_owned(), "etcdv3".to_owned())];
        Plan { peers: peers.to_vec(), peers_elsewhere: true, environment, state: Some(state), ..Plan::default() }.start()
    }

    fn saved(&self, peers: &[PeerPlan]) -> Result<()> {
        let path = self.folder.path().join("state/last-known.json");
        wait_until(DEADLINE, "the peers are saved", || {
            let text = std::fs::read_to_string(&path)?;
            ensure!(peers.iter().all(|peer| text.contains(&peer.name)), "{text}");
            Ok(())
        })
    }
}

fn problem(daemon: &Daemon, words: &[&str]) -> Result<()> {
    wait_until(DEADLINE, "the problem is named", || {
        let problems = daemon.api_text("/v1/problems")?;
        ensure!(words.iter().all(|word| problems.contains(word)), "wanted {words:?}: {problems}");
        Ok(())
    })
}

fn state(daemon: &Daemon, wanted: &str) -> Result<()> {
    wait_until(DEADLINE, wanted, || {
        let status = daemon.api("/v1/datastore")?;
        ensure!(status["state"] == wanted, "{status}");
        Ok(())
    })
}

fn no_problem(daemon: &Daemon) -> Result<()> {
    state(daemon, "in-sync")?;
    wait_until(DEADLINE, "no problem is left", || {
        let problems = daemon.api_text("/v1/problems")?;
        ensure!(!problems.contains("etcd"), "{problems}");
        Ok(())
    })
}

/// The sessions are those of the beginning.
fn undisturbed(daemon: &Daemon, peers: &[PeerPlan]) -> Result<()> {
    for plan in peers {
        let peer = daemon.peer_view(plan)?;
        ensure!(peer["state"] == "Established" && peer["flaps"] == 0, "{peer}");
    }
    Ok(())
}

fn establish(daemon: &Daemon, peers: &[PeerPlan]) -> Result<Vec<Observer>> {
    peers.iter().map(|plan| Observer::establish(daemon, plan)).collect()
}

fn peer_count(daemon: &Daemon, count: usize) -> Result<()> {
    wait_until(DEADLINE, "the peers are there", || {
        let peers = daemon.api("/v1/peers")?;
        ensure!(peers.as_array().map(Vec::len) == Some(count), "{peers}");
        Ok(())
    })
}

#[test]
fn sessions_outlive_etcd() {
    if !possible("sessions_outlive_etcd") {
        return;
    }
    enclosed(|| {
        let peers: Vec<PeerPlan> = (0..3).map(external).collect();
        let mut place = Place::with(&peers)?;
        let daemon = place.daemon(&peers)?;
        let _sessions = establish(&daemon, &peers)?;
        no_problem(&daemon)?;
        place.etcd.kill()?;
        problem(&daemon, &["etcd has been away since", "what it told last stays in force"])?;
        state(&daemon, "away")?;
        let ready = daemon.api_text("/readyz")?;
        ensure!(ready.starts_with("ready; etcd has been away since"), "{ready}");
        undisturbed(&daemon, &peers)?;
        place.etcd.restart()?;
        no_problem(&daemon)?;
        place.put(&[external(3)])?;
        peer_count(&daemon, 4)?;
        undisturbed(&daemon, &peers)
    });
}

#[test]
fn away_at_the_start_margay_runs_from_the_last_known_resources() {
    if !possible("away_at_the_start_margay_runs_from_the_last_known_resources") {
        return;
    }
    enclosed(|| {
        let peers: Vec<PeerPlan> = (0..3).map(external).collect();
        let mut place = Place::with(&peers)?;
        let mut daemon = place.daemon(&peers)?;
        place.saved(&peers)?;
        daemon.end(Signal::TERM)?;
        drop(daemon);
        place.etcd.kill()?;

        let daemon = place.daemon(&peers)?;
        let _sessions = establish(&daemon, &peers)?;
        problem(&daemon, &["etcd has been away since", "the last known resources, saved at", "are in force"])?;
        let status = daemon.api("/v1/datastore")?;
        ensure!(status["state"] == "away" && status["last_known"].is_string() && status["kind"] == "etcd", "{status}");

        // It returns with a peer more: that one comes, and nobody else notices.
        place.etcd.restart()?;
        place.put(&[external(3)])?;
        peer_count(&daemon, 4)?;
        no_problem(&daemon)?;
        undisturbed(&daemon, &peers)?;
        ensure!(daemon.api("/v1/datastore")?["last_known"].is_null());
        place.saved(&[external(3)])
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
        no_problem(&daemon)?;
        ensure!(daemon.api("/v1/config")?["node"] == "bench");
        Ok(())
    });
}

#[test]
fn an_etcd_that_comes_back_empty_gets_a_second_look() {
    if !possible("an_etcd_that_comes_back_empty_gets_a_second_look") {
        return;
    }
    enclosed(|| {
        let peers: Vec<PeerPlan> = (0..3).map(external).collect();
        let mut place = Place::with(&peers)?;
        let daemon = place.daemon(&peers)?;
        let _sessions = establish(&daemon, &peers)?;
        place.etcd.kill()?;
        place.etcd.forget()?;
        place.etcd.restart()?;
        problem(&daemon, &["etcd no longer lists 3 of 3 BGPPeer (external-0, external-1, external-2)", "held back"])?;
        state(&daemon, "held-back")?;
        undisturbed(&daemon, &peers)?;
        // Somebody restores the backup.
        place.put(&peers)?;
        no_problem(&daemon)?;
        peer_count(&daemon, 3)?;
        undisturbed(&daemon, &peers)
    });
}
