//! The list-and-watch of one kind of object, as a machine: what to ask next, and what an answer means.
//!
//! ```text
//!          ┌──────── 410, or asked to look again ────────┐
//!          ▼                                             │
//! Listing: watch with initial events ─bookmark──▶ Watching (from a version) ─closed─▶ again from the last version
//!    └─ not supported ─▶ list, page by page ──▶─┘
//! ```
//!
//! - The whole table is asked for as a *watch with initial events* (`sendInitialEvents`, Kubernetes 1.27 and later), which
//!   the server answers from memory, object by object. A server that cannot do that (the feature is off, or its etcd is
//!   older than 3.4.31 or 3.5.13: "RequestWatchProgress is disabled") is asked for pages of a list from then on.
//! - A watch continues from the version of the last event or bookmark. `410 Gone` (as HTTP status or as an event) leads to
//!   a new listing; what is told then is compared with what was told before, so that only differences have an effect.
//!   After a list in pages the watch begins at the first page's version, the one that all pages are to be of.
//!   After a list in pages the watch begins at the first page's version, the one that all pages are to be of.
//! - A listing that lacks most of what was there gets the second look of all datastores before its removals count (see
//!   [`super::roll`]): a server restored from nothing must not end a thousand sessions. Deletions told as such count at once.
//! - Failures are answered with exponential back-off and jitter, from a quarter of a second to half a minute; what is
//!   forbidden is tried again every half to whole minute, a kind that is not there (no CRD) every two and a half to five.

use std::time::Duration;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;

use super::object::{Event, Object, Page, Refusal};
use super::roll::{Lack, Roll};
use crate::datastore::second_look::LOOK_EVERY;

/// The first pause after a failure; doubled with each further one, …
const PAUSE: Duration = Duration::from_millis(250);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between tries of what is forbidden.
const FORBIDDEN: Duration = Duration::from_secs(60);
/// Between tries of a kind that is not there.
const MISSING: Duration = Duration::from_secs(300);
/// A watch that ends sooner, and with nothing said, counts as a failure.
const SHORT: Duration = Duration::from_millis(500);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send this request, and tell what comes of it.
    Ask(Ask),
    /// Wait so long, then ask again what to do.
    Wait(Duration),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A watch that begins with everything there is.
    WatchAll,
    /// A page of the list; `all` asks for the rest at once.
    Page { next: String, all: bool },
    /// Changes after this version.
    Watch { version: String },
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// A watch is open.
    Opened,
    /// A line of the watch.
    Event(Event),
    /// A page of the list.
    Page(Page),
    /// The server said no.
    Refused(Refusal),
    /// The watch was closed in good order after so long.
    Closed(Duration),
    /// There was no answer, or half of one.
    Failed(String),
    /// Somebody wants a fresh listing.
    LookAgain,
}

/// What is to be told of the table.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// Everything follows.
    Begin,
    /// This is there.
    Upsert(Box<Object>),
    /// This is no more.
    Remove(Box<Object>),
    /// That was everything.
    End,
    /// Something is in the way (none: nothing any more).
    Trouble(Option<Trouble>),
    /// An object that could not be read.
    Unreadable(String),
}

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server cannot be reached, or fails.
    Away(String),
    /// We may not read this kind.
    Forbidden(String),
    /// The server does not know this kind.
    Missing,
    /// The listing lacks so much of what was there before that it is held back.
    Shrunk(Lack),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing of the listing has come.
    Listing,
    /// Initial events are coming.
    Initial,
    /// Some pages have come.
    Paging { next: String, version: String },
    /// Everything up to this version is told.
    Watching { version: String },
}

/// The machine.
#[derive(Debug)]
pub(super) struct Reflector {
    state: State,
    /// The server answers watches with initial events.
    initial_events: bool,
    /// Ask for the rest of a list at once, since its continuation expired.
    all: bool,
    /// What is there.
    roll: Roll,
    failures: u32,
    /// Something was heard on this watch.
    heard: bool,
    pause: Option<Duration>,
    in_trouble: bool,
    rng: Pcg32,
}

impl Reflector {
    /// Nothing is known yet. The seed spreads the pauses of many nodes; `precious` kinds get a second look.
    pub fn new(seed: u64, precious: bool) -> Self {
        let rng = Pcg32::new(seed, 0);
        Self {
            state: State::Listing,
            initial_events: true,
            all: false,
            roll: Roll::new(precious),
            failures: 0,
            heard: false,
            pause: None,
            in_trouble: false,
            rng,
        }
    }

    /// What to do now.
    pub fn next(&mut self) -> Next {
        if let Some(pause) = self.pause.take() {
            return Next::Wait(pause);
        }
        self.heard = false;
        Next::Ask(match &self.state {
            State::Watching { version } => Ask::Watch { version: version.clone() },
            State::Paging { next, .. } => Ask::Page { next: next.clone(), all: self.all },
            State::Listing | State::Initial if self.initial_events => Ask::WatchAll,
            State::Listing | State::Initial => Ask::Page { next: String::new(), all: self.all },
        })
    }

    /// Takes what came of the request, and says whether the request goes on.
    pub fn handle(&mut self, answer: Answer, out: &mut Vec<Said>) -> bool {
        match answer {
            Answer::Opened => self.opened(out),
            Answer::Event(event) => return self.event(event, out),
            Answer::Page(page) => self.page(page, out),
            Answer::Refused(refusal) => self.refused(refusal, out),
            Answer::Closed(after) => self.closed(after),
            Answer::Failed(why) => self.failed(why, out),
            Answer::LookAgain => {
                self.roll.believe();
                (self.state, self.pause) = (State::Listing, None);
            }
        }
        true
    }

    fn opened(&mut self, out: &mut Vec<Said>) {
        match self.state {
            State::Watching { .. } => self.well(out),
            _ => {
                self.begin(out);
                self.state = State::Initial;
            }
        }
    }

    fn event(&mut self, event: Event, out: &mut Vec<Said>) -> bool {
        self.heard = true;
        match event {
            Event::Added(object) | Event::Modified(object) => {
                self.advance(&object.metadata.resource_version);
                self.upsert(object, out);
            }
            Event::Deleted(object) => {
                self.roll.remove(&object.metadata);
                self.advance(&object.metadata.resource_version);
                out.push(Said::Remove(Box::new(object)));
            }
            Event::Bookmark { version, ends_initial_events } => match self.state {
                State::Initial if ends_initial_events => self.listed(version, out),
                _ => self.advance(&version),
            },
            Event::Refused(refusal) => {
                self.refused(refusal, out);
                return false;
            }
            Event::Unreadable(what) => out.push(Said::Unreadable(what)),
        }
        !matches!(self.state, State::Listing)
    }

    fn begin(&mut self, out: &mut Vec<Said>) {
        self.roll.begin();
        out.push(Said::Begin);
    }

    fn upsert(&mut self, object: Object, out: &mut Vec<Said>) {
        self.roll.add(&object.metadata);
        out.push(Said::Upsert(Box::new(object)));
    }

    /// A watch has come this far. Initial events are in no order, so their versions say nothing.
    fn advance(&mut self, to: &str) {
        if let State::Watching { version } = &mut self.state {
            to.clone_into(version);
            self.failures = 0;
        }
    }

    fn page(&mut self, page: Page, out: &mut Vec<Said>) {
        // A watch goes on from the version of the first page: whatever a server gives the later ones, nothing that
        // changed behind the first is skipped.
        let version = match std::mem::replace(&mut self.state, State::Listing) {
            State::Paging { version, .. } => version,
            _ => {
                self.begin(out);
                page.version
            }
        };
        out.extend(page.unreadable.into_iter().map(Said::Unreadable));
        page.objects.into_iter().for_each(|object| self.upsert(object, out));
        if page.next.is_empty() {
            self.listed(version, out);
        } else {
            self.state = State::Paging { next: page.next, version };
        }
    }

    fn listed(&mut self, version: String, out: &mut Vec<Said>) {
        if let Err(lack) = self.roll.listed() {
            (self.state, self.pause) = (State::Listing, Some(LOOK_EVERY));
            self.trouble(Trouble::Shrunk(lack), out);
            return;
        }
        self.all = false;
        self.state = State::Watching { version };
        self.well(out);
        out.push(Said::End);
    }

    fn refused(&mut self, refusal: Refusal, out: &mut Vec<Said>) {
        let watching = matches!(self.state, State::Watching { .. });
        match refusal.code {
            _ if !watching && self.initial_events && is_about_initial_events(&refusal) => {
                tracing::info!(refusal = refusal.message, "the API server has no watches with initial events; lists are used");
                (self.state, self.initial_events) = (State::Listing, false);
            }
            410 => {
                self.all = matches!(self.state, State::Paging { .. });
                self.state = State::Listing;
                self.failures += 1;
                self.pause = (self.failures > 1).then(|| self.back_off());
            }
            403 => {
                self.relist_unless_watching();
                self.trouble(Trouble::Forbidden(refusal.message), out);
                self.pause = Some(self.jitter(FORBIDDEN));
            }
            404 => {
                self.state = State::Listing;
                self.trouble(Trouble::Missing, out);
                self.pause = Some(self.jitter(MISSING));
            }
            code => {
                let wait = refusal.retry_after.map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds.min(60)));
                self.failed(format!("it answers {code}: {}", shown(&refusal)), out);
                self.pause = self.pause.max(Some(wait));
                // Whatever fails so stubbornly may be the initial events.
                if !watching && self.failures.is_multiple_of(4) {
                    self.initial_events = !self.initial_events;
                }
            }
        }
    }

    fn closed(&mut self, after: Duration) {
        self.relist_unless_watching();
        if self.heard || after >= SHORT {
            self.failures = 0;
            self.pause = Some(self.jitter(Duration::from_millis(50)));
        } else {
            self.failures += 1;
            self.pause = Some(self.back_off());
        }
    }

    /// One cut connection of a watch is nothing worth telling: it goes on where it was.
    fn failed(&mut self, why: String, out: &mut Vec<Said>) {
        self.relist_unless_watching();
        self.failures += 1;
        self.pause = Some(self.back_off());
        if self.failures > 1 || self.state == State::Listing {
            self.trouble(Trouble::Away(why), out);
        }
    }

    fn relist_unless_watching(&mut self) {
        if !matches!(self.state, State::Watching { .. }) {
            self.state = State::Listing;
        }
    }

    fn trouble(&mut self, trouble: Trouble, out: &mut Vec<Said>) {
        self.in_trouble = true;
        out.push(Said::Trouble(Some(trouble)));
    }

    fn well(&mut self, out: &mut Vec<Said>) {
        if std::mem::take(&mut self.in_trouble) {
            out.push(Said::Trouble(None));
        }
    }

    fn back_off(&mut self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(10);
        self.jitter((PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE))
    }

    /// Between half of it and all of it.
    fn jitter(&mut self, whole: Duration) -> Duration {
        whole.mul_f64(0.5 + f64::from(self.rng.next_u32()) / f64::from(u32::MAX) / 2.0)
    }
}

/// Refusals by which servers say that they have no watches with initial events: an etcd too old, a feature gate that is
/// off, a parameter that an old server does not allow.
fn is_about_initial_events(refusal: &Refusal) -> bool {
    matches!(refusal.code, 400 | 405 | 422) || refusal.message.contains("RequestWatchProgress")
}

fn shown(refusal: &Refusal) -> String {
    let text = if refusal.message.is_empty() { &refusal.reason } else { &refusal.message };
    text.chars().take(200).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests;
