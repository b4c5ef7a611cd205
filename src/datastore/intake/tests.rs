//! The intake in virtual time: a second look at listings of concern, starts without the datastore, when it is saved.

use serde_json::json;

use super::*;

const NODES: std::ops::Range<usize> = 0..10;

fn key(kind: &str, name: &str) -> ResourceKey {
    ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: name.to_owned() }
}

fn node(number: usize) -> (ResourceKey, Document) {
    (key("Node", &format!("n{number}")), Document::new(json!({ "spec": number }), "store"))
}

/// An intake with a clock, and what the Compiler would know.
struct World {
    intake: Intake,
    start: Instant,
    now: Instant,
    compiler: Table,
    tables_told: usize,
    changes_told: usize,
    problems: Vec<String>,
    looks: Vec<u64>,
    saves: Vec<(u64, usize)>,
}

impl World {
    fn new(remote: bool, beside: bool, last_known: Option<Table>) -> Self {
        let now = Instant::now();
        let clock = WallClock { at: now, is: "2026-11-25T22:00:00Z".parse().unwrap() };
        let last_known = last_known.map(|resources| LastKnown { resources, saved: "2026-11-25T20:00:00Z".parse().unwrap() });
        let intake = Intake::new(Plan { name: "etcd", remote, beside, last_known, trials: Trials::default(), clock });
        let (compiler, problems, looks, saves) = (Table::new(), Vec::new(), Vec::new(), Vec::new());
        Self { intake, start: now, now, compiler, tables_told: 0, changes_told: 0, problems, looks, saves }
    }

    /// In sync with ten Nodes.
    fn in_sync() -> Self {
        let mut world = Self::new(true, false, None);
        world.list(NODES);
        assert_eq!((world.compiler.len(), world.tables_told), (10, 1));
        world
    }

    fn seconds(&self) -> u64 {
        self.now.duration_since(self.start).as_secs()
    }

    fn hear(&mut self, heard: Heard) {
        let mut out = Outbox::new();
        self.intake.handle(self.now, heard, &mut out);
        self.take(&mut out);
    }

    fn source(&mut self, word: Sync<ResourceKey, Document>) {
        self.hear(Heard::Source(Word::Input(Input::Resource(word))));
    }

    fn list(&mut self, nodes: std::ops::Range<usize>) {
        self.source(Sync::Begin);
        for number in nodes {
            let (key, document) = node(number);
            self.source(Sync::Upsert(key, document));
        }
        self.source(Sync::End);
    }

    fn away(&mut self, why: &str) {
        self.hear(Heard::Source(Word::Away(why.to_owned())));
    }

    /// Lets time pass, with everything that is due meanwhile.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.intake.deadline().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            let mut out = Outbox::new();
            self.intake.on_deadline(self.now, &mut out);
            self.take(&mut out);
        }
        self.now = end;
    }

    fn take(&mut self, out: &mut Outbox<Output>) {
        let mut under_way = None;
        for output in out.drain() {
            match output {
                Output::Tell(Input::SourceProblems(problems)) => self.problems = problems.iter().map(ToString::to_string).collect(),
                Output::Tell(Input::Resource(Sync::Begin)) => under_way = Some(Table::new()),
                Output::Tell(Input::Resource(Sync::End)) => {
                    self.compiler = under_way.take().unwrap();
                    self.tables_told += 1;
                }
                Output::Tell(Input::Resource(change)) => {
                    self.changes_told += usize::from(under_way.is_none());
                    apply(under_way.as_mut().unwrap_or(&mut self.compiler), change);
                }
                Output::SaveTrial(saved) => panic!("{saved:?}"),
                Output::LookAgain => self.looks.push(self.now.duration_since(self.start).as_secs()),
                Output::Save(table) => self.saves.push((self.now.duration_since(self.start).as_secs(), table.len())),
            }
        }
        assert!(under_way.is_none(), "a table is told in one piece");
    }
}

#[test]
fn changes_are_told_once_and_a_listing_that_says_nothing_new_is_not_told() {
    let mut world = World::in_sync();
    let (key, document) = node(3);
    world.source(Sync::Upsert(key.clone(), document));
    world.source(Sync::Remove(ResourceKey { name: "stranger".into(), ..key.clone() }));
    assert_eq!(world.changes_told, 0);
    world.source(Sync::Upsert(key.clone(), Document::new(json!({ "spec": "new" }), "store")));
    world.source(Sync::Remove(key));
    assert_eq!((world.changes_told, world.compiler.len()), (2, 9));
    world.list(NODES);
    world.list(NODES);
    assert_eq!(world.tables_told, 2);
    assert_eq!(world.intake.state(), State::InSync);
}

#[test]
fn an_empty_answer_is_held_back_and_counts_after_a_minute_of_looks() {
    let mut world = World::in_sync();
    world.list(0..0);
    assert_eq!(world.compiler.len(), 10);
    let problem = &world.problems[0];
    assert!(
        problem.starts_with("error: etcd no longer lists 10 of 10 Node (n0, n1, n2, …), which may be a mistake; held back: "),
        "{problem}"
    );
    assert!(problem.contains("at 2026-11-25T22:01:00Z that counts"), "{problem}");
    assert_eq!(world.intake.state(), State::HeldBack { until: "2026-11-25T22:01:00Z".into() });
    for look in 1..=5 {
        world.pass(10);
        world.list(0..0);
        assert_eq!((world.looks.len(), world.compiler.len()), (look, 10), "at {} s", world.seconds());
    }
    world.pass(10);
    assert_eq!(world.looks, [10, 20, 30, 40, 50, 60]);
    world.list(0..0);
    assert_eq!((world.compiler.len(), world.problems.len()), (0, 0));
    world.pass(100);
    assert_eq!(world.looks.len(), 6, "the matter is settled");
}

#[test]
fn a_mistake_that_is_mended_changes_nothing() {
    let mut world = World::in_sync();
    world.list(0..2);
    assert_eq!(world.problems.len(), 1);
    world.pass(10);
    world.list(NODES);
    assert_eq!((world.compiler.len(), world.problems.len()), (10, 0));
    assert_eq!((world.tables_told, world.changes_told), (1, 0), "the Compiler never heard of it");
    assert_eq!(world.intake.state(), State::InSync);
}

#[test]
fn a_restore_that_is_under_way_takes_nobody_down() {
    let mut world = World::in_sync();
    world.list(0..3);
    // A look in its middle: more than half is there, and it goes on.
    world.list(0..7);
    for number in 7..10 {
        assert_eq!(world.compiler.len(), 10, "before {number}");
        let (key, document) = node(number);
        world.source(Sync::Upsert(key, document));
    }
    assert_eq!((world.compiler.len(), world.problems.len()), (10, 0));
    assert_eq!((world.tables_told, world.changes_told), (1, 0), "the Compiler never heard of it");
}

#[test]
fn somebodys_deletions_count_at_once() {
    let mut world = World::in_sync();
    for number in NODES {
        world.source(Sync::Remove(node(number).0));
    }
    assert_eq!((world.compiler.len(), world.problems.len()), (0, 0));
}

#[test]
fn a_listing_that_breaks_off_counts_for_nothing() {
    let mut world = World::in_sync();
    world.source(Sync::Begin);
    world.away("connection reset");
    assert_eq!(world.compiler.len(), 10);
    assert!(
        world.problems[0].contains("etcd has been away since 2026-11-25T22:00:00Z: connection reset; what it told last stays in force")
    );
    let (key, document) = node(11);
    world.hear(Heard::Source(Word::Here));
    world.source(Sync::Upsert(key, document));
    assert_eq!((world.compiler.len(), world.problems.len()), (11, 0));
}

#[test]
fn what_the_source_itself_holds_back_shows_in_the_state() {
    let mut world = World::in_sync();
    assert_eq!(world.intake.state(), State::InSync);
    world.hear(Heard::Source(Word::HoldsBack(true)));
    let until = "2026-11-25T22:01:00Z".to_owned();
    assert_eq!(world.intake.state(), State::HeldBack { until });
    world.pass(10);
    world.hear(Heard::Source(Word::HoldsBack(true)));
    assert_eq!(world.intake.state(), State::HeldBack { until: "2026-11-25T22:01:00Z".to_owned() }, "counted from the first time");
    world.hear(Heard::Source(Word::HoldsBack(false)));
    assert_eq!((world.intake.state(), world.compiler.len()), (State::InSync, 10));
}

#[test]
fn away_at_the_start_the_last_known_resources_are_in_force() {
    let last_known: Table = NODES.map(node).collect();
    let mut world = World::new(true, false, Some(last_known.clone()));
    world.pass(1);
    assert_eq!((world.tables_told, world.intake.last_known()), (0, None), "it may answer yet");
    world.away("connection refused");
    assert_eq!((world.tables_told, world.compiler.len()), (1, 10));
    assert!(world.problems[0].contains("the last known resources, saved at 2026-11-25T20:00:00Z, are in force"), "{:?}", world.problems);
    assert!(world.intake.last_known().is_some());
    assert!(matches!(world.intake.state(), State::Away { .. }));
    world.away("still refused");
    assert!(world.problems[0].contains("since 2026-11-25T22:00:01Z: still refused"), "{:?}", world.problems);
    world.list(0..8);
    assert_eq!((world.compiler.len(), world.problems.len(), world.intake.last_known()), (8, 0, None));
    assert_eq!(world.intake.state(), State::InSync);
}

#[test]
fn a_silent_datastore_is_one_that_is_away() {
    let mut world = World::new(true, false, Some(NODES.map(node).collect()));
    world.pass(5);
    assert_eq!(world.compiler.len(), 10);
    assert!(world.problems[0].contains("not answered within 5 s"), "{:?}", world.problems);
    let mut first = World::new(true, false, None);
    first.pass(5);
    assert_eq!(first.tables_told, 0);
    assert!(first.problems[0].contains("nothing was saved by an earlier run"), "{:?}", first.problems);
}

#[test]
fn an_empty_answer_at_the_start_is_compared_with_the_last_known_resources() {
    let mut world = World::new(true, false, Some(NODES.map(node).collect()));
    world.list(0..1);
    assert_eq!((world.tables_told, world.compiler.len()), (1, 10));
    assert!(world.problems[0].contains("held back: the last known resources"), "{:?}", world.problems);
    world.pass(60);
    world.list(0..1);
    assert_eq!(world.compiler.len(), 1);
}

#[test]
fn saved_after_changes_and_not_too_often() {
    let mut world = World::in_sync();
    world.pass(1);
    assert_eq!(world.saves, [(1, 10)]);
    for number in 10..30 {
        let (key, document) = node(number);
        world.source(Sync::Upsert(key, document));
        world.pass(1);
    }
    world.pass(60);
    assert_eq!(world.saves, [(1, 10), (11, 20), (21, 30)]);
    world.list(0..0);
    world.pass(30);
    assert_eq!(world.saves.len(), 3, "what is held back is not saved");
}

#[test]
fn files_are_neither_held_back_nor_saved() {
    let mut world = World::new(false, false, None);
    world.list(NODES);
    world.list(0..0);
    world.pass(60);
    assert_eq!((world.compiler.len(), world.saves.len(), world.problems.len()), (0, 0, 0));
}

#[test]
fn files_beside_the_datastore_add_what_it_has_not() {
    let secret = (key("Secret", "bgp"), Document::new(json!({ "data": {} }), "file"));
    let beside = |world: &mut World, resources: &[(ResourceKey, Document)]| {
        let word = |word| Heard::Beside(Word::Input(Input::Resource(word)));
        world.hear(word(Sync::Begin));
        for (key, document) in resources {
            world.hear(word(Sync::Upsert(key.clone(), document.clone())));
        }
        world.hear(word(Sync::End));
    };
    let mut world = World::new(true, true, None);
    world.list(NODES);
    assert_eq!(world.tables_told, 0, "a password could be missing");
    let other_node = (node(1).0, Document::new(json!({ "spec": "of the file" }), "file"));
    beside(&mut world, &[secret.clone(), other_node.clone()]);
    assert_eq!((world.tables_told, world.compiler.len()), (1, 11));
    assert_eq!(world.compiler[&node(1).0].location.file, "store", "the datastore's word goes first");
    world.source(Sync::Remove(node(1).0));
    assert_eq!(world.compiler[&node(1).0].location.file, "file", "what it covered is seen again");
    beside(&mut world, &[]);
    assert_eq!(world.compiler.len(), 9);
    world.pass(2);
    assert_eq!(world.saves, [(1, 9)], "files are there anyway");
}

#[test]
fn what_cannot_be_written_is_a_problem_among_the_others_and_goes() {
    let mut world = World::in_sync();
    let problem = Problem::general(Severity::Warning, "its status cannot be written: forbidden", "it is tried again");
    world.hear(Heard::Writer(vec![problem]));
    assert_eq!(world.problems, ["warning: its status cannot be written: forbidden; it is tried again"]);
    world.hear(Heard::Keeper(Some(Problem::general(Severity::Warning, "no space is left", "it is tried again"))));
    assert_eq!(world.problems.len(), 2, "{:?}", world.problems);
    world.hear(Heard::Writer(Vec::new()));
    assert_eq!(world.problems, ["warning: no space is left; it is tried again"]);
    world.hear(Heard::Keeper(None));
    assert!(world.problems.is_empty());
}

#[test]
fn a_status_that_is_asked_for_in_files_is_named_and_in_a_datastore_it_is_not() {
    for (remote, expected) in [(false, 1), (true, 0)] {
        let mut world = World::new(remote, false, None);
        world.source(Sync::Begin);
        let document = Document::new(json!({ "spec": { "node": "a", "updatePeriodSeconds": 10 } }), "store");
        world.source(Sync::Upsert(key("CalicoNodeStatus", "mine"), document));
        world.source(Sync::End);
        assert_eq!(world.problems.len(), expected, "{:?}", world.problems);
        assert!(world.problems.iter().all(|problem| problem.starts_with("info: ") && problem.contains("nothing is written into files")));
        world.source(Sync::Remove(key("CalicoNodeStatus", "mine")));
        assert!(world.problems.is_empty());
    }
}
