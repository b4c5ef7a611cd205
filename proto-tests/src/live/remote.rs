//! A daemon whose BGPPeers are in a datastore elsewhere: what is asked of it there, and how they are written.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Daemon, Observer, PeerPlan};
use crate::lab::process::wait_until;

/// Whatever is waited for must have come by then.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The BGPPeer of this plan.
pub fn bgp_peer(peer: &PeerPlan) -> Value {
    let spec =
        json!({ "node": "bench", "peerIP": SocketAddr::new(peer.address, 1791).to_string(), "asNumber": peer.asn, "filters": ["all"] });
    json!({ "apiVersion": "projectcalico.org/v3", "kind": "BGPPeer", "metadata": { "name": peer.name }, "spec": spec })
}

/// A CalicoNodeStatus that asks for these classes of the daemon's node every second.
pub fn node_status(classes: &[&str]) -> Value {
    let spec = json!({ "node": "bench", "classes": classes, "updatePeriodSeconds": 1 });
    json!({ "apiVersion": "projectcalico.org/v3", "kind": "CalicoNodeStatus", "metadata": { "name": "mine" }, "spec": spec })
}

/// The answer of the control API comes to have all these words.
///
/// # Errors
/// It does not.
pub fn says(daemon: &Daemon, path: &str, words: &[&str]) -> Result<()> {
    wait_until(DEADLINE, path, || {
        let text = daemon.api_text(path)?;
        ensure!(words.iter().all(|word| text.contains(word)), "wanted {words:?}: {text}");
        Ok(())
    })
}

/// A problem with all these words is named.
///
/// # Errors
/// It is not.
pub fn problem(daemon: &Daemon, words: &[&str]) -> Result<()> {
    says(daemon, "/v1/problems", words)
}

/// The datastore comes to be in this state; the metric says the same.
///
/// # Errors
/// It does not.
pub fn state(daemon: &Daemon, wanted: &str) -> Result<()> {
    wait_until(DEADLINE, wanted, || {
        let status = daemon.api("/v1/datastore")?;
        ensure!(status["state"] == wanted, "{status}");
        Ok(())
    })?;
    says(daemon, "/metrics", &[&format!("state=\"{wanted}\"}} 1\n")])
}

/// The datastore is in sync, and no problem names it.
///
/// # Errors
/// It is not, or one does.
pub fn in_sync(daemon: &Daemon, name: &str) -> Result<()> {
    state(daemon, "in-sync")?;
    wait_until(DEADLINE, "no problem is left", || {
        let problems = daemon.api_text("/v1/problems")?;
        ensure!(!problems.contains(name), "{problems}");
        Ok(())
    })
}

/// Sessions with these peers.
///
/// # Errors
/// One does not come up.
pub fn establish(daemon: &Daemon, peers: &[PeerPlan]) -> Result<Vec<Observer>> {
    peers.iter().map(|plan| Observer::establish(daemon, plan)).collect()
}

/// The sessions are those of the beginning.
///
/// # Errors
/// One is not.
pub fn undisturbed(daemon: &Daemon, peers: &[PeerPlan]) -> Result<()> {
    for plan in peers {
        let peer = daemon.peer_view(plan)?;
        ensure!(peer["state"] == "Established" && peer["flaps"] == 0, "{peer}");
    }
    Ok(())
}

/// The daemon comes to have so many peers.
///
/// # Errors
/// It does not.
pub fn peer_count(daemon: &Daemon, count: usize) -> Result<()> {
    wait_until(DEADLINE, "the peers are there", || {
        let peers = daemon.api("/v1/peers")?;
        ensure!(peers.as_array().map(Vec::len) == Some(count), "{peers}");
        Ok(())
    })
}

/// The peers are among the last known resources of this state folder.
///
/// # Errors
/// They are not.
pub fn saved(state: &Path, peers: &[PeerPlan]) -> Result<()> {
    let path = state.join("last-known.json");
    wait_until(DEADLINE, "the peers are saved", || {
        let text = std::fs::read_to_string(&path)?;
        ensure!(peers.iter().all(|peer| text.contains(&peer.name)), "{text}");
        Ok(())
    })
}

/// A number of `/metrics`.
///
/// # Errors
/// There is none.
pub fn metric(daemon: &Daemon, name: &str) -> Result<f64> {
    let text = daemon.api_text("/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.ok_or_else(|| anyhow::anyhow!("no {name}: {text}"))?.parse()?)
}
