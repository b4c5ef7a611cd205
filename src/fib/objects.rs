//! Our next-hop objects in the kernel (`ip nexthop`): routes that leave the same way go by one object, so that all of them are moved by
//! one message.
//!
//! A route goes by a *group*, even where it has one hop only: Linux replaces groups by groups alone. A group's members are *single*
//! objects, one a hop.
//!
//! What Linux does with them, and says nothing about:
//! - An interface that goes down or loses its carrier takes its single objects along, groups lose these members, and groups without members
//!   go, with their routes. (Without objects an IPv4 route outlives its carrier.)
//! - An interface's last IPv4 address takes routes along that name the interface themselves, and none that go by an object.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use smallvec::SmallVec;

use super::{KernelHop, KernelObject, KernelOp, NextHopObject};
use crate::config::FibConfig;

/// Our objects are numbered from here ("M") on; others count from one.
const FIRST: u32 = 0x4d00_0000;
/// So many numbers belong to a routing table: another process may serve another one, and each deletes what it does not need.
const NUMBERS: u32 = 1 << 16;

/// The hops of a route, sorted.
pub(super) type Hops = SmallVec<[KernelHop; 1]>;
/// Numbers of single objects.
type Members = SmallVec<[u32; 2]>;

/// The numbers of objects for routes of this table.
pub fn numbers(table: u32) -> Range<u32> {
    let first = FIRST + table % 256 * NUMBERS;
    first..first + NUMBERS
}

/// What the kernel is known, or about, to hold of them.
#[derive(Debug)]
pub(super) struct Objects {
    numbers: Range<u32>,
    protocol: u8,
    /// New routes go by objects.
    on: bool,
    singles: BTreeMap<u32, KernelHop>,
    groups: BTreeMap<u32, Members>,
    /// The single object of a hop, and the group that new routes of some hops go by.
    by_hop: BTreeMap<KernelHop, u32>,
    by_hops: BTreeMap<Hops, u32>,
    /// How many routes of ours the kernel has by each object, strangers' objects included.
    routes: BTreeMap<u32, usize>,
    /// Groups that the kernel would not change.
    stuck: BTreeSet<u32>,
    /// There may be some that no route goes by.
    loose: bool,
    /// The number last given.
    last: u32,
}

impl Objects {
    /// None are known, and none are made.
    pub(super) fn new(config: &FibConfig) -> Self {
        let numbers = numbers(config.table);
        Self {
            protocol: config.protocol,
            on: false,
            singles: BTreeMap::new(),
            groups: BTreeMap::new(),
            by_hop: BTreeMap::new(),
            by_hops: BTreeMap::new(),
            routes: BTreeMap::new(),
            stuck: BTreeSet::new(),
            loose: false,
            last: numbers.end - 1,
            numbers,
        }
    }

    /// From now on new routes go by objects, where that can gain anything.
    pub(super) fn set_on(&mut self) {
        self.on = true;
    }

    /// The kernel has no such objects.
    pub(super) fn give_up(&mut self) {
        self.on = false;
        self.begin();
    }

    // ── what the kernel tells ──────────────────────────────────────────────────────────────────────────────────────────────

    /// A read-back begins.
    pub(super) fn begin(&mut self) {
        self.singles.clear();
        self.groups.clear();
        self.stuck.clear();
        self.index();
    }

    /// The kernel has this object.
    pub(super) fn found(&mut self, KernelObject { id, protocol, object }: KernelObject) {
        match object {
            _ if protocol != self.protocol || !self.numbers.contains(&id) => {}
            NextHopObject::Single(hop) => _ = self.singles.insert(id, hop),
            NextHopObject::Group(members) => _ = self.groups.insert(id, members),
        }
    }

    /// The read-back has named all.
    pub(super) fn end(&mut self) {
        self.loose = true;
        self.index();
    }

    /// This interface is down: what the kernel does to our objects then. Whether it does anything.
    pub(super) fn flush(&mut self, interface: u32) -> bool {
        let before = self.singles.len();
        self.singles.retain(|_, hop| hop.interface != interface);
        if self.singles.len() == before {
            return false;
        }
        self.drop_members();
        true
    }

    /// Whether the group is there, or about to be.
    pub(super) fn has_group(&self, id: u32) -> bool {
        self.groups.contains_key(&id)
    }

    /// The kernel did not make these objects, or they are gone.
    pub(super) fn forget(&mut self, gone: &BTreeSet<u32>) {
        if !gone.is_empty() {
            self.groups.retain(|id, _| !gone.contains(id));
            self.singles.retain(|id, _| !gone.contains(id));
            self.drop_members();
        }
    }

    fn drop_members(&mut self) {
        let singles = &self.singles;
        self.groups.retain(|_, members| {
            members.retain(|member| singles.contains_key(member));
            !members.is_empty()
        });
        self.index();
    }

    fn index(&mut self) {
        self.by_hop = self.singles.iter().rev().map(|(id, hop)| (*hop, *id)).collect();
        self.by_hops = self.groups.keys().rev().filter_map(|id| Some((self.hops_of(*id)?, *id))).collect();
    }

    /// The hops of a group of ours; none where it is not known.
    pub(super) fn hops_of(&self, group: u32) -> Option<Hops> {
        let members = self.groups.get(&group)?;
        let mut hops: Hops = members.iter().map(|member| self.singles.get(member).copied()).collect::<Option<_>>()?;
        hops.sort_unstable();
        Some(hops)
    }

    // ── routes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The kernel has one more route of ours by it.
    pub(super) fn add_route(&mut self, object: u32) {
        *self.routes.entry(object).or_default() += 1;
    }

    /// One less.
    pub(super) fn drop_route(&mut self, object: u32) {
        if let Some(count) = self.routes.get_mut(&object) {
            *count -= 1;
            if *count == 0 {
                self.routes.remove(&object);
                self.loose = true;
            }
        }
    }

    /// How many routes of ours go by it.
    pub(super) fn routes(&self, id: u32) -> usize {
        self.routes.get(&id).copied().unwrap_or(0)
    }

    /// The group that a new route of these hops is to go by, made where there is none: `ops` make it, before the route. None where the
    /// route names its hops itself.
    pub(super) fn group(&mut self, hops: &Hops, ops: &mut Vec<KernelOp>) -> Option<u32> {
        if !self.can_have(hops) {
            return None;
        }
        if let Some(known) = self.by_hops.get(hops) {
            return Some(*known);
        }
        let members = self.members(hops, ops)?;
        let id = self.number()?;
        ops.push(KernelOp::CreateObject(self.object(id, NextHopObject::Group(members.clone()))));
        self.groups.insert(id, members);
        self.by_hops.insert(hops.clone(), id);
        Some(id)
    }

    /// Routes that stay on the link are one an interface: nothing to share.
    fn can_have(&self, hops: &Hops) -> bool {
        self.on && !hops.is_empty() && hops.iter().all(|hop| hop.gateway.is_some())
    }

    fn members(&mut self, hops: &Hops, ops: &mut Vec<KernelOp>) -> Option<Members> {
        hops.iter().map(|hop| self.single(*hop, ops)).collect()
    }

    fn single(&mut self, hop: KernelHop, ops: &mut Vec<KernelOp>) -> Option<u32> {
        if let Some(known) = self.by_hop.get(&hop) {
            return Some(*known);
        }
        let id = self.number()?;
        ops.push(KernelOp::CreateObject(self.object(id, NextHopObject::Single(hop))));
        self.singles.insert(id, hop);
        self.by_hop.insert(hop, id);
        Some(id)
    }

    fn object(&self, id: u32, object: NextHopObject) -> KernelObject {
        KernelObject { id, protocol: self.protocol, object }
    }

    /// A number that no object has as far as is known. If somebody has it all the same, the kernel refuses, and the next attempt takes the
    /// next number.
    fn number(&mut self) -> Option<u32> {
        for _ in 0..NUMBERS {
            self.last = if self.last + 1 < self.numbers.end { self.last + 1 } else { self.numbers.start };
            if !self.singles.contains_key(&self.last) && !self.groups.contains_key(&self.last) {
                return Some(self.last);
            }
        }
        None
    }

    // ── moving ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Whether all routes of the group could be moved by changing it, to these hops.
    pub(super) fn can_move(&self, group: u32, hops: &Hops) -> bool {
        self.groups.contains_key(&group) && !self.stuck.contains(&group) && self.can_have(hops)
    }

    /// Makes the group lead to these hops: what to write.
    pub(super) fn change(&mut self, group: u32, hops: &Hops) -> Option<Vec<KernelOp>> {
        let mut ops = Vec::new();
        let members = self.members(hops, &mut ops)?;
        ops.push(KernelOp::ReplaceObject(self.object(group, NextHopObject::Group(members.clone()))));
        let before = self.hops_of(group).filter(|before| self.by_hops.get(before) == Some(&group));
        before.into_iter().for_each(|before| _ = self.by_hops.remove(&before));
        self.groups.insert(group, members);
        self.by_hops.entry(hops.clone()).or_insert(group);
        self.loose = true;
        Some(ops)
    }

    /// The kernel would not change it.
    pub(super) fn stick(&mut self, group: u32) {
        self.stuck.insert(group);
    }

    // ── tidying ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// There may be some that no route goes by: writes failed.
    pub(super) fn loosen(&mut self) {
        self.loose = !self.groups.is_empty();
    }

    /// Deletes what no route goes by; only while none is under way.
    pub(super) fn tidy(&mut self) -> Vec<KernelOp> {
        if !std::mem::take(&mut self.loose) {
            return Vec::new();
        }
        let unused: Vec<u32> = self.groups.keys().copied().filter(|id| self.routes(*id) == 0).collect();
        unused.iter().for_each(|id| _ = self.groups.remove(id));
        let members: BTreeSet<u32> = self.groups.values().flatten().copied().collect();
        let alone: Vec<u32> = self.singles.keys().copied().filter(|id| !members.contains(id) && self.routes(*id) == 0).collect();
        alone.iter().for_each(|id| _ = self.singles.remove(id));
        if !unused.is_empty() || !alone.is_empty() {
            self.index();
        }
        unused.into_iter().chain(alone).map(KernelOp::DeleteObject).collect()
    }
}
