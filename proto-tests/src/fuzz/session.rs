//! A Peer machine between sockets, clock and shards, which the octets play: whatever happens in whatever order, it speaks in whole
//! messages on connections that it has, tells a session's routes inside the session, and comes to rest.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use margay::session::{Input, Output, Peer, Settings, StopReason};
use margay::types::{Asn, ConnectionId, Family, Outbox, PeerId, ShardId};
use margay::wire::{Context, frame};

use super::Choices;
use crate::story::config;
use crate::wire::vector::Vectors;

/// Timers that may be due at one instant, one after the other.
const BUSY: usize = 64;

struct World {
    peer: Peer,
    now: Instant,
    out: Outbox<Output>,
    /// Those that the machine has asked for or was given, and has not closed.
    connections: BTreeSet<ConnectionId>,
    /// Asked for and not yet answered.
    connecting: BTreeSet<ConnectionId>,
    session: Option<ConnectionId>,
}

/// The first octet says which kind of session; then each says what happens.
pub fn body(data: &[u8]) {
    let mut world = play(data);
    // Left alone it does not get busy: an hour has a bounded number of deadlines.
    let end = world.now + Duration::from_secs(3600);
    let mut steps = 0;
    while world.step_to(end) {
        steps += 1;
        assert!(steps < 20_000, "{steps} deadlines in an hour");
    }
}

fn play(data: &[u8]) -> World {
    let mut choices = Choices(data);
    let mut config = config([10, 0, 0, 1], [10, 0, 0, 2]);
    if choices.below(2) == 1 {
        config.remote_asn = Asn(65001);
    }
    let now = Instant::now();
    let settings = Settings { seed: 7, shards: 2, ..Settings::default() };
    let peer = Peer::new(PeerId(1), Arc::new(config), settings);
    let (connections, connecting) = (BTreeSet::new(), BTreeSet::new());
    let mut world = World { peer, now, out: Outbox::new(), connections, connecting, session: None };
    world.say(Input::Start);
    while !choices.is_empty() {
        world.happens(&mut choices);
    }
    world
}

impl World {
    fn happens(&mut self, choices: &mut Choices<'_>) {
        let connection = self.connections.iter().nth(choices.below(self.connections.len())).copied();
        match (choices.below(16), connection) {
            (0, _) => self.say(Input::Start),
            (1, _) => {
                let Some(connection) = self.connecting.pop_first() else { return };
                self.connections.insert(connection);
                self.say(connected(connection, true));
            }
            (2, _) => {
                let Some(connection) = self.connecting.pop_first() else { return };
                self.say(Input::ConnectFailed { connection, error: "no route".to_owned() });
            }
            (3, _) => {
                let connection = self.peer.allocate();
                self.connections.insert(connection);
                self.say(connected(connection, false));
            }
            (4..=8, Some(connection)) => {
                let length = choices.below(256) + 16 * choices.below(16);
                self.say(Input::Received { connection, bytes: Bytes::from(choices.take(length)) });
            }
            (9, Some(connection)) => {
                self.connections.remove(&connection);
                self.connecting.remove(&connection);
                self.say(Input::Closed { connection, error: None });
            }
            (10, _) => {
                let end = self.now + Duration::from_secs(1 << choices.below(10));
                let mut left = 1000;
                while left > 0 && self.step_to(end) {
                    left -= 1;
                }
            }
            (11, Some(connection)) => self.say(Input::Written { connection, waiting: choices.below(256) << choices.below(16) }),
            (12, Some(connection)) => self.say(Input::Paused { connection, paused: choices.below(2) == 1 }),
            (13, _) => {
                let Some(connection) = self.session else { return };
                let ended = Family::ALL.into_iter().filter(|_| choices.below(2) == 1).collect();
                self.say(Input::Frames { connection, shard: ShardId(choices.below(2) as u16), frames: Vec::new(), ended });
            }
            (14, _) => match choices.below(6) {
                0 => self.say(Input::Stop(StopReason::AdministrativeReset("fuzz".to_owned()))),
                1 => self.say(Input::LinkDown("eth0 is gone".to_owned())),
                2 => self.say(Input::LinkUp),
                3 => self.say(Input::RequestRefresh(Family::IPV4_UNICAST)),
                4 => self.say(Input::Resend(Family::IPV6_UNICAST)),
                _ => self.say(Input::RecoveryDone),
            },
            _ => {}
        }
    }

    fn say(&mut self, input: Input) {
        self.peer.handle(self.now, input, &mut self.out);
        self.hear();
    }

    /// The next deadline up to `end`; false when there is none.
    fn step_to(&mut self, end: Instant) -> bool {
        let Some(due) = self.peer.deadline().filter(|due| *due <= end) else {
            self.now = self.now.max(end);
            return false;
        };
        self.now = self.now.max(due);
        let mut busy = 0;
        while self.peer.deadline().is_some_and(|due| due <= self.now) {
            self.peer.on_deadline(self.now, &mut self.out);
            self.hear();
            busy += 1;
            assert!(busy < BUSY, "always due: {:?}", self.peer.status(self.now));
        }
        true
    }

    fn hear(&mut self) {
        for output in self.out.drain().collect::<Vec<_>>() {
            match output {
                Output::Connect { connection } => assert!(self.connecting.insert(connection), "{connection:?} is asked for twice"),
                Output::Send { connection, bytes } => {
                    assert!(self.connections.contains(&connection), "words on {connection:?}, which is not there");
                    assert_whole(&bytes);
                }
                Output::Close { connection, .. } => {
                    self.connections.remove(&connection);
                    self.connecting.remove(&connection);
                }
                Output::Up(facts) => {
                    assert!(self.session.replace(facts.connection).is_none(), "up, and up again");
                }
                Output::Down { .. } => assert!(self.session.take().is_some(), "down, but it was not up"),
                Output::Routes(..) | Output::RefreshRequested(_) | Output::EndOfRib(_) | Output::Pull { .. } => {
                    assert!(self.session.is_some(), "{output:?} without a session");
                }
                Output::SweepStale(_) | Output::Reload(_) | Output::LongLived(_) | Output::Event(_) => {}
            }
        }
    }
}

fn connected(connection: ConnectionId, outgoing: bool) -> Input {
    let local: SocketAddr = ([10, 0, 0, 1], if outgoing { 40000 } else { 179 }).into();
    let remote: SocketAddr = ([10, 0, 0, 2], if outgoing { 179 } else { 40000 }).into();
    Input::Connected { connection, outgoing, local, remote, local_link: None }
}

/// What is written is one or more whole messages, of no more octets than anybody takes.
fn assert_whole(bytes: &Bytes) {
    let mut buffer = BytesMut::from(&bytes[..]);
    let lenient = Context { receive_limit: 65535, ..Context::default() };
    while !buffer.is_empty() {
        match frame::next(&mut buffer, &lenient) {
            Ok(Some(_)) => {}
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
}

/// Sessions that come up and hear something.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut open = vec![0xff; 16];
    // Length 29, OPEN, version 4, AS 64512, hold 90, identifier 10.0.0.2, no parameters.
    open.extend_from_slice(&[0, 29, 1, 4, 0xfc, 0, 0, 90, 10, 0, 0, 2, 0]);
    let keepalive = [&[0xff; 16][..], &[0, 19, 4]].concat();
    // Each event is a connection, what happens, and what that needs: here a length in two octets, and the message.
    let received = |message: &[u8]| [&[0, 4, message.len() as u8, 0][..], message].concat();
    // Kind of session; sixteen seconds pass, the connect succeeds.
    let up = [&[0, 0, 10, 4, 0, 1][..], &received(&open), &received(&keepalive)].concat();
    let mut seeds = vec![up.clone(), [&[0, 0, 3][..], &received(&open), &received(&keepalive)].concat()];
    let all = Vectors::all();
    let messages = all.iter().flat_map(|vectors| vectors.messages().map(<[u8]>::to_vec).collect::<Vec<_>>());
    for message in messages.filter(|message| message.len() < 256).take(200) {
        seeds.push([&up[..], &received(&message)].concat());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_reach_an_established_session_from_both_sides() {
        for seed in &seeds()[..2] {
            let world = play(seed);
            assert!(world.session.is_some(), "{:?}", world.peer.status(world.now));
        }
        let up = seeds().iter().filter(|seed| play(seed).session.is_some()).count();
        assert!(up > 20, "{up} of the others stay up with what they hear");
    }
}
