//! The 19-octet header, and how a stream is cut into messages (RFC 4271 4.1, RFC 8654).

use bytes::{Buf, Bytes, BytesMut};

use super::{Context, DecodeError, EXTENDED_LIMIT, HEADER, Kind, STANDARD_LIMIT};

const MARKER: [u8; 16] = [0xff; 16];

/// One message as it came: its type and what follows its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type.
    pub kind: Kind,
    /// The body.
    pub body: Bytes,
}

impl Frame {
    /// The whole message again, for records of what a peer said (U25, BMP).
    pub fn octets(&self) -> Bytes {
        message(self.kind, &self.body)
    }
}

/// Takes the next whole message off the front of `buffer`; none when more has to be read first. The header is
/// judged as soon as it is there, in the order of H2, before anything is kept for the body.
pub fn next(buffer: &mut BytesMut, context: &Context) -> Result<Option<Frame>, DecodeError> {
    let Some((kind, length)) = header(buffer, context)? else { return Ok(None) };
    if buffer.len() < length {
        return Ok(None);
    }
    // A message alone in its buffer goes with it: nothing has to be shared.
    let whole = if buffer.len() == length { std::mem::take(buffer) } else { buffer.split_to(length) };
    let mut body = whole.freeze();
    body.advance(HEADER);
    Ok(Some(Frame { kind, body }))
}

/// Judges the header at the front of `buffer`: the type and the length of the whole message; none when the header is
/// not there yet.
pub fn header(buffer: &[u8], context: &Context) -> Result<Option<(Kind, usize)>, DecodeError> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [marker @ .., high, low, octet] = header;
    let length = u16::from_be_bytes([*high, *low]);
    let octets = usize::from(length);
    if marker != &MARKER {
        return Err(DecodeError::NotSynchronised { kind: *octet });
    }
    let bad_length = DecodeError::BadLength { kind: *octet, length };
    if octets < HEADER || octets > context.receive_limit {
        return Err(bad_length);
    }
    let kind = Kind::from_octet(*octet).ok_or(DecodeError::BadType(*octet))?;
    let allowed = match kind {
        Kind::Open => 29..=STANDARD_LIMIT,
        Kind::Update => 23..=EXTENDED_LIMIT,
        Kind::Notification => 21..=EXTENDED_LIMIT,
        Kind::Keepalive => HEADER..=HEADER,
        // With RFC 7313 a wrong length is answered with the whole message (R2), so it has to be read.
        Kind::RouteRefresh if context.enhanced_refresh => HEADER..=EXTENDED_LIMIT,
        Kind::RouteRefresh => 23..=23,
    };
    if allowed.contains(&octets) { Ok(Some((kind, octets))) } else { Err(bad_length) }
}

/// A whole message of a body that fits.
pub(super) fn message(kind: Kind, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER + body.len());
    begin(&mut out, kind, HEADER + body.len());
    out.extend_from_slice(body);
    Bytes::from(out)
}

/// Starts a message of `length` octets in all.
pub(super) fn begin(out: &mut Vec<u8>, kind: Kind, length: usize) {
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[high, low, kind as u8]);
}
