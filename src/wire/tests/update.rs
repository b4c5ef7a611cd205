use super::*;
use crate::types::NextHop;

fn good(nlri: &[u8]) -> Vec<u8> {
    body(&[], &mandatory(&ebgp()).concat(), nlri)
}

#[test]
fn u1_length_fields_that_exceed_the_message() {
    for octets in [
        &[][..],
        &[0],
        &[0, 0],
        &[0, 0, 0],
        &[0, 1, 0, 0],
        &[0, 0, 0, 1],
        &[0xff, 0xff, 0, 0],
        &[0, 2, 8, 10, 0, 1],
        &[0, 0, 0xff, 0xff, 1],
    ] {
        let result = decode(octets, &ebgp());
        assert_eq!(verdict(&result), Verdict::Reset(3, 1), "{octets:?}");
    }
}

#[test]
fn u2_prefix_fields_that_do_not_parse() {
    for field in [&[33, 10, 0, 0, 0, 0][..], &[255], &[16, 10], &[32, 10, 0, 0], &[8], &[8, 10, 1]] {
        assert_eq!(verdict(&decode(&good(field), &ebgp())), Verdict::Reset(3, 10), "{field:?}");
        assert_eq!(verdict(&decode(&body(field, &[], &[]), &ebgp())), Verdict::Reset(3, 10), "{field:?}");
    }
}

#[test]
fn u2_x3_path_identifiers_cut_short() {
    let both = PerFamily { ipv4: true, ipv6: true };
    let context = Context { add_path_receive: both, ..ebgp() };
    for field in [&[0, 0, 0][..], &[0, 0, 0, 1], &[0, 0, 0, 1, 16, 10], &[0, 0, 0, 1, 8, 10, 0]] {
        assert_eq!(verdict(&decode(&good(field), &context)), Verdict::Reset(3, 10), "{field:?}");
        let unreach = attribute(0x80, 15, &[&[0, 2, 1], field].concat());
        assert_eq!(verdict(&decode(&body(&[], &unreach, &[]), &context)), Verdict::Reset(3, 9), "{field:?}");
    }
    // X1, X2: with identifiers, 0 among them, in all four places.
    let next_hop = [0xfd; 16];
    let reach = attribute(0x80, 14, &[&[0, 2, 1, 16][..], &next_hop, &[0], &[0, 0, 0, 7, 8, 0xfd]].concat());
    let unreach = attribute(0x80, 15, &[0, 2, 1, 0, 0, 0, 8, 8, 0xfc]);
    let block = [mandatory(&ebgp()).concat(), reach, unreach].concat();
    let update = decode(&body(&[0, 0, 0, 0, 8, 11], &block, &[0xff, 0xff, 0xff, 0xff, 8, 10]), &context).unwrap();
    let ids = |list: &NlriList| list.iter().map(|item| (item.prefix.to_string(), item.path_id.0)).collect::<Vec<_>>();
    assert_eq!(update.withdrawn.iter().flat_map(ids).collect::<Vec<_>>(), [("11.0.0.0/8".into(), 0), ("fc00::/8".into(), 8)]);
    let announced: Vec<_> = update.announced.iter().flat_map(|(_, list)| ids(list)).collect();
    assert_eq!(announced, [("10.0.0.0/8".into(), u32::MAX), ("fd00::/8".into(), 7)]);
}

#[test]
fn u3_an_attribute_list_that_ends_too_early() {
    for (end, code) in [
        (&[][..], Some(0x99)),
        (&[0x40][..], None),
        (&[0x40, 8], Some(8)),
        (&[0x50, 8, 0], Some(8)),
        (&[0xc0, 8, 5, 1, 2, 3, 4], Some(8)),
        (&[0x80, 14, 40, 0, 2], Some(14)),
    ]
    .into_iter()
    .skip(1)
    {
        let block = [mandatory(&ebgp()).concat(), end.to_vec()].concat();
        let update = decode(&body(&[16, 10, 9], &block, NLRI), &ebgp()).unwrap();
        assert_eq!(update.withdrawn, [ipv4(&["10.9.0.0/16"]), ipv4(&["10.1.0.0/16"])]);
        assert_eq!(update.faults.iter().map(|fault| fault.attribute).collect::<Vec<_>>(), [code]);
        assert_eq!(verdict(&Ok(update)), WITHDRAW);
    }
}

#[test]
fn u5_mandatory_attributes() {
    for (missing, code) in [(0, 1), (1, 2), (2, 3)] {
        let mut attributes = mandatory(&ebgp());
        attributes.remove(missing);
        let update = decode(&body(&[], &attributes.concat(), NLRI), &ebgp()).unwrap();
        assert_eq!((update.faults.len(), update.faults[0].attribute), (1, Some(code)));
        assert_eq!(update.withdrawn, [ipv4(&["10.1.0.0/16"])]);
    }
    // NEXT_HOP belongs to the classic field alone.
    let block = [mandatory(&ebgp())[..2].concat(), mp_reach()].concat();
    assert_eq!(verdict(&decode(&body(&[], &block, &[]), &ebgp())), Verdict::Accept);
    // Nothing reachable, nothing mandatory.
    assert_eq!(verdict(&decode(&body(&[16, 10, 9], &attribute(0x80, 4, &[0; 4]), &[]), &ebgp())), Verdict::Accept);
}

#[test]
fn u5_local_pref_defaults_on_ibgp() {
    let mut attributes = mandatory(&ibgp());
    attributes.pop();
    let update = decode(&body(&[], &attributes.concat(), NLRI), &ibgp()).unwrap();
    assert_eq!(update.announced[0].0.local_pref, Some(100));
    assert_eq!(verdict(&Ok(update)), Verdict::Act(FaultAction::UseDefault));
    assert_eq!(decode(&good(NLRI), &ebgp()).unwrap().announced[0].0.local_pref, None);
}

#[test]
fn u6_the_strongest_action_wins_and_every_fault_is_named() {
    let discard = attribute(0x40, 6, &[1]);
    let withdraw = attribute(0x40, 1, &[9]);
    let reset = attribute(0x40, 99, &[1]);
    let rest = mandatory(&ebgp())[1..].concat();
    let update = decode(&body(&[], &[discard.clone(), withdraw.clone(), rest.clone()].concat(), NLRI), &ebgp()).unwrap();
    assert_eq!(update.faults.iter().map(|fault| fault.attribute).collect::<Vec<_>>(), [Some(6), Some(1)]);
    assert_eq!(verdict(&Ok(update)), WITHDRAW);
    for order in [[&reset, &discard, &withdraw], [&withdraw, &discard, &reset], [&discard, &reset, &withdraw]] {
        let block = [order.into_iter().flatten().copied().collect(), rest.clone()].concat();
        let error = decode(&body(&[], &block, NLRI), &ebgp()).unwrap_err();
        let notification = error.notification().unwrap();
        assert_eq!((notification.code, notification.subcode, &notification.data[..]), (3, 2, &reset[..]));
        let words = error.to_string();
        assert!(["attribute 99", "ATOMIC_AGGREGATE (6)", "ORIGIN (1)"].iter().all(|name| words.contains(name)), "{words}");
    }
}

#[test]
fn u7_nothing_to_withdraw() {
    for broken in [attribute(0x40, 1, &[9]), attribute(0xc0, 8, &[1]), vec![0x40, 1, 9]] {
        assert_eq!(verdict(&decode(&body(&[], &broken, &[]), &ebgp())), Verdict::Reset(3, 1), "no prefix of any kind");
        assert_eq!(verdict(&decode(&body(&[16, 10, 9], &broken, &[]), &ebgp())), WITHDRAW);
        let with = |prefixes: Vec<u8>| verdict(&decode(&body(&[], &[prefixes, broken.clone()].concat(), &[]), &ebgp()));
        assert_eq!(with(mp_unreach()), WITHDRAW);
        assert_eq!(with(mp_reach()), WITHDRAW);
        // V4: an End-of-RIB with something beside it is none.
        assert_eq!(with(attribute(0x80, 15, &[0, 2, 1])), Verdict::Reset(3, 1));
    }
    // Less than a withdrawal needs no prefix.
    assert_eq!(verdict(&decode(&body(&[], &attribute(0x40, 6, &[1]), &[]), &ebgp())), DISCARD);
}

#[test]
fn u8_everything_in_one_message_in_any_order() {
    let mut attributes = mandatory(&ebgp());
    attributes.extend([mp_reach(), mp_unreach(), attribute(0x90, 4, &[0, 0, 0, 5])]);
    for _ in 0..attributes.len() {
        attributes.rotate_left(1);
        let update = decode(&body(&[16, 10, 9], &attributes.concat(), NLRI), &ebgp()).unwrap();
        assert_eq!(update.faults, []);
        assert_eq!(update.withdrawn, [ipv4(&["10.9.0.0/16"]), ipv6(&["fd00:2::/32"])]);
        let (first, second) = (&update.announced[0], &update.announced[1]);
        assert_eq!((&first.1, &second.1), (&ipv4(&["10.1.0.0/16"]), &ipv6(&["fd00:1::/32"])));
        assert_eq!(first.0.next_hop, NextHop::Global("10.0.0.1".parse().unwrap()));
        assert_eq!(second.0.next_hop, NextHop::Global("fd00::1".parse().unwrap()));
        assert_eq!((first.0.med, second.0.med), (Some(5), Some(5)));
        // Withdraw covers all of them.
        let broken = [attributes.concat(), attribute(0xc0, 8, &[])].concat();
        let update = decode(&body(&[16, 10, 9], &broken, NLRI), &ebgp()).unwrap();
        assert_eq!(update.withdrawn.iter().map(NlriList::len).sum::<usize>(), 4);
    }
}

#[test]
fn u9_withdrawn_and_announced_is_announced() {
    let update = decode(&body(NLRI, &mandatory(&ebgp()).concat(), &[NLRI, NLRI].concat()), &ebgp()).unwrap();
    // Receivers apply `withdrawn` first.
    assert_eq!(update.withdrawn, [ipv4(&["10.1.0.0/16"])]);
    assert_eq!(update.announced[0].1, ipv4(&["10.1.0.0/16", "10.1.0.0/16"]));
}

#[test]
fn u10_host_bits_and_the_default_route() {
    for (field, prefixes) in [
        (&[0][..], &["0.0.0.0/0"][..]),
        (&[0, 0], &["0.0.0.0/0", "0.0.0.0/0"]),
        (&[9, 10, 0xff], &["10.128.0.0/9"]),
        (&[31, 1, 2, 3, 5, 32, 255, 255, 255, 255], &["1.2.3.4/31", "255.255.255.255/32"]),
        (&[1, 0xff, 8, 10, 24, 1, 2, 3], &["128.0.0.0/1", "10.0.0.0/8", "1.2.3.0/24"]),
    ] {
        assert_eq!(decode(&good(field), &ebgp()).unwrap().announced[0].1, ipv4(prefixes));
    }
    let full: [u8; 16] = std::array::from_fn(|index| index as u8);
    let field = [&[0, 2, 1, 0, 1, 0xff, 127][..], &[0xff; 16], &[128], &full, &[64, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
    let update = decode(&body(&[], &attribute(0x80, 15, &field), &[]), &ebgp()).unwrap();
    let expected =
        ["::/0", "8000::/1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", "1:203:405:607:809:a0b:c0d:e0f/128", "102:304:506:708::/64"];
    assert_eq!(update.withdrawn, [ipv6(&expected)]);
    for length in 0..=32_u8 {
        let field = [vec![length], vec![0xff; usize::from(length).div_ceil(8)]].concat();
        let update = decode(&good(&field), &ebgp()).unwrap();
        let item = update.announced[0].1.iter().next().unwrap();
        assert_eq!((item.prefix.prefix_len(), item.prefix), (length, item.prefix.trunc()));
    }
}

#[test]
fn u11_u13a_v21_families_not_in_use_are_not_parsed() {
    let only = |ipv4, ipv6| Context { families: PerFamily { ipv4, ipv6 }, ..ebgp() };
    let (broken, block) = ([33, 255], [mandatory(&ebgp()).concat(), mp_reach()].concat());
    let update = decode(&body(&broken, &block, &broken), &only(false, true)).unwrap();
    assert_eq!((update.withdrawn, update.announced.len()), (vec![], 1));
    assert_eq!(update.faults.len(), 2);
    assert!(update.faults.iter().all(|fault| fault.action == FaultAction::DiscardAttribute));
    let update = decode(&body(&[], &block, NLRI), &only(true, false)).unwrap();
    assert_eq!(update.announced.iter().map(|(_, list)| list.family()).collect::<Vec<_>>(), [Family::IPV4_UNICAST]);
    assert_eq!(update.faults[0].what, "MP_REACH_NLRI (14): ipv6-unicast is not in use on this session");
    // What is missing for the classic field does not matter where that is ignored.
    let without_next_hop = [mandatory(&ebgp())[..2].concat(), mp_reach()].concat();
    assert_eq!(decode(&body(&[], &without_next_hop, NLRI), &only(false, true)).unwrap().announced.len(), 1);
    for family in [[0, 1, 128], [0, 1, 4], [0, 25, 70], [0x40, 4, 71], [0, 1, 2]] {
        let unreach = attribute(0x80, 15, &[&family[..], &[255, 1, 2, 3]].concat());
        assert_eq!(verdict(&decode(&body(&[], &unreach, &[]), &ebgp())), DISCARD);
    }
}

#[test]
fn u12_end_of_rib() {
    let ipv6_mark = attribute(0x80, 15, &[0, 2, 1]);
    let ipv4_mark = attribute(0x80, 15, &[0, 1, 1]);
    let mark = |block: &[u8], context: &Context| decode(&body(&[], block, &[]), context).unwrap().end_of_rib;
    assert_eq!(mark(&[], &ebgp()), Some(Family::IPV4_UNICAST));
    assert_eq!(mark(&ipv6_mark, &ebgp()), Some(Family::IPV6_UNICAST));
    assert_eq!(mark(&ipv4_mark, &ebgp()), Some(Family::IPV4_UNICAST));
    assert_eq!(mark(&attribute(0x90, 15, &[0, 2, 1]), &ebgp()), Some(Family::IPV6_UNICAST), "with extended length");
    assert_eq!(mark(&mp_unreach(), &ebgp()), None);
    assert_eq!(mark(&[mandatory(&ebgp()).concat(), ipv6_mark.clone()].concat(), &ebgp()), None);
    assert_eq!(mark(&attribute(0x80, 15, &[0, 1, 128]), &ebgp()), None);
    let ipv4_only = Context { families: PerFamily { ipv4: true, ipv6: false }, ..ebgp() };
    assert_eq!(mark(&ipv6_mark, &ipv4_only), None);
    assert_eq!(decode(&body(&[16, 10, 9], &ipv6_mark, &[]), &ebgp()).unwrap().end_of_rib, None);
}

#[test]
fn u13_next_hop_beside_mp_reach_only() {
    let with = |next_hop: &[u8]| {
        let block = [mandatory(&ebgp())[..2].concat(), attribute(0x40, 3, next_hop), mp_reach()].concat();
        decode(&body(&[], &block, &[]), &ebgp())
    };
    assert_eq!(verdict(&with(&[127, 0, 0, 1])), Verdict::Accept);
    assert_eq!(verdict(&with(&[10, 0, 0])), WITHDRAW);
    let mut reach = mp_reach();
    reach[3 + 4 + 16] = 0xa5;
    let block = [mandatory(&ebgp()).concat(), reach].concat();
    assert_eq!(verdict(&decode(&body(&[], &block, &[]), &ebgp())), Verdict::Accept, "the reserved octet");
}

#[test]
fn u13a_prefixes_are_found_by_the_length_fields_alone() {
    let block = [attribute(0x40, 1, &[9]), vec![0xc0, 8, 200, 24, 1, 1, 1]].concat();
    let update = decode(&body(&[], &block, NLRI), &ebgp()).unwrap();
    assert_eq!(update.withdrawn, [ipv4(&["10.1.0.0/16"])]);
}

#[test]
fn u14_v22_ipv4_in_mp_attributes_is_the_same_table() {
    let reach = attribute(0x80, 14, &[0, 1, 1, 4, 10, 0, 0, 7, 0, 16, 10, 2]);
    let unreach = attribute(0x80, 15, &[0, 1, 1, 16, 10, 3]);
    let block = [mandatory(&ebgp()).concat(), reach, unreach].concat();
    let update = decode(&body(&[16, 10, 9], &block, NLRI), &ebgp()).unwrap();
    assert_eq!(update.faults, []);
    assert_eq!(update.withdrawn, [ipv4(&["10.9.0.0/16"]), ipv4(&["10.3.0.0/16"])]);
    let announced: Vec<_> = update.announced.iter().map(|(attributes, list)| (attributes.next_hop.to_string(), list.clone())).collect();
    assert_eq!(announced, [("10.0.0.1".into(), ipv4(&["10.1.0.0/16"])), ("10.0.0.7".into(), ipv4(&["10.2.0.0/16"]))]);
}

#[test]
fn n1_n2_n3_w4_next_hops() {
    let extended = Context { extended_next_hop: true, ..ebgp() };
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    let pair = |first: &str, second: &str| [v6(first), v6(second)].concat();
    let (ipv4, ipv6) = ([0, 1, 1], [0, 2, 1]);
    let global = |text: &str| Some(NextHop::Global(text.parse().unwrap()));
    let link_local = |text: &str| Some(NextHop::LinkLocal { address: text.parse().unwrap(), interface: 0 });
    let both =
        Some(NextHop::GlobalAndLinkLocal { global: "fd00::1".parse().unwrap(), link_local: "fe80::1".parse().unwrap(), interface: 0 });
    for (family, context, octets, expected) in [
        (ipv4, &ebgp(), vec![10, 0, 0, 7], global("10.0.0.7")),
        (ipv4, &ebgp(), v6("fd00::1"), None),
        (ipv4, &ebgp(), pair("fd00::1", "fe80::1"), None),
        (ipv4, &extended, vec![10, 0, 0, 7], global("10.0.0.7")),
        (ipv4, &extended, v6("fd00::1"), global("fd00::1")),
        (ipv4, &extended, v6("fe80::1"), link_local("fe80::1")),
        (ipv4, &extended, pair("fd00::1", "fe80::1"), both),
        (ipv4, &extended, vec![1; 12], None),
        (ipv6, &ebgp(), v6("fd00::1"), global("fd00::1")),
        (ipv6, &ebgp(), v6("::ffff:10.0.0.7"), global("::ffff:10.0.0.7")),
        (ipv6, &ebgp(), pair("fd00::1", "fe80::1"), both),
        (ipv6, &ebgp(), v6("fe80::1"), link_local("fe80::1")),
        (ipv6, &ebgp(), pair("fe80::1", "fe80::1"), link_local("fe80::1")),
        (ipv6, &ebgp(), pair("::", "fe80::1"), link_local("fe80::1")),
        (ipv6, &ebgp(), pair("fd00::1", "fd00::2"), global("fd00::1")),
        (ipv6, &ebgp(), pair("fd00::1", "::"), global("fd00::1")),
        (ipv6, &ebgp(), v6("::"), global("::")),
        (ipv6, &ebgp(), vec![10, 0, 0, 7], None),
        (ipv6, &ebgp(), vec![], None),
        (ipv6, &ebgp(), vec![1; 8], None),
        (ipv6, &ebgp(), vec![1; 24], None),
        (ipv6, &extended, vec![1; 48], None),
    ] {
        let reach = attribute(0x80, 14, &[&family[..], &[octets.len() as u8], &octets, &[0, 8, 10]].concat());
        let block = [mandatory(&ebgp())[..2].concat(), reach].concat();
        let result = decode(&body(&[], &block, &[]), context);
        match expected {
            Some(next_hop) => assert_eq!(result.unwrap().announced[0].0.next_hop, next_hop),
            None => assert_eq!(verdict(&result), Verdict::Reset(3, 9), "{octets:?}"),
        }
    }
}

#[test]
fn encodes_what_one_message_can_say_and_refuses_the_rest() {
    let mut attributes = mandatory(&ebgp());
    attributes.extend([mp_reach(), mp_unreach()]);
    let update = decode(&body(&[16, 10, 9], &attributes.concat(), NLRI), &ebgp()).unwrap();
    let octets = Message::Update(update.clone()).encode(&ebgp()).unwrap();
    assert_eq!(decode(&octets[19..], &ebgp()), Ok(update.clone()));
    let mut different = update.clone();
    std::sync::Arc::make_mut(&mut different.announced[0].0).med = Some(1);
    assert_eq!(Message::Update(different).encode(&ebgp()), Err(EncodeError::DifferentAttributes));
    let mut long = update.clone();
    long.withdrawn = vec![ipv4(&["10.0.0.0/24"; 1100])];
    assert!(matches!(Message::Update(long).encode(&ebgp()), Err(EncodeError::TooLong { limit: 4096, .. })));
    let mut ipv6_next_hop = update;
    std::sync::Arc::make_mut(&mut ipv6_next_hop.announced[0].0).next_hop = NextHop::Global("fd00::1".parse().unwrap());
    assert!(matches!(Message::Update(ipv6_next_hop).encode(&ebgp()), Err(EncodeError::NextHop(_))));
}

#[test]
fn every_cut_and_every_changed_bit_has_an_answer() {
    let mut attributes = mandatory(&two_octet());
    attributes.extend([mp_reach(), mp_unreach(), attribute(0xc0, 17, &[2, 1, 0, 0, 0xfc, 0]), attribute(0xc0, 99, &[1; 300])]);
    let whole = body(&[16, 10, 9], &attributes.concat(), NLRI);
    for context in [ebgp(), ibgp(), two_octet()] {
        for end in 0..whole.len() {
            let _ = decode(&whole[..end], &context);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut octets = whole.clone();
                octets[at] ^= 1 << bit;
                if let Err(error) = decode(&octets, &context) {
                    assert_eq!(error.notification().unwrap().code, 3);
                }
            }
        }
    }
}
