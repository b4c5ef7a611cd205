//! The Peer machine from outside, one machine at a time: what it answers in each state.

mod patience;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::negotiate::{Advert, our_open};
use super::*;
use crate::config::NextHopMode;
use crate::types::Outbox;
use crate::wire::{Context, Message};

/// A peer machine under test, with the words of the other end.
struct Bench {
    now: Instant,
    peer: Peer,
    theirs: PeerConfig,
    out: Outbox<Output>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut PeerConfig, &mut PeerConfig)) -> Self {
        let (mut ours, mut theirs) = sample::pair();
        change(&mut ours, &mut theirs);
        let settings = Settings { seed: 1, shards: 1, ..Settings::default() };
        Self { now: sample::now(), peer: Peer::new(PeerId(1), Arc::new(ours), settings), theirs, out: Outbox::new() }
    }

    fn say(&mut self, input: Input) -> Vec<Output> {
        self.peer.handle(self.now, input, &mut self.out);
        self.out.drain().collect()
    }

    /// Lets time pass to the next deadline, and everything due happen.
    fn wait(&mut self) -> Vec<Output> {
        self.now = self.peer.deadline().expect("something is due").max(self.now);
        self.peer.on_deadline(self.now, &mut self.out);
        self.out.drain().collect()
    }

    /// Waits for the connect, and lets it succeed.
    fn connect(&mut self) -> ConnectionId {
        self.say(Input::Start);
        let connection = (0..3)
            .find_map(|_| {
                self.wait().into_iter().find_map(|output| match output {
                    Output::Connect { connection } => Some(connection),
                    _ => None,
                })
            })
            .expect("a connect");
        self.say(connected(connection, true));
        connection
    }

    fn receive(&mut self, connection: ConnectionId, messages: &[Message]) -> Vec<Output> {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| message.encode(&Context::default()).expect("it fits")).collect();
        self.say(Input::Received { connection, bytes: Bytes::from(bytes) })
    }

    fn their_open(&self) -> Message {
        Message::Open(our_open(&self.theirs, &Advert::default()))
    }
}

fn connected(connection: ConnectionId, outgoing: bool) -> Input {
    let end = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Input::Connected { connection, outgoing, local: end("10.0.0.1:40000"), remote: end("10.0.0.2:179"), local_link: None }
}

#[test]
fn f5_a_session_comes_up_in_one_read() {
    let mut bench = Bench::new(|_, _| {});
    let connection = bench.connect();
    assert_eq!(bench.peer.state(), State::OpenSent);
    let end_of_rib = Message::Update(wire::Update::end_of_rib(Family::IPV4_UNICAST));
    let open = bench.their_open();
    let said = bench.receive(connection, &[open, Message::Keepalive, end_of_rib]);
    assert_eq!(bench.peer.state(), State::Established);
    let names: Vec<&str> = said
        .iter()
        .map(|output| match output {
            Output::Send { .. } => "send",
            Output::Up(_) => "up",
            Output::Pull { .. } => "pull",
            Output::Routes(..) => "routes",
            Output::EndOfRib(_) => "end-of-rib",
            Output::Event(Event::State { .. }) => "state",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["send", "state", "up", "pull", "state", "routes", "end-of-rib"]);
    bench.now += Duration::from_secs(90);
    let said = bench.wait();
    assert!(matches!(said.last(), Some(Output::Event(Event::State { to: State::Idle, .. }))), "{said:?}");
}

#[test]
fn f16_a_session_is_lost_with_its_link_and_tried_again_when_it_is_back() {
    let mut bench = Bench::new(|_, _| {});
    let connection = bench.connect();
    let open = bench.their_open();
    bench.receive(connection, &[open, Message::Keepalive]);
    assert_eq!(bench.peer.state(), State::Established);
    let said = bench.say(Input::LinkDown("interface eth0 went down".to_owned()));
    assert!(said.iter().any(|output| matches!(output, Output::Close { linger: false, .. })), "{said:?}");
    assert!(said.iter().any(|output| matches!(output, Output::Down { .. })), "{said:?}");
    let error = bench.peer.status(bench.now).last_error.expect("it says why");
    assert_eq!((error.reason.by, error.reason.text.as_str()), (Party::Transport, "interface eth0 went down"));
    // The next connect fails, and the pause after it ends with the link's return.
    let connects =
        |said: &[Output]| said.iter().find_map(|output| if let Output::Connect { connection } = output { Some(*connection) } else { None });
    let mut said = bench.wait();
    while connects(&said).is_none() {
        said = bench.wait();
    }
    let connection = connects(&said).expect("it tries");
    bench.say(Input::ConnectFailed { connection, error: "no route".to_owned() });
    assert_eq!(bench.peer.state(), State::Active);
    let said = bench.say(Input::LinkUp);
    assert!(connects(&said).is_some(), "{said:?}");
    assert!(connects(&bench.say(Input::LinkUp)).is_none(), "a connect is under way");
}

/// Our address, or the peer, is often there a moment after we start; one that stays away is not asked more often than ConnectRetry.
#[test]
fn the_first_connects_are_retried_sooner_than_later_ones() {
    let mut bench = Bench::new(|_, _| {});
    bench.say(Input::Start);
    let (mut pauses, mut failed_at) = (Vec::new(), None);
    while pauses.len() < 5 {
        if let Some(Output::Connect { connection }) = bench.wait().into_iter().find(|output| matches!(output, Output::Connect { .. })) {
            pauses.extend(failed_at.map(|failed| bench.now - failed));
            bench.say(Input::ConnectFailed { connection, error: "refused".to_owned() });
            failed_at = Some(bench.now);
        }
    }
    for (pause, most) in pauses.iter().zip([1, 2, 4, 5, 5].map(Duration::from_secs)) {
        assert!((most * 3 / 4..=most).contains(pause), "{pauses:?}");
    }
}

/// A bench whose outgoing connection is in a state.
fn bench_in(state: State) -> (Bench, ConnectionId) {
    let mut bench = Bench::new(|_, _| {});
    let connection = ConnectionId(1);
    let open = bench.their_open();
    match state {
        State::Idle => {}
        State::Active => drop(bench.say(Input::Start)),
        State::Connect => {
            bench.say(Input::Start);
            bench.wait();
        }
        State::OpenSent => drop(bench.connect()),
        State::OpenConfirm => {
            bench.connect();
            bench.receive(connection, &[open]);
        }
        State::Established => {
            bench.connect();
            bench.receive(connection, &[open, Message::Keepalive]);
        }
    }
    assert_eq!(bench.peer.state(), state);
    (bench, connection)
}

/// What an event makes of a state: the next state, and the NOTIFICATION sent.
fn outcome(state: State, event: &str) -> String {
    let (mut bench, connection) = bench_in(state);
    let open = bench.their_open();
    let said = match event {
        "start" => bench.say(Input::Start),
        "connected" => bench.say(connected(connection, true)),
        "failed" => bench.say(Input::ConnectFailed { connection, error: "refused".to_owned() }),
        "closed" => bench.say(Input::Closed { connection, error: None }),
        "open" => bench.receive(connection, &[open]),
        "keepalive" => bench.receive(connection, &[Message::Keepalive]),
        "update" => bench.receive(connection, &[Message::Update(wire::Update::end_of_rib(Family::IPV4_UNICAST))]),
        "refresh" => bench.receive(connection, &[Message::RouteRefresh(wire::RouteRefresh::new(Family::IPV4_UNICAST, 7))]),
        "notification" => bench.receive(connection, &[Message::Notification(wire::Notification::new(6, 4))]),
        "bad header" => bench.say(Input::Received { connection, bytes: Bytes::from_static(&[0; 19]) }),
        "bad open" => {
            let Message::Open(mut open) = open else { panic!("an OPEN") };
            open.hold_time = 1;
            bench.receive(connection, &[Message::Open(open)])
        }
        "hold expires" => {
            bench.now += Duration::from_secs(240);
            bench.peer.on_deadline(bench.now, &mut bench.out);
            bench.out.drain().collect()
        }
        "written" => bench.say(Input::Written { connection, waiting: 0 }),
        "shutdown" => bench.say(Input::Stop(StopReason::AdministrativeShutdown(String::new()))),
        "process restart" => bench.say(Input::Stop(StopReason::ProcessRestart)),
        other => panic!("{other}"),
    };
    let notification = said.iter().find_map(|output| match output {
        Output::Send { bytes, .. } if bytes.get(18) == Some(&3) => Some(format!(" {}/{}", bytes[19], bytes[20])),
        _ => None,
    });
    format!("{:?}{}", bench.peer.state(), notification.unwrap_or_default())
}

/// F1: every state answers every event. The table of RFC 4271 section 8, and the rest of what may come.
#[test]
fn f1_every_state_answers_every_event() {
    const STATES: [State; 6] = [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm, State::Established];
    #[rustfmt::skip]
    let table = [
        ("start",           ["Active", "Connect",  "Active", "OpenSent",    "OpenConfirm", "Established"]),
        ("connected",       ["Idle",   "OpenSent", "Active", "OpenSent",    "OpenConfirm", "Established"]),
        ("failed",          ["Idle",   "Active",   "Active", "Active",      "Idle",        "Idle"]),
        ("closed",          ["Idle",   "Active",   "Active", "Active",      "Idle",        "Idle"]),
        ("open",            ["Idle",   "Connect",  "Active", "OpenConfirm", "Idle 5/2",    "Idle 5/3"]),
        ("bad open",        ["Idle",   "Connect",  "Active", "Idle 2/6",    "Idle 5/2",    "Idle 5/3"]),
        ("keepalive",       ["Idle",   "Connect",  "Active", "Idle 5/1",    "Established", "Established"]),
        ("update",          ["Idle",   "Connect",  "Active", "Idle 5/1",    "Idle 5/2",    "Established"]),
        ("refresh",         ["Idle",   "Connect",  "Active", "Idle 5/1",    "Idle 5/2",    "Established"]),
        ("notification",    ["Idle",   "Connect",  "Active", "Idle",        "Idle",        "Idle"]),
        ("bad header",      ["Idle",   "Connect",  "Active", "Idle 1/1",    "Idle 1/1",    "Idle 1/1"]),
        ("hold expires",    ["Idle",   "Active",   "Connect", "Idle 4/0",   "Idle 4/0",    "Idle 4/0"]),
        ("written",         ["Idle",   "Connect",  "Active", "OpenSent",    "OpenConfirm", "Established"]),
        ("shutdown",        ["Idle",   "Idle",     "Idle",   "Idle 6/2",    "Idle 6/2",    "Idle 6/9"]),
        ("process restart", ["Idle",   "Idle",     "Idle",   "Idle",        "Idle",        "Idle"]),
    ];
    for (event, expected) in table {
        let came = STATES.map(|state| outcome(state, event));
        assert_eq!(came.each_ref().map(String::as_str), expected, "{event}");
    }
}

/// F1, the row "Keepalive due": one is sent from OpenConfirm on, and nothing else changes.
#[test]
fn f1_keepalives_are_sent_where_they_are_due() {
    for (state, sends) in [(State::OpenSent, false), (State::OpenConfirm, true), (State::Established, true)] {
        let (mut bench, connection) = bench_in(state);
        bench.say(Input::Written { connection, waiting: 0 });
        bench.now += Duration::from_secs(30);
        bench.peer.on_deadline(bench.now, &mut bench.out);
        let said: Vec<Output> = bench.out.drain().collect();
        let keepalives =
            said.iter().filter(|output| matches!(output, Output::Send { bytes, .. } if bytes.len() == 19 && bytes[18] == 4)).count();
        assert_eq!((bench.peer.state(), keepalives, said.len()), (state, usize::from(sends), usize::from(sends)), "{said:?}");
    }
}

/// U25, Q13: a faulty UPDATE is told with its octets, at most ten in a second.
#[test]
fn u25_q13_faults_are_told_and_counted() {
    let (mut bench, connection) = bench_in(State::Established);
    // ORIGIN 7, an empty AS_PATH, a next hop and LOCAL_PREF, 10.0.0.0/8: treated as a withdrawal.
    let body: [u8; 27] = [0, 0, 0, 21, 0x40, 1, 1, 7, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, 2, 0x40, 5, 4, 0, 0, 0, 100, 8, 10];
    let mut message = vec![0xff; 16];
    message.extend([0, 46, 2]);
    message.extend(body);
    let mut told = 0;
    for _ in 0..30 {
        let said = bench.say(Input::Received { connection, bytes: Bytes::from(message.clone()) });
        for output in &said {
            if let Output::Event(Event::Fault { text, message }) = output {
                told += 1;
                assert!(text.contains("ORIGIN"), "{text}");
                assert!(message.ends_with("080a") && message.starts_with("ffff"), "{message}");
            }
        }
        assert!(
            said.iter().any(|output| matches!(output, Output::Routes(_, batch) if matches!(batch.changes[..], [RouteChange::Withdraw(_)])))
        );
    }
    assert_eq!(told, 10);
    let status = bench.peer.status(bench.now);
    assert_eq!((status.faulty_updates, status.state), (30, State::Established));
}

/// What `show peers` needs is in the status, as JSON too.
#[test]
fn status_tells_the_session() {
    let (mut bench, _) = bench_in(State::Established);
    let counts = PrefixCounts { received: 3, accepted: 2, advertised: 1 };
    bench.say(Input::Counts { shard: ShardId(0), counts: PerFamily { ipv4: counts, ipv6: PrefixCounts::default() } });
    bench.now += Duration::from_secs(7);
    let status = bench.peer.status(bench.now);
    assert_eq!((status.hold_time, status.keepalive_ms, status.seconds_in_state), (Some(90), Some(30_000), 7));
    let json = serde_json::to_value(&status).expect("it is plain data");
    assert_eq!(json["state"], "Established");
    assert_eq!(json["remote"], "10.0.0.2:179");
    assert_eq!(json["families"]["ipv4-unicast"]["received"], 3);
    assert_eq!(json["capabilities"]["remote"]["graceful_restart"]["restart_time"], 120);
    assert_eq!(json["last_error"], serde_json::Value::Null);
    bench.say(Input::Stop(StopReason::AdministrativeShutdown("bye".to_owned())));
    let json = serde_json::to_value(bench.peer.status(bench.now)).expect("it is plain data");
    assert_eq!((&json["last_error"]["by"], &json["flaps"]), (&"us".into(), &1.into()));
    assert_eq!(json["held"], "stopped");
}

/// A peer that is no longer configured: what it told stays, however its session ends, until it is let go.
#[test]
fn a_lingering_peer_keeps_its_paths_and_makes_no_session() {
    let established = || {
        let mut bench = Bench::new(|_, _| {});
        let connection = bench.connect();
        let open = bench.their_open();
        bench.receive(connection, &[open, Message::Keepalive]);
        assert!(bench.say(Input::Linger).is_empty(), "the session goes on");
        assert_eq!(bench.peer.state(), State::Established);
        (bench, connection)
    };
    let keeps =
        |said: &[Output]| said.iter().find_map(|output| if let Output::Down { keep, .. } = output { Some(keep.ipv4) } else { None });
    // The other end deletes us: 6/3 would take its paths away at once.
    let (mut bench, connection) = established();
    let said = bench.receive(connection, &[Message::Notification(wire::Notification::new(6, 3))]);
    assert_eq!((keeps(&said), bench.peer.state()), (Some(true), State::Idle));
    assert_eq!(bench.peer.deadline(), None, "no other attempt");
    let said = bench.say(connected(ConnectionId(99), false));
    assert!(matches!(said[..], [Output::Close { .. }]), "{said:?}");
    let said = bench.say(Input::Stop(StopReason::HandedOver));
    assert!(said.iter().any(|output| matches!(output, Output::SweepStale(Family::IPV4_UNICAST))), "{said:?}");
    // Let go while the session is up: no word, since the other end keeps our paths until it knows.
    let (mut bench, _) = established();
    let said = bench.say(Input::Stop(StopReason::HandedOver));
    assert_eq!(keeps(&said), Some(false));
    assert!(!said.iter().any(|output| matches!(output, Output::Send { .. })), "{said:?}");
    // Configured again, with the session up or lost.
    let (mut bench, connection) = established();
    assert!(bench.say(Input::Start).is_empty() && bench.peer.state() == State::Established);
    bench.say(Input::Linger);
    bench.say(Input::Closed { connection, error: None });
    bench.say(Input::Start);
    assert!(bench.peer.deadline().is_some(), "it tries again");
}

/// A changed policy that comes while a session comes up: whichever is first, the shards' last word of the peer carries it.
#[test]
fn a_changed_configuration_is_told_behind_the_session_that_it_is_for() {
    let (before, after) = (NextHopMode::default(), NextHopMode::Keep);
    let told = |said: &[Output]| {
        said.iter()
            .filter_map(|output| match output {
                Output::Up(facts) => Some(("up", facts.config.next_hop_mode)),
                Output::Reload(config) => Some(("reload", config.next_hop_mode)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let changed = |bench: &Bench| {
        let config = PeerConfig { next_hop_mode: after, ..PeerConfig::clone(bench.peer.config()) };
        Input::Configure(Arc::new(config))
    };
    let almost_up = || {
        let mut bench = Bench::new(|_, _| {});
        let connection = bench.connect();
        let open = bench.their_open();
        bench.receive(connection, &[open]);
        assert_eq!(bench.peer.state(), State::OpenConfirm);
        (bench, connection)
    };
    let (mut bench, connection) = almost_up();
    let mut said = bench.receive(connection, &[Message::Keepalive]);
    said.extend(bench.say(changed(&bench)));
    assert_eq!(told(&said), [("up", before), ("reload", after)]);
    assert_eq!(told(&bench.say(changed(&bench))), [], "the same again is no change");
    let (mut bench, connection) = almost_up();
    let mut said = bench.say(changed(&bench));
    said.extend(bench.receive(connection, &[Message::Keepalive]));
    assert_eq!(told(&said), [("reload", after), ("up", after)]);
    // Stale paths of a session that was lost are judged by it too.
    bench.say(Input::Closed { connection, error: None });
    let back = PeerConfig { next_hop_mode: before, ..PeerConfig::clone(bench.peer.config()) };
    assert_eq!(told(&bench.say(Input::Configure(Arc::new(back)))), [("reload", before)]);
}

/// Events are JSON too.
#[test]
fn events_are_json() {
    let reason = DownReason { by: Party::Peer, code: 6, subcode: 2, text: "bye".to_owned() };
    let json = serde_json::to_value(Event::Down(reason)).expect("it is plain data");
    assert_eq!((&json["event"], &json["code"]), (&"down".into(), &6.into()));
    let fault = Event::Fault { text: "ORIGIN".to_owned(), message: "ff".to_owned() };
    assert_eq!(serde_json::to_value(fault).expect("it is plain data")["event"], "fault");
}

/// What BMP is to tell: both OPENs as they were on the wire, the ports, and how the session ended.
#[test]
fn a_session_knows_how_it_came_about_and_how_it_ended() {
    let ends = |finish: &mut dyn FnMut(&mut Bench, ConnectionId) -> Vec<Output>| {
        let mut bench = Bench::new(|_, _| {});
        let connection = bench.connect();
        // One parameter for each capability: no encoding of ours.
        let mut theirs = our_open(&bench.theirs, &Advert::default()).encode().to_vec();
        let (parameters, length) = (theirs.len() + 4, theirs[28]);
        theirs.extend_from_slice(&[2, 2, 200, 0]);
        theirs[28] = length + 4;
        theirs[17] = parameters as u8;
        let said = bench.say(Input::Received { connection, bytes: Bytes::from(theirs.clone()) });
        assert_eq!(bench.peer.state(), State::OpenConfirm, "{said:?}");
        let said = bench.receive(connection, &[Message::Keepalive]);
        let facts = said.iter().find_map(|output| if let Output::Up(facts) = output { Some(facts) } else { None }).expect("it is up");
        assert_eq!(facts.handshake.received, theirs);
        assert_eq!(facts.handshake.sent[19..29], our_open(bench.peer.config(), &Advert::default()).encode()[19..29]);
        assert_eq!((facts.handshake.local_port, facts.handshake.remote_port), (40000, 179));
        let said = finish(&mut bench, connection);
        said.into_iter().find_map(|output| if let Output::Down { end, .. } = output { Some(end) } else { None }).expect("it is down")
    };
    let notification = wire::Notification::cease_with_text(2, "bye");
    let stop = |reason: StopReason| ends(&mut |bench, _| bench.say(Input::Stop(reason.clone())));
    assert_eq!(
        stop(StopReason::AdministrativeShutdown("bye".to_owned())),
        SessionEnd::NotificationSent(notification.clone().into_hard_reset().encode())
    );
    assert_eq!(stop(StopReason::ProcessRestart), SessionEnd::Closed);
    assert_eq!(stop(StopReason::HandedOver), SessionEnd::Deconfigured);
    let received = ends(&mut |bench, connection| bench.receive(connection, &[Message::Notification(notification.clone())]));
    assert_eq!(received, SessionEnd::NotificationReceived(notification.encode()));
    assert_eq!(ends(&mut |bench, connection| bench.say(Input::Closed { connection, error: None })), SessionEnd::Lost);
}
