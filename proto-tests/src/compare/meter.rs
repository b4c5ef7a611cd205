//! Who has what: for each receiver the prefixes that it holds, what it took to get there, and whether all are where they should be.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use margay::types::{Asn, NlriList};
use margay::wire::Update;

use super::scenario::{TARGET, TARGET6};
use super::table::Index;

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
    index: Arc<Index>,
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
    /// Receivers of these prefixes, and what each is to hear. `best`: by prefix the AS whose path is to win, if that is checked.
    pub fn new(index: Arc<Index>, best: Arc<[Asn]>, wants: Vec<Wants>) -> Self {
        let words = index.len().div_ceil(64);
        let right = if best.is_empty() { 0 } else { words };
        let receiver = |wants| Receiver { wants, held: vec![0; words], holds: 0, right: vec![0; right], is_right: 0, arrived: false };
        Self {
            sent: vec![None; index.len()],
            index,
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
    ///
    /// # Errors
    /// It is of a prefix that nobody has told, or it has a fault.
    pub fn hear(&mut self, receiver: usize, update: &Update, octets: usize, now: Instant) -> Result<(), String> {
        if let Some(fault) = update.faults.first() {
            return Err(format!("an UPDATE is faulty: {fault:?}"));
        }
        if update.withdrawn.is_empty() && update.announced.is_empty() {
            return Ok(());
        }
        self.heard.messages += 1;
        self.heard.octets += octets as u64;
        self.last = Some(now);
        for list in &update.withdrawn {
            self.each(list, receiver, |meter, number| meter.lose(receiver, number))?;
        }
        for (attributes, list) in &update.announced {
            // On eBGP the first AS is the speaker's own.
            let from = attributes.as_path.asns().nth(1);
            self.each(list, receiver, |meter, number| meter.gain(receiver, number, from, now))?;
        }
        let arrived = self.has_arrived(receiver);
        if std::mem::replace(&mut self.receivers[receiver].arrived, arrived) != arrived && receiver < self.counted {
            self.away = if arrived { self.away - 1 } else { self.away + 1 };
        }
        Ok(())
    }

    fn each(&mut self, list: &NlriList, receiver: usize, mut f: impl FnMut(&mut Self, u32)) -> Result<(), String> {
        let one = |meter: &mut Self, prefix: IpNet, f: &mut dyn FnMut(&mut Self, u32)| match meter.index.find(prefix) {
            Some(number) => {
                // A reflector need not keep a client's routes from it: the client knows them by their originator.
                if !meter.receivers[receiver].wants.own.contains(&number) {
                    f(meter, number);
                }
                Ok(())
            }
            // Its own addresses are the speaker's to tell.
            None if prefix.addr() == IpAddr::from(TARGET) || is_loopback6(prefix) => Ok(()),
            None => Err(format!("nobody has told {prefix}")),
        };
        match list {
            NlriList::Ipv4(items) => items.iter().try_for_each(|item| one(self, item.prefix.into(), &mut f)),
            NlriList::Ipv6(items) => items.iter().try_for_each(|item| one(self, item.prefix.into(), &mut f)),
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

/// Of the loopback's addresses (`furnish`).
fn is_loopback6(prefix: IpNet) -> bool {
    matches!(prefix, IpNet::V6(prefix) if prefix.addr().segments()[0] == TARGET6.segments()[0])
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
    use std::sync::Arc;

    use margay::types::{AsPath, Attributes, Nlri, PathId};

    use super::*;

    fn update(prefixes: &[&str], from: Option<u32>) -> Update {
        let items = prefixes.iter().map(|prefix| Nlri { prefix: prefix.parse().unwrap(), path_id: PathId(0) }).collect();
        let list = NlriList::Ipv4(items);
        match from {
            Some(from) => {
                let path = AsPath::sequence([Asn(65000), Asn(from)]);
                let attributes = Arc::new(Attributes { as_path: path, ..Attributes::default() });
                Update { announced: vec![(attributes, list)], ..Update::default() }
            }
            None => Update { withdrawn: vec![list], ..Update::default() },
        }
    }

    #[test]
    fn receivers_arrive_when_they_hold_exactly_what_they_should() {
        let prefixes: Vec<IpNet> = ["10.0.0.0/26", "10.0.0.64/26", "20.0.0.0/24"].map(|prefix| prefix.parse().unwrap()).to_vec();
        let now = Instant::now();
        let index = Arc::new(Index::new(&prefixes));
        let wants = |own| Wants { all: 0..3, own };
        let mut meter = Meter::new(index, [Asn(1), Asn(2), Asn(3)].into(), vec![wants(0..1), wants(0..0)]);
        meter.aim(Goal::Full, 2);
        assert_eq!(meter.away(), 2);
        meter.hear(0, &update(&["10.0.0.64/26", "20.0.0.0/24"], Some(9)), 60, now).unwrap();
        assert_eq!((meter.away(), meter.heard().messages, meter.heard().announced), (1, 1, 2));
        meter.hear(0, &update(&["10.0.0.0/26"], Some(9)), 60, now).unwrap();
        assert_eq!((meter.away(), meter.heard().messages), (1, 2), "its own");
        assert!(meter.hear(1, &update(&["30.0.0.0/24"], Some(9)), 60, now).is_err(), "nobody's");
        meter.hear(1, &update(&["10.0.0.0/26", "10.0.0.64/26", "20.0.0.0/24"], Some(2)), 60, now).unwrap();
        assert_eq!(meter.away(), 0);
        meter.aim(Goal::Right, 2);
        assert_eq!(meter.away(), 2);
        for (prefix, from) in [("10.0.0.0/26", 1), ("20.0.0.0/24", 3)] {
            meter.hear(1, &update(&[prefix], Some(from)), 60, now).unwrap();
        }
        assert_eq!((meter.away(), meter.heard().again), (1, 2));
        meter.hear(1, &update(&["20.0.0.0/24"], Some(1)), 60, now).unwrap();
        assert_eq!(meter.away(), 2, "a worse path came");
        meter.aim(Goal::Empty, 2);
        meter.hear(0, &update(&["10.0.0.64/26", "20.0.0.0/24"], None), 60, now).unwrap();
        assert_eq!((meter.away(), meter.heard().withdrawn), (1, 2));
    }

    #[test]
    fn a_change_is_timed_from_sending_to_hearing() {
        let prefixes: Vec<IpNet> = vec!["20.0.0.0/24".parse().unwrap()];
        let now = Instant::now();
        let wants = || Wants { all: 0..1, own: 0..0 };
        let mut meter = Meter::new(Arc::new(Index::new(&prefixes)), [].into(), vec![wants(), wants()]);
        meter.aim(Goal::Full, 1);
        meter.stamp(0, now);
        meter.hear(1, &update(&["20.0.0.0/24"], Some(1)), 60, now).unwrap();
        assert_eq!(meter.unheard(), 1, "only the first receiver's ears count");
        meter.hear(0, &update(&["20.0.0.0/24"], Some(1)), 60, now + std::time::Duration::from_millis(3)).unwrap();
        assert_eq!((meter.unheard(), meter.latencies()), (0, vec![3.0]));
        meter.aim(Goal::Full, 2);
        assert_eq!((meter.away(), meter.latencies()), (0, vec![]));
        meter.forget();
        meter.aim(Goal::Full, 2);
        assert_eq!(meter.away(), 2, "to hear it anew");
    }
}
