//! What is sent is made of what is held: nobody hears the difference.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::super::testing::*;
use crate::session::RouteChange;
use crate::types::{Attributes, Community, PeerId, Rare, RareAttributes, RouterId};
use crate::wire;

const PREFIX: &str = "192.0.2.0/24";

fn with_med(med: u32) -> Attributes {
    Attributes { med: Some(med), ..attributes("10.0.0.1", &[65001]) }
}

/// How many prefixes stand in each UPDATE that announces any, of those that peer `n` was sent since it was asked last.
fn announced(bench: &mut Bench, n: u32) -> Vec<usize> {
    let frames = bench.frames.remove(&PeerId(n)).unwrap_or_default();
    let context = wire::Context { four_octet_as: true, families: BOTH, ..wire::Context::default() };
    let mut buffer: bytes::BytesMut = frames.concat().as_slice().into();
    let updates = std::iter::from_fn(|| wire::frame::next(&mut buffer, &context).unwrap());
    let count = |frame: wire::frame::Frame| match wire::Message::decode(frame.kind, &frame.body, &context).unwrap() {
        wire::Message::Update(update) => update.announced.iter().map(|(_, list)| list.len()).sum(),
        _ => 0,
    };
    updates.map(count).filter(|count| *count > 0).collect()
}

#[test]
fn a_change_that_is_not_sent_is_not_told() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    bench.up(3, US);
    for med in 1..=3 {
        bench.announce(1, PREFIX, with_med(med));
        assert_eq!(announced(&mut bench, 3), [1], "inside the AS MED is sent");
        assert_eq!(announced(&mut bench, 2).len(), usize::from(med == 1), "outside it is not");
        assert_eq!(bench.told_of(2, PREFIX).unwrap(), attributes("10.0.0.100", &[US, 65001]));
    }
    assert_eq!(bench.told_of(3, PREFIX).unwrap(), Attributes { local_pref: Some(100), ..with_med(3) });
}

#[test]
fn sets_that_become_one_share_a_message() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    let of = |n: u32| RouteChange::Announce(Arc::new(with_med(n % 3)), items(&[net(&format!("10.1.{n}.0/24"))], 0));
    bench.hear(1, (0..30).map(of).collect());
    bench.round();
    assert_eq!(announced(&mut bench, 2), [30], "in a round");
    bench.up(3, 65003);
    assert_eq!(announced(&mut bench, 3), [30], "and to a newcomer");
}

#[test]
fn a_route_sent_on_costs_no_second_set() {
    let client = |config: &mut crate::config::PeerConfig, _: &mut wire::Context| config.reflector_client = true;
    let mut bench = Bench::new();
    bench.up_with(1, US, client);
    bench.up_with(2, US, client);
    bench.up(3, 65003);
    bench.announce(1, PREFIX, Attributes { local_pref: Some(200), ..with_med(7) });
    let reflected = RareAttributes {
        originator_id: Some(RouterId(Ipv4Addr::new(1, 1, 1, 1))),
        cluster_list: bench.told_of(2, PREFIX).unwrap().rare.cluster_list.clone(),
        ..RareAttributes::default()
    };
    assert_eq!(reflected.cluster_list.len(), 1);
    let expected = Attributes { local_pref: Some(200), rare: Rare::from(reflected), ..with_med(7) };
    assert_eq!(bench.told_of(2, PREFIX).unwrap(), expected);
    assert_eq!(bench.told_of(3, PREFIX).unwrap(), attributes("10.0.0.100", &[US, 65001]));
    assert_eq!(bench.shard.stats().attribute_sets, 1);
}

#[test]
fn what_a_policy_adds_is_held_as_it_is_sent() {
    use crate::policy::{Action, Policy, Term, Verdict};
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up_with(2, 65002, |config, _| {
        let actions = vec![Action::AddCommunity(Community(9))];
        let term = Term { name: "mark".into(), matches: vec![], actions, verdict: None };
        config.export.ipv4 = Arc::new(Policy { terms: vec![term], default: Verdict::Accept });
    });
    bench.announce(1, PREFIX, with_med(1));
    let expected = Attributes { communities: [Community(9)].into(), ..attributes("10.0.0.100", &[US, 65001]) };
    assert_eq!(bench.told_of(2, PREFIX), Some(expected));
    assert_eq!(bench.shard.stats().attribute_sets, 2);
    assert_eq!(announced(&mut bench, 2), [1]);
    bench.announce(1, PREFIX, with_med(2));
    assert!(announced(&mut bench, 2).is_empty(), "the same is sent of another set");
}
