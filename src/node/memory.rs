//! MemoryGuard machine: what peers say must not cost the process its life. An orchestrator that kills it for its memory takes every session
//! with it; this guard takes the one that needs the most.
//!
//! | resident memory | what happens |
//! |---|---|
//! | 90 % of the ceiling | the peer with the most paths is no longer read, for at most [`HELD`]; one more each time memory has grown by another 1 % |
//! | 100 % | Cease 6/8, out of resources (RFC 4486), to the peer with the most paths: its paths go, and it stays down for [`DOWN`] |
//! | below 80 % | everybody is read again |
//!
//! An allocator gives back late what it was given, so that memory which stays where it was proves nothing: after each act only growth counts.
//! A peer that is not read is slowed by TCP; its hold time is extended as for any other pause of ours (F4). A peer without paths is never chosen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::types::{Outbox, PeerId};

/// How long a peer goes unread while memory does not grow. One that is read again and goes on to fill it comes to the ceiling in a minute or so,
/// one that has nothing more to say keeps its session.
pub const HELD: Duration = Duration::from_secs(3);
/// How long a peer stays down that was told to go.
pub const DOWN: Duration = Duration::from_secs(600);
/// How long it takes at most until what a peer had said is taken in, and has gone. Nobody else is blamed meanwhile.
const SETTLING: Duration = Duration::from_secs(2);
/// Octets a millisecond by which memory may grow between two looks: more than a few peers at full speed were seen to need.
const FASTEST: u64 = 256 << 10;
/// For how long what is counted of a peer that was told to go may be of before.
const COUNTED: Duration = Duration::from_secs(30);
/// Percent of the ceiling.
const CALM: u64 = 80;
const TIGHT: u64 = 90;
const FULL: u64 = 100;

/// What is the case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Resident memory of the process in octets.
    pub resident: u64,
    /// Paths of each peer that is configured, before policy; of nobody while [`MemoryGuard::is_calm`].
    pub paths: Vec<(PeerId, u64)>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Do not read this peer.
    Hold(PeerId),
    /// Read it again.
    Release(PeerId),
    /// End its session with 6/8, for [`DOWN`].
    Stop(PeerId),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct MemoryGuard {
    ceiling: u64,
    held: BTreeMap<PeerId, Instant>,
    /// Who was told to go last.
    stopped: Option<(PeerId, Instant)>,
    /// Resident memory at the last act; 0 while all is calm.
    mark: u64,
}

impl MemoryGuard {
    /// A guard of `ceiling` octets.
    pub fn new(ceiling: u64) -> Self {
        Self { ceiling, held: BTreeMap::new(), stopped: None, mark: 0 }
    }

    /// The ceiling in octets.
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// Peers that are not read now.
    pub fn held(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.held.keys().copied()
    }

    /// How soon to look again: before memory can be short.
    pub fn pace(&self, resident: u64) -> Duration {
        let room = self.percent(TIGHT).saturating_sub(resident);
        Duration::from_millis((room / FASTEST).clamp(50, 1000))
    }

    /// Whether it does not matter who has how many paths: there is room, and everybody is read.
    pub fn is_calm(&self, resident: u64) -> bool {
        resident < self.percent(CALM) && self.held.is_empty()
    }

    /// Looks, and says what is to be done.
    pub fn handle(&mut self, now: Instant, look: &Look, out: &mut Outbox<Output>) {
        self.held.retain(|peer, _| look.paths.iter().any(|(configured, _)| configured == peer));
        if look.resident < self.percent(CALM) {
            self.mark = 0;
            return self.release(out, |_| true);
        }
        let grown = look.resident > self.mark + self.percent(1);
        if !grown || look.resident < self.percent(TIGHT) {
            return self.release(out, |since| now.saturating_duration_since(since) >= HELD);
        }
        if self.stopped.is_some_and(|(_, at)| now.saturating_duration_since(at) < SETTLING) {
            self.mark = look.resident;
            return;
        }
        let act = if look.resident >= self.percent(FULL) { self.stop(now, look) } else { self.hold(now, look) };
        // Where nobody else can be held, what grows is what was on its way in already: it must not keep those who are held unread for ever.
        if act.is_some() || look.resident < self.percent(FULL) {
            self.mark = look.resident;
        }
        act.into_iter().for_each(|act| out.push(act));
    }

    fn stop(&mut self, now: Instant, look: &Look) -> Option<Output> {
        let peer = biggest(look, |peer| self.stopped.is_none_or(|(last, _)| last != peer) || !self.just_stopped(now))?;
        self.held.remove(&peer);
        self.stopped = Some((peer, now));
        Some(Output::Stop(peer))
    }

    fn hold(&mut self, now: Instant, look: &Look) -> Option<Output> {
        let going = self.stopped.map(|(peer, _)| peer).filter(|_| self.just_stopped(now));
        let peer = biggest(look, |peer| !self.held.contains_key(&peer) && going != Some(peer))?;
        self.held.insert(peer, now);
        Some(Output::Hold(peer))
    }

    fn just_stopped(&self, now: Instant) -> bool {
        self.stopped.is_some_and(|(_, at)| now.saturating_duration_since(at) < COUNTED)
    }

    fn release(&mut self, out: &mut Outbox<Output>, whom: impl Fn(Instant) -> bool) {
        self.held.extract_if(.., |_, since| whom(*since)).for_each(|(peer, _)| out.push(Output::Release(peer)));
    }

    fn percent(&self, percent: u64) -> u64 {
        self.ceiling / 100 * percent
    }
}

/// The peer with the most paths of those that may be chosen; of equals the first.
fn biggest(look: &Look, may: impl Fn(PeerId) -> bool) -> Option<PeerId> {
    let candidates = look.paths.iter().filter(|(peer, paths)| *paths > 0 && may(*peer));
    candidates.max_by_key(|(peer, paths)| (*paths, std::cmp::Reverse(*peer))).map(|(peer, _)| *peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    struct Story {
        guard: MemoryGuard,
        now: Instant,
        paths: Vec<(PeerId, u64)>,
    }

    impl Story {
        #[expect(clippy::disallowed_methods, reason = "some first instant is needed")]
        fn new(paths: &[u64]) -> Self {
            let paths = paths.iter().zip(1..).map(|(paths, peer)| (PeerId(peer), *paths)).collect();
            Self { guard: MemoryGuard::new(1000 * MIB), now: Instant::now(), paths }
        }

        /// What the guard says when `after` seconds later so much is resident.
        fn at(&mut self, after: u64, mib: u64) -> Vec<Output> {
            self.now += Duration::from_secs(after);
            let (mut out, resident) = (Outbox::new(), mib * MIB);
            let paths = if self.guard.is_calm(resident) { Vec::new() } else { self.paths.clone() };
            self.guard.handle(self.now, &Look { resident, paths }, &mut out);
            out.drain().collect()
        }
    }

    #[test]
    fn q2_the_peer_with_the_most_paths_is_held_at_nine_tenths_and_told_to_go_at_the_ceiling() {
        let mut story = Story::new(&[10, 5000, 0, 70]);
        assert_eq!(story.at(0, 899), []);
        assert_eq!(story.at(1, 901), [Output::Hold(PeerId(2))]);
        assert_eq!(story.guard.held().collect::<Vec<_>>(), [PeerId(2)]);
        assert_eq!(story.at(1, 905), [], "that is not much more");
        assert_eq!(story.at(1, 920), [Output::Hold(PeerId(4))], "another one fills the memory");
        assert_eq!(story.at(1, 1000), [Output::Stop(PeerId(2))]);
        assert_eq!(story.guard.held().collect::<Vec<_>>(), [PeerId(4)]);
    }

    #[test]
    fn q2_memory_that_is_not_given_back_costs_nobody_else_a_session() {
        let mut story = Story::new(&[10, 5000, 70]);
        assert_eq!(story.at(0, 1100), [Output::Stop(PeerId(2))], "it grew too fast to be held");
        story.paths[1].1 = 0;
        for _ in 0..100 {
            assert_eq!(story.at(10, 1100), []);
        }
        // Somebody else does fill it further.
        assert_eq!(story.at(1, 1115), [Output::Stop(PeerId(3))]);
        assert_eq!(story.at(1, 1140), [], "what the last one had said is still on its way in");
        assert_eq!(story.at(3, 1145), []);
        assert_eq!(story.at(1, 1155), [Output::Stop(PeerId(1))]);
    }

    #[test]
    fn q2_who_is_held_is_read_again_in_time_and_at_once_where_there_is_room() {
        let mut story = Story::new(&[10, 20]);
        assert_eq!(story.at(0, 950), [Output::Hold(PeerId(2))]);
        assert_eq!(story.at(2, 950), []);
        assert_eq!(story.at(1, 950), [Output::Release(PeerId(2))]);
        assert_eq!(story.at(1, 970), [Output::Hold(PeerId(2))]);
        assert_eq!(story.at(1, 799), [Output::Release(PeerId(2))]);
        assert_eq!(story.at(1, 901), [Output::Hold(PeerId(2))], "calm ends the memory of what was");
        story.paths.pop();
        assert_eq!(story.at(1, 901), []);
        assert_eq!(story.guard.held().count(), 0, "a peer that is no longer configured is not held");
    }

    #[test]
    fn q2_what_was_on_its_way_in_from_the_last_who_could_be_held_keeps_nobody_unread() {
        let mut story = Story::new(&[0, 20]);
        assert_eq!(story.at(0, 950), [Output::Hold(PeerId(2))]);
        assert_eq!(story.at(1, 975), [], "there is nobody else to hold");
        assert_eq!(story.at(1, 975), []);
        assert_eq!(story.at(1, 975), [Output::Release(PeerId(2))]);
    }

    #[test]
    fn nobody_is_blamed_for_memory_that_no_path_takes() {
        let mut story = Story::new(&[0, 0]);
        assert_eq!(story.at(0, 2000), []);
        assert_eq!(story.guard.pace(2000 * MIB), Duration::from_millis(50));
        assert_eq!(story.guard.pace(800 * MIB), Duration::from_millis(400));
        assert_eq!(story.guard.pace(100 * MIB), Duration::from_secs(1));
    }
}
