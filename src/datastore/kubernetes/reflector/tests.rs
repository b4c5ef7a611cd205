use super::*;
use crate::datastore::kubernetes::object::Metadata;
use crate::datastore::second_look::HOLD;

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
        Self { reflector: Reflector::new(7, true), said: Vec::new() }
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
fn a_listing_that_lacks_most_is_held_back_and_looked_at_again() {
    let mut world = World::watching();
    let list = |world: &mut World, objects: &[&str]| {
        world.tell(Answer::Opened);
        for name in objects {
            world.tell(Answer::Event(Event::Added(object(name, "1"))));
        }
        world.tell(bookmark("1", true));
    };
    world.tell(Answer::Refused(refusal(410, "")));
    world.ask();
    list(&mut world, &[]);
    assert_eq!(world.said(), "begin Shrunk(Lack { missing: 1, in_force: 1 })", "no end: nothing is removed");
    let mut looked = Duration::ZERO;
    loop {
        let (pause, ask) = world.ask();
        assert_eq!((pause, ask), (LOOK_EVERY, Ask::WatchAll));
        looked += pause;
        list(&mut world, &[]);
        if world.said().ends_with("end") {
            break;
        }
    }
    assert_eq!(looked, HOLD, "the rule of all datastores");
    // One that has everything again ends it before.
    let mut world = World::watching();
    world.tell(Answer::Refused(refusal(410, "")));
    world.ask();
    list(&mut world, &[]);
    world.ask();
    list(&mut world, &["a"]);
    assert!(world.said().ends_with("begin +a well end"));
    // And one that was asked for is judged by who asked.
    world.tell(Answer::LookAgain);
    world.ask();
    list(&mut world, &[]);
    assert_eq!(world.said(), "begin end");
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
