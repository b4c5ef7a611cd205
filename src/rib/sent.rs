//! What is sent of a route without being held: a set that is held anyway, and by number what a group makes of it.
//!
//! An entry of Adj-RIB-Out refers to both. What is sent is made anew when it is encoded or asked for, so memory holds one set for a
//! route that is received and sent on, not two. Two sets may become the same; whoever must know compares what they become.

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::attributes::Interner;
use super::rewrite::{Fields, Rewrite};
use crate::types::{Asn, Attributes};

/// Rewrites of a group in one family, at most. Where there would be more the others' sets are held as they are sent.
const MOST: usize = 1024;

/// What is sent of a route: a set that is held, and by its number what the group makes of it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub(super) held: Arc<Attributes>,
    pub(super) rewrite: RewriteId,
}

impl Sent {
    /// The same to look at.
    pub(super) fn as_seen(&self) -> Seen<'_> {
        Seen { held: &self.held, rewrite: self.rewrite }
    }
}

impl From<Arc<Attributes>> for Sent {
    /// A set that is sent as it is.
    fn from(held: Arc<Attributes>) -> Self {
        Self { held, rewrite: RewriteId::default() }
    }
}

/// [`Sent`], where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub held: &'a Arc<Attributes>,
    pub rewrite: RewriteId,
}

impl Seen<'_> {
    /// One that is the same for one set and one rewrite.
    pub fn key(self) -> Key {
        Key { held: Arc::as_ptr(self.held), rewrite: self.rewrite }
    }
}

/// What [`Seen`] is told apart by, as long as its set is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    held: *const Attributes,
    rewrite: RewriteId,
}

/// Number of a rewrite in its group and family; 0 changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RewriteId(u16);

/// The rewrites of a group in one family, numbered.
#[derive(Clone, Debug)]
pub(super) struct Rewrites {
    all: Vec<Arc<Rewrite>>,
    numbers: HashMap<Arc<Rewrite>, RewriteId, FixedState>,
    last: RewriteId,
}

impl Rewrites {
    /// Only the one that changes nothing.
    pub fn new() -> Self {
        Self { all: vec![Arc::default()], numbers: HashMap::default(), last: RewriteId::default() }
    }

    /// How to send `content`, which export has made of `held`; both sets that are held in memory are interned.
    pub fn send(&mut self, held: &Arc<Attributes>, content: &Attributes, interner: &mut Interner) -> Sent {
        self.send_rewritten(held, content).unwrap_or_else(|| Sent::from(interner.intern(Arc::new(content.clone()))))
    }

    /// The same, if a rewrite says it and there is room for that.
    pub fn send_rewritten(&mut self, held: &Arc<Attributes>, content: &Attributes) -> Option<Sent> {
        if *content == **held {
            return Some(Sent::from(Arc::clone(held)));
        }
        let rewrite = self.number(Rewrite::between(held, content)?)?;
        Some(Sent { held: Arc::clone(held), rewrite })
    }

    fn number(&mut self, difference: (Fields, &[Asn])) -> Option<RewriteId> {
        if self.get(self.last).is(&difference) {
            return Some(self.last);
        }
        let rewrite = Rewrite::new(difference);
        self.last = match self.numbers.get(&rewrite).copied() {
            Some(id) => id,
            None if self.all.len() >= MOST => return None,
            None => self.enter(rewrite),
        };
        Some(self.last)
    }

    fn enter(&mut self, rewrite: Rewrite) -> RewriteId {
        let (id, rewrite) = (RewriteId(self.all.len() as u16), Arc::new(rewrite));
        self.all.push(Arc::clone(&rewrite));
        self.numbers.insert(rewrite, id);
        id
    }

    /// A rewrite of this group.
    pub fn get(&self, id: RewriteId) -> &Rewrite {
        &self.all[usize::from(id.0)]
    }

    /// What is sent, to encode it.
    pub fn content<'a>(&self, sent: Seen<'a>) -> Cow<'a, Attributes> {
        match sent.rewrite {
            RewriteId(0) => Cow::Borrowed(&**sent.held),
            id => Cow::Owned(self.get(id).of(sent.held)),
        }
    }

    /// What is sent, to keep it.
    pub fn to_attributes(&self, sent: Seen<'_>) -> Arc<Attributes> {
        match self.content(sent) {
            Cow::Borrowed(_) => Arc::clone(sent.held),
            Cow::Owned(content) => Arc::new(content),
        }
    }

    /// Whether both are the same in a message.
    fn is_same(&self, one: Seen<'_>, other: Seen<'_>) -> bool {
        if one.key() == other.key() {
            return true;
        }
        // No rewrite changes communities, and none makes two paths the same: that is mostly enough to tell them apart.
        let paths_differ = one.rewrite == other.rewrite && one.held.as_path != other.held.as_path;
        !paths_differ && one.held.communities == other.held.communities && self.content(one) == self.content(other)
    }

    /// Octets of memory that they take.
    pub fn reserved(&self) -> usize {
        // Each with the counters of its `Arc`.
        let each = size_of::<Rewrite>() + 2 * size_of::<usize>();
        self.all.capacity() * size_of::<Arc<Rewrite>>() + self.all.len() * each + self.numbers.allocation_size()
    }
}

/// Whether what is sent is as it was; neighbouring entries mostly ask the same.
#[derive(Debug, Default)]
pub(super) struct Same {
    last: Option<(Key, Key)>,
    is: bool,
}

impl Same {
    /// Whether both are the same in a message, or neither is there.
    pub fn is(&mut self, old: Option<Seen<'_>>, new: Option<Seen<'_>>, rewrites: &Rewrites) -> bool {
        let (Some(old), Some(new)) = (old, new) else { return old.is_none() && new.is_none() };
        let pair = Some((old.key(), new.key()));
        if self.last != pair {
            (self.last, self.is) = (pair, rewrites.is_same(old, new));
        }
        self.is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(med: u32) -> Attributes {
        Attributes { med: Some(med), ..Attributes::default() }
    }

    #[test]
    fn equal_differences_are_one_rewrite_and_sets_may_become_the_same() {
        let (mut rewrites, mut interner) = (Rewrites::new(), Interner::new(7));
        let (one, other) = (Arc::new(set(1)), Arc::new(set(2)));
        let without = Attributes { med: None, ..set(0) };
        let mut send = |held, content: &Attributes| rewrites.send(held, content, &mut interner);
        let (as_is, a, b) = (send(&one, &one), send(&one, &without), send(&other, &without));
        assert_eq!((as_is.rewrite, a.rewrite), (RewriteId::default(), b.rewrite));
        assert!(Arc::ptr_eq(&rewrites.to_attributes(as_is.as_seen()), &one));
        assert!(rewrites.is_same(a.as_seen(), b.as_seen()) && !rewrites.is_same(a.as_seen(), as_is.as_seen()));
        assert_eq!((interner.len(), &*rewrites.to_attributes(b.as_seen())), (0, &without));
    }

    #[test]
    fn what_no_rewrite_says_or_one_too_many_is_held_as_it_is_sent() {
        let (mut rewrites, mut interner) = (Rewrites::new(), Interner::new(7));
        let held = Arc::new(set(0));
        for med in 0..2 * MOST as u32 {
            let sent = rewrites.send(&held, &set(med), &mut interner);
            assert_eq!(*rewrites.to_attributes(sent.as_seen()), set(med));
        }
        assert_eq!((rewrites.all.len(), interner.len()), (MOST, MOST));
        assert_eq!(rewrites.send(&held, &set(5), &mut interner).rewrite, RewriteId(5), "those that there are go on");
        let changed = Attributes { atomic_aggregate: true, ..set(0) };
        let sent = rewrites.send(&held, &changed, &mut interner);
        assert!(sent.rewrite == RewriteId::default() && Arc::ptr_eq(&sent.held, &interner.intern(Arc::new(changed))));
    }
}
