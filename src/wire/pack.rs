//! Attributes and prefixes to UPDATE frames, each filled to the session's limit: the hot encoder of update groups.
//!
//! IPv4 uses the classic fields, unless its next hop is IPv6 (RFC 8950); IPv6 uses MP attributes (P1). Announcements and
//! withdrawals never share a frame (P3). Attributes are encoded once and copied in front of each run of prefixes; nothing is
//! allocated for a prefix.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;

use super::attribute::{self, MP_REACH_NLRI, MP_UNREACH_NLRI, OPTIONAL, Outgoing};
use super::{Context, EncodeError, HEADER, Kind, Update, frame, nlri};
use crate::types::{AddressFamily, Attributes, Family, NextHop, Nlri, NlriList};

/// Header and the two length fields.
const FIXED: usize = HEADER + 4;

/// Appends frames that announce `nlri` with `attributes`, next hop included. Answers the prefixes that fit into no frame
/// beside these attributes, or that this session has no next hop form for: they are not sent, and the caller withdraws them
/// where they had been advertised (P2, V19).
pub fn announce<A: AddressFamily>(
    attributes: &Attributes,
    nlri: &[Nlri<A::Prefix>],
    context: &Context,
    frames: &mut Vec<Bytes>,
) -> Vec<Nlri<A::Prefix>> {
    let mut octets = Vec::with_capacity(128);
    let form = encode_head::<A>(attributes, context, &mut octets);
    Head { form, octets: &octets }.announce::<A>(nlri, context, frames)
}

/// Attributes as they stand in each frame that announces prefixes, next hop included, of one family and for one session.
#[derive(Debug)]
pub struct Heads {
    octets: Vec<u8>,
    /// Of each head what its next hop needs, none where the session has no form for it, and where its octets end.
    ends: Vec<(Option<Form>, usize)>,
}

impl Heads {
    /// None yet, with room for so many.
    pub fn with_capacity(heads: usize) -> Self {
        Self { octets: Vec::with_capacity(96 * heads), ends: Vec::with_capacity(heads) }
    }

    /// Encodes attributes for prefixes of a family.
    pub fn push<A: AddressFamily>(&mut self, attributes: &Attributes, context: &Context) {
        let form = encode_head::<A>(attributes, context, &mut self.octets);
        self.ends.push((form, self.octets.len()));
    }

    /// Those that were encoded after so many others.
    pub fn get(&self, number: usize) -> Head<'_> {
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |(_, end)| *end);
        let (form, end) = self.ends.get(number).copied().unwrap_or((None, start));
        Head { form, octets: &self.octets[start..end] }
    }
}

/// Appends all attributes that stand in front of prefixes but for what the form of the next hop says; none where there is no form.
fn encode_head<A: AddressFamily>(attributes: &Attributes, context: &Context, out: &mut Vec<u8>) -> Option<Form> {
    let form = Form::of(attributes.next_hop, A::FAMILY, context).ok()?;
    attribute::encode(&Outgoing { attributes, context, next_hop: form.classic() }, out);
    Some(form)
}

/// One of [`Heads`]. Prefixes with equal ones can share frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    form: Option<Form>,
    /// The attributes, but for MP_REACH_NLRI.
    pub octets: &'a [u8],
}

impl Head<'_> {
    /// As [`announce`], with these attributes and for the session that they are encoded for.
    pub fn announce<A: AddressFamily>(self, nlri: &[Nlri<A::Prefix>], context: &Context, frames: &mut Vec<Bytes>) -> Vec<Nlri<A::Prefix>> {
        let Some(form) = self.form else { return nlri.to_vec() };
        let path_ids = context.add_path_send.has(A::FAMILY);
        let layout = Layout { fixed: FIXED + self.octets.len(), mp: form.mp_length(), limit: context.send_limit };
        let mut rest = Vec::new();
        for run in runs::<A>(nlri, path_ids, &layout, &mut rest) {
            let mut out = layout.begin(run.octets);
            out.extend_from_slice(&[0, 0]);
            put_u16(layout.total(run.octets) - FIXED - if layout.mp.is_none() { run.octets } else { 0 }, &mut out);
            if let Form::Mp(next_hop) = form {
                put_reach(A::FAMILY, next_hop, run.octets, &mut out);
                run.items.iter().for_each(|item| nlri::put::<A>(item, path_ids, &mut out));
                out.extend_from_slice(self.octets);
            } else {
                out.extend_from_slice(self.octets);
                run.items.iter().for_each(|item| nlri::put::<A>(item, path_ids, &mut out));
            }
            frames.push(Bytes::from(out));
        }
        rest
    }
}

/// Appends frames that withdraw `nlri`.
pub fn withdraw<A: AddressFamily>(nlri: &[Nlri<A::Prefix>], context: &Context, frames: &mut Vec<Bytes>) {
    let path_ids = context.add_path_send.has(A::FAMILY);
    let classic = A::FAMILY == Family::IPV4_UNICAST;
    let layout = Layout { fixed: FIXED, mp: (!classic).then_some(3), limit: context.send_limit };
    for run in runs::<A>(nlri, path_ids, &layout, &mut Vec::new()) {
        let mut out = layout.begin(run.octets);
        if classic {
            put_u16(run.octets, &mut out);
            run.items.iter().for_each(|item| nlri::put::<A>(item, path_ids, &mut out));
            out.extend_from_slice(&[0, 0]);
        } else {
            out.extend_from_slice(&[0, 0]);
            put_u16(layout.total(run.octets) - FIXED, &mut out);
            put_unreach(A::FAMILY, run.octets, &mut out);
            run.items.iter().for_each(|item| nlri::put::<A>(item, path_ids, &mut out));
        }
        frames.push(Bytes::from(out));
    }
}

/// The End-of-RIB marker of a family: an UPDATE without anything, or with an empty MP_UNREACH_NLRI (U12).
pub fn end_of_rib(family: Family) -> Bytes {
    if family == Family::IPV4_UNICAST {
        return frame::message(Kind::Update, &[0; 4]);
    }
    let mut body = vec![0, 0, 0, 6];
    put_unreach(family, 0, &mut body);
    frame::message(Kind::Update, &body)
}

/// Appends the attributes of a table dump's entry (RFC 6396 section 4.3.4): all there are, with four-octet AS numbers; where the next hop
/// is not classic, an MP_REACH_NLRI that is cut down to it.
pub fn table_entry(attributes: &Attributes, family: Family, out: &mut Vec<u8>) {
    let context = Context { four_octet_as: true, extended_next_hop: true, ..Context::default() };
    let Ok(form) = Form::of(attributes.next_hop, family, &context) else { return };
    attribute::encode(&Outgoing { attributes, context: &context, next_hop: form.classic() }, out);
    if let Form::Mp(next_hop) = form {
        let length = next_hop_length(next_hop);
        attribute::put_header(OPTIONAL, MP_REACH_NLRI, 1 + length, out);
        out.push(length as u8);
        put_next_hop(next_hop, out);
    }
}

/// Where a next hop goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Into NEXT_HOP.
    Classic(Ipv4Addr),
    /// Into MP_REACH_NLRI.
    Mp(NextHop),
}

impl Form {
    fn of(next_hop: NextHop, family: Family, context: &Context) -> Result<Self, EncodeError> {
        match (family, next_hop) {
            (Family::IPV4_UNICAST, NextHop::Global(IpAddr::V4(address))) => Ok(Self::Classic(address)),
            (Family::IPV4_UNICAST, _) if !context.extended_next_hop => Err(EncodeError::NextHop(next_hop.address())),
            _ => Ok(Self::Mp(next_hop)),
        }
    }

    fn classic(self) -> Option<Ipv4Addr> {
        match self {
            Self::Classic(address) => Some(address),
            Self::Mp(_) => None,
        }
    }

    /// Octets of MP_REACH_NLRI's value in front of the prefixes.
    fn mp_length(self) -> Option<usize> {
        match self {
            Self::Classic(_) => None,
            Self::Mp(next_hop) => Some(5 + next_hop_length(next_hop)),
        }
    }
}

/// How the octets of a frame add up.
struct Layout {
    /// Octets that every frame has, an MP attribute not counted.
    fixed: usize,
    /// Octets of the MP attribute's value in front of the prefixes; none where prefixes go into a classic field.
    mp: Option<usize>,
    /// The most octets of a frame.
    limit: usize,
}

impl Layout {
    /// Octets of a frame whose prefixes take `prefixes` octets.
    fn total(&self, prefixes: usize) -> usize {
        let mp = self.mp.map_or(0, |mp| mp + if mp + prefixes > 255 { 4 } else { 3 });
        self.fixed + mp + prefixes
    }

    fn begin(&self, prefixes: usize) -> Vec<u8> {
        let total = self.total(prefixes);
        let mut out = Vec::with_capacity(total);
        frame::begin(&mut out, Kind::Update, total);
        out
    }
}

/// Prefixes that share a frame.
struct Run<'a, P> {
    items: &'a [Nlri<P>],
    octets: usize,
}

/// Cuts `nlri` into runs as long as fit; what fits alone into no frame goes to `rest`.
fn runs<'a, A: AddressFamily>(
    nlri: &'a [Nlri<A::Prefix>],
    path_ids: bool,
    layout: &'a Layout,
    rest: &'a mut Vec<Nlri<A::Prefix>>,
) -> impl Iterator<Item = Run<'a, A::Prefix>> {
    let mut left = nlri;
    std::iter::from_fn(move || {
        while let Some((first, others)) = left.split_first() {
            if layout.total(nlri::size::<A>(first, path_ids)) <= layout.limit {
                break;
            }
            rest.push(*first);
            left = others;
        }
        let mut octets = 0;
        let fits = left.iter().take_while(|item| {
            let more = octets + nlri::size::<A>(item, path_ids);
            let fits = layout.total(more) <= layout.limit;
            if fits {
                octets = more;
            }
            fits
        });
        let (items, others) = left.split_at(fits.count());
        left = others;
        (!items.is_empty()).then_some(Run { items, octets })
    })
}

fn put_u16(number: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
}

fn put_family(family: Family, out: &mut Vec<u8>) {
    out.extend_from_slice(&family.afi.0.to_be_bytes());
    out.push(family.safi.0);
}

/// MP_REACH_NLRI up to its prefixes, which take `prefixes` octets.
fn put_reach(family: Family, next_hop: NextHop, prefixes: usize, out: &mut Vec<u8>) {
    let length = next_hop_length(next_hop);
    attribute::put_header(OPTIONAL, MP_REACH_NLRI, 5 + length + prefixes, out);
    put_family(family, out);
    out.push(length as u8);
    put_next_hop(next_hop, out);
    out.push(0);
}

fn put_next_hop(next_hop: NextHop, out: &mut Vec<u8>) {
    match next_hop {
        NextHop::Global(IpAddr::V4(address)) => out.extend_from_slice(&address.to_ipv6_mapped().octets()),
        NextHop::Global(IpAddr::V6(address)) | NextHop::LinkLocal { address, .. } => out.extend_from_slice(&address.octets()),
        NextHop::GlobalAndLinkLocal { global, link_local, .. } => {
            out.extend_from_slice(&global.octets());
            out.extend_from_slice(&link_local.octets());
        }
    }
}

/// MP_UNREACH_NLRI up to its prefixes, which take `prefixes` octets.
fn put_unreach(family: Family, prefixes: usize, out: &mut Vec<u8>) {
    attribute::put_header(OPTIONAL, MP_UNREACH_NLRI, 3 + prefixes, out);
    put_family(family, out);
}

fn next_hop_length(next_hop: NextHop) -> usize {
    match next_hop {
        NextHop::GlobalAndLinkLocal { .. } => 32,
        NextHop::Global(_) | NextHop::LinkLocal { .. } => 16,
    }
}

/// A whole UPDATE as one message.
pub(super) fn update(update: &Update, context: &Context) -> Result<Bytes, EncodeError> {
    if let Some(family) = update.end_of_rib {
        return Ok(end_of_rib(family));
    }
    if update.withdrawn.is_empty() && update.announced.is_empty() {
        return Err(EncodeError::Nothing);
    }
    let path_ids = |list: &NlriList| context.add_path_send.has(list.family());
    let mut withdrawn = Vec::new();
    let mut unreach = Vec::new();
    for list in &update.withdrawn {
        let field = if matches!(list, NlriList::Ipv4(_)) { &mut withdrawn } else { &mut unreach };
        nlri::put_list(list, path_ids(list), field);
    }
    let mut classic: Option<(Ipv4Addr, Vec<u8>)> = None;
    let mut reach: Option<(Family, NextHop, Vec<u8>)> = None;
    for (attributes, list) in &update.announced {
        match Form::of(attributes.next_hop, list.family(), context)? {
            Form::Classic(address) => {
                let (known, prefixes) = classic.get_or_insert((address, Vec::new()));
                same(*known == address)?;
                nlri::put_list(list, path_ids(list), prefixes);
            }
            Form::Mp(next_hop) => {
                let (family, known, prefixes) = reach.get_or_insert((list.family(), next_hop, Vec::new()));
                same(*known == next_hop && *family == list.family())?;
                nlri::put_list(list, path_ids(list), prefixes);
            }
        }
    }
    let mut attributes = Vec::new();
    if let Some((family, next_hop, prefixes)) = &reach {
        put_reach(*family, *next_hop, prefixes.len(), &mut attributes);
        attributes.extend_from_slice(prefixes);
    }
    if !unreach.is_empty() {
        put_unreach(Family::IPV6_UNICAST, unreach.len(), &mut attributes);
        attributes.append(&mut unreach);
    }
    if let Some((first, _)) = update.announced.first() {
        for (other, _) in &update.announced {
            same(**first == Attributes { next_hop: first.next_hop, ..Attributes::clone(other) })?;
        }
        let next_hop = classic.as_ref().map(|(address, _)| *address);
        attribute::encode(&Outgoing { attributes: first, context, next_hop }, &mut attributes);
    }
    let nlri = classic.map(|(_, prefixes)| prefixes).unwrap_or_default();
    let octets = FIXED + withdrawn.len() + attributes.len() + nlri.len();
    if octets > context.send_limit {
        return Err(EncodeError::TooLong { octets, limit: context.send_limit });
    }
    let mut out = Vec::with_capacity(octets);
    frame::begin(&mut out, Kind::Update, octets);
    put_u16(withdrawn.len(), &mut out);
    out.append(&mut withdrawn);
    put_u16(attributes.len(), &mut out);
    out.append(&mut attributes);
    out.extend_from_slice(&nlri);
    Ok(Bytes::from(out))
}

fn same(same: bool) -> Result<(), EncodeError> {
    if same { Ok(()) } else { Err(EncodeError::DifferentAttributes) }
}
