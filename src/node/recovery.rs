//! Recovery machine: after our own restart, how long learned routes are held back and routes of a past life are
//! kept (RFC 4724 section 4.1).
//!
//! A peer is waited for until, in every family of its session, it has sent End-of-RIB; or it came up without
//! graceful restart, or restarting itself (two nodes back from one power cut do not wait for each other); or an
//! attempt to reach it failed; or it has not come up within [`COME_UP`]. Nobody is waited for beyond [`DEFERRAL`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::session::SessionFacts;
use crate::types::{Family, Outbox, PeerId, PerFamily};

/// How long a peer may take to come up before it is no longer waited for.
pub const COME_UP: Duration = Duration::from_secs(120);
/// Selection deferral: the longest wait altogether.
pub const DEFERRAL: Duration = Duration::from_secs(360);

/// What the Recovery machine hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// The peers configured at start; given once. Empty means: wait for nobody.
    Start(Vec<PeerId>),
    /// A session is Established.
    Up(Arc<SessionFacts>),
    /// A session or an attempt failed, or the peer was removed: it is no longer waited for.
    Failed(PeerId),
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
    /// Families whose End-of-RIB is missing.
    ForEndOfRib(PerFamily<bool>),
}

impl Recovery {
    /// `restarting`: the kernel holds routes of a past life. Otherwise there is nothing to wait for, and `Start` ends it.
    pub fn new(restarting: bool) -> Self {
        Self { state: State::Starting { restarting } }
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
                let waited_for = peers.into_iter().map(|peer| (peer, Wait::ToComeUp)).collect();
                self.state = State::Waiting { waited_for, give_up_absent: now + COME_UP, give_up: now + DEFERRAL };
            }
            (State::Waiting { waited_for, .. }, input) => wait_less(waited_for, input),
            (State::Starting { .. } | State::Done, _) => {}
        }
        self.finish_if_alone(out);
    }

    /// When to call [`Recovery::on_deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { waited_for, give_up_absent, give_up } => {
                let absent = waited_for.values().any(|wait| matches!(wait, Wait::ToComeUp));
                Some(if absent { *give_up_absent.min(give_up) } else { *give_up })
            }
            State::Starting { .. } | State::Done => None,
        }
    }

    /// Stops waiting for those whose time is up.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if let State::Waiting { waited_for, give_up_absent, give_up } = &mut self.state {
            if now >= *give_up_absent {
                waited_for.retain(|_, wait| !matches!(wait, Wait::ToComeUp));
            }
            if now >= *give_up {
                waited_for.clear();
            }
        }
        self.finish_if_alone(out);
    }

    fn finish_if_alone(&mut self, out: &mut Outbox<Output>) {
        if matches!(&self.state, State::Waiting { waited_for, .. } if waited_for.is_empty()) {
            self.state = State::Done;
            out.push(Output::Done);
        }
    }
}

fn wait_less(waited_for: &mut BTreeMap<PeerId, Wait>, input: Input) {
    match input {
        Input::Start(_) => {}
        Input::Failed(peer) => {
            waited_for.remove(&peer);
        }
        Input::Up(facts) => {
            if let Some(wait) = waited_for.get_mut(&facts.peer) {
                match expected(&facts) {
                    Some(families) => *wait = Wait::ForEndOfRib(families),
                    None => {
                        waited_for.remove(&facts.peer);
                    }
                }
            }
        }
        Input::EndOfRib(peer, family) => {
            let Some(Wait::ForEndOfRib(missing)) = waited_for.get_mut(&peer) else { return };
            if let Some(missing) = missing.of_mut(family) {
                *missing = false;
            }
            if missing.is_empty() {
                waited_for.remove(&peer);
            }
        }
    }
}

/// Families whose End-of-RIB can be expected: those in use, if the peer speaks graceful restart and is not restarting itself.
/// A helper-only peer lists no families (BIRD's "aware" mode) and sends the marker all the same.
fn expected(facts: &SessionFacts) -> Option<PerFamily<bool>> {
    let graceful_restart = facts.graceful_restart.as_ref()?;
    (!graceful_restart.restarting).then_some(facts.context.families)
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

    #[test]
    fn nothing_to_adopt_nothing_to_wait_for() {
        let mut recovery = Recovery::new(false);
        assert_eq!(run(&mut recovery, start(), Input::Start(vec![PeerId(1)])), [Output::Done]);
        assert_eq!(run(&mut recovery, start(), Input::Failed(PeerId(1))), [], "said once");
    }

    #[test]
    fn no_peers_is_over_at_once() {
        let mut recovery = Recovery::new(true);
        assert_eq!(run(&mut recovery, start(), Input::Start(vec![])), [Output::Done]);
    }

    #[test]
    fn failure_and_time_end_the_wait() {
        let start = start();
        let mut recovery = Recovery::new(true);
        assert_eq!(run(&mut recovery, start, Input::Start(vec![PeerId(1), PeerId(2)])), []);
        assert_eq!(run(&mut recovery, start, Input::Failed(PeerId(1))), []);
        assert_eq!(recovery.waited_for(), [PeerId(2)]);
        assert_eq!(recovery.deadline(), Some(start + COME_UP));
        let mut out = Outbox::new();
        recovery.on_deadline(start + COME_UP, &mut out);
        assert_eq!(out.as_slice(), [Output::Done]);
        assert!(recovery.is_done());
        assert_eq!(recovery.deadline(), None);
    }
}
