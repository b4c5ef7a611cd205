//! The attribute table: for each path attribute its code, flags, decoder, encoder, and what a malformed value costs.
//!
//! A decoder fills its part of a [`Draft`]; an encoder appends the value and says whether there is one. Headers are made
//! here, anew, on output (V23): extended length only where the value exceeds 255 octets, codes ascending (U23).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Context, Problem, as_path, nlri};
use crate::types::{
    Afi, Aggregator, AsPath, Asn, Attributes, ClusterId, Community, ExtendedCommunity, Family, Ipv6ExtendedCommunity, LargeCommunity,
    NextHop, NlriList, Origin, Partial, RouterId, Safi, UnknownAttribute,
};

pub(super) const ORIGIN: u8 = 1;
pub(super) const AS_PATH: u8 = 2;
pub(super) const NEXT_HOP: u8 = 3;
pub(super) const LOCAL_PREF: u8 = 5;
pub(super) const MP_REACH_NLRI: u8 = 14;
pub(super) const MP_UNREACH_NLRI: u8 = 15;

pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED: u8 = 0x10;

/// What a malformed value costs (RFC 7606 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The attribute.
    Discard,
    /// The routes.
    Withdraw,
    /// The session.
    Reset,
}

/// On which sessions an attribute has a meaning; elsewhere it is neither sent nor used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// Within an AS.
    Ibgp,
    /// With speakers of two-octet AS numbers (A3).
    TwoOctet,
}

/// One row of the table.
pub(super) struct Row {
    pub(super) code: u8,
    name: &'static str,
    flags: u8,
    scope: Scope,
    malformed: Malformed,
    decode: fn(&[u8], &Context, &mut Draft) -> Result<(), Problem>,
    encode: fn(&Outgoing<'_>, &mut Vec<u8>) -> bool,
}

const WELL_KNOWN: u8 = TRANSITIVE;
const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;

macro_rules! row {
    ($code:literal $name:literal $flags:ident $scope:ident $malformed:ident $decode:ident $encode:ident) => {
        Row {
            code: $code,
            name: $name,
            flags: $flags,
            scope: Scope::$scope,
            malformed: Malformed::$malformed,
            decode: decode::$decode,
            encode: encode::$encode,
        }
    };
}

/// All attributes that margay knows, in ascending order. MP_REACH_NLRI and MP_UNREACH_NLRI are written by whoever lays out the
/// message, since they hold prefixes.
#[rustfmt::skip]
static ROWS: [Row; 18] = [
    row!( 1 "ORIGIN"                    WELL_KNOWN          All      Withdraw origin                    origin),
    row!( 2 "AS_PATH"                   WELL_KNOWN          All      Withdraw as_path                   as_path),
    row!( 3 "NEXT_HOP"                  WELL_KNOWN          All      Withdraw next_hop                  next_hop),
    row!( 4 "MULTI_EXIT_DISC"           OPTIONAL            All      Withdraw med                       med),
    row!( 5 "LOCAL_PREF"                WELL_KNOWN          Ibgp     Withdraw local_pref                local_pref),
    row!( 6 "ATOMIC_AGGREGATE"          WELL_KNOWN          All      Discard  atomic_aggregate          atomic_aggregate),
    row!( 7 "AGGREGATOR"                OPTIONAL_TRANSITIVE All      Discard  aggregator                aggregator),
    row!( 8 "COMMUNITIES"               OPTIONAL_TRANSITIVE All      Withdraw communities               communities),
    row!( 9 "ORIGINATOR_ID"             OPTIONAL            Ibgp     Withdraw originator_id             originator_id),
    row!(10 "CLUSTER_LIST"              OPTIONAL            Ibgp     Withdraw cluster_list              cluster_list),
    row!(14 "MP_REACH_NLRI"             OPTIONAL            All      Reset    mp_reach                  elsewhere),
    row!(15 "MP_UNREACH_NLRI"           OPTIONAL            All      Reset    mp_unreach                elsewhere),
    row!(16 "EXTENDED COMMUNITIES"      OPTIONAL_TRANSITIVE All      Withdraw extended_communities      extended_communities),
    row!(17 "AS4_PATH"                  OPTIONAL_TRANSITIVE TwoOctet Discard  as4_path                  as4_path),
    row!(18 "AS4_AGGREGATOR"            OPTIONAL_TRANSITIVE TwoOctet Discard  as4_aggregator            as4_aggregator),
    row!(25 "IPv6 EXTENDED COMMUNITIES" OPTIONAL_TRANSITIVE All      Withdraw ipv6_extended_communities ipv6_extended_communities),
    row!(32 "LARGE COMMUNITIES"         OPTIONAL_TRANSITIVE All      Withdraw large_communities         large_communities),
    row!(35 "ONLY_TO_CUSTOMER"          OPTIONAL_TRANSITIVE All      Withdraw only_to_customer          only_to_customer),
];

static INDEX: [u8; 256] = {
    let mut index = [u8::MAX; 256];
    let mut row = 0;
    while row < ROWS.len() {
        index[ROWS[row].code as usize] = row as u8;
        row += 1;
    }
    index
};

fn row(code: u8) -> Option<&'static Row> {
    ROWS.get(usize::from(INDEX[usize::from(code)]))
}

/// The attribute for people: its name and code.
pub(super) fn name(code: u8) -> String {
    match row(code) {
        Some(row) => format!("{} ({code})", row.name),
        None => format!("attribute {code}"),
    }
}

/// What a malformed value of this attribute costs.
pub(super) fn malformed(code: u8) -> Malformed {
    row(code).map_or(Malformed::Discard, |row| row.malformed)
}

/// The attributes of one UPDATE while they are read.
#[derive(Default)]
pub(super) struct Draft {
    /// What is settled. Its next hop is not: there may be two.
    pub(super) attributes: Attributes,
    /// NEXT_HOP.
    pub(super) next_hop: Option<Ipv4Addr>,
    /// AS4_PATH, before the merge.
    pub(super) as4_path: Option<AsPath>,
    /// AS4_AGGREGATOR, before the merge.
    pub(super) as4_aggregator: Option<Aggregator>,
    /// Unknown transitive attributes in the order of the message.
    pub(super) unknown: Vec<UnknownAttribute>,
    /// MP_REACH_NLRI.
    pub(super) reach: Option<(NextHop, NlriList)>,
    /// MP_UNREACH_NLRI.
    pub(super) unreach: Option<NlriList>,
    /// There are prefixes in an MP attribute, whether they can be used or not.
    pub(super) prefixes: bool,
}

/// Reads one attribute into the draft, and names everything that is wrong with it.
pub(super) fn decode(flags: u8, code: u8, value: &[u8], context: &Context, draft: &mut Draft, mut problem: impl FnMut(Problem)) {
    let Some(row) = row(code) else {
        match flags & OPTIONAL_TRANSITIVE {
            _ if code == 0 => problem(Problem::Reserved),
            OPTIONAL_TRANSITIVE => {
                draft.unknown.push(UnknownAttribute { flags: flags & (OPTIONAL_TRANSITIVE | PARTIAL), code, value: value.into() });
            }
            OPTIONAL => {}
            _ => problem(Problem::Unrecognised),
        }
        return;
    };
    match row.scope {
        Scope::Ibgp if context.ebgp => return problem(Problem::FromEbgp),
        Scope::TwoOctet if context.four_octet_as => return problem(Problem::FromFourOctet),
        _ => {}
    }
    if flags & OPTIONAL_TRANSITIVE != row.flags {
        problem(Problem::Flags(flags));
    }
    match (row.decode)(value, context, draft) {
        Err(value_problem) => problem(value_problem),
        // Not for one that is discarded: nothing of it goes on.
        Ok(()) if flags & PARTIAL != 0 => draft.attributes.partial.insert(code),
        Ok(()) => {}
    }
}

/// What is written in front of prefixes.
pub(super) struct Outgoing<'a> {
    pub(super) attributes: &'a Attributes,
    pub(super) context: &'a Context,
    /// NEXT_HOP, for classic IPv4 prefixes.
    pub(super) next_hop: Option<Ipv4Addr>,
}

/// Appends all attributes but MP_REACH_NLRI.
pub(super) fn encode(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) {
    let mut unknown = outgoing.attributes.rare.unknown.iter().peekable();
    for row in &ROWS {
        while let Some(attribute) = unknown.next_if(|attribute| attribute.code < row.code) {
            put_unknown(attribute, out);
        }
        match row.scope {
            Scope::Ibgp if outgoing.context.ebgp => {}
            Scope::TwoOctet if outgoing.context.four_octet_as => {}
            _ => put(flags(row, outgoing.attributes.partial), row.code, out, |out| (row.encode)(outgoing, out)),
        }
    }
    unknown.for_each(|attribute| put_unknown(attribute, out));
}

/// Those of the row, and Partial where the attribute came with it.
fn flags(row: &Row, partial: Partial) -> u8 {
    if !partial.is_empty() && partial.contains(row.code) { row.flags | PARTIAL } else { row.flags }
}

/// U20: untouched, with Partial set.
fn put_unknown(attribute: &UnknownAttribute, out: &mut Vec<u8>) {
    put(OPTIONAL_TRANSITIVE | PARTIAL, attribute.code, out, |out| {
        out.extend_from_slice(&attribute.value);
        true
    });
}

/// Appends an attribute whose value `value` appends; nothing if that answers false.
fn put(flags: u8, code: u8, out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>) -> bool) {
    let start = out.len();
    out.extend_from_slice(&[flags, code, 0]);
    if !value(out) {
        out.truncate(start);
        return;
    }
    let length = out.len() - start - 3;
    match u8::try_from(length) {
        Ok(length) => out[start + 2] = length,
        Err(_) => {
            // A value beyond 65535 octets fits into no message; the caller sees that by the length of all.
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out[start] |= EXTENDED;
            out[start + 2] = high;
            out.insert(start + 3, low);
        }
    }
}

/// Appends the header of an attribute of known length.
pub(super) fn put_header(flags: u8, code: u8, length: usize, out: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[flags, code, length]),
        Err(_) => {
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out.extend_from_slice(&[flags | EXTENDED, code, high, low]);
        }
    }
}

/// A next hop that no router can have (NEXT_HOP's row in section 6.3 of RFC 4271; 240/4 is not a unicast address).
pub(super) fn is_impossible(next_hop: Ipv4Addr) -> bool {
    matches!(next_hop.octets()[0], 0 | 127 | 224..)
}

mod decode {
    //! Value to draft, one function a row.
    use super::*;

    fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], Problem> {
        value.try_into().map_err(|_| Problem::Length(value.len()))
    }

    fn list<const N: usize, T, L: FromIterator<T>>(value: &[u8], item: impl Fn([u8; N]) -> T) -> Result<L, Problem> {
        match value.as_chunks() {
            ([], _) => Err(Problem::Length(value.len())),
            (chunks, []) => Ok(chunks.iter().map(|chunk| item(*chunk)).collect()),
            _ => Err(Problem::Length(value.len())),
        }
    }

    pub(super) fn origin(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.origin = match exact(value)? {
            [0] => Origin::Igp,
            [1] => Origin::Egp,
            [2] => Origin::Incomplete,
            _ => return Err(Problem::Value("neither IGP, EGP nor INCOMPLETE")),
        };
        Ok(())
    }

    pub(super) fn as_path(value: &[u8], context: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.as_path = super::as_path::decode(value, context)?;
        Ok(())
    }

    /// Whether the value is possible matters only beside classic prefixes (U13), so it is judged there.
    pub(super) fn next_hop(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.next_hop = Some(Ipv4Addr::from(exact::<4>(value)?));
        Ok(())
    }

    pub(super) fn med(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.med = Some(u32::from_be_bytes(exact(value)?));
        Ok(())
    }

    pub(super) fn local_pref(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.local_pref = Some(u32::from_be_bytes(exact(value)?));
        Ok(())
    }

    pub(super) fn atomic_aggregate(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        exact::<0>(value)?;
        draft.attributes.atomic_aggregate = true;
        Ok(())
    }

    pub(super) fn aggregator(value: &[u8], context: &Context, draft: &mut Draft) -> Result<(), Problem> {
        let aggregator = if context.four_octet_as {
            four_octet_aggregator(value)?
        } else {
            let [high, low, a, b, c, d] = exact(value)?;
            Aggregator { asn: Asn(u16::from_be_bytes([high, low]).into()), address: Ipv4Addr::new(a, b, c, d) }
        };
        draft.attributes.rare.aggregator = Some(not_zero(aggregator)?);
        Ok(())
    }

    pub(super) fn as4_aggregator(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.as4_aggregator = Some(not_zero(four_octet_aggregator(value)?)?);
        Ok(())
    }

    fn four_octet_aggregator(value: &[u8]) -> Result<Aggregator, Problem> {
        let [a, b, c, d, address @ ..] = exact::<8>(value)?;
        Ok(Aggregator { asn: Asn(u32::from_be_bytes([a, b, c, d])), address: Ipv4Addr::from(address) })
    }

    fn not_zero(aggregator: Aggregator) -> Result<Aggregator, Problem> {
        if aggregator.asn == Asn(0) { Err(Problem::Value("by AS 0")) } else { Ok(aggregator) }
    }

    pub(super) fn as4_path(value: &[u8], context: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.as4_path = Some(super::as_path::decode_as4(value, context)?);
        Ok(())
    }

    pub(super) fn communities(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.communities = list(value, |octets| Community(u32::from_be_bytes(octets)))?;
        Ok(())
    }

    pub(super) fn originator_id(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.rare.originator_id = Some(RouterId(exact::<4>(value)?.into()));
        Ok(())
    }

    pub(super) fn cluster_list(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.rare.cluster_list = list(value, |octets: [u8; 4]| ClusterId(octets.into()))?;
        Ok(())
    }

    pub(super) fn extended_communities(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.rare.extended_communities = list(value, ExtendedCommunity)?;
        Ok(())
    }

    pub(super) fn ipv6_extended_communities(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.rare.ipv6_extended_communities = list(value, Ipv6ExtendedCommunity)?;
        Ok(())
    }

    /// Of duplicates the first is kept (RFC 8092 section 5).
    pub(super) fn large_communities(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        let large: Vec<LargeCommunity> = list(value, |octets: [u8; 12]| {
            let [a, b, c] = [0, 4, 8].map(|at| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]));
            LargeCommunity(a, b, c)
        })?;
        let mut sorted = large.clone();
        sorted.sort_unstable();
        draft.attributes.rare.large_communities = if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            let mut seen = std::collections::BTreeSet::new();
            large.into_iter().filter(|community| seen.insert(*community)).collect()
        } else {
            large
        };
        Ok(())
    }

    pub(super) fn only_to_customer(value: &[u8], _: &Context, draft: &mut Draft) -> Result<(), Problem> {
        draft.attributes.rare.only_to_customer = Some(Asn(u32::from_be_bytes(exact(value)?)));
        Ok(())
    }

    pub(super) fn mp_reach(value: &[u8], context: &Context, draft: &mut Draft) -> Result<(), Problem> {
        let [high, low, safi, length, rest @ ..] = value else { return Err(Problem::Length(value.len())) };
        let family = Family { afi: Afi(u16::from_be_bytes([*high, *low])), safi: Safi(*safi) };
        let cut = Problem::Value("the next hop exceeds the attribute");
        let Some((next_hop, [_reserved, prefixes @ ..])) = rest.split_at_checked(usize::from(*length)) else { return Err(cut) };
        draft.prefixes |= !prefixes.is_empty();
        if !context.families.has(family) {
            return Err(Problem::NotInUse(family));
        }
        let next_hop =
            mp_next_hop(family, next_hop, context).ok_or(Problem::Value("a next hop of a length that its family does not have"))?;
        let prefixes = nlri::decode(family, prefixes, context.add_path_receive.has(family)).map_err(Problem::Network)?;
        draft.reach = Some((next_hop, prefixes));
        match next_hop {
            NextHop::Global(IpAddr::V4(address)) if is_impossible(address) => Err(Problem::NextHop(address)),
            _ => Ok(()),
        }
    }

    /// The forms of N1 and N2. The interface of a link-local address is the session's, which fills it in (N3).
    fn mp_next_hop(family: Family, octets: &[u8], context: &Context) -> Option<NextHop> {
        if let (Family::IPV4_UNICAST, Ok(address)) = (family, <[u8; 4]>::try_from(octets)) {
            return Some(NextHop::Global(IpAddr::V4(address.into())));
        }
        if family == Family::IPV4_UNICAST && !context.extended_next_hop {
            return None;
        }
        let (chunks, []) = octets.as_chunks::<16>() else { return None };
        let chunks: &[[u8; 16]] = chunks;
        match *chunks {
            [one] => Some(one_address(one.into())),
            [first, second] => Some(two_addresses(first.into(), second.into())),
            _ => None,
        }
    }

    fn one_address(address: Ipv6Addr) -> NextHop {
        match address.is_unicast_link_local() {
            true => NextHop::LinkLocal { address, interface: 0 },
            false => NextHop::Global(IpAddr::V6(address)),
        }
    }

    fn two_addresses(global: Ipv6Addr, link_local: Ipv6Addr) -> NextHop {
        if !link_local.is_unicast_link_local() {
            one_address(global)
        } else if global.is_unspecified() || global.is_unicast_link_local() {
            NextHop::LinkLocal { address: link_local, interface: 0 }
        } else {
            NextHop::GlobalAndLinkLocal { global, link_local, interface: 0 }
        }
    }

    pub(super) fn mp_unreach(value: &[u8], context: &Context, draft: &mut Draft) -> Result<(), Problem> {
        let [high, low, safi, prefixes @ ..] = value else { return Err(Problem::Length(value.len())) };
        let family = Family { afi: Afi(u16::from_be_bytes([*high, *low])), safi: Safi(*safi) };
        draft.prefixes |= !prefixes.is_empty();
        if !context.families.has(family) {
            return Err(Problem::NotInUse(family));
        }
        draft.unreach = Some(nlri::decode(family, prefixes, context.add_path_receive.has(family)).map_err(Problem::Network)?);
        Ok(())
    }
}

mod encode {
    //! Attributes to value, one function a row; false where there is nothing to write.
    use super::*;

    fn number(number: Option<u32>, out: &mut Vec<u8>) -> bool {
        number.into_iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
        number.is_some()
    }

    fn list<const N: usize, T: Copy>(items: &[T], out: &mut Vec<u8>, octets: impl Fn(T) -> [u8; N]) -> bool {
        items.iter().for_each(|item| out.extend_from_slice(&octets(*item)));
        !items.is_empty()
    }

    pub(super) fn elsewhere(_: &Outgoing<'_>, _: &mut Vec<u8>) -> bool {
        false
    }

    pub(super) fn origin(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        out.push(outgoing.attributes.origin as u8);
        true
    }

    pub(super) fn as_path(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        super::as_path::put(&outgoing.attributes.as_path, outgoing.context.four_octet_as, out);
        true
    }

    pub(super) fn next_hop(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        number(outgoing.next_hop.map(u32::from), out)
    }

    pub(super) fn med(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        number(outgoing.attributes.med, out)
    }

    pub(super) fn local_pref(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        number(outgoing.attributes.local_pref, out)
    }

    pub(super) fn atomic_aggregate(outgoing: &Outgoing<'_>, _: &mut Vec<u8>) -> bool {
        outgoing.attributes.atomic_aggregate
    }

    pub(super) fn aggregator(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        let Some(aggregator) = outgoing.attributes.rare.aggregator else { return false };
        match outgoing.context.four_octet_as {
            true => out.extend_from_slice(&aggregator.asn.0.to_be_bytes()),
            false => out.extend_from_slice(&aggregator.asn.two_octets().to_be_bytes()),
        }
        out.extend_from_slice(&aggregator.address.octets());
        true
    }

    /// A1: only where AGGREGATOR had to say AS_TRANS.
    pub(super) fn as4_aggregator(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        let Some(aggregator) = outgoing.attributes.rare.aggregator.filter(|aggregator| u16::try_from(aggregator.asn.0).is_err()) else {
            return false;
        };
        out.extend_from_slice(&aggregator.asn.0.to_be_bytes());
        out.extend_from_slice(&aggregator.address.octets());
        true
    }

    /// A1: only where AS_PATH had to say AS_TRANS.
    pub(super) fn as4_path(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        let path = &outgoing.attributes.as_path;
        let needed = super::as_path::needs_as4(path);
        if needed {
            super::as_path::put_as4(path, out);
        }
        needed
    }

    pub(super) fn communities(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        list(&outgoing.attributes.communities, out, |community| community.0.to_be_bytes())
    }

    pub(super) fn originator_id(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        number(outgoing.attributes.rare.originator_id.map(|id| id.0.into()), out)
    }

    pub(super) fn cluster_list(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        list(&outgoing.attributes.rare.cluster_list, out, |cluster| cluster.0.octets())
    }

    pub(super) fn extended_communities(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        list(&outgoing.attributes.rare.extended_communities, out, |community| community.0)
    }

    pub(super) fn ipv6_extended_communities(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        list(&outgoing.attributes.rare.ipv6_extended_communities, out, |community| community.0)
    }

    pub(super) fn large_communities(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        outgoing.attributes.rare.large_communities.iter().for_each(|LargeCommunity(a, b, c)| {
            [a, b, c].iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
        });
        !outgoing.attributes.rare.large_communities.is_empty()
    }

    pub(super) fn only_to_customer(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) -> bool {
        number(outgoing.attributes.rare.only_to_customer.map(|asn| asn.0), out)
    }
}
