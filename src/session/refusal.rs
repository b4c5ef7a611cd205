//! NOTIFICATIONs that this room sends, with the words that people read.

use crate::types::Family;
use crate::wire::{Notification, cease, code};

/// Subcodes of code 2, OPEN message error.
pub(super) mod open {
    pub(in crate::session) const UNSPECIFIC: u8 = 0;
    pub(in crate::session) const BAD_PEER_AS: u8 = 2;
    pub(in crate::session) const BAD_IDENTIFIER: u8 = 3;
    pub(in crate::session) const UNSUPPORTED_PARAMETER: u8 = 4;
    pub(in crate::session) const HOLD_TIME: u8 = 6;
    pub(in crate::session) const UNSUPPORTED_CAPABILITY: u8 = 7;
    pub(in crate::session) const ROLE_MISMATCH: u8 = 11;
}

/// A NOTIFICATION to send, and why in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What the peer is told.
    pub notification: Notification,
    /// What people are told.
    pub text: String,
}

impl Refusal {
    /// One without data.
    pub(super) fn new(code: u8, subcode: u8, text: impl Into<String>) -> Self {
        Self { notification: Notification::new(code, subcode), text: text.into() }
    }

    /// An OPEN message error.
    pub(super) fn open(subcode: u8, text: impl Into<String>) -> Self {
        Self::new(code::OPEN, subcode, text)
    }

    /// A Cease.
    pub(super) fn cease(subcode: u8, text: impl Into<String>) -> Self {
        Self::new(code::CEASE, subcode, text)
    }

    /// 6/2 with a shutdown communication (RFC 9003).
    pub(super) fn shutdown(text: &str) -> Self {
        let words = if text.is_empty() { "shut down by the operator".to_owned() } else { format!("shut down by the operator: {text}") };
        Self { notification: Notification::cease_with_text(cease::ADMINISTRATIVE_SHUTDOWN, text), text: words }
    }

    /// 6/4 with a text (RFC 9003).
    pub(super) fn reset(text: &str) -> Self {
        let words = if text.is_empty() { "reset by the operator".to_owned() } else { format!("reset by the operator: {text}") };
        Self { notification: Notification::cease_with_text(cease::ADMINISTRATIVE_RESET, text), text: words }
    }

    /// 6/1: the peer sent more paths than allowed.
    pub(super) fn maximum_prefixes(family: Family, limit: u32) -> Self {
        let text = format!("more than {limit} {family} paths; the session stays idle until it is reset or its configuration changes");
        Self { notification: Notification::maximum_prefixes(family, limit), text }
    }

    /// 6/7: another connection of the peer goes on.
    pub(super) fn collision() -> Self {
        Self::cease(cease::COLLISION, "another connection with the peer goes on")
    }
}
