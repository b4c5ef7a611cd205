//! Trial machine: a change of the files counts at once, and is undone unless somebody confirms it in time (`--confirm`,
//! `margay confirm`).
//!
//! ```text
//!            the files change                  time is up, or `confirm --undo`
//! Settled ──────────────────▶ OnTrial{until} ─────────────────────────────────▶ Undone
//!    ▲ ▲                        │  ▲ │ they change again: a new time              │ │
//!    │ └── confirm, or the files ┘  └─┘                 they change again ▲───────┘ │
//!    └───────────────── confirm (they count after all), or the files are as confirmed ┘
//! ```
//!
//! The files themselves are never written: what is undone is what the daemon does with them. What was confirmed last, and how far
//! a trial is, are saved in the state folder, so that a restart in the middle (the change may be the reason for it) neither
//! forgets what to go back to nor begins the time anew. Contents are compared, not places: a comment that moves is no change.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::intake::WallClock;
use super::second_look::Table;
use crate::calico::{Problem, Severity};

/// What an operator says of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What the files say counts for good.
    Confirm,
    /// Go back at once to what was confirmed last.
    Undo,
    /// The next change of the files is on trial for so long.
    Next(Duration),
}

/// How a trial is; times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trial", rename_all = "kebab-case")]
pub enum Standing {
    /// What the files say counts.
    #[default]
    Settled,
    /// The next change of the files is on trial.
    Armed {
        /// For so long.
        seconds: u64,
    },
    /// What the files say counts for now.
    OnTrial {
        /// When it is undone, unless it is confirmed.
        until: Timestamp,
        /// How long it was when it began; another change begins it anew.
        seconds: u64,
        /// Of what the files say.
        digest: String,
    },
    /// What was confirmed last counts, and not what the files say.
    Undone {
        /// Since when.
        since: Timestamp,
        /// Of what the files say.
        digest: String,
    },
}

impl Standing {
    /// Of files that are not confirmed.
    fn digest(&self) -> Option<&str> {
        match self {
            Self::Settled | Self::Armed { .. } => None,
            Self::OnTrial { digest, .. } | Self::Undone { digest, .. } => Some(digest),
        }
    }
}

/// What outlives the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// What was confirmed last.
    pub confirmed: Table,
    /// How the trial is.
    pub standing: Standing,
}

/// See the module.
#[derive(Debug)]
pub struct Trial {
    clock: WallClock,
    /// Every change is on trial for so many seconds.
    always: Option<u64>,
    /// What was confirmed last; none before the first reading.
    confirmed: Option<Table>,
    standing: Standing,
    /// What the files say.
    files: Table,
    /// Something is saved.
    saved: bool,
    /// It is not what should be saved.
    outdated: bool,
}

impl Trial {
    /// A machine that has seen no files yet; `saved` is what an earlier run left. With `always` every change is on trial for so long.
    pub fn new(always: Option<Duration>, saved: Option<Saved>, clock: WallClock) -> Self {
        let is_saved = saved.is_some();
        let counts = saved.filter(|saved| always.is_some() || saved.standing != Standing::Settled);
        let (confirmed, standing) = counts.map(|saved| (saved.confirmed, saved.standing)).unzip();
        let always = always.map(|time| time.as_secs());
        let standing = standing.unwrap_or_default();
        Self { clock, always, confirmed, standing, files: Table::new(), saved: is_saved, outdated: is_saved }
    }

    /// The files say `listing`: what is to be in force.
    pub fn read(&mut self, now: Instant, listing: Table) -> Table {
        self.files = listing;
        match &self.confirmed {
            None => self.settle(),
            Some(confirmed) if same(confirmed, &self.files) => {
                if self.standing.digest().is_some() {
                    self.settle();
                }
            }
            Some(_) => self.changed(now),
        }
        self.in_force()
    }

    /// The files say something else than what was confirmed.
    fn changed(&mut self, now: Instant) {
        let window = match self.standing {
            Standing::Armed { seconds } | Standing::OnTrial { seconds, .. } => Some(seconds),
            Standing::Settled | Standing::Undone { .. } => self.always,
        };
        if window.is_none() && self.standing == Standing::Settled {
            return self.settle();
        }
        let news = digest(&self.files);
        if self.standing.digest() == Some(&news) {
            return;
        }
        match window {
            None => self.settle(),
            Some(seconds) => {
                let until = self.clock.moment(now + Duration::from_secs(seconds));
                self.stand(Standing::OnTrial { until, seconds, digest: news });
            }
        }
    }

    /// What is to be in force now.
    pub fn in_force(&self) -> Table {
        match (&self.standing, &self.confirmed) {
            (Standing::Undone { .. }, Some(confirmed)) => confirmed.clone(),
            _ => self.files.clone(),
        }
    }

    /// When [`Trial::on_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let Standing::OnTrial { until, .. } = self.standing else { return None };
        Some(self.clock.instant(until))
    }

    /// Undoes what nobody has confirmed by now; whether something else is to be in force.
    pub fn on_deadline(&mut self, now: Instant) -> bool {
        self.deadline().is_some_and(|due| due <= now) && self.undo(now)
    }

    /// Takes an operator's word; whether something else is to be in force.
    ///
    /// # Errors
    /// There is nothing that it could be about, in words.
    pub fn hear(&mut self, now: Instant, verdict: Verdict) -> Result<bool, &'static str> {
        match (verdict, &self.standing) {
            (Verdict::Confirm, Standing::OnTrial { .. }) => {
                self.settle();
                Ok(false)
            }
            (Verdict::Confirm, Standing::Undone { .. }) => {
                self.settle();
                Ok(true)
            }
            (Verdict::Confirm, _) => Err("there is nothing to confirm: what the files say is in force for good"),
            (Verdict::Undo, Standing::OnTrial { .. }) => Ok(self.undo(now)),
            (Verdict::Undo, Standing::Undone { .. }) => Err("it is undone already"),
            (Verdict::Undo, _) => Err("nothing is on trial: what the files said before is not known any more"),
            (Verdict::Next(time), Standing::Settled | Standing::Armed { .. }) => {
                self.stand(Standing::Armed { seconds: time.as_secs() });
                Ok(false)
            }
            (Verdict::Next(_), _) => Err("a change waits to be confirmed: `margay confirm`, or `margay confirm --undo`, comes first"),
        }
    }

    /// How the trial is.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What is wrong while the files are not confirmed.
    pub fn problem(&self) -> Option<Problem> {
        match &self.standing {
            Standing::Settled | Standing::Armed { .. } => None,
            Standing::OnTrial { until, .. } => Some(Problem::general(
                Severity::Warning,
                "the files have changed, and nobody has confirmed it yet",
                format!("they count until {until:.0} and are then undone, unless `margay confirm` comes before"),
            )),
            Standing::Undone { since, .. } => Some(Problem::general(
                Severity::Error,
                format!("a change of the files was undone at {since:.0}"),
                "what was confirmed before counts, until the files change again or `margay confirm` says that they are right",
            )),
        }
    }

    /// What is to be saved from now on, where that has changed; inside, none where nothing is needed.
    pub fn save(&mut self) -> Option<Option<Saved>> {
        if !std::mem::take(&mut self.outdated) {
            return None;
        }
        let needed = self.always.is_some() || self.standing != Standing::Settled;
        let what = self.confirmed.as_ref().filter(|_| needed);
        let what = what.map(|confirmed| Saved { confirmed: confirmed.clone(), standing: self.standing.clone() });
        let before = std::mem::replace(&mut self.saved, what.is_some());
        (before || what.is_some()).then_some(what)
    }

    fn undo(&mut self, now: Instant) -> bool {
        let Some(digest) = self.standing.digest().map(str::to_owned) else { return false };
        self.stand(Standing::Undone { since: self.clock.moment(now), digest });
        true
    }

    fn settle(&mut self) {
        self.confirmed = Some(self.files.clone());
        self.stand(Standing::Settled);
    }

    fn stand(&mut self, standing: Standing) {
        self.standing = standing;
        self.outdated = true;
    }
}

/// Whether they hold the same, wherever it stands.
fn same(one: &Table, other: &Table) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|((a, x), (b, y))| a == b && x.object == y.object)
}

fn digest(table: &Table) -> String {
    let mut hasher = Sha256::new();
    for (key, document) in table {
        for part in [key.to_string(), document.object.to_string()] {
            hasher.update(part);
            hasher.update([0]);
        }
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::calico::{Document, ResourceKey};

    const MINUTES: Duration = Duration::from_secs(600);

    /// Files that say one thing.
    fn files(what: &str, line: &str) -> Table {
        let key = ResourceKey { kind: "Node".to_owned(), namespace: String::new(), name: "a".to_owned() };
        [(key, Document::new(json!({ "spec": what }), line))].into_iter().collect()
    }

    struct World {
        trial: Trial,
        now: Instant,
        in_force: Table,
        saved: Option<Saved>,
    }

    impl World {
        fn new(always: Option<Duration>) -> Self {
            #[expect(clippy::disallowed_methods, reason = "tests need some instant to start from")]
            let now = Instant::now();
            Self::after(always, None, now, "2026-11-25T22:00:00Z")
        }

        fn after(always: Option<Duration>, saved: Option<Saved>, now: Instant, is: &str) -> Self {
            let clock = WallClock { at: now, is: is.parse().unwrap() };
            Self { trial: Trial::new(always, saved.clone(), clock), now, in_force: Table::new(), saved }
        }

        fn note(&mut self) {
            if let Some(saved) = self.trial.save() {
                self.saved = saved;
            }
        }

        fn read(&mut self, what: &str) {
            self.in_force = self.trial.read(self.now, files(what, what));
            self.note();
        }

        fn say(&mut self, verdict: Verdict) -> bool {
            let said = self.trial.hear(self.now, verdict);
            if said == Ok(true) {
                self.in_force = self.trial.in_force();
            }
            self.note();
            said.is_ok()
        }

        fn pass(&mut self, seconds: u64) {
            let end = self.now + Duration::from_secs(seconds);
            if let Some(due) = self.trial.deadline().filter(|due| *due <= end)
                && self.trial.on_deadline(due)
            {
                self.in_force = self.trial.in_force();
            }
            self.now = end;
            self.note();
        }

        #[track_caller]
        fn counts(&self, what: &str, standing: &str) {
            assert!(same(&self.in_force, &files(what, "")), "{:?}", self.in_force);
            assert_eq!(json!(self.trial.standing())["trial"], standing);
        }
    }

    #[test]
    fn without_confirm_every_change_counts_and_nothing_is_saved() {
        let mut world = World::new(None);
        for what in ["one", "two", "one"] {
            world.read(what);
            world.counts(what, "settled");
        }
        assert_eq!((world.saved.clone(), world.trial.deadline()), (None, None));
        assert!(!world.say(Verdict::Confirm) && !world.say(Verdict::Undo));
    }

    #[test]
    fn a_change_that_nobody_confirms_is_undone() {
        let mut world = World::new(Some(MINUTES));
        world.read("good");
        world.counts("good", "settled");
        world.read("bad");
        world.counts("bad", "on-trial");
        world.pass(599);
        world.counts("bad", "on-trial");
        world.pass(1);
        world.counts("good", "undone");
        world.read("bad");
        world.counts("good", "undone");
        // Mended: on trial again. As it was: nothing to confirm.
        world.read("better");
        world.counts("better", "on-trial");
        world.read("good");
        world.counts("good", "settled");
    }

    #[test]
    fn a_confirmed_change_stays_and_another_change_begins_the_time_anew() {
        let mut world = World::new(Some(MINUTES));
        world.read("good");
        world.read("new");
        world.pass(400);
        world.read("newer");
        world.pass(400);
        world.counts("newer", "on-trial");
        assert!(world.say(Verdict::Confirm));
        world.pass(10_000);
        world.counts("newer", "settled");
        assert!(!world.say(Verdict::Confirm), "nothing is left to confirm");
    }

    #[test]
    fn undone_by_hand_and_confirmed_after_all() {
        let mut world = World::new(Some(MINUTES));
        world.read("good");
        world.read("new");
        assert!(world.say(Verdict::Undo) && !world.say(Verdict::Undo));
        world.counts("good", "undone");
        assert!(world.trial.problem().unwrap().to_string().contains("undone at 2026-11-25T22:00:00Z"));
        assert!(world.say(Verdict::Confirm));
        world.counts("new", "settled");
        assert!(world.trial.problem().is_none());
    }

    #[test]
    fn one_change_can_be_put_on_trial() {
        let mut world = World::new(None);
        world.read("good");
        assert!(world.say(Verdict::Next(MINUTES)) && world.say(Verdict::Next(Duration::from_secs(60))));
        world.counts("good", "armed");
        world.read("bad");
        assert!(!world.say(Verdict::Next(MINUTES)), "one at a time");
        world.pass(60);
        world.counts("good", "undone");
        world.read("worse");
        world.counts("worse", "settled");
        assert_eq!(world.saved, None, "what is not needed any more goes");
    }

    #[test]
    fn a_restart_forgets_neither_the_change_nor_the_time() {
        let mut world = World::new(Some(MINUTES));
        world.read("good");
        world.read("bad");
        let saved = world.saved.clone();
        let restart = |is: &str| World::after(Some(MINUTES), saved.clone(), world.now, is);
        let mut soon = restart("2026-11-25T22:04:00Z");
        soon.read("bad");
        soon.counts("bad", "on-trial");
        soon.pass(360);
        soon.counts("good", "undone");
        let mut again = World::after(Some(MINUTES), soon.saved, soon.now, "2026-11-25T22:10:00Z");
        again.read("bad");
        again.counts("good", "undone");
        // The time was up while nobody was there.
        let mut late = restart("2026-11-25T23:00:00Z");
        late.read("bad");
        late.pass(0);
        late.counts("good", "undone");
        // Another change meanwhile, and --confirm no longer asked for: what was begun is ended all the same.
        let mut other = World::after(None, saved.clone(), world.now, "2026-11-25T22:01:00Z");
        other.read("other");
        other.counts("other", "on-trial");
        assert!(other.say(Verdict::Confirm));
        assert_eq!(other.saved, None);
    }

    #[test]
    fn a_moved_comment_is_no_change() {
        let mut world = World::new(Some(MINUTES));
        world.in_force = world.trial.read(world.now, files("good", "file:1"));
        world.in_force = world.trial.read(world.now, files("good", "file:9"));
        world.counts("good", "settled");
        assert_eq!(world.in_force.values().next().unwrap().location.file, "file:9", "problems name the place of now");
    }
}
