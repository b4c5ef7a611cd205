//! Which CalicoNodeStatus is to be filled when. A machine: it sees no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::calico::NodeStatus;
use crate::datastore::Asked;

/// The pause after a write that failed; doubled with each further one, …
const PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What came of filling one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It says what is true, or is not there any more.
    Well,
    /// It could not be written.
    Failed,
}

#[derive(Debug)]
struct Entry {
    wanted: NodeStatus,
    /// None: not before it changes.
    due: Option<Instant>,
    failures: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<String, Entry>,
}

impl Schedule {
    /// What is asked from now on: what is new or has changed is due at once.
    pub fn ask(&mut self, now: Instant, asked: &Asked) {
        self.entries.retain(|name, _| asked.contains_key(name));
        for (name, wanted) in asked {
            if self.entries.get(name).is_none_or(|entry| entry.wanted != *wanted) {
                self.entries.insert(name.clone(), Entry { wanted: wanted.clone(), due: Some(now), failures: 0 });
            }
        }
    }

    /// When the next one is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// The one that has been due longest.
    pub fn next(&self, now: Instant) -> Option<(&str, &NodeStatus)> {
        let due = self.entries.iter().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now));
        due.min_by_key(|(_, entry)| entry.due).map(|(name, entry)| (name.as_str(), &entry.wanted))
    }

    /// It was tried.
    pub fn tried(&mut self, now: Instant, name: &str, ended: Ended) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        match ended {
            Ended::Well => {
                entry.failures = 0;
                entry.due = entry.wanted.period.map(|seconds| now + Duration::from_secs(seconds.into()));
            }
            Ended::Failed => {
                let pause = PAUSE.saturating_mul(1 << entry.failures.min(20)).min(LONGEST_PAUSE);
                entry.failures += 1;
                entry.due = Some(now + pause);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn asked(objects: &[(&str, u32)]) -> Asked {
        let status = |period: u32| NodeStatus { node: "a".to_owned(), classes: BTreeSet::new(), period: Some(period).filter(|s| *s != 0) };
        objects.iter().map(|(name, period)| ((*name).to_owned(), status(*period))).collect()
    }

    fn due(schedule: &Schedule, now: Instant) -> Option<String> {
        schedule.next(now).map(|(name, _)| name.to_owned())
    }

    #[test]
    fn at_once_then_every_period_then_as_it_is_asked() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.ask(start, &asked(&[("mine", 10), ("once", 0)]));
        assert_eq!(due(&schedule, start).as_deref(), Some("mine"));
        schedule.tried(start, "mine", Ended::Well);
        assert_eq!(due(&schedule, start).as_deref(), Some("once"));
        schedule.tried(start, "once", Ended::Well);
        assert_eq!((due(&schedule, at(9)), schedule.deadline()), (None, Some(at(10))));
        assert_eq!(due(&schedule, at(10)).as_deref(), Some("mine"));
        schedule.tried(at(10), "mine", Ended::Well);
        // The same again changes nothing; another period counts at once; what is gone is forgotten.
        schedule.ask(at(11), &asked(&[("mine", 10), ("once", 0)]));
        assert_eq!(schedule.deadline(), Some(at(20)));
        schedule.ask(at(11), &asked(&[("mine", 60), ("once", 0)]));
        assert_eq!(due(&schedule, at(11)).as_deref(), Some("mine"));
        schedule.ask(at(12), &asked(&[("once", 0)]));
        schedule.tried(at(12), "mine", Ended::Failed);
        assert_eq!(schedule.deadline(), None);
    }

    #[test]
    fn a_write_that_fails_is_tried_ever_later() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.ask(start, &asked(&[("mine", 0)]));
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..11 {
            schedule.tried(now, "mine", Ended::Failed);
            let next = schedule.deadline().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        schedule.tried(now, "mine", Ended::Well);
        assert_eq!(schedule.deadline(), None);
        schedule.ask(now, &asked(&[("mine", 5)]));
        schedule.tried(now, "mine", Ended::Failed);
        assert_eq!(schedule.deadline(), Some(now + PAUSE), "it begins anew");
    }
}
