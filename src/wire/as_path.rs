//! AS_PATH on the wire: segments in two or four octets, splitting at 255, merge with AS4_PATH (RFC 4271 4.3, RFC 6793 4.2).

use super::{Context, Problem};
use crate::types::{AsPath, Asn, Segment, SegmentKind};

/// The most ASes that a segment can count.
const LONGEST: usize = 255;

/// Reads AS_PATH.
pub(super) fn decode(value: &[u8], context: &Context) -> Result<AsPath, Problem> {
    let path = segments(value, context.four_octet_as)?;
    if path.segments().any(|segment| is_confederation(segment.kind)) {
        return Err(Problem::Value("a confederation segment from outside"));
    }
    judge(path, context)
}

/// Reads AS4_PATH; confederation segments are dropped (RFC 6793 section 6).
pub(super) fn decode_as4(value: &[u8], context: &Context) -> Result<AsPath, Problem> {
    judge(segments(value, true)?.of_kinds(|kind| !is_confederation(kind)), context)
}

fn judge(path: AsPath, context: &Context) -> Result<AsPath, Problem> {
    if path.asns().any(|asn| asn == Asn(0)) {
        return Err(Problem::Value("contains AS 0"));
    }
    if !context.allow_as_set && path.segments().any(|segment| segment.kind == SegmentKind::Set) {
        return Err(Problem::AsSet);
    }
    Ok(path)
}

fn segments(mut value: &[u8], four_octets: bool) -> Result<AsPath, Problem> {
    let mut path = AsPath::default();
    while let [kind, count, rest @ ..] = value {
        let kind = SegmentKind::of_code(*kind).ok_or(Problem::Value("a segment of unknown type"))?;
        if *count == 0 {
            return Err(Problem::Value("an empty segment"));
        }
        let octets = usize::from(*count) * if four_octets { 4 } else { 2 };
        let (asns, rest) = rest.split_at_checked(octets).ok_or(Problem::Value("a segment exceeds the attribute"))?;
        if four_octets {
            path.push(kind, asns.as_chunks().0.iter().map(|octets| Asn(u32::from_be_bytes(*octets))));
        } else {
            path.push(kind, asns.as_chunks().0.iter().map(|octets| Asn(u16::from_be_bytes(*octets).into())));
        }
        value = rest;
    }
    if value.is_empty() { Ok(path) } else { Err(Problem::Value("one octet too many")) }
}

fn is_confederation(kind: SegmentKind) -> bool {
    matches!(kind, SegmentKind::ConfedSequence | SegmentKind::ConfedSet)
}

/// The path as it was before old speakers narrowed it: the ASes by which `path` is longer, then `as4_path` (A2).
pub(super) fn merge(path: AsPath, as4_path: &AsPath) -> AsPath {
    let Some(mut lead) = path.length().checked_sub(as4_path.length()) else { return path };
    let mut segments: Vec<(SegmentKind, Vec<Asn>)> = Vec::new();
    for Segment { kind, asns } in path.segments() {
        let taken = match kind {
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => asns.len(),
            _ if lead == 0 => break,
            SegmentKind::Set => {
                lead -= 1;
                asns.len()
            }
            SegmentKind::Sequence => {
                let taken = lead.min(asns.len());
                lead -= taken;
                taken
            }
        };
        segments.push((kind, asns[..taken].to_vec()));
    }
    for Segment { kind, asns } in as4_path.segments() {
        match segments.last_mut() {
            Some((SegmentKind::Sequence, last)) if kind == SegmentKind::Sequence && last.len() + asns.len() <= LONGEST => last.extend(asns),
            _ => segments.push((kind, asns.to_vec())),
        }
    }
    AsPath::of(segments)
}

/// Appends AS_PATH in four octets an AS, or in two with AS_TRANS for what does not fit (A1).
pub(super) fn put(path: &AsPath, four_octets: bool, out: &mut Vec<u8>) {
    for segment in path.segments() {
        put_segment(segment, four_octets, out);
    }
}

/// Appends AS4_PATH: `path` without its confederation segments.
pub(super) fn put_as4(path: &AsPath, out: &mut Vec<u8>) {
    for segment in path.segments().filter(|segment| !is_confederation(segment.kind)) {
        put_segment(segment, true, out);
    }
}

/// Whether a speaker of two octets needs AS4_PATH beside AS_PATH.
pub(super) fn needs_as4(path: &AsPath) -> bool {
    path.asns().any(|asn| u16::try_from(asn.0).is_err())
}

/// A segment too long for the wire becomes several, the short one first, as if it had grown by prepending (U24).
fn put_segment(segment: Segment<'_>, four_octets: bool, out: &mut Vec<u8>) {
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
