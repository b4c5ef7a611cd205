use bytes::Bytes;

use super::*;
use crate::types::{Afi, RouterId};

const FIXED: [u8; 9] = [4, 0xfc, 0, 0, 240, 10, 0, 0, 1];

/// An OPEN's body with these parameters, length octet included.
fn open(parameters: &[u8]) -> Vec<u8> {
    [&FIXED[..], parameters].concat()
}

fn decode(body: &[u8]) -> Result<Open, DecodeError> {
    match Message::decode(Kind::Open, body, &Context::default())? {
        Message::Open(open) => Ok(open),
        other => panic!("{other:?}"),
    }
}

fn capabilities(parameters: &[u8]) -> Result<Vec<Capability>, (u8, u8)> {
    let codes = |error: DecodeError| error.notification().map(|notification| (notification.code, notification.subcode)).unwrap();
    decode(&open(parameters)).map(|open| open.capabilities).map_err(codes)
}

/// One capability parameter.
fn parameter(value: &[u8]) -> Vec<u8> {
    [&[value.len() as u8 + 2, 2, value.len() as u8], value].concat()
}

fn unknown(code: u8, value: &'static [u8]) -> Capability {
    Capability::Unknown { code, value: Bytes::from_static(value) }
}

fn everything() -> Vec<Capability> {
    let (v4, v6) = (Family::IPV4_UNICAST, Family::IPV6_UNICAST);
    vec![
        Capability::Multiprotocol(v4),
        Capability::Multiprotocol(v6),
        Capability::Multiprotocol(family(16388, 71)),
        Capability::RouteRefresh,
        Capability::ExtendedNextHop(vec![(Afi::IPV4, 1, Afi::IPV6), (Afi::IPV4, 128, Afi::IPV6)]),
        Capability::ExtendedMessage,
        Capability::Role(3),
        Capability::GracefulRestart(GracefulRestart {
            restarting: true,
            notification: true,
            restart_time: 4095,
            families: vec![(v4, true), (v6, false)],
        }),
        Capability::FourOctetAs(Asn(4_200_000_000)),
        Capability::AddPath(vec![(v4, 3), (v6, 1)]),
        Capability::EnhancedRouteRefresh,
        Capability::LongLivedGracefulRestart(vec![(v4, true, 0xff_ffff), (v6, false, 0)]),
        Capability::Fqdn { host: Bytes::from_static(b"node-1"), domain: Bytes::new() },
        Capability::SoftwareVersion(Bytes::from_static(b"margay 0.1")),
        unknown(128, &[]),
        unknown(200, &[1, 2, 3]),
    ]
}

#[test]
fn o5_every_capability_there_and_back() {
    let open = Open { my_as: 23456, hold_time: 240, identifier: RouterId(address("250.0.0.1")), capabilities: everything() };
    assert_eq!(decode(&open.encode()[19..]), Ok(open.clone()));
    assert_eq!(open.asn(), Asn(4_200_000_000));
    let plain = Open { my_as: 64512, capabilities: Vec::new(), ..open };
    assert_eq!(plain.encode().len(), 29);
    assert_eq!(decode(&plain.encode()[19..]), Ok(plain.clone()));
    assert_eq!(plain.asn(), Asn(64512));
}

#[test]
fn o2_structure_in_order() {
    let code = |body: &[u8]| decode(body).unwrap_err().notification().unwrap();
    assert_eq!(code(&[4, 0xfc, 0, 0, 240, 10, 0, 0, 1]), Notification { code: 1, subcode: 2, data: Bytes::from_static(&[0, 28]) });
    let mut version = open(&[7]);
    version[0] = 3;
    assert_eq!(code(&version), Notification { code: 2, subcode: 1, data: Bytes::from_static(&[0, 4]) });
    // What does not parse comes before what is unknown.
    assert_eq!(capabilities(&[5, 1, 0, 2, 9, 0]), Err((2, 0)));
    assert_eq!(capabilities(&[2, 1, 0]), Err((2, 4)));
    assert_eq!(capabilities(&[6, 1, 0, 2, 2, 2, 0]), Err((2, 4)));
}

#[test]
fn o5_o11_lengths_inside_their_own_bounds() {
    for (parameters, expected) in [
        (&[0][..], Ok(vec![])),
        (&[2, 2, 0], Ok(vec![])),
        (&[4, 2, 2, 2, 0], Ok(vec![Capability::RouteRefresh])),
        // Two parameters of one capability each, and one parameter of two.
        (&[8, 2, 2, 2, 0, 2, 2, 70, 0], Ok(vec![Capability::RouteRefresh, Capability::EnhancedRouteRefresh])),
        (&[6, 2, 4, 2, 0, 70, 0], Ok(vec![Capability::RouteRefresh, Capability::EnhancedRouteRefresh])),
        // A capability longer than its parameter; a parameter longer than the parameters; those longer than the message.
        (&[4, 2, 2, 2, 1], Err((2, 0))),
        (&[4, 2, 3, 2, 0], Err((2, 0))),
        (&[5, 2, 2, 2, 0], Err((2, 0))),
        (&[3, 2, 1, 2], Err((2, 0))),
        (&[1, 2], Err((2, 0))),
        (&[1], Err((2, 0))),
        // O11: octets behind the parameters.
        (&[0, 2, 2, 2, 0], Err((2, 0))),
        (&[3, 2, 2, 2, 0], Err((2, 0))),
        (&[4, 2, 2, 2, 0, 0], Err((2, 0))),
    ] {
        assert_eq!(capabilities(parameters), expected, "{parameters:?}");
    }
}

#[test]
fn o5_o7_malformed_values_are_kept_aside() {
    for (value, expected) in [
        (&[1, 3, 0, 1, 0][..], vec![unknown(1, &[0, 1, 0])]),
        (&[1, 5, 0, 1, 0, 1, 0], vec![unknown(1, &[0, 1, 0, 1, 0])]),
        (&[2, 1, 0], vec![unknown(2, &[0])]),
        (&[9, 0], vec![unknown(9, &[])]),
        (&[9, 2, 0, 1], vec![unknown(9, &[0, 1])]),
        (&[64, 1, 0], vec![unknown(64, &[0])]),
        (&[64, 5, 0, 120, 0, 1, 1], vec![unknown(64, &[0, 120, 0, 1, 1])]),
        (
            &[64, 2, 0xf0, 120],
            vec![Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time: 120,
                families: vec![],
            })],
        ),
        (&[69, 3, 0, 1, 1], vec![unknown(69, &[0, 1, 1])]),
        (&[69, 8, 0, 1, 1, 0, 0, 2, 1, 4], vec![Capability::AddPath(vec![])]),
        (&[69, 8, 0, 1, 1, 2, 0, 2, 1, 255], vec![Capability::AddPath(vec![(Family::IPV4_UNICAST, 2)])]),
        (&[71, 6, 0, 1, 1, 0, 0, 0], vec![unknown(71, &[0, 1, 1, 0, 0, 0])]),
        (&[71, 0], vec![Capability::LongLivedGracefulRestart(vec![])]),
        (&[5, 5, 0, 1, 0, 1, 0], vec![unknown(5, &[0, 1, 0, 1, 0])]),
        // V21: names and versions whose inner length runs past the end.
        (&[73, 2, 9, b'h'], vec![unknown(73, &[9, b'h'])]),
        (&[73, 3, 1, b'h', 1], vec![unknown(73, &[1, b'h', 1])]),
        (&[75, 2, 9, b'v'], vec![unknown(75, &[9, b'v'])]),
        (&[75, 0], vec![unknown(75, &[])]),
    ] {
        assert_eq!(capabilities(&parameter(value)), Ok(expected), "{value:?}");
    }
    for value in [&[65, 0][..], &[65, 3, 0, 0, 1], &[65, 5, 0, 0, 0, 1, 1]] {
        assert_eq!(capabilities(&parameter(value)), Err((2, 0)), "the AS cannot be known");
    }
}

#[test]
fn v2_every_known_capability_of_every_length() {
    for code in 0..=255 {
        for length in 0..=255_u8 {
            for fill in [0, 1, 255] {
                let value = [&[code, length][..], &vec![fill; length.into()]].concat();
                let size = (value.len() as u16).to_be_bytes();
                let total = (value.len() as u16 + 3).to_be_bytes();
                let parameters = [&[255, 255][..], &total, &[2], &size, &value].concat();
                match capabilities(&parameters) {
                    Ok(list) => assert_eq!(list.len(), 1),
                    Err(codes) => assert_eq!((codes, code), ((2, 0), 65)),
                }
            }
        }
    }
}

#[test]
fn o8_extended_parameters() {
    let refresh = || Ok(vec![Capability::RouteRefresh]);
    for (parameters, expected) in [
        (&[255, 255, 0, 5, 2, 0, 2, 2, 0][..], refresh()),
        (&[1, 255, 0, 5, 2, 0, 2, 2, 0], refresh()),
        (&[255, 255, 0, 0], Ok(vec![])),
        (&[0, 255, 0, 5, 2, 0, 2, 2, 0], Err((2, 0))),
        (&[255, 255, 0, 6, 2, 0, 2, 2, 0], Err((2, 0))),
        (&[255, 255, 0, 4, 2, 0, 2, 2, 0], Err((2, 0))),
        (&[255, 255, 0, 5, 2, 0, 3, 2, 0], Err((2, 0))),
        (&[255, 255, 0, 2, 2, 0], Err((2, 0))),
        (&[255, 255, 0], Err((2, 0))),
        (&[255, 255], Err((2, 0))),
        (&[255], Err((2, 0))),
        // W8: a parameter of type 255 further behind is only an unknown one.
        (&[6, 2, 2, 2, 0, 255, 0], Err((2, 4))),
        (&[255, 255, 0, 3, 255, 0, 0], Err((2, 4))),
    ] {
        assert_eq!(capabilities(parameters), expected, "{parameters:?}");
    }
}

#[test]
fn o8_is_sent_only_beyond_255_octets() {
    let with = |count: usize| {
        let filler = unknown(99, &[7; 241]);
        let rest = Capability::Unknown { code: 98, value: Bytes::from(vec![1; count]) };
        let open = Open { my_as: 64512, hold_time: 90, identifier: RouterId(address("1.1.1.1")), capabilities: vec![filler, rest] };
        let octets = open.encode();
        assert_eq!(decode(&octets[19..]), Ok(open));
        octets
    };
    assert_eq!((with(8).len(), with(8)[28], with(8)[29]), (29 + 255, 255, 2));
    assert_eq!((with(9).len(), with(9)[28], with(9)[29]), (29 + 260, 255, 255));
}

#[test]
fn more_capabilities_than_an_open_holds_are_left_out() {
    let capabilities = (0..100).map(|_| unknown(99, &[7; 200])).collect();
    let open = Open { my_as: 1, hold_time: 90, identifier: RouterId(address("1.1.1.1")), capabilities };
    assert!(open.encode().len() <= 4096);
    assert_eq!(decode(&open.encode()[19..]).unwrap().capabilities.len(), 20);
    let long = Capability::AddPath(vec![(Family::IPV4_UNICAST, 1); 64]);
    assert_eq!(capability_octets(&[long, Capability::RouteRefresh]), [2, 0][..]);
}

#[test]
fn v1_an_open_cut_anywhere_or_with_any_length_octet_wrong() {
    let whole = Open { my_as: 64512, hold_time: 240, identifier: RouterId(address("1.1.1.1")), capabilities: everything() }.encode();
    let short = open(&[14, 2, 6, 1, 4, 0, 1, 0, 1, 2, 4, 2, 0, 70, 0]);
    let short = [&[0; 19][..], &short].concat();
    for octets in [&whole[19..], &short[19..]] {
        for end in 0..octets.len() {
            let error = decode(&octets[..end]).unwrap_err().notification().unwrap();
            assert!(matches!((error.code, error.subcode), (1, 2) | (2, 0)), "cut at {end}: {error}");
        }
        for at in 9..octets.len() {
            for change in [0, 1, 255, octets[at].wrapping_sub(1), octets[at].wrapping_add(1)] {
                let mut octets = octets.to_vec();
                octets[at] = change;
                if let Err(error) = decode(&octets) {
                    assert_eq!(error.notification().unwrap().code, 2);
                }
            }
        }
    }
}
