//! UPDATE (RFC 4271 4.3) with the error handling of RFC 7606: the whole message is walked, then the strongest action wins.

use std::sync::Arc;

use bytes::Bytes;

use super::attribute::{self, Draft};
use super::{AttributeError, Context, DecodeError, EncodeError, Outcome, Problem, STANDARD_LIMIT, as_path, nlri, pack};
use crate::types::{Asn, Attributes, Family, NextHop, NlriList};

/// A decoded UPDATE after RFC 7606: what it withdraws (by its own word or by treat-as-withdraw), what it
/// announces, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// Withdrawn prefixes, to be applied before `announced`.
    pub withdrawn: Vec<NlriList>,
    /// Announced prefixes with their attributes: one entry for the classic field, one for MP_REACH_NLRI.
    pub announced: Vec<(Arc<Attributes>, NlriList)>,
    /// This UPDATE is the End-of-RIB marker of a family (U12).
    pub end_of_rib: Option<Family>,
    /// Faults that did not cost the session, in order of the message.
    pub faults: Vec<Fault>,
}

/// One fault in an UPDATE and what was done about it (RFC 7606).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The attribute's code; none for faults of structure.
    pub attribute: Option<u8>,
    /// In words, for logs and `show problems`.
    pub what: String,
    /// The action taken.
    pub action: FaultAction,
}

/// RFC 7606's actions short of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultAction {
    /// Something was missing and its default was taken (LOCAL_PREF on iBGP, U5).
    UseDefault,
    /// The attribute was dropped, the rest used.
    DiscardAttribute,
    /// Every prefix of the message counts as withdrawn.
    TreatAsWithdraw,
}

/// LOCAL_PREF of a route from an iBGP peer that sent none (U5).
const DEFAULT_LOCAL_PREF: u32 = 100;

impl Update {
    /// Whether this UPDATE says that `family`'s table has been told (U12).
    pub fn end_of_rib(family: Family) -> Self {
        Self { end_of_rib: Some(family), ..Self::default() }
    }

    pub(super) fn decode(body: &[u8], context: &Context) -> Result<Self, DecodeError> {
        let [withdrawn, attributes, nlri] = fields(body)?;
        let mut reader = Reader { context, draft: Draft::default(), seen: [0; 256 / 64], attributes: 0, faults: Vec::new() };
        reader.walk(attributes);
        let classic_withdrawn = reader.classic("withdrawn routes", withdrawn);
        let classic_nlri = reader.classic("NLRI", nlri);
        let prefixes = reader.draft.prefixes || !withdrawn.is_empty() || !nlri.is_empty();
        let end_of_rib = reader.end_of_rib(prefixes);
        reader.judge(classic_nlri.is_some());
        reader.finish(classic_withdrawn, classic_nlri, end_of_rib, prefixes)
    }

    /// The whole message, if one can say it. Prefixes of IPv4 go into the classic fields unless their next hop is IPv6.
    pub(super) fn encode(&self, context: &Context) -> Result<Bytes, EncodeError> {
        pack::update(self, context)
    }
}

/// Cuts the body at its two length fields (U1).
fn fields(body: &[u8]) -> Result<[&[u8]; 3], DecodeError> {
    let (withdrawn, rest) = prefixed(body).ok_or(DecodeError::UpdateLength("withdrawn routes"))?;
    let (attributes, nlri) = prefixed(rest).ok_or(DecodeError::UpdateLength("attributes"))?;
    Ok([withdrawn, attributes, nlri])
}

fn prefixed(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

struct Reader<'a> {
    context: &'a Context,
    draft: Draft,
    /// Attribute codes met, a bit each.
    seen: [u64; 4],
    /// How many attributes were met.
    attributes: usize,
    faults: Vec<DecodeError>,
}

impl Reader<'_> {
    fn walk(&mut self, mut block: &[u8]) {
        while !block.is_empty() {
            self.attributes += 1;
            let Some((flags, code, value, rest)) = cut(block) else {
                self.faults.push(DecodeError::AttributeCut { code: block.get(1).copied() });
                return;
            };
            let octets = &block[..block.len() - rest.len()];
            block = rest;
            let faults = &mut self.faults;
            let mut problem = |problem| {
                let octets = Bytes::copy_from_slice(&octets[..octets.len().min(STANDARD_LIMIT)]);
                faults.push(AttributeError { code, problem, octets }.into());
            };
            let word = &mut self.seen[usize::from(code) / 64];
            let bit = 1 << (code % 64);
            if *word & bit != 0 {
                problem(Problem::Repeated);
                continue;
            }
            *word |= bit;
            if self.context.discard.has(code) {
                continue;
            }
            attribute::decode(flags, code, value, self.context, &mut self.draft, problem);
        }
    }

    /// Reads a classic field; none if it holds nothing that can be used.
    fn classic(&mut self, field: &'static str, octets: &[u8]) -> Option<NlriList> {
        if octets.is_empty() {
            return None;
        }
        let family = Family::IPV4_UNICAST;
        if !self.context.families.has(family) {
            self.faults.push(DecodeError::NotInUse { field });
            return None;
        }
        let list = nlri::decode(family, octets, self.context.add_path_receive.has(family));
        list.map_err(|error| self.faults.push(DecodeError::Network { field, error })).ok()
    }

    /// U12: nothing at all, or an empty MP_UNREACH_NLRI alone.
    fn end_of_rib(&self, prefixes: bool) -> Option<Family> {
        let family = match (self.attributes, &self.draft.unreach) {
            (0, _) => Family::IPV4_UNICAST,
            (1, Some(unreach)) => unreach.family(),
            _ => return None,
        };
        (!prefixes && self.context.families.has(family)).then_some(family)
    }

    fn has(&self, code: u8) -> bool {
        self.seen[usize::from(code) / 64] & 1 << (code % 64) != 0
    }

    /// Whether the attribute is there and nothing is wrong with it, but perhaps a second one of its kind.
    fn is_whole(&self, code: u8) -> bool {
        let broken = |fault: &DecodeError| matches!(fault, DecodeError::Attribute(error) if error.code == code && error.problem != Problem::Repeated);
        self.has(code) && !self.faults.iter().any(broken)
    }

    /// What can be judged only when all attributes are known; matters only where something is announced.
    fn judge(&mut self, classic: bool) {
        self.merge_four_octet();
        let reach = self.draft.reach.as_ref().is_some_and(|(_, prefixes)| !prefixes.is_empty());
        if !classic && !reach {
            return;
        }
        for code in [attribute::ORIGIN, attribute::AS_PATH] {
            if !self.has(code) {
                self.fault(code, Problem::Missing);
            }
        }
        if classic {
            match self.draft.next_hop {
                Some(address) if attribute::is_impossible(address) => self.fault(attribute::NEXT_HOP, Problem::NextHop(address)),
                None if !self.has(attribute::NEXT_HOP) => self.fault(attribute::NEXT_HOP, Problem::Missing),
                _ => {}
            }
        }
        let context = self.context;
        if context.ebgp {
            let first = self.draft.attributes.as_path.first();
            if context.check_first_as && first != Some(context.peer_asn) && self.is_whole(attribute::AS_PATH) {
                self.fault(attribute::AS_PATH, Problem::Value("does not begin with the peer's AS"));
            }
        } else if !self.has(attribute::LOCAL_PREF) {
            self.draft.attributes.local_pref = Some(DEFAULT_LOCAL_PREF);
            self.fault(attribute::LOCAL_PREF, Problem::Missing);
        }
    }

    fn fault(&mut self, code: u8, problem: Problem) {
        self.faults.push(AttributeError { code, problem, octets: Bytes::new() }.into());
    }

    /// A2: what an old speaker could not say in its own attributes.
    fn merge_four_octet(&mut self) {
        let Draft { attributes, as4_path, as4_aggregator, .. } = &mut self.draft;
        if attributes.rare.aggregator.is_some_and(|aggregator| aggregator.asn != Asn::TRANS) {
            return;
        }
        if let (Some(_), Some(wide)) = (attributes.rare.aggregator, as4_aggregator.take()) {
            attributes.rare.aggregator = Some(wide);
        }
        if let Some(as4_path) = as4_path.take() {
            attributes.as_path = as_path::merge(std::mem::take(&mut attributes.as_path), &as4_path);
        }
    }

    /// Decides what becomes of the message, now that all its faults are known (U6).
    fn finish(
        self,
        classic_withdrawn: Option<NlriList>,
        classic_nlri: Option<NlriList>,
        end_of_rib: Option<Family>,
        prefixes: bool,
    ) -> Result<Update, DecodeError> {
        let Self { draft, faults, .. } = self;
        let faults = if faults.is_empty() { Vec::new() } else { settle(faults, prefixes || end_of_rib.is_some())? };
        let mut withdrawn: Vec<NlriList> =
            [classic_withdrawn, draft.unreach].into_iter().flatten().filter(|prefixes| !prefixes.is_empty()).collect();
        let classic = classic_nlri.map(|prefixes| (draft.next_hop.map(|address| NextHop::Global(address.into())), prefixes));
        let reach = draft.reach.map(|(next_hop, prefixes)| (Some(next_hop), prefixes)).filter(|(_, prefixes)| !prefixes.is_empty());
        let mut announced = Vec::new();
        if faults.iter().any(|fault| fault.action == FaultAction::TreatAsWithdraw) {
            withdrawn.extend([classic, reach].into_iter().flatten().map(|(_, prefixes)| prefixes));
            return Ok(Update { withdrawn, announced, end_of_rib, faults });
        }
        let mut attributes = draft.attributes;
        if !draft.unknown.is_empty() {
            attributes.rare.unknown = draft.unknown;
            attributes.rare.unknown.sort_by_key(|attribute| attribute.code);
            attributes.rare.unknown.shrink_to_fit();
        }
        let both = classic.is_some() && reach.is_some();
        let mut twin = both.then(|| attributes.clone());
        let mut first = Some(attributes);
        for (next_hop, prefixes) in [classic, reach].into_iter().flatten() {
            if let (Some(next_hop), Some(mut attributes)) = (next_hop, first.take().or_else(|| twin.take())) {
                attributes.next_hop = next_hop;
                announced.push((Arc::new(attributes), prefixes));
            }
        }
        Ok(Update { withdrawn, announced, end_of_rib, faults })
    }
}

/// One attribute off the front of a block: flags, code, value, rest; none if the block ends inside it (U3).
fn cut(block: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (&[flags, code], rest) = block.split_first_chunk()?;
    let (length, rest) = if flags & attribute::EXTENDED != 0 {
        let (length, rest) = rest.split_first_chunk()?;
        (u16::from_be_bytes(*length).into(), rest)
    } else {
        let (length, rest) = rest.split_first()?;
        (usize::from(*length), rest)
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((flags, code, value, rest))
}

/// The faults in words, unless one of them ends the session: then that one, with the others beside it.
fn settle(errors: Vec<DecodeError>, withdrawable: bool) -> Result<Vec<Fault>, DecodeError> {
    let mut faults = Vec::new();
    let mut reset = None;
    for error in errors {
        match error.outcome() {
            Outcome::Reset(_) if reset.is_none() => reset = Some(error),
            // The first of several is the one that the peer is told; the others are only named.
            Outcome::Reset(_) => {
                faults.push(Fault { attribute: error.attribute(), what: error.to_string(), action: FaultAction::TreatAsWithdraw })
            }
            Outcome::Act(action) => faults.push(Fault { attribute: error.attribute(), what: error.to_string(), action }),
        }
    }
    if reset.is_none() && !withdrawable && faults.iter().any(|fault| fault.action == FaultAction::TreatAsWithdraw) {
        reset = Some(DecodeError::NothingToWithdraw);
    }
    match reset {
        None => Ok(faults),
        Some(error) if faults.is_empty() => Err(error),
        Some(error) => Err(DecodeError::Among { error: Box::new(error), others: faults }),
    }
}
