//! The FibSyncer: brings the kernel to what the Loc-RIB decided, with as few writes as possible.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::crowds::Move;
use super::delta::{Delta, Flown, Taken, Verb};
use super::failure::{EEXIST, EINVAL, EOPNOTSUPP, ESRCH, Failures, explain};
use super::interface::Interfaces;
use super::queries::Queries;
use super::route::{Shape, judge};
use super::rows::{Decision, RowId};
use super::status::Known;
use super::{FibChange, Input, KernelEvent, KernelObject, KernelOp, KernelOps, KernelRoute, NextHopObject, Output, Query, RouteKey};
use crate::config::{FibAction, FibConfig};
use crate::types::{Outbox, QueryId, Sync};

/// Changes asked of the Loc-RIB at a time.
const CREDIT: usize = 4096;
/// Writes a batch.
const BATCH: usize = 4096;
/// Batches under way at most: the kernel writes one while the next is made. Less than a batch waits for the answer, so that what
/// cancels out meanwhile is never written.
const FLIGHTS: usize = 2;
/// With so many prefixes waiting to be written, no more changes are asked for: the Loc-RIB coalesces them. Many, because the kernel takes
/// IPv4 routes much faster when they are mixed, and a waiting one costs no more than eight octets here.
const ENOUGH: usize = 1 << 20;
/// Rows judged anew in one step.
const JUDGE_STEP: usize = 4096;
/// Rows answered in one step.
const ANSWER_STEP: usize = 256;
/// Rows looked at in one step for those in some state.
const LOOK_STEP: usize = 4096;
/// Pause between audits: full comparisons with the kernel's table.
const AUDIT: Duration = Duration::from_secs(300);
/// Shortest pause between read-backs that doubts call for.
const DOUBT_PAUSE: Duration = Duration::from_secs(5);

/// A batch that the kernel has not answered yet.
#[derive(Debug)]
struct Flight {
    batch: u64,
    /// Writes of next-hop objects, which come first.
    objects: Vec<KernelOp>,
    writes: Vec<Flown>,
    /// What the objects move.
    moves: Vec<Move>,
    /// A stranger touched one of its routes meanwhile: which came first is not known.
    doubtful: bool,
}

/// The machine; see the [module](super).
///
/// Table and protocol are those of construction; a later configuration changes the rules.
#[derive(Debug)]
pub struct FibSyncer {
    config: FibConfig,
    interfaces: Interfaces,
    delta: Delta,
    failures: Failures,
    flights: VecDeque<Flight>,
    batches: u64,
    /// The Loc-RIB has been asked and has not answered.
    pulled: bool,
    /// Rows from this one on have not been judged by the present rules.
    judging: Option<RowId>,
    queries: Queries,
    /// Something contradicts what is known of the kernel.
    doubt: bool,
    /// A read-back was asked for and has not begun.
    asked: bool,
    /// When doubts may next ask for a read-back, and when the next audit is.
    read_after: Option<Instant>,
    audit_at: Option<Instant>,
    now: Option<Instant>,
    /// This node forwards nothing: what the Loc-RIB says is heard and not kept.
    idle: bool,
}

impl FibSyncer {
    /// Knows nothing yet; writes nothing before the kernel's table has been told. `seed` keys its index of prefixes, which peers
    /// choose.
    pub fn new(config: &FibConfig, seed: u64) -> Self {
        Self {
            config: config.clone(),
            interfaces: Interfaces::default(),
            delta: Delta::new(config, seed),
            failures: Failures::default(),
            flights: VecDeque::new(),
            batches: 0,
            pulled: false,
            judging: None,
            queries: Queries::default(),
            doubt: false,
            asked: false,
            read_after: None,
            audit_at: None,
            now: None,
            idle: false,
        }
    }

    /// The same, but routes that leave the same way go by a next-hop object (`--next-hop-objects`), which moves all of them at once.
    #[must_use]
    pub fn with_objects(mut self) -> Self {
        self.delta.objects.set_on();
        self
    }

    /// Whether routes wait a moment for others, to be moved together.
    pub fn is_holding(&self) -> bool {
        !self.delta.crowds.is_empty()
    }

    /// The same, but it only looks on (`--dry-run`): it knows what it would write, and writes nothing.
    #[must_use]
    pub fn looking_on(mut self) -> Self {
        self.delta.set_dry_run();
        self
    }

    /// The same, but for a node that forwards nothing (`--no-fib`), such as a reflector: it writes nothing, and does not even know what
    /// it would. Changes of best paths are asked for all the same: events and metrics are made of them.
    #[must_use]
    pub fn idle(mut self) -> Self {
        self.idle = true;
        self.looking_on()
    }

    /// Takes in one input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Configure(config) => self.configure(&config),
            Input::Changes(changes) => self.changes(changes, false),
            Input::SomeChanges(changes) => self.changes(changes, true),
            Input::Kernel(event) => self.kernel(now, event, out),
            Input::Sweep => self.delta.sweep(),
            Input::Query(query, Query::All) => self.queries.add(query, None),
            Input::Query(query, Query::InState(state)) => self.queries.add(query, Some(state)),
            Input::Query(query, Query::Prefixes(prefixes)) => self.answer_those(query, &prefixes, out),
            Input::Pause(query) => self.queries.pause(query),
            Input::Resume(query) => self.queries.resume(query),
            Input::Abandon(query) => self.queries.abandon(query),
        }
        self.advance(now, out);
    }

    /// When [`on_deadline`](Self::on_deadline) wants to be called; in the past when there is more work to be done.
    pub fn deadline(&self) -> Option<Instant> {
        if self.judging.is_some() || !self.queries.is_empty() {
            return self.now;
        }
        let doubt = if self.may_ask() { self.read_after } else { None };
        [self.failures.deadline(), doubt, self.audit_at, self.delta.crowds.deadline()].into_iter().flatten().min()
    }

    /// Does what is due: attempts anew, an audit, the next step of a long work.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        for prefix in self.failures.take_due(now) {
            self.delta.touch(prefix);
        }
        if self.audit_at.is_some_and(|at| at <= now) {
            self.audit_at = None;
            self.doubt = true;
            self.read_after = None;
        }
        self.advance(now, out);
    }

    fn configure(&mut self, config: &Arc<FibConfig>) {
        if self.config.rules != config.rules || self.config.wireguard != config.wireguard {
            self.config.rules.clone_from(&config.rules);
            self.config.wireguard.clone_from(&config.wireguard);
            self.judging = Some(RowId::FIRST);
        }
    }

    fn changes(&mut self, changes: Vec<FibChange>, more: bool) {
        self.pulled = false;
        self.delta.crowds.expect(more);
        if self.idle {
            return;
        }
        for FibChange { prefix, route } in changes {
            let decision = route.map(|best| Decision { verdict: judge(&self.config, &self.interfaces, prefix, &best), best });
            self.decide(prefix, decision);
        }
    }

    fn decide(&mut self, prefix: IpNet, decision: Option<Decision>) {
        if self.delta.decide(prefix, decision) {
            self.failures.remove(&prefix);
        }
    }

    fn kernel(&mut self, now: Instant, event: KernelEvent, out: &mut Outbox<Output>) {
        match event {
            KernelEvent::Link(word) => {
                // A new or returning interface may be what a refused route was waiting for.
                if matches!(word, Sync::Upsert(..) | Sync::End) {
                    self.retry_all();
                }
                let fallen = self.interfaces.falls(&word);
                let moved = self.interfaces.hear(word);
                fallen.into_iter().for_each(|interface| self.objects_gone_with(interface, now));
                let uses = |rule: &FibAction| matches!(rule, FibAction::Tunnel { device, .. } if moved.contains(device));
                if self.config.rules.iter().any(|rule| uses(&rule.action)) {
                    self.judging = Some(RowId::FIRST);
                }
            }
            KernelEvent::Address(Sync::Upsert(..) | Sync::End) => self.retry_all(),
            KernelEvent::Address(_) => {}
            KernelEvent::Object(Sync::Begin) => self.delta.objects.begin(),
            KernelEvent::Object(Sync::Upsert(_, object)) => self.delta.objects.found(object),
            KernelEvent::Object(Sync::Remove(id)) => self.delta.objects.forget(&[id].into()),
            KernelEvent::Object(Sync::End) => self.delta.objects.end(),
            KernelEvent::Route(Sync::Begin) => {
                (self.asked, self.doubt) = (false, false);
                self.delta.begin();
            }
            KernelEvent::Route(Sync::End) => self.end(now),
            KernelEvent::Route(Sync::Upsert(_, route)) => self.found(route),
            KernelEvent::Route(Sync::Remove(key)) => self.removed(key),
            KernelEvent::Flushed { interface } => self.flushed(interface),
            KernelEvent::Written { batch, failed } => self.written(now, batch, &failed, out),
        }
    }

    /// An interface that went down has taken objects along, without a word: what else goes by these is read once packets flow again.
    fn objects_gone_with(&mut self, interface: u32, now: Instant) {
        if self.delta.objects.flush(interface) | self.delta.lose_hops(interface) {
            self.doubt = true;
            self.read_after = Some(now + DOUBT_PAUSE);
            let goes_by = |shape: &Shape| shape.object.is_some() && shape.hops.iter().any(|hop| hop.interface == interface);
            for flight in &mut self.flights {
                flight.doubtful |= !flight.moves.is_empty() || flight.writes.iter().any(|flown| goes_by(&flown.shape));
            }
        }
    }

    fn retry_all(&mut self) {
        for prefix in self.failures.take_all() {
            self.delta.touch(prefix);
        }
    }

    /// A read-back is complete: whoever was in the way is known now.
    fn end(&mut self, now: Instant) {
        self.read_after = Some(now + DOUBT_PAUSE);
        self.audit_at = Some(now + AUDIT);
        self.failures.remove_errno(EEXIST);
        self.delta.end();
    }

    fn is_ours(&self, key: &RouteKey) -> bool {
        key.table == self.config.table && key.tos == 0
    }

    fn found(&mut self, mut route: KernelRoute) {
        let key = route.key;
        if !self.is_ours(&key) {
            return;
        }
        self.doubt_flights(|flown| (flown.prefix, flown.shape.metric) == (key.prefix, key.metric));
        // With net.ipv4.nexthop_compat_mode 0 the kernel leaves out the hops.
        if let Some(hops) = route.object.filter(|_| route.hops.is_empty()).and_then(|object| self.delta.objects.hops_of(object)) {
            route.hops = hops;
        }
        if route.protocol == self.config.protocol {
            self.delta.found(key.prefix, Shape::of(route));
        } else {
            self.delta.found_foreign(key.prefix, key.metric, route.protocol);
        }
    }

    fn removed(&mut self, key: RouteKey) {
        if self.is_ours(&key) {
            self.doubt_flights(|flown| (flown.prefix, flown.shape.metric) == (key.prefix, key.metric));
            self.doubt |= !self.delta.removed(key.prefix, key.metric);
        }
    }

    fn flushed(&mut self, interface: u32) {
        let interfaces = &self.interfaces;
        self.delta.flush(|index| index == interface || !interfaces.is_up(index));
        self.doubt_flights(|flown| flown.shape.hops.iter().any(|hop| hop.interface == interface));
    }

    /// Events that concern a route under way leave open which came first.
    fn doubt_flights(&mut self, concerns: impl Fn(&Flown) -> bool) {
        for flight in self.flights.iter_mut().filter(|flight| !flight.doubtful) {
            flight.doubtful = !flight.moves.is_empty() || flight.writes.iter().any(&concerns);
        }
    }

    fn written(&mut self, now: Instant, batch: u64, failed: &[(usize, i32)], out: &mut Outbox<Output>) {
        let Some(flight) = self.flights.pop_front_if(|flight| flight.batch == batch) else { return };
        self.doubt |= flight.doubtful;
        let of_objects = failed.partition_point(|(index, _)| *index < flight.objects.len());
        let (objects, routes) = failed.split_at_checked(of_objects).unwrap_or_default();
        let broken = self.objects_written(&flight, objects);
        let mut failed = routes.iter().map(|(index, errno)| (index - flight.objects.len(), *errno)).peekable();
        let mut refused = None;
        for (index, flown) in flight.writes.iter().enumerate() {
            let prefix = flown.prefix;
            match failed.next_if(|(failed, _)| *failed == index) {
                Some((_, errno)) if !(errno == ESRCH && flown.verb == Verb::Delete) => {
                    if self.refused(now, flown, errno, &broken, out) {
                        refused = Some(prefix);
                    }
                }
                _ => {
                    self.delta.wrote(flown);
                    // The writes of a prefix stand together: one may fail and the next succeed.
                    if refused != Some(prefix) {
                        self.failures.remove(&prefix);
                    }
                }
            }
        }
        flight.writes.iter().for_each(|flown| self.delta.landed(flown));
    }

    /// The kernel refused a route; whether it waits for another attempt now.
    fn refused(&mut self, now: Instant, flown: &Flown, errno: i32, broken: &BTreeMap<u32, i32>, out: &mut Outbox<Output>) -> bool {
        let (prefix, object) = (flown.prefix, flown.shape.object.filter(|_| flown.verb != Verb::Delete));
        // Without its object the reason is the object's.
        let errno = object.and_then(|object| broken.get(&object)).copied().unwrap_or(errno);
        if let Some(object) = object {
            let is_known = self.delta.objects.has_group(object);
            self.delta.objects.loosen();
            if (!is_known && errno == EINVAL) || broken.get(&object).is_some_and(|errno| [EEXIST, EOPNOTSUPP].contains(errno)) {
                // It has gone meanwhile, or its number is another's, or there are none: the next attempt does without it.
                self.delta.touch(prefix);
                return false;
            }
            if errno == EINVAL && is_known {
                self.delta.objects.forget(&[object].into());
                self.doubt = true;
            }
        }
        // Somebody has that key, and we have not heard of it.
        self.doubt |= errno == EEXIST;
        if self.failures.add(now, prefix, errno) {
            out.push(Output::Refused { prefix, errno, text: explain(errno).1 });
        }
        true
    }

    /// What became of the writes of objects; those that could not be made, and why.
    fn objects_written(&mut self, flight: &Flight, failed: &[(usize, i32)]) -> BTreeMap<u32, i32> {
        if flight.objects.is_empty() {
            return BTreeMap::new();
        }
        let (mut broken, mut unmoved) = (BTreeMap::new(), Vec::new());
        for (op, errno) in failed.iter().filter_map(|(index, errno)| Some((flight.objects.get(*index)?, *errno))) {
            match op {
                KernelOp::CreateObject(KernelObject { id, object, .. }) => {
                    let members = if let NextHopObject::Group(members) = object { &members[..] } else { &[] };
                    let cause = members.iter().find_map(|member| broken.get(member)).copied().unwrap_or(errno);
                    broken.insert(*id, cause);
                }
                KernelOp::ReplaceObject(object) => unmoved.push(object.id),
                _ => {}
            }
        }
        let mut gone: BTreeSet<u32> = broken.keys().copied().collect();
        let failed: BTreeSet<usize> = failed.iter().map(|(index, _)| *index).collect();
        let done = flight.objects.iter().enumerate().filter(|(index, _)| !failed.contains(index)).map(|(_, op)| op);
        // A read-back that began before this batch was written, and is heard after it was made, does not know of it.
        done.for_each(|op| match op {
            KernelOp::CreateObject(object) | KernelOp::ReplaceObject(object) if !flight.doubtful => {
                self.delta.objects.found(object.clone())
            }
            KernelOp::DeleteObject(id) => _ = gone.insert(*id),
            _ => {}
        });
        self.delta.objects.forget(&gone);
        self.delta.objects.end();
        for moved in &flight.moves {
            let done = !unmoved.contains(&moved.group);
            if !done {
                self.delta.objects.stick(moved.group);
                self.doubt = true;
            }
            self.delta.moved(moved, done);
        }
        if broken.values().any(|errno| *errno == EOPNOTSUPP) {
            self.delta.objects.give_up();
        }
        broken
    }

    /// One bounded step of everything that waits.
    fn advance(&mut self, now: Instant, out: &mut Outbox<Output>) {
        self.now = Some(now);
        self.judge_some();
        self.answer_some(out);
        if self.may_ask() && self.read_after.is_none_or(|at| at <= now) {
            self.asked = true;
            out.push(Output::Resync);
        }
        self.write(now, out);
        if !self.pulled && self.delta.waiting() < ENOUGH {
            self.pulled = true;
            out.push(Output::Pull { credit: CREDIT });
        }
    }

    /// A read-back is wanted, and none is under way or asked for.
    fn may_ask(&self) -> bool {
        self.doubt && !self.asked && self.delta.is_ready()
    }

    fn judge_some(&mut self) {
        let Some(start) = self.judging else { return };
        let rows = self.delta.rows_from(start).take(JUDGE_STEP);
        let decided: Vec<_> = rows.map(|row| (row.id, row.prefix, row.decision.cloned())).collect();
        self.judging = decided.last().filter(|_| decided.len() == JUDGE_STEP).map(|(last, ..)| last.next());
        for (_, prefix, decision) in decided {
            if let Some(decision) = decision {
                let verdict = judge(&self.config, &self.interfaces, prefix, &decision.best);
                if verdict != decision.verdict {
                    self.decide(prefix, Some(Decision { best: decision.best.clone(), verdict }));
                }
            }
        }
    }

    fn write(&mut self, now: Instant, out: &mut Outbox<Output>) {
        loop {
            while self.delta.is_ready() && self.may_write_more() {
                let failures = &self.failures;
                let Taken { objects, writes } = self.delta.take(now, BATCH, |prefix| !failures.is_waiting(prefix));
                if writes.is_empty() {
                    break;
                }
                self.launch(objects, writes, Vec::new(), out);
            }
            let waiting = self.delta.waiting();
            if !self.delta.is_ready() || self.delta.crowds.is_empty() {
                break;
            }
            self.move_crowds(now, out);
            if self.delta.waiting() == waiting {
                break;
            }
        }
        self.tidy(out);
    }

    fn launch(&mut self, objects: Vec<KernelOp>, writes: Vec<Flown>, moves: Vec<Move>, out: &mut Outbox<Output>) {
        self.batches += 1;
        let ops = objects.iter().cloned().chain(writes.iter().map(|flown| flown.op(&self.config))).collect();
        self.flights.push_back(Flight { batch: self.batches, objects, writes, moves, doubtful: false });
        out.push(Output::Write(KernelOps { batch: self.batches, ops }));
    }

    /// Whole crowds are moved by a change of their objects.
    fn move_crowds(&mut self, now: Instant, out: &mut Outbox<Output>) {
        let calm = self.flights.is_empty() && self.delta.waiting() == 0;
        let (mut objects, mut moves) = (Vec::new(), Vec::new());
        for moved in self.delta.settle_crowds(now, calm) {
            match self.delta.objects.change(moved.group, &moved.hops) {
                Some(ops) => {
                    objects.extend(ops);
                    moves.push(moved);
                }
                None => self.delta.moved(&moved, false),
            }
        }
        if !moves.is_empty() {
            self.launch(objects, Vec::new(), moves, out);
        }
    }

    /// Objects that nothing goes by are deleted when there is nothing else to do, and nobody is waited for.
    fn tidy(&mut self, out: &mut Outbox<Output>) {
        let is_calm = self.flights.is_empty() && self.delta.waiting() == 0 && self.delta.crowds.is_empty();
        if is_calm && self.delta.is_ready() && self.delta.is_swept() && !self.doubt && !self.asked {
            let objects = self.delta.objects.tidy();
            if !objects.is_empty() {
                self.launch(objects, Vec::new(), Vec::new(), out);
            }
        }
    }

    fn may_write_more(&self) -> bool {
        let least = if self.flights.is_empty() { 1 } else { BATCH };
        self.flights.len() < FLIGHTS && self.delta.waiting() >= least
    }

    fn known(&self) -> Known<'_> {
        Known { config: &self.config, delta: &self.delta, failures: &self.failures, interfaces: &self.interfaces }
    }

    fn answer_those(&self, query: QueryId, prefixes: &[IpNet], out: &mut Outbox<Output>) {
        let rows = prefixes.iter().filter_map(|prefix| self.delta.row(prefix)).map(|row| self.known().status(&row)).collect();
        out.push(Output::Answer { query, rows, done: true });
    }

    fn answer_some(&mut self, out: &mut Outbox<Output>) {
        let Some(mut question) = self.queries.next() else { return };
        let (mut rows, mut looked) = (Vec::new(), 0);
        for row in self.delta.rows_from(question.next).take(if question.state.is_some() { LOOK_STEP } else { ANSWER_STEP }) {
            looked += 1;
            question.next = row.id.next();
            if question.state.is_none_or(|state| self.known().state(&row) == state) {
                rows.push(self.known().status(&row));
            }
            if rows.len() == ANSWER_STEP {
                break;
            }
        }
        // A step that ended before its bound found the end.
        let done = rows.len() < ANSWER_STEP && (question.state.is_none() || looked < LOOK_STEP);
        if !done {
            self.queries.put_back(question);
        }
        if done || !rows.is_empty() {
            out.push(Output::Answer { query: question.id, rows, done });
        }
    }
}
