//! What may be wrong with a message, and the one function that says what is done about it.

use bytes::Bytes;

use super::attribute::{self, Malformed};
use super::{Fault, FaultAction, HEADER, Kind, Notification, code};
use crate::types::Family;

/// Why a message, or a part of an UPDATE, cannot be used. [`DecodeError::outcome`] says what follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The marker is not all ones (1/1): the peer speaks something else, or the stream is out of step.
    #[error("no BGP message: its first 16 octets are not all ones")]
    NotSynchronised {
        /// The type octet.
        kind: u8,
    },
    /// The length cannot be (1/2).
    #[error("a message of type {kind} cannot have {length} octets")]
    BadLength {
        /// The type octet.
        kind: u8,
        /// The length field.
        length: u16,
    },
    /// The type is unknown (1/3).
    #[error("message type {0} is unknown")]
    BadType(u8),
    /// The version of an OPEN is not 4 (2/1).
    #[error("OPEN: BGP version {0} is not supported, only 4")]
    OpenVersion(u8),
    /// The optional parameters of an OPEN do not parse (2/0).
    #[error("OPEN: {0}")]
    OpenParameters(&'static str),
    /// An optional parameter of an OPEN is not known (2/4).
    #[error("OPEN: optional parameter type {0} is unknown")]
    OpenParameterType(u8),
    /// A ROUTE-REFRESH of a wrong length while RFC 7313 is in use (7/1); holds the whole message.
    #[error("ROUTE-REFRESH: {} octets instead of 23", .0.len())]
    RefreshLength(Bytes),
    /// The two length fields of an UPDATE contradict its length (3/1; U1).
    #[error("UPDATE: the {0} length exceeds the message")]
    UpdateLength(&'static str),
    /// A classic prefix field of an UPDATE does not parse (3/10; U2).
    #[error("UPDATE: {field} field: {error}")]
    Network {
        /// Which of the two fields.
        field: &'static str,
        /// What is wrong.
        error: NlriError,
    },
    /// Classic prefixes although IPv4 unicast is not in use: ignored (U11).
    #[error("UPDATE: {field} field: ipv4-unicast is not in use on this session")]
    NotInUse {
        /// Which of the two fields.
        field: &'static str,
    },
    /// The attribute list ends inside an attribute (U3).
    #[error("UPDATE: the attribute list ends inside {}", .code.map_or("an attribute header".to_owned(), attribute::name))]
    AttributeCut {
        /// The attribute that is cut, if its code is still there.
        code: Option<u8>,
    },
    /// One attribute.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// Treat-as-withdraw was due, but no prefix can be found: the prefixes may be what was damaged (3/1; U7). RFC 7606 section 5.2 wants
    /// the same where prefixes are only withdrawn, as BIRD and OpenBGPD do it; margay withdraws them and keeps the session, as FRR and
    /// GoBGP do, for they were found where they belong.
    #[error("UPDATE: a fault that asks for withdrawal, and no prefix to withdraw")]
    NothingToWithdraw,
    /// One of the above that ends the session, with every other fault of the same UPDATE (U6).
    #[error("{error}{}", list(.others))]
    Among {
        /// What ends the session.
        error: Box<DecodeError>,
        /// What else was wrong.
        others: Vec<Fault>,
    },
}

/// A fault of one attribute of an UPDATE.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", attribute::name(*.code))]
pub struct AttributeError {
    /// The attribute's code.
    pub code: u8,
    /// What is wrong with it.
    pub problem: Problem,
    /// The attribute from its flags to the end of its value, for the NOTIFICATION; may be empty.
    pub octets: Bytes,
}

/// What is wrong with an attribute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is there twice; the first is used (U4).
    #[error("repeated")]
    Repeated,
    /// Code 0.
    #[error("the code is reserved")]
    Reserved,
    /// It claims to be well-known, and is not.
    #[error("well-known by its flags, but unknown")]
    Unrecognised,
    /// The Optional or Transitive bit is not as it must be.
    #[error("flags {0:#04x}")]
    Flags(u8),
    /// The length of the value cannot be.
    #[error("length {0}")]
    Length(usize),
    /// The value does not mean anything.
    #[error("{0}")]
    Value(&'static str),
    /// An AS_SET, which RFC 9774 forbids.
    #[error("contains an AS_SET")]
    AsSet,
    /// A next hop that no router can have.
    #[error("impossible next hop {0}")]
    NextHop(std::net::Ipv4Addr),
    /// Prefixes that do not parse.
    #[error("{0}")]
    Network(NlriError),
    /// It must be there, and is not.
    #[error("missing")]
    Missing,
    /// It has no meaning across an AS border.
    #[error("from another AS")]
    FromEbgp,
    /// It has no meaning from a speaker of four-octet AS numbers (A3).
    #[error("from a speaker of four-octet AS numbers")]
    FromFourOctet,
    /// Its family is not in use on the session (U11).
    #[error("{0} is not in use on this session")]
    NotInUse(Family),
}

/// What is wrong with a list of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NlriError {
    /// A prefix longer than its family's addresses.
    #[error("prefix length {0}")]
    Length(u8),
    /// The list ends inside a prefix or a path identifier.
    #[error("a prefix is cut short")]
    Cut,
}

/// Why an UPDATE cannot be said in one message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It needs more octets than the session allows.
    #[error("the UPDATE needs {octets} octets and the session allows {limit}: split it")]
    TooLong {
        /// Octets needed.
        octets: usize,
        /// Octets allowed.
        limit: usize,
    },
    /// It neither withdraws nor announces: on the wire that would be an End-of-RIB.
    #[error("the UPDATE says nothing: do not send it")]
    Nothing,
    /// Prefixes of one kind with different attributes.
    #[error("the UPDATE announces prefixes with different attributes: use one UPDATE each")]
    DifferentAttributes,
    /// IPv4 prefixes with an IPv6 next hop, and RFC 8950 is not in use.
    #[error("IPv4 prefixes with the IPv6 next hop {0}, but the session has no extended next hop capability")]
    NextHop(std::net::IpAddr),
}

/// What follows from a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session ends, and the peer is told this; nothing at all where its own NOTIFICATION is at fault (H4).
    Reset(Option<Notification>),
    /// Less than that.
    Act(FaultAction),
}

impl DecodeError {
    /// The fault of a message whose body has a length that its type does not allow.
    pub(super) fn bad_length(kind: Kind, body: &[u8]) -> Self {
        Self::BadLength { kind: kind as u8, length: u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX) }
    }

    /// What the peer is told when this error ends the session; none where nothing may be said (H4).
    pub fn notification(&self) -> Option<Notification> {
        match self.outcome() {
            Outcome::Reset(notification) => notification,
            Outcome::Act(_) => None,
        }
    }

    /// What follows from this fault: the only place where faults become NOTIFICATIONs or actions of RFC 7606.
    pub fn outcome(&self) -> Outcome {
        const NOTIFICATION: u8 = Kind::Notification as u8;
        let reset = |code, subcode, data| Outcome::Reset(Some(Notification { code, subcode, data }));
        match self {
            Self::NotSynchronised { kind: NOTIFICATION } | Self::BadLength { kind: NOTIFICATION, .. } => Outcome::Reset(None),
            Self::NotSynchronised { .. } => reset(code::HEADER, 1, Bytes::new()),
            Self::BadLength { length, .. } => reset(code::HEADER, 2, Bytes::copy_from_slice(&length.to_be_bytes())),
            Self::BadType(kind) => reset(code::HEADER, 3, Bytes::copy_from_slice(&[*kind])),
            Self::OpenVersion(_) => reset(code::OPEN, 1, Bytes::from_static(&[0, 4])),
            Self::OpenParameters(_) => reset(code::OPEN, 0, Bytes::new()),
            Self::OpenParameterType(_) => reset(code::OPEN, 4, Bytes::new()),
            Self::RefreshLength(message) => reset(code::ROUTE_REFRESH, 1, message.clone()),
            Self::UpdateLength(_) | Self::NothingToWithdraw => reset(code::UPDATE, 1, Bytes::new()),
            Self::Network { .. } => reset(code::UPDATE, 10, Bytes::new()),
            Self::NotInUse { .. } => Outcome::Act(FaultAction::DiscardAttribute),
            Self::AttributeCut { .. } => Outcome::Act(FaultAction::TreatAsWithdraw),
            Self::Attribute(AttributeError { code, problem, octets }) => match attribute_outcome(*code, problem) {
                Ok(action) => Outcome::Act(action),
                Err(subcode) => reset(code::UPDATE, subcode, if subcode == 1 { Bytes::new() } else { octets.clone() }),
            },
            Self::Among { error, .. } => error.outcome(),
        }
    }

    /// The attribute at fault, if it is one.
    pub(super) fn attribute(&self) -> Option<u8> {
        match self {
            Self::Attribute(error) => Some(error.code),
            Self::AttributeCut { code } => *code,
            _ => None,
        }
    }
}

/// The action for a fault of an attribute, or the subcode of the UPDATE error that ends the session.
fn attribute_outcome(code: u8, problem: &Problem) -> Result<FaultAction, u8> {
    use FaultAction::{DiscardAttribute, TreatAsWithdraw, UseDefault};
    match problem {
        Problem::Repeated if matches!(code, attribute::MP_REACH_NLRI | attribute::MP_UNREACH_NLRI) => Err(1),
        Problem::Unrecognised => Err(2),
        Problem::Missing if code == attribute::LOCAL_PREF => Ok(UseDefault),
        Problem::Flags(_) | Problem::AsSet | Problem::NextHop(_) | Problem::Missing => Ok(TreatAsWithdraw),
        Problem::Repeated | Problem::Reserved | Problem::FromEbgp | Problem::FromFourOctet | Problem::NotInUse(_) => Ok(DiscardAttribute),
        Problem::Length(_) | Problem::Value(_) | Problem::Network(_) => match attribute::malformed(code) {
            Malformed::Reset => Err(9),
            Malformed::Withdraw => Ok(TreatAsWithdraw),
            Malformed::Discard => Ok(DiscardAttribute),
        },
    }
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("; {}", fault.what)).collect()
}
