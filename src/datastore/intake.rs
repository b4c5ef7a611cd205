//! Intake machine: between a datastore and the Compiler. It keeps what is in force, gives a listing of concern a
//! [second look](super::second_look), starts from the last known resources where the datastore is away, and says what
//! it does as problems.
//!
//! ```text
//! datastore ─Word─▶ Intake ─(whole tables, live changes, problems)─▶ Compiler
//! files beside it ─▶  │ ├─ ask the datastore to look again
//! last known ────────▶│ └─ save, a while after each change
//! ```
//!
//! Like the machines below the wall it sees no clock and does nothing itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::second_look::{Concern, HOLD, LOOK_EVERY, Table, concerns, in_words, remaining};
use super::trial::{Saved, Standing, Trial, Verdict};
use super::{State, Word};
use crate::calico::{Document, Input, Problem, ResourceKey, Severity};
use crate::types::{Outbox, Sync};

/// A datastore that has said nothing at all by then is treated as one that is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is in force is saved this long after a change, …
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// … but not more often than this.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// What the intake hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A word of the datastore.
    Source(Word),
    /// A word of the files that were given beside it.
    Beside(Word),
    /// What is wrong with what is written into the datastore.
    Writer(Vec<Problem>),
    /// What is wrong with keeping things in the state folder.
    Keeper(Option<Problem>),
}

/// What trials of changes begin with; for files alone.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    /// Every change is on trial for so long.
    pub always: Option<Duration>,
    /// What an earlier run has left.
    pub saved: Option<Saved>,
}

/// What the intake says.
#[derive(Clone, Debug)]
pub enum Output {
    /// To the Compiler.
    Tell(Input),
    /// The datastore is to tell everything anew, from a fresh listing.
    LookAgain,
    /// These are the last known resources from now on.
    Save(Table),
    /// This is how the trial of a change is from now on; none: nothing of one is needed any more.
    SaveTrial(Option<Saved>),
}

/// Resources that were saved by an earlier run, and when.
#[derive(Clone, Debug, Default)]
pub struct LastKnown {
    /// The resources.
    pub resources: Table,
    /// When they were saved.
    pub saved: Timestamp,
}

/// An instant and the same moment as people name it.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// The moment.
    pub at: Instant,
    /// The same, in UTC.
    pub is: Timestamp,
}

impl WallClock {
    /// That instant, to the second.
    fn time(&self, instant: Instant) -> Timestamp {
        let since = i64::try_from(instant.saturating_duration_since(self.at).as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(self.is.as_second().saturating_add(since)).unwrap_or(self.is)
    }

    /// That instant, as exactly as it is known.
    pub fn moment(&self, instant: Instant) -> Timestamp {
        let since = instant.saturating_duration_since(self.at);
        SignedDuration::try_from(since).ok().and_then(|since| self.is.checked_add(since).ok()).unwrap_or(self.is)
    }

    /// The instant of that moment; of one that has passed, the clock's beginning.
    pub fn instant(&self, moment: Timestamp) -> Instant {
        let ahead = Duration::try_from(moment.duration_since(self.is)).unwrap_or_default();
        self.at.checked_add(ahead).unwrap_or(self.at)
    }
}

/// What this intake is for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The datastore's name in problems, for instance `etcd`.
    pub name: &'static str,
    /// Listings get a second look, and what is in force is saved. Not for files: what is in them is what somebody wrote.
    pub remote: bool,
    /// There are files beside the datastore.
    pub beside: bool,
    /// What an earlier run has saved.
    pub last_known: Option<LastKnown>,
    /// Changes may be on trial; not for remote sources.
    pub trials: Trials,
    /// What time it is.
    pub clock: WallClock,
}

/// A listing that is held back.
#[derive(Debug)]
struct Held {
    /// What the datastore says.
    table: Table,
    concerns: Vec<Concern>,
    since: Instant,
    next_look: Instant,
}

/// A table under way between `Begin` and `End`.
#[derive(Debug, Default)]
struct Telling {
    table: Table,
    under_way: Option<Table>,
    told: bool,
    problems: Vec<Problem>,
}

/// See the module.
#[derive(Debug)]
pub struct Intake {
    name: &'static str,
    remote: bool,
    clock: WallClock,
    /// What is in force of the datastore; before `told`, what an earlier run knew.
    source: Telling,
    /// The files beside it.
    beside: Option<Telling>,
    held: Option<Held>,
    /// Since when the source itself holds part of a listing back.
    source_holds: Option<Instant>,
    /// Since when and why the datastore cannot be reached.
    away: Option<(Instant, String)>,
    /// When what is in force was saved, as long as it is only what an earlier run knew.
    last_known: Option<Timestamp>,
    /// Until then a datastore may be silent at the start.
    patience: Option<Instant>,
    /// The datastore's table, or an earlier run's, is there to be told.
    ready: bool,
    /// The Compiler has heard a whole table.
    started: bool,
    /// What is wrong with what is written into it.
    writer_problems: Vec<Problem>,
    keeper_problem: Option<Problem>,
    problems_told: Vec<Problem>,
    /// Of the files; a remote source has none.
    trial: Option<Trial>,
    save_due: Option<Instant>,
    saved_at: Option<Instant>,
}

impl Intake {
    /// An intake that has heard nothing yet.
    pub fn new(plan: Plan) -> Self {
        let last_known = plan.last_known.as_ref().map(|known| known.saved);
        let source = Telling { table: plan.last_known.map(|known| known.resources).unwrap_or_default(), ..Telling::default() };
        Self {
            name: plan.name,
            remote: plan.remote,
            clock: plan.clock,
            source,
            beside: plan.beside.then(Telling::default),
            held: None,
            source_holds: None,
            away: None,
            last_known,
            patience: Some(plan.clock.at + PATIENCE),
            ready: false,
            started: false,
            writer_problems: Vec::new(),
            keeper_problem: None,
            problems_told: Vec::new(),
            trial: (!plan.remote).then(|| Trial::new(plan.trials.always, plan.trials.saved, plan.clock)),
            save_due: None,
            saved_at: None,
        }
    }

    /// Takes one word.
    pub fn handle(&mut self, now: Instant, heard: Heard, out: &mut Outbox<Output>) {
        match heard {
            Heard::Source(Word::Input(Input::Resource(word))) => self.resource(now, word, out),
            Heard::Source(Word::Input(Input::SourceProblems(problems))) => self.source.problems = problems,
            Heard::Source(Word::Away(why)) => self.gone(now, why, out),
            Heard::Source(Word::Here) => self.away = None,
            Heard::Source(Word::HoldsBack(holds)) => self.source_holds = holds.then(|| self.source_holds.unwrap_or(now)),
            Heard::Beside(Word::Input(Input::Resource(word))) => self.beside_word(word, out),
            Heard::Beside(Word::Input(Input::SourceProblems(problems))) => {
                if let Some(beside) = &mut self.beside {
                    beside.problems = problems;
                }
            }
            Heard::Beside(Word::Away(_) | Word::Here | Word::HoldsBack(_)) => {}
            Heard::Writer(problems) => self.writer_problems = problems,
            Heard::Keeper(problem) => self.keeper_problem = problem,
        }
        self.tell_problems(out);
    }

    /// When [`Self::on_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let look = self.held.as_ref().map(|held| held.next_look);
        let trial = self.trial.as_ref().and_then(Trial::deadline);
        [look, self.patience, self.save_due, trial].into_iter().flatten().min()
    }

    /// Takes an operator's word about a change on trial.
    ///
    /// # Errors
    /// There is nothing that it could be about, in words.
    pub fn judge(&mut self, now: Instant, verdict: Verdict, out: &mut Outbox<Output>) -> Result<Standing, String> {
        let Some(trial) = &mut self.trial else {
            return Err(format!("changes are on trial only where resources are files, and these come from {}", self.name));
        };
        let anew = trial.hear(now, verdict)?;
        let standing = trial.standing().clone();
        self.follow_trial(anew, out);
        self.tell_problems(out);
        Ok(standing)
    }

    /// How the trial of a change is; none where there is no such thing.
    pub fn standing(&self) -> Option<&Standing> {
        self.trial.as_ref().map(Trial::standing)
    }

    /// Saves how the trial is; with `anew`, something else is in force now.
    fn follow_trial(&mut self, anew: bool, out: &mut Outbox<Output>) {
        let Some(trial) = &mut self.trial else { return };
        if let Some(saved) = trial.save() {
            out.push(Output::SaveTrial(saved));
        }
        if anew {
            self.source.table = trial.in_force();
            self.tell_everything(out);
        }
    }

    /// Does what is due by now.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if let Some(held) = self.held.as_mut().filter(|held| held.next_look <= now) {
            held.next_look = now + LOOK_EVERY;
            out.push(Output::LookAgain);
        }
        if self.patience.is_some_and(|patience| patience <= now) {
            let why = format!("it has not answered within {} s", PATIENCE.as_secs());
            self.patience = None;
            if self.remote && self.away.is_none() && !self.source.told {
                self.gone(now, why, out);
            }
        }
        if self.save_due.is_some_and(|due| due <= now) {
            (self.save_due, self.saved_at) = (None, Some(now));
            out.push(Output::Save(self.source.table.clone()));
        }
        let undone = self.trial.as_mut().is_some_and(|trial| trial.on_deadline(now));
        self.follow_trial(undone, out);
        self.tell_problems(out);
    }

    /// How the datastore is, for metrics and readiness.
    pub fn state(&self) -> State {
        let held = self.held.as_ref().map(|held| held.since).or(self.source_holds);
        match (held, &self.away, self.last_known) {
            (Some(since), ..) => State::HeldBack { until: self.clock.time(since + HOLD).to_string() },
            (None, Some((since, why)), _) => State::Away { since: self.clock.time(*since).to_string(), why: why.clone() },
            (None, None, _) if self.source.told => State::InSync,
            _ => State::Starting,
        }
    }

    /// When the resources in force were saved, where they are those of an earlier run.
    pub fn last_known(&self) -> Option<Timestamp> {
        self.last_known.filter(|_| self.started)
    }

    fn resource(&mut self, now: Instant, word: Sync<ResourceKey, Document>, out: &mut Outbox<Output>) {
        self.patience = None;
        match word {
            Sync::Begin => self.source.under_way = Some(Table::new()),
            Sync::End => {
                self.away = None;
                if let Some(listing) = self.source.under_way.take() {
                    self.listed(now, listing, out);
                }
            }
            change => {
                let target = self.source.under_way.as_mut().or(self.held.as_mut().map(|held| &mut held.table));
                match target {
                    Some(table) => apply(table, change),
                    None => self.live(now, change, out),
                }
                self.reconsider(now, out);
            }
        }
    }

    /// A change that somebody made: it counts at once.
    fn live(&mut self, now: Instant, change: Sync<ResourceKey, Document>, out: &mut Outbox<Output>) {
        let is_news = match &change {
            Sync::Upsert(key, document) => self.source.table.get(key) != Some(document),
            Sync::Remove(key) => self.source.table.contains_key(key),
            Sync::Begin | Sync::End => false,
        };
        if is_news {
            apply(&mut self.source.table, change.clone());
            out.push(Output::Tell(Input::Resource(self.visible(change))));
            self.save_soon(now);
        }
    }

    /// A removal uncovers what the files have under the same name.
    fn visible(&self, change: Sync<ResourceKey, Document>) -> Sync<ResourceKey, Document> {
        match change {
            Sync::Remove(key) => match self.beside.as_ref().and_then(|beside| beside.table.get(&key)) {
                Some(document) => Sync::Upsert(key, document.clone()),
                None => Sync::Remove(key),
            },
            other => other,
        }
    }

    fn listed(&mut self, now: Instant, listing: Table, out: &mut Outbox<Output>) {
        let concerns = match &self.held {
            Some(_) => remaining(&self.source.table, &listing),
            None if self.remote => concerns(&self.source.table, &listing),
            None => Vec::new(),
        };
        let since = self.held.as_ref().map_or(now, |held| held.since);
        if concerns.is_empty() || (self.held.is_some() && now >= since + HOLD) {
            self.accept(now, listing, out);
            return;
        }
        let next_look = self.held.as_ref().map_or(now + LOOK_EVERY, |held| held.next_look);
        self.held = Some(Held { table: listing, concerns, since, next_look });
        if !self.ready {
            // What an earlier run knew: there is nothing else that a listing could be compared with.
            self.tell_everything(out);
        }
    }

    /// A live change may have brought back what was missing from a listing.
    fn reconsider(&mut self, now: Instant, out: &mut Outbox<Output>) {
        let Some(held) = &mut self.held else { return };
        if self.source.under_way.is_some() {
            return;
        }
        held.concerns = remaining(&self.source.table, &held.table);
        if held.concerns.is_empty() {
            let table = std::mem::take(&mut held.table);
            self.accept(now, table, out);
        }
    }

    fn accept(&mut self, now: Instant, table: Table, out: &mut Outbox<Output>) {
        let table = match &mut self.trial {
            Some(trial) => trial.read(now, table),
            None => table,
        };
        self.follow_trial(false, out);
        let is_news = self.source.table != table || self.last_known.is_some();
        (self.held, self.last_known) = (None, None);
        self.source.table = table;
        self.source.told = true;
        if is_news || !self.ready {
            self.tell_everything(out);
            self.save_soon(now);
        }
    }

    fn save_soon(&mut self, now: Instant) {
        if self.remote && self.save_due.is_none() {
            let earliest = self.saved_at.map_or(now, |saved| saved + SAVE_EVERY);
            self.save_due = Some((now + SAVE_AFTER).max(earliest));
        }
    }

    fn gone(&mut self, now: Instant, why: String, out: &mut Outbox<Output>) {
        self.patience = None;
        let since = self.away.as_ref().map_or(now, |(since, _)| *since);
        self.away = Some((since, why));
        // Half a listing is none.
        self.source.under_way = None;
        if !self.ready && self.last_known.is_some() {
            self.tell_everything(out);
        }
    }

    fn beside_word(&mut self, word: Sync<ResourceKey, Document>, out: &mut Outbox<Output>) {
        let Some(beside) = &mut self.beside else { return };
        match word {
            Sync::Begin => beside.under_way = Some(Table::new()),
            Sync::End => {
                beside.table = beside.under_way.take().unwrap_or_default();
                beside.told = true;
                if self.ready {
                    self.tell_everything(out);
                }
            }
            change => apply(beside.under_way.as_mut().unwrap_or(&mut beside.table), change),
        }
    }

    /// Tells the Compiler everything that is in force; the datastore's word goes before the files'. Waits for files
    /// that are still to be read, so that no password is missing for a moment.
    fn tell_everything(&mut self, out: &mut Outbox<Output>) {
        self.ready = true;
        if self.beside.as_ref().is_some_and(|beside| !beside.told) {
            return;
        }
        self.started = true;
        let mut all: BTreeMap<&ResourceKey, &Document> = self.beside.iter().flat_map(|beside| &beside.table).collect();
        all.extend(&self.source.table);
        out.push(Output::Tell(Input::Resource(Sync::Begin)));
        for (key, document) in all {
            out.push(Output::Tell(Input::Resource(Sync::Upsert(key.clone(), document.clone()))));
        }
        out.push(Output::Tell(Input::Resource(Sync::End)));
    }

    fn tell_problems(&mut self, out: &mut Outbox<Output>) {
        let mut problems: Vec<Problem> = self.own_problem().into_iter().collect();
        problems.extend(self.trial.as_ref().and_then(Trial::problem));
        problems.extend(self.source.problems.iter().cloned());
        problems.extend(self.writer_problems.iter().cloned());
        problems.extend(self.keeper_problem.clone());
        problems.extend(self.unfilled());
        problems.extend(self.beside.iter().flat_map(|beside| beside.problems.iter().cloned()));
        if problems != self.problems_told {
            self.problems_told.clone_from(&problems);
            out.push(Output::Tell(Input::SourceProblems(problems)));
        }
    }

    /// What is in files is what somebody wrote: nothing is written there.
    fn unfilled(&self) -> Option<Problem> {
        if self.remote {
            return None;
        }
        let first = ResourceKey { kind: "CalicoNodeStatus".to_owned(), namespace: String::new(), name: String::new() };
        let (key, _) = self.source.table.range(first..).next().filter(|(key, _)| key.kind == "CalicoNodeStatus")?;
        let instead = "left as it is; `margay show` tells the same, and etcd or the Kubernetes API would have it filled";
        let problem = Problem::general(Severity::Info, "nothing is written into files", instead);
        Some(Problem { resource: Some(key.clone()), field: "status".to_owned(), ..problem })
    }

    fn own_problem(&self) -> Option<Problem> {
        let name = self.name;
        let in_force = match self.last_known.filter(|_| self.started) {
            Some(saved) => format!("the last known resources, saved at {saved}, are in force"),
            None if self.started => "what it told last stays in force".to_owned(),
            None => "nothing is in force until it answers, for nothing was saved by an earlier run".to_owned(),
        };
        if let Some((since, why)) = &self.away {
            let what = format!("{name} has been away since {}: {why}", self.clock.time(*since));
            return Some(Problem::general(Severity::Error, what, format!("{in_force}; it is tried again and again")));
        }
        let held = self.held.as_ref()?;
        let what = format!("{name} no longer lists {}, which may be a mistake", in_words(&held.concerns));
        let instead = format!(
            "held back: {in_force}; it is listed anew every {} s, and if it still says so at {} that counts",
            LOOK_EVERY.as_secs(),
            self.clock.time(held.since + HOLD)
        );
        Some(Problem::general(Severity::Error, what, instead))
    }
}

fn apply(table: &mut Table, change: Sync<ResourceKey, Document>) {
    match change {
        Sync::Upsert(key, document) => drop(table.insert(key, document)),
        Sync::Remove(key) => drop(table.remove(&key)),
        Sync::Begin | Sync::End => {}
    }
}

#[cfg(test)]
mod tests;
