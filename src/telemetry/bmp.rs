//! Messages of the BGP Monitoring Protocol, version 3: what a router tells a collector (RFC 7854), Adj-RIB-Out (RFC 8671) and
//! Loc-RIB (RFC 9069) included.
//!
//! | message | type | what stands in it |
//! |---|---|---|
//! | Route Monitoring | 0 | one UPDATE of one view |
//! | Statistics Report | 1 | [`Statistic`]s of a peer, or of the Loc-RIB |
//! | Peer Down | 2 | [`SessionEnd`], with the NOTIFICATION where there was one |
//! | Peer Up | 3 | both OPENs, octet by octet |
//! | Initiation | 4 | sysDescr and sysName |
//! | Termination | 5 | the reason |
//!
//! UPDATEs of Adj-RIB-In and Loc-RIB are made anew from what is held, as RFC 7854 section 5 foresees, with four-octet AS numbers;
//! those of Adj-RIB-Out are the very ones that the peer is sent, so the A flag says where they have two octets only.

use std::net::{IpAddr, Ipv4Addr};

use bytes::{BufMut, Bytes};

use crate::session::{SessionEnd, SessionFacts};
use crate::types::{AddressFamily, Asn, Attributes, Family, Ipv4Unicast, Ipv6Unicast, Nlri, NlriList, PerFamily, RouterId};
use crate::wire::{Capability, Context, EXTENDED_LIMIT, Open, pack};

const VERSION: u8 = 3;
/// Octets of the common header.
const HEADER: usize = 6;
/// Octets that an address has in a message.
const ADDRESS: usize = 16;

const ROUTE_MONITORING: u8 = 0;
const STATISTICS_REPORT: u8 = 1;
const PEER_DOWN: u8 = 2;
const PEER_UP: u8 = 3;
const INITIATION: u8 = 4;
const TERMINATION: u8 = 5;

/// Peer type: a global instance peer.
const GLOBAL_INSTANCE: u8 = 0;
/// Peer type: a Loc-RIB instance peer (RFC 9069).
const LOC_RIB_INSTANCE: u8 = 3;

/// V: the peer's address is IPv6.
const IPV6: u8 = 0x80;
/// L: after policy.
const POST_POLICY: u8 = 0x40;
/// A: AS_PATH has two octets a number.
const TWO_OCTET_AS: u8 = 0x20;
/// O: Adj-RIB-Out (RFC 8671).
const ADJ_RIB_OUT: u8 = 0x10;

/// Information TLVs of Initiation and Peer Up.
mod information {
    /// sysDescr.
    pub(super) const DESCRIPTION: u16 = 1;
    /// sysName.
    pub(super) const NAME: u16 = 2;
    /// VRF or table name (RFC 9069 section 5.2.1).
    pub(super) const TABLE_NAME: u16 = 3;
}

/// The greatest text of an information TLV that is sent.
const TEXT_MAX: usize = 1024;

/// Which table a route stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Adj-RIB-In before import policy: what the peer said.
    PrePolicy,
    /// Adj-RIB-In after import policy: what was let in, as the policy left it.
    PostPolicy,
    /// Adj-RIB-Out after export policy: what the peer is told.
    AdjRibOut,
    /// Loc-RIB: the best path of each prefix, routes of this node included.
    LocRib,
}

/// Why no more is said (RFC 7854 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum TerminationReason {
    /// The session was administratively closed.
    AdministrativelyClosed = 0,
    /// No reason is given.
    Unspecified = 1,
    /// Out of resources: the collector did not keep up.
    OutOfResources = 2,
}

/// One number of a Statistics Report; the codes are IANA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// 0: paths that import policy or the protocol refuses.
    Rejected(u32),
    /// 1: announcements of what had been announced just so.
    DuplicateAnnouncements(u32),
    /// 2: withdrawals of what was not there.
    DuplicateWithdrawals(u32),
    /// 7: paths in Adj-RIB-In.
    AdjRibIn(u64),
    /// 8: prefixes in Loc-RIB.
    LocRib(u64),
    /// 9: paths in Adj-RIB-In of a family.
    AdjRibInOf(Family, u64),
    /// 10: prefixes in Loc-RIB of a family.
    LocRibOf(Family, u64),
    /// 11: UPDATEs treated as withdrawals, or whose faulty attributes were discarded (RFC 7606).
    FaultyUpdates(u32),
    /// 15: paths in Adj-RIB-Out after policy.
    AdjRibOut(u64),
    /// 17: paths in Adj-RIB-Out after policy of a family.
    AdjRibOutOf(Family, u64),
}

/// A moment: seconds since 1970 and microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Seconds.
    pub seconds: u32,
    /// Microseconds, below a million.
    pub micros: u32,
}

/// Whom a message is about: the per-peer header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// None for the Loc-RIB.
    peer: Option<IpAddr>,
    asn: Asn,
    identifier: RouterId,
    /// How UPDATEs that are made anew are written.
    context: Context,
    /// Those of Adj-RIB-Out have two-octet AS numbers.
    two_octet_as_out: bool,
}

impl Subject {
    /// The peer of a session.
    pub fn peer(facts: &SessionFacts) -> Self {
        let of_session = &facts.context;
        Self {
            peer: Some(facts.remote),
            asn: facts.config.remote_asn,
            identifier: facts.identifier,
            context: Context {
                // Path identifiers where the OPENs in Peer Up say that the peer sends them.
                add_path_send: of_session.add_path_receive,
                ..context(of_session.families)
            },
            two_octet_as_out: !of_session.four_octet_as,
        }
    }

    /// The Loc-RIB of this node.
    pub fn loc_rib(asn: Asn, identifier: RouterId) -> Self {
        let families = PerFamily { ipv4: true, ipv6: true };
        Self { peer: None, asn, identifier, context: context(families), two_octet_as_out: false }
    }

    fn put(&self, view: View, at: Moment, out: &mut Vec<u8>) {
        out.put_u8(if self.peer.is_some() { GLOBAL_INSTANCE } else { LOC_RIB_INSTANCE });
        let version = if self.peer.is_some_and(|address| address.is_ipv6()) { IPV6 } else { 0 };
        out.put_u8(match view {
            View::PrePolicy => version,
            View::PostPolicy => version | POST_POLICY,
            View::AdjRibOut => version | POST_POLICY | ADJ_RIB_OUT | if self.two_octet_as_out { TWO_OCTET_AS } else { 0 },
            // F: whether the Loc-RIB is filtered; it is not.
            View::LocRib => 0,
        });
        // No peer has a distinguisher: there are no VRFs.
        out.put_u64(0);
        put_address(self.peer, out);
        out.put_u32(self.asn.0);
        out.put_slice(&self.identifier.0.octets());
        out.put_u32(at.seconds);
        out.put_u32(at.micros);
    }

    /// For messages that are about the peer whatever the view.
    fn view(&self) -> View {
        if self.peer.is_some() { View::PrePolicy } else { View::LocRib }
    }
}

/// Attributes of iBGP are there for every peer, as they are held: import policy may have set them.
fn context(families: PerFamily<bool>) -> Context {
    Context { four_octet_as: true, families, extended_next_hop: true, ebgp: false, ..Context::default() }
}

/// The first message on a connection.
pub fn initiation(description: &str, name: &str) -> Bytes {
    message(INITIATION, |out| {
        put_text(information::DESCRIPTION, description, out);
        put_text(information::NAME, name, out);
    })
}

/// The last message on a connection.
pub fn termination(reason: TerminationReason) -> Bytes {
    message(TERMINATION, |out| {
        // Type 1, reason; its value has two octets.
        out.put_u16(1);
        out.put_u16(2);
        out.put_u16(reason as u16);
    })
}

/// A session is Established.
pub fn peer_up(facts: &SessionFacts, at: Moment) -> Bytes {
    let subject = Subject::peer(facts);
    message(PEER_UP, |out| {
        subject.put(subject.view(), at, out);
        put_address(Some(facts.local), out);
        out.put_u16(facts.handshake.local_port);
        out.put_u16(facts.handshake.remote_port);
        out.put_slice(&facts.handshake.sent);
        out.put_slice(&facts.handshake.received);
    })
}

/// There is a Loc-RIB. The OPENs are made up (RFC 9069 section 5.2): they say how its UPDATEs are written.
pub fn loc_rib_up(loc_rib: &Subject, at: Moment) -> Bytes {
    let open = Open {
        my_as: loc_rib.asn.two_octets(),
        hold_time: 0,
        identifier: loc_rib.identifier,
        capabilities: vec![
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::Multiprotocol(Family::IPV6_UNICAST),
            Capability::ExtendedMessage,
            Capability::FourOctetAs(loc_rib.asn),
        ],
    };
    message(PEER_UP, |out| {
        loc_rib.put(View::LocRib, at, out);
        put_address(None, out);
        out.put_u32(0);
        out.put_slice(&open.encode());
        out.put_slice(&open.encode());
        put_text(information::TABLE_NAME, "global", out);
    })
}

/// A session has ended.
pub fn peer_down(peer: &Subject, end: &SessionEnd, at: Moment) -> Bytes {
    message(PEER_DOWN, |out| {
        peer.put(peer.view(), at, out);
        match end {
            SessionEnd::NotificationSent(notification) => {
                out.put_u8(1);
                out.put_slice(notification);
            }
            SessionEnd::Closed => {
                out.put_u8(2);
                // No event of the FSM names it.
                out.put_u16(0);
            }
            SessionEnd::NotificationReceived(notification) => {
                out.put_u8(3);
                out.put_slice(notification);
            }
            SessionEnd::Lost => out.put_u8(4),
            SessionEnd::Deconfigured => out.put_u8(5),
        }
    })
}

/// Appends the messages that tell these paths in a view, as few as it takes; `None` for attributes says that the path is gone. Paths that no
/// UPDATE can carry are left out.
pub fn routes(subject: &Subject, view: View, attributes: Option<&Attributes>, list: &NlriList, at: Moment, out: &mut Vec<Bytes>) {
    let mut updates = Vec::new();
    match list {
        NlriList::Ipv4(list) => write::<Ipv4Unicast>(subject, attributes, list, &mut updates),
        NlriList::Ipv6(list) => write::<Ipv6Unicast>(subject, attributes, list, &mut updates),
    }
    out.extend(updates.iter().map(|update| monitored(subject, view, update, at)));
}

fn write<A: AddressFamily>(subject: &Subject, attributes: Option<&Attributes>, list: &[Nlri<A::Prefix>], updates: &mut Vec<Bytes>) {
    match attributes {
        Some(attributes) => {
            // What no message of the usual size can hold has come in a larger one.
            let large = pack::announce::<A>(attributes, list, &subject.context, updates);
            if !large.is_empty() {
                pack::announce::<A>(attributes, &large, &Context { send_limit: EXTENDED_LIMIT, ..subject.context.clone() }, updates);
            }
        }
        None => pack::withdraw::<A>(list, &subject.context, updates),
    }
}

/// Appends a message for each of these UPDATEs that the peer is sent. Each of `frames` is one or more whole messages.
pub fn sent(peer: &Subject, frames: &[Bytes], at: Moment, out: &mut Vec<Bytes>) {
    for frame in frames {
        let mut rest = &frame[..];
        while let Some(length) = rest.get(16..18).map(|octets| usize::from(u16::from_be_bytes([octets[0], octets[1]]))) {
            let Some((update, others)) = rest.split_at_checked(length.max(18)) else { return };
            out.push(monitored(peer, View::AdjRibOut, update, at));
            rest = others;
        }
    }
}

/// The view is told in full.
pub fn end_of_rib(subject: &Subject, view: View, family: Family, at: Moment) -> Bytes {
    monitored(subject, view, &pack::end_of_rib(family), at)
}

fn monitored(subject: &Subject, view: View, update: &[u8], at: Moment) -> Bytes {
    message(ROUTE_MONITORING, |out| {
        subject.put(view, at, out);
        out.put_slice(update);
    })
}

/// Numbers of a peer, or of the Loc-RIB.
pub fn statistics(subject: &Subject, statistics: &[Statistic], at: Moment) -> Bytes {
    message(STATISTICS_REPORT, |out| {
        subject.put(subject.view(), at, out);
        out.put_u32(statistics.len() as u32);
        statistics.iter().for_each(|statistic| statistic.put(out));
    })
}

impl Statistic {
    fn put(self, out: &mut Vec<u8>) {
        let counter = |code: u16, number: u32, out: &mut Vec<u8>| {
            out.put_u16(code);
            out.put_u16(4);
            out.put_u32(number);
        };
        let gauge = |code: u16, number: u64, out: &mut Vec<u8>| {
            out.put_u16(code);
            out.put_u16(8);
            out.put_u64(number);
        };
        let of_family = |code: u16, family: Family, number: u64, out: &mut Vec<u8>| {
            out.put_u16(code);
            out.put_u16(11);
            out.put_u16(family.afi.0);
            out.put_u8(family.safi.0);
            out.put_u64(number);
        };
        match self {
            Self::Rejected(number) => counter(0, number, out),
            Self::DuplicateAnnouncements(number) => counter(1, number, out),
            Self::DuplicateWithdrawals(number) => counter(2, number, out),
            Self::AdjRibIn(number) => gauge(7, number, out),
            Self::LocRib(number) => gauge(8, number, out),
            Self::AdjRibInOf(family, number) => of_family(9, family, number, out),
            Self::LocRibOf(family, number) => of_family(10, family, number, out),
            Self::FaultyUpdates(number) => counter(11, number, out),
            Self::AdjRibOut(number) => gauge(15, number, out),
            Self::AdjRibOutOf(family, number) => of_family(17, family, number, out),
        }
    }
}

/// One message with the body that `body` appends.
fn message(kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = vec![VERSION, 0, 0, 0, 0, kind];
    body(&mut out);
    // The largest holds two OPENs, or one message of 65,535 octets.
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
    out[1..HEADER - 1].copy_from_slice(&length.to_be_bytes());
    Bytes::from(out)
}

/// Sixteen octets; an IPv4 address is the last four of them.
fn put_address(address: Option<IpAddr>, out: &mut Vec<u8>) {
    match address {
        Some(IpAddr::V6(address)) => out.put_slice(&address.octets()),
        address => {
            out.put_bytes(0, ADDRESS - 4);
            let address = if let Some(IpAddr::V4(address)) = address { address } else { Ipv4Addr::UNSPECIFIED };
            out.put_slice(&address.octets());
        }
    }
}

fn put_text(kind: u16, text: &str, out: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(TEXT_MAX)];
    out.put_u16(kind);
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::{Handshake, sample};
    use crate::types::{AsPath, NextHop, PathId};

    const AT: Moment = Moment { seconds: 0x0102_0304, micros: 5 };

    fn facts() -> SessionFacts {
        let handshake =
            Handshake { sent: Bytes::from_static(b"ours"), received: Bytes::from_static(b"theirs"), local_port: 179, remote_port: 40000 };
        SessionFacts { handshake: Arc::new(handshake), ..sample::facts(2, None) }
    }

    /// The 42 octets of the per-peer header of 10.0.0.2 of AS 64512 with these flags.
    fn header(flags: u8) -> Vec<u8> {
        [&[0, flags][..], &[0; 8], &[0; 12], &[10, 0, 0, 2], &[0, 0, 0xfc, 0], &[10, 0, 0, 2], &[1, 2, 3, 4], &[0, 0, 0, 5]].concat()
    }

    fn expect(message: &[u8], kind: u8, body: &[u8]) {
        let length = (6 + body.len() as u32).to_be_bytes();
        assert_eq!(message, [&[3][..], &length, &[kind], body].concat());
    }

    #[test]
    fn the_beginning_and_the_end_of_a_connection() {
        expect(&initiation("margay", "n1"), 4, b"\0\x01\0\x06margay\0\x02\0\x02n1");
        expect(&termination(TerminationReason::AdministrativelyClosed), 5, &[0, 1, 0, 2, 0, 0]);
        expect(&termination(TerminationReason::OutOfResources), 5, &[0, 1, 0, 2, 0, 2]);
    }

    #[test]
    fn peer_up_has_both_opens_as_they_were() {
        let ends = [&[0; 12][..], &[10, 0, 0, 1], &[0, 179], &[0x9c, 0x40]].concat();
        expect(&peer_up(&facts(), AT), 3, &[header(0), ends, b"oursthe".to_vec(), b"irs".to_vec()].concat());
    }

    #[test]
    fn peer_down_has_the_reason_and_the_notification() {
        let notification = Bytes::from_static(b"N");
        let table = [
            (SessionEnd::NotificationSent(notification.clone()), &b"\x01N"[..]),
            (SessionEnd::Closed, &[2, 0, 0]),
            (SessionEnd::NotificationReceived(notification), b"\x03N"),
            (SessionEnd::Lost, &[4]),
            (SessionEnd::Deconfigured, &[5]),
        ];
        for (end, data) in table {
            expect(&peer_down(&Subject::peer(&facts()), &end, AT), 2, &[header(0), data.to_vec()].concat());
        }
    }

    #[test]
    fn each_view_has_its_flags_and_paths_share_messages() {
        let attributes =
            Attributes { as_path: AsPath::sequence([Asn(70000)]), ..Attributes::originated(NextHop::Global("10.0.0.9".parse().unwrap())) };
        let list =
            NlriList::Ipv4(["10.1.0.0/16", "10.2.0.0/16"].map(|net| Nlri { prefix: net.parse().unwrap(), path_id: PathId(0) }).to_vec());
        let subject = Subject::peer(&facts());
        for (view, flags) in [(View::PrePolicy, 0), (View::PostPolicy, 0x40), (View::AdjRibOut, 0x70)] {
            let mut messages = Vec::new();
            routes(&subject, view, Some(&attributes), &list, AT, &mut messages);
            assert_eq!(messages.len(), 1);
            assert_eq!(messages[0][6..48], header(flags), "the session has two-octet AS numbers");
            assert_eq!(messages[0][48..64], [255; 16]);
            assert!(messages[0].ends_with(&[16, 10, 1, 16, 10, 2]));
        }
        let mut messages = Vec::new();
        routes(&subject, View::PrePolicy, None, &list, AT, &mut messages);
        assert!(messages[0].ends_with(&[0, 6, 16, 10, 1, 16, 10, 2, 0, 0]));
    }

    #[test]
    fn frames_are_cut_into_one_message_each() {
        let two = [pack::end_of_rib(Family::IPV4_UNICAST), pack::end_of_rib(Family::IPV6_UNICAST)].concat();
        let mut messages = Vec::new();
        sent(&Subject::peer(&facts()), &[Bytes::from(two), pack::end_of_rib(Family::IPV4_UNICAST)], AT, &mut messages);
        assert_eq!(messages.iter().map(|message| message.len() - 48).collect::<Vec<_>>(), [23, 29, 23]);
    }

    #[test]
    fn loc_rib_is_a_peer_of_its_own_type() {
        let subject = Subject::loc_rib(Asn(70000), RouterId([9, 9, 9, 9].into()));
        let head = [&[3, 0][..], &[0; 8], &[0; 16], &[0, 1, 0x11, 0x70], &[9, 9, 9, 9], &[1, 2, 3, 4], &[0, 0, 0, 5]].concat();
        let up = loc_rib_up(&subject, AT);
        assert_eq!(up[6..48], head);
        assert_eq!(up[48..68], [0; 20], "neither address nor port");
        assert!(up.ends_with(b"\0\x03\0\x06global"));
        assert_eq!(end_of_rib(&subject, View::LocRib, Family::IPV4_UNICAST, AT)[6..48], head);
    }

    #[test]
    fn statistics_have_the_lengths_of_their_types() {
        let body = [
            &header(0)[..],
            &[0, 0, 0, 3],
            &[0, 0, 0, 4, 0, 0, 0, 7],
            &[0, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8],
            &[0, 9, 0, 11, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 9],
        ]
        .concat();
        let numbers = [Statistic::Rejected(7), Statistic::AdjRibIn(8), Statistic::AdjRibInOf(Family::IPV6_UNICAST, 9)];
        expect(&statistics(&Subject::peer(&facts()), &numbers, AT), 1, &body);
    }
}
