//! Every kind of BMP message that margay writes, read by a second implementation and written by it again to the same octets.

use std::sync::Arc;

use bytes::Bytes;
use margay::config::PeerConfig;
use margay::session::{Handshake, SessionEnd, SessionFacts};
use margay::telemetry::bmp::{self, Moment, Statistic, Subject, TerminationReason, View};
use margay::types::{
    AsPath, Asn, Attributes, Community, ConnectionId, Family, NextHop, Nlri, NlriList, PathId, PeerId, PerFamily, RouterId,
};
use margay::wire::{Capability, Context, Notification, Open, cease, pack};
use netgauze_bmp_pkt::iana::BmpMessageType;
use netgauze_bmp_pkt::wire::deserializer::BmpParsingContext;
use netgauze_bmp_pkt::{BmpMessage, PeerKey, v3};
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

const AT: Moment = Moment { seconds: 1_700_000_000, micros: 250_000 };
const BOTH: PerFamily<bool> = PerFamily { ipv4: true, ipv6: true };
const NONE: PerFamily<bool> = PerFamily { ipv4: false, ipv6: false };

/// A collector: it learns from Peer Up how the UPDATEs of a peer are written, as a real one does.
#[derive(Default)]
struct Collector {
    peers: BmpParsingContext,
}

impl Collector {
    /// Reads one message, and writes it again.
    fn read(&mut self, octets: &[u8]) -> BmpMessage {
        let message =
            BmpMessage::parse(&mut SliceReader::new(octets), &mut self.peers).unwrap_or_else(|error| panic!("{error:?}: {octets:02x?}"));
        let mut again = Vec::new();
        message.write(&mut again).unwrap();
        assert_eq!(again, octets, "{message:?}");
        message
    }

    fn read_v3(&mut self, octets: &[u8]) -> v3::BmpMessageValue {
        match self.read(octets) {
            BmpMessage::V3(value) => value,
            BmpMessage::V4(value) => panic!("version 4: {value:?}"),
        }
    }
}

fn open(asn: u32, identifier: [u8; 4], add_path: bool) -> Bytes {
    let mut capabilities = vec![
        Capability::Multiprotocol(Family::IPV4_UNICAST),
        Capability::Multiprotocol(Family::IPV6_UNICAST),
        Capability::RouteRefresh,
        Capability::FourOctetAs(Asn(asn)),
    ];
    capabilities.extend(add_path.then(|| Capability::AddPath(vec![(Family::IPV4_UNICAST, 3), (Family::IPV6_UNICAST, 3)])));
    Open { my_as: Asn(asn).two_octets(), hold_time: 90, identifier: RouterId(identifier.into()), capabilities }.encode()
}

fn facts(address: &str, add_path: bool) -> SessionFacts {
    let remote = address.parse().unwrap();
    let identifier = RouterId([192, 0, 2, 7].into());
    let local = if address.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
    let both = if add_path { BOTH } else { NONE };
    SessionFacts {
        peer: PeerId(1),
        connection: ConnectionId(1),
        config: Arc::new(PeerConfig::new("peer", (Asn(64512), RouterId([192, 0, 2, 1].into())), (remote, Asn(70000)))),
        context: Context { four_octet_as: true, families: BOTH, add_path_receive: both, add_path_send: both, ..Context::default() },
        local: local.parse().unwrap(),
        local_link: None,
        remote,
        identifier,
        graceful_restart: None,
        long_lived: false,
        enhanced_refresh: false,
        refresh: true,
        handshake: Arc::new(Handshake {
            sent: open(64512, [192, 0, 2, 1], add_path),
            received: open(70000, [192, 0, 2, 7], add_path),
            local_port: 179,
            remote_port: 41_000,
        }),
    }
}

fn attributes(next_hop: &str) -> Attributes {
    Attributes {
        as_path: AsPath::sequence([Asn(70000), Asn(65001)]),
        local_pref: Some(200),
        med: Some(7),
        communities: [Community(0xfde8_0001)].into(),
        ..Attributes::originated(NextHop::Global(next_hop.parse().unwrap()))
    }
}

fn lists(path_id: u32) -> [(NlriList, &'static str); 2] {
    let path_id = PathId(path_id);
    let v4 = ["10.1.0.0/16", "10.2.3.0/24"].map(|net| Nlri { prefix: net.parse().unwrap(), path_id });
    let v6 = ["2001:db8:1::/48", "2001:db8:2::/64"].map(|net| Nlri { prefix: net.parse().unwrap(), path_id });
    [(NlriList::Ipv4(v4.to_vec()), "192.0.2.66"), (NlriList::Ipv6(v6.to_vec()), "2001:db8::66")]
}

#[test]
fn initiation_and_termination_are_read() {
    let mut collector = Collector::default();
    let initiation = collector.read_v3(&bmp::initiation("margay 0.1", "node-1"));
    assert_eq!(initiation.get_type(), BmpMessageType::Initiation);
    assert!(format!("{initiation:?}").contains("node-1"));
    for reason in [TerminationReason::AdministrativelyClosed, TerminationReason::Unspecified, TerminationReason::OutOfResources] {
        assert_eq!(collector.read(&bmp::termination(reason)).get_type(), BmpMessageType::Termination);
    }
}

#[test]
fn peer_up_is_read_with_both_opens_and_ports() {
    for address in ["192.0.2.7", "2001:db8::7"] {
        let v3::BmpMessageValue::PeerUpNotification(up) = Collector::default().read_v3(&bmp::peer_up(&facts(address, false), AT)) else {
            panic!("no Peer Up")
        };
        assert_eq!((up.local_port(), up.remote_port()), (Some(179), Some(41_000)));
        assert_eq!(up.peer_header().address().map(|address| address.to_string()), Some(address.to_owned()));
        assert_eq!((up.peer_header().peer_as(), up.peer_header().bgp_id()), (70000, [192, 0, 2, 7].into()));
    }
}

#[test]
fn routes_of_every_view_and_family_are_read_with_and_without_path_identifiers() {
    let mut read = 0;
    for (address, add_path) in [("192.0.2.7", false), ("2001:db8::7", true)] {
        let facts = facts(address, add_path);
        let subject = Subject::peer(&facts);
        let mut collector = Collector::default();
        collector.read(&bmp::peer_up(&facts, AT));
        learn(&mut collector, &bmp::peer_up(&facts, AT), add_path);
        for view in [View::PrePolicy, View::PostPolicy] {
            for (list, next_hop) in lists(if add_path { 9 } else { 0 }) {
                let mut messages = Vec::new();
                bmp::routes(&subject, view, Some(&attributes(next_hop)), &list, AT, &mut messages);
                bmp::routes(&subject, view, None, &list, AT, &mut messages);
                messages.push(bmp::end_of_rib(&subject, view, list.family(), AT));
                for message in &messages {
                    learn(&mut collector, message, add_path);
                    assert_eq!(collector.read(message).get_type(), BmpMessageType::RouteMonitoring);
                    read += 1;
                }
            }
        }
        let mut frames = Vec::new();
        let [(NlriList::Ipv4(list), next_hop), _] = lists(if add_path { 9 } else { 0 }) else { panic!() };
        pack::announce::<margay::types::Ipv4Unicast>(&attributes(next_hop), &list, &facts.context, &mut frames);
        pack::withdraw::<margay::types::Ipv4Unicast>(&list, &facts.context, &mut frames);
        let mut messages = Vec::new();
        bmp::sent(&subject, &[Bytes::from(frames.concat())], AT, &mut messages);
        assert_eq!(messages.len(), 2, "each message of a frame in one of its own");
        for message in &messages {
            learn(&mut collector, message, add_path);
            let message = collector.read(message);
            let words = format!("{message:?}");
            assert!(words.contains("adj_rib_out: true") || words.contains("adj_rib_out"), "{words}");
        }
    }
    assert_eq!(read, 2 * 2 * 2 * 3);
}

/// Tells the oracle of path identifiers, which it does not take from Peer Up by itself.
fn learn(collector: &mut Collector, message: &[u8], add_path: bool) {
    let Ok(parsed) = BmpMessage::parse(&mut SliceReader::new(message), &mut collector.peers) else { return };
    let (BmpMessage::V3(v3::BmpMessageValue::PeerUpNotification(up)), true) = (&parsed, add_path) else { return };
    let key = PeerKey::from_peer_header(up.peer_header());
    let netgauze_bgp_pkt::BgpMessage::Open(open) = up.received_message() else { return };
    let context = collector.peers.get_peer(&key).expect("it knows the peer");
    open.capabilities().iter().for_each(|capability| context.update_capabilities(capability, false));
}

#[test]
fn loc_rib_is_read_with_its_table_name() {
    let mut collector = Collector::default();
    let subject = Subject::loc_rib(Asn(64512), RouterId([192, 0, 2, 1].into()));
    let up = collector.read_v3(&bmp::loc_rib_up(&subject, AT));
    assert!(format!("{up:?}").contains("global"), "{up:?}");
    for (list, next_hop) in lists(0) {
        let mut messages = Vec::new();
        bmp::routes(&subject, View::LocRib, Some(&attributes(next_hop)), &list, AT, &mut messages);
        bmp::routes(&subject, View::LocRib, None, &list, AT, &mut messages);
        messages.push(bmp::end_of_rib(&subject, View::LocRib, list.family(), AT));
        assert_eq!(messages.len(), 3);
        for message in &messages {
            let words = format!("{:?}", collector.read(message));
            assert!(words.contains("LocRibInstancePeer"), "{words}");
        }
    }
}

#[test]
fn every_peer_down_is_read() {
    let facts = facts("192.0.2.7", false);
    let notification = Notification::cease_with_text(cease::ADMINISTRATIVE_SHUTDOWN, "maintenance").encode();
    let table = [
        (SessionEnd::NotificationSent(notification.clone()), "LocalSystemClosedNotificationPduFollows"),
        (SessionEnd::Closed, "LocalSystemClosedFsmEventFollows"),
        (SessionEnd::NotificationReceived(notification), "RemoteSystemClosedNotificationPduFollows"),
        (SessionEnd::Lost, "RemoteSystemClosedNoData"),
        (SessionEnd::Deconfigured, "PeerDeConfigured"),
    ];
    for (end, name) in table {
        let mut collector = Collector::default();
        collector.read(&bmp::peer_up(&facts, AT));
        let words = format!("{:?}", collector.read(&bmp::peer_down(&Subject::peer(&facts), &end, AT)));
        assert!(words.contains(name), "{name}: {words}");
    }
}

#[test]
fn statistics_are_read_each_by_its_name() {
    let numbers = [
        Statistic::Rejected(1),
        Statistic::DuplicateAnnouncements(2),
        Statistic::DuplicateWithdrawals(3),
        Statistic::AdjRibIn(4),
        Statistic::LocRib(5),
        Statistic::AdjRibInOf(Family::IPV4_UNICAST, 6),
        Statistic::LocRibOf(Family::IPV6_UNICAST, 7),
        Statistic::FaultyUpdates(8),
        Statistic::AdjRibOut(9),
        Statistic::AdjRibOutOf(Family::IPV6_UNICAST, 10),
    ];
    let facts = facts("192.0.2.7", false);
    let mut collector = Collector::default();
    collector.read(&bmp::peer_up(&facts, AT));
    let v3::BmpMessageValue::StatisticsReport(report) = collector.read_v3(&bmp::statistics(&Subject::peer(&facts), &numbers, AT)) else {
        panic!("no Statistics Report")
    };
    assert_eq!(report.counters().len(), numbers.len());
    assert!(!format!("{report:?}").contains("Unknown"), "{report:?}");
}
