//! `show protocols`: the peers as BIRD's protocols.

use jiff::Timestamp;

use super::clock::Clock;
use super::reply::Reply;
use crate::config::{MaxPrefixAction, PeerConfig, Ttl};
use crate::session::{CapabilitySet, DownReason, Party, PeerStatus, PrefixCounts, State};

/// The protocols that BIRD would run besides BGP, with their preferences: what local routes come from.
pub const OTHERS: [(&str, &str, u32); 4] =
    [("static1", "Static", 200), ("kernel1", "Kernel", 10), ("device1", "Device", 0), ("direct1", "Direct", 240)];

/// One peer: what was asked for, and what its task said (nothing when it does not answer).
#[derive(Clone, Copy, Debug)]
pub struct Protocol<'a> {
    /// Its configuration.
    pub config: &'a PeerConfig,
    /// Its state.
    pub status: Option<&'a PeerStatus>,
    /// Our own restart is not over: what it tells is held back.
    pub waiting: bool,
}

/// The header, once before the rows.
pub fn header(reply: &mut Reply) {
    reply.line(2002, "name     proto    table    state  since       info");
}

/// A row for one of [`OTHERS`].
pub fn other(reply: &mut Reply, (name, kind, preference): (&str, &str, u32), since: Timestamp, all: bool, clock: &Clock) {
    row(reply, name, kind, "up", &clock.short(since), "");
    if all {
        reply.line(1006, format_args!("  Preference:     {preference}"));
        reply.line(1006, "");
    }
}

/// The row of a peer; with `all` its details.
pub fn peer(reply: &mut Reply, peer: &Protocol<'_>, all: bool, clock: &Clock, started: Timestamp) {
    let since = peer.status.map_or(started, |status| clock.at(status.since));
    let info = format!("{:<14}{}", peer.state_word(), peer.error().unwrap_or_default());
    row(reply, &peer.config.name, "BGP", peer.protocol_state(), &clock.short(since), &info);
    if all {
        details(reply, peer);
    }
}

fn row(reply: &mut Reply, name: &str, kind: &str, state: &str, since: &str, info: &str) {
    reply.line(1002, format_args!("{name:<8} {kind:<8} {:<8} {state:<5}  {since:<10}  {info}", "master"));
}

impl Protocol<'_> {
    fn state(&self) -> State {
        self.status.map_or(State::Idle, |status| status.state)
    }

    /// The sixth word of the row.
    pub fn state_word(&self) -> &'static str {
        let held = self.status.is_none_or(|status| status.held.is_some());
        match self.state() {
            State::Idle | State::Active if self.config.passive && !held => "Passive",
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        }
    }

    /// The fourth word of the row.
    pub fn protocol_state(&self) -> &'static str {
        match self.state() {
            State::Established if self.waiting => "wait",
            State::Established => "up",
            _ => "start",
        }
    }

    /// Why it is not up: what holds it down, else the last error.
    pub fn error(&self) -> Option<String> {
        let Some(status) = self.status else { return Some("Error: its task does not answer".to_owned()) };
        match (&status.held, &status.last_error) {
            _ if status.state == State::Established => None,
            (Some(held), _) => Some(format!("Error: {held}")),
            (None, Some(error)) => Some(reason(&error.reason)),
            (None, None) => None,
        }
    }
}

/// An error as BIRD classes them.
fn reason(reason: &DownReason) -> String {
    let class = match (reason.by, reason.code) {
        (Party::Transport, _) => "Socket: ",
        (Party::Peer, _) => "Received: ",
        (Party::Us, 0) => "Error: ",
        (Party::Us, _) => "BGP Error: ",
    };
    format!("{class}{}", reason.text)
}

fn details(reply: &mut Reply, peer: &Protocol<'_>) {
    let Protocol { config, status, .. } = peer;
    let mut line = |text: String| reply.line(1006, text);
    // First, because the line with the code is not read by those who look for the others.
    line(format!("  Description:    Connection to BGP peer ({})", config.asked_by));
    line("  Preference:     100".to_owned());
    let named =
        |policies: [&crate::policy::Policy; 2]| if policies.iter().all(|policy| policy.terms.is_empty()) { "ACCEPT" } else { "(unnamed)" };
    line(format!("  Input filter:   {}", named([&config.import.ipv4, &config.import.ipv6])));
    line(format!("  Output filter:  {}", named([&config.export.ipv4, &config.export.ipv6])));
    line(format!("  Import limit:   {}", config.max_prefixes.limit));
    line(format!("    Action:       {}", if config.max_prefixes.action == MaxPrefixAction::Warn { "warn" } else { "disable" }));
    if let Some(status) = status {
        let PrefixCounts { received, accepted, advertised } = sum(status);
        line(format!("  Routes:         {accepted} imported, {} filtered, {advertised} exported", received.saturating_sub(accepted)));
    }
    line(format!("  BGP state:          {}", peer.state_word()));
    line(format!("    Neighbor address: {}", config.address));
    line(format!("    Neighbor AS:      {}", config.remote_asn));
    if let Some(status) = status {
        session(&mut line, config, status);
    }
    if let Some(error) = peer.error() {
        line(format!("    Last error:       {error}"));
    }
    line(String::new());
}

fn session(line: &mut impl FnMut(String), config: &PeerConfig, status: &PeerStatus) {
    if let Some(identifier) = status.identifier {
        line(format!("    Neighbor ID:      {identifier}"));
    }
    if let Some(both) = &status.capabilities {
        line(format!("    Neighbor caps:    {}", capabilities(&both.remote).join(" ")));
        line(format!("    Session:          {}", kind(config, &both.local, &both.remote).join(" ")));
    }
    if let Some(source) = status.local {
        line(format!("    Source address:   {}", source.ip()));
    }
}

/// Paths of all families.
pub fn sum(status: &PeerStatus) -> PrefixCounts {
    status.families.iter().fold(PrefixCounts::default(), |sum, (_, family)| PrefixCounts {
        received: sum.received + family.received,
        accepted: sum.accepted + family.accepted,
        advertised: sum.advertised + family.advertised,
    })
}

/// Capabilities of the peer by BIRD's names.
fn capabilities(set: &CapabilitySet) -> Vec<&'static str> {
    let mut names = Vec::new();
    let mut name = |on: bool, name: &'static str| names.extend(on.then_some(name));
    let restart = set.graceful_restart.as_ref();
    name(set.route_refresh, "refresh");
    name(set.enhanced_route_refresh, "enhanced-refresh");
    name(restart.is_some_and(|restart| !restart.families.is_empty()), "restart-able");
    name(restart.is_some_and(|restart| restart.families.is_empty()), "restart-aware");
    name(set.four_octet_as.is_some(), "AS4");
    name(adds(set, "receive"), "add-path-rx");
    name(adds(set, "send"), "add-path-tx");
    name(set.extended_message, "ext-messages");
    names
}

/// What the session is, by BIRD's names.
fn kind(config: &PeerConfig, ours: &CapabilitySet, theirs: &CapabilitySet) -> Vec<&'static str> {
    let mut names = vec![if config.is_ibgp() { "internal" } else { "external" }];
    let mut name = |on: bool, name: &'static str| names.extend(on.then_some(name));
    name(config.ttl == Ttl::Multihop, "multihop");
    name(config.reflector_client, "route-reflector");
    name(ours.four_octet_as.is_some() && theirs.four_octet_as.is_some(), "AS4");
    name(adds(ours, "receive") && adds(theirs, "send"), "add-path-rx");
    name(adds(ours, "send") && adds(theirs, "receive"), "add-path-tx");
    name(ours.extended_message && theirs.extended_message, "ext-messages");
    names
}

fn adds(set: &CapabilitySet, direction: &str) -> bool {
    set.add_path.iter().any(|family| family.mode == direction || family.mode == "both")
}
