//! Why a peer is up, down, or not there at all: from recorded reasons, in sentences.

use serde_json::{Value, json};

use crate::bfd::SessionStatus;
use crate::config::{Authentication, PeerConfig};
use crate::control::{ask, capabilities};
use crate::kernel::Md5Drops;
use crate::runtime::directory::Directory;
use crate::session::{Party, PeerStatus, State};

/// `{name, exists, state, because: [sentences]}`.
pub async fn explain(directory: &Directory, name: &str) -> Value {
    match directory.find(name) {
        None => json!({ "name": name, "exists": false, "because": absent(directory, name) }),
        Some((name, entry)) => {
            let status = ask::status(entry).await;
            let mut because = present(&entry.config, status.as_ref());
            because.extend(path(&entry.config, ask::bfd(directory).await.get(&entry.id)));
            json!({ "name": name, "exists": true, "asked_by": entry.config.asked_by, "state": status.map(|s| s.state), "because": because })
        }
    }
}

fn absent(directory: &Directory, name: &str) -> Vec<String> {
    let mut because = vec![format!("There is no peer `{name}`.")];
    let Some(config) = &directory.config else {
        because.push(format!("There is no configuration yet: Node `{}` has not been seen.", directory.node));
        return because;
    };
    if name == directory.node || config.listen.addresses.iter().any(|own| own.to_string() == name) {
        because.push("That is this node itself.".into());
    }
    let suspects: Vec<String> = directory
        .problems
        .iter()
        .filter(|p| p.resource.as_ref().is_some_and(|r| r.kind == "BGPPeer" || r.kind == "Node"))
        .map(ToString::to_string)
        .collect();
    if suspects.is_empty() {
        because.push(format!(
            "No Node, BGPPeer or mesh rule asks node `{}` for it, and no resource was refused: check nodeSelector, peerSelector and nodeToNodeMeshEnabled.",
            directory.node
        ));
    } else {
        because.push("These resources were refused or changed and may be meant:".into());
        because.extend(suspects);
    }
    because
}

fn present(config: &PeerConfig, status: Option<&PeerStatus>) -> Vec<String> {
    let relation = if config.is_ibgp() { "iBGP" } else { "eBGP" };
    let mut because = vec![format!(
        "Asked for by {}: {} port {}, AS {} ({relation}, our AS {}).",
        config.asked_by, config.address, config.port, config.remote_asn, config.local_asn
    )];
    if let Authentication::Missing(what) = &config.authentication {
        because.push(format!("It waits for its TCP-MD5 key: {what}. Nothing is tried without it."));
    }
    if config.passive {
        because.push("It is passive: the other side connects.".into());
    }
    match status {
        None => because.push("Its task does not answer.".into()),
        Some(status) => because.extend(session(config, status)),
    }
    because
}

/// What BFD says of the path.
fn path(config: &PeerConfig, bfd: Option<&SessionStatus>) -> Option<String> {
    let settings = config.bfd?;
    let hops = if settings.multihop { "several hops" } else { "one hop" };
    let Some(bfd) = bfd else { return Some(format!("BFD over {hops} is asked for, but has no session yet: see the log.")) };
    Some(match bfd.detection_ms {
        None => format!(
            "BFD over {hops} has heard nothing: does the peer run BFD towards {} as well?",
            if settings.multihop { "this address, with multihop" } else { "this address" }
        ),
        Some(detection) => format!(
            "BFD over {hops} is {:?} (the peer says {:?}), detects a failure in {detection} ms, and was lost {} times; the last reason: {}.",
            bfd.state, bfd.remote_state, bfd.flaps, bfd.diagnostic
        ),
    })
}

fn session(config: &PeerConfig, status: &PeerStatus) -> Vec<String> {
    let mut because = vec![format!("The session is {:?}.", status.state)];
    if let Some(held) = &status.held {
        because.push(format!("It is held down: {held}."));
    }
    if let Some(error) = &status.last_error {
        let who = match error.reason.by {
            Party::Us => "we ended it",
            Party::Peer => "the peer ended it",
            Party::Transport => "TCP failed",
        };
        let ago = ago(error.at.elapsed());
        because.push(match status.state {
            State::Established => format!("Before that, {ago} ago, {who}: {}.", error.reason.text),
            _ => format!("Last time, {ago} ago, {who}: {}.", error.reason.text),
        });
    }
    if status.state != State::Established {
        because.push(hint(config, status));
        because.extend(Md5Drops::now().filter(|drops| !drops.is_empty()).map(|drops| {
            format!(
                "For its TCP-MD5 signature the kernel has dropped, of all peers since it counts: {drops}. `nstat -az 'TcpExtTCPMD5*'` shows whether they grow."
            )
        }));
    }
    because.extend(silence(config, status));
    because.extend(status.capabilities.iter().flat_map(capabilities::sentences));
    because
}

/// A router of another AS that tells nothing: what usually lies behind it is in the router (W3).
fn silence(config: &PeerConfig, status: &PeerStatus) -> Option<String> {
    let silent = status.state == State::Established && status.families.iter().all(|(_, counts)| counts.received == 0);
    (silent && !config.is_ibgp()).then(|| {
        "It has told no routes. A router of another AS may tell, and take, none before it has a policy for this session (RFC 8212); FRR's \
         `show bgp neighbors` then says `policy` beside them, and `no bgp ebgp-requires-policy` or a route map helps."
            .to_owned()
    })
}

/// A time in its greatest unit.
fn ago(time: std::time::Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// What usually lies behind the state that the session is stuck in.
fn hint(config: &PeerConfig, status: &PeerStatus) -> String {
    match status.state {
        State::Idle => "Nothing is tried now: it is stopped, waits for its key, or pauses after an error.".into(),
        State::Connect => format!(
            "TCP to {} port {} is being tried and has no answer yet: no route, a firewall, or a key on one side only.",
            config.address, config.port
        ),
        State::Active => format!(
            "TCP to {} port {} did not come up, or the peer is awaited: is a speaker listening there, and is this node configured as its peer?",
            config.address, config.port
        ),
        State::OpenSent => "TCP is up but the peer has sent no OPEN: it does not know this node, or is stuck.".into(),
        State::OpenConfirm => "The OPENs were accepted; the peer's KEEPALIVE is awaited.".into(),
        State::Established => String::new(),
    }
}
