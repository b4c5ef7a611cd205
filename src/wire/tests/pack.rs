use bytes::{Bytes, BytesMut};
use ipnet::{Ipv4Net, Ipv6Net};

use super::super::pack::*;
use super::attribute::{full, headers};
use super::*;
use crate::types::{AsPath, Attributes, Community, Ipv4Unicast, Ipv6Unicast, NextHop, RareAttributes, UnknownAttribute};

fn context() -> Context {
    let families = PerFamily { ipv4: true, ipv6: true };
    Context { four_octet_as: true, families, ebgp: true, ..Context::default() }
}

fn attributes(next_hop: &str) -> Attributes {
    let next_hop = NextHop::Global(next_hop.parse().unwrap());
    Attributes { as_path: AsPath::sequence([Asn(64512), Asn(4_200_000_000)]), med: Some(5), ..Attributes::originated(next_hop) }
}

fn many_ipv4(count: u32) -> Vec<Nlri<Ipv4Net>> {
    (0..count).map(|n| Nlri { prefix: Ipv4Net::new_assert((0x0a00_0000 + (n << 8)).into(), 24), path_id: PathId(n) }).collect()
}

fn many_ipv6(count: u128) -> Vec<Nlri<Ipv6Net>> {
    (0..count).map(|n| Nlri { prefix: Ipv6Net::new_assert(((0x2001_0db8 << 96) + (n << 64)).into(), 64), path_id: PathId(7) }).collect()
}

fn read(frames: &[Bytes], context: &Context) -> Vec<Update> {
    let mut buffer = BytesMut::from(&frames.concat()[..]);
    let mut updates = Vec::new();
    while let Some(frame) = frame::next(&mut buffer, context).unwrap() {
        match Message::decode(frame.kind, &frame.body, context).unwrap() {
            Message::Update(update) => updates.push(update),
            other => panic!("{other:?}"),
        }
    }
    assert!(buffer.is_empty());
    updates
}

#[test]
fn p1_full_frames_of_either_family_come_back_as_they_went() {
    for path_ids in [false, true] {
        let both = PerFamily { ipv4: path_ids, ipv6: path_ids };
        let context = Context { add_path_send: both, add_path_receive: both, ..context() };
        let (v4, v6) = (many_ipv4(10_000), many_ipv6(10_000));
        let (mut frames4, mut frames6) = (Vec::new(), Vec::new());
        assert!(announce::<Ipv4Unicast>(&attributes("10.0.0.1"), &v4, &context, &mut frames4).is_empty());
        assert!(announce::<Ipv6Unicast>(&attributes("fd00::1"), &v6, &context, &mut frames6).is_empty());
        for frames in [&frames4, &frames6] {
            assert!(frames.iter().all(|frame| frame.len() <= 4096));
            assert!(frames[..frames.len() - 1].iter().all(|frame| frame.len() >= 4080), "{:?}", frames[0].len());
        }
        let heard4: Vec<_> = read(&frames4, &context)
            .into_iter()
            .flat_map(|mut update| {
                assert_eq!(update.faults, []);
                let (heard, list) = update.announced.remove(0);
                assert_eq!(*heard, attributes("10.0.0.1"));
                match list {
                    NlriList::Ipv4(items) => items,
                    NlriList::Ipv6(_) => panic!(),
                }
            })
            .collect();
        let sent: Vec<_> = v4.iter().map(|item| Nlri { path_id: PathId(if path_ids { item.path_id.0 } else { 0 }), ..*item }).collect();
        assert_eq!(heard4, sent);
        let heard6 = read(&frames6, &context).iter().map(|update| update.announced[0].1.len()).sum::<usize>();
        assert_eq!(heard6, v6.len());
    }
}

#[test]
fn withdrawals_come_back_as_they_went() {
    let mut frames = Vec::new();
    withdraw::<Ipv4Unicast>(&many_ipv4(3000), &context(), &mut frames);
    withdraw::<Ipv6Unicast>(&many_ipv6(3000), &context(), &mut frames);
    let updates = read(&frames, &context());
    assert_eq!(updates.iter().flat_map(|update| &update.withdrawn).map(NlriList::len).sum::<usize>(), 6000);
    assert!(updates.iter().all(|update| update.announced.is_empty() && update.faults.is_empty()));
}

#[test]
fn u12_end_of_rib_is_recognised() {
    for family in Family::ALL {
        let updates = read(&[end_of_rib(family)], &context());
        assert_eq!(updates, [Update::end_of_rib(family)]);
    }
    assert_eq!(end_of_rib(Family::IPV4_UNICAST).len(), 23);
    assert_eq!(end_of_rib(Family::IPV6_UNICAST).len(), 29);
}

/// Attributes whose encoding makes an UPDATE with one IPv4 /24 take `octets`.
fn filling(octets: usize) -> Attributes {
    let bare = Attributes { med: None, ..attributes("10.0.0.1") };
    let mut frames = Vec::new();
    announce::<Ipv4Unicast>(&bare, &many_ipv4(1), &context(), &mut frames);
    // An unknown attribute takes four octets and its value, communities whatever is left of a multiple of four.
    let value = vec![0; octets - frames[0].len() - 4];
    with_unknown(bare, value)
}

fn with_unknown(attributes: Attributes, value: Vec<u8>) -> Attributes {
    let unknown = UnknownAttribute { flags: 0xc0, code: 99, value: value.into() };
    Attributes { rare: RareAttributes { unknown: [unknown].into(), ..RareAttributes::default() }.into(), ..attributes }
}

#[test]
fn p2_v19_what_fits_into_no_frame_comes_back() {
    for (limit, totals) in [(4096, 4000..=4100), (65535, 65400..=65540)] {
        let context = Context { send_limit: limit, receive_limit: limit, check_first_as: false, ..context() };
        for total in totals {
            let attributes = filling(total);
            // A /8 takes two octets less than the /24 of `filling`, a default route three less, a /32 one more.
            let nlri = ["10.0.0.0/8", "10.0.0.0/24", "0.0.0.0/0", "10.0.0.1/32"]
                .map(|prefix| Nlri { prefix: prefix.parse().unwrap(), path_id: PathId(0) });
            let mut frames = Vec::new();
            let rest = announce::<Ipv4Unicast>(&attributes, &nlri, &context, &mut frames);
            assert!(frames.iter().all(|frame| frame.len() <= limit));
            let fits = [-2, 0, -3, 1].map(|more| total as isize + more <= limit as isize);
            let expected: Vec<_> = nlri.iter().zip(fits).filter(|(_, fits)| !fits).map(|(item, _)| *item).collect();
            assert_eq!(rest, expected, "{total} octets of {limit}");
            let sent: usize = read(&frames, &context).iter().map(|update| update.announced[0].1.len()).sum();
            assert_eq!(sent + rest.len(), nlri.len());
        }
    }
}

#[test]
fn p2_v19_mp_attributes_around_the_extended_length() {
    for (limit, lengths) in [(4096, 3700..=4100), (65535, 65100..=65540)] {
        let context = Context { send_limit: limit, receive_limit: limit, check_first_as: false, ..context() };
        for length in lengths {
            let attributes = with_unknown(attributes("fd00::1"), vec![0; length]);
            let nlri = many_ipv6(40);
            let mut frames = Vec::new();
            let rest = announce::<Ipv6Unicast>(&attributes, &nlri, &context, &mut frames);
            assert!(frames.iter().all(|frame| frame.len() <= limit));
            assert!(rest.is_empty() || rest.len() == nlri.len());
            assert_eq!(read(&frames, &context).iter().map(|update| update.announced[0].1.len()).sum::<usize>() + rest.len(), nlri.len());
            frames.iter().for_each(|frame| assert_eq!(headers(frame)[0].1, 14, "MP_REACH_NLRI comes first (U23)"));
        }
    }
}

#[test]
fn x5_frames_grow_with_the_limit() {
    for (limit, expected) in [(4096, 10), (65535, 1)] {
        let context = Context { send_limit: limit, receive_limit: limit, ..context() };
        let mut frames = Vec::new();
        announce::<Ipv4Unicast>(&attributes("10.0.0.1"), &many_ipv4(10_000), &context, &mut frames);
        assert_eq!(frames.len(), expected);
    }
}

#[test]
fn p3_nothing_makes_no_frame() {
    let mut frames = Vec::new();
    assert_eq!(announce::<Ipv6Unicast>(&attributes("fd00::1"), &[], &context(), &mut frames), []);
    withdraw::<Ipv4Unicast>(&[], &context(), &mut frames);
    assert!(frames.is_empty());
}

#[test]
fn n4_next_hops_go_out_in_their_form() {
    let extended = Context { extended_next_hop: true, ..context() };
    let link_local = "fe80::1".parse().unwrap();
    for (next_hop, length) in [
        (NextHop::Global("fd00::1".parse().unwrap()), 16),
        (NextHop::GlobalAndLinkLocal { global: "fd00::1".parse().unwrap(), link_local, interface: 0 }, 32),
        (NextHop::LinkLocal { address: link_local, interface: 0 }, 16),
    ] {
        let attributes = Attributes { next_hop, ..full() };
        let mut frames = Vec::new();
        assert_eq!(announce::<Ipv6Unicast>(&attributes, &many_ipv6(2), &extended, &mut frames), []);
        assert_eq!(announce::<Ipv4Unicast>(&attributes, &many_ipv4(2), &extended, &mut frames), []);
        for frame in &frames {
            assert_eq!(frame[23 + 3 + 3], length);
            assert!(headers(frame).iter().all(|(_, code)| *code != 3));
        }
        let heard = read(&frames, &Context { check_first_as: false, ..extended.clone() });
        assert!(heard.iter().all(|update| update.announced[0].0.next_hop == next_hop), "{heard:?}");
        // Without RFC 8950 there is no form for it.
        assert_eq!(announce::<Ipv4Unicast>(&attributes, &many_ipv4(2), &context(), &mut frames).len(), 2);
    }
    let mapped = Attributes { next_hop: NextHop::Global("10.0.0.1".parse().unwrap()), ..full() };
    let mut frames = Vec::new();
    announce::<Ipv6Unicast>(&mapped, &many_ipv6(1), &context(), &mut frames);
    let heard = read(&frames, &context());
    assert_eq!(heard[0].announced[0].0.next_hop, NextHop::Global("::ffff:10.0.0.1".parse().unwrap()));
}

#[test]
fn e9_v23_lists_go_out_as_they_are_and_empty_ones_not_at_all() {
    let attributes = Attributes { communities: [9, 1, 9].map(Community).into(), ..attributes("10.0.0.1") };
    let mut frames = Vec::new();
    announce::<Ipv4Unicast>(&attributes, &many_ipv4(1), &context(), &mut frames);
    assert_eq!(*read(&frames, &context())[0].announced[0].0.communities, [9, 1, 9].map(Community));
    assert_eq!(headers(&frames[0]).iter().map(|(_, code)| *code).collect::<Vec<_>>(), [1, 2, 3, 4, 8]);
}
