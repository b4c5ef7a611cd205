//! Mark and sweep, the same for graceful restart, route refresh and every [`Sync`]: a mark is a new
//! epoch, so marking a million paths costs one addition; sweeping removes what was last told before it.

use std::collections::BTreeMap;

use crate::types::Sync;

/// When a source last told an entry, counted in its marks. The numbers go round like those of RFC 1982.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Epoch(u16);

impl Epoch {
    /// Whether this one is older.
    pub(super) fn is_before(self, other: Self) -> bool {
        (1..1 << 15).contains(&other.0.wrapping_sub(self.0))
    }

    /// The next one; never the first again, which stands for "nothing" in [`Renewal`].
    fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(1))
    }
}

/// How far one peer's telling of one family has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Renewal {
    now: Epoch,
    told: bool,
    stale: Epoch,
    refresh: Option<Epoch>,
}

impl Renewal {
    /// The mark of what is told now.
    pub(super) fn tell(&mut self) -> Epoch {
        self.told = true;
        self.now
    }

    /// Whether an entry last told then is of a session that has gone.
    pub(super) fn is_stale(&self, told: Epoch) -> bool {
        self.has_stale() && told.is_before(self.stale)
    }

    /// Whether anything may be stale.
    pub(super) fn has_stale(&self) -> bool {
        self.stale != Epoch(0)
    }

    /// The session was lost and what it told stays, stale; what was stale already stays so, unless the session has had it
    /// swept before (second loss while stale).
    pub(super) fn lose(&mut self) {
        self.refresh = None;
        self.stale = self.mark();
    }

    /// What is older than the answer is stale.
    pub(super) fn stale(&self) -> Option<Epoch> {
        self.has_stale().then_some(self.stale)
    }

    /// The session was lost and what it told goes: everything older than the answer.
    pub(super) fn forget(&mut self) -> Epoch {
        self.refresh = None;
        self.stale = Epoch(0);
        self.mark()
    }

    /// End-of-RIB, or nobody waits any longer: stale entries that were not renewed go.
    pub(super) fn settle(&mut self) -> Option<Epoch> {
        let gone = self.has_stale().then_some(self.stale);
        self.stale = Epoch(0);
        gone
    }

    /// BoRR: the table is told anew. Stale entries stay stale (G9). Twice marks again (R3).
    pub(super) fn begin(&mut self) {
        self.refresh = Some(self.mark());
    }

    /// EoRR: what was not told since BoRR goes. Without BoRR: nothing (R3).
    pub(super) fn end(&mut self) -> Option<Epoch> {
        self.refresh.take()
    }

    /// Later tellings are newer than earlier ones. What outlives a sweep was told after the mark that it was for, so no entry is older than a
    /// few marks; only a peer that marks and tells 2^15 times with no end confuses its own marks.
    fn mark(&mut self) -> Epoch {
        if std::mem::take(&mut self.told) {
            self.now = self.now.next();
        }
        self.now
    }
}

/// What one source says, by key, kept in step with its [`Sync`] words.
#[derive(Clone, Debug)]
pub(super) struct Told<K, V> {
    entries: BTreeMap<K, (V, bool)>,
    synced: bool,
}

impl<K: Ord + Clone, V: PartialEq> Told<K, V> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new(), synced: false }
    }

    /// Takes one word; `changed` hears each key whose value really is another now, with the value before.
    pub(super) fn apply(&mut self, word: Sync<K, V>, mut changed: impl FnMut(&K, Option<V>)) {
        match word {
            Sync::Begin => self.entries.values_mut().for_each(|(_, marked)| *marked = true),
            Sync::Upsert(key, value) => match self.entries.insert(key.clone(), (value, false)) {
                Some((old, _)) if self.get(&key) == Some(&old) => {}
                old => changed(&key, old.map(|(value, _)| value)),
            },
            Sync::Remove(key) => {
                if let Some((old, _)) = self.entries.remove(&key) {
                    changed(&key, Some(old));
                }
            }
            Sync::End => {
                self.synced = true;
                self.entries.extract_if(.., |_, (_, marked)| *marked).for_each(|(key, (old, _))| changed(&key, Some(old)));
            }
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Everything, in order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    /// Whether the whole table has been told once.
    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_refresh_sweeps_what_was_not_told_again() {
        let mut renewal = Renewal::default();
        let old = renewal.tell();
        assert_eq!(renewal.end(), None, "EoRR without BoRR");
        renewal.begin();
        let first = renewal.tell();
        renewal.begin();
        let new = renewal.tell();
        let floor = renewal.end().unwrap();
        assert!(old.is_before(floor) && first.is_before(floor) && !new.is_before(floor), "BoRR twice marks again");
    }

    #[test]
    fn g9_refresh_does_not_clear_stale() {
        let mut renewal = Renewal::default();
        let old = renewal.tell();
        renewal.lose();
        assert!(renewal.is_stale(old));
        renewal.begin();
        assert!(renewal.is_stale(old));
        let new = renewal.tell();
        assert!(!renewal.is_stale(new));
    }

    #[test]
    fn second_loss_marks_what_was_renewed_too() {
        let mut renewal = Renewal::default();
        let old = renewal.tell();
        renewal.lose();
        let new = renewal.clone().tell();
        renewal.tell();
        renewal.lose();
        assert!(renewal.is_stale(old) && renewal.is_stale(new));
        assert!(new.is_before(renewal.settle().unwrap()));
        assert_eq!(renewal.settle(), None);
    }

    #[test]
    fn marks_go_round() {
        let mut renewal = Renewal::default();
        for restart in 0..200_000 {
            let old = renewal.tell();
            renewal.lose();
            assert!(renewal.is_stale(old) && renewal.has_stale(), "restart {restart}");
            let new = renewal.tell();
            assert!(!renewal.is_stale(new));
            assert!(renewal.settle().is_some_and(|older| old.is_before(older) && !new.is_before(older)), "restart {restart}");
        }
    }

    #[test]
    fn a_relist_removes_what_is_not_told_again() {
        let mut told = Told::new();
        let mut changes = Vec::new();
        for word in [
            Sync::Upsert(1, 'a'),
            Sync::Upsert(2, 'b'),
            Sync::Begin,
            Sync::Upsert(1, 'a'),
            Sync::Upsert(3, 'c'),
            Sync::End,
            Sync::Remove(3),
            Sync::Remove(9),
        ] {
            told.apply(word, |key, old| changes.push((*key, old)));
        }
        assert_eq!(changes, [(1, None), (2, None), (3, None), (2, Some('b')), (3, Some('c'))]);
        assert_eq!(told.iter().collect::<Vec<_>>(), [(&1, &'a')]);
    }
}
