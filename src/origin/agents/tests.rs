//! The Agents machine from outside: the table that it merges depends on what agents say now, and on who is connected.
#![expect(clippy::disallowed_methods, reason = "some first instant is needed")]

use super::*;

const HOLD: Duration = Duration::from_secs(60);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn device(name: &str) -> AgentRoute {
    AgentRoute::Device { dev: name.into(), via: None }
}

fn upsert(prefix: &str, dev: &str) -> Sync<IpNet, AgentRoute> {
    Sync::Upsert(net(prefix), device(dev))
}

/// A machine, and Origin's table that follows it.
struct Bench {
    agents: Agents,
    start: Instant,
    now: Instant,
    lines: u64,
    table: BTreeMap<IpNet, AgentRoute>,
    happened: Vec<Happening>,
}

impl Bench {
    fn new() -> Self {
        let start = Instant::now();
        Self { agents: Agents::new(HOLD), start, now: start, lines: 0, table: BTreeMap::new(), happened: Vec::new() }
    }

    fn follow(&mut self, out: &mut Outbox<Output>) -> Vec<String> {
        let mut said = Vec::new();
        for output in out.drain() {
            match output {
                Output::Route(Sync::Upsert(prefix, route)) => drop(self.table.insert(prefix, route)),
                Output::Route(Sync::Remove(prefix)) => drop(self.table.remove(&prefix)),
                Output::Route(word) => panic!("{word:?}"),
                Output::Answer(connection, answer) => said.push(format!("{connection} {}", serde_json::to_string(&answer).unwrap())),
                Output::Close(connection) => said.push(format!("{connection} close")),
                Output::Told(happening) => self.happened.push(happening),
            }
        }
        said
    }

    fn hear(&mut self, input: Input) -> Vec<String> {
        let mut out = Outbox::new();
        self.agents.handle(self.now, input, &mut out);
        self.follow(&mut out)
    }

    fn connect(&mut self, connection: u64, name: &str) -> Vec<String> {
        self.hear(Input::Connect(connection, name.into()))
    }

    fn say(&mut self, connection: u64, words: impl IntoIterator<Item = Sync<IpNet, AgentRoute>>) -> Vec<String> {
        let lines = words.into_iter().map(|word| {
            self.lines += 1;
            Line { number: self.lines, word: Ok(word) }
        });
        let lines = lines.collect();
        self.hear(Input::Lines(connection, lines))
    }

    fn nonsense(&mut self, connection: u64) -> Vec<String> {
        self.lines += 1;
        let line = Line { number: self.lines, word: Err("no JSON".into()) };
        self.hear(Input::Lines(connection, vec![line]))
    }

    fn after(&mut self, seconds: u64) {
        self.now = self.start + Duration::from_secs(seconds);
        while self.agents.deadline().is_some_and(|due| due <= self.now) {
            let mut out = Outbox::new();
            self.agents.on_deadline(self.now, &mut out);
            self.follow(&mut out);
        }
    }

    fn table(&self) -> String {
        let dev = |route: &AgentRoute| match route {
            AgentRoute::Device { dev, .. } => dev.to_string(),
            other => format!("{other:?}"),
        };
        self.table.iter().map(|(prefix, route)| format!("{prefix}@{}", dev(route))).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_resync_removes_what_is_not_told_again_and_nothing_else_is_said() {
    let mut bench = Bench::new();
    assert_eq!(bench.connect(1, "cni"), [r#"1 {"answer":"hello","agent":"cni","routes":0,"hold":60,"limit":16384}"#]);
    let said = bench.say(1, [Sync::Begin, upsert("10.1.0.1/32", "a"), upsert("10.1.0.2/32", "b"), Sync::End]);
    assert_eq!(said, [r#"1 {"answer":"end","line":4,"routes":2,"removed":0}"#]);
    assert!(bench.say(1, [upsert("10.1.0.3/32", "c"), Sync::Remove(net("10.1.0.1/32"))]).is_empty(), "changes need no answer");
    assert_eq!(bench.table(), "10.1.0.2/32@b 10.1.0.3/32@c");
    assert_eq!(bench.say(1, [Sync::End]), [r#"1 {"answer":"end","line":7,"routes":2,"removed":0}"#], "a fence removes nothing");
    let said = bench.say(1, [Sync::Begin, upsert("10.1.0.3/32", "d"), Sync::End]);
    assert_eq!(said, [r#"1 {"answer":"end","line":10,"routes":1,"removed":1}"#]);
    assert_eq!(bench.table(), "10.1.0.3/32@d");
}

#[test]
fn a_refused_line_names_itself_and_takes_the_sweep_away() {
    let mut bench = Bench::new();
    bench.connect(1, "cni");
    bench.say(1, [Sync::Begin, upsert("10.1.0.1/32", "a"), upsert("10.1.0.2/32", "b"), Sync::End]);
    bench.say(1, [Sync::Begin, upsert("10.1.0.1/32", "a")]);
    assert_eq!(bench.nonsense(1), [r#"1 {"answer":"error","line":7,"error":"no JSON"}"#]);
    let said = bench.say(1, [Sync::End]);
    assert!(said[0].contains(r#""line":8,"error":"nothing is removed, for line 7 of this resync was refused"#), "{said:?}");
    assert_eq!(bench.table(), "10.1.0.1/32@a 10.1.0.2/32@b");
    let said = bench.say(1, [Sync::End]);
    assert!(said[0].contains(r#""removed":0"#), "marks of a spoiled resync are not swept later: {said:?}");
    let said = bench.say(1, [Sync::Begin, Sync::End]);
    assert!(said[0].contains(r#""routes":0,"removed":2"#), "{said:?}");
    assert_eq!(bench.agents.status()[0].refused, 1);
}

#[test]
fn what_is_no_route_to_something_on_this_node_is_refused() {
    let gateway = |address: &str| AgentRoute::Gateway(address.parse().unwrap());
    let rows = [
        ("10.1.0.5/24", device("a"), "is 10.1.0.0/24 meant?"),
        ("0.0.0.0/0", device("a"), "is everything"),
        ("::/0", device("a"), "is everything"),
        ("127.0.0.1/32", device("a"), "no hosts' address"),
        ("fe80::1/128", device("a"), "no hosts' address"),
        ("10.1.0.1/32", gateway("0.0.0.0"), "can be no gateway"),
        ("fd00::1/128", gateway("10.0.0.1"), "can be no gateway"),
    ];
    for (prefix, route, expected) in rows {
        let mut bench = Bench::new();
        bench.connect(1, "cni");
        let said = bench.say(1, [Sync::Upsert(net(prefix), route)]);
        assert!(said.len() == 1 && said[0].contains(expected), "{prefix}: {said:?}");
        assert!(bench.table.is_empty());
    }
}

#[test]
fn routes_of_a_lost_agent_stay_for_the_hold_time_and_a_resync_renews_them() {
    let mut bench = Bench::new();
    bench.connect(1, "cni");
    bench.say(1, [Sync::Begin, upsert("10.1.0.1/32", "a"), upsert("10.1.0.2/32", "b"), Sync::End]);
    bench.hear(Input::Gone(1));
    bench.after(59);
    assert_eq!(bench.table(), "10.1.0.1/32@a 10.1.0.2/32@b");
    assert!(bench.connect(2, "cni")[0].contains(r#""routes":2"#));
    bench.after(300);
    assert_eq!(bench.table(), "10.1.0.1/32@a 10.1.0.2/32@b", "it is there, though it has said nothing yet");
    bench.say(2, [Sync::Begin, upsert("10.1.0.2/32", "b"), Sync::End]);
    assert_eq!(bench.table(), "10.1.0.2/32@b");
    bench.hear(Input::Gone(2));
    assert_eq!(bench.agents.deadline(), Some(bench.start + Duration::from_secs(360)));
    bench.after(360);
    assert_eq!((bench.table(), bench.agents.status(), bench.agents.deadline()), (String::new(), Vec::new(), None));
    assert_eq!(bench.happened.last(), Some(&Happening::Expired("cni".into(), 1)));
}

#[test]
fn the_newer_connection_of_a_name_takes_over_and_the_older_ones_words_count_no_more() {
    let mut bench = Bench::new();
    bench.connect(1, "cni");
    bench.say(1, [Sync::Begin, upsert("10.1.0.1/32", "a")]);
    let said = bench.connect(2, "cni");
    assert!(
        said[0].starts_with(r#"1 {"answer":"bye""#) && said[1] == "1 close" && said[2].starts_with(r#"2 {"answer":"hello""#),
        "{said:?}"
    );
    assert!(bench.say(1, [upsert("10.9.0.1/32", "a"), Sync::End]).is_empty());
    bench.hear(Input::Gone(1));
    assert_eq!(bench.table(), "10.1.0.1/32@a", "what the older one had told is the agent's");
    assert!(bench.agents.status()[0].connected);
    bench.say(2, [Sync::Begin, upsert("10.1.0.2/32", "a"), Sync::End]);
    assert_eq!(bench.table(), "10.1.0.2/32@a");
}

#[test]
fn of_two_agents_the_connected_one_counts_then_the_first_name() {
    let mut bench = Bench::new();
    for (connection, name) in [(1, "b"), (2, "a")] {
        bench.connect(connection, name);
        bench.say(connection, [upsert("10.1.0.1/32", name)]);
    }
    assert_eq!(bench.table(), "10.1.0.1/32@a", "in whatever order they came");
    assert_eq!(bench.agents.status()[1].shadowed, 1);
    bench.hear(Input::Gone(2));
    assert_eq!(bench.table(), "10.1.0.1/32@b");
    bench.connect(3, "a");
    assert_eq!(bench.table(), "10.1.0.1/32@a");
    bench.say(3, [Sync::Remove(net("10.1.0.1/32"))]);
    assert_eq!(bench.table(), "10.1.0.1/32@b");
    bench.say(1, [Sync::Remove(net("10.1.0.1/32"))]);
    assert_eq!(bench.table(), "");
}

#[test]
fn agents_and_routes_and_names_are_bounded() {
    let mut bench = Bench::new();
    for number in 0..AGENTS as u64 {
        assert_eq!(bench.connect(number, &format!("agent-{number}")).len(), 1);
    }
    let said = bench.connect(99, "one-more");
    assert!(said[0].contains("16 agents already") && said[1] == "99 close", "{said:?}");
    bench.hear(Input::Gone(3));
    assert_eq!(bench.connect(100, "agent-3").len(), 1, "a name that is known finds its place");
    for bad in ["", "a/b", "ä", &"x".repeat(64)] {
        assert!(bench.connect(101, bad)[0].contains("an agent's name is"), "{bad}");
    }
    let prefix = |n: usize| format!("10.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255);
    assert!(bench.say(5, (0..ROUTES).map(|n| upsert(&prefix(n), "a"))).is_empty());
    let said = bench.say(5, [upsert(&prefix(ROUTES), "a"), upsert(&prefix(0), "b"), Sync::End]);
    assert!(said[0].contains("one route too many") && said[1].contains(r#""routes":16384"#), "{said:?}");
}

#[test]
fn what_was_kept_over_our_restart_counts_as_lost_just_now() {
    let mut bench = Bench::new();
    bench.connect(1, "cni");
    bench.say(1, [upsert("10.1.0.1/32", "a"), upsert("fd00::1/128", "a")]);
    let text = serde_json::to_string(&bench.agents.kept()).unwrap();
    let mut again = Bench::new();
    let mut out = Outbox::new();
    again.agents.restore(again.now, serde_json::from_str(&text).unwrap(), &mut out);
    again.follow(&mut out);
    assert_eq!(again.table(), "10.1.0.1/32@a fd00::1/128@a");
    assert!(again.connect(7, "cni")[0].contains(r#""routes":2"#));
    again.hear(Input::Gone(7));
    again.after(60);
    assert_eq!(again.table(), "");
}

/// Whatever order agents come in, connect in and are lost in: the table is a function of what they hold and who is connected.
#[test]
fn the_way_to_a_state_does_not_show() {
    let words = [
        (1, upsert("10.1.0.1/32", "x")),
        (2, upsert("10.1.0.1/32", "y")),
        (2, upsert("10.1.0.2/32", "y")),
        (1, upsert("10.1.0.3/32", "x")),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let mut bench = Bench::new();
        bench.connect(1, "one");
        bench.connect(2, "two");
        for at in order {
            let (connection, word) = words[at].clone();
            bench.say(connection, [word.clone(), word]);
        }
        seen.insert(bench.table());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["10.1.0.1/32@x 10.1.0.2/32@y 10.1.0.3/32@x"]);
}
