//! Who has what: for each receiver the prefixes that it holds, what it took to get there, and whether all are where they should be.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use margay::types::Asn;

use super::said::Said;

/// When a receiver has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// It holds every prefix that it should.
    Full,
    /// It holds every prefix, by the path that is best.
    Right,
    /// It holds nothing.
    Empty,
}

/// What a receiver is to hear, as numbers of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// All that it is to hear, but for what follows.
    pub all: Range<u32>,
    /// What it says itself: it is not told that.
    pub own: Range<u32>,
}

impl Wants {
    fn count(&self) -> usize {
        self.all.len() - if self.all.contains(&self.own.start) { self.own.len() } else { 0 }
    }
}

/// What one receiver has heard.
#[derive(Clone, Debug)]
struct Receiver {
    wants: Wants,
    held: Vec<u64>,
    holds: usize,
    right: Vec<u64>,
    is_right: usize,
    arrived: bool,
}

/// Sums over all receivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// UPDATE messages.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// Prefixes announced.
    pub announced: u64,
    /// Of these, prefixes that the receiver held already.
    pub again: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
}

/// All receivers of a run.
#[derive(Debug)]
pub struct Meter {
    /// By prefix: the AS that the best path comes from.
    best: Arc<[Asn]>,
    receivers: Vec<Receiver>,
    goal: Goal,
    /// Receivers that count: the others have not connected yet.
    counted: usize,
    away: usize,
    heard: Heard,
    last: Option<Instant>,
    sent: Vec<Option<Instant>>,
    latencies: Vec<f64>,
    silence: Duration,
}

impl Meter {
    /// Receivers of so many prefixes, and what each is to hear. `best`: by prefix the AS whose path is to win, if that is checked.
    pub fn new(prefixes: usize, best: Arc<[Asn]>, wants: Vec<Wants>) -> Self {
        let words = prefixes.div_ceil(64);
        let right = if best.is_empty() { 0 } else { words };
        let receiver = |wants| Receiver { wants, held: vec![0; words], holds: 0, right: vec![0; right], is_right: 0, arrived: false };
        Self {
            sent: vec![None; prefixes],
            best,
            receivers: wants.into_iter().map(receiver).collect(),
            goal: Goal::Full,
            counted: 0,
            away: 0,
            heard: Heard::default(),
            last: None,
            latencies: Vec::new(),
            silence: Duration::ZERO,
        }
    }

    /// From here on the first `counted` receivers are to reach `goal`.
    pub fn aim(&mut self, goal: Goal, counted: usize) {
        (self.goal, self.counted, self.away) = (goal, counted, 0);
        for at in 0..self.receivers.len() {
            let arrived = self.has_arrived(at);
            self.receivers[at].arrived = arrived;
            self.away += usize::from(at < counted && !arrived);
        }
        self.heard = Heard::default();
        self.last = None;
        self.latencies.clear();
        self.silence = Duration::ZERO;
    }

    /// All are to hear everything anew: what they hold counts no more.
    pub fn forget(&mut self) {
        for receiver in &mut self.receivers {
            receiver.held.fill(0);
            receiver.right.fill(0);
            (receiver.holds, receiver.is_right) = (0, 0);
        }
    }

    /// A session has heard something after so long a silence.
    pub fn break_silence(&mut self, silence: Duration) {
        self.silence = self.silence.max(silence);
    }

    /// The longest silence of a session since the goal was set.
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// Receivers that have not reached the goal.
    pub fn away(&self) -> usize {
        self.away
    }

    /// How many prefixes the first receiver holds.
    pub fn first_holds(&self) -> usize {
        self.receivers.first().map_or(0, |receiver| receiver.holds)
    }

    /// What all have heard since the goal was set.
    pub fn heard(&self) -> Heard {
        self.heard
    }

    /// When something was heard last.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// A change of this prefix has been sent now; it is heard when the first receiver hears it.
    pub fn stamp(&mut self, prefix: u32, now: Instant) {
        self.sent[prefix as usize] = Some(now);
    }

    /// Changes that were sent and not heard.
    pub fn unheard(&self) -> usize {
        self.sent.iter().flatten().count()
    }

    /// Milliseconds from sending to hearing, in order.
    pub fn latencies(&self) -> Vec<f64> {
        let mut all = self.latencies.clone();
        all.sort_by(f64::total_cmp);
        all
    }

    /// A receiver has heard an UPDATE of so many octets.
    pub fn hear(&mut self, receiver: usize, said: &Said, octets: usize, now: Instant) {
        if !said.any {
            return;
        }
        self.heard.messages += 1;
        self.heard.octets += octets as u64;
        self.last = Some(now);
        // A reflector need not keep a client's routes from it: the client knows them by their originator.
        let own = self.receivers[receiver].wants.own.clone();
        for number in said.withdrawn.iter().filter(|number| !own.contains(number)) {
            self.lose(receiver, *number);
        }
        for (from, numbers) in &said.announced {
            for number in numbers.iter().filter(|number| !own.contains(number)) {
                self.gain(receiver, *number, *from, now);
            }
        }
        let arrived = self.has_arrived(receiver);
        if std::mem::replace(&mut self.receivers[receiver].arrived, arrived) != arrived && receiver < self.counted {
            self.away = if arrived { self.away - 1 } else { self.away + 1 };
        }
    }

    fn gain(&mut self, receiver: usize, number: u32, from: Option<Asn>, now: Instant) {
        let Receiver { held, holds, right, is_right, .. } = &mut self.receivers[receiver];
        let new = put(held, number, true);
        *holds += usize::from(new);
        self.heard.announced += 1;
        self.heard.again += u64::from(!new);
        if !right.is_empty() {
            let good = from == self.best.get(number as usize).copied();
            if put(right, number, good) {
                *is_right = if good { *is_right + 1 } else { *is_right - 1 };
            }
        }
        if receiver != 0 {
            return;
        }
        if let Some(sent) = self.sent[number as usize].take() {
            self.latencies.push(now.duration_since(sent).as_secs_f64() * 1e3);
        }
    }

    fn lose(&mut self, receiver: usize, number: u32) {
        self.heard.withdrawn += 1;
        let Receiver { held, holds, right, is_right, .. } = &mut self.receivers[receiver];
        *holds -= usize::from(put(held, number, false));
        if !right.is_empty() {
            *is_right -= usize::from(put(right, number, false));
        }
    }

    fn has_arrived(&self, at: usize) -> bool {
        let receiver = &self.receivers[at];
        let all = receiver.wants.count();
        match self.goal {
            Goal::Full => receiver.holds == all,
            Goal::Right => receiver.is_right == all,
            Goal::Empty => receiver.holds == 0,
        }
    }
}

/// Sets or clears a bit; answers whether it was otherwise.
fn put(bits: &mut [u64], number: u32, on: bool) -> bool {
    let (word, bit) = (&mut bits[number as usize / 64], 1 << (number % 64));
    let was = *word & bit != 0;
    *word = if on { *word | bit } else { *word & !bit };
    was != on
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(prefixes: &[u32], from: u32) -> Said {
        Said { announced: vec![(Some(Asn(from)), prefixes.to_vec())], any: true, ..Said::default() }
    }

    fn withdrawn(prefixes: &[u32]) -> Said {
        Said { withdrawn: prefixes.to_vec(), any: true, ..Said::default() }
    }

    #[test]
    fn receivers_arrive_when_they_hold_exactly_what_they_should() {
        let now = Instant::now();
        let wants = |own| Wants { all: 0..3, own };
        let mut meter = Meter::new(3, [Asn(1), Asn(2), Asn(3)].into(), vec![wants(0..1), wants(0..0)]);
        meter.aim(Goal::Full, 2);
        assert_eq!(meter.away(), 2);
        meter.hear(0, &announced(&[1, 2], 9), 60, now);
        assert_eq!((meter.away(), meter.heard().messages, meter.heard().announced), (1, 1, 2));
        meter.hear(0, &announced(&[0], 9), 60, now);
        assert_eq!((meter.away(), meter.heard().messages), (1, 2), "its own");
        meter.hear(0, &Said::default(), 4, now);
        assert_eq!(meter.heard().messages, 2, "an end of RIB");
        meter.hear(1, &announced(&[0, 1, 2], 2), 60, now);
        assert_eq!(meter.away(), 0);
        meter.aim(Goal::Right, 2);
        assert_eq!(meter.away(), 2);
        for (prefix, from) in [(0, 1), (2, 3)] {
            meter.hear(1, &announced(&[prefix], from), 60, now);
        }
        assert_eq!((meter.away(), meter.heard().again), (1, 2));
        meter.hear(1, &announced(&[2], 1), 60, now);
        assert_eq!(meter.away(), 2, "a worse path came");
        meter.aim(Goal::Empty, 2);
        meter.hear(0, &withdrawn(&[1, 2]), 60, now);
        assert_eq!((meter.away(), meter.heard().withdrawn), (1, 2));
    }

    #[test]
    fn a_change_is_timed_from_sending_to_hearing() {
        let now = Instant::now();
        let wants = || Wants { all: 0..1, own: 0..0 };
        let mut meter = Meter::new(1, [].into(), vec![wants(), wants()]);
        meter.aim(Goal::Full, 1);
        meter.stamp(0, now);
        meter.hear(1, &announced(&[0], 1), 60, now);
        assert_eq!(meter.unheard(), 1, "only the first receiver's ears count");
        meter.hear(0, &announced(&[0], 1), 60, now + Duration::from_millis(3));
        assert_eq!((meter.unheard(), meter.latencies()), (0, vec![3.0]));
        meter.aim(Goal::Full, 2);
        assert_eq!((meter.away(), meter.latencies()), (0, vec![]));
        meter.forget();
        meter.aim(Goal::Full, 2);
        assert_eq!(meter.away(), 2, "to hear it anew");
    }
}
