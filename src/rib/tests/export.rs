//! What is sent on, to whom and how.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::super::Input;
use super::super::testing::*;
use crate::config::{NextHopMode, PeerConfig, Role, RoleConfig};
use crate::fib::KernelHop;
use crate::origin::LocalTarget;
use crate::policy::{Action, Match, Policy, RouteSource, Term, Verdict};
use crate::session::SessionFacts;
use crate::types::{
    AsPath, Asn, Attributes, ClusterId, Community, ExtendedCommunity, NextHop, PeerId, PerFamily, Rare, RareAttributes, RouterId,
    SegmentKind,
};
use crate::wire::Context;

const PREFIX: &str = "192.0.2.0/24";

type Change = fn(&mut PeerConfig, &mut Context);

fn plain(_: &mut PeerConfig, _: &mut Context) {}

fn client(config: &mut PeerConfig, _: &mut Context) {
    config.reflector_client = true;
    config.cluster_id = Some(ClusterId(Ipv4Addr::new(244, 0, 0, 1)));
}

/// What peer 2 is told of a route of peer 1.
fn passed(from: (u32, Change), to: (u32, Change), attributes: Attributes) -> Option<Attributes> {
    let mut bench = Bench::new();
    bench.up_with(1, from.0, from.1);
    bench.up_with(2, to.0, to.1);
    bench.announce(1, PREFIX, attributes);
    bench.told_of(2, PREFIX)
}

#[test]
fn e1_e4_who_hears_of_whom() {
    let (external, internal, reflected): ((u32, Change), (u32, Change), (u32, Change)) = ((65001, plain), (US, plain), (US, client));
    for (from, to, told) in [
        (external, (65002, plain as Change), true),
        (external, internal, true),
        (external, reflected, true),
        (internal, external, true),
        (internal, internal, false),
        (internal, reflected, true),
        (reflected, external, true),
        (reflected, internal, true),
        (reflected, reflected, true),
    ] {
        let path: &[u32] = if from.0 == US { &[] } else { &[from.0] };
        assert_eq!(passed(from, to, attributes("10.0.0.1", path)).is_some(), told, "from {} to {}", from.0, to.0);
    }
}

#[test]
fn e4_reflection_adds_originator_and_cluster_and_changes_nothing_else() {
    let route = Attributes { med: Some(5), local_pref: Some(200), ..attributes("10.0.0.7", &[65009]) };
    let told = passed((US, client), (US, client), route.clone()).unwrap();
    let (one, cluster) = (RouterId(Ipv4Addr::new(1, 1, 1, 1)), ClusterId(Ipv4Addr::new(244, 0, 0, 1)));
    let reflected = |originator, cluster| {
        let rare = RareAttributes { originator_id: Some(originator), cluster_list: [cluster].into(), ..RareAttributes::default() };
        Attributes { rare: rare.into(), ..route.clone() }
    };
    assert_eq!(told, reflected(one, cluster));
    let nine = RouterId(Ipv4Addr::new(9, 9, 9, 9));
    let other = ClusterId(Ipv4Addr::new(244, 0, 0, 9));
    let again = reflected(nine, other);
    let same_cluster = |config: &mut PeerConfig, _: &mut Context| config.cluster_id = Some(ClusterId(Ipv4Addr::new(244, 0, 0, 1)));
    let told = passed((US, client), (US, same_cluster), again).unwrap();
    assert_eq!((told.rare.originator_id, &*told.rare.cluster_list), (Some(nine), &[cluster, other][..]));
    let told = passed((65009, plain), (US, client), Attributes { local_pref: None, ..route }).unwrap();
    assert_eq!((told.rare.originator_id, told.rare.cluster_list.len()), (None, 0), "an eBGP route is not reflected");
}

#[test]
fn e4_not_back_to_its_originator() {
    let mut route = attributes("10.0.0.7", &[]);
    route.rare.originator_id = Some(RouterId(Ipv4Addr::new(2, 2, 2, 2)));
    assert_eq!(passed((US, client), (US, client), route), None);
}

#[test]
fn e2_towards_another_as() {
    let inside = ExtendedCommunity([0x43, 1, 0, 0, 0, 0, 0, 1]);
    let across = ExtendedCommunity([0x00, 2, 0, 0, 0, 0, 0, 1]);
    let mut route = Attributes {
        med: Some(7),
        local_pref: Some(300),
        communities: [Community(9)].into(),
        rare: Rare::from(RareAttributes {
            extended_communities: [inside, across].into(),
            originator_id: Some(RouterId(Ipv4Addr::new(9, 9, 9, 9))),
            cluster_list: [ClusterId(Ipv4Addr::new(9, 9, 9, 9))].into(),
            ..RareAttributes::default()
        }),
        ..attributes("10.0.0.1", &[65009])
    };
    route.as_path = AsPath::of([(SegmentKind::ConfedSequence, [Asn(65100)]), (SegmentKind::Sequence, [Asn(65009)])]);
    let told = passed((US, plain), (65002, plain), route).unwrap();
    let rare = Rare::from(RareAttributes { extended_communities: [across].into(), ..RareAttributes::default() });
    let expected = Attributes { communities: [Community(9)].into(), rare, ..attributes("10.0.0.100", &[US, 65009]) };
    assert_eq!(told, expected);
}

#[test]
fn e3_inside_the_as_med_is_kept_and_local_pref_is_there() {
    let route = Attributes { med: Some(7), ..attributes("10.0.0.1", &[65001]) };
    let told = passed((65001, plain), (US, plain), route.clone()).unwrap();
    assert_eq!(told, Attributes { local_pref: Some(100), ..route });
}

#[test]
fn e5_well_known_communities() {
    for (community, external, internal) in [
        (Community::NO_ADVERTISE, false, false),
        (Community::NO_EXPORT, false, true),
        (Community::NO_EXPORT_SUBCONFED, false, true),
        (Community::BLACKHOLE, true, true),
        (Community(7), true, true),
    ] {
        let route = || Attributes { communities: [community].into(), ..attributes("10.0.0.1", &[65001]) };
        assert_eq!(passed((65001, plain), (65002, plain), route()).is_some(), external, "{community}");
        assert_eq!(passed((65001, plain), (US, plain), route()).is_some(), internal, "{community}");
    }
}

#[test]
fn rfc9494_long_lived_stale_paths_only_to_those_who_understand() {
    for understands in [true, false] {
        let mut bench = Bench::new();
        bench.up(1, 65001);
        let facts = SessionFacts { long_lived: understands, ..facts(2, US, |_, _| {}) };
        bench.say(Input::PeerUp(Arc::new(facts)));
        bench.announce(1, PREFIX, Attributes { communities: [Community::LLGR_STALE].into(), ..attributes("10.0.0.1", &[65001]) });
        assert_eq!(bench.told_of(2, PREFIX).is_some(), understands);
    }
}

/// What is said to the peer is meant for the peer: NO_EXPORT of `prefixAdvertisements` is there to be obeyed by a top-of-rack router.
#[test]
fn e5_what_export_policy_adds_is_sent() {
    let add = |config: &mut PeerConfig, _: &mut Context| {
        let term = Term { name: "keep".into(), matches: vec![], actions: vec![Action::AddCommunity(Community::NO_EXPORT)], verdict: None };
        config.export.ipv4 = Arc::new(Policy { terms: vec![term], default: Verdict::Accept });
    };
    for asn in [65002, US] {
        assert!(passed((65001, plain), (asn, add), attributes("10.0.0.1", &[65001])).unwrap().has_community(Community::NO_EXPORT));
    }
}

#[test]
fn policy_sees_our_as_in_front_and_prepends_before_it() {
    let prepend = |config: &mut PeerConfig, _: &mut Context| {
        let term = Term {
            name: "prepend".into(),
            matches: vec![Match::AsPathPrefix(vec![Asn(US), Asn(65001)]), Match::LocalPref(100)],
            actions: vec![Action::PrependAsPath(vec![Asn(1), Asn(2)])],
            verdict: Some(Verdict::Accept),
        };
        config.export.ipv4 = Arc::new(Policy { terms: vec![term], default: Verdict::Reject });
    };
    let told = passed((65001, plain), (65002, prepend), attributes("10.0.0.1", &[65001])).unwrap();
    assert_eq!(told.as_path.to_string(), format!("1 2 {US} 65001"));
}

/// Calico's rules of next hops, as a table: (route, session, mode) → whose next hop.
/// E8: private numbers are those of RFC 6996 and no others; ours stands in front whatever it is.
#[test]
fn e8_private_numbers_and_the_peers_own_are_taken_out_of_what_another_as_is_told() {
    type Rules = fn(&mut PeerConfig, &mut Context);
    let told = |rules: Rules, path: &[u32]| {
        let told = passed((65001, plain), (65002, rules), attributes("10.0.0.1", path)).expect("it is told");
        told.as_path.asns().map(|asn| asn.0).collect::<Vec<_>>()
    };
    let remove: Rules = |config, _| config.as_path.remove_private = true;
    let replace: Rules = |config, _| config.as_path.replace_peer = true;
    let both: Rules = |config, _| (config.as_path.remove_private, config.as_path.replace_peer) = (true, true);
    for private in [64512, 64513, 65000, 65534, 4_200_000_000, 4_249_999_999, 4_294_967_294] {
        // Not ours, which would be a loop.
        let private = if private == US { 64514 } else { private };
        assert_eq!(told(remove, &[65001, private, 3356, private]), [US, 3356], "{private}");
        assert_eq!(told(plain, &[65001, private, 3356]), [US, 65001, private, 3356], "{private}");
    }
    for public in [1, 23456, 64511, 65535, 65536, 4_199_999_999, 4_294_967_295] {
        assert_eq!(told(remove, &[65001, public]), [US, public], "{public}");
    }
    assert_eq!(told(remove, &[65001]), [US], "nothing is left but us");
    assert_eq!(told(replace, &[65001, 65002, 3356, 65002]), [US, 65001, US, 3356, US]);
    assert_eq!(told(both, &[65001, 65002, 3356]), [US, 3356]);
    // Inside the AS nothing is changed.
    let inside = passed((65001, plain), (US, |config, _| config.as_path.remove_private = true), attributes("10.0.0.1", &[65001])).unwrap();
    assert_eq!(inside.as_path.asns().collect::<Vec<_>>(), [Asn(65001)]);
    // A segment that has nothing left is none.
    let mut path = attributes("10.0.0.1", &[65001, 3356]);
    path.as_path.push(SegmentKind::Sequence, [Asn(65010), Asn(65011)]);
    assert_eq!(passed((65001, plain), (65002, remove), path.clone()).unwrap().as_path, AsPath::sequence([Asn(US), Asn(3356)]));
    // A set that was let in is used here and told to nobody (RFC 9774).
    path.as_path.push(SegmentKind::Set, [Asn(3357), Asn(3358)]);
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, US);
    bench.announce(1, PREFIX, path);
    assert_eq!((bench.fib(PREFIX).as_str(), bench.told_of(2, PREFIX)), ("10.0.0.1", None));
    assert!(bench.explain(PREFIX).1.iter().any(|told| !told.yes && told.because.contains("RFC 9774")));
}

#[test]
fn n5_n6_next_hops() {
    let mode = |mode: NextHopMode| move |config: &mut PeerConfig, _: &mut Context| config.next_hop_mode = mode;
    use NextHopMode::{Auto, Keep, SelfAddress};
    for (from, to, how, expected) in [
        (65001, 65002, Auto, "10.0.0.100"),
        (65001, 65002, SelfAddress, "10.0.0.100"),
        (65001, 65002, Keep, "10.0.0.1"),
        (65001, US, Auto, "10.0.0.1"),
        (65001, US, SelfAddress, "10.0.0.100"),
        (65001, US, Keep, "10.0.0.1"),
        (US, 65002, Auto, "10.0.0.100"),
        (US, 65002, Keep, "10.0.0.1"),
    ] {
        let mut bench = Bench::new();
        bench.up(1, from);
        bench.up_with(2, to, mode(how));
        let path: &[u32] = if from == US { &[] } else { &[from] };
        bench.announce(1, PREFIX, attributes("10.0.0.1", path));
        assert_eq!(bench.told_of(2, PREFIX).unwrap().next_hop.address(), ip(expected), "{from} {to} {how:?}");
    }
    let via = |gateway: Option<&str>, more: bool| {
        let hop = KernelHop { gateway: gateway.map(ip), interface: 2, onlink: false };
        LocalTarget::Via(std::iter::once(hop).chain(more.then_some(hop)).collect())
    };
    for (target, to, how, expected) in [
        (via(None, false), US, Auto, "10.0.0.100"),
        (via(Some("10.0.0.9"), false), US, Auto, "10.0.0.9"),
        (via(Some("10.0.0.9"), false), US, SelfAddress, "10.0.0.100"),
        (via(Some("10.0.0.9"), false), 65002, Auto, "10.0.0.100"),
        (via(Some("10.0.0.9"), false), 65002, Keep, "10.0.0.9"),
        (via(Some("10.0.0.9"), true), US, Auto, "10.0.0.100"),
        (LocalTarget::Blackhole, US, Keep, "10.0.0.100"),
        (LocalTarget::Gateway(ip("10.0.0.9")), US, Auto, "10.0.0.9"),
        (via(Some("fd00::9"), false), US, Auto, "10.0.0.100"),
    ] {
        let mut bench = Bench::new();
        bench.up_with(2, to, mode(how));
        bench.local(RouteSource::Kernel, PREFIX, Some(target.clone()));
        assert_eq!(bench.told_of(2, PREFIX).unwrap().next_hop.address(), ip(expected), "{target:?} {to} {how:?}");
    }
}

#[test]
fn n7_never_a_peers_own_address() {
    let keep = |config: &mut PeerConfig, _: &mut Context| config.next_hop_mode = NextHopMode::Keep;
    assert_eq!(passed((65001, plain), (65002, keep), attributes("10.0.0.2", &[65001])), None);
}

#[test]
fn n8_the_other_family_is_told_with_an_address_of_the_same_interface() {
    let mut bench = Bench::new();
    bench.up(2, 65002);
    bench.local(RouteSource::Block, "fd00:10::/64", Some(LocalTarget::Blackhole));
    assert_eq!(bench.told_of(2, "fd00:10::/64").unwrap().next_hop.address(), ip("fd00::100"));
    bench.address(2, "fd00::100/64", false);
    bench.round();
    assert_eq!(bench.told_of(2, "fd00:10::/64"), None);
    let (_, told) = bench.explain("fd00:10::/64");
    assert!(told[0].because.contains("no address of the family"), "{}", told[0].because);
    bench.address(2, "fd00::200/64", true);
    bench.round();
    assert_eq!(bench.told_of(2, "fd00:10::/64").unwrap().next_hop.address(), ip("fd00::200"));
}

#[test]
fn n11_ipv6_next_hops_for_ipv4_only_where_agreed() {
    let next_hop = NextHop::Global(ip("fd00::1"));
    let route = || Attributes { next_hop, ..attributes("10.0.0.1", &[65001]) };
    let agreed = |_: &mut PeerConfig, context: &mut Context| context.extended_next_hop = true;
    assert_eq!(passed((65001, agreed), (US, agreed), route()).unwrap().next_hop, next_hop);
    assert_eq!(passed((65001, agreed), (US, plain), route()).unwrap().next_hop.address(), ip("10.0.0.100"));
}

#[test]
fn n3_a_link_local_next_hop_is_not_passed_on() {
    let link_local = "fe80::1".parse().unwrap();
    for (next_hop, expected) in [
        (NextHop::LinkLocal { address: link_local, interface: 2 }, "fd00::100"),
        (NextHop::GlobalAndLinkLocal { global: "fd00::1".parse().unwrap(), link_local, interface: 2 }, "fd00::1"),
    ] {
        let mut bench = Bench::new();
        bench.up(1, 65001);
        bench.up(2, US);
        bench.announce(1, "2001:db8::/32", Attributes { next_hop, ..attributes("fd00::1", &[65001]) });
        assert_eq!(bench.told_of(2, "2001:db8::/32").unwrap().next_hop, NextHop::Global(ip(expected)));
    }
}

/// Calico's LOCAL_PREF of local routes, and communities by prefix: the policy changes what the protocol prepared.
#[test]
fn export_policy_changes_attributes() {
    let mut bench = Bench::new();
    let term = Term { name: "priority".into(), matches: vec![], actions: vec![Action::CalicoPriority { normal: 1024 }], verdict: None };
    let policy = Arc::new(Policy { terms: vec![term], default: Verdict::Accept });
    bench.up_with(2, US, |config, _| config.export = PerFamily { ipv4: Arc::clone(&policy), ipv6: policy });
    bench.local(RouteSource::Block, "10.244.1.0/26", Some(LocalTarget::Blackhole));
    bench.local(RouteSource::Block, "10.244.2.0/26", Some(LocalTarget::Blackhole));
    assert_eq!(bench.told_of(2, "10.244.1.0/26").unwrap().local_pref, Some(2_147_482_623));
    let told = bench.told(2);
    assert_eq!(told[0].attributes, told[1].attributes);
    assert_eq!(bench.shard.stats().attribute_sets, 1, "what is sent is not kept");
}

fn only(inside: &str) -> PerFamily<Arc<Policy>> {
    let inside = net(inside);
    let (min, max) = (inside.prefix_len(), inside.max_prefix_len());
    let term = Term {
        name: format!("inside {inside}").into(),
        matches: vec![Match::Prefix { cidr: inside, min, max, negate: false }],
        actions: vec![],
        verdict: Some(Verdict::Accept),
    };
    let policy = Arc::new(Policy { terms: vec![term], default: Verdict::Reject });
    PerFamily { ipv4: Arc::clone(&policy), ipv6: policy }
}

#[test]
fn a_new_export_policy_withdraws_and_announces_and_spares_the_other_members() {
    let mut bench = Bench::new();
    for n in [2, 3] {
        bench.up_with(n, 65002, |config, _| config.export = only("10.1.0.0/16"));
    }
    for prefix in ["10.1.1.0/24", "10.2.1.0/24"] {
        bench.local(RouteSource::Service, prefix, Some(LocalTarget::Blackhole));
    }
    assert_eq!((bench.sent(2), bench.sent(3)), (vec!["+10.1.1.0/24".to_owned()], vec!["+10.1.1.0/24".to_owned()]));
    let config = facts(2, 65002, |config, _| config.export = only("10.2.0.0/16")).config;
    bench.say(Input::PeerReload { peer: PeerId(2), config });
    bench.round();
    let mut sent = bench.sent(2);
    sent.sort();
    assert_eq!((sent, bench.sent(3).len()), (vec!["+10.2.1.0/24".to_owned(), "-10.1.1.0/24".to_owned()], 0));
    assert_eq!((bench.told(2)[0].prefix, bench.told(3)[0].prefix), (net("10.2.1.0/24"), net("10.1.1.0/24")));
    bench.local(RouteSource::Service, "10.1.1.0/24", None);
    bench.local(RouteSource::Service, "10.2.1.0/24", None);
    assert_eq!((bench.sent(2), bench.sent(3)), (vec!["-10.2.1.0/24".to_owned()], vec!["-10.1.1.0/24".to_owned()]));
    assert_eq!(bench.ended[&PeerId(2)].len(), 2, "End-of-RIB is said once a family");
}

#[test]
fn a_policy_that_changes_for_all_members_keeps_them_together() {
    let mut bench = Bench::new();
    for n in [2, 3] {
        bench.up_with(n, 65002, |config, _| config.export = only("10.1.0.0/16"));
    }
    bench.local(RouteSource::Service, "10.2.1.0/24", Some(LocalTarget::Blackhole));
    for n in [2, 3] {
        let config = facts(n, 65002, |config, _| config.export = only("10.2.0.0/16")).config;
        bench.say(Input::PeerReload { peer: PeerId(n), config });
    }
    bench.round();
    assert_eq!((bench.sent(2).len(), bench.sent(3).len(), bench.shard.groups()), (1, 1, 1));
}

#[test]
fn explain_names_the_rule_towards_each_peer() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up_with(2, 65002, |config, _| config.export = only("10.1.0.0/16"));
    bench.up(3, 65003);
    bench.up_with(4, 65004, |_, context| context.families.ipv4 = false);
    bench.announce(1, PREFIX, attributes("10.0.0.1", &[65001]));
    let (_, told) = bench.explain(PREFIX);
    let told: Vec<_> = told.iter().map(|ad| (ad.yes, ad.because.as_str())).collect();
    assert_eq!(
        told,
        [
            (false, "learned from this very peer"),
            (false, "rejected at the end of the policy"),
            (true, "accepted at the end of the policy"),
            (false, "the session does not carry the family"),
        ]
    );
}

fn add_path(_: &mut PeerConfig, context: &mut Context) {
    context.add_path_send = BOTH;
}

#[test]
fn x4_every_path_goes_to_peers_that_take_them_all() {
    let mut bench = Bench::new();
    for n in 1..=3 {
        bench.up(n, 65000 + n);
    }
    bench.up_with(4, US, add_path);
    bench.up(5, US);
    for n in 1..=3 {
        bench.announce(n, PREFIX, attributes(&format!("10.0.0.{n}"), &[65000 + n]));
    }
    let ids = |bench: &mut Bench| bench.told(4).iter().map(|row| (row.path_id, row.next_hop.unwrap().address())).collect::<Vec<_>>();
    let before = ids(&mut bench);
    assert_eq!((before.len(), bench.told(5).len()), (3, 1));
    assert!(before.windows(2).all(|pair| pair[0].0 != pair[1].0) && before.iter().all(|(id, _)| id.0 != 0));
    bench.withdraw(1, PREFIX);
    let mut after = ids(&mut bench);
    after.sort();
    let mut expected: Vec<_> = before.into_iter().filter(|(_, next_hop)| *next_hop != ip("10.0.0.1")).collect();
    expected.sort();
    assert_eq!(after, expected, "the others keep their identifiers");
    bench.announce(2, PREFIX, attributes("10.0.0.2", &[65002, US]));
    assert_eq!(bench.told(4).len(), 1, "a path that became ineligible is withdrawn");
}

#[test]
fn without_add_path_a_refused_best_path_means_nothing() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    bench.up(3, 65003);
    bench.announce(1, PREFIX, Attributes { communities: [Community::NO_EXPORT].into(), ..attributes("10.0.0.1", &[65001]) });
    bench.announce(2, PREFIX, attributes("10.0.0.2", &[65002, 65002]));
    assert_eq!(bench.told(3).len(), 0);
}

#[test]
fn e10_a_withdrawal_goes_only_to_who_had_been_told() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up_with(2, 65002, |config, _| config.export = only("10.1.0.0/16"));
    bench.announce(1, PREFIX, attributes("10.0.0.1", &[65001]));
    bench.withdraw(1, PREFIX);
    assert_eq!((bench.sent(1).len(), bench.sent(2).len()), (0, 0));
}

/// E7, RFC 8326: drained, everything is told once more, and again when the drain is over.
#[test]
fn e7_a_drained_node_is_the_last_choice_of_its_peers() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    bench.up(3, US);
    let mut route = attributes("10.0.0.1", &[65001]);
    route.communities = [Community(0xffff_0001), Community(7)].into();
    bench.announce(1, "192.0.2.0/24", route);
    let before = [2, 3].map(|peer| bench.told_of(peer, "192.0.2.0/24").expect("it is told"));
    bench.sent(2);
    bench.say(Input::Drain(true));
    bench.round();
    let outside = bench.told_of(2, "192.0.2.0/24").expect("it is still told");
    assert_eq!(
        (&*outside.communities, outside.local_pref),
        (&[Community(7), Community::GRACEFUL_SHUTDOWN, Community(0xffff_0001)][..], None)
    );
    let inside = bench.told_of(3, "192.0.2.0/24").expect("it is still told");
    assert_eq!((inside.has_community(Community::GRACEFUL_SHUTDOWN), inside.local_pref), (true, Some(0)));
    assert_eq!(bench.sent(2), ["+192.0.2.0/24"], "no withdrawal between");
    bench.up(4, 65004);
    assert!(
        bench.told_of(4, "192.0.2.0/24").is_some_and(|told| told.has_community(Community::GRACEFUL_SHUTDOWN)),
        "a newcomer hears it too"
    );
    assert!(bench.explain("192.0.2.0/24").1.iter().filter(|told| told.yes).all(|told| told.because.contains("drained")));
    bench.say(Input::Drain(false));
    bench.round();
    assert_eq!([2, 3].map(|peer| bench.told_of(peer, "192.0.2.0/24").expect("it is told")), before);
}

fn with_role(bench: &mut Bench, n: u32, role: Role) {
    bench.up_with(n, 65000 + n, |config, _| config.role = Some(RoleConfig { role, strict: false }));
}

/// Sections 5.1 and 5.2 of RFC 9234 as a table: our role, ONLY_TO_CUSTOMER received, and what becomes of it.
#[test]
fn l2_only_to_customer_on_import() {
    let rows = [
        (Role::Provider, None, Some(None)),
        (Role::Provider, Some(65001), None),
        (Role::RouteServer, None, Some(None)),
        (Role::RouteServer, Some(1), None),
        (Role::Peer, None, Some(Some(65001))),
        (Role::Peer, Some(65001), Some(Some(65001))),
        (Role::Peer, Some(1), None),
        (Role::Customer, None, Some(Some(65001))),
        (Role::Customer, Some(1), Some(Some(1))),
        (Role::RouteServerClient, None, Some(Some(65001))),
        (Role::RouteServerClient, Some(1), Some(Some(1))),
    ];
    for (role, received, expected) in rows {
        let mut bench = Bench::new();
        with_role(&mut bench, 1, role);
        let mut route = attributes("10.0.0.1", &[65001]);
        route.rare.only_to_customer = received.map(Asn);
        bench.announce(1, "192.0.2.0/24", route);
        let got = bench.loc_rib("192.0.2.0/24").pop().map(|row| row.attributes.rare.only_to_customer);
        assert_eq!(got, expected.map(|only| only.map(Asn)), "{role:?} {received:?}");
        if expected.is_none() {
            assert!(bench.explain("192.0.2.0/24").0[0].because.contains("leak"));
        }
    }
}

#[test]
fn l3_only_to_customer_on_export() {
    let rows = [
        (Role::Provider, None, Some(Some(US))),
        (Role::Provider, Some(9), Some(Some(9))),
        (Role::RouteServer, None, Some(Some(US))),
        (Role::Peer, None, Some(Some(US))),
        (Role::Peer, Some(9), None),
        (Role::Customer, None, Some(None)),
        (Role::Customer, Some(9), None),
        (Role::RouteServerClient, Some(9), None),
    ];
    for (role, carried, expected) in rows {
        let mut bench = Bench::new();
        bench.up(1, 65001);
        with_role(&mut bench, 2, role);
        bench.up(3, US);
        let mut route = attributes("10.0.0.1", &[65001]);
        route.rare.only_to_customer = carried.map(Asn);
        bench.announce(1, "192.0.2.0/24", route);
        let told = bench.told_of(2, "192.0.2.0/24").map(|told| told.rare.only_to_customer);
        assert_eq!(told, expected.map(|only| only.map(Asn)), "{role:?} {carried:?}");
        let inside = bench.told_of(3, "192.0.2.0/24").expect("iBGP hears all");
        assert_eq!(inside.rare.only_to_customer, carried.map(Asn), "and hears it unchanged");
    }
}
