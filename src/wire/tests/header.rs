use bytes::{Bytes, BytesMut};

use super::*;
use crate::types::{Afi, Safi};

fn header(length: u16, kind: u8) -> Vec<u8> {
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind]].concat()
}

fn next(octets: &[u8], context: &Context) -> Result<Option<frame::Frame>, DecodeError> {
    frame::next(&mut BytesMut::from(octets), context)
}

fn large() -> Context {
    Context { receive_limit: EXTENDED_LIMIT, enhanced_refresh: true, ..Context::default() }
}

#[test]
fn h2_checks_in_order_before_the_body_is_there() {
    let mut out_of_step = header(10, 77);
    out_of_step[3] = 0;
    for (octets, context, expected) in [
        (out_of_step, Context::default(), Some((1, 1, &[][..]))),
        (header(18, 77), Context::default(), Some((1, 2, &[0, 18]))),
        (header(4097, 77), Context::default(), Some((1, 2, &[16, 1]))),
        (header(19, 77), Context::default(), Some((1, 3, &[77]))),
        (header(19, 0), Context::default(), Some((1, 3, &[0]))),
        (header(4096, 6), Context::default(), Some((1, 3, &[6]))),
        (header(28, 1), Context::default(), Some((1, 2, &[0, 28]))),
        (header(22, 2), Context::default(), Some((1, 2, &[0, 22]))),
        (header(20, 4), Context::default(), Some((1, 2, &[0, 20]))),
        (header(24, 5), Context::default(), Some((1, 2, &[0, 24]))),
        (header(22, 5), Context::default(), Some((1, 2, &[0, 22]))),
        (header(4097, 1), large(), Some((1, 2, &[16, 1]))),
        // Fine so far: the body is awaited.
        (header(4096, 1), Context::default(), None),
        (header(4096, 2), Context::default(), None),
        (header(65535, 2), large(), None),
        (header(65535, 3), large(), None),
        (header(24, 5), large(), None),
    ] {
        let answer = next(&octets, &context).map_err(|error| error.notification().unwrap());
        let expected = expected.map(|(code, subcode, data)| Notification { code, subcode, data: Bytes::from_static(data) });
        match expected {
            Some(notification) => assert_eq!(answer, Err(notification), "{octets:?}"),
            None => assert_eq!(answer, Ok(None), "{octets:?}"),
        }
    }
}

#[test]
fn h2_nothing_is_judged_before_the_header_is_whole() {
    assert_eq!(next(&header(10, 77)[..18], &Context::default()), Ok(None));
}

#[test]
fn h1_any_pieces_give_the_same_messages() {
    let messages = [
        Message::Keepalive,
        Message::Notification(Notification::cease_with_text(cease::ADMINISTRATIVE_SHUTDOWN, "bye")),
        Message::Update(Update::end_of_rib(Family::IPV6_UNICAST)),
        Message::RouteRefresh(RouteRefresh::new(Family::IPV4_UNICAST, RouteRefresh::BEGIN)),
    ];
    let stream: Vec<u8> = messages.iter().flat_map(|message| message.encode(&ebgp()).unwrap()).collect();
    for piece in [1, 2, 3, 7, 18, 19, 20, stream.len()] {
        let mut buffer = BytesMut::new();
        let mut heard = Vec::new();
        for chunk in stream.chunks(piece) {
            buffer.extend_from_slice(chunk);
            while let Some(frame) = frame::next(&mut buffer, &ebgp()).unwrap() {
                heard.push(Message::decode(frame.kind, &frame.body, &ebgp()).unwrap());
            }
        }
        assert_eq!(heard, messages, "pieces of {piece}");
    }
}

#[test]
fn h3_the_limit_grows_for_updates_alone() {
    let message = |length: u16, kind| {
        let mut octets = header(length, kind);
        octets.resize(length.into(), 0);
        octets
    };
    assert!(next(&message(5000, 2), &large()).unwrap().is_some());
    assert!(next(&message(5000, 2), &Context::default()).is_err());
    assert!(next(&message(5000, 1), &large()).is_err());
}

#[test]
fn h4_a_notification_is_never_answered() {
    for octets in [header(20, 3), header(4097, 3), header(5, 3), [&[0; 18][..], &[3]].concat()] {
        assert_eq!(next(&octets, &Context::default()).unwrap_err().notification(), None);
    }
    assert_eq!(Message::decode(Kind::Notification, &[6], &Context::default()).unwrap_err().notification(), None);
}

#[test]
fn h6_other_protocols_are_out_of_step() {
    for text in ["GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03 and more"] {
        let error = next(text.as_bytes(), &Context::default()).unwrap_err();
        assert_eq!(error.notification(), Some(Notification::new(code::HEADER, 1)));
    }
}

#[test]
fn v3_v20_only_updates_are_treated_as_withdrawals() {
    for kind in [Kind::Open, Kind::Notification, Kind::Keepalive, Kind::RouteRefresh] {
        for length in 0..64 {
            if let Err(error) = Message::decode(kind, &vec![0xff; length], &ebgp()) {
                assert!(matches!(error.outcome(), Outcome::Reset(_)), "{kind:?}: {error}");
            }
        }
    }
}

#[test]
fn r1_r2_refresh() {
    let refresh = RouteRefresh { afi: Afi(2), subtype: 9, safi: Safi(1) };
    assert_eq!(Message::decode(Kind::RouteRefresh, &[0, 2, 9, 1], &ebgp()), Ok(Message::RouteRefresh(refresh)));
    assert_eq!(&refresh.encode()[19..], [0, 2, 9, 1]);
    let whole = [header(25, 5), vec![0, 2, 0, 1, 1, 2]].concat();
    let frame = next(&whole, &large()).unwrap().unwrap();
    let error = Message::decode(frame.kind, &frame.body, &large()).unwrap_err();
    assert_eq!(error.notification(), Some(Notification { code: 7, subcode: 1, data: whole.into() }));
    let error = Message::decode(Kind::RouteRefresh, &[0, 2, 0], &ebgp()).unwrap_err();
    assert_eq!(error.notification().map(|n| (n.code, n.subcode)), Some((1, 2)));
}

#[test]
fn a_frame_gives_its_octets_back() {
    let octets = Notification::cease(cease::COLLISION).encode();
    assert_eq!(next(&octets, &ebgp()).unwrap().unwrap().octets(), octets);
    assert_eq!(keepalive(), header(19, 4));
}
