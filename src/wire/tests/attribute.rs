use super::super::attribute::{EXTENDED, OPTIONAL, PARTIAL, TRANSITIVE};
use super::*;
use crate::types::{
    Aggregator, AsPath, Attributes, ClusterId, Community, ExtendedCommunity, Ipv4Unicast, Ipv6ExtendedCommunity, LargeCommunity, NextHop,
    Origin, Partial, Rare, RareAttributes, RouterId, UnknownAttribute,
};

/// The verdict on an UPDATE that announces 10.1.0.0/16 with good mandatory attributes, of which `attribute` replaces the one
/// with its code or joins them.
fn judged(context: &Context, attribute: &[u8]) -> (Verdict, Result<Update, DecodeError>) {
    let mut attributes = mandatory(context);
    match attributes.iter_mut().find(|known| known[1] == attribute[1]) {
        Some(known) => *known = attribute.to_vec(),
        None => attributes.push(attribute.to_vec()),
    }
    let result = decode(&body(&[16, 10, 9], &attributes.concat(), NLRI), context);
    if let Ok(update) = &result {
        let withdrawn: usize = update.withdrawn.iter().map(NlriList::len).sum();
        let all = verdict(&result) == WITHDRAW;
        assert_eq!(withdrawn - usize::from(all), 1, "the message's own withdrawal happens, and one of its announcement if so judged");
        assert_eq!(update.announced.is_empty(), all);
    }
    (verdict(&result), result)
}

const ACCEPT: Verdict = Verdict::Accept;

#[test]
fn section_7_fault_and_action() {
    let (e, i, two) = (&ebgp(), &ibgp(), &two_octet());
    let unchecked = &Context { check_first_as: false, ..ebgp() };
    let sets = &Context { allow_as_set: true, check_first_as: false, ..ebgp() };
    let own = [2, 1, 0, 0, 0xfc, 0];
    let path = |more: &[u8]| [&own[..], more].concat();
    let long = |length| vec![1; length];
    let rows = [
        ("ORIGIN IGP", e, 0x40, 1, vec![0], ACCEPT),
        ("ORIGIN INCOMPLETE", e, 0x40, 1, vec![2], ACCEPT),
        ("ORIGIN unknown", e, 0x40, 1, vec![3], WITHDRAW),
        ("ORIGIN of 0 octets", e, 0x40, 1, vec![], WITHDRAW),
        ("ORIGIN of 2 octets", e, 0x40, 1, vec![0, 0], WITHDRAW),
        ("ORIGIN with extended length", e, 0x50, 1, vec![0], ACCEPT),
        ("AS_PATH of segment type 0", e, 0x40, 2, path(&[0, 1, 0, 0, 0, 9]), WITHDRAW),
        ("AS_PATH of segment type 5", e, 0x40, 2, path(&[5, 1, 0, 0, 0, 9]), WITHDRAW),
        ("AS_PATH with an empty segment", e, 0x40, 2, path(&[2, 0]), WITHDRAW),
        ("AS_PATH, segment overruns", e, 0x40, 2, path(&[2, 2, 0, 0, 0, 9]), WITHDRAW),
        ("AS_PATH, segment overruns by an octet", e, 0x40, 2, path(&[2, 1, 0, 0, 0]), WITHDRAW),
        ("AS_PATH, one octet left over", e, 0x40, 2, path(&[2]), WITHDRAW),
        ("AS_PATH with AS 0", e, 0x40, 2, path(&[2, 1, 0, 0, 0, 0]), WITHDRAW),
        ("AS_PATH with a confederation sequence", e, 0x40, 2, path(&[3, 1, 0, 0, 0, 9]), WITHDRAW),
        ("AS_PATH with a confederation set", i, 0x40, 2, path(&[4, 1, 0, 0, 0, 9]), WITHDRAW),
        ("AS_PATH with an AS_SET", e, 0x40, 2, path(&[1, 1, 0, 0, 0, 9]), WITHDRAW),
        ("AS_PATH with an AS_SET on iBGP", i, 0x40, 2, path(&[1, 1, 0, 0, 0, 9]), WITHDRAW),
        ("AS_PATH with an AS_SET, allowed", sets, 0x40, 2, path(&[1, 1, 0, 0, 0, 9]), ACCEPT),
        ("AS_PATH of another first AS", e, 0x40, 2, vec![2, 1, 0, 0, 0xfc, 1], WITHDRAW),
        ("AS_PATH of another first AS, unchecked", unchecked, 0x40, 2, vec![2, 1, 0, 0, 0xfc, 1], ACCEPT),
        ("AS_PATH empty across an AS border", e, 0x40, 2, vec![], WITHDRAW),
        ("AS_PATH empty, unchecked", unchecked, 0x40, 2, vec![], ACCEPT),
        ("AS_PATH empty on iBGP", i, 0x40, 2, vec![], ACCEPT),
        ("AS_PATH of another first AS on iBGP", i, 0x40, 2, vec![2, 1, 0, 0, 0xfc, 1], ACCEPT),
        ("AS_PATH of four octets an AS from an old speaker", two, 0x40, 2, own.to_vec(), WITHDRAW),
        ("NEXT_HOP of 3 octets", e, 0x40, 3, vec![10, 0, 0], WITHDRAW),
        ("NEXT_HOP of 16 octets", e, 0x40, 3, long(16), WITHDRAW),
        ("NEXT_HOP 0.0.0.0", e, 0x40, 3, vec![0, 0, 0, 0], WITHDRAW),
        ("NEXT_HOP 0.1.2.3", e, 0x40, 3, vec![0, 1, 2, 3], WITHDRAW),
        ("NEXT_HOP 127.0.0.1", e, 0x40, 3, vec![127, 0, 0, 1], WITHDRAW),
        ("NEXT_HOP 224.0.0.1", e, 0x40, 3, vec![224, 0, 0, 1], WITHDRAW),
        ("NEXT_HOP 240.0.0.1", e, 0x40, 3, vec![240, 0, 0, 1], WITHDRAW),
        ("NEXT_HOP 255.255.255.255", e, 0x40, 3, vec![255; 4], WITHDRAW),
        ("NEXT_HOP 223.255.255.255", e, 0x40, 3, vec![223, 255, 255, 255], ACCEPT),
        ("MULTI_EXIT_DISC", e, 0x80, 4, long(4), ACCEPT),
        ("MULTI_EXIT_DISC of 0 octets", e, 0x80, 4, vec![], WITHDRAW),
        ("MULTI_EXIT_DISC of 5 octets", e, 0x80, 4, long(5), WITHDRAW),
        ("LOCAL_PREF from another AS", e, 0x40, 5, long(4), DISCARD),
        ("LOCAL_PREF of 3 octets from another AS", e, 0x40, 5, long(3), DISCARD),
        ("LOCAL_PREF of wrong flags from another AS", e, 0xc0, 5, long(4), DISCARD),
        ("LOCAL_PREF on iBGP", i, 0x40, 5, long(4), ACCEPT),
        ("LOCAL_PREF of 3 octets on iBGP", i, 0x40, 5, long(3), WITHDRAW),
        ("ATOMIC_AGGREGATE", e, 0x40, 6, vec![], ACCEPT),
        ("ATOMIC_AGGREGATE of 1 octet", e, 0x40, 6, vec![0], DISCARD),
        ("AGGREGATOR", e, 0xc0, 7, long(8), ACCEPT),
        ("AGGREGATOR of 6 octets", e, 0xc0, 7, long(6), DISCARD),
        ("AGGREGATOR of 0 octets", e, 0xc0, 7, vec![], DISCARD),
        ("AGGREGATOR of an old speaker", two, 0xc0, 7, long(6), ACCEPT),
        ("AGGREGATOR of 8 octets of an old speaker", two, 0xc0, 7, long(8), DISCARD),
        ("AGGREGATOR with AS 0", e, 0xc0, 7, vec![0, 0, 0, 0, 1, 1, 1, 1], DISCARD),
        ("COMMUNITIES", e, 0xc0, 8, long(8), ACCEPT),
        ("COMMUNITIES of 0 octets", e, 0xc0, 8, vec![], WITHDRAW),
        ("COMMUNITIES of 6 octets", e, 0xc0, 8, long(6), WITHDRAW),
        ("ORIGINATOR_ID from another AS", e, 0x80, 9, long(4), DISCARD),
        ("ORIGINATOR_ID of 5 octets from another AS", e, 0x80, 9, long(5), DISCARD),
        ("ORIGINATOR_ID on iBGP", i, 0x80, 9, long(4), ACCEPT),
        ("ORIGINATOR_ID of 5 octets on iBGP", i, 0x80, 9, long(5), WITHDRAW),
        ("CLUSTER_LIST from another AS", e, 0x80, 10, long(4), DISCARD),
        ("CLUSTER_LIST of 3 octets from another AS", e, 0x80, 10, long(3), DISCARD),
        ("CLUSTER_LIST on iBGP", i, 0x80, 10, long(8), ACCEPT),
        ("CLUSTER_LIST of 0 octets on iBGP", i, 0x80, 10, vec![], WITHDRAW),
        ("CLUSTER_LIST of 6 octets on iBGP", i, 0x80, 10, long(6), WITHDRAW),
        ("EXTENDED COMMUNITIES", e, 0xc0, 16, long(16), ACCEPT),
        ("EXTENDED COMMUNITIES of 0 octets", e, 0xc0, 16, vec![], WITHDRAW),
        ("EXTENDED COMMUNITIES of 12 octets", e, 0xc0, 16, long(12), WITHDRAW),
        ("AS4_PATH from a new speaker", e, 0xc0, 17, path(&[]), DISCARD),
        ("AS4_PATH of wrong flags from a new speaker", e, 0x40, 17, path(&[]), DISCARD),
        ("AS4_PATH", two, 0xc0, 17, path(&[]), ACCEPT),
        ("AS4_PATH malformed", two, 0xc0, 17, vec![2], DISCARD),
        ("AS4_PATH with AS 0", two, 0xc0, 17, vec![2, 1, 0, 0, 0, 0], DISCARD),
        ("AS4_PATH with an AS_SET", two, 0xc0, 17, vec![1, 1, 0, 0, 0, 9], WITHDRAW),
        ("AS4_PATH with a confederation segment", two, 0xc0, 17, [&[3, 1, 0, 0, 0, 9], &own[..]].concat(), ACCEPT),
        ("AS4_AGGREGATOR from a new speaker", e, 0xc0, 18, long(8), DISCARD),
        ("AS4_AGGREGATOR", two, 0xc0, 18, long(8), ACCEPT),
        ("AS4_AGGREGATOR of 6 octets", two, 0xc0, 18, long(6), DISCARD),
        ("AS4_AGGREGATOR with AS 0", two, 0xc0, 18, vec![0; 8], DISCARD),
        ("IPv6 EXTENDED COMMUNITIES", e, 0xc0, 25, long(40), ACCEPT),
        ("IPv6 EXTENDED COMMUNITIES of 0 octets", e, 0xc0, 25, vec![], WITHDRAW),
        ("IPv6 EXTENDED COMMUNITIES of 24 octets", e, 0xc0, 25, long(24), WITHDRAW),
        ("AIGP", e, 0x80, 26, long(11), ACCEPT),
        ("LARGE COMMUNITIES", e, 0xc0, 32, long(24), ACCEPT),
        ("LARGE COMMUNITIES of 0 octets", e, 0xc0, 32, vec![], WITHDRAW),
        ("LARGE COMMUNITIES of 16 octets", e, 0xc0, 32, long(16), WITHDRAW),
        ("ONLY_TO_CUSTOMER", e, 0xc0, 35, long(4), ACCEPT),
        ("ONLY_TO_CUSTOMER of 3 octets", e, 0xc0, 35, long(3), WITHDRAW),
        ("code 0", e, 0xc0, 0, long(3), DISCARD),
        ("code 0, well-known", e, 0x40, 0, long(3), DISCARD),
        ("unknown well-known", e, 0x40, 99, long(3), Verdict::Reset(3, 2)),
        ("unknown, neither", e, 0x00, 99, long(3), Verdict::Reset(3, 2)),
        ("unknown transitive", e, 0xc0, 99, long(3), ACCEPT),
        ("unknown transitive, empty", e, 0xe0, 99, vec![], ACCEPT),
        ("unknown not transitive", e, 0x80, 99, long(3), ACCEPT),
        ("MP_REACH_NLRI of 4 octets", e, 0x80, 14, vec![0, 2, 1, 0], Verdict::Reset(3, 9)),
        ("MP_REACH_NLRI empty", e, 0x80, 14, vec![], Verdict::Reset(3, 9)),
        ("MP_REACH_NLRI, next hop overruns", e, 0x80, 14, [&[0, 2, 1, 16], &long(15)[..]].concat(), Verdict::Reset(3, 9)),
        ("MP_REACH_NLRI ends at its next hop", e, 0x80, 14, [&[0, 2, 1, 16], &long(16)[..]].concat(), Verdict::Reset(3, 9)),
        ("MP_REACH_NLRI without prefixes", e, 0x80, 14, [&[0, 2, 1, 16], &long(17)[..]].concat(), ACCEPT),
        ("MP_REACH_NLRI, prefix of /129", e, 0x80, 14, [&[0, 2, 1, 16], &long(17)[..], &[129], &long(17)].concat(), Verdict::Reset(3, 9)),
        ("MP_REACH_NLRI, prefix cut", e, 0x80, 14, [&[0, 2, 1, 16], &long(17)[..], &[64, 1]].concat(), Verdict::Reset(3, 9)),
        ("MP_REACH_NLRI of another family", e, 0x80, 14, vec![0, 1, 128, 4, 1, 1, 1, 1, 0, 255, 255], DISCARD),
        ("MP_REACH_NLRI, IPv4 next hop 127.0.0.1", e, 0x80, 14, vec![0, 1, 1, 4, 127, 0, 0, 1, 0], WITHDRAW),
        ("MP_UNREACH_NLRI of 2 octets", e, 0x80, 15, vec![0, 2], Verdict::Reset(3, 9)),
        ("MP_UNREACH_NLRI, prefix cut", e, 0x80, 15, vec![0, 2, 1, 64], Verdict::Reset(3, 9)),
        ("MP_UNREACH_NLRI of another family", e, 0x80, 15, vec![0, 25, 70, 255, 255], DISCARD),
    ];
    for (name, context, flags, code, value, expected) in rows {
        let (verdict, result) = judged(context, &attribute(flags, code, &value));
        assert_eq!(verdict, expected, "{name}: {result:?}");
        for fault in result.iter().flat_map(|update| &update.faults) {
            assert_eq!(fault.attribute, Some(code), "{name}");
        }
    }
}

#[test]
fn section_7_wrong_flags_of_every_known_attribute() {
    let good: [(u8, u8, &[u8]); 15] = [
        (0x40, 1, &[0]),
        (0x40, 2, &[]),
        (0x40, 3, &[10, 0, 0, 1]),
        (0x80, 4, &[0; 4]),
        (0x40, 5, &[0; 4]),
        (0x40, 6, &[]),
        (0xc0, 7, &[1; 8]),
        (0xc0, 8, &[1; 4]),
        (0x80, 9, &[1; 4]),
        (0x80, 10, &[1; 4]),
        (0x80, 15, &[0, 2, 1]),
        (0xc0, 16, &[1; 8]),
        (0xc0, 25, &[1; 20]),
        (0xc0, 32, &[1; 12]),
        (0xc0, 35, &[1; 4]),
    ];
    for (right, code, value) in good {
        for flags in 0..=255_u8 {
            let expected = if flags & (OPTIONAL | TRANSITIVE) == right { ACCEPT } else { WITHDRAW };
            let octets = attribute(flags, code, value);
            assert_eq!(judged(&ibgp(), &octets).0, expected, "code {code}, flags {flags:#04x}: Partial and the low bits do not count");
        }
    }
    // The prefixes of an MP attribute are withdrawn too, whatever its flags say.
    let mut reach = mp_reach();
    reach[0] = 0xc0;
    let block = [mandatory(&ebgp()).concat(), reach].concat();
    let update = decode(&body(&[], &block, NLRI), &ebgp()).unwrap();
    assert_eq!(update.withdrawn, [ipv4(&["10.1.0.0/16"]), ipv6(&["fd00:1::/32"])]);
}

#[test]
fn u4_the_first_of_two_is_used() {
    let block = [mandatory(&ebgp()).concat(), attribute(0x80, 4, &[0, 0, 0, 1]), attribute(0x80, 4, &[9])].concat();
    let result = decode(&body(&[], &block, NLRI), &ebgp());
    assert_eq!(verdict(&result), DISCARD);
    assert_eq!(result.unwrap().announced[0].0.med, Some(1));
    for twice in [mp_reach(), mp_unreach()] {
        let block = [mandatory(&ebgp()).concat(), twice.clone(), twice].concat();
        assert_eq!(verdict(&decode(&body(&[], &block, NLRI), &ebgp())), Verdict::Reset(3, 1));
    }
    let unknown = attribute(0xc0, 99, &[1]);
    let block = [mandatory(&ebgp()).concat(), unknown, attribute(0xc0, 99, &[2])].concat();
    let update = decode(&body(&[], &block, NLRI), &ebgp()).unwrap();
    assert_eq!(update.announced[0].0.rare.unknown.iter().map(|u| &u.value[..]).collect::<Vec<_>>(), [&[1][..]]);
}

#[test]
fn section_7_the_notification_holds_the_attribute() {
    let unknown = attribute(0x40, 99, &[1, 2, 3]);
    let error = judged(&ebgp(), &unknown).1.unwrap_err();
    assert_eq!(error.notification(), Some(Notification { code: 3, subcode: 2, data: unknown.into() }));
    let cut = attribute(0x80, 15, &[0, 2, 1, 64, 1]);
    let error = judged(&ebgp(), &cut).1.unwrap_err();
    assert_eq!(error.notification(), Some(Notification { code: 3, subcode: 9, data: cut.into() }));
    assert_eq!(error.to_string(), "MP_UNREACH_NLRI (15): a prefix is cut short");
}

#[test]
fn large_communities_are_kept_once_in_order() {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let value = words(&[9, 0, 1, 1, 2, 3, 9, 0, 1, 4, 5, 6, 1, 2, 3]);
    let update = judged(&ebgp(), &attribute(0xc0, 32, &value)).1.unwrap();
    let expected = [LargeCommunity(9, 0, 1), LargeCommunity(1, 2, 3), LargeCommunity(4, 5, 6)];
    assert_eq!(*update.announced[0].0.rare.large_communities, expected);
}

/// What is heard of `attributes` when they are sent and read within `context`, and the octets.
fn there_and_back(attributes: &Attributes, context: &Context) -> (Attributes, Vec<u8>) {
    let nlri = [Nlri { prefix: "10.1.0.0/16".parse().unwrap(), path_id: PathId(0) }];
    let mut frames = Vec::new();
    assert_eq!(super::super::pack::announce::<Ipv4Unicast>(attributes, &nlri, context, &mut frames), []);
    let mut update = decode(&frames[0][19..], context).unwrap();
    assert_eq!(update.faults, []);
    (Attributes::clone(&update.announced.remove(0).0), frames[0].to_vec())
}

/// Every attribute, filled.
pub(super) fn full() -> Attributes {
    Attributes {
        origin: Origin::Incomplete,
        atomic_aggregate: true,
        partial: [8, 35].into_iter().fold(Partial::default(), |mut partial, code| {
            partial.insert(code);
            partial
        }),
        next_hop: NextHop::Global("10.0.0.1".parse().unwrap()),
        as_path: AsPath::sequence([64512, 70000].map(Asn)),
        med: Some(0),
        local_pref: Some(u32::MAX),
        communities: [Community(2), Community(1), Community::NO_EXPORT].into(),
        rare: Rare::from(RareAttributes {
            aggregator: Some(Aggregator { asn: Asn(70000), address: address("9.9.9.9") }),
            originator_id: Some(RouterId(address("1.2.3.4"))),
            only_to_customer: Some(Asn(70001)),
            cluster_list: [ClusterId(address("5.5.5.5")), ClusterId(address("4.4.4.4"))].into(),
            extended_communities: [ExtendedCommunity([3; 8]), ExtendedCommunity([0x43; 8])].into(),
            ipv6_extended_communities: [Ipv6ExtendedCommunity([5; 20])].into(),
            large_communities: [LargeCommunity(3, 2, 1), LargeCommunity(1, 2, 3)].into(),
            unknown: [(23, 4), (40, 300), (255, 0)]
                .map(|(code, length)| UnknownAttribute { flags: OPTIONAL | TRANSITIVE | PARTIAL, code, value: vec![code; length].into() })
                .into(),
        }),
    }
}

/// The codes of the attributes of a message, in order, with their flags.
pub(super) fn headers(frame: &[u8]) -> Vec<(u8, u8)> {
    let mut block = &frame[23..23 + usize::from(u16::from_be_bytes([frame[21], frame[22]]))];
    let mut headers = Vec::new();
    while let [flags, code, rest @ ..] = block {
        let (length, rest) = match flags & EXTENDED {
            0 => (usize::from(rest[0]), &rest[1..]),
            _ => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
        };
        assert_eq!(flags & EXTENDED != 0, length > 255, "extended length where it is needed, and only there");
        headers.push((*flags, *code));
        block = &rest[length..];
    }
    headers
}

#[test]
fn u23_v23_every_attribute_there_and_back_in_order() {
    for four_octet_as in [true, false] {
        let inside = Context { four_octet_as, ..ibgp() };
        let (heard, frame) = there_and_back(&full(), &inside);
        assert_eq!(heard, full());
        let codes: Vec<u8> = headers(&frame).iter().map(|(_, code)| *code).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        assert_eq!(codes.contains(&17), !four_octet_as);
        assert_eq!(
            headers(&frame).iter().filter(|(flags, _)| flags & 0x2f != 0).map(|(_, code)| *code).collect::<Vec<_>>(),
            [8, 23, 35, 40, 255]
        );
    }
    // Across an AS border what belongs to iBGP is neither sent nor heard.
    let (heard, frame) = there_and_back(&full(), &ebgp());
    let mut expected = Attributes { local_pref: None, ..full() };
    (expected.rare.originator_id, expected.rare.cluster_list) = (None, Vec::new());
    assert_eq!(heard, expected);
    assert!(!headers(&frame).iter().any(|(_, code)| matches!(code, 5 | 9 | 10)));
}

#[test]
fn u20_v6_unknown_transitive_attributes_pass_untouched_but_partial() {
    let mut random = Octets(0x2545_f491_4f6c_dd1d);
    for code in [11, 19, 23, 28, 33, 40, 128, 255] {
        for length in [0, 1, 254, 255, 256, 3900] {
            let value = random.take(length);
            let (verdict, result) = judged(&ebgp(), &attribute(0xcf, code, &value));
            assert_eq!(verdict, ACCEPT);
            let heard = Attributes::clone(&result.unwrap().announced[0].0);
            assert_eq!(*heard.rare.unknown, [UnknownAttribute { flags: 0xc0, code, value: value.clone().into() }]);
            let (_, frame) = there_and_back(&heard, &ebgp());
            let passed = attribute(0xe0, code, &value);
            let passed = if length > 255 { [&[0xf0][..], &passed[1..]].concat() } else { passed };
            assert!(frame.windows(passed.len()).any(|window| window == passed), "code {code}, {length} octets");
        }
    }
}

/// V14: what we do not use we do not parse, however false the lengths inside it are: tunnel encapsulation, prefix-SID, BGP-LS, the
/// entropy label, AIGP, BGPsec.
#[test]
fn v14_what_we_do_not_use_we_do_not_parse() {
    // A TLV that says that 65535 octets follow, one that says none for ever, and a run of them.
    let values = [&[0, 15, 0xff, 0xff, 1][..], &[0; 64], &[1, 0xff, 0xff], &[0xff; 200], &[1]];
    for value in values {
        for code in [23, 29, 40, 28, 33, 128] {
            let (verdict, result) = judged(&ebgp(), &attribute(0xc0, code, value));
            assert_eq!(verdict, ACCEPT, "{code}: {value:02x?}");
            let heard = Attributes::clone(&result.unwrap().announced[0].0);
            assert_eq!(*heard.rare.unknown, [UnknownAttribute { flags: 0xc0, code, value: value.to_vec().into() }]);
        }
        // Optional and not transitive: dropped without a look.
        for code in [26, 29, 40] {
            let (verdict, result) = judged(&ebgp(), &attribute(0x80, code, value));
            assert_eq!((verdict, result.unwrap().announced[0].0.rare.unknown.len()), (ACCEPT, 0), "{code}");
        }
    }
}

#[test]
fn a_partial_bit_once_set_stays_set() {
    let known: [(u8, usize); 6] = [(7, 8), (8, 4), (16, 8), (25, 20), (32, 12), (35, 4)];
    for (code, length) in known {
        for (flags, sent) in [(0xc0, 0xc0), (0xe0, 0xe0)] {
            let octets = attribute(flags, code, &vec![1; length]);
            let heard = judged(&ebgp(), &octets).1.unwrap().announced.remove(0).0;
            assert_eq!(heard.partial.contains(code), flags == 0xe0);
            let (again, frame) = there_and_back(&heard, &ebgp());
            assert_eq!(again, *heard);
            assert!(headers(&frame).contains(&(sent, code)), "code {code}: {:?}", headers(&frame));
        }
    }
    // On attributes that have no such bit it is ignored, and not sent on.
    for octets in [attribute(0xa0, 4, &[1; 4]), attribute(0x60, 6, &[])] {
        let heard = judged(&ebgp(), &octets).1.unwrap().announced.remove(0).0;
        assert!(heard.partial.is_empty());
        let (_, frame) = there_and_back(&heard, &ebgp());
        assert!(headers(&frame).iter().all(|(flags, _)| flags & 0x20 == 0));
    }
}

#[test]
fn u22_routes_that_differ_in_an_unknown_attribute_differ() {
    let with = |value: u8| judged(&ebgp(), &attribute(0xc0, 99, &[value])).1.unwrap().announced.remove(0).0;
    assert_ne!(with(1), with(2));
    assert_eq!(with(1), with(1));
    // Where it came from shows in none of the bits that go out anew.
    let sparse = judged(&ebgp(), &attribute(0xdf, 99, &[1])).1.unwrap().announced.remove(0).0;
    assert_eq!(with(1), sparse);
}

#[test]
fn v5_only_the_rows_that_say_so_reset_the_session() {
    let mut random = Octets(0x9e37_79b9_7f4a_7c15);
    for context in [ebgp(), ibgp(), two_octet()] {
        for code in 0..=255 {
            for flags in (0..=0xf0).step_by(16) {
                for length in [0, 1, 3, 4, 255, 256, 3000] {
                    let (verdict, _) = judged(&context, &attribute(flags, code, &random.take(length)));
                    if let Verdict::Reset(3, subcode) = verdict {
                        let known = matches!(code, 1..=10 | 14..=18 | 25 | 32 | 35);
                        let allowed = match code {
                            14 | 15 => subcode == 9,
                            0 => false,
                            _ => !known && flags & OPTIONAL == 0 && subcode == 2,
                        };
                        assert!(allowed, "code {code}, flags {flags:#04x}, {length} octets: 3/{subcode}");
                    }
                }
            }
        }
    }
}

#[test]
fn v4_every_presence_of_what_an_update_may_have() {
    for present in 0..128_u32 {
        let has = |bit: u32| present >> bit & 1 == 1;
        let known = mandatory(&ebgp());
        let mut block = Vec::new();
        (0..3).filter(|bit| has(*bit)).for_each(|bit| block.extend_from_slice(&known[bit as usize]));
        if has(3) {
            block.extend(mp_reach());
        }
        if has(4) {
            block.extend(mp_unreach());
        }
        let (nlri, withdrawn): (&[u8], &[u8]) = (if has(5) { NLRI } else { &[] }, if has(6) { &[16, 10, 9] } else { &[] });
        let result = decode(&body(withdrawn, &block, nlri), &ebgp());
        let missing = (!has(0) || !has(1)) && (has(3) || has(5)) || !has(2) && has(5);
        assert_eq!(verdict(&result), if missing { WITHDRAW } else { ACCEPT }, "{present:07b}");
        let update = result.unwrap();
        assert_eq!(update.end_of_rib, (present == 0).then_some(Family::IPV4_UNICAST));
        let announced = usize::from(has(3)) + usize::from(has(5));
        let withdrawn = usize::from(has(4)) + usize::from(has(6));
        let expected = if missing { (0, announced + withdrawn) } else { (announced, withdrawn) };
        assert_eq!((update.announced.len(), update.withdrawn.len()), expected, "{present:07b}");
    }
}
