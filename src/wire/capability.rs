//! Capabilities (RFC 5492): each decoder sees only its own value; what does not parse is kept as unknown.

use bytes::Bytes;
use nom::combinator::all_consuming;
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u24, be_u32};
use nom::{IResult, Parser};

use crate::types::{Afi, Asn, Family, Safi};

/// A capability (RFC 5492). Malformed known ones decode as [`Capability::Unknown`] (O5, O7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Code 1.
    Multiprotocol(Family),
    /// Code 2.
    RouteRefresh,
    /// Code 5: (NLRI AFI, NLRI SAFI, next-hop AFI).
    ExtendedNextHop(Vec<(Afi, u16, Afi)>),
    /// Code 6.
    ExtendedMessage,
    /// Code 9: 0 provider, 1 RS, 2 RS-client, 3 customer, 4 peer.
    Role(u8),
    /// Code 64.
    GracefulRestart(GracefulRestart),
    /// Code 65.
    FourOctetAs(Asn),
    /// Code 69: (family, mode 1 receive, 2 send, 3 both).
    AddPath(Vec<(Family, u8)>),
    /// Code 70.
    EnhancedRouteRefresh,
    /// Code 71: (family, F bit, stale time in seconds).
    LongLivedGracefulRestart(Vec<(Family, bool, u32)>),
    /// Code 73: host and domain name, raw octets as the peer sent them.
    Fqdn {
        /// Host name.
        host: Bytes,
        /// Domain name.
        domain: Bytes,
    },
    /// Code 75.
    SoftwareVersion(Bytes),
    /// Any other code, or a known one whose value is malformed.
    Unknown {
        /// Capability code.
        code: u8,
        /// Value.
        value: Bytes,
    },
}

/// Graceful restart capability (RFC 4724, RFC 8538).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the speaker has restarted.
    pub restarting: bool,
    /// N: NOTIFICATIONs are covered too (RFC 8538).
    pub notification: bool,
    /// Seconds, 0 to 4095.
    pub restart_time: u16,
    /// Families with their F bit (forwarding state preserved).
    pub families: Vec<(Family, bool)>,
}

const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const RESTART_TIME: u16 = 0x0fff;
const FORWARDING: u8 = 0x80;

/// The TLVs of these capabilities, as they stand in an OPEN and in the data of a NOTIFICATION 2/7.
pub fn capability_octets(capabilities: &[Capability]) -> Bytes {
    let mut out = Vec::new();
    capabilities.iter().for_each(|capability| capability.put(&mut out));
    Bytes::from(out)
}

/// Appends the capabilities of one optional parameter. Fails when one exceeds the parameter, or when the peer's AS cannot
/// be known for a malformed capability 65 (O5).
pub(super) fn decode(parameter: &[u8], out: &mut Vec<Capability>) -> Result<(), &'static str> {
    let Ok(([], capabilities)) = many0((be_u8, length_data(be_u8::<&[u8], nom::error::Error<&[u8]>>))).parse(parameter) else {
        return Err("a capability exceeds its parameter");
    };
    for (code, value) in capabilities {
        match all_consuming(|value| known(code, value)).parse(value) {
            Ok((_, capability)) => out.push(capability),
            Err(_) if code == 65 => return Err("the four-octet AS capability is malformed"),
            Err(_) => out.push(Capability::Unknown { code, value: Bytes::copy_from_slice(value) }),
        }
    }
    Ok(())
}

fn known(code: u8, value: &[u8]) -> IResult<&[u8], Capability> {
    use Capability::*;
    let none = |capability: Capability| Ok((value, capability));
    match code {
        1 => (be_u16, be_u8, be_u8).map(|(afi, _, safi)| Multiprotocol(family(afi, safi))).parse(value),
        2 => none(RouteRefresh),
        5 => many0((be_u16, be_u16, be_u16).map(|(afi, safi, next_hop)| (Afi(afi), safi, Afi(next_hop)))).map(ExtendedNextHop).parse(value),
        6 => none(ExtendedMessage),
        9 => be_u8.map(Role).parse(value),
        64 => graceful_restart(value),
        65 => be_u32.map(|asn| FourOctetAs(Asn(asn))).parse(value),
        69 => many0((be_u16, be_u8, be_u8).map(|(afi, safi, mode)| (family(afi, safi), mode))).map(add_path).parse(value),
        70 => none(EnhancedRouteRefresh),
        71 => many0((be_u16, be_u8, be_u8, be_u24).map(|(afi, safi, flags, time)| (family(afi, safi), flags & FORWARDING != 0, time)))
            .map(LongLivedGracefulRestart)
            .parse(value),
        73 => (length_data(be_u8), length_data(be_u8)).map(|(host, domain)| Fqdn { host: copy(host), domain: copy(domain) }).parse(value),
        75 => length_data(be_u8).map(|version| SoftwareVersion(copy(version))).parse(value),
        _ => Ok((&[], Unknown { code, value: copy(value) })),
    }
}

fn family(afi: u16, safi: u8) -> Family {
    Family { afi: Afi(afi), safi: Safi(safi) }
}

fn copy(value: &[u8]) -> Bytes {
    Bytes::copy_from_slice(value)
}

/// Tuples with a mode that means nothing are ignored (O7).
fn add_path(mut tuples: Vec<(Family, u8)>) -> Capability {
    tuples.retain(|(_, mode)| matches!(mode, 1..=3));
    Capability::AddPath(tuples)
}

fn graceful_restart(value: &[u8]) -> IResult<&[u8], Capability> {
    let tuple = (be_u16, be_u8, be_u8).map(|(afi, safi, flags)| (family(afi, safi), flags & FORWARDING != 0));
    let (rest, (word, families)) = (be_u16, many0(tuple)).parse(value)?;
    let restart = GracefulRestart {
        restarting: word & RESTARTING != 0,
        notification: word & NOTIFICATION != 0,
        restart_time: word & RESTART_TIME,
        families,
    };
    Ok((rest, Capability::GracefulRestart(restart)))
}

impl Capability {
    /// The capability's code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Multiprotocol(_) => 1,
            Self::RouteRefresh => 2,
            Self::ExtendedNextHop(_) => 5,
            Self::ExtendedMessage => 6,
            Self::Role(_) => 9,
            Self::GracefulRestart(_) => 64,
            Self::FourOctetAs(_) => 65,
            Self::AddPath(_) => 69,
            Self::EnhancedRouteRefresh => 70,
            Self::LongLivedGracefulRestart(_) => 71,
            Self::Fqdn { .. } => 73,
            Self::SoftwareVersion(_) => 75,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// Appends code, length and value; nothing when the value exceeds the 255 octets that a length can say.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0]);
        self.put_value(out);
        match u8::try_from(out.len() - start - 2) {
            Ok(length) => out[start + 1] = length,
            Err(_) => out.truncate(start),
        }
    }

    fn put_value(&self, out: &mut Vec<u8>) {
        match self {
            Self::Multiprotocol(family) => put_family(*family, &[0], out),
            Self::RouteRefresh | Self::ExtendedMessage | Self::EnhancedRouteRefresh => {}
            Self::ExtendedNextHop(tuples) => {
                tuples
                    .iter()
                    .for_each(|(afi, safi, next_hop)| [afi.0, *safi, next_hop.0].iter().for_each(|word| out.extend(word.to_be_bytes())));
            }
            Self::Role(role) => out.push(*role),
            Self::GracefulRestart(restart) => restart.put(out),
            Self::FourOctetAs(asn) => out.extend(asn.0.to_be_bytes()),
            Self::AddPath(tuples) => tuples.iter().for_each(|(family, mode)| put_family_then(*family, *mode, out)),
            Self::LongLivedGracefulRestart(tuples) => tuples.iter().for_each(|(family, forwarding, time)| {
                put_family_then(*family, if *forwarding { FORWARDING } else { 0 }, out);
                out.extend_from_slice(&time.min(&0xff_ffff).to_be_bytes()[1..]);
            }),
            Self::Fqdn { host, domain } => [host, domain].into_iter().for_each(|name| put_short(name, out)),
            Self::SoftwareVersion(version) => put_short(version, out),
            Self::Unknown { value, .. } => out.extend_from_slice(value),
        }
    }
}

impl GracefulRestart {
    fn put(&self, out: &mut Vec<u8>) {
        let flags = if self.restarting { RESTARTING } else { 0 } | if self.notification { NOTIFICATION } else { 0 };
        out.extend((flags | self.restart_time.min(RESTART_TIME)).to_be_bytes());
        self.families.iter().for_each(|(family, forwarding)| put_family_then(*family, if *forwarding { FORWARDING } else { 0 }, out));
    }
}

fn put_family(family: Family, between: &[u8], out: &mut Vec<u8>) {
    out.extend(family.afi.0.to_be_bytes());
    out.extend_from_slice(between);
    out.push(family.safi.0);
}

fn put_family_then(family: Family, octet: u8, out: &mut Vec<u8>) {
    put_family(family, &[], out);
    out.push(octet);
}

/// A string with its length in one octet; what exceeds 255 octets is cut.
fn put_short(text: &[u8], out: &mut Vec<u8>) {
    let text = &text[..text.len().min(255)];
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}
