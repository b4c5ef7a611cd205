//! The update groups of a shard: who is in which, and what each is offered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::attributes::Interner;
use super::export::{Candidate, Exporter, GroupKey, Refusal};
use super::loc_rib::Facts;
use super::monitor;
use super::next_hop::NextHops;
use super::table::Destination;
use super::update_group::{Receiver, Sent, UpdateGroup};
use crate::types::{Attributes, Family, PathId, PeerId, PerFamily, Seeded, family_of};

/// Number of a group; not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(u32);

/// A group and the export rules of its members.
#[derive(Clone, Debug)]
pub(super) struct Group {
    exporter: Exporter,
    /// What its members hear.
    pub(super) out: UpdateGroup,
    filled: PerFamily<bool>,
    completed: PerFamily<bool>,
}

impl Group {
    /// Offers a destination as it stands; `changed` says whether the best path may be another than last time.
    fn offer<P: Copy + Into<IpNet>>(
        &mut self,
        facts: &Facts,
        interner: &mut Interner,
        destination: &Destination<P>,
        index: u32,
        rules: Rules,
    ) {
        let prefix: IpNet = destination.prefix.into();
        let context = &self.exporter.key().context;
        if !context.families.has(family_of(&prefix)) {
            return;
        }
        if context.add_path_send.has(family_of(&prefix)) {
            for path in &destination.paths {
                let eligible = facts.contender(path).eligible;
                let route = eligible.then(|| self.export(&facts.candidate(path, prefix), interner, rules.recovered)).and_then(Result::ok);
                let source = facts.sources.get(path.source);
                self.out.offer(prefix, index, source.sent, route.map(|sent| (sent, source.peer)));
            }
        } else if rules.changed {
            let route = destination.best().and_then(|path| {
                let candidate = facts.candidate(path, prefix);
                Some((self.export(&candidate, interner, rules.recovered).ok()?, candidate.source.peer))
            });
            self.out.offer(prefix, index, PathId(0), route);
        }
    }

    fn export(&mut self, path: &Candidate<'_>, interner: &mut Interner, recovered: bool) -> Result<Sent, Refusal> {
        if !recovered && path.source.kind.is_bgp() {
            return Err(Refusal::Recovery);
        }
        self.exporter.export(path, interner, self.out.rewrites(family_of(&path.prefix)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    changed: bool,
    recovered: bool,
}

/// The groups.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    seeded: Seeded,
    groups: BTreeMap<GroupId, Group>,
    next: u32,
    recovered: bool,
    /// How many paths no message could carry (P2).
    pub(super) unsendable: u64,
}

impl Groups {
    /// None yet.
    pub(super) fn new(seed: u64) -> Self {
        Self { seeded: Seeded::new(seed), groups: BTreeMap::new(), next: 0, recovered: false, unsendable: 0 }
    }

    /// Octets of memory that all Adj-RIB-Out and the frames for their members take.
    pub(super) fn octets(&self) -> usize {
        self.groups.values().map(|group| group.out.octets()).sum()
    }

    /// Offers a destination to all groups.
    pub(super) fn offer<P: Copy + Into<IpNet>>(
        &mut self,
        facts: &Facts,
        interner: &mut Interner,
        destination: &Destination<P>,
        index: u32,
        changed: bool,
    ) {
        let rules = Rules { changed, recovered: self.recovered };
        for group in self.groups.values_mut() {
            group.offer(facts, interner, destination, index, rules);
        }
    }

    /// Offers a destination to one group, as if it had changed.
    pub(super) fn offer_to<P: Copy + Into<IpNet>>(
        &mut self,
        facts: &Facts,
        interner: &mut Interner,
        destination: &Destination<P>,
        index: u32,
        id: GroupId,
    ) {
        let rules = Rules { changed: true, recovered: self.recovered };
        if let Some(group) = self.groups.get_mut(&id) {
            group.offer(facts, interner, destination, index, rules);
        }
    }

    /// A path is gone: groups that hear of every path hear of that. The others hear of a new best path, or of none.
    pub(super) fn withdraw_path(&mut self, prefix: IpNet, index: u32, sent: PathId) {
        for group in self.groups.values_mut().filter(|group| group.exporter.key().context.add_path_send.has(family_of(&prefix))) {
            group.out.offer(prefix, index, sent, None);
        }
    }

    /// Puts a peer into the group of its key. A new group is to be filled by a walk for each family.
    pub(super) fn join(&mut self, key: GroupKey, receiver: Receiver, next_hops: &NextHops) -> (GroupId, bool) {
        let known = self.groups.iter_mut().find(|(_, group)| *group.exporter.key() == key);
        if let Some((id, group)) = known {
            group.out.join(receiver);
            return (*id, false);
        }
        let mut out = UpdateGroup::new(key.context.clone(), self.seeded.clone());
        out.join(receiver);
        (self.add(Exporter::new(key, next_hops), out, PerFamily::default(), PerFamily::default()), true)
    }

    /// Takes a peer out of its group.
    pub(super) fn leave(&mut self, id: GroupId, peer: PeerId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.out.leave(peer);
        if group.out.is_empty() {
            self.groups.remove(&id);
        }
    }

    /// Members of a group have other keys now, though the session stays: those who agree with one another
    /// move into a group of their own, which knows what they have been told. The groups to be offered everything again.
    pub(super) fn regroup(&mut self, id: GroupId, keys: &BTreeMap<PeerId, GroupKey>, next_hops: &NextHops) -> Vec<(GroupId, Vec<PeerId>)> {
        let Some(group) = self.groups.get_mut(&id) else { return Vec::new() };
        let mut parts: Vec<(GroupKey, Vec<PeerId>)> = Vec::new();
        for peer in group.out.members() {
            let key = keys.get(&monitor::real(peer)).unwrap_or(group.exporter.key());
            match parts.iter_mut().find(|(other, _)| other == key) {
                Some((_, peers)) => peers.push(peer),
                None => parts.push((key.clone(), vec![peer])),
            }
        }
        let stays = parts.iter().position(|(key, _)| key == group.exporter.key()).unwrap_or(0);
        let mut again = Vec::new();
        for (part, (key, peers)) in parts.into_iter().enumerate() {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if part != stays {
                let (filled, completed) = (group.filled, group.completed);
                let out = group.out.split(&peers);
                again.push((self.add(Exporter::new(key, next_hops), out, filled, completed), peers));
            } else if key != *group.exporter.key() {
                group.exporter = Exporter::new(key, next_hops);
                again.push((id, peers));
            }
        }
        again
    }

    fn add(&mut self, exporter: Exporter, out: UpdateGroup, filled: PerFamily<bool>, completed: PerFamily<bool>) -> GroupId {
        let id = GroupId(self.next);
        self.next += 1;
        self.groups.insert(id, Group { exporter, out, filled, completed });
        id
    }

    /// The walk that fills a group has offered all of the family.
    pub(super) fn fill_done(&mut self, id: GroupId, family: Family) {
        if let Some(filled) = self.groups.get_mut(&id).and_then(|group| group.filled.of_mut(family)) {
            *filled = true;
        }
    }

    /// Ends a round. With `whole` what the groups hold is all there is, so members may be told so.
    pub(super) fn flush(&mut self, whole: bool) {
        for group in self.groups.values_mut() {
            group.exporter.forget();
            group.out.flush();
            self.unsendable += group.out.take_unsendable().len() as u64;
            for family in Family::ALL {
                let complete = whole && group.filled.has(family) && !group.completed.has(family);
                if let Some(completed) = group.completed.of_mut(family).filter(|_| complete) {
                    *completed = true;
                    group.out.complete(family);
                }
            }
        }
    }

    /// Tidies up memory, by a step; whether that is to go on.
    pub(super) fn compact(&mut self) -> bool {
        let mut left = false;
        for group in self.groups.values_mut().filter(|group| group.out.is_compacting()) {
            group.out.compact();
            left |= group.out.is_compacting();
        }
        left
    }

    /// Our restart is over: routes learned from peers may be sent on. All groups are to be filled again.
    pub(super) fn set_recovered(&mut self) {
        self.recovered = true;
        self.groups.values_mut().for_each(|group| group.filled = PerFamily::default());
    }

    /// Whether it is.
    pub(super) fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// All groups.
    pub(super) fn ids(&self) -> Vec<GroupId> {
        self.groups.keys().copied().collect()
    }

    /// One group.
    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// One group, to change.
    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    /// Our addresses have changed: the groups for which another next hop stands for us now.
    pub(super) fn renew_own_next_hops(&mut self, next_hops: &NextHops) -> BTreeSet<GroupId> {
        self.groups.iter_mut().filter_map(|(id, group)| group.exporter.renew(next_hops).then_some(*id)).collect()
    }

    /// Whether a path is told to a group, and why, in words.
    pub(super) fn explain(
        &mut self,
        id: GroupId,
        path: &Candidate<'_>,
        interner: &mut Interner,
    ) -> Option<(Result<Arc<Attributes>, Refusal>, String)> {
        let group = self.groups.get_mut(&id)?;
        if !self.recovered && path.source.kind.is_bgp() {
            return Some((Err(Refusal::Recovery), Refusal::Recovery.to_string()));
        }
        let rewrites = group.out.rewrites(family_of(&path.prefix));
        let (result, because) = group.exporter.explain(path, interner, rewrites);
        Some((result.map(|sent| rewrites.to_attributes(sent.as_seen())), because))
    }
}
