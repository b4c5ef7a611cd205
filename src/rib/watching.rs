//! Shard and collectors: who watches, which peers they hear of, and the answers to their pulls.

use std::sync::Arc;

use super::Output;
use super::groups::GroupId;
use super::monitor::{self, MonitorId, Tables, Watch};
use super::shard::Shard;
use crate::session::{SessionEnd, SessionFacts};
use crate::types::{Outbox, PeerId};

impl Shard {
    /// A collector is there.
    #[inline(never)]
    pub(super) fn watch(&mut self, id: MonitorId, watch: Watch) {
        self.unwatch(id);
        let up: Vec<_> = self.peers.values().filter_map(|state| Some((Arc::clone(&state.facts), state.group?))).collect();
        self.monitors.start(id, watch, up.iter().map(|(facts, _)| facts));
        if watch.tables() {
            self.ipv4.watched.start(id, up.iter().map(|(facts, _)| facts.peer));
            self.ipv6.watched.start(id, up.iter().map(|(facts, _)| facts.peer));
        }
        for (facts, group) in up.iter().filter(|_| watch.out) {
            self.read_along(facts, *group, id);
        }
    }

    /// It has gone.
    #[inline(never)]
    pub(super) fn unwatch(&mut self, id: MonitorId) {
        self.monitors.stop(id);
        self.ipv4.watched.stop(id);
        self.ipv6.watched.stop(id);
        for (peer, group) in self.peers.iter().filter_map(|(peer, state)| Some((*peer, state.group?))) {
            if let Some(group) = self.shared.groups.get_mut(group) {
                group.out.leave(monitor::shadow(peer, id));
            }
        }
    }

    /// A session is up and hears with a group.
    pub(super) fn watch_peer(&mut self, facts: &Arc<SessionFacts>, group: GroupId, has_paths: bool) {
        self.monitors.up(facts, has_paths);
        self.ipv4.watched.rise(facts.peer);
        self.ipv6.watched.rise(facts.peer);
        for id in self.monitors.of_adj_rib_out().collect::<Vec<_>>() {
            self.read_along(facts, group, id);
        }
    }

    /// A session has ended.
    #[inline(never)]
    pub(super) fn unwatch_peer(&mut self, peer: PeerId, end: &SessionEnd) {
        if !self.monitors.is_empty() {
            self.monitors.down(peer, end);
            self.ipv4.watched.forget(peer);
            self.ipv6.watched.forget(peer);
        }
    }

    fn read_along(&mut self, facts: &SessionFacts, group: GroupId, id: MonitorId) {
        if let Some(group) = self.shared.groups.get_mut(group) {
            group.out.join(monitor::shadow_of(facts, id));
        }
    }

    /// Whether a collector that has room can be told more at once.
    pub(super) fn is_monitoring(&self) -> bool {
        !self.monitors.is_empty() && self.monitors.is_busy(|id| self.waiting(id))
    }

    fn waiting(&self, id: MonitorId) -> usize {
        self.ipv4.watched.waiting(id) + self.ipv6.watched.waiting(id)
    }

    /// Tells collectors that have room a step each, and gives up those for which too much waits.
    #[inline(never)]
    pub(super) fn answer_monitors(&mut self, out: &mut Outbox<Output>) {
        for id in self.monitors.overrun(|id| self.waiting(id)) {
            self.unwatch(id);
            out.push(Output::Overrun(id));
        }
        for id in self.monitors.asking() {
            let mut words = Vec::new();
            let Self { monitors, ipv4, ipv6, shared, peers, .. } = self;
            let facts = &shared.facts;
            monitors.tell(id, &mut Tables { rib: ipv4, facts }, &mut Tables { rib: ipv6, facts }, &mut words);
            let groups = &mut shared.groups;
            monitors.tell_sent(id, &mut words, |peer, credit| {
                let (mut frames, mut ended) = (Vec::new(), Vec::new());
                let group = peers.get(&peer).and_then(|state| groups.get_mut(state.group?));
                let shadow = monitor::shadow(peer, id);
                if let Some(group) = group.filter(|group| group.out.has_output(shadow)) {
                    group.out.pull(shadow, credit, &mut frames, &mut ended);
                }
                (frames, ended)
            });
            if !words.is_empty() {
                self.monitors.told(id);
                out.push(Output::Monitored(id, words));
            }
        }
    }
}
