//! A second opinion: netgauze's codec, strict, and what it is known to see otherwise.

use margay::types::{Family, RouterId};
use margay::wire::{Capability, Context, DecodeError, Message, Open};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

/// What the oracle makes of a message: the octets that it writes for it, or why it refuses it.
pub fn opinion(octets: &[u8], context: &Context) -> Result<Vec<u8>, String> {
    let mut settings = settings(context)?;
    let message = parse(octets, &mut settings)?;
    let mut written = Vec::new();
    message.write(&mut written).map_err(|error| format!("cannot write {message:?}: {error}"))?;
    Ok(written)
}

fn parse(octets: &[u8], settings: &mut BgpParsingContext) -> Result<BgpMessage, String> {
    BgpMessage::parse(&mut SliceReader::new(octets), settings).map_err(|error| format!("{error:?}"))
}

/// The oracle learns of path identifiers as a session does: from an OPEN.
fn settings(context: &Context) -> Result<BgpParsingContext, String> {
    let mut settings = BgpParsingContext::default();
    settings.set_asn4(context.four_octet_as);
    let families = Family::ALL.into_iter().filter(|family| context.add_path_receive.has(*family)).map(|family| (family, 3)).collect();
    let open =
        Open { my_as: 1, hold_time: 90, identifier: RouterId([1, 1, 1, 1].into()), capabilities: vec![Capability::AddPath(families)] };
    if let BgpMessage::Open(open) = parse(&open.encode(), &mut BgpParsingContext::default())? {
        open.capabilities().iter().for_each(|capability| settings.update_capabilities(capability, false));
    }
    Ok(settings)
}

/// Whether the two opinions on a message agree, or why they may differ: `Ok` with a name of the difference, none for agreement;
/// `Err` with both opinions where nothing explains it.
pub fn compare(octets: &[u8], context: &Context, ours: &Result<Message, DecodeError>) -> Result<Option<&'static str>, String> {
    let theirs = opinion(octets, context);
    let faults: Vec<String> = match ours {
        Err(error) => vec![error.to_string()],
        Ok(Message::Update(update)) => update.faults.iter().map(|fault| fault.what.clone()).collect(),
        Ok(_) => Vec::new(),
    };
    let unexplained = || format!("ours: {ours:?}\ntheirs: {theirs:?}");
    match (&theirs, &faults[..]) {
        (Ok(_), []) | (Err(_), [_, ..]) => Ok(None),
        (Ok(_), faults) => {
            let explained = faults.iter().map(|fault| find(STRICTER, fault)).collect::<Option<Vec<_>>>();
            explained.map(|names| names.first().copied()).ok_or_else(unexplained)
        }
        (Err(error), []) => find(LAXER, error).map(Some).ok_or_else(unexplained),
    }
}

fn find(list: &[(&str, &'static str)], words: &str) -> Option<&'static str> {
    list.iter().find(|(part, _)| words.contains(part)).map(|(_, name)| *name)
}

/// Parts of our faults, and why the oracle does not mind.
const STRICTER: &[(&str, &str)] = &[
    ("missing", "it parses attributes one by one: which must be there is its caller's business"),
    ("repeated", "likewise"),
    ("the code is reserved", "code 0 is just another unknown one"),
    ("contains AS 0", "RFC 7607 is its caller's business"),
    ("confederation segment from outside", "it knows of no sides"),
    ("impossible next hop", "any four octets are an address"),
    ("from a speaker of four-octet", "it takes AS4_PATH from anybody"),
    ("the next hop exceeds the attribute", "it takes any length for that of an IPv6 next hop"),
    ("a next hop of a length", "likewise"),
    ("well-known by its flags, but unknown", "it has no opinion on what it does not know"),
    ("ORIGINATOR_ID (9): length", "it leaves what follows the four octets"),
    ("ONLY_TO_CUSTOMER (35): length", "likewise"),
    ("AS4_AGGREGATOR (18): length", "likewise, the eight octets"),
    ("is not in use", "it parses families that were never agreed"),
];

/// Parts of the oracle's errors, and why we do not mind.
const LAXER: &[(&str, &str)] = &[
    ("InvalidBgpId", "RFC 6286 allows any identifier; the session refuses 0"),
    ("CapabilityError(", "a capability that does not parse is kept as unknown (O5), and AFI, SAFI and names are open"),
    ("UndefinedOperation", "subtypes of ROUTE-REFRESH are open (R2)"),
    ("RouteRefreshMessageParsingError(UndefinedAddressFamily", "AFIs are open"),
    ("RouteRefreshMessageParsingError(UndefinedSubsequentAddressFamily", "SAFIs are open"),
    ("BgpNotificationMessageParsingError(", "codes and subcodes of NOTIFICATION are open"),
    ("InvalidPartialFlagValue", "Partial is ignored where it has no meaning"),
    ("AsPathError(UndefinedAsPathSegmentType", "confederation segments of AS4_PATH are dropped, the rest is used"),
    ("RouteRefreshMessageParsingError(AddressTypeError", "pairs of AFI and SAFI are open"),
    ("AigpError", "what margay does not use it does not parse (V14)"),
    ("SegmentIdentifier", "likewise"),
    ("BgpLs", "likewise"),
    ("UnicastNetwork", "which prefixes may be routed is the business of the RIB (M1)"),
];
