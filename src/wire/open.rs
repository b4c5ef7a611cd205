//! OPEN (RFC 4271 4.2) and its optional parameters, in the short and the extended form (RFC 9072).
//!
//! Only structure is judged here. What the values mean (AS, hold time, identifier, required capabilities) is the
//! session's business, which knows what was configured (O2).

use bytes::Bytes;
use nom::bytes::complete::take;
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::sequence::preceded;
use nom::{IResult, Parser};

use super::capability::{self, Capability};
use super::{DecodeError, HEADER, Kind, STANDARD_LIMIT, frame};
use crate::types::{Asn, RouterId};

const VERSION: u8 = 4;
/// Optional parameter that holds capabilities (RFC 5492).
const CAPABILITIES: u8 = 2;
/// Parameter type, and length octet, that announce the extended form (RFC 9072).
const EXTENDED: u8 = 255;

/// OPEN (RFC 4271 4.2), capabilities of all its parameters gathered in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The two-octet AS field as it stands on the wire.
    pub my_as: u16,
    /// Proposed hold time in seconds.
    pub hold_time: u16,
    /// BGP identifier.
    pub identifier: RouterId,
    /// Capabilities in order, unknown ones included.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// The sender's AS: the four-octet capability decides alone, else the two-octet field (O3).
    pub fn asn(&self) -> Asn {
        let four_octet = self.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        });
        four_octet.unwrap_or(Asn(self.my_as.into()))
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (input, (version, my_as, hold_time, identifier, length)) =
            fixed(body).map_err(|_| DecodeError::bad_length(Kind::Open, body))?;
        if version != VERSION {
            return Err(DecodeError::OpenVersion(version));
        }
        let mut capabilities = Vec::new();
        let mut unknown = None;
        for (kind, value) in parameters(input, length)? {
            match kind {
                CAPABILITIES => capability::decode(value, &mut capabilities).map_err(DecodeError::OpenParameters)?,
                _ => unknown = unknown.or(Some(kind)),
            }
        }
        match unknown {
            Some(kind) => Err(DecodeError::OpenParameterType(kind)),
            None => Ok(Self { my_as, hold_time, identifier: RouterId(identifier.into()), capabilities }),
        }
    }

    /// The whole message. All capabilities go into one parameter, in the extended form only when 255 octets do not
    /// hold them (O8). Capabilities beyond the 4096 octets of an OPEN are left out.
    pub fn encode(&self) -> Bytes {
        let fixed = HEADER + 10;
        let room = STANDARD_LIMIT - fixed - 6;
        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            let before = capabilities.len();
            capability.put(&mut capabilities);
            if capabilities.len() > room {
                capabilities.truncate(before);
            }
        }
        let mut parameters = Vec::new();
        match (u8::try_from(capabilities.len()), u8::try_from(capabilities.len() + 2)) {
            (Ok(0), _) => parameters.push(0),
            (Ok(length), Ok(total)) => parameters.extend_from_slice(&[total, CAPABILITIES, length]),
            _ => {
                parameters.extend_from_slice(&[EXTENDED, EXTENDED]);
                parameters.extend_from_slice(&octets(capabilities.len() + 3));
                parameters.push(CAPABILITIES);
                parameters.extend_from_slice(&octets(capabilities.len()));
            }
        }
        parameters.append(&mut capabilities);
        let mut out = Vec::with_capacity(fixed - 1 + parameters.len());
        frame::begin(&mut out, Kind::Open, fixed - 1 + parameters.len());
        out.push(VERSION);
        out.extend_from_slice(&self.my_as.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.identifier.0.octets());
        out.append(&mut parameters);
        Bytes::from(out)
    }
}

fn octets(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn fixed(input: &[u8]) -> IResult<&[u8], (u8, u16, u16, u32, u8)> {
    (be_u8, be_u16, be_u16, be_u32, be_u8).parse(input)
}

/// The optional parameters as (type, value). The extended form is known by its type 255, whatever the first length
/// octet says, unless that is 0 (O8).
fn parameters(input: &[u8], length: u8) -> Result<Vec<(u8, &[u8])>, DecodeError> {
    let extended = length != 0 && input.first() == Some(&EXTENDED);
    let block = if extended { extended_block(input) } else { take(length).parse(input) };
    let (after, block) = block.map_err(|_| DecodeError::OpenParameters("the optional parameters exceed the message"))?;
    if !after.is_empty() {
        return Err(DecodeError::OpenParameters("octets follow the optional parameters"));
    }
    match if extended { long_parameters(block) } else { short_parameters(block) } {
        Ok(([], parameters)) => Ok(parameters),
        _ => Err(DecodeError::OpenParameters("an optional parameter exceeds the parameters' length")),
    }
}

fn extended_block(input: &[u8]) -> IResult<&[u8], &[u8]> {
    preceded(be_u8, length_data(be_u16)).parse(input)
}

fn short_parameters(block: &[u8]) -> IResult<&[u8], Vec<(u8, &[u8])>> {
    many0((be_u8, length_data(be_u8))).parse(block)
}

fn long_parameters(block: &[u8]) -> IResult<&[u8], Vec<(u8, &[u8])>> {
    many0((be_u8, length_data(be_u16))).parse(block)
}
