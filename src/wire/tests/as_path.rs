use super::super::as_path::merge;
use super::*;
use crate::types::{AsPath, Attributes, Ipv4Unicast, NextHop, SegmentKind};

fn path(segments: &[(SegmentKind, &[u32])]) -> AsPath {
    AsPath::of(segments.iter().map(|(kind, asns)| (*kind, asns.iter().copied().map(Asn))))
}

use SegmentKind::{ConfedSequence, Sequence, Set};

#[test]
fn a2_merge() {
    let sequence = |asns: &[u32]| path(&[(Sequence, asns)]);
    for (as_path, as4_path, merged) in [
        (sequence(&[1, 23456, 23456]), sequence(&[70000, 80000]), sequence(&[1, 70000, 80000])),
        (sequence(&[23456]), sequence(&[70000]), sequence(&[70000])),
        (sequence(&[1, 2]), sequence(&[70000, 70001, 70002]), sequence(&[1, 2])),
        (sequence(&[1, 2, 3]), AsPath::default(), sequence(&[1, 2, 3])),
        (AsPath::default(), sequence(&[70000]), AsPath::default()),
        // A set counts one.
        (path(&[(Sequence, &[1, 2]), (Set, &[3, 4])]), path(&[(Set, &[70000, 4])]), path(&[(Sequence, &[1, 2]), (Set, &[70000, 4])])),
        (path(&[(Set, &[1, 2]), (Sequence, &[3, 4])]), sequence(&[70000, 4]), path(&[(Set, &[1, 2]), (Sequence, &[70000, 4])])),
        // Segments are cut where the difference ends.
        (path(&[(Sequence, &[1]), (Sequence, &[2, 3])]), sequence(&[70000]), path(&[(Sequence, &[1]), (Sequence, &[2, 70000])])),
    ] {
        assert_eq!(merge(as_path.clone(), &as4_path), merged, "{as_path} + {as4_path}");
    }
    let confederation = path(&[(ConfedSequence, &[9]), (Sequence, &[1, 23456])]);
    assert_eq!(merge(confederation, &sequence(&[70000])), path(&[(ConfedSequence, &[9]), (Sequence, &[1, 70000])]));
}

fn two_octet_path(asns: &[u16]) -> Vec<u8> {
    [vec![2, asns.len() as u8], asns.iter().flat_map(|asn| asn.to_be_bytes()).collect()].concat()
}

fn four_octet_path(asns: &[u32]) -> Vec<u8> {
    [vec![2, asns.len() as u8], asns.iter().flat_map(|asn| asn.to_be_bytes()).collect()].concat()
}

#[test]
fn a2_as4_attributes_of_an_old_speaker_are_used_unless_its_aggregator_says_no() {
    let old_path = attribute(0x40, 2, &two_octet_path(&[64512, 23456]));
    let as4_path = attribute(0xc0, 17, &four_octet_path(&[64512, 70000]));
    let as4_aggregator = attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 9, 9, 9, 9]);
    for (aggregator, expected_path, expected_aggregator) in [
        (None, [64512, 70000], None),
        (Some([0x5b, 0xa0]), [64512, 70000], Some((70000, "9.9.9.9"))),
        (Some([0, 7]), [64512, 23456], Some((7, "1.1.1.1"))),
    ] {
        let mut attributes = mandatory(&two_octet());
        attributes[1] = old_path.clone();
        // A3: they may precede AS_PATH.
        attributes.splice(0..0, [as4_path.clone(), as4_aggregator.clone()]);
        attributes.extend(aggregator.map(|asn| attribute(0xc0, 7, &[&asn[..], &[1, 1, 1, 1]].concat())));
        let update = super::decode(&body(&[], &attributes.concat(), NLRI), &two_octet()).unwrap();
        let heard = &update.announced[0].0;
        assert_eq!(update.faults, []);
        assert_eq!(heard.as_path, AsPath::sequence(expected_path.map(Asn)));
        assert_eq!(heard.rare.aggregator.map(|a| (a.asn.0, a.address)), expected_aggregator.map(|(asn, at)| (asn, address(at))));
    }
}

#[test]
fn a3_as4_attributes_are_neither_used_nor_kept_between_new_speakers() {
    let mut attributes = mandatory(&ebgp());
    attributes.push(attribute(0xc0, 17, &four_octet_path(&[70000])));
    attributes.push(attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 9, 9, 9, 9]));
    let update = super::decode(&body(&[], &attributes.concat(), NLRI), &ebgp()).unwrap();
    assert_eq!(verdict(&Ok(update.clone())), DISCARD);
    let heard = &update.announced[0].0;
    assert_eq!((&heard.as_path, heard.rare.aggregator), (&AsPath::sequence([Asn(64512)]), None));
    assert!(heard.rare.unknown.is_empty());
}

/// What `context`'s peer hears of these attributes, and the octets it hears.
fn sent(attributes: &Attributes, context: &Context) -> (Attributes, Vec<u8>) {
    let nlri = [Nlri { prefix: "10.1.0.0/16".parse().unwrap(), path_id: PathId(0) }];
    let mut frames = Vec::new();
    assert_eq!(super::super::pack::announce::<Ipv4Unicast>(attributes, &nlri, context, &mut frames), []);
    let update = super::decode(&frames[0][19..], context).unwrap();
    assert_eq!(update.faults, []);
    (Attributes::clone(&update.announced[0].0), frames[0][19..].to_vec())
}

fn with_path(as_path: AsPath) -> Attributes {
    Attributes { as_path, ..Attributes::originated(NextHop::Global("10.0.0.1".parse().unwrap())) }
}

#[test]
fn a1_to_an_old_speaker() {
    use crate::types::Aggregator;
    let old = Context { check_first_as: false, ..two_octet() };
    let mut wide = with_path(AsPath::sequence([64512, 70000].map(Asn)));
    wide.rare.aggregator = Some(Aggregator { asn: Asn(70000), address: address("9.9.9.9") });
    let (heard, octets) = sent(&wide, &old);
    assert_eq!(heard, wide);
    assert!(octets.windows(9).any(|w| w == [0x40, 2, 6, 2, 2, 0xfc, 0, 0x5b, 0xa0]));
    let narrow = with_path(AsPath::sequence([64512, 65000].map(Asn)));
    let (heard, octets) = sent(&narrow, &old);
    assert_eq!(heard, narrow);
    assert!(!octets.windows(2).any(|w| w == [0xc0, 17]));
    let (_, octets) = sent(&wide, &Context { check_first_as: false, ..ebgp() });
    assert!(!octets.windows(2).any(|w| w == [0xc0, 17] || w == [0xc0, 18]));
}

#[test]
fn u24_v7_paths_of_any_length_are_kept_whole() {
    for four_octet_as in [false, true] {
        let large = Context { four_octet_as, check_first_as: false, send_limit: EXTENDED_LIMIT, allow_as_set: true, ..ebgp() };
        for length in [0, 1, 254, 255, 256, 509, 510, 511, 1000, 2000] {
            for kind in [Sequence, Set] {
                let asns: Vec<u32> = (1..=length).collect();
                let path = if length == 0 { AsPath::default() } else { path(&[(kind, &asns)]) };
                let (heard, _) = sent(&with_path(path.clone()), &large);
                assert!(heard.as_path.segments().all(|segment| (1..=255).contains(&segment.asns.len())));
                assert_eq!(heard.as_path.asns().collect::<Vec<_>>(), path.asns().collect::<Vec<_>>());
                // Legal segments go out again as they came.
                assert_eq!(sent(&heard, &large).0, heard);
            }
        }
    }
    let full: Vec<u32> = (1..=255).collect();
    let grown = path(&[(Sequence, &full)]).prepend(&[Asn(9)]);
    let (heard, _) = sent(&with_path(grown), &Context { check_first_as: false, ..ebgp() });
    assert_eq!(heard.as_path, path(&[(Sequence, &[9]), (Sequence, &full)]));
}

#[test]
fn v8_every_order_of_the_as_attributes() {
    let good = [
        attribute(0x40, 2, &two_octet_path(&[64512, 23456])),
        attribute(0xc0, 7, &[0x5b, 0xa0, 1, 1, 1, 1]),
        attribute(0xc0, 17, &four_octet_path(&[64512, 70000])),
        attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 9, 9, 9, 9]),
    ];
    let broken = [attribute(0x40, 2, &[2, 9, 1]), attribute(0xc0, 7, &[1]), attribute(0xc0, 17, &[2]), attribute(0xc0, 18, &[1, 2, 3])];
    for order in orders() {
        for bad in 0..16_usize {
            let chosen = order.map(|index| if bad >> index & 1 == 1 { &broken[index] } else { &good[index] });
            let rest = [attribute(0x40, 1, &[0]), attribute(0x40, 3, &[10, 0, 0, 1])];
            let block: Vec<u8> = chosen.into_iter().chain(&rest).flatten().copied().collect();
            let result = super::decode(&body(&[], &block, NLRI), &two_octet());
            let expected = match bad {
                0 => Verdict::Accept,
                bad if bad & 1 == 1 => WITHDRAW,
                _ => DISCARD,
            };
            assert_eq!(verdict(&result), expected, "{order:?} {bad:04b}");
            if bad == 0 {
                assert_eq!(result.unwrap().announced[0].0.as_path, AsPath::sequence([64512, 70000].map(Asn)));
            }
        }
    }
}

/// The 24 orders of four things.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for number in 0..256_usize {
        let order = [number & 3, number >> 2 & 3, number >> 4 & 3, number >> 6];
        if (0..4).all(|index| order.contains(&index)) {
            orders.push(order);
        }
    }
    assert_eq!(orders.len(), 24);
    orders
}
