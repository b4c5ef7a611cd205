//! NOTIFICATION (RFC 4271 4.5): codes and subcodes as people name them, shutdown text (RFC 9003), hard reset (RFC 8538).

use std::fmt;

use bytes::Bytes;

use super::{DecodeError, HEADER, Kind, STANDARD_LIMIT, frame};
use crate::types::{Afi, Family, Safi};

/// Error codes.
pub mod code {
    /// Message header error.
    pub const HEADER: u8 = 1;
    /// OPEN message error.
    pub const OPEN: u8 = 2;
    /// UPDATE message error.
    pub const UPDATE: u8 = 3;
    /// Hold timer expired.
    pub const HOLD_TIMER: u8 = 4;
    /// Finite state machine error.
    pub const FSM: u8 = 5;
    /// Cease.
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH message error (RFC 7313).
    pub const ROUTE_REFRESH: u8 = 7;
    /// Send hold timer expired (RFC 9687).
    pub const SEND_HOLD_TIMER: u8 = 8;
}

/// Subcodes of [`code::CEASE`] (RFC 4486, 8538, 9384).
pub mod cease {
    /// Maximum number of prefixes reached.
    pub const MAXIMUM_PREFIXES: u8 = 1;
    /// Administrative shutdown; may carry a text.
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    /// The peer is no longer configured.
    pub const PEER_DECONFIGURED: u8 = 3;
    /// Administrative reset; may carry a text.
    pub const ADMINISTRATIVE_RESET: u8 = 4;
    /// Connection rejected.
    pub const CONNECTION_REJECTED: u8 = 5;
    /// Other configuration change.
    pub const CONFIGURATION_CHANGE: u8 = 6;
    /// Connection collision resolution.
    pub const COLLISION: u8 = 7;
    /// Out of resources.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// Hard reset: graceful restart does not apply; the data hold the real code, subcode and data.
    pub const HARD_RESET: u8 = 9;
    /// BFD down.
    pub const BFD_DOWN: u8 = 10;
}

/// NOTIFICATION (RFC 4271 4.5); any code and subcode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data, uninterpreted.
    pub data: Bytes,
}

impl Notification {
    /// One without data.
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self { code, subcode, data: Bytes::new() }
    }

    /// A Cease without data; see [`cease`].
    pub const fn cease(subcode: u8) -> Self {
        Self::new(code::CEASE, subcode)
    }

    /// A Cease with a text for the people at the other end (RFC 9003), cut at 255 octets; no data for an empty text.
    pub fn cease_with_text(subcode: u8, text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(255)];
        let mut data = Vec::with_capacity(text.len() + 1);
        if !text.is_empty() {
            data.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            data.extend_from_slice(text.as_bytes());
        }
        Self { data: data.into(), ..Self::cease(subcode) }
    }

    /// 6/1 with the family and the limit that was exceeded (RFC 4486 4).
    pub fn maximum_prefixes(family: Family, limit: u32) -> Self {
        let mut data = family.afi.0.to_be_bytes().to_vec();
        data.push(family.safi.0);
        data.extend_from_slice(&limit.to_be_bytes());
        Self { data: data.into(), ..Self::cease(cease::MAXIMUM_PREFIXES) }
    }

    /// This one as a hard reset: the peer must not keep our routes (RFC 8538 3.1).
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let data = [&[self.code, self.subcode], &self.data[..]].concat();
        Self { data: data.into(), ..Self::cease(cease::HARD_RESET) }
    }

    /// Whether it is a hard reset (RFC 8538).
    pub fn is_hard_reset(&self) -> bool {
        self.code == code::CEASE && self.subcode == cease::HARD_RESET
    }

    /// What a hard reset is about: the NOTIFICATION in its data, if there is one.
    pub fn inner(&self) -> Option<Self> {
        let [code, subcode, ..] = self.data[..] else { return None };
        self.is_hard_reset().then(|| Self { code, subcode, data: self.data.slice(2..) })
    }

    /// The text of an administrative shutdown or reset (RFC 9003), escaped: what is not printable and what is no
    /// UTF-8 appears as `\u{…}` and `\x…`. A length that exceeds the data is cut to it (V10).
    pub fn text(&self) -> Option<String> {
        if self.code != code::CEASE || !matches!(self.subcode, cease::ADMINISTRATIVE_SHUTDOWN | cease::ADMINISTRATIVE_RESET) {
            return None;
        }
        let (&length, text) = self.data.split_first()?;
        let text = &text[..text.len().min(usize::from(length))];
        (!text.is_empty()).then(|| escape(text))
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        match body {
            [code, subcode, data @ ..] => Ok(Self { code: *code, subcode: *subcode, data: Bytes::copy_from_slice(data) }),
            _ => Err(DecodeError::bad_length(Kind::Notification, body)),
        }
    }

    /// The whole message; data that would exceed 4096 octets are cut.
    pub fn encode(&self) -> Bytes {
        let data = &self.data[..self.data.len().min(STANDARD_LIMIT - HEADER - 2)];
        frame::message(Kind::Notification, &[&[self.code, self.subcode], data].concat())
    }

    /// Code and subcode in words; numbers where they are unknown.
    pub fn name(&self) -> String {
        let (class, subcodes) = names(self.code);
        let subcode = subcodes.iter().find(|(number, _)| *number == self.subcode).map(|(_, name)| *name);
        match (class, subcode) {
            ("", _) => format!("error {}, subcode {}", self.code, self.subcode),
            (class, Some("")) => class.to_owned(),
            (class, Some(name)) => format!("{class}: {name}"),
            (class, None) => format!("{class}: subcode {}", self.subcode),
        }
    }
}

impl fmt::Display for Notification {
    /// For instance `6/2 Cease: administrative shutdown: "tomorrow again"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.code, self.subcode, self.name())?;
        if let Some(text) = self.text() {
            return write!(f, ": \"{text}\"");
        }
        if let Some(inner) = self.inner() {
            return write!(f, " of {}/{} {}", inner.code, inner.subcode, inner.name());
        }
        match (self.code, self.subcode, &self.data[..]) {
            (code::CEASE, cease::MAXIMUM_PREFIXES, &[a, b, safi, c, d, e, g]) => {
                let family = Family { afi: Afi(u16::from_be_bytes([a, b])), safi: Safi(safi) };
                write!(f, " ({family}, limit {})", u32::from_be_bytes([c, d, e, g]))
            }
            (_, _, []) => Ok(()),
            (_, _, data) => {
                f.write_str(" (data ")?;
                data.iter().take(128).try_for_each(|octet| write!(f, "{octet:02x}"))?;
                f.write_str(if data.len() > 128 { "…)" } else { ")" })
            }
        }
    }
}

/// Peer-supplied octets as text that harms no terminal and no log.
fn escape(octets: &[u8]) -> String {
    let mut text = String::new();
    for chunk in octets.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\'' => text.push(character),
                _ => text.extend(character.escape_debug()),
            }
        }
        chunk.invalid().iter().for_each(|octet| text.push_str(&format!("\\x{octet:02x}")));
    }
    text
}

/// Name of an error code, and of its subcodes (IANA's registry); an empty name for codes without subcodes.
fn names(code: u8) -> (&'static str, &'static [(u8, &'static str)]) {
    match code {
        code::HEADER => {
            ("message header", &[(0, ""), (1, "connection not synchronised"), (2, "bad message length"), (3, "bad message type")])
        }
        code::OPEN => (
            "OPEN",
            &[
                (0, "unspecific"),
                (1, "unsupported version number"),
                (2, "bad peer AS"),
                (3, "bad BGP identifier"),
                (4, "unsupported optional parameter"),
                (5, "authentication failure (deprecated)"),
                (6, "unacceptable hold time"),
                (7, "unsupported capability"),
                (8, "grouping conflict (deprecated)"),
                (11, "role mismatch"),
            ],
        ),
        code::UPDATE => (
            "UPDATE",
            &[
                (0, "unspecific"),
                (1, "malformed attribute list"),
                (2, "unrecognised well-known attribute"),
                (3, "missing well-known attribute"),
                (4, "attribute flags error"),
                (5, "attribute length error"),
                (6, "invalid ORIGIN attribute"),
                (7, "AS routing loop (deprecated)"),
                (8, "invalid NEXT_HOP attribute"),
                (9, "optional attribute error"),
                (10, "invalid network field"),
                (11, "malformed AS_PATH"),
            ],
        ),
        code::HOLD_TIMER => ("hold timer expired", &[(0, "")]),
        code::FSM => (
            "finite state machine",
            &[
                (0, "unspecific"),
                (1, "unexpected message in OpenSent"),
                (2, "unexpected message in OpenConfirm"),
                (3, "unexpected message in Established"),
            ],
        ),
        code::CEASE => (
            "Cease",
            &[
                (0, "unspecific"),
                (cease::MAXIMUM_PREFIXES, "maximum number of prefixes reached"),
                (cease::ADMINISTRATIVE_SHUTDOWN, "administrative shutdown"),
                (cease::PEER_DECONFIGURED, "peer de-configured"),
                (cease::ADMINISTRATIVE_RESET, "administrative reset"),
                (cease::CONNECTION_REJECTED, "connection rejected"),
                (cease::CONFIGURATION_CHANGE, "other configuration change"),
                (cease::COLLISION, "connection collision resolution"),
                (cease::OUT_OF_RESOURCES, "out of resources"),
                (cease::HARD_RESET, "hard reset"),
                (cease::BFD_DOWN, "BFD down"),
            ],
        ),
        code::ROUTE_REFRESH => ("ROUTE-REFRESH", &[(0, "unspecific"), (1, "invalid message length")]),
        code::SEND_HOLD_TIMER => ("send hold timer expired", &[(0, "")]),
        _ => ("", &[]),
    }
}
