//! Writes that the kernel refused: when to try again, and the errno in words (protocol statement Q16).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(60);

/// "File exists": the key is taken.
pub(super) const EEXIST: i32 = 17;
/// "Invalid argument": also that there is no such next-hop object.
pub(super) const EINVAL: i32 = 22;
/// "Operation not supported": also that the kernel has no next-hop objects.
pub(super) const EOPNOTSUPP: i32 = 95;
/// "No such process": netlink's word for a route that is not there.
pub(super) const ESRCH: i32 = 3;

/// What a failure calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// May pass by itself: tried again after 1, 2, … 60 seconds, and at once when an interface or address appears.
    Retry,
    /// Somebody else's route is in the way: tried again when it goes.
    Conflict,
    /// Nothing will help but an operator; tried again every minute.
    Fatal,
}

/// The class of an errno and its meaning for a route.
pub(super) fn explain(errno: i32) -> (Class, String) {
    let (class, words) = match errno {
        1 | 13 => (Class::Fatal, "margay may not change routes (EPERM): give it CAP_NET_ADMIN"),
        3 => (Class::Retry, "the route to change is not there (ESRCH)"),
        11 => (Class::Retry, "the kernel was busy (EAGAIN)"),
        12 => (Class::Retry, "the kernel has no memory left for routes (ENOMEM); for IPv6 see net.ipv6.route.max_size"),
        EEXIST => (Class::Conflict, "a route of the same prefix and metric is there already (EEXIST)"),
        19 => (Class::Retry, "the interface does not exist (ENODEV)"),
        22 => (Class::Retry, "the kernel finds the route invalid (EINVAL): the gateway may be one of our own addresses"),
        95 | 97 => (Class::Fatal, "this kernel does not know such routes (EOPNOTSUPP): is the family switched off?"),
        100 => (Class::Retry, "the interface is down (ENETDOWN)"),
        101 => (Class::Retry, "the gateway is on no subnet of the interface (ENETUNREACH)"),
        105 => (Class::Retry, "the kernel's answer was lost (ENOBUFS)"),
        113 => (Class::Retry, "the gateway cannot be reached over the interface (EHOSTUNREACH)"),
        _ => return (Class::Retry, format!("the kernel refused it (errno {errno})")),
    };
    (class, words.to_owned())
}

/// The last failure of a prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub errno: i32,
    attempts: u32,
    due: Instant,
}

/// Failures by prefix and by the time of the next attempt.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_prefix: BTreeMap<IpNet, Failure>,
    due: BTreeSet<(Instant, IpNet)>,
}

impl Failures {
    /// A write failed. Whether that is news: the last attempt did not fail for the same reason.
    pub(super) fn add(&mut self, now: Instant, prefix: IpNet, errno: i32) -> bool {
        let before = self.remove(&prefix);
        let attempts = before.map_or(0, |failure| failure.attempts);
        let pause = match explain(errno).0 {
            Class::Retry | Class::Conflict => LONGEST.min(Duration::from_secs(1 << attempts.min(6))),
            Class::Fatal => LONGEST,
        };
        let failure = Failure { errno, attempts: attempts + 1, due: now + pause };
        self.by_prefix.insert(prefix, failure);
        self.due.insert((failure.due, prefix));
        before.is_none_or(|before| before.errno != errno)
    }

    /// Success, or another route is wanted: the past is forgotten.
    pub(super) fn remove(&mut self, prefix: &IpNet) -> Option<Failure> {
        let failure = self.by_prefix.remove(prefix)?;
        self.due.remove(&(failure.due, *prefix));
        Some(failure)
    }

    pub(super) fn get(&self, prefix: &IpNet) -> Option<&Failure> {
        self.by_prefix.get(prefix)
    }

    /// The prefix failed and its pause is not over.
    pub(super) fn is_waiting(&self, prefix: &IpNet) -> bool {
        self.by_prefix.get(prefix).is_some_and(|failure| self.due.contains(&(failure.due, *prefix)))
    }

    /// When the next pause is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Those whose pause is over; their count of attempts stays.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<IpNet> {
        let mut due = Vec::new();
        while let Some((at, prefix)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, prefix));
            due.push(prefix);
        }
        due
    }

    /// Something changed that may help all of them: their pauses are over.
    pub(super) fn take_all(&mut self) -> Vec<IpNet> {
        std::mem::take(&mut self.due).into_iter().map(|(_, prefix)| prefix).collect()
    }

    /// Takes out those of one errno.
    pub(super) fn remove_errno(&mut self, errno: i32) -> Vec<IpNet> {
        let prefixes: Vec<_> = self.by_prefix.iter().filter(|(_, f)| f.errno == errno).map(|(prefix, _)| *prefix).collect();
        for prefix in &prefixes {
            self.remove(prefix);
        }
        prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q16_pauses_double_up_to_a_minute() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning")]
        let mut now = Instant::now();
        let (prefix, mut failures, mut pauses) = ("10.0.0.0/8".parse().unwrap(), Failures::default(), vec![]);
        for _ in 0..8 {
            failures.add(now, prefix, 101);
            assert!(failures.is_waiting(&prefix));
            let due = failures.deadline().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
            assert_eq!(failures.take_due(now), [prefix]);
            assert!(!failures.is_waiting(&prefix));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        failures.remove(&prefix);
        assert_eq!(failures.deadline(), None);
    }

    #[test]
    fn errors_are_classed_and_named() {
        for (errno, class, word) in [
            (1, Class::Fatal, "CAP_NET_ADMIN"),
            (EEXIST, Class::Conflict, "EEXIST"),
            (101, Class::Retry, "ENETUNREACH"),
            (77, Class::Retry, "errno 77"),
        ] {
            let (is, words) = explain(errno);
            assert!(is == class && words.contains(word), "{errno}: {words}");
        }
    }
}
