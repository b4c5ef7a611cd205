use bytes::Bytes;

use super::*;

fn shown(code: u8, subcode: u8, data: &[u8]) -> String {
    Notification { code, subcode, data: Bytes::copy_from_slice(data) }.to_string()
}

#[test]
fn in_words() {
    for (code, subcode, data, words) in [
        (1, 1, &[][..], "1/1 message header: connection not synchronised"),
        (2, 7, &[2, 0], "2/7 OPEN: unsupported capability (data 0200)"),
        (2, 9, &[], "2/9 OPEN: subcode 9"),
        (3, 11, &[], "3/11 UPDATE: malformed AS_PATH"),
        (4, 0, &[], "4/0 hold timer expired"),
        (5, 3, &[], "5/3 finite state machine: unexpected message in Established"),
        (6, 1, &[0, 1, 1, 0, 0, 1, 0], "6/1 Cease: maximum number of prefixes reached (ipv4-unicast, limit 256)"),
        (6, 2, b"\x0etomorrow again", "6/2 Cease: administrative shutdown: \"tomorrow again\""),
        (6, 9, &[6, 3], "6/9 Cease: hard reset of 6/3 Cease: peer de-configured"),
        (7, 1, &[], "7/1 ROUTE-REFRESH: invalid message length"),
        (8, 0, &[], "8/0 send hold timer expired"),
        (99, 3, &[], "99/3 error 99, subcode 3"),
    ] {
        assert_eq!(shown(code, subcode, data), words);
    }
}

#[test]
fn v10_shutdown_texts() {
    for (data, text) in [
        (&[][..], None),
        (&[0], None),
        (&[0, b'x'], None),
        (b"\x02ok", Some("ok")),
        (b"\x02okay", Some("ok")),
        (b"\xffcut", Some("cut")),
        (b"\x05\x1b[31m", Some("\\u{1b}[31m")),
        (b"\x03a\xffb", Some("a\\xffb")),
        ("\u{7}it's \u{e4}".as_bytes(), Some("it's \u{e4}")),
        (b"\x02\r\n", Some("\\r\\n")),
        ("\u{3}\u{202e}".as_bytes(), Some("\\u{202e}")),
    ] {
        for subcode in [cease::ADMINISTRATIVE_SHUTDOWN, cease::ADMINISTRATIVE_RESET] {
            let notification = Notification { code: 6, subcode, data: Bytes::copy_from_slice(data) };
            assert_eq!(notification.text().as_deref(), text, "{data:?}");
        }
        assert_eq!(Notification { code: 6, subcode: 3, data: Bytes::copy_from_slice(data) }.text(), None);
    }
    for length in 0..=255 {
        let data = [&[length][..], &[b'a'; 300][..]].concat();
        let text = Notification { code: 6, subcode: 2, data: data.into() }.text();
        assert_eq!(text.map_or(0, |text| text.len()), usize::from(length));
    }
}

#[test]
fn texts_of_our_own_are_cut_between_characters() {
    let long = "\u{e4}".repeat(200);
    let notification = Notification::cease_with_text(cease::ADMINISTRATIVE_RESET, &long);
    assert_eq!((notification.data[0], notification.data.len()), (254, 255));
    assert_eq!(notification.text(), Some("\u{e4}".repeat(127)));
    assert_eq!(Notification::cease_with_text(2, "").data, Bytes::new());
}

#[test]
fn hard_reset_wraps() {
    let inner = Notification::cease_with_text(cease::ADMINISTRATIVE_SHUTDOWN, "gone");
    let hard = inner.clone().into_hard_reset();
    assert!(hard.is_hard_reset());
    assert_eq!(hard.inner(), Some(inner.clone()));
    assert_eq!(inner.inner(), None);
    assert_eq!(Notification::cease(cease::HARD_RESET).inner(), None);
}

#[test]
fn v12_every_code_and_subcode_with_any_data() {
    for code in 0..=255 {
        for subcode in 0..=255 {
            let body = [code, subcode, subcode ^ code];
            let Ok(Message::Notification(notification)) = Message::decode(Kind::Notification, &body, &ebgp()) else { panic!() };
            assert_eq!(&notification.encode()[19..], body);
            assert!(!notification.to_string().is_empty());
        }
    }
    let data = vec![0xa5; 4100];
    for length in [0, 1, 2, 6, 7, 8, 128, 129, 255, 256, 4074, 4075, 4076, 4100] {
        for (code, subcode) in [(1, 2), (3, 1), (6, 1), (6, 2), (6, 9), (7, 1), (200, 200)] {
            let notification = Notification { code, subcode, data: Bytes::copy_from_slice(&data[..length]) };
            assert!(notification.to_string().len() < 700);
            assert_eq!(notification.encode().len(), (21 + length).min(4096));
        }
    }
}
