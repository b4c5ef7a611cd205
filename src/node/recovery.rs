//! Recovery machine: after our own restart, how long learned routes are held back and routes of a past life are
//! kept (RFC 4724 section 4.1).
//!
//! A peer is waited for until, in every family of its session, it has sent End-of-RIB; or it came up without
//! graceful restart; or it has not come up within [`COME_UP`]. One that refuses, cannot be reached, or is lost again is given
//! [`PATIENCE`] from then: a speaker that starts together with us is often there a moment later, and comes to be waited for
//! again. One that says that it restarts itself is given [`THEIR_RESTART`]: it may wait for our End-of-RIB as we for its own (two
//! nodes back from one power cut), but FRR says so for two minutes after each start, and tells its routes a second after the
//! session has come up all the same. Nobody is waited for beyond [`DEFERRAL`]. With `keep_without_peers` the end is put off
//! until some peer has come up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::session::SessionFacts;
use crate::types::{Family, Outbox, PeerId, PerFamily};

/// How long a peer may take to come up before it is no longer waited for.
pub const COME_UP: Duration = Duration::from_secs(120);
/// How long a peer may take to come (back) after a failed attempt, or after its session was lost. GoBGP closes every connection for
/// 5 s after it has lost a session, and our next attempt may come 5 s after that.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long a peer that restarts itself may take to send End-of-RIB.
pub const THEIR_RESTART: Duration = Duration::from_secs(5);
/// Selection deferral: the longest wait altogether.
pub const DEFERRAL: Duration = Duration::from_secs(360);

/// What the Recovery machine hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// The peers configured at start; given once. Empty means: wait for nobody.
    Start(Vec<PeerId>),
    /// A session is Established.
    Up(Arc<SessionFacts>),
    /// A session or an attempt failed: the peer is given a moment.
    Failed(PeerId),
    /// The peer was removed: it is no longer waited for.
    Removed(PeerId),
    /// A peer's End-of-RIB.
    EndOfRib(PeerId, Family),
}

/// What the Recovery machine says, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send learned routes on, clear R, sweep the kernel.
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Recovery {
    state: State,
    /// Wait for a first peer, however long that takes.
    keep_without_peers: bool,
    /// Some session has been Established.
    seen: bool,
}

#[derive(Debug)]
enum State {
    /// `Start` has not been heard; whether the kernel holds routes of a past life.
    Starting {
        restarting: bool,
    },
    Waiting {
        waited_for: BTreeMap<PeerId, Wait>,
        give_up_absent: Instant,
        give_up: Instant,
    },
    Done,
}

#[derive(Debug)]
enum Wait {
    ToComeUp,
    /// It has failed; until when it may come back.
    Failing(Instant),
    /// Families whose End-of-RIB is missing, and until when it may come.
    ForEndOfRib(PerFamily<bool>, Instant),
}

impl Recovery {
    /// `restarting`: the kernel holds routes of a past life. Otherwise there is nothing to wait for, and `Start` ends it.
    /// With `keep_without_peers` that wait lasts at least until a session is Established, unless there are no peers at all.
    pub fn new(restarting: bool, keep_without_peers: bool) -> Self {
        Self { state: State::Starting { restarting }, keep_without_peers, seen: false }
    }

    /// Whether it is over.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Peers still waited for.
    pub fn waited_for(&self) -> Vec<PeerId> {
        match &self.state {
            State::Waiting { waited_for, .. } => waited_for.keys().copied().collect(),
            State::Starting { .. } | State::Done => Vec::new(),
        }
    }

    /// When nobody is waited for any more.
    pub fn give_up(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { give_up, .. } => Some(*give_up),
            State::Starting { .. } | State::Done => None,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        match (&mut self.state, input) {
            (State::Starting { restarting }, Input::Start(peers)) => {
                let peers = if *restarting { peers } else { Vec::new() };
                self.seen = peers.is_empty();
                let waited_for = peers.into_iter().map(|peer| (peer, Wait::ToComeUp)).collect();
                self.state = State::Waiting { waited_for, give_up_absent: now + COME_UP, give_up: now + DEFERRAL };
            }
            (State::Waiting { waited_for, give_up, .. }, input) => {
                self.seen |= matches!(input, Input::Up(_));
                wait_otherwise(now, *give_up, waited_for, input);
            }
            (State::Starting { .. } | State::Done, _) => {}
        }
        self.finish_if_alone(out);
    }

    /// When to call [`Recovery::on_deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { waited_for, give_up_absent, give_up } => {
                let due = waited_for.values().map(|wait| match wait {
                    Wait::ToComeUp => *give_up_absent,
                    Wait::Failing(until) | Wait::ForEndOfRib(_, until) => *until,
                });
                due.min().map(|due| due.min(*give_up))
            }
            State::Starting { .. } | State::Done => None,
        }
    }

    /// Stops waiting for those whose time is up.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if let State::Waiting { waited_for, give_up_absent, give_up } = &mut self.state {
            waited_for.retain(|_, wait| match wait {
                _ if now >= *give_up => false,
                Wait::ToComeUp => now < *give_up_absent,
                Wait::Failing(until) | Wait::ForEndOfRib(_, until) => now < *until,
            });
        }
        self.finish_if_alone(out);
    }

    fn finish_if_alone(&mut self, out: &mut Outbox<Output>) {
        let held = self.keep_without_peers && !self.seen;
        if !held && matches!(&self.state, State::Waiting { waited_for, .. } if waited_for.is_empty()) {
            self.state = State::Done;
            out.push(Output::Done);
        }
    }
}

fn wait_otherwise(now: Instant, give_up: Instant, waited_for: &mut BTreeMap<PeerId, Wait>, input: Input) {
    match input {
        Input::Start(_) => {}
        Input::Failed(peer) => {
            if let Some(wait) = waited_for.get_mut(&peer)
                && !matches!(wait, Wait::Failing(_))
            {
                *wait = Wait::Failing(now + PATIENCE);
            }
        }
        Input::Removed(peer) => {
            waited_for.remove(&peer);
        }
        // Also one that had been given up: while others are waited for, so may be this one.
        Input::Up(facts) => match &facts.graceful_restart {
            // A helper-only peer lists no families (BIRD's "aware" mode) and sends the marker all the same.
            Some(theirs) => {
                let until = if theirs.restarting { now + THEIR_RESTART } else { give_up };
                waited_for.insert(facts.peer, Wait::ForEndOfRib(facts.context.families, until));
            }
            None => drop(waited_for.remove(&facts.peer)),
        },
        Input::EndOfRib(peer, family) => {
            let Some(Wait::ForEndOfRib(missing, _)) = waited_for.get_mut(&peer) else { return };
            if let Some(missing) = missing.of_mut(family) {
                *missing = false;
            }
            if missing.is_empty() {
                waited_for.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(recovery: &mut Recovery, now: Instant, input: Input) -> Vec<Output> {
        let mut out = Outbox::new();
        recovery.handle(now, input, &mut out);
        out.drain().collect()
    }

    fn start() -> Instant {
        // A test's zero: machines only ever compare instants.
        #[expect(clippy::disallowed_methods, reason = "some first instant is needed")]
        Instant::now()
    }

    fn later(recovery: &mut Recovery, now: Instant) -> Vec<Output> {
        let mut out = Outbox::new();
        recovery.on_deadline(now, &mut out);
        out.drain().collect()
    }

    /// Peer `n` is up in IPv4, with graceful restart or without, restarting itself or not.
    fn up(n: u32, graceful_restart: Option<bool>) -> Input {
        let facts = crate::session::sample::facts(n, graceful_restart);
        Input::Up(Arc::new(facts))
    }

    const ONE: PeerId = PeerId(1);
    const END_1: Input = Input::EndOfRib(ONE, Family::IPV4_UNICAST);

    #[test]
    fn nothing_to_adopt_nothing_to_wait_for() {
        let mut recovery = Recovery::new(false, true);
        assert_eq!(run(&mut recovery, start(), Input::Start(vec![])), [Output::Done]);
        assert_eq!(run(&mut recovery, start(), Input::Failed(ONE)), [], "said once");
        let mut recovery = Recovery::new(false, false);
        assert_eq!(run(&mut recovery, start(), Input::Start(vec![ONE])), [Output::Done]);
    }

    #[test]
    fn no_peers_is_over_at_once() {
        let mut recovery = Recovery::new(true, true);
        assert_eq!(run(&mut recovery, start(), Input::Start(vec![])), [Output::Done]);
    }

    /// Section 11, "we restarted", step 2: one row, one way for the wait for a peer to end.
    #[test]
    fn what_ends_the_wait_for_a_peer() {
        let rows: [(&str, Vec<Input>, Duration); 9] = [
            ("End-of-RIB", vec![up(1, Some(false)), END_1], Duration::ZERO),
            ("R in its OPEN, and End-of-RIB", vec![up(1, Some(true)), END_1], Duration::ZERO),
            ("R in its OPEN", vec![up(1, Some(true))], THEIR_RESTART),
            ("no graceful restart", vec![up(1, None)], Duration::ZERO),
            ("removed", vec![Input::Removed(ONE)], Duration::ZERO),
            ("refused or unreachable", vec![Input::Failed(ONE), Input::Failed(ONE)], PATIENCE),
            ("lost again", vec![up(1, Some(false)), Input::Failed(ONE)], PATIENCE),
            ("not there", vec![], COME_UP),
            ("no End-of-RIB", vec![up(1, Some(false))], DEFERRAL),
        ];
        for (name, inputs, after) in rows {
            let (start, mut recovery) = (start(), Recovery::new(true, false));
            assert_eq!(run(&mut recovery, start, Input::Start(vec![ONE])), []);
            let mut said: Vec<Output> = inputs.into_iter().flat_map(|input| run(&mut recovery, start, input)).collect();
            if !after.is_zero() {
                assert_eq!((said.len(), recovery.deadline()), (0, Some(start + after)), "{name}");
                assert_eq!(later(&mut recovery, start + after - Duration::from_millis(1)), [], "{name}");
                said = later(&mut recovery, start + after);
            }
            assert_eq!((said, recovery.is_done(), recovery.deadline()), (vec![Output::Done], true, None), "{name}");
        }
    }

    /// calico#7144, #2211, #9976, #6625, felix#1592: a restart waits for nobody who does not come.
    #[test]
    fn wish_02_calico_7144_one_slow_peer_holds_back_nobody_longer_than_it_may_and_one_that_comes_back_is_waited_for() {
        let (start, mut recovery) = (start(), Recovery::new(true, false));
        run(&mut recovery, start, Input::Start(vec![ONE, PeerId(2)]));
        run(&mut recovery, start, up(2, Some(false)));
        run(&mut recovery, start, Input::Failed(ONE));
        assert_eq!(later(&mut recovery, start + PATIENCE), []);
        assert_eq!(recovery.waited_for(), [PeerId(2)]);
        assert_eq!(run(&mut recovery, start + PATIENCE, up(1, Some(false))), []);
        assert_eq!(run(&mut recovery, start + PATIENCE, Input::EndOfRib(PeerId(2), Family::IPV4_UNICAST)), []);
        assert_eq!(run(&mut recovery, start + PATIENCE, END_1), [Output::Done]);
    }

    #[test]
    fn g2_without_peers_routes_stay_where_the_operator_wants_it() {
        let (start, mut recovery) = (start(), Recovery::new(true, true));
        run(&mut recovery, start, Input::Start(vec![ONE]));
        run(&mut recovery, start, Input::Failed(ONE));
        assert_eq!(later(&mut recovery, start + DEFERRAL), []);
        assert_eq!((recovery.is_done(), recovery.deadline()), (false, None));
        assert_eq!(run(&mut recovery, start + 2 * DEFERRAL, up(1, Some(false))), []);
        assert_eq!(run(&mut recovery, start + 2 * DEFERRAL, END_1), [Output::Done]);
    }
}
