//! Bodies of fuzzing, as functions: any octets have an answer, and what is understood survives being said again.

use bytes::BytesMut;
use margay::types::{Attributes, NlriList};
use margay::wire::{Context, DecodeError, EncodeError, FaultAction, Message, Outcome, frame};

/// Sessions that differ in how they read.
pub fn contexts() -> Vec<Context> {
    [
        "",
        "ebgp as4 ipv4 ipv6 first-as 64512",
        "ebgp as4 ipv4 ipv6 add-path extended-next-hop enhanced-refresh extended-messages",
        "ebgp ipv4 ipv6",
        "ibgp as4 ipv4 ipv6 as-set",
        "ibgp ipv6 add-path as-set",
    ]
    .map(|words| super::context(words).unwrap_or_else(|error| panic!("{error}")))
    .into()
}

/// For a fuzzer: the first octet chooses the session, the rest is what the peer says.
pub fn fuzz(data: &[u8]) {
    let Some((choice, octets)) = data.split_first() else { return };
    let contexts = contexts();
    stream(octets, &contexts[usize::from(*choice) % contexts.len()]);
}

/// Reads octets as a session would, up to the first error or the last whole message.
pub fn stream(octets: &[u8], context: &Context) {
    let mut buffer = BytesMut::from(octets);
    loop {
        match frame::next(&mut buffer, context) {
            Ok(Some(frame)) => {
                assert!(frame.octets().len() <= context.receive_limit);
                match Message::decode(frame.kind, &frame.body, context) {
                    Ok(message) => understood(&message, context),
                    Err(error) => return refused(&error),
                }
            }
            Ok(None) => return,
            Err(error) => return refused(&error),
        }
    }
}

/// An error ends the session with a NOTIFICATION that can be sent, or with none where none may be.
fn refused(error: &DecodeError) {
    assert!(matches!(error.outcome(), Outcome::Reset(_)), "{error:?}");
    assert!(!error.to_string().is_empty());
    if let Some(notification) = error.notification() {
        assert!(matches!((notification.code, notification.subcode), (1, 1..=3) | (2, 0 | 1 | 4) | (3, 1 | 2 | 9 | 10) | (7, 1)));
        assert!(notification.encode().len() <= 4096);
        let _ = notification.to_string();
    }
}

/// What is understood means the same when it is said again.
fn understood(message: &Message, context: &Context) {
    if let Message::Update(update) = message {
        let withdraw = update.faults.iter().any(|fault| fault.action == FaultAction::TreatAsWithdraw);
        assert!(!withdraw || update.announced.is_empty());
        assert!(update.withdrawn.iter().chain(update.announced.iter().map(|(_, list)| list)).all(|list| !list.is_empty()));
        assert!(update.end_of_rib.is_none() || update.withdrawn.is_empty() && update.announced.is_empty());
        update.announced.iter().for_each(|(attributes, list)| plausible(attributes, list, context));
    }
    // What we hear with path identifiers we say with them.
    let back = Context { add_path_send: context.add_path_receive, send_limit: context.receive_limit, ..context.clone() };
    let octets = match message.encode(&back) {
        Ok(octets) => octets,
        // Two tables' worth in one message; attributes that grew by AS4_PATH and the like; nothing that was of use.
        Err(EncodeError::DifferentAttributes | EncodeError::TooLong { .. } | EncodeError::Nothing) => return,
        Err(error) => panic!("{message:?}: {error}"),
    };
    assert!(octets.len() <= back.send_limit);
    let again = super::vector::decode(&octets, context).unwrap_or_else(|error| panic!("{message:?}: {error}"));
    match (message, &again) {
        (Message::Update(before), Message::Update(after)) => {
            assert_eq!(after.faults, [], "{before:?}");
            assert_eq!(before.end_of_rib, after.end_of_rib);
            assert_eq!(joined(&before.withdrawn), joined(&after.withdrawn));
            let announced =
                |update: &margay::wire::Update| joined(&update.announced.iter().map(|(_, list)| list.clone()).collect::<Vec<_>>());
            assert_eq!(announced(before), announced(after));
            for (before, after) in before.announced.iter().zip(&after.announced) {
                assert_eq!(comparable(&before.0, context), comparable(&after.0, context));
            }
        }
        _ => assert_eq!(message, &again),
    }
    assert_eq!(again.encode(&back), Ok(octets), "the second time is like the first");
}

/// Nothing gets in that the tables of faults keep out.
fn plausible(attributes: &Attributes, list: &NlriList, context: &Context) {
    assert!(attributes.as_path.asns().all(|asn| asn.0 != 0));
    assert!(
        !context.ebgp
            || attributes.local_pref.is_none() && attributes.rare.originator_id.is_none() && attributes.rare.cluster_list.is_empty()
    );
    assert!(context.ebgp || attributes.local_pref.is_some());
    assert!(context.families.has(list.family()));
    assert!(list.iter().all(|item| item.prefix == item.prefix.trunc()));
}

fn joined(lists: &[NlriList]) -> Vec<(ipnet::IpNet, u32)> {
    let mut items: Vec<_> = lists.iter().flat_map(NlriList::iter).map(|item| (item.prefix, item.path_id.0)).collect();
    items.sort_unstable();
    items
}

/// The attributes without what may change: Partial is set on the unknown ones, and an AGGREGATOR of a narrow AS makes a receiver
/// of two-octet AS numbers ignore AS4_PATH (A2).
fn comparable(attributes: &Attributes, context: &Context) -> Attributes {
    let mut attributes = attributes.clone();
    attributes.rare.unknown.iter_mut().for_each(|unknown| unknown.flags |= 0x20);
    let narrow = |asn: u32| asn <= 65535 && asn != 23456;
    if !context.four_octet_as && attributes.rare.aggregator.is_some_and(|aggregator| narrow(aggregator.asn.0)) {
        attributes.as_path = Default::default();
    }
    attributes
}

/// Makes a message a little wrong, `seed` says how.
pub fn mutate(message: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::of(seed);
    let mut octets = disturb(message.to_vec(), &mut random);
    // Most mutations should get past the header.
    if octets.len() >= 19 && random.below(8) > 0 {
        octets[..16].fill(0xff);
        let length = (octets.len() as u16).to_be_bytes();
        octets[16..18].copy_from_slice(&length);
    }
    octets
}

/// Makes what follows a header a little wrong, `seed` says how.
pub fn mutate_body(body: &[u8], seed: u64) -> Vec<u8> {
    disturb(body.to_vec(), &mut Random::of(seed))
}

fn disturb(mut octets: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let length = octets.len();
        let at = random.below(length);
        match random.below(8) {
            _ if length == 0 => octets.push(random.octet()),
            0 => octets[at] ^= 1 << random.below(8),
            1 => octets[at] = random.octet(),
            2 => octets[at] = octets[at].wrapping_add(1),
            3 => octets[at] = octets[at].wrapping_sub(1),
            4 => octets[at] = [0, 1, 127, 128, 255][random.below(5)],
            5 => octets.insert(at, random.octet()),
            6 => drop(octets.remove(at)),
            _ => {
                let end = at + random.below(length - at + 1);
                let piece = octets[at..end].to_vec();
                let to = random.below(length);
                octets.splice(to..to, piece);
            }
        }
    }
    octets
}

struct Random(u64);

impl Random {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 16) as usize).checked_rem(limit).unwrap_or(0)
    }

    fn octet(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }
}
