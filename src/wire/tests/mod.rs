//! Tables of what may arrive and what must follow, by the numbers of the protocol statements.

mod as_path;
mod attribute;
mod header;
mod notification;
mod open;
mod pack;
mod update;

use std::net::Ipv4Addr;

use super::*;
use crate::types::{Family, Nlri, NlriList, PathId};

/// A session in Established with both families, four-octet AS numbers, across an AS border to AS 64512.
pub(super) fn ebgp() -> Context {
    let families = PerFamily { ipv4: true, ipv6: true };
    Context { four_octet_as: true, families, ebgp: true, peer_asn: Asn(64512), check_first_as: true, ..Context::default() }
}

/// The same within an AS.
pub(super) fn ibgp() -> Context {
    Context { ebgp: false, ..ebgp() }
}

/// To a speaker of two-octet AS numbers.
pub(super) fn two_octet() -> Context {
    Context { four_octet_as: false, ..ebgp() }
}

/// An attribute: flags (extended length where needed), code, length, value.
pub(super) fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    let header = match (flags & 0x10, length) {
        (0, [0, low]) => vec![flags, code, low],
        (_, [high, low]) => vec![flags | 0x10, code, high, low],
    };
    [header, value.to_vec()].concat()
}

/// The body of an UPDATE.
pub(super) fn body(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    [&length(withdrawn)[..], withdrawn, &length(attributes), attributes, nlri].concat()
}

/// ORIGIN, AS_PATH and NEXT_HOP as `context`'s peer would send them.
pub(super) fn mandatory(context: &Context) -> Vec<Vec<u8>> {
    let path: &[u8] = match (context.ebgp, context.four_octet_as) {
        (false, _) => &[],
        (true, true) => &[2, 1, 0, 0, 0xfc, 0],
        (true, false) => &[2, 1, 0xfc, 0],
    };
    let mut attributes = vec![attribute(0x40, 1, &[0]), attribute(0x40, 2, path), attribute(0x40, 3, &[10, 0, 0, 1])];
    if !context.ebgp {
        attributes.push(attribute(0x40, 5, &[0, 0, 0, 100]));
    }
    attributes
}

pub(super) fn decode(body: &[u8], context: &Context) -> Result<Update, DecodeError> {
    match Message::decode(Kind::Update, body, context)? {
        Message::Update(update) => Ok(update),
        other => panic!("{other:?}"),
    }
}

/// What an UPDATE came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Used as it is.
    Accept,
    /// Used without the attribute at fault, or with a default.
    Act(FaultAction),
    /// The session ends with this code and subcode.
    Reset(u8, u8),
}

pub(super) const WITHDRAW: Verdict = Verdict::Act(FaultAction::TreatAsWithdraw);
pub(super) const DISCARD: Verdict = Verdict::Act(FaultAction::DiscardAttribute);

pub(super) fn verdict(result: &Result<Update, DecodeError>) -> Verdict {
    match result {
        Ok(update) => match update.faults.iter().map(|fault| fault.action).max() {
            None => Verdict::Accept,
            Some(action) => {
                if action == FaultAction::TreatAsWithdraw {
                    assert_eq!(update.announced, []);
                }
                Verdict::Act(action)
            }
        },
        Err(error) => {
            let notification = error.notification().unwrap();
            Verdict::Reset(notification.code, notification.subcode)
        }
    }
}

/// IPv4 prefixes without path identifiers.
pub(super) fn ipv4(prefixes: &[&str]) -> NlriList {
    NlriList::Ipv4(prefixes.iter().map(|prefix| Nlri { prefix: prefix.parse().unwrap(), path_id: PathId(0) }).collect())
}

/// IPv6 prefixes without path identifiers.
pub(super) fn ipv6(prefixes: &[&str]) -> NlriList {
    NlriList::Ipv6(prefixes.iter().map(|prefix| Nlri { prefix: prefix.parse().unwrap(), path_id: PathId(0) }).collect())
}

/// 10.1.0.0/16 as an NLRI field.
pub(super) const NLRI: &[u8] = &[16, 10, 1];
/// fd00:1::/32 announced by MP_REACH_NLRI through fd00::1.
pub(super) fn mp_reach() -> Vec<u8> {
    let next_hop = "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    attribute(0x80, 14, &[&[0, 2, 1, 16][..], &next_hop, &[0, 32, 0xfd, 0, 0, 1]].concat())
}
/// fd00:2::/32 withdrawn by MP_UNREACH_NLRI.
pub(super) fn mp_unreach() -> Vec<u8> {
    attribute(0x80, 15, &[0, 2, 1, 32, 0xfd, 0, 0, 2])
}

/// xorshift: enough for tests that want many different octets and the same ones each time.
pub(super) struct Octets(pub u64);

impl Octets {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}

pub(super) fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(super) fn family(afi: u16, safi: u8) -> Family {
    Family { afi: crate::types::Afi(afi), safi: crate::types::Safi(safi) }
}
