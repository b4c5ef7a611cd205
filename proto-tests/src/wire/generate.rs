//! proptest strategies for messages that margay could send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::{Ipv4Net, Ipv6Net};
use margay::types::{
    Afi, Aggregator, AsPath, Asn, Attributes, ClusterId, Community, ExtendedCommunity, Family, Ipv6ExtendedCommunity, LargeCommunity,
    NextHop, Nlri, NlriList, Origin, Partial, PathId, Rare, RareAttributes, RouterId, SegmentKind, UnknownAttribute,
};
use margay::wire::{Capability, GracefulRestart, Message, Notification, Open, RouteRefresh, Update};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1_u32..65536, 65536_u32..=u32::MAX].prop_map(Asn)
}

fn as_path(sets: bool) -> impl Strategy<Value = AsPath> {
    let kind =
        if sets { prop_oneof![Just(SegmentKind::Sequence), Just(SegmentKind::Set)].boxed() } else { Just(SegmentKind::Sequence).boxed() };
    vec((kind, vec(asn(), 1..12)), 0..4).prop_map(AsPath::of)
}

fn unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    // Codes that the oracle does not know either; what it knows, it wants well-formed.
    let codes = prop::sample::select(vec![11_u8, 19, 20, 30, 99, 200, 254]);
    let one = (codes, vec(any::<u8>(), 0..300)).prop_map(|(code, value)| UnknownAttribute { flags: 0xe0, code, value: value.into() });
    vec(one, 0..3).prop_map(|mut list| {
        list.sort_by_key(|attribute| attribute.code);
        list.dedup_by_key(|attribute| attribute.code);
        list
    })
}

fn large_communities() -> impl Strategy<Value = Vec<LargeCommunity>> {
    let one = (0_u32..9, 0_u32..9, any::<u32>()).prop_map(|(a, b, c)| LargeCommunity(a, b, c));
    vec(one, 0..5).prop_map(|mut list| {
        list.sort_unstable();
        list.dedup();
        list
    })
}

/// Attributes; with AS_SETs in the path where they are wanted. The next hop is 10.0.0.1.
pub fn attributes(sets: bool) -> impl Strategy<Value = Attributes> {
    let origin = prop::sample::select(vec![Origin::Igp, Origin::Egp, Origin::Incomplete]);
    let aggregator = of((asn(), any::<Ipv4Addr>()).prop_map(|(asn, address)| Aggregator { asn, address }));
    let first = (origin, any::<bool>(), as_path(sets), of(any::<u32>()), any::<u32>(), aggregator, of(any::<Ipv4Addr>()), of(any::<u32>()));
    let lists = (
        vec(any::<Ipv4Addr>(), 0..4),
        vec(any::<u32>(), 0..5),
        vec(any::<[u8; 8]>(), 0..4),
        vec(any::<[u8; 20]>(), 0..3),
        large_communities(),
        unknown(),
    );
    (first, lists, any::<u8>()).prop_map(|(first, lists, marks)| {
        let (origin, atomic_aggregate, as_path, med, local_pref, aggregator, originator_id, only_to_customer) = first;
        let (clusters, communities, extended, ipv6_extended, large_communities, unknown) = lists;
        let present = [
            (7, aggregator.is_some()),
            (8, !communities.is_empty()),
            (16, !extended.is_empty()),
            (25, !ipv6_extended.is_empty()),
            (32, !large_communities.is_empty()),
            // The oracle refuses the bit on ONLY_TO_CUSTOMER, of which RFC 9234 says nothing; `wire::tests::attribute` has that one.
            (35, false),
        ];
        Attributes {
            origin,
            atomic_aggregate,
            partial: partial(present, marks),
            next_hop: NextHop::Global(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            as_path,
            med,
            local_pref: Some(local_pref),
            communities: communities.into_iter().map(Community).collect(),
            rare: Rare::from(RareAttributes {
                aggregator,
                originator_id: originator_id.map(RouterId),
                only_to_customer: only_to_customer.map(Asn),
                cluster_list: clusters.into_iter().map(ClusterId).collect(),
                extended_communities: extended.into_iter().map(ExtendedCommunity).collect(),
                ipv6_extended_communities: ipv6_extended.into_iter().map(Ipv6ExtendedCommunity).collect(),
                large_communities,
                unknown,
            }),
        }
    })
}

/// Marks some of the attributes that are there, as `marks` says by bits.
fn partial(present: [(u8, bool); 6], marks: u8) -> Partial {
    let mut partial = Partial::default();
    for (at, (code, _)) in present.into_iter().enumerate().filter(|(_, (_, present))| *present) {
        if marks & 1 << at != 0 {
            partial.insert(code);
        }
    }
    partial
}

/// Unicast IPv4 prefixes, with path identifiers where they are wanted.
pub fn ipv4(path_ids: bool, count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Nlri<Ipv4Net>>> {
    let one = (0_u32..0x7000_0000, 0_u8..=32, any::<u32>()).prop_map(move |(bits, length, id)| {
        let prefix = Ipv4Net::new_assert((0x0100_0000 + bits).into(), length.max(8)).trunc();
        Nlri { prefix, path_id: PathId(if path_ids { id } else { 0 }) }
    });
    vec(one, count)
}

/// Unicast IPv6 prefixes.
pub fn ipv6(path_ids: bool, count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Nlri<Ipv6Net>>> {
    let one = (any::<u128>(), 3_u8..=128, any::<u32>()).prop_map(move |(bits, length, id)| {
        let prefix = Ipv6Net::new_assert(Ipv6Addr::from_bits(bits >> 3 | 1 << 125), length).trunc();
        Nlri { prefix, path_id: PathId(if path_ids { id } else { 0 }) }
    });
    vec(one, count)
}

/// Next hops of IPv6 prefixes, and of IPv4 ones with RFC 8950.
pub fn ipv6_next_hop() -> impl Strategy<Value = NextHop> {
    let global = any::<u64>().prop_map(|bits| Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(bits)));
    let link_local = any::<u64>().prop_map(|bits| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(bits)));
    prop_oneof![
        global.clone().prop_map(|address| NextHop::Global(address.into())),
        (global, link_local.clone()).prop_map(|(global, link_local)| NextHop::GlobalAndLinkLocal { global, link_local, interface: 0 }),
        link_local.prop_map(|address| NextHop::LinkLocal { address, interface: 0 }),
    ]
}

/// UPDATEs that one message can say: any mixture of fields.
pub fn update(path_ids: bool, sets: bool) -> impl Strategy<Value = Update> {
    let prefixes = (ipv4(path_ids, 0..9), ipv6(path_ids, 0..9), ipv4(path_ids, 0..9), ipv6(path_ids, 0..9));
    (prefixes, attributes(sets), ipv6_next_hop()).prop_map(|(prefixes, attributes, next_hop)| {
        let (withdrawn4, withdrawn6, announced4, announced6) = prefixes;
        let present = |list: NlriList| (!list.is_empty()).then_some(list);
        let withdrawn = [NlriList::Ipv4(withdrawn4), NlriList::Ipv6(withdrawn6)].into_iter().filter_map(present).collect();
        let ipv6 = Attributes { next_hop, ..attributes.clone() };
        let announced = [(attributes, NlriList::Ipv4(announced4)), (ipv6, NlriList::Ipv6(announced6))];
        let announced = announced.into_iter().filter(|(_, list)| !list.is_empty()).map(|(attributes, list)| (Arc::new(attributes), list));
        let mut update = Update { withdrawn, announced: announced.collect(), ..Update::default() };
        if update == Update::default() {
            update.end_of_rib = Some(Family::IPV4_UNICAST);
        }
        update
    })
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::ALL.to_vec())
}

fn capability() -> impl Strategy<Value = Capability> {
    let restart = (any::<bool>(), any::<bool>(), 0_u16..4096, vec((family(), any::<bool>()), 0..3)).prop_map(
        |(restarting, notification, restart_time, families)| GracefulRestart { restarting, notification, restart_time, families },
    );
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        Just(Capability::ExtendedNextHop(vec![(Afi::IPV4, 1, Afi::IPV6)])),
        Just(Capability::ExtendedMessage),
        (0_u8..5).prop_map(Capability::Role),
        restart.prop_map(Capability::GracefulRestart),
        asn().prop_map(Capability::FourOctetAs),
        vec((family(), 1_u8..4), 1..3).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRouteRefresh),
        vec((family(), any::<bool>(), 0_u32..0x100_0000), 0..3).prop_map(Capability::LongLivedGracefulRestart),
        ("[a-z0-9-]{1,20}", "[a-z.]{0,20}").prop_map(|(host, domain)| Capability::Fqdn { host: host.into(), domain: domain.into() }),
        "[a-zA-Z0-9 ./]{1,40}".prop_map(|version| Capability::SoftwareVersion(version.into())),
        (200_u8..239, vec(any::<u8>(), 0..40)).prop_map(|(code, value)| Capability::Unknown { code, value: value.into() }),
    ]
}

/// OPENs. Identifiers stay below the multicast range, which the oracle refuses.
pub fn open() -> impl Strategy<Value = Open> {
    (1_u16.., prop_oneof![Just(0_u16), 3_u16..], 1_u32..0xe000_0000, vec(capability(), 0..12)).prop_map(
        |(my_as, hold_time, identifier, capabilities)| Open { my_as, hold_time, identifier: RouterId(identifier.into()), capabilities },
    )
}

/// NOTIFICATIONs of the codes that IANA knows.
pub fn notification() -> impl Strategy<Value = Notification> {
    let codes = prop::sample::select(vec![
        (1_u8, 1_u8),
        (1, 2),
        (1, 3),
        (2, 0),
        (2, 1),
        (2, 2),
        (2, 3),
        (2, 4),
        (2, 6),
        (2, 7),
        (3, 1),
        (3, 9),
        (3, 10),
        (4, 0),
        (5, 1),
        (6, 1),
        (6, 2),
        (6, 4),
        (6, 7),
        (7, 1),
    ]);
    (codes, vec(any::<u8>(), 0..60)).prop_map(|((code, subcode), data)| Notification { code, subcode, data: Bytes::from(data) })
}

/// Any message; UPDATEs by [`update`].
pub fn message(path_ids: bool, sets: bool) -> impl Strategy<Value = Message> {
    let refresh = (family(), 0_u8..3).prop_map(|(family, subtype)| RouteRefresh::new(family, subtype));
    prop_oneof![
        12 => update(path_ids, sets).prop_map(Message::Update),
        3 => open().prop_map(Message::Open),
        1 => notification().prop_map(Message::Notification),
        1 => refresh.prop_map(Message::RouteRefresh),
        1 => Just(Message::Keepalive),
    ]
}
