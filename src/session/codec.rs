//! Between the bytes of a connection and its events.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};

use crate::wire::frame::{self, Frame};
use crate::wire::{Context, DecodeError, Kind, Message, Update};

use super::connection::Event;

/// Octets of a faulty UPDATE that are kept for people (U6).
const EVIDENCE_MAX: usize = 4096;

/// The next whole message, or what is wrong with what came; and the octets of an OPEN, or of an UPDATE that has faults. The body of
/// an UPDATE is not looked at where `routes` may not flow yet.
pub(super) fn next(input: &mut BytesMut, context: &Context, routes: bool) -> Option<(Event, Option<Bytes>)> {
    match frame::next(input, context) {
        Ok(None) => None,
        Ok(Some(frame)) if frame.kind == Kind::Update && !routes => Some((Event::Message(Message::Update(Update::default())), None)),
        Ok(Some(frame)) => Some(read(&frame, context)),
        Err(error) => Some((broken(&error), None)),
    }
}

fn read(frame: &Frame, context: &Context) -> (Event, Option<Bytes>) {
    match Message::decode(frame.kind, &frame.body, context) {
        Ok(Message::Update(update)) => {
            let evidence = (!update.faults.is_empty()).then(|| frame.octets());
            (Event::Message(Message::Update(update)), evidence)
        }
        Ok(Message::Open(open)) => (Event::Message(Message::Open(open)), Some(frame.octets())),
        Ok(message) => (Event::Message(message), None),
        Err(error) => (broken(&error), None),
    }
}

fn broken(error: &DecodeError) -> Event {
    Event::Broken { answer: error.notification(), text: error.to_string() }
}

/// A message of ours as bytes. None of those that the session makes can fail: UPDATEs with routes come from the
/// shards, encoded.
pub(super) fn encode(message: &Message, context: &Context) -> Bytes {
    message.encode(context).unwrap_or_default()
}

/// The octets of a faulty UPDATE, as text.
pub(super) fn evidence(octets: &[u8]) -> String {
    let mut text = String::with_capacity(2 * octets.len().min(EVIDENCE_MAX) + 3);
    for octet in octets.iter().take(EVIDENCE_MAX) {
        let _ = write!(text, "{octet:02x}");
    }
    if octets.len() > EVIDENCE_MAX {
        text.push('…');
    }
    text
}
