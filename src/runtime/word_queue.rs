//! What a peer's machine says to shards and to the recovery task, in order, until their inboxes have room.
//!
//! Words go as they come. One that finds no room waits, and with it all that follow, save a request of ours for more to send, which
//! overtakes routes. The peer's task reads nothing meanwhile and sends as room appears, so no inbox is ever awaited with the socket unattended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::node::recovery;
use crate::rib;
use crate::runtime::message::ShardMessage;
use crate::runtime::talk::Talk;
use crate::session::RouteBatch;
use crate::types::PeerId;

/// Batches of routes of a peer that a shard may have not taken yet: the next one is decoded while one is decided. What another peer says stands
/// behind no more of them than that; and since a round thus brings less than a session's window, nothing heaps up before a peer that reads
/// well. With two of them a change beside the reload of a million prefixes took 140 ms to reach such a peer, with one 6 ms
/// (`cargo bench --workspace --bench compare -- --scenarios S7-reload`).
const BATCHES: usize = 1;
/// Words for a shard that wait in its inbox from which on its next round is long anyway: then a peer brings all of what it has read at
/// once, since what is decided together is told together, in fewer messages (S3 of the same bench: 298,000 instead of 386,000).
const CROWD: usize = 2;

/// Whom a peer's task has something to say to.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// The shards' inboxes, by number.
    pub shards: Vec<mpsc::Sender<ShardMessage>>,
    /// The recovery task's inbox.
    pub recovery: mpsc::Sender<recovery::Input>,
    /// Who tells routes at present.
    pub talk: Talk,
}

/// One of them, and for whom.
pub enum Word {
    Shard(usize, ShardMessage),
    Routes(usize, RouteBatch),
    Recovery(recovery::Input),
}

/// Room for the first of the waiting words. It is held until that word is sent: were it let go, one of a thousand others who wait
/// for the same inbox would get it, and so on in a circle.
pub enum Room {
    Shard(mpsc::OwnedPermit<ShardMessage>),
    Routes(mpsc::OwnedPermit<ShardMessage>, OwnedSemaphorePermit),
    Recovery(mpsc::OwnedPermit<recovery::Input>),
}

/// See the module.
pub struct WordQueue {
    peer: PeerId,
    listeners: Listeners,
    waiting: VecDeque<Word>,
    /// For each shard how many batches of routes may be sent to it.
    batches: Vec<Arc<Semaphore>>,
}

impl WordQueue {
    pub fn new(peer: PeerId, listeners: Listeners) -> Self {
        let batches = listeners.shards.iter().map(|_| Arc::new(Semaphore::new(BATCHES))).collect();
        Self { peer, listeners, waiting: VecDeque::new(), batches }
    }

    /// Every word has found room.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.listeners.shards.len()
    }

    /// Sends `word`, or keeps it until there is room.
    pub fn put(&mut self, word: Word) {
        if let Some(word) = self.overtake(word) {
            self.waiting.push_back(word);
            self.drain();
        }
    }

    /// What we ask a shard for need not wait until it has taken what the peer says.
    fn overtake(&self, word: Word) -> Option<Word> {
        let asks = matches!(&word, Word::Shard(_, ShardMessage::Input(rib::Input::Pull { .. })));
        let may = asks && self.waiting.iter().all(|word| matches!(word, Word::Routes(..)));
        if may { self.try_send(word) } else { Some(word) }
    }

    /// Resolves when the inbox that the first waiting word is for has room; never, where none waits.
    pub async fn room(&self) -> Room {
        let of_shard = |shard: usize| self.listeners.shards[shard].clone().reserve_owned();
        let room = match self.waiting.front() {
            None => None,
            Some(Word::Shard(shard, _)) => of_shard(*shard).await.ok().map(Room::Shard),
            Some(Word::Routes(shard, _)) => match Arc::clone(&self.batches[*shard]).acquire_owned().await {
                Ok(permit) => of_shard(*shard).await.ok().map(|room| Room::Routes(room, permit)),
                Err(_) => None,
            },
            Some(Word::Recovery(_)) => self.listeners.recovery.clone().reserve_owned().await.ok().map(Room::Recovery),
        };
        match room {
            Some(room) => room,
            // Nothing waits, or the process ends, and the main task says why.
            None => std::future::pending().await,
        }
    }

    /// Sends the word that `room` is for, and those behind it that find room as well.
    pub fn send_into(&mut self, room: Room) {
        if let (Room::Routes(..), Some(Word::Routes(shard, _))) = (&room, self.waiting.front())
            && self.hands_over_whole(*shard)
        {
            join_routes(&mut self.waiting);
        }
        match (self.waiting.pop_front(), room) {
            (Some(Word::Shard(_, message)), Room::Shard(room)) => drop(room.send(message)),
            (Some(Word::Routes(_, batch)), Room::Routes(room, permit)) => drop(room.send(ShardMessage::Routes(batch, permit))),
            (Some(Word::Recovery(word)), Room::Recovery(room)) => drop(room.send(word)),
            // The room was made for the first word, and nobody else takes words from the queue.
            (other, _) => other.into_iter().for_each(|word| self.waiting.push_front(word)),
        }
        self.drain();
    }

    /// Whether what has been read stays together: the shard is busy with many others, or nobody else has anything to say.
    fn hands_over_whole(&self, shard: usize) -> bool {
        let inbox = &self.listeners.shards[shard];
        let alone = self.listeners.talk.tells(self.peer, Instant::now());
        alone || inbox.max_capacity() - inbox.capacity() > CROWD
    }

    fn drain(&mut self) {
        while let Some(word) = self.waiting.pop_front() {
            if let Some(refused) = self.try_send(word) {
                self.waiting.push_front(refused);
                return;
            }
        }
    }

    /// Sends a word if there is room, or nobody who listens; else here it is again.
    fn try_send(&self, word: Word) -> Option<Word> {
        let Listeners { shards, recovery, talk } = &self.listeners;
        match word {
            Word::Shard(shard, message) => refused(shards[shard].try_send(message)).map(|word| Word::Shard(shard, word)),
            Word::Routes(shard, batch) => {
                let Ok(permit) = Arc::clone(&self.batches[shard]).try_acquire_owned() else { return Some(Word::Routes(shard, batch)) };
                talk.tells(self.peer, Instant::now());
                match refused(shards[shard].try_send(ShardMessage::Routes(batch, permit))) {
                    Some(ShardMessage::Routes(batch, _)) => Some(Word::Routes(shard, batch)),
                    _ => None,
                }
            }
            Word::Recovery(word) => refused(recovery.try_send(word)).map(Word::Recovery),
        }
    }

    /// Sends what still waits, then tells the shards that the peer is gone.
    pub async fn finish(&mut self) {
        for word in std::mem::take(&mut self.waiting) {
            // A closed inbox means that the process ends: nothing is left to tell.
            let _ = match word {
                Word::Shard(shard, message) => self.listeners.shards[shard].send(message).await.is_ok(),
                Word::Routes(shard, batch) => {
                    self.listeners.shards[shard].send(ShardMessage::Input(rib::Input::Routes(batch))).await.is_ok()
                }
                Word::Recovery(word) => self.listeners.recovery.send(word).await.is_ok(),
            };
        }
        for shard in &self.listeners.shards {
            let _ = shard.send(ShardMessage::Forget(self.peer)).await;
        }
    }
}

/// Makes one batch of those that wait in front for the same shard.
fn join_routes(waiting: &mut VecDeque<Word>) {
    let Some(Word::Routes(shard, mut first)) = waiting.pop_front_if(|word| matches!(word, Word::Routes(..))) else { return };
    let same = |word: &mut Word| matches!(word, Word::Routes(other, _) if *other == shard);
    while let Some(Word::Routes(_, next)) = waiting.pop_front_if(same) {
        first.changes.extend(next.changes);
    }
    waiting.push_front(Word::Routes(shard, first));
}

/// What found no room; nothing where it was sent, or nobody listens any more.
fn refused<T>(sent: Result<(), mpsc::error::TrySendError<T>>) -> Option<T> {
    match sent {
        Err(mpsc::error::TrySendError::Full(word)) => Some(word),
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::RouteChange;
    use crate::types::Family;

    const V4: RouteChange = RouteChange::EndOfRib(Family::IPV4_UNICAST);
    const V6: RouteChange = RouteChange::EndOfRib(Family::IPV6_UNICAST);

    fn batch<const N: usize>(changes: [RouteChange; N]) -> Word {
        Word::Routes(0, RouteBatch { peer: PeerId(1), changes: changes.into_iter().collect() })
    }

    /// A queue before one shard whose inbox holds `room` words, and that inbox.
    fn queue(room: usize) -> (WordQueue, mpsc::Receiver<ShardMessage>) {
        let (shard, inbox) = mpsc::channel(room);
        let (recovery, _) = mpsc::channel(1);
        (WordQueue::new(PeerId(1), Listeners { shards: vec![shard], recovery, talk: Talk::default() }), inbox)
    }

    #[test]
    fn batches_in_front_become_one_and_no_word_is_overtaken() {
        let other = Word::Shard(0, ShardMessage::Forget(PeerId(1)));
        let mut waiting = VecDeque::from([batch([V4]), batch([V6, V4]), other, batch([V6])]);
        join_routes(&mut waiting);
        let [Word::Routes(0, first), Word::Shard(..), Word::Routes(0, last)] = waiting.make_contiguous() else {
            panic!("{} words wait", waiting.len())
        };
        assert_eq!(first.changes, [V4, V6, V4]);
        assert_eq!(last.changes, [V6]);
    }

    #[tokio::test]
    async fn a_second_batch_waits_until_the_shard_has_taken_the_first_and_what_waits_comes_as_one() {
        let (mut queue, mut inbox) = queue(8);
        for change in [V4, V6, V4] {
            queue.put(batch([change]));
        }
        assert!(!queue.is_empty());
        let Some(ShardMessage::Routes(first, permit)) = inbox.recv().await else { panic!("no batch came") };
        assert_eq!(first.changes, [V4]);
        drop(permit);
        let room = queue.room().await;
        queue.send_into(room);
        assert!(queue.is_empty());
        let Some(ShardMessage::Routes(rest, _)) = inbox.recv().await else { panic!("no second batch came") };
        assert_eq!(rest.changes, [V6, V4]);
    }

    #[tokio::test]
    async fn a_request_of_ours_overtakes_routes_that_wait() {
        let (mut queue, mut inbox) = queue(8);
        queue.put(batch([V4]));
        queue.put(batch([V6]));
        queue.put(Word::Shard(0, ShardMessage::Input(rib::Input::Pull { peer: PeerId(1), credit: 1 })));
        queue.put(Word::Shard(0, ShardMessage::Forget(PeerId(1))));
        let Some(ShardMessage::Routes(..)) = inbox.recv().await else { panic!("no batch came first") };
        let Some(ShardMessage::Input(rib::Input::Pull { .. })) = inbox.recv().await else { panic!("no request came second") };
        let room = queue.room().await;
        queue.send_into(room);
        let Some(ShardMessage::Routes(..)) = inbox.recv().await else { panic!("the second batch has gone") };
        let Some(ShardMessage::Forget(_)) = inbox.recv().await else { panic!("what stood behind the routes has overtaken them") };
    }

    #[tokio::test]
    async fn nothing_waits_for_those_who_listen_no_more() {
        let (mut queue, inbox) = queue(1);
        drop(inbox);
        queue.put(batch([V4]));
        queue.put(batch([V6]));
        assert!(queue.is_empty());
        queue.finish().await;
    }
}
