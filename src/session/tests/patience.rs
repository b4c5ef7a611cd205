//! How long a peer is waited for that dawdles, does not read, or opens connections by the dozen.

use super::super::timer;
use super::*;

const HOLD: Duration = Duration::from_secs(90);
const SECOND: Duration = Duration::from_secs(1);

/// The NOTIFICATION among what was said.
fn last_word(said: &[Output]) -> Option<(u8, u8)> {
    said.iter().find_map(|output| match output {
        Output::Send { bytes, .. } if bytes.get(18) == Some(&3) => Some((bytes[19], bytes[20])),
        _ => None,
    })
}

fn closes(said: &[Output]) -> Vec<ConnectionId> {
    said.iter().filter_map(|output| if let Output::Close { connection, .. } = output { Some(*connection) } else { None }).collect()
}

impl Bench {
    /// Lets time pass in steps of a second, and everything due happen.
    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let (end, mut said) = (self.now + time, Vec::new());
        while self.now < end {
            self.now += SECOND;
            self.peer.on_deadline(self.now, &mut self.out);
            said.extend(self.out.drain());
        }
        said
    }

    /// The same, with a socket that takes everything at once.
    fn pass_reading(&mut self, connection: ConnectionId, time: Duration) -> Vec<Output> {
        let (end, mut said) = (self.now + time, Vec::new());
        while self.now < end {
            said.extend(self.pass(SECOND));
            said.extend(self.say(Input::Written { connection, waiting: 0 }));
        }
        said
    }
}

/// F4: input that waits unread is not silence, and neither is a message that trickles in; but three hold times are all.
#[test]
fn f4_hold_is_judged_on_the_bytes_that_are_there() {
    // Read late, but read: the KEEPALIVE came before the timer was looked at.
    let (mut bench, connection) = bench_in(State::Established);
    bench.now += HOLD * 2;
    bench.receive(connection, &[Message::Keepalive]);
    assert_eq!(last_word(&bench.pass_reading(connection, HOLD / 2)), None, "{:?}", bench.peer.state());
    assert_eq!(bench.peer.state(), State::Established);
    // Nothing is read since nobody takes it over: extended, until three times have passed.
    let (mut bench, connection) = bench_in(State::Established);
    bench.say(Input::Paused { connection, paused: true });
    assert_eq!(last_word(&bench.pass_reading(connection, HOLD * 3 - SECOND)), None);
    assert_eq!(last_word(&bench.pass_reading(connection, SECOND)), Some((4, 0)));
    // Reading again in time makes all well.
    let (mut bench, connection) = bench_in(State::Established);
    bench.say(Input::Paused { connection, paused: true });
    bench.pass_reading(connection, HOLD * 2);
    bench.say(Input::Paused { connection, paused: false });
    bench.receive(connection, &[Message::Keepalive]);
    assert_eq!(last_word(&bench.pass_reading(connection, HOLD - SECOND)), None);
    // A message that comes an octet a second, and never ends.
    let (mut bench, connection) = bench_in(State::Established);
    bench.say(Input::Received { connection, bytes: Bytes::from([&[0xff; 16][..], &[0x10, 0, 2]].concat()) });
    let mut seconds = 0;
    while bench.peer.state() == State::Established {
        bench.say(Input::Received { connection, bytes: Bytes::from_static(&[0]) });
        bench.pass_reading(connection, SECOND);
        seconds += 1;
    }
    assert_eq!(seconds, 3 * HOLD.as_secs());
    // Silence without any of this.
    let (mut bench, connection) = bench_in(State::Established);
    assert_eq!(last_word(&bench.pass_reading(connection, HOLD)), Some((4, 0)));
}

/// F10: of connections that the peer opens while one waits for its OPEN, the newest stays, and at most one a second is taken.
#[test]
fn f10_the_newest_of_silent_connections_stays() {
    let (mut bench, _) = bench_in(State::Active);
    let open = |bench: &mut Bench| {
        let connection = bench.peer.allocate();
        (connection, closes(&bench.say(connected(connection, false))))
    };
    let (first, closed) = open(&mut bench);
    assert!(closed.is_empty(), "{closed:?}");
    // Within the second: each of a thousand is refused, and the first stays.
    for _ in 0..1000 {
        let (connection, closed) = open(&mut bench);
        assert_eq!(closed, [connection]);
    }
    bench.now += SECOND;
    let (second, closed) = open(&mut bench);
    assert_eq!(closed, [first], "it has sent no OPEN, so it is the one that goes");
    // One that has sent its OPEN is not replaced.
    bench.now += SECOND;
    let theirs = bench.their_open();
    bench.receive(second, &[theirs]);
    assert_eq!(bench.peer.state(), State::OpenConfirm);
    let (third, closed) = open(&mut bench);
    assert_eq!(closed, [third]);
    bench.receive(second, &[Message::Keepalive]);
    assert_eq!(bench.peer.state(), State::Established);
}

/// Q5: an OPEN that comes an octet a second is not waited for any longer than one that does not come.
#[test]
fn q5_a_trickling_open_does_not_extend_its_time() {
    for (outgoing, limit) in [(false, timer::OPEN_HOLD_INCOMING), (true, timer::OPEN_HOLD_OUTGOING)] {
        let (mut bench, mut connection) = bench_in(if outgoing { State::OpenSent } else { State::Active });
        if !outgoing {
            connection = bench.peer.allocate();
            bench.say(connected(connection, false));
        }
        // The longest OPEN that there may be would take more than an hour.
        let open = [&[0xff; 16][..], &[16, 0, 1, 4], &[0; 4075]].concat();
        let (mut said, mut octets) = (Vec::new(), 0);
        for octet in open {
            said = bench.say(Input::Received { connection, bytes: Bytes::from(vec![octet]) });
            assert!(said.is_empty(), "an answer to a piece of a message: {said:?}");
            octets += 1;
            said = bench.pass(SECOND);
            if closes(&said).contains(&connection) {
                break;
            }
        }
        assert_eq!((last_word(&said), octets), (Some((4, 0)), limit.as_secs()), "outgoing {outgoing}");
    }
}

/// V16: a peer whose window stays shut while its KEEPALIVEs go on coming is dropped at SendHold, and told everything when it is back.
#[test]
fn v16_a_window_that_stays_shut_ends_the_session() {
    let (mut bench, connection) = bench_in(State::Established);
    let frames = vec![Bytes::from_static(&[0; 4096])];
    bench.say(Input::Frames { connection, shard: ShardId(0), frames, ended: vec![] });
    // The socket has taken a little of it, once; what we say now waits behind the rest.
    let mut waiting = 4000;
    bench.say(Input::Written { connection, waiting });
    let began = bench.now;
    let mut said = Vec::new();
    while !said.iter().any(|output| matches!(output, Output::Down { .. })) {
        waiting += said.iter().map(|output| if let Output::Send { bytes, .. } = output { bytes.len() } else { 0 }).sum::<usize>();
        bench.say(Input::Written { connection, waiting });
        bench.receive(connection, &[Message::Keepalive]);
        said = bench.pass(SECOND);
        assert!(bench.now - began <= timer::SEND_HOLD + SECOND, "it is not dropped");
    }
    assert_eq!((bench.now - began, last_word(&said), closes(&said)), (timer::SEND_HOLD, Some((8, 0)), vec![connection]));
    // It is back: the session asks the shards for their tables from the beginning.
    let back = loop {
        let connects = |output: &Output| if let Output::Connect { connection } = output { Some(*connection) } else { None };
        if let Some(back) = bench.wait().iter().find_map(connects) {
            break back;
        }
    };
    bench.say(connected(back, true));
    let open = bench.their_open();
    let said = bench.receive(back, &[open, Message::Keepalive]);
    assert!(said.iter().any(|output| matches!(output, Output::Up(_))) && said.iter().any(|output| matches!(output, Output::Pull { .. })));
}

/// W5: the peer may judge a collision otherwise. Where it closes the connection that we keep, we are back within a second.
#[test]
fn w5_another_judgement_of_a_collision_costs_a_second() {
    let (mut bench, ours) = bench_in(State::OpenSent);
    let theirs = bench.peer.allocate();
    bench.say(connected(theirs, false));
    let open = bench.their_open();
    bench.receive(ours, std::slice::from_ref(&open));
    bench.receive(theirs, &[open]);
    let cease = Message::Notification(wire::Notification::new(6, 7));
    for connection in [ours, theirs] {
        bench.receive(connection, std::slice::from_ref(&cease));
    }
    assert!(bench.peer.state() < State::OpenSent, "{:?}", bench.peer.state());
    let began = bench.now;
    while !bench.wait().iter().any(|output| matches!(output, Output::Connect { .. })) {}
    assert!(bench.now - began <= SECOND, "{:?}", bench.now - began);
}
