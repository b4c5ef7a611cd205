//! AS_PATH as a value: segments, length, loop test, prepending (RFC 4271 5.1.2, RFC 5065 for counting).

use std::fmt;

use serde::{Serialize, Serializer};
use smallvec::{SmallVec, smallvec};

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

/// One segment: 1 to 255 ASes on the wire, any number here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// What the list means.
    pub kind: SegmentKind,
    /// The ASes, nearest first.
    pub asns: Box<[Asn]>,
}

/// The ASes a route has crossed, nearest first; empty for routes of our own AS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath {
    /// The segments in the order of the wire. Nearly every path is one: it lies in the path itself.
    pub segments: SmallVec<[Segment; 1]>,
}

impl AsPath {
    /// A path of one AS_SEQUENCE; the empty path for no AS.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        let asns: Box<[Asn]> = asns.into_iter().collect();
        if asns.is_empty() {
            return Self::default();
        }
        Self { segments: smallvec![Segment { kind: SegmentKind::Sequence, asns }] }
    }

    /// Length for the decision: a set counts one, confederation segments nothing (RFC 4271 9.1.2.2 a, RFC 5065 5.3).
    pub fn length(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| match segment.kind {
                SegmentKind::Sequence => segment.asns.len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// The neighbouring AS: the first of a leading AS_SEQUENCE.
    pub fn first(&self) -> Option<Asn> {
        let segment = self.segments.iter().find(|s| matches!(s.kind, SegmentKind::Sequence | SegmentKind::Set))?;
        (segment.kind == SegmentKind::Sequence).then(|| segment.asns.first().copied()).flatten()
    }

    /// How often `asn` occurs, in whatever segment.
    pub fn count(&self, asn: Asn) -> usize {
        self.asns().filter(|a| *a == asn).count()
    }

    /// Every AS in order, sets included.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + '_ {
        self.segments.iter().flat_map(|segment| segment.asns.iter().copied())
    }

    /// Each AS as `say` has it, or without it; a segment that has none left is none.
    #[must_use]
    pub fn rewritten(&self, say: impl Fn(Asn) -> Option<Asn>) -> Self {
        let segments = self
            .segments
            .iter()
            .map(|segment| Segment { kind: segment.kind, asns: segment.asns.iter().copied().filter_map(&say).collect() });
        Self { segments: segments.filter(|segment| !segment.asns.is_empty()).collect() }
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The path with `asns` put in front in the written order (protocol statement E2): into a leading
    /// AS_SEQUENCE where there is one, else into a new one. Splitting at 255 is the encoder's work (U24).
    #[must_use]
    pub fn prepend(&self, asns: &[Asn]) -> Self {
        if asns.is_empty() {
            return self.clone();
        }
        let (head, rest) = match self.segments.split_first() {
            Some((first, rest)) if first.kind == SegmentKind::Sequence => (&first.asns[..], rest),
            _ => (&[][..], &self.segments[..]),
        };
        let first = Segment { kind: SegmentKind::Sequence, asns: asns.iter().chain(head).copied().collect() };
        Self { segments: std::iter::once(first).chain(rest.iter().cloned()).collect() }
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
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
        serializer.collect_seq(self.segments.iter().flat_map(|segment| match segment.kind {
            SegmentKind::Sequence | SegmentKind::ConfedSequence => segment.asns.iter().map(|a| Item::One(*a)).collect(),
            SegmentKind::Set | SegmentKind::ConfedSet => vec![Item::Many(&segment.asns)],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[(SegmentKind, &[u32])]) -> AsPath {
        AsPath {
            segments: segments.iter().map(|(kind, asns)| Segment { kind: *kind, asns: asns.iter().map(|a| Asn(*a)).collect() }).collect(),
        }
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
