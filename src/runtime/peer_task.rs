//! One task per peer: its Peer machine, its sockets, and the words between them and the shards.
//!
//! A shard's inbox that is full, or a batch of routes that the shard has not taken yet, stops this task from *reading* (TCP pushes back on
//! the peer), nothing else: what waits for room is kept in order and sent as room appears, timers and writes go on. So a peer that tells a
//! table lets others in between, and most of what it has said and nobody has decided stays in sockets.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::bfd;
use crate::config::PeerConfig;
use crate::node::recovery;
use crate::node::transcript;
use crate::node::wiring::{FromPeer, SocketWord, from_peer};
use crate::rib;
use crate::runtime::alarm::Alarm;
use crate::runtime::connections::{Connections, Read, SocketEvent};
use crate::runtime::history::Chronicle;
use crate::runtime::message::{PeerMessage, PeerReplies, ShardCounts, ShardMessage};
use crate::runtime::metrics::PeerMetrics;
use crate::runtime::recording::{self, Recorder};
use crate::runtime::socket;
use crate::runtime::word_queue::{Listeners, Room, Word, WordQueue};
use crate::session::{DownReason, Event, Input, Output, Peer, State};
use crate::telemetry;
use crate::types::{ConnectionId, Family, Outbox, PeerId};

/// Answers of shards that may be on their way: one `Pull` a shard, doubled for a replaced one.
const FRAME_REPLIES: usize = 16;
/// Reads in a row from one socket before timers and other inputs get their turn.
const READS_A_TURN: usize = 4;
/// Octets of a read that are kept where they made the task panic.
const EVIDENCE: usize = 4096;

/// What a peer's task watches: the newest value counts.
#[derive(Debug)]
pub struct Watched {
    /// Changes once: when our own restart is over.
    pub recovered: watch::Receiver<bool>,
    /// What BFD says of the path.
    pub bfd: watch::Receiver<Option<bfd::Report>>,
}

/// See the module.
pub struct PeerTask {
    id: PeerId,
    machine: Peer,
    recorder: Option<Recorder>,
    outbox: Outbox<Output>,
    connections: Connections,
    chronicle: Chronicle,
    inbox: mpsc::Receiver<PeerMessage>,
    watched: Watched,
    /// Our own restart was over when the task began, or the machine has been told of it.
    recovered: bool,
    replies: mpsc::Receiver<Box<Input>>,
    counts: watch::Receiver<ShardCounts>,
    /// Words for shards and recovery; reading stops while any waits.
    words: WordQueue,
    /// The failure that was logged last.
    told: Option<DownReason>,
    metrics: PeerMetrics,
    /// Since when the session is Established.
    established: Option<Instant>,
    /// Paths received, for whoever asks for the greatest.
    paths: watch::Sender<u64>,
    /// Memory is short: nothing is read.
    held: bool,
}

/// Tells, should the machine panic, what the peer had just said (V9).
struct Witness<'a> {
    chronicle: &'a Chronicle,
    config: Arc<PeerConfig>,
    octets: Bytes,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = transcript::hex(&self.octets[..self.octets.len().min(EVIDENCE)]);
            self.chronicle.tell(telemetry::Event::Fault {
                peer: self.config.name.clone(),
                text: "these octets, as they were read, made the peer's task panic".to_owned(),
                message,
            });
        }
    }
}

enum Turn {
    Message(Option<PeerMessage>),
    Reply(Input),
    Counts,
    Recovered,
    Bfd,
    Socket(SocketEvent),
    Deadline,
    Room(Room),
}

impl PeerTask {
    /// A task for `machine`, which may be recorded; run it with [`PeerTask::run`].
    pub fn new(
        id: PeerId,
        (machine, recorder): (Peer, Option<Recorder>),
        (listeners, chronicle): (Listeners, Chronicle),
        inbox: mpsc::Receiver<PeerMessage>,
        watched: Watched,
    ) -> Self {
        let metrics = chronicle.metrics().peer(machine.config());
        let recovered = *watched.recovered.borrow() && watched.recovered.has_changed().is_ok_and(|changed| !changed);
        // Nobody answers before the first session: its own channels replace these.
        let (_, replies) = mpsc::channel(1);
        let (_, counts) = watch::channel(ShardCounts::new());
        Self {
            id,
            machine,
            recorder,
            outbox: Outbox::new(),
            connections: Connections::default(),
            chronicle,
            inbox,
            watched,
            recovered,
            replies,
            counts,
            words: WordQueue::new(id, listeners),
            told: None,
            metrics,
            established: None,
            paths: watch::channel(0).0,
            held: false,
        }
    }

    /// Paths received from the peer, before policy, in all families.
    pub fn paths(&self) -> watch::Receiver<u64> {
        self.paths.subscribe()
    }

    /// Runs until the inbox is closed: the peer is no longer configured, or the process ends.
    // An `async fn` would hold the task twice, as its argument and as its variable: 3 KB a session.
    #[allow(clippy::manual_async_fn)]
    pub fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let mut alarm = Alarm::default();
            loop {
                match self.turn(&mut alarm).await {
                    Turn::Message(None) => break,
                    Turn::Message(Some(message)) => self.message(message),
                    Turn::Reply(input) => self.input(input),
                    Turn::Counts => self.counts_changed(),
                    Turn::Recovered => {
                        self.recovered = true;
                        self.input(Input::RecoveryDone);
                    }
                    Turn::Bfd => {
                        let report = *self.watched.bfd.borrow_and_update();
                        if let Some(report) = report {
                            self.input(Input::Bfd(report));
                        }
                    }
                    Turn::Socket(event) => {
                        // tokio would let a task whose socket has always more take hundreds of turns before others get theirs.
                        if self.socket(event) {
                            tokio::task::yield_now().await;
                        }
                    }
                    Turn::Deadline => {
                        self.handle(None);
                        self.deliver();
                    }
                    Turn::Room(room) => {
                        self.words.send_into(room);
                        if self.reads() {
                            self.pause(false);
                            self.deliver();
                        }
                    }
                }
            }
            self.words.finish().await;
        }
    }

    async fn turn(&mut self, alarm: &mut Alarm) -> Turn {
        let deadline = self.machine.deadline();
        // What cannot happen is not waited for: each costs a place in a list, in every turn.
        let (reading, waits, watches) = (self.reads(), !self.words.is_empty(), self.machine.config().bfd.is_some());
        // Sockets before timers: a hold timer is judged on the bytes that are there (F4).
        tokio::select! {
            biased;
            message = self.inbox.recv() => Turn::Message(message),
            Ok(()) = self.watched.bfd.changed(), if watches => Turn::Bfd,
            Some(input) = self.replies.recv() => Turn::Reply(*input),
            event = self.connections.next(reading) => Turn::Socket(event),
            Ok(()) = self.counts.changed() => Turn::Counts,
            () = alarm.at(deadline) => Turn::Deadline,
            room = self.words.room(), if waits => Turn::Room(room),
            Ok(()) = self.watched.recovered.changed(), if !self.recovered => Turn::Recovered,
        }
    }

    #[inline(never)]
    fn message(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::Input(input) => {
                if let Input::Configure(config) = &*input {
                    self.connections.set_key(&self.machine.config().authentication, config);
                }
                self.input(*input);
            }
            PeerMessage::Accepted(accepted) => self.accepted(accepted.0, accepted.1),
            PeerMessage::Hold(held) => self.hold(held),
            #[cfg(test)]
            PeerMessage::Panic(octets) => {
                let _witness = self.witness(octets);
                panic!("as the test has asked");
            }
            // Whoever asked may have gone; then nobody misses the answer.
            PeerMessage::Status(reply) => drop(reply.send(self.machine.status(Instant::now()))),
        }
    }

    /// Nothing keeps us from reading: every word has found room, and there is memory.
    fn reads(&self) -> bool {
        self.words.is_empty() && !self.held
    }

    fn hold(&mut self, held: bool) {
        let reads = self.reads();
        self.held = held;
        if reads != self.reads() {
            self.pause(held);
            self.deliver();
        }
    }

    #[inline(never)]
    fn accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        let local = match socket::accepted(&stream, remote.ip(), self.machine.config()) {
            Ok(local) => local,
            Err(error) => return warn!(%remote, %error, "accepted connection dropped"),
        };
        let connection = self.machine.allocate();
        self.connections.adopt(connection, stream);
        self.input(Input::Connected { connection, outgoing: false, local, remote, local_link: local_link(local) });
    }

    /// True: there may be more to read, but others are to have their turn first.
    fn socket(&mut self, event: SocketEvent) -> bool {
        match event {
            SocketEvent::Connected(connection, local, remote) => {
                self.input(Input::Connected { connection, outgoing: true, local, remote, local_link: local_link(local) });
            }
            SocketEvent::Failed(connection, error) => self.input(Input::ConnectFailed { connection, error: error.to_string() }),
            SocketEvent::Readable(connection) => return self.read(connection),
            SocketEvent::Writable(connection) => self.written(connection),
        }
        false
    }

    /// True: there may be more.
    fn read(&mut self, connection: ConnectionId) -> bool {
        for _ in 0..READS_A_TURN {
            match self.connections.read(connection) {
                Read::Bytes(bytes) => self.input(Input::Received { connection, bytes }),
                Read::Nothing => return false,
                Read::Closed(error) => {
                    self.connections.close(connection, false);
                    self.input(Input::Closed { connection, error: error.map(|e| e.to_string()) });
                    return false;
                }
            }
            if !self.words.is_empty() {
                return false;
            }
        }
        true
    }

    fn written(&mut self, connection: ConnectionId) {
        if let Some(waiting) = self.connections.write(connection) {
            self.input(Input::Written { connection, waiting });
        }
    }

    fn counts_changed(&mut self) {
        let counts = self.counts.borrow_and_update().clone();
        for (shard, counts) in counts {
            self.input(Input::Counts { shard, counts });
        }
        self.count_prefixes();
    }

    fn input(&mut self, input: Input) {
        self.handle(Some(input));
        self.deliver();
    }

    /// Hands an input, or its deadline, to the machine.
    fn handle(&mut self, input: Option<Input>) {
        let now = Instant::now();
        let heard = self.recorder.as_ref().and(input.as_ref()).map(recording::heard);
        let read = if let Some(Input::Received { bytes, .. }) = &input { Some(bytes.clone()) } else { None };
        let _witness = read.map(|octets| Witness { chronicle: &self.chronicle, config: Arc::clone(self.machine.config()), octets });
        let before = self.outbox.as_slice().len();
        match input {
            Some(input) => self.machine.handle(now, input, &mut self.outbox),
            None => self.machine.on_deadline(now, &mut self.outbox),
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.note(now, heard.as_deref(), &self.outbox.as_slice()[before..]);
        }
    }

    #[cfg(test)]
    fn witness(&self, octets: Bytes) -> Witness<'_> {
        Witness { chronicle: &self.chronicle, config: Arc::clone(self.machine.config()), octets }
    }

    fn deliver(&mut self) {
        // Delivering a `Send` may make the machine say more (`Written`): go on until it is silent.
        while !self.outbox.is_empty() {
            for output in self.outbox.take() {
                self.deliver_one(output);
            }
        }
        self.metrics.traffic(self.machine.traffic());
    }

    fn deliver_one(&mut self, output: Output) {
        match from_peer(self.id, output) {
            FromPeer::Socket(word) => self.socket_word(word),
            FromPeer::EveryShard(input) => self.every_shard(&input),
            FromPeer::OneShard(shard, rib::Input::Routes(batch)) => self.say(Word::Routes(usize::from(shard.0), batch)),
            FromPeer::OneShard(shard, input) => self.say(Word::Shard(usize::from(shard.0), ShardMessage::Input(input))),
            FromPeer::EveryShardAndRecovery(input, word) => {
                self.every_shard(&input);
                self.say(Word::Recovery(word));
            }
            FromPeer::Recovery(word) => {
                if let (recovery::Input::EndOfRib(..), Some(since)) = (&word, self.established) {
                    self.metrics.end_of_rib(since.elapsed());
                }
                self.say(Word::Recovery(word));
            }
            FromPeer::Told(event, word) => {
                self.tell(event);
                if let Some(word) = word {
                    self.say(Word::Recovery(word));
                }
            }
        }
    }

    fn socket_word(&mut self, word: SocketWord) {
        match word {
            SocketWord::Connect(connection) => self.connections.connect(connection, self.machine.config()),
            SocketWord::Close(connection, linger) => self.connections.close(connection, linger),
            SocketWord::Send(connection, bytes) => {
                if let Some(waiting) = self.connections.send(connection, bytes) {
                    self.handle(Some(Input::Written { connection, waiting }));
                }
            }
        }
    }

    #[inline(never)]
    fn every_shard(&mut self, input: &rib::Input) {
        let replies = matches!(input, rib::Input::PeerUp(_)).then(|| self.new_replies());
        for shard in 0..self.words.shards() {
            let message = match &replies {
                Some(replies) => ShardMessage::Up(input.clone(), replies.clone()),
                None => ShardMessage::Input(input.clone()),
            };
            self.say(Word::Shard(shard, message));
        }
    }

    /// Fresh channels for a new session: an answer to the old one dies with its channel.
    fn new_replies(&mut self) -> PeerReplies {
        let (frames, replies) = mpsc::channel(FRAME_REPLIES);
        let (counts, changed) = watch::channel(ShardCounts::new());
        (self.replies, self.counts) = (replies, changed);
        PeerReplies { peer: self.id, frames, counts }
    }

    fn say(&mut self, word: Word) {
        let reads = self.reads();
        self.words.put(word);
        if reads && !self.reads() {
            self.pause(true);
        }
    }

    /// Tells the machine that silence is not the peer's while we do not read (F4).
    #[inline(never)]
    fn pause(&mut self, paused: bool) {
        for connection in self.connections.open() {
            self.handle(Some(Input::Paused { connection, paused }));
        }
    }

    /// Logs a session change and tells the history; an attempt that fails as the one before it did is only for debugging.
    #[inline(never)]
    fn tell(&mut self, event: Event) {
        self.log(&event);
        self.count(&event);
        let step_of_attempt = matches!(&event, Event::State { from, to } if *from != State::Established && *to != State::Established);
        if !step_of_attempt {
            self.chronicle.tell(telemetry::Event::of_session(&self.machine.config().name, event));
        }
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::State { from, to } => {
                self.established = (*to == State::Established).then(Instant::now);
                self.metrics.state(*from, *to);
                self.count_prefixes();
            }
            Event::Down(reason) => self.metrics.down(reason),
            Event::Fault { .. } => self.metrics.fault(),
            Event::Superseded(_) | Event::PrefixLimit { .. } => {}
        }
    }

    fn count_prefixes(&mut self) {
        let counts = self.machine.prefix_counts();
        for family in self.machine.config().offered() {
            self.metrics.prefixes(family, counts.of(family).copied().unwrap_or_default());
        }
        self.paths.send_replace(Family::ALL.into_iter().filter_map(|family| counts.of(family)).map(|counts| counts.received).sum());
    }

    fn log(&mut self, event: &Event) {
        match event {
            Event::State { from, to } if *from == State::Established || *to == State::Established => {
                self.told = None;
                info!(?from, ?to, "session");
            }
            Event::State { from, to } => debug!(?from, ?to, "session"),
            Event::Superseded(reason) => debug!(by = ?reason.by, text = %reason.text, "a connection gave way to another one"),
            Event::Down(reason) if self.told.as_ref() == Some(reason) => debug!(text = %reason.text, "again"),
            Event::Down(reason) => {
                info!(by = ?reason.by, code = reason.code, subcode = reason.subcode, text = %reason.text, "session down, or an attempt failed");
                self.told = Some(reason.clone());
            }
            Event::Fault { text, .. } => warn!(what = %text, "fault in UPDATE"),
            Event::PrefixLimit { family, received, limit } => {
                warn!(%family, received, limit, "the peer's paths come near its limit, or pass it");
            }
        }
    }
}

fn local_link(local: SocketAddr) -> Option<(Ipv6Addr, u32)> {
    match local {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => Some((*v6.ip(), v6.scope_id())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_task<T, F: Future>(_: fn(T) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_holds_its_task_once_and_little_for_words_that_do_not_wait() {
        let (task, future) = (size_of::<PeerTask>(), size_of_task(PeerTask::run));
        assert!(future < task + task / 2, "{future} octets for a task of {task}");
        // tokio keeps room for 32 of them in each channel, from the start.
        assert!(size_of::<PeerMessage>() <= 40, "{}", size_of::<PeerMessage>());
    }
}
