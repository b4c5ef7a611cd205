//! What should be in the kernel against what is, row by row, and the rows where the two may differ.
//!
//! The kernel's side is learned from read-backs (which replace it wholesale), live events and the answers to our writes.
//! Routes of a past life are *adopted*: they stay until the same prefix is decided or the sweep comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::crowds::{CROWD, Crowd, Crowds, Move};
use super::objects::{Hops, Objects};
use super::route::Shape;
use super::rows::{Decision, Mark, Row, RowId, Rows, Shapes, Shared};
use super::turns::Turns;
use super::{KernelOp, RouteType};
use crate::config::FibConfig;

/// What is to be done about a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The kernel has what is wanted, or rightly nothing.
    Settled,
    /// Of a past life: kept until it is claimed or swept.
    Held,
    /// Somebody else's route of this protocol has the same key.
    Blocked(u8),
    /// These writes, each with the route that it creates, puts in place or deletes.
    Write(SmallVec<[(Verb, Shape); 1]>),
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Replace,
    Delete,
}

/// A write that has been taken and not answered.
#[derive(Clone, Debug)]
pub(super) struct Flown {
    row: RowId,
    pub prefix: IpNet,
    pub verb: Verb,
    pub shape: Shape,
}

impl Flown {
    /// In the kernel's words.
    pub(super) fn op(&self, config: &FibConfig) -> KernelOp {
        let route = self.shape.route(config, self.prefix);
        match self.verb {
            Verb::Create => KernelOp::Create(route),
            Verb::Replace => KernelOp::Replace(route),
            Verb::Delete => KernelOp::Delete(route),
        }
    }
}

/// Writes that have been taken: objects that routes are to go by, then routes.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub objects: Vec<KernelOp>,
    pub writes: Vec<Flown>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Delta {
    rows: Rows,
    /// Protocol of other people's routes by prefix and metric.
    foreign: BTreeMap<(IpNet, u32), u8>,
    /// Rows to be looked at.
    turns: Turns,
    /// Nothing is ever written, so nothing waits.
    dry_run: bool,
    generation: u8,
    /// A read-back is under way.
    reading: bool,
    /// There has been a whole read-back.
    known: bool,
    swept: bool,
    shapes: Shared<Shapes>,
    decisions: Shared<Decision>,
    /// Next-hop objects, and the rows that wait to leave one together.
    pub(super) objects: Objects,
    pub(super) crowds: Crowds,
}

impl Delta {
    /// Nothing is known; `seed` keys the index of prefixes.
    pub(super) fn new(config: &FibConfig, seed: u64) -> Self {
        Self {
            rows: Rows::new(seed),
            foreign: BTreeMap::new(),
            turns: Turns::default(),
            dry_run: false,
            generation: 0,
            reading: false,
            known: false,
            swept: false,
            shapes: Shared::default(),
            decisions: Shared::default(),
            objects: Objects::new(config),
            crowds: Crowds::default(),
        }
    }

    /// From now on nothing is written.
    pub(super) fn set_dry_run(&mut self) {
        self.dry_run = true;
    }

    /// Whether nothing is written.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Writes may be planned: the kernel's table is known and not being read.
    pub(super) fn is_ready(&self) -> bool {
        self.known && !self.reading
    }

    /// Nobody may claim the routes of a past life any more.
    pub(super) fn is_swept(&self) -> bool {
        self.swept
    }

    /// How many prefixes wait to be looked at.
    pub(super) fn waiting(&self) -> usize {
        self.turns.len()
    }

    pub(super) fn row(&self, prefix: &IpNet) -> Option<Row<'_>> {
        self.rows.get(self.rows.find(prefix)?).filter(Row::is_known)
    }

    /// Rows from a number on.
    pub(super) fn rows_from(&self, start: RowId) -> impl Iterator<Item = Row<'_>> {
        self.rows.from(start).filter(Row::is_known)
    }

    pub(super) fn touch(&mut self, prefix: IpNet) {
        if let Some(id) = self.rows.find(&prefix) {
            self.mark(id);
        }
    }

    fn mark(&mut self, id: RowId) {
        if self.dry_run {
            return;
        }
        if self.rows.get_mut(id).is_some_and(|mut row| !row.set(Mark::Dirty, true)) {
            self.turns.push(id);
        }
    }

    /// Notes what was decided for a prefix; false when that is nothing new.
    pub(super) fn decide(&mut self, prefix: IpNet, decision: Option<Decision>) -> bool {
        let found = if decision.is_some() { Some(self.rows.enter(prefix)) } else { self.rows.find(&prefix) };
        let decision = decision.map(|decision| self.decisions.get(decision));
        let Some((id, row)) = found.and_then(|id| Some((id, self.rows.get_mut(id)?))) else { return false };
        if *row.decision == decision {
            return false;
        }
        *row.decision = decision;
        self.claim(id);
        self.mark(id);
        self.rows.release(id);
        true
    }

    /// A decided row is of this life, unless the rule of [`held`] keeps it.
    fn claim(&mut self, id: RowId) {
        let claimed = |row: Row<'_>| row.decision.is_some() && !held(&row, self.swept);
        if self.known && self.rows.get(id).is_some_and(claimed) {
            self.disown(id);
        }
    }

    fn disown(&mut self, id: RowId) {
        if let Some(mut row) = self.rows.get_mut(id) {
            row.set(Mark::Adopted, false);
        }
    }

    /// A read-back begins.
    pub(super) fn begin(&mut self) {
        self.reading = true;
        self.generation = self.generation.wrapping_add(1);
        self.foreign.clear();
    }

    /// A read-back ends: what it did not name is not there.
    pub(super) fn end(&mut self) {
        self.reading = false;
        self.known = true;
        for id in self.rows.ids() {
            let Some(row) = self.rows.get(id) else { continue };
            if row.generation != self.generation && !row.have().is_empty() {
                self.set_have(id, Shapes::new());
            }
            self.claim(id);
            self.rows.release(id);
        }
        self.mark_unsettled();
    }

    fn mark_unsettled(&mut self) {
        for id in self.rows.ids() {
            if self.rows.get(id).is_some_and(|row| matches!(self.plan(&row), Plan::Write(_))) {
                self.mark(id);
            }
        }
    }

    /// The kernel has this route of ours (read back, or set by a stranger).
    pub(super) fn found(&mut self, prefix: IpNet, shape: Shape) {
        if !self.reading {
            self.foreign.remove(&(prefix, shape.metric));
        }
        let id = self.rows.enter(prefix);
        let Some(row) = self.rows.get(id) else { return };
        let is_new = !row.is_known();
        let stays = |other: &&Shape| other.metric != shape.metric && (!self.reading || row.generation == self.generation);
        let have: Shapes = row.have().iter().filter(stays).cloned().chain([shape.clone()]).collect();
        self.set_have(id, have);
        if let Some(mut row) = self.rows.get_mut(id).filter(|_| is_new || !self.known) {
            row.set(Mark::Adopted, !self.swept);
        }
        if !self.reading {
            self.claim(id);
            self.mark(id);
        }
    }

    fn set_have(&mut self, id: RowId, have: Shapes) {
        let have = (!have.is_empty()).then(|| self.shapes.get(have));
        self.put_have(id, have);
    }

    fn put_have(&mut self, id: RowId, have: Option<Arc<Shapes>>) {
        if let Some(row) = self.rows.get_mut(id) {
            count(&mut self.objects, row.have.as_deref(), have.as_deref());
            *row.have = have;
            *row.generation = self.generation;
        }
    }

    /// The kernel has somebody else's route of this key.
    pub(super) fn found_foreign(&mut self, prefix: IpNet, metric: u32, protocol: u8) {
        self.foreign.insert((prefix, metric), protocol);
        if !self.reading {
            self.lost(prefix, metric);
        }
    }

    /// A route of this key is gone. False when it may have been either of two.
    pub(super) fn removed(&mut self, prefix: IpNet, metric: u32) -> bool {
        if self.foreign.remove(&(prefix, metric)).is_none() {
            self.lost(prefix, metric);
            return true;
        }
        self.touch(prefix);
        self.row(&prefix).is_none_or(|row| row.have_metric(metric).is_none())
    }

    /// Our route of this key is gone.
    fn lost(&mut self, prefix: IpNet, metric: u32) {
        let Some(id) = self.rows.find(&prefix) else { return };
        self.keep(id, |shape| shape.metric != metric);
        self.mark(id);
        self.rows.release(id);
    }

    /// Of the routes that the kernel has for a prefix, those stay for which `stays` holds; whether any went.
    fn keep(&mut self, id: RowId, stays: impl Fn(&Shape) -> bool) -> bool {
        let Some(row) = self.rows.get(id).filter(|row| !row.have().iter().all(&stays)) else { return false };
        let (generation, have) = (row.generation, row.have().iter().filter(|shape| stays(shape)).cloned().collect());
        self.set_have(id, have);
        if let Some(row) = self.rows.get_mut(id) {
            *row.generation = generation;
        }
        true
    }

    /// IPv4 routes all of whose hops leave by dead interfaces are gone.
    pub(super) fn flush(&mut self, is_dead: impl Fn(u32) -> bool) {
        // What goes by an object has gone with that, on the link's word.
        let dead = |shape: &Shape| shape.object.is_none() && !shape.hops.is_empty() && shape.hops.iter().all(|hop| is_dead(hop.interface));
        if !self.shapes.any(|shapes| shapes.iter().any(dead)) {
            return;
        }
        for id in self.rows.ipv4_ids() {
            if self.keep(id, |shape| !dead(shape)) {
                self.mark(id);
                self.rows.release(id);
            }
        }
    }

    /// A write has been answered, one way or the other.
    pub(super) fn landed(&mut self, flown: &Flown) {
        if let Some(mut row) = self.rows.get_mut(flown.row) {
            row.set(Mark::Flying, false);
        }
        self.rows.release(flown.row);
    }

    /// One of our writes was carried out.
    pub(super) fn wrote(&mut self, flown: &Flown) {
        let Some(row) = self.rows.get(flown.row) else { return };
        let is_there = flown.verb != Verb::Delete;
        let have = if row.have().iter().all(|shape| shape.metric == flown.shape.metric) {
            is_there.then(|| self.shapes.only(&flown.shape))
        } else {
            let others = row.have().iter().filter(|shape| shape.metric != flown.shape.metric).cloned();
            Some(self.shapes.get(others.chain(is_there.then(|| flown.shape.clone())).collect()))
        };
        self.put_have(flown.row, have);
        self.disown(flown.row);
    }

    /// Nobody may claim the routes of a past life any more.
    pub(super) fn sweep(&mut self) {
        if !self.swept {
            self.swept = true;
            self.rows.ids().for_each(|id| self.disown(id));
            self.mark_unsettled();
        }
    }

    /// What is to be done about a prefix.
    pub(super) fn plan(&self, row: &Row<'_>) -> Plan {
        if held(row, self.swept) || (row.decision.is_none() && row.is(Mark::Adopted) && !row.have().is_empty()) {
            return Plan::Held;
        }
        let mut writes = SmallVec::new();
        let (mut blocked, wanted) = (None, row.wanted());
        if let Some(wanted) = wanted {
            let have = row.have_metric(wanted.metric);
            match self.foreign.get(&(row.prefix, wanted.metric)) {
                _ if have.is_some_and(|have| have.does_as(wanted)) => {}
                Some(protocol) => blocked = Some(*protocol),
                None => writes.push((if have.is_some() { Verb::Replace } else { Verb::Create }, wanted.clone())),
            }
        }
        let others = row.have().iter().filter(|have| wanted.is_none_or(|wanted| wanted.metric != have.metric));
        writes.extend(others.map(|have| (Verb::Delete, have.clone())));
        match blocked {
            _ if !writes.is_empty() => Plan::Write(writes),
            Some(protocol) => Plan::Blocked(protocol),
            None => Plan::Settled,
        }
    }

    /// Takes the next writes, about `limit` of them, of prefixes that `may_try` lets through and that have none under way.
    pub(super) fn take(&mut self, now: Instant, limit: usize, may_try: impl Fn(&IpNet) -> bool) -> Taken {
        let (mut taken, mut later) = (Taken::default(), Vec::new());
        while taken.writes.len() < limit {
            let Some(id) = self.turns.next(&self.rows) else { break };
            let Some(row) = self.rows.get(id) else { continue };
            if row.is(Mark::Flying) {
                later.push(id);
                continue;
            }
            let plan = if may_try(&row.prefix) { self.plan(&row) } else { Plan::Settled };
            if let Some(group) = self.left_group(&row, &plan).filter(|_| !row.is(Mark::Alone)) {
                self.crowds.join(now, group, self.objects.routes(group), id);
                continue;
            }
            let prefix = row.prefix;
            let Some(mut row) = self.rows.get_mut(id) else { continue };
            row.set(Mark::Dirty, false);
            row.set(Mark::Alone, false);
            if let Plan::Write(writes) = plan {
                row.set(Mark::Flying, true);
                for (verb, mut shape) in writes {
                    if verb != Verb::Delete {
                        shape.object = self.objects.group(&shape.hops, &mut taken.objects);
                    }
                    taken.writes.push(Flown { row: id, prefix, verb, shape });
                }
            }
            self.rows.release(id);
        }
        later.into_iter().for_each(|id| self.turns.push(id));
        taken
    }

    // ── objects ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The group that the kernel's route goes by, if the plan is no more than to leave it for other hops and many go by it.
    fn left_group(&self, row: &Row<'_>, plan: &Plan) -> Option<u32> {
        let Plan::Write(writes) = plan else { return None };
        let [(Verb::Replace, wanted)] = &writes[..] else { return None };
        let have = row.have_metric(wanted.metric)?;
        let group = have.object.filter(|group| self.objects.routes(*group) >= CROWD)?;
        (have.is_alike(wanted) && self.objects.can_move(group, &wanted.hops)).then_some(group)
    }

    /// Looks at the rows that wait to leave objects together. `calm`: nothing is under way, and nothing else waits to be written.
    /// Those that need not, or may not, wait any longer are to be written by themselves.
    pub(super) fn settle_crowds(&mut self, now: Instant, calm: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        for (group, crowd) in self.crowds.take(now) {
            let all = self.objects.routes(group);
            let is_whole = crowd.rows.len() >= all;
            if !is_whole && !crowd.is_large() {
                self.write_alone(crowd.rows);
            } else if is_whole || self.crowds.is_complete(&crowd, now) {
                moves.extend(self.settle_crowd(now, calm, group, crowd));
            } else {
                self.crowds.put_back(group, crowd);
            }
        }
        moves
    }

    fn settle_crowd(&mut self, now: Instant, calm: bool, group: u32, mut crowd: Crowd) -> Option<Move> {
        let all = self.objects.routes(group);
        let Some(hops) = self.common_hops(group, &crowd.rows) else {
            self.write_alone(crowd.rows);
            return None;
        };
        let (agreed, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut crowd.rows).into_iter().partition(|id| self.wants(*id, group) == Some(&hops));
        let (is_whole, stays) = (agreed.len() == all, others.is_empty());
        // Whoever goes elsewhere goes first.
        self.write_alone(others);
        if is_whole && calm {
            agreed.iter().for_each(|id| self.fly(*id));
            return Some(Move { group, hops, rows: agreed });
        }
        let more_will_leave = !calm || !stays;
        if more_will_leave && 2 * agreed.len() >= all && !crowd.is_late(now) {
            crowd.rows = agreed;
            self.crowds.put_back(group, crowd);
        } else {
            self.write_alone(agreed);
        }
        None
    }

    /// The hops that most of these rows want instead of the group's.
    fn common_hops(&self, group: u32, rows: &[RowId]) -> Option<Hops> {
        let mut counts: BTreeMap<&Hops, usize> = BTreeMap::new();
        for hops in rows.iter().filter_map(|id| self.wants(*id, group)) {
            *counts.entry(hops).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(hops, _)| hops.clone())
    }

    /// The hops that a row wants instead of the group's.
    fn wants(&self, id: RowId, group: u32) -> Option<&Hops> {
        let row = self.rows.get(id)?;
        let plan = self.plan(&row);
        self.left_group(&row, &plan).filter(|left| *left == group)?;
        row.wanted().map(|wanted| &wanted.hops)
    }

    fn fly(&mut self, id: RowId) {
        if let Some(mut row) = self.rows.get_mut(id) {
            row.set(Mark::Dirty, false);
            row.set(Mark::Flying, true);
        }
    }

    /// These are written one by one, next.
    fn write_alone(&mut self, rows: Vec<RowId>) {
        for id in &rows {
            self.rows.get_mut(*id).into_iter().for_each(|mut row| _ = row.set(Mark::Alone, true));
        }
        self.turns.push_first(rows);
    }

    /// A move has been answered: the object leads elsewhere, or not.
    pub(super) fn moved(&mut self, moved: &Move, done: bool) {
        for id in &moved.rows {
            let Some(row) = self.rows.get(*id).filter(|_| done) else { continue };
            let elsewhere = |shape: &Shape| match shape.object {
                Some(object) if object == moved.group => Shape { hops: moved.hops.clone(), ..shape.clone() },
                _ => shape.clone(),
            };
            let have = row.have().iter().map(elsewhere).collect();
            self.set_have(*id, have);
            self.disown(*id);
        }
        for id in &moved.rows {
            if let Some(mut row) = self.rows.get_mut(*id) {
                row.set(Mark::Flying, false);
            }
            if !done {
                self.mark(*id);
            }
            self.rows.release(*id);
        }
    }

    /// An interface is down: objects have lost hops, and routes with them. Whether any has.
    pub(super) fn lose_hops(&mut self, interface: u32) -> bool {
        let loses = |shape: &Shape| shape.object.is_some() && shape.hops.iter().any(|hop| hop.interface == interface);
        if !self.shapes.any(|shapes| shapes.iter().any(loses)) {
            return false;
        }
        let left = |shape: &Shape| {
            let hops: Hops = shape.hops.iter().copied().filter(|hop| shape.object.is_none() || hop.interface != interface).collect();
            (shape.hops.is_empty() || !hops.is_empty()).then(|| Shape { hops, ..shape.clone() })
        };
        let mut any = false;
        for id in self.rows.ids() {
            let Some(row) = self.rows.get(id).filter(|row| row.have().iter().any(loses)) else { continue };
            let (generation, have) = (row.generation, row.have().iter().filter_map(left).collect());
            self.set_have(id, have);
            self.rows.get_mut(id).into_iter().for_each(|row| *row.generation = generation);
            self.mark(id);
            self.rows.release(id);
            any = true;
        }
        any
    }
}

/// Counts the routes that go by each object, of a row whose routes change.
fn count(objects: &mut Objects, before: Option<&Shapes>, now: Option<&Shapes>) {
    let of = |shapes: Option<&Shapes>| shapes.into_iter().flatten().filter_map(|shape| shape.object).collect::<SmallVec<[u32; 2]>>();
    of(now).into_iter().for_each(|object| objects.add_route(object));
    of(before).into_iter().for_each(|object| objects.drop_route(object));
}

/// A multipath route of a past life whose paths come back one by one stays whole until they are all there, or the sweep.
fn held(row: &Row<'_>, swept: bool) -> bool {
    let Some(decision) = row.decision.filter(|decision| row.is(Mark::Adopted) && !swept && decision.best.source.is_bgp()) else {
        return false;
    };
    let Some(wanted) = decision.wanted().filter(|wanted| wanted.kind == RouteType::Unicast) else { return false };
    row.have_metric(wanted.metric).is_some_and(|have| {
        have.kind == wanted.kind && have.hops.len() > wanted.hops.len() && wanted.hops.iter().all(|hop| have.hops.contains(hop))
    })
}
