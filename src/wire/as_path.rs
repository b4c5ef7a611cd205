//! AS_PATH on the wire: segments in two or four octets, splitting at 255, merge with AS4_PATH (RFC 4271 4.3, RFC 6793 4.2).

use smallvec::SmallVec;

use super::{Context, Problem};
use crate::types::{AsPath, Asn, Segment, SegmentKind};

/// The most ASes that a segment can count.
const LONGEST: usize = 255;

/// Reads AS_PATH.
pub(super) fn decode(value: &[u8], context: &Context) -> Result<AsPath, Problem> {
    let path = segments(value, context.four_octet_as)?;
    let mut kinds = path.segments.iter().map(|segment| segment.kind);
    if kinds.any(is_confederation) {
        return Err(Problem::Value("a confederation segment from outside"));
    }
    judge(path, context)
}

/// Reads AS4_PATH; confederation segments are dropped (RFC 6793 section 6).
pub(super) fn decode_as4(value: &[u8], context: &Context) -> Result<AsPath, Problem> {
    let path = segments(value, true)?;
    let kept = path.segments.into_iter().filter(|segment| !is_confederation(segment.kind)).collect();
    judge(AsPath { segments: kept }, context)
}

fn judge(path: AsPath, context: &Context) -> Result<AsPath, Problem> {
    if path.asns().any(|asn| asn == Asn(0)) {
        return Err(Problem::Value("contains AS 0"));
    }
    if !context.allow_as_set && path.segments.iter().any(|segment| segment.kind == SegmentKind::Set) {
        return Err(Problem::AsSet);
    }
    Ok(path)
}

fn segments(mut value: &[u8], four_octets: bool) -> Result<AsPath, Problem> {
    let mut segments = SmallVec::new();
    while let [kind, count, rest @ ..] = value {
        let kind = match kind {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 => SegmentKind::ConfedSequence,
            4 => SegmentKind::ConfedSet,
            _ => return Err(Problem::Value("a segment of unknown type")),
        };
        if *count == 0 {
            return Err(Problem::Value("an empty segment"));
        }
        let octets = usize::from(*count) * if four_octets { 4 } else { 2 };
        let (asns, rest) = rest.split_at_checked(octets).ok_or(Problem::Value("a segment exceeds the attribute"))?;
        let asns = if four_octets {
            asns.as_chunks().0.iter().map(|octets| Asn(u32::from_be_bytes(*octets))).collect()
        } else {
            asns.as_chunks().0.iter().map(|octets| Asn(u16::from_be_bytes(*octets).into())).collect()
        };
        segments.push(Segment { kind, asns });
        value = rest;
    }
    if value.is_empty() { Ok(AsPath { segments }) } else { Err(Problem::Value("one octet too many")) }
}

fn is_confederation(kind: SegmentKind) -> bool {
    matches!(kind, SegmentKind::ConfedSequence | SegmentKind::ConfedSet)
}

/// The path as it was before old speakers narrowed it: the ASes by which `path` is longer, then `as4_path` (A2).
pub(super) fn merge(path: AsPath, as4_path: AsPath) -> AsPath {
    let Some(mut lead) = path.length().checked_sub(as4_path.length()) else { return path };
    let mut segments: SmallVec<[Segment; 1]> = SmallVec::new();
    for segment in path.segments {
        match segment.kind {
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => segments.push(segment),
            _ if lead == 0 => break,
            SegmentKind::Set => {
                lead -= 1;
                segments.push(segment);
            }
            SegmentKind::Sequence => {
                let taken = lead.min(segment.asns.len());
                lead -= taken;
                segments.push(Segment { kind: segment.kind, asns: segment.asns[..taken].into() });
            }
        }
    }
    for segment in as4_path.segments {
        match segments.last_mut() {
            Some(last) if continues(last, &segment) => last.asns = [&last.asns[..], &segment.asns[..]].concat().into(),
            _ => segments.push(segment),
        }
    }
    AsPath { segments }
}

/// Whether two AS_SEQUENCEs can be one segment.
fn continues(last: &Segment, next: &Segment) -> bool {
    let both = last.kind == SegmentKind::Sequence && next.kind == SegmentKind::Sequence;
    both && last.asns.len() + next.asns.len() <= LONGEST
}

/// Appends AS_PATH in four octets an AS, or in two with AS_TRANS for what does not fit (A1).
pub(super) fn put(path: &AsPath, four_octets: bool, out: &mut Vec<u8>) {
    for segment in &path.segments {
        put_segment(segment, four_octets, out);
    }
}

/// Appends AS4_PATH: `path` without its confederation segments.
pub(super) fn put_as4(path: &AsPath, out: &mut Vec<u8>) {
    for segment in path.segments.iter().filter(|segment| !is_confederation(segment.kind)) {
        put_segment(segment, true, out);
    }
}

/// Whether a speaker of two octets needs AS4_PATH beside AS_PATH.
pub(super) fn needs_as4(path: &AsPath) -> bool {
    path.asns().any(|asn| u16::try_from(asn.0).is_err())
}

/// A segment too long for the wire becomes several, the short one first, as if it had grown by prepending (U24).
fn put_segment(segment: &Segment, four_octets: bool, out: &mut Vec<u8>) {
    let (short, full) = segment.asns.split_at(segment.asns.len() % LONGEST);
    let chunks = full.chunks(LONGEST);
    for chunk in std::iter::once(short).filter(|short| !short.is_empty()).chain(chunks) {
        out.extend_from_slice(&[segment.kind as u8, chunk.len() as u8]);
        if four_octets {
            chunk.iter().for_each(|asn| out.extend_from_slice(&asn.0.to_be_bytes()));
        } else {
            chunk.iter().for_each(|asn| out.extend_from_slice(&asn.two_octets().to_be_bytes()));
        }
    }
}
