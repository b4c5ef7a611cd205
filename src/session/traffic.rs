//! Messages of a peer, counted by type; over all of its sessions.

use serde::Serialize;

use crate::wire::{Kind, Message};

/// Messages by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE, End-of-RIB included.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH, BoRR and EoRR included.
    pub route_refresh: u64,
}

impl MessageCounts {
    /// Every type by its RFC name, in lower case, and how many there were.
    pub fn each(&self) -> [(&'static str, u64); 5] {
        [
            ("open", self.open),
            ("update", self.update),
            ("notification", self.notification),
            ("keepalive", self.keepalive),
            ("route-refresh", self.route_refresh),
        ]
    }

    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Open => self.open += 1,
            Kind::Update => self.update += 1,
            Kind::Notification => self.notification += 1,
            Kind::Keepalive => self.keepalive += 1,
            Kind::RouteRefresh => self.route_refresh += 1,
        }
    }
}

/// Both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Whole messages from the peer that could be read.
    pub received: MessageCounts,
    /// Messages handed to the socket.
    pub sent: MessageCounts,
}

impl Traffic {
    /// The peer said this.
    pub(super) fn heard(&mut self, message: &Message) {
        self.received.add(message.kind());
    }

    /// We say these whole messages: told apart by their headers (RFC 4271 section 4.1).
    pub(super) fn said(&mut self, mut messages: &[u8]) {
        while let Some(&[high, low, kind]) = messages.get(16..19) {
            if let Some(kind) = Kind::from_octet(kind) {
                self.sent.add(kind);
            }
            let length = usize::from(u16::from_be_bytes([high, low])).max(19);
            messages = messages.get(length..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Context;

    #[test]
    fn several_messages_in_one_write_are_told_apart() {
        let keepalive = Message::Keepalive.encode(&Context::default()).unwrap();
        let mut traffic = Traffic::default();
        traffic.said(&[&keepalive[..], &keepalive[..]].concat());
        traffic.heard(&Message::Keepalive);
        assert_eq!((traffic.sent.keepalive, traffic.received.keepalive), (2, 1));
        traffic.said(&keepalive[..10]);
        assert_eq!(traffic.sent.keepalive, 2, "half a header is nothing");
    }
}
