//! Framing: H1 to H6.

use anyhow::{Result, ensure};
use proto_tests::live::message::{self, announce, basics, header, keepalive, notification};
use proto_tests::live::{Daemon, Heard, Neighbour, Observer, Plan, enclosed};

#[test]
fn h1_open_split_at_each_octet() {
    enclosed(|| {
        let length = Plan::default().external(1).peers[0].open().message().len();
        let daemon = Plan::default().external(length as u16 + 1).start()?;
        for (cut, plan) in (1..length).zip(&daemon.peers) {
            let mut neighbour = Neighbour::connect(&daemon, plan)?;
            let open = plan.open().message();
            neighbour.send(&open[..cut])?;
            // margay's own OPEN comes in between (O1): the first piece has most likely been read.
            ensure!(matches!(neighbour.hear(super::session::WAIT)?, Heard::Message(message::OPEN, _)), "cut at {cut}");
            neighbour.send(&open[cut..])?;
            ensure!(matches!(neighbour.hear(super::session::WAIT)?, Heard::Message(message::KEEPALIVE, _)), "cut at {cut}");
        }
        let mut drops = Neighbour::connect(&daemon, &daemon.peers[length])?;
        let all = [daemon.peers[length].open().message(), keepalive()].concat();
        all.iter().try_for_each(|octet| drops.send(&[*octet]))?;
        drops.confirm()?;
        Ok(())
    });
}

#[test]
fn h1_a_thousand_messages_in_one_segment() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut feeder = Neighbour::connect(&daemon, &daemon.peers[1])?;
        let mut all = [daemon.peers[1].open().message(), keepalive()].concat();
        let attributes = basics(daemon.peers[1].asn);
        for number in 0..1000 {
            all.extend(announce(&attributes, &[&format!("10.{}.{}.0/24", number / 250, number % 250)]));
        }
        feeder.send(&all)?;
        feeder.confirm()?;
        observer.until("all thousand", |seen| seen.routes.len() == 1000)
    });
}

/// What is wrong, the octets, and the answer: code, subcode, data.
type Row = (&'static str, Vec<u8>, (u8, u8, Vec<u8>));

/// What is answered in every state once the header is there; the body is never awaited.
fn header_errors() -> Vec<Row> {
    let with_marker = |at: usize, kind: u8, length: usize| {
        let mut octets = header(kind, length);
        octets[at] = 0xfe;
        octets
    };
    vec![
        ("marker, first octet", with_marker(0, 4, 19), (1, 1, vec![])),
        ("marker, last octet", with_marker(15, 4, 19), (1, 1, vec![])),
        ("marker comes before length", with_marker(3, 4, 0), (1, 1, vec![])),
        ("length 0", header(4, 0), (1, 2, vec![0, 0])),
        ("length 18", header(2, 18), (1, 2, vec![0, 18])),
        ("length comes before type", header(77, 18), (1, 2, vec![0, 18])),
        ("length 4097", header(2, 4097), (1, 2, vec![0x10, 0x01])),
        ("length 65535", header(2, 65535), (1, 2, vec![0xff, 0xff])),
        ("type 0", header(0, 19), (1, 3, vec![0])),
        ("type 6, body not awaited (V3)", header(6, 4096), (1, 3, vec![6])),
        ("type 255", header(255, 19), (1, 3, vec![255])),
        ("OPEN of 28", header(1, 28), (1, 2, vec![0, 28])),
        ("OPEN of 4097", header(1, 4097), (1, 2, vec![0x10, 0x01])),
        ("UPDATE of 22", header(2, 22), (1, 2, vec![0, 22])),
        ("KEEPALIVE of 20", header(4, 20), (1, 2, vec![0, 20])),
        ("KEEPALIVE of 4096, body not awaited", header(4, 4096), (1, 2, vec![0x10, 0x00])),
        ("ROUTE-REFRESH of 22", header(5, 22), (1, 2, vec![0, 22])),
        ("HTTP (H6)", b"GET / HTTP/1.1\r\nHost: margay\r\n\r\n".to_vec(), (1, 1, vec![])),
        ("TLS (H6)", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 200]].concat(), (1, 1, vec![])),
        ("zeroes (H6)", vec![0; 4096], (1, 1, vec![])),
    ]
}

fn answered(neighbour: &mut Neighbour, what: &str, octets: &[u8], (code, subcode, data): &(u8, u8, Vec<u8>)) -> Result<()> {
    neighbour.send(octets)?;
    let said = neighbour.expect_notification(*code, *subcode).map_err(|error| error.context(what.to_owned()))?;
    // The text of what follows the header (RFC 9003 has it for 6/2 and 6/4 only) must be the RFC's data and nothing else.
    ensure!(said == *data, "{what}: data {said:02x?}, wanted {data:02x?}");
    Ok(())
}

#[test]
fn h2_header_errors_before_open() {
    enclosed(|| {
        let rows = header_errors();
        let daemon = Plan::default().external(rows.len() as u16).start()?;
        for ((what, octets, answer), plan) in rows.iter().zip(&daemon.peers) {
            answered(&mut Neighbour::connect(&daemon, plan)?, what, octets, answer)?;
        }
        quiet(&daemon, rows.len())
    });
}

#[test]
fn h2_header_errors_in_established() {
    enclosed(|| {
        let rows = header_errors();
        let daemon = Plan::default().external(rows.len() as u16 + 1).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[rows.len()])?;
        for (number, ((what, octets, answer), plan)) in rows.iter().zip(&daemon.peers).enumerate() {
            let mut neighbour = Neighbour::establish(&daemon, plan)?;
            let prefix = format!("10.{number}.0.0/16");
            neighbour.send(&announce(&basics(plan.asn), &[&prefix]))?;
            observer.route(&prefix)?;
            answered(&mut neighbour, what, octets, answer)?;
            observer.no_route(&prefix)?;
        }
        quiet(&daemon, rows.len())
    });
}

/// H6, Q13: a hostile peer does not fill the disk.
fn quiet(daemon: &Daemon, attempts: usize) -> Result<()> {
    let lines = daemon.log().lines().count();
    ensure!(lines < 40 + attempts * 10, "{lines} lines of log for {attempts} attempts");
    Ok(())
}

#[test]
fn h4_a_broken_notification_is_not_answered() {
    enclosed(|| {
        let bad: [Vec<u8>; 4] = [header(3, 20), header(3, 4097), header(3, 19), [&header(3, 18)[..], &[6, 2]].concat()];
        let daemon = Plan::default().external(2 * bad.len() as u16).start()?;
        for (number, octets) in bad.iter().enumerate() {
            let mut early = Neighbour::connect(&daemon, &daemon.peers[2 * number])?;
            early.send(octets)?;
            ensure!(early.expect_end()?.is_none(), "{octets:02x?} before OPEN");
            let mut late = Neighbour::establish(&daemon, &daemon.peers[2 * number + 1])?;
            late.send(octets)?;
            ensure!(late.expect_end()?.is_none(), "{octets:02x?} in Established");
        }
        Ok(())
    });
}

#[test]
fn h4_a_good_notification_is_not_answered_either() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let mut neighbour = Neighbour::establish(&daemon, &daemon.peers[0])?;
        neighbour.send(&notification(6, 4, &[]))?;
        ensure!(neighbour.expect_end()?.is_none());
        Ok(())
    });
}

#[test]
fn h5_a_notification_is_readable_although_we_keep_talking() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        for (plan, established) in daemon.peers.iter().zip([false, true]) {
            let mut neighbour = if established { Neighbour::establish(&daemon, plan)? } else { Neighbour::connect(&daemon, plan)? };
            // Unread input at a close makes Linux send RST, which would destroy the NOTIFICATION in our queue.
            let junk = [header(99, 19), keepalive().repeat(2000)].concat();
            neighbour.send(&junk)?;
            neighbour.expect_notification(1, 3)?;
        }
        Ok(())
    });
}
