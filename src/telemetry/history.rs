//! The bounded memory of what has happened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use serde::Serialize;

use super::{Event, Subject};

/// Events that are remembered at most.
const ENTRIES: usize = 4096;
/// Octets that they may take together, roughly.
const WEIGHT: usize = 4 * 1024 * 1024;

/// One remembered event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Number of the event since the daemon's start, from 1. Gaps are never made: what was forgotten is the oldest.
    pub number: u64,
    /// When; the caller knows the wall clock.
    #[serde(skip)]
    pub at: Instant,
    /// How often it happened again since, with nothing else about the same peer in between: a peer that stays
    /// unreachable is one entry.
    pub repeated: u64,
    /// When it last happened again.
    #[serde(skip)]
    pub last: Instant,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Which events are asked for; all that are given must fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Not before this moment.
    pub since: Option<Instant>,
    /// Only of this session.
    pub peer: Option<String>,
    /// Only of this prefix and those inside it.
    pub prefix: Option<IpNet>,
    /// Only with a greater number.
    pub after: Option<u64>,
}

impl Filter {
    /// Whether it asks for this one. A filter by peer or by prefix leaves out what concerns the node as a whole.
    pub fn wants(&self, entry: &Entry) -> bool {
        let subject = match (&self.peer, self.prefix, entry.event.subject()) {
            (None, None, _) => true,
            (Some(wanted), _, Subject::Peer(peer)) => wanted == peer,
            (_, Some(wanted), Subject::Prefix(prefix)) => wanted.contains(&prefix),
            _ => false,
        };
        subject && self.since.is_none_or(|since| entry.last >= since) && self.after.is_none_or(|number| entry.number > number)
    }
}

/// The newest events, oldest first.
#[derive(Debug, Default)]
pub struct History {
    entries: VecDeque<Arc<Entry>>,
    weight: usize,
    told: u64,
}

impl History {
    /// Remembers an event, and forgets the oldest where it must. Returns the entry, unless the event only repeats
    /// what was said last about its peer.
    pub fn tell(&mut self, now: Instant, event: Event) -> Option<Arc<Entry>> {
        if self.repeats(now, &event) {
            return None;
        }
        self.told += 1;
        self.weight += event.weight();
        let entry = Arc::new(Entry { number: self.told, at: now, repeated: 0, last: now, event });
        self.entries.push_back(Arc::clone(&entry));
        while self.entries.len() > ENTRIES || self.weight > WEIGHT {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.weight -= oldest.event.weight();
        }
        Some(entry)
    }

    /// What is remembered and asked for, oldest first.
    pub fn select<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.entries.iter().filter(|entry| filter.wants(entry))
    }

    /// Counts a failure of a peer that is the same as the last thing that happened to it.
    fn repeats(&mut self, now: Instant, event: &Event) -> bool {
        let Event::Down { peer, .. } = event else { return false };
        let mut of_peer = self.entries.iter_mut().rev().filter(|entry| entry.event.subject() == Subject::Peer(peer));
        let Some(last) = of_peer.next().filter(|last| last.event == *event) else { return false };
        let counted = Entry { repeated: last.repeated + 1, last: now, ..Entry::clone(last) };
        *last = Arc::new(counted);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::{DownReason, Party, State};

    fn start() -> Instant {
        // A test's zero: machines only ever compare instants.
        #[expect(clippy::disallowed_methods, reason = "some first instant is needed")]
        Instant::now()
    }

    fn refused(peer: &str) -> Event {
        let reason = DownReason { by: Party::Transport, code: 0, subcode: 0, text: "connection refused".into() };
        Event::Down { peer: peer.into(), reason }
    }

    fn up(peer: &str) -> Event {
        Event::State { peer: peer.into(), from: State::OpenConfirm, to: State::Established }
    }

    fn numbers(history: &History, filter: &Filter) -> Vec<u64> {
        history.select(filter).map(|entry| entry.number).collect()
    }

    #[test]
    fn a_peer_that_stays_unreachable_is_one_entry() {
        let (now, mut history) = (start(), History::default());
        assert!(history.tell(now, refused("a")).is_some());
        for second in 1..=5 {
            let at = now + Duration::from_secs(second);
            history.tell(at, refused("b"));
            assert_eq!(history.tell(at, refused("a")), None);
        }
        let downs: Vec<_> = history.select(&Filter::default()).map(|entry| (entry.number, entry.repeated)).collect();
        assert_eq!(downs, [(1, 5), (2, 4)]);
    }

    #[test]
    fn the_same_failure_after_a_session_is_news() {
        let (now, mut history) = (start(), History::default());
        history.tell(now, refused("a"));
        history.tell(now, up("a"));
        assert!(history.tell(now, refused("a")).is_some());
    }

    #[test]
    fn filters_by_peer_prefix_time_and_number() {
        let (now, mut history) = (start(), History::default());
        let later = now + Duration::from_secs(60);
        let kernel = |prefix: &str| Event::KernelRefused { prefix: prefix.parse().unwrap(), errno: 101, text: "no gateway".into() };
        history.tell(now, refused("a"));
        history.tell(now, kernel("10.0.0.0/26"));
        history.tell(later, refused("b"));
        history.tell(later, kernel("10.1.0.0/26"));
        history.tell(later, Event::RestartOver);
        let filter = |peer: Option<&str>, prefix: Option<&str>| Filter {
            peer: peer.map(Into::into),
            prefix: prefix.map(|p| p.parse().unwrap()),
            ..Filter::default()
        };
        assert_eq!(numbers(&history, &Filter::default()), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(&history, &filter(Some("b"), None)), [3]);
        assert_eq!(numbers(&history, &filter(None, Some("10.0.0.0/16"))), [2]);
        assert_eq!(numbers(&history, &filter(Some("a"), Some("10.1.0.0/26"))), [1, 4], "either subject");
        assert_eq!(numbers(&history, &Filter { since: Some(later), ..Filter::default() }), [3, 4, 5]);
        assert_eq!(numbers(&history, &Filter { after: Some(4), ..Filter::default() }), [5]);
    }

    #[test]
    fn memory_is_bounded_by_number_and_by_weight() {
        let (now, mut history) = (start(), History::default());
        for _ in 0..ENTRIES + 10 {
            history.tell(now, Event::KernelResync);
        }
        assert_eq!(history.entries.len(), ENTRIES);
        assert_eq!(history.entries[0].number, 11, "the oldest are forgotten");
        let message = "ff".repeat(4096);
        for _ in 0..2 * WEIGHT / message.len() {
            history.tell(now, Event::Fault { peer: "a".into(), text: String::new(), message: message.clone() });
        }
        assert!(history.weight <= WEIGHT);
        assert_eq!(history.weight, history.entries.iter().map(|entry| entry.event.weight()).sum::<usize>());
    }
}
