//! What should be in the kernel against what is: one row a prefix, and the set of prefixes where the two may differ.
//!
//! The kernel's side is learned from read-backs (which replace it wholesale), live events and the answers to our writes.
//! Routes of a past life are *adopted*: they stay until the same prefix is decided or the sweep comes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::route::{Shape, Verdict};
use super::{BestRoute, KernelOp, RouteKey, RouteType};
use crate::config::FibConfig;

/// A best route and what became of it. Few differ, so they are shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decision {
    pub best: BestRoute,
    pub verdict: Verdict,
}

impl Decision {
    fn wanted(&self) -> Option<&Shape> {
        match &self.verdict {
            Verdict::Want(shape) => Some(shape),
            Verdict::NotWanted(_) => None,
        }
    }
}

/// A prefix: what was decided, and which routes of ours the kernel has, one a metric.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub decision: Option<Arc<Decision>>,
    have: SmallVec<[Arc<Shape>; 1]>,
    /// The read-back (or live event) that `have` stems from.
    generation: u8,
    /// `have` is of a past life and not claimed.
    pub adopted: bool,
}

impl Row {
    pub(super) fn wanted(&self) -> Option<&Shape> {
        self.decision.as_ref().and_then(|decision| decision.wanted())
    }

    fn have(&self, metric: u32) -> Option<&Arc<Shape>> {
        self.have.iter().find(|shape| shape.metric == metric)
    }

    /// The kernel has a route of ours for this prefix.
    pub(super) fn has_any(&self) -> bool {
        !self.have.is_empty()
    }

    fn drop_metric(&mut self, metric: u32) {
        self.have.retain(|shape| shape.metric != metric);
    }
}

/// What is to be done about a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The kernel has what is wanted, or rightly nothing.
    Settled,
    /// Of a past life: kept until it is claimed or swept.
    Held,
    /// Somebody else's route of this protocol has the same key.
    Blocked(u8),
    /// These writes.
    Write(SmallVec<[KernelOp; 1]>),
}

/// A prefix's place in the order of writing.
///
/// IPv4 is scattered, because neighbours in a row make Linux rebuild the same trie nodes again and again (additions take a
/// third, deletions two thirds less CPU); IPv6 is sorted, which Linux likes better by as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn(u32, IpNet);

impl Turn {
    fn of(prefix: IpNet) -> Self {
        match prefix.addr() {
            // An odd multiplier keeps all numbers apart and sends neighbours far away.
            IpAddr::V4(address) => Self(u32::from(address).wrapping_mul(0x9e37_79b1), prefix),
            IpAddr::V6(_) => Self(u32::MAX, prefix),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Delta {
    rows: BTreeMap<IpNet, Row>,
    /// Protocol of other people's routes by prefix and metric.
    foreign: BTreeMap<(IpNet, u32), u8>,
    /// Prefixes to be looked at, in the order of writing.
    dirty: BTreeSet<Turn>,
    /// Where the last batch stopped: all prefixes get their turn.
    cursor: Option<Turn>,
    generation: u8,
    /// A read-back is under way.
    reading: bool,
    /// There has been a whole read-back.
    known: bool,
    swept: bool,
    shapes: Shared<Shape>,
    decisions: Shared<Decision>,
}

impl Delta {
    /// Writes may be planned: the kernel's table is known and not being read.
    pub(super) fn is_ready(&self) -> bool {
        self.known && !self.reading
    }

    /// How many prefixes wait to be looked at.
    pub(super) fn waiting(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn row(&self, prefix: &IpNet) -> Option<&Row> {
        self.rows.get(prefix)
    }

    /// Rows in the order of prefixes, from after `after`.
    pub(super) fn rows_after(&self, after: Option<IpNet>) -> impl Iterator<Item = (&IpNet, &Row)> {
        self.rows.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    pub(super) fn touch(&mut self, prefix: IpNet) {
        self.dirty.insert(Turn::of(prefix));
    }

    /// Notes what was decided for a prefix; false when that is nothing new.
    pub(super) fn decide(&mut self, prefix: IpNet, decision: Option<Decision>) -> bool {
        let decision = decision.map(|decision| self.decisions.get(decision));
        let row = self.rows.entry(prefix).or_default();
        let changed = row.decision != decision;
        row.decision = decision;
        if changed {
            self.claim(prefix);
            self.dirty.insert(Turn::of(prefix));
        }
        self.forget_empty(prefix);
        changed
    }

    /// A decided row is of this life, unless the rule of [`held`] keeps it.
    fn claim(&mut self, prefix: IpNet) {
        let swept = self.swept;
        if let Some(row) = self.rows.get_mut(&prefix)
            && self.known
            && row.decision.is_some()
            && !held(row, swept)
        {
            row.adopted = false;
        }
    }

    fn forget_empty(&mut self, prefix: IpNet) {
        if self.rows.get(&prefix).is_some_and(|row| row.decision.is_none() && row.have.is_empty()) {
            self.rows.remove(&prefix);
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
        let (generation, swept) = (self.generation, self.swept);
        self.reading = false;
        self.known = true;
        for row in self.rows.values_mut() {
            if row.generation != generation {
                row.have.clear();
            }
            if row.decision.is_some() && !held(row, swept) {
                row.adopted = false;
            }
        }
        self.rows.retain(|_, row| row.decision.is_some() || row.has_any());
        self.touch_unsettled();
    }

    fn touch_unsettled(&mut self) {
        let config = FibConfig::default();
        let writes = |prefix: &IpNet, row: &Row| matches!(self.plan(&config, *prefix, row), Plan::Write(_));
        let unsettled: Vec<IpNet> = self.rows.iter().filter(|(prefix, row)| writes(prefix, row)).map(|(prefix, _)| *prefix).collect();
        self.dirty.extend(unsettled.into_iter().map(Turn::of));
    }

    /// The kernel has this route of ours (read back, or set by a stranger).
    pub(super) fn found(&mut self, prefix: IpNet, shape: Shape) {
        let shape = self.shapes.get(shape);
        let is_new = !self.rows.contains_key(&prefix);
        let row = self.rows.entry(prefix).or_default();
        if self.reading && row.generation != self.generation {
            row.have.clear();
        }
        row.generation = self.generation;
        row.drop_metric(shape.metric);
        if !self.reading {
            self.foreign.remove(&(prefix, shape.metric));
        }
        row.have.push(shape);
        if is_new || !self.known {
            row.adopted = !self.swept;
        }
        if !self.reading {
            self.claim(prefix);
            self.dirty.insert(Turn::of(prefix));
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
        self.dirty.insert(Turn::of(prefix));
        self.rows.get(&prefix).is_none_or(|row| row.have(metric).is_none())
    }

    /// Our route of this key is gone.
    fn lost(&mut self, prefix: IpNet, metric: u32) {
        if let Some(row) = self.rows.get_mut(&prefix) {
            row.drop_metric(metric);
            self.dirty.insert(Turn::of(prefix));
            self.forget_empty(prefix);
        }
    }

    /// IPv4 routes all of whose hops leave by dead interfaces are gone; true if there were any.
    pub(super) fn flush(&mut self, is_dead: impl Fn(u32) -> bool) -> bool {
        let dead = |shape: &Shape| !shape.hops.is_empty() && shape.hops.iter().all(|hop| is_dead(hop.interface));
        if !self.shapes.any_in_use(dead) {
            return false;
        }
        for (prefix, row) in self.rows.iter_mut().filter(|(prefix, _)| matches!(prefix, IpNet::V4(_))) {
            let before = row.have.len();
            row.have.retain(|shape| !dead(shape));
            if row.have.len() != before {
                self.dirty.insert(Turn::of(*prefix));
            }
        }
        self.rows.retain(|_, row| row.decision.is_some() || row.has_any());
        true
    }

    /// One of our writes was carried out.
    pub(super) fn wrote(&mut self, op: &KernelOp) {
        let (KernelOp::Create(route) | KernelOp::Replace(route) | KernelOp::Delete(route)) = op;
        let RouteKey { prefix, metric, .. } = route.key;
        let shape = (!matches!(op, KernelOp::Delete(_))).then(|| self.shapes.get(Shape::of(route.clone())));
        let row = self.rows.entry(prefix).or_default();
        row.generation = self.generation;
        row.drop_metric(metric);
        row.have.extend(shape);
        row.adopted = false;
        self.forget_empty(prefix);
    }

    /// Nobody may claim the routes of a past life any more.
    pub(super) fn sweep(&mut self) {
        if !self.swept {
            self.swept = true;
            for row in self.rows.values_mut() {
                row.adopted = false;
            }
            self.touch_unsettled();
        }
    }

    /// What is to be done about a prefix.
    pub(super) fn plan(&self, config: &FibConfig, prefix: IpNet, row: &Row) -> Plan {
        if held(row, self.swept) || (row.decision.is_none() && row.adopted && row.has_any()) {
            return Plan::Held;
        }
        let mut ops: SmallVec<[KernelOp; 1]> = SmallVec::new();
        let (mut blocked, wanted) = (None, row.wanted());
        if let Some(wanted) = wanted {
            let have = row.have(wanted.metric);
            match self.foreign.get(&(prefix, wanted.metric)) {
                _ if have.is_some_and(|have| **have == *wanted) => {}
                Some(protocol) => blocked = Some(*protocol),
                None if have.is_some() => ops.push(KernelOp::Replace(wanted.route(config, prefix))),
                None => ops.push(KernelOp::Create(wanted.route(config, prefix))),
            }
        }
        let others = row.have.iter().filter(|have| wanted.is_none_or(|wanted| wanted.metric != have.metric));
        ops.extend(others.map(|have| KernelOp::Delete(have.route(config, prefix))));
        match blocked {
            _ if !ops.is_empty() => Plan::Write(ops),
            Some(protocol) => Plan::Blocked(protocol),
            None => Plan::Settled,
        }
    }

    /// Takes the next writes, about `limit` of them, of prefixes that `may_try` lets through.
    pub(super) fn take(&mut self, config: &FibConfig, limit: usize, may_try: impl Fn(&IpNet) -> bool) -> Vec<KernelOp> {
        let mut ops = Vec::new();
        while ops.len() < limit {
            let after = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.dirty.range((after, Bound::Unbounded)).next().or_else(|| self.dirty.first()).copied();
            let Some(turn) = next else { break };
            self.dirty.remove(&turn);
            self.cursor = Some(turn);
            let Turn(_, prefix) = turn;
            if let Some(row) = self.rows.get(&prefix)
                && may_try(&prefix)
                && let Plan::Write(writes) = self.plan(config, prefix, row)
            {
                ops.extend(writes);
            }
        }
        ops
    }
}

/// A multipath route of a past life whose paths come back one by one stays whole until they are all there, or the sweep.
fn held(row: &Row, swept: bool) -> bool {
    let Some(decision) = row.decision.as_ref().filter(|decision| row.adopted && !swept && decision.best.source.is_bgp()) else {
        return false;
    };
    let Some(wanted) = decision.wanted().filter(|wanted| wanted.kind == RouteType::Unicast) else { return false };
    row.have(wanted.metric).is_some_and(|have| {
        have.kind == wanted.kind && have.hops.len() > wanted.hops.len() && wanted.hops.iter().all(|hop| have.hops.contains(hop))
    })
}

/// Values held once, however many rows point to them.
#[derive(Debug)]
struct Shared<T> {
    values: BTreeSet<Arc<T>>,
    /// Beyond this many, unused ones are dropped.
    limit: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { values: BTreeSet::new(), limit: 1024 }
    }
}

impl<T: Ord> Shared<T> {
    fn get(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.limit {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.limit = 1024.max(2 * self.values.len());
        }
        let value = Arc::new(value);
        self.values.insert(Arc::clone(&value));
        value
    }

    fn any_in_use(&self, pick: impl Fn(&T) -> bool) -> bool {
        self.values.iter().any(|value| Arc::strong_count(value) > 1 && pick(value))
    }
}
