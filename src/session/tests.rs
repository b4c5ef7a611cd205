//! The Peer machine from outside, one machine at a time: what it answers in each state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::negotiate::{Advert, our_open};
use super::*;
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
