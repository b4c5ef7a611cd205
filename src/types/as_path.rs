//! AS_PATH as a value: segments, length, loop test, prepending (RFC 4271 5.1.2, RFC 5065 for counting).

use std::fmt;

use serde::{Serialize, Serializer};
use smallvec::SmallVec;

use super::Asn;

/// Kind of an AS_PATH segment; the numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// Unordered, from aggregation (deprecated by RFC 9774).
    Set = 1,
    /// Ordered.
    Sequence = 2,
    /// Ordered, inside a confederation.
    ConfedSequence = 3,
    /// Unordered, inside a confederation.
    ConfedSet = 4,
}

impl SegmentKind {
    /// The kind of a number of the wire.
    pub fn of_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Set,
            2 => Self::Sequence,
            3 => Self::ConfedSequence,
            4 => Self::ConfedSet,
            _ => return None,
        })
    }
}

/// One segment: 1 to 255 ASes on the wire, any number here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// What the list means.
    pub kind: SegmentKind,
    /// The ASes, nearest first.
    pub asns: &'a [Asn],
}

/// Bits of a word before a segment that count its ASes; no message has room for so many.
const COUNT: u32 = (1 << 24) - 1;

/// The ASes a route has crossed, nearest first; empty for routes of our own AS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath {
    /// Before the ASes of each segment a word that says what it is and how many they are. A path of one segment and five ASes has room
    /// here, and nearly every path is no longer.
    words: SmallVec<[Asn; 6]>,
}

impl AsPath {
    /// A path of one AS_SEQUENCE; the empty path for no AS.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        Self::of([(SegmentKind::Sequence, asns)])
    }

    /// A path of these segments; one without ASes is none.
    pub fn of<A: IntoIterator<Item = Asn>>(segments: impl IntoIterator<Item = (SegmentKind, A)>) -> Self {
        let mut path = Self::default();
        segments.into_iter().for_each(|(kind, asns)| path.push(kind, asns));
        path
    }

    /// Adds a segment at the far end, if it has any AS.
    pub fn push(&mut self, kind: SegmentKind, asns: impl IntoIterator<Item = Asn>) {
        let asns = asns.into_iter();
        let head = self.words.len();
        self.words.reserve_exact(1 + asns.size_hint().0);
        self.words.push(Asn(0));
        self.words.extend(asns);
        self.end_segment(head, kind);
    }

    /// All words from `head` on are one segment: says so in the first; one without ASes is none.
    fn end_segment(&mut self, head: usize, kind: SegmentKind) {
        self.words.truncate(head + 1 + COUNT as usize);
        let count = self.words.len() - head - 1;
        match self.words.get_mut(head) {
            Some(word) if count > 0 => *word = Asn((kind as u32) << 24 | count as u32),
            _ => self.words.truncate(head),
        }
    }

    /// The segments in the order of the wire.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut rest = &self.words[..];
        std::iter::from_fn(move || {
            let (Asn(word), asns) = rest.split_first()?;
            let (asns, after) = asns.split_at_checked((word & COUNT) as usize)?;
            rest = after;
            Some(Segment { kind: SegmentKind::of_code((word >> 24) as u8)?, asns })
        })
    }

    /// The ASes of a path that is one AS_SEQUENCE, as nearly every path is.
    fn as_sequence(&self) -> Option<&[Asn]> {
        let (Asn(word), asns) = self.words.split_first()?;
        (*word == (SegmentKind::Sequence as u32) << 24 | asns.len() as u32).then_some(asns)
    }

    /// Length for the decision: a set counts one, confederation segments nothing (RFC 4271 9.1.2.2 a, RFC 5065 5.3).
    pub fn length(&self) -> usize {
        match self.as_sequence() {
            Some(asns) => asns.len(),
            None => self.length_of_many(),
        }
    }

    fn length_of_many(&self) -> usize {
        self.segments()
            .map(|segment| match segment.kind {
                SegmentKind::Sequence => segment.asns.len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// The neighbouring AS: the first of a leading AS_SEQUENCE.
    pub fn first(&self) -> Option<Asn> {
        if let Some(asns) = self.as_sequence() {
            return asns.first().copied();
        }
        let segment = self.segments().find(|s| matches!(s.kind, SegmentKind::Sequence | SegmentKind::Set))?;
        (segment.kind == SegmentKind::Sequence).then(|| segment.asns.first().copied()).flatten()
    }

    /// How often `asn` occurs, in whatever segment.
    pub fn count(&self, asn: Asn) -> usize {
        match self.as_sequence() {
            Some(asns) => asns.iter().filter(|a| **a == asn).count(),
            None => self.asns().filter(|a| *a == asn).count(),
        }
    }

    /// Every AS in order, sets included.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + '_ {
        self.segments().flat_map(|segment| segment.asns.iter().copied())
    }

    /// Each AS as `say` has it, or without it; a segment that has none left is none.
    #[must_use]
    pub fn rewritten(&self, say: impl Fn(Asn) -> Option<Asn>) -> Self {
        Self::of(self.segments().map(|segment| (segment.kind, segment.asns.iter().copied().filter_map(&say))))
    }

    /// Without the segments of other kinds than `keep` says.
    #[must_use]
    pub fn of_kinds(&self, keep: impl Fn(SegmentKind) -> bool) -> Self {
        Self::of(self.segments().filter(|segment| keep(segment.kind)).map(|segment| (segment.kind, segment.asns.iter().copied())))
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Octets of memory that the path takes beside itself.
    pub fn octets(&self) -> usize {
        if self.words.spilled() { self.words.capacity() * size_of::<Asn>() } else { 0 }
    }

    /// The path with `asns` put in front in the written order (protocol statement E2): into a leading
    /// AS_SEQUENCE where there is one, else into a new one. Splitting at 255 is the encoder's work (U24).
    #[must_use]
    pub fn prepend(&self, asns: &[Asn]) -> Self {
        if asns.is_empty() {
            return self.clone();
        }
        let (head, rest) = self.leading();
        let mut words = SmallVec::from_elem(Asn(0), 1 + asns.len() + head.len());
        let (front, behind) = words[1..].split_at_mut(asns.len());
        front.copy_from_slice(asns);
        behind.copy_from_slice(head);
        let mut path = Self { words };
        path.end_segment(0, SegmentKind::Sequence);
        if !rest.is_empty() {
            path.words.extend_from_slice(rest);
        }
        path
    }

    /// The ASes that [`prepend`](Self::prepend) puts in front of `rest` to make this path; none if no ASes do.
    pub fn prepended_to(&self, rest: &Self) -> Option<&[Asn]> {
        let ((mine, after), (theirs, beyond)) = (self.leading(), rest.leading());
        mine.strip_suffix(theirs).filter(|_| after == beyond)
    }

    /// The ASes of a leading AS_SEQUENCE, and the words after it.
    fn leading(&self) -> (&[Asn], &[Asn]) {
        match self.segments().next() {
            Some(first) if first.kind == SegmentKind::Sequence => (first.asns, &self.words[1 + first.asns.len()..]),
            _ => (&[], &self.words[..]),
        }
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments().enumerate() {
            let (open, close) = match segment.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfedSequence => ("(", ")"),
                SegmentKind::ConfedSet => ("[", "]"),
            };
            f.write_str(if index == 0 { "" } else { " " })?;
            f.write_str(open)?;
            for (index, asn) in segment.asns.iter().enumerate() {
                f.write_str(if index == 0 { "" } else { " " })?;
                asn.fmt(f)?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

impl Serialize for AsPath {
    /// The list of ASes; a set appears as a nested list.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Item<'a> {
            One(Asn),
            Many(&'a [Asn]),
        }
        serializer.collect_seq(self.segments().flat_map(|segment| match segment.kind {
            SegmentKind::Sequence | SegmentKind::ConfedSequence => segment.asns.iter().map(|a| Item::One(*a)).collect(),
            SegmentKind::Set | SegmentKind::ConfedSet => vec![Item::Many(segment.asns)],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[(SegmentKind, &[u32])]) -> AsPath {
        AsPath::of(segments.iter().map(|(kind, asns)| (*kind, asns.iter().copied().map(Asn))))
    }

    #[test]
    fn length_counts_sets_once_and_confederations_never() {
        use SegmentKind::*;
        assert_eq!(path(&[(ConfedSequence, &[1, 2]), (Sequence, &[3, 4, 4]), (Set, &[5, 6])]).length(), 4);
        assert_eq!(AsPath::default().length(), 0);
    }

    #[test]
    fn prepends_into_the_leading_sequence_or_before_a_set() {
        use SegmentKind::*;
        assert_eq!(AsPath::sequence([Asn(3)]).prepend(&[Asn(1), Asn(2)]), AsPath::sequence([Asn(1), Asn(2), Asn(3)]));
        assert_eq!(path(&[(Set, &[3, 4])]).prepend(&[Asn(1)]), path(&[(Sequence, &[1]), (Set, &[3, 4])]));
    }

    #[test]
    fn what_was_prepended_is_found_again() {
        use SegmentKind::*;
        let rests: [&[(SegmentKind, &[u32])]; 5] = [
            &[],
            &[(Sequence, &[3])],
            &[(Set, &[3, 4])],
            &[(Sequence, &[1, 2]), (Sequence, &[2])],
            &[(ConfedSequence, &[1]), (Sequence, &[2])],
        ];
        for rest in rests.map(path) {
            for asns in [&[][..], &[Asn(1)], &[Asn(1), Asn(1), Asn(2)]] {
                assert_eq!(rest.prepend(asns).prepended_to(&rest), Some(asns));
            }
            let longer = AsPath::of(rest.segments().map(|segment| (segment.kind, segment.asns.to_vec())).chain([(Sequence, vec![Asn(9)])]));
            assert!(longer.prepended_to(&rest).is_none_or(|_| rest.is_empty()));
        }
        let [one, other] = [path(&[(Sequence, &[1, 2])]), path(&[(Sequence, &[1]), (Sequence, &[2])])];
        assert_eq!((one.prepended_to(&other), other.prepended_to(&one)), (None, None), "the same ASes in other segments");
    }

    #[test]
    fn segments_come_out_as_they_went_in_and_five_ases_need_no_heap() {
        use SegmentKind::*;
        let path = path(&[(Sequence, &[1, 2]), (Set, &[]), (ConfedSet, &[u32::MAX]), (Set, &[3])]);
        let segments: Vec<_> = path.segments().map(|segment| (segment.kind, segment.asns.len())).collect();
        assert_eq!(segments, [(Sequence, 2), (ConfedSet, 1), (Set, 1)]);
        assert_eq!(path.asns().map(|asn| asn.0).collect::<Vec<_>>(), [1, 2, u32::MAX, 3]);
        assert_eq!(path.of_kinds(|kind| kind == Set), AsPath::of([(Set, [Asn(3)])]));
        assert!(AsPath::sequence([]).is_empty() && AsPath::sequence([]).segments().next().is_none());
        assert_eq!((AsPath::sequence((1..=5).map(Asn)).octets(), AsPath::sequence((1..=6).map(Asn)).octets()), (0, 28));
        assert_eq!(AsPath::sequence((1..=4).map(Asn)).prepend(&[Asn(9)]).octets(), 0);
    }

    #[test]
    fn first_is_none_behind_a_set() {
        assert_eq!(AsPath::sequence([Asn(7), Asn(8)]).first(), Some(Asn(7)));
        assert_eq!(path(&[(SegmentKind::Set, &[3])]).first(), None);
    }

    #[test]
    fn shows_as_people_write_it() {
        use SegmentKind::*;
        assert_eq!(path(&[(Sequence, &[1, 2]), (Set, &[3, 4])]).to_string(), "1 2 {3 4}");
    }
}
