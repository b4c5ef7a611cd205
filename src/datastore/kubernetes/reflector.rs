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
//! - A listing that lacks more than half of what was there before is looked at twice, ten seconds apart, before its
//!   removals are believed: a server restored from nothing must not end a thousand sessions. Deletions told as such count at once.
//! - Failures are answered with exponential back-off and jitter, from a quarter of a second to half a minute; what is
//!   forbidden is tried again every half to whole minute, a kind that is not there (no CRD) every two and a half to five.

use std::time::Duration;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;

use super::object::{Event, Object, Page, Refusal};

/// The first pause after a failure; doubled with each further one, …
const PAUSE: Duration = Duration::from_millis(250);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between tries of what is forbidden.
const FORBIDDEN: Duration = Duration::from_secs(60);
/// Between tries of a kind that is not there.
const MISSING: Duration = Duration::from_secs(300);
/// Between the two looks at a listing that lacks most.
const SECOND_LOOK: Duration = Duration::from_secs(10);
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
    /// The listing has this many objects, where more than twice as many were before.
    Shrunk { now: usize, had: usize },
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing of the listing has come.
    Listing,
    /// Initial events are coming.
    Initial { told: usize },
    /// Some pages have come.
    Paging { next: String, told: usize, version: String },
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
    /// Objects told so far.
    had: usize,
    /// A listing that lacks most has been seen once.
    doubted: bool,
    failures: u32,
    /// Something was heard on this watch.
    heard: bool,
    pause: Option<Duration>,
    in_trouble: bool,
    rng: Pcg32,
}

impl Reflector {
    /// Nothing is known yet. The seed spreads the pauses of many nodes.
    pub fn new(seed: u64) -> Self {
        let rng = Pcg32::new(seed, 0);
        Self {
            state: State::Listing,
            initial_events: true,
            all: false,
            had: 0,
            doubted: false,
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
            State::Listing | State::Initial { .. } if self.initial_events => Ask::WatchAll,
            State::Listing | State::Initial { .. } => Ask::Page { next: String::new(), all: self.all },
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
                (self.state, self.pause, self.doubted) = (State::Listing, None, true);
            }
        }
        true
    }

    fn opened(&mut self, out: &mut Vec<Said>) {
        match self.state {
            State::Watching { .. } => self.well(out),
            _ => {
                out.push(Said::Begin);
                self.state = State::Initial { told: 0 };
            }
        }
    }

    fn event(&mut self, event: Event, out: &mut Vec<Said>) -> bool {
        self.heard = true;
        match event {
            Event::Added(object) => {
                if matches!(self.state, State::Watching { .. }) {
                    self.had += 1;
                }
                self.upsert(object, out);
            }
            Event::Modified(object) => self.upsert(object, out),
            Event::Deleted(object) => {
                self.had = self.had.saturating_sub(1);
                self.advance(&object.metadata.resource_version);
                out.push(Said::Remove(Box::new(object)));
            }
            Event::Bookmark { version, ends_initial_events } => match self.state {
                State::Initial { told } if ends_initial_events => self.listed(told, version, out),
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

    fn upsert(&mut self, object: Object, out: &mut Vec<Said>) {
        if let State::Initial { told } = &mut self.state {
            *told += 1;
        }
        self.advance(&object.metadata.resource_version);
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
        let (told, version) = match std::mem::replace(&mut self.state, State::Listing) {
            State::Paging { told, version, .. } => (told, version),
            _ => {
                out.push(Said::Begin);
                (0, page.version)
            }
        };
        let told = told + page.objects.len();
        out.extend(page.unreadable.into_iter().map(Said::Unreadable));
        out.extend(page.objects.into_iter().map(|object| Said::Upsert(Box::new(object))));
        if page.next.is_empty() {
            self.listed(told, version, out);
        } else {
            self.state = State::Paging { next: page.next, told, version };
        }
    }

    fn listed(&mut self, told: usize, version: String, out: &mut Vec<Said>) {
        if told * 2 < self.had && !self.doubted {
            self.doubted = true;
            (self.state, self.pause) = (State::Listing, Some(SECOND_LOOK));
            self.trouble(Trouble::Shrunk { now: told, had: self.had }, out);
            return;
        }
        (self.had, self.doubted, self.all) = (told, false, false);
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
mod tests {
    use super::*;
    use crate::datastore::kubernetes::object::Metadata;

    fn object(name: &str, version: &str) -> Object {
        let metadata = Metadata { name: name.to_owned(), resource_version: version.to_owned(), ..Metadata::default() };
        Object { metadata, ..Object::default() }
    }

    fn bookmark(version: &str, ends_initial_events: bool) -> Answer {
        Answer::Event(Event::Bookmark { version: version.to_owned(), ends_initial_events })
    }

    fn refusal(code: u16, message: &str) -> Refusal {
        Refusal { code, message: message.to_owned(), ..Refusal::default() }
    }

    /// A reflector, and what it said since it was last asked, a word each.
    struct World {
        reflector: Reflector,
        said: Vec<Said>,
    }

    impl World {
        fn new() -> Self {
            Self { reflector: Reflector::new(7), said: Vec::new() }
        }

        /// Told `a` at version 5, watching from there.
        fn watching() -> Self {
            let mut world = Self::new();
            world.tell(Answer::Opened);
            world.tell(Answer::Event(Event::Added(object("a", "3"))));
            world.tell(bookmark("5", true));
            world.said.clear();
            world
        }

        fn tell(&mut self, answer: Answer) -> bool {
            self.reflector.handle(answer, &mut self.said)
        }

        fn said(&mut self) -> String {
            let word = |said: &Said| match said {
                Said::Begin => "begin".to_owned(),
                Said::Upsert(object) => format!("+{}", object.metadata.name),
                Said::Remove(object) => format!("-{}", object.metadata.name),
                Said::End => "end".to_owned(),
                Said::Trouble(None) => "well".to_owned(),
                Said::Trouble(Some(trouble)) => format!("{trouble:?}"),
                Said::Unreadable(what) => what.clone(),
            };
            std::mem::take(&mut self.said).iter().map(word).collect::<Vec<_>>().join(" ")
        }

        /// The next request, after whatever wait.
        fn ask(&mut self) -> (Duration, Ask) {
            let mut waited = Duration::ZERO;
            loop {
                match self.reflector.next() {
                    Next::Ask(ask) => return (waited, ask),
                    Next::Wait(pause) => waited += pause,
                }
            }
        }
    }

    fn watch(version: &str) -> Ask {
        Ask::Watch { version: version.to_owned() }
    }

    fn first_page(all: bool) -> Ask {
        Ask::Page { next: String::new(), all }
    }

    #[test]
    fn initial_events_then_changes_then_on_from_the_last_version() {
        let mut world = World::new();
        assert_eq!(world.ask(), (Duration::ZERO, Ask::WatchAll));
        world.tell(Answer::Opened);
        world.tell(Answer::Event(Event::Added(object("b", "9"))));
        world.tell(Answer::Event(Event::Added(object("a", "3"))));
        assert_eq!(world.said(), "begin +b +a");
        world.tell(bookmark("12", true));
        assert_eq!(world.said(), "end");
        world.tell(Answer::Event(Event::Modified(object("a", "13"))));
        world.tell(Answer::Event(Event::Deleted(object("b", "14"))));
        world.tell(bookmark("20", false));
        world.tell(Answer::Closed(Duration::from_secs(300)));
        assert_eq!(world.said(), "+a -b");
        let (pause, ask) = world.ask();
        assert_eq!(ask, watch("20"));
        assert!(pause < Duration::from_millis(51));
    }

    #[test]
    fn an_old_etcd_or_an_old_server_is_listed_page_by_page() {
        let old_etcd = "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled";
        for refused in [refusal(500, old_etcd), refusal(422, "sendInitialEvents is forbidden"), refusal(400, "unknown parameter")] {
            let mut world = World::new();
            world.ask();
            world.tell(Answer::Opened);
            assert!(!world.tell(Answer::Event(Event::Refused(refused))));
            assert_eq!(world.ask(), (Duration::ZERO, first_page(false)));
            world.said();
            world.tell(Answer::Page(Page {
                objects: vec![object("a", "1")],
                version: "20".to_owned(),
                next: "c".to_owned(),
                ..Page::default()
            }));
            assert_eq!(world.ask().1, Ask::Page { next: "c".to_owned(), all: false });
            world.tell(Answer::Page(Page { objects: vec![object("b", "2")], version: "30".to_owned(), ..Page::default() }));
            assert_eq!(world.said(), "begin +a +b end");
            assert_eq!(world.ask().1, watch("20"), "what has changed behind the first page is watched, even where the second is newer");
            world.tell(Answer::Refused(refusal(410, "")));
            assert_eq!(world.ask().1, first_page(false), "it is not tried again");
        }
    }

    #[test]
    fn gone_leads_to_a_new_listing_at_once_and_then_ever_more_slowly() {
        let mut world = World::watching();
        assert_eq!(world.ask().1, watch("5"));
        world.tell(Answer::Refused(refusal(410, "too old resource version: 5 (73)")));
        assert_eq!(world.ask(), (Duration::ZERO, Ask::WatchAll));
        world.tell(Answer::Opened);
        world.tell(Answer::Event(Event::Added(object("a", "3"))));
        world.tell(bookmark("80", true));
        assert_eq!(world.said(), "begin +a end");
        world.ask();
        assert!(!world.tell(Answer::Event(Event::Refused(refusal(410, "")))), "an event ends the watch as well");
        assert!(world.ask().0 > Duration::from_millis(100), "again and again");
    }

    #[test]
    fn an_expired_page_starts_the_list_anew_in_one_piece() {
        let mut world = World::new();
        world.tell(Answer::Refused(refusal(422, "")));
        world.tell(Answer::Page(Page { objects: vec![object("a", "1")], next: "c".to_owned(), ..Page::default() }));
        world.tell(Answer::Refused(refusal(410, "The provided continue parameter is too old")));
        assert_eq!(world.ask().1, first_page(true));
    }

    #[test]
    fn a_listing_that_lacks_most_is_looked_at_twice() {
        let mut world = World::watching();
        let empty = |world: &mut World| {
            world.tell(Answer::Opened);
            world.tell(bookmark("1", true));
        };
        world.tell(Answer::Refused(refusal(410, "")));
        world.ask();
        empty(&mut world);
        assert_eq!(world.said(), "begin Shrunk { now: 0, had: 1 }", "no end: nothing is removed");
        assert_eq!(world.ask(), (SECOND_LOOK, Ask::WatchAll));
        empty(&mut world);
        assert_eq!(world.said(), "begin well end", "twice is believed");
        world.tell(Answer::Refused(refusal(410, "")));
        world.ask();
        empty(&mut world);
        assert_eq!(world.said(), "begin end", "where nothing was, nothing is doubted");
    }

    #[test]
    fn one_cut_connection_is_not_told_and_loses_nothing() {
        let mut world = World::watching();
        world.ask();
        world.tell(Answer::Failed("reset".to_owned()));
        assert_eq!(world.said(), "");
        assert_eq!(world.ask().1, watch("5"));
        world.tell(Answer::Failed("refused".to_owned()));
        assert_eq!(world.said(), "Away(\"refused\")");
        world.ask();
        world.tell(Answer::Opened);
        assert_eq!(world.said(), "well");
    }

    #[test]
    fn a_listing_that_breaks_off_starts_anew() {
        let mut world = World::new();
        world.tell(Answer::Opened);
        world.tell(Answer::Event(Event::Added(object("a", "3"))));
        world.tell(Answer::Closed(Duration::from_secs(1)));
        assert_eq!(world.ask().1, Ask::WatchAll);
        assert_eq!(world.said(), "begin +a");
    }

    #[test]
    fn failures_are_tried_ever_more_slowly_with_jitter() {
        let mut world = World::watching();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            world.tell(Answer::Failed("refused".to_owned()));
            pauses.push(world.ask().0);
        }
        assert!(pauses[0] >= PAUSE / 2 && pauses[0] <= PAUSE, "{pauses:?}");
        assert!(pauses[11] >= LONGEST_PAUSE / 2 && pauses[11] <= LONGEST_PAUSE, "{pauses:?}");
        assert_ne!(pauses[10], pauses[11], "jitter");
        let mut other = World::watching();
        other.reflector.rng = Pcg32::new(8, 0);
        other.tell(Answer::Failed(String::new()));
        assert_ne!(other.ask().0, pauses[0], "nodes do not come back all at once");
    }

    #[test]
    fn watches_that_are_closed_at_once_are_not_asked_for_in_a_loop() {
        let mut world = World::watching();
        for _ in 0..8 {
            world.ask();
            world.tell(Answer::Closed(Duration::from_millis(1)));
        }
        assert!(world.ask().0 > Duration::from_secs(10));
        world.tell(Answer::Closed(Duration::from_secs(1)));
        assert!(world.ask().0 < Duration::from_millis(51), "one that lived is followed at once");
    }

    #[test]
    fn what_is_forbidden_or_missing_is_said_and_tried_slowly() {
        let mut world = World::new();
        world.tell(Answer::Refused(refusal(403, "no")));
        assert_eq!(world.said(), "Forbidden(\"no\")");
        assert!(world.ask().0 >= FORBIDDEN / 2);
        world.tell(Answer::Refused(refusal(404, "")));
        assert_eq!(world.said(), "Missing");
        assert!(world.ask().0 >= MISSING / 2);
        world.tell(Answer::Opened);
        world.tell(bookmark("1", true));
        assert_eq!(world.said(), "begin well end");
    }

    #[test]
    fn the_server_may_say_when_to_come_back() {
        let mut world = World::watching();
        world.tell(Answer::Refused(Refusal { retry_after: Some(7), ..refusal(429, "too many requests") }));
        assert_eq!(world.ask().0, Duration::from_secs(7));
    }

    #[test]
    fn a_fresh_listing_can_be_asked_for() {
        let mut world = World::watching();
        world.tell(Answer::LookAgain);
        assert_eq!(world.ask(), (Duration::ZERO, Ask::WatchAll));
    }
}
