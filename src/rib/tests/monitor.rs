//! Collectors of monitoring data: whatever happens, and however rarely they ask, what they have been told adds up to the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use ipnet::IpNet;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;

use super::super::testing::*;
use super::super::{Answer, Input, MonitorId, Monitored, Needless, Query, RouteRow, Watch};
use crate::origin::LocalTarget;
use crate::policy::{Policy, RouteSource};
use crate::session::{RouteChange, SessionEnd};
use crate::telemetry::bmp::View;
use crate::types::{Attributes, Family, NlriList, PathId, PeerId, PerFamily, QueryId};
use crate::wire::{self, Context, Message, frame};

const ALL: Watch = Watch { pre: true, post: true, out: true, loc: true, limit: usize::MAX };

type Row = (IpNet, PathId);
type Rows = BTreeMap<Row, Attributes>;

/// A collector that believes what it is told.
#[derive(Debug, Default)]
struct Collector {
    id: u8,
    up: BTreeMap<PeerId, Context>,
    tables: BTreeMap<(Option<PeerId>, View), Rows>,
    ended: BTreeSet<(Option<PeerId>, View, Family)>,
    ends: Vec<SessionEnd>,
    words: usize,
}

impl Collector {
    fn new(bench: &mut Bench, id: u8, watch: Watch) -> Self {
        bench.say(Input::Monitor(MonitorId(id), watch));
        Self { id, ..Self::default() }
    }

    /// Asks once and hears what is answered.
    fn pull(&mut self, bench: &mut Bench) -> usize {
        bench.say(Input::PullMonitor(MonitorId(self.id)));
        bench.one_round();
        let (ours, others) = std::mem::take(&mut bench.monitored).into_iter().partition(|(id, _)| id.0 == self.id);
        bench.monitored = others;
        let words: Vec<Monitored> = ours.into_iter().flat_map(|(_, words)| words).collect();
        let count = words.len();
        words.into_iter().for_each(|word| self.hear(word));
        self.words += count;
        count
    }

    /// Asks until there is nothing more to hear.
    fn catch_up(&mut self, bench: &mut Bench) {
        bench.round();
        while self.pull(bench) > 0 || bench.shard.deadline() == Some(bench.now) {}
    }

    fn hear(&mut self, word: Monitored) {
        match word {
            Monitored::Up(facts) => {
                let was = self.up.insert(facts.peer, facts.context.clone());
                assert!(was.is_none(), "{} came up twice", facts.peer);
            }
            Monitored::Down(peer, end) => {
                assert!(self.up.remove(&peer).is_some(), "{peer} was not up");
                self.tables.retain(|(of, _), _| *of != Some(peer));
                self.ended.retain(|(of, ..)| *of != Some(peer));
                self.ends.push(end);
            }
            Monitored::Routes { peer, view, attributes, list } => {
                assert!(peer.is_none_or(|peer| self.up.contains_key(&peer)), "{peer:?} is not up");
                self.rows((peer, view), attributes.as_deref(), &list);
            }
            Monitored::Sent(peer, frames) => {
                let sent = &self.up[&peer];
                let context = Context { add_path_receive: sent.add_path_send, ebgp: false, ..sent.clone() };
                let mut buffer: BytesMut = frames.concat().as_slice().into();
                while let Some(frame) = frame::next(&mut buffer, &context).unwrap() {
                    let Message::Update(update) = Message::decode(frame.kind, &frame.body, &context).unwrap() else { panic!("no UPDATE") };
                    let key = (Some(peer), View::AdjRibOut);
                    update.withdrawn.iter().for_each(|list| self.rows(key, None, list));
                    update.announced.iter().for_each(|(attributes, list)| self.rows(key, Some(attributes), list));
                }
            }
            Monitored::Ended(peer, view, family) => {
                self.ended.insert((peer, view, family));
            }
        }
    }

    fn rows(&mut self, table: (Option<PeerId>, View), attributes: Option<&Attributes>, list: &NlriList) {
        let rows = self.tables.entry(table).or_default();
        for nlri in list.iter() {
            match attributes {
                Some(attributes) => drop(rows.insert((nlri.prefix, nlri.path_id), attributes.clone())),
                None => drop(rows.remove(&(nlri.prefix, nlri.path_id))),
            }
        }
    }

    fn table(&self, peer: Option<u32>, view: View) -> Rows {
        self.tables.get(&(peer.map(PeerId), view)).cloned().unwrap_or_default()
    }

    /// What it believes is what the tables hold.
    fn check(&self, bench: &mut Bench, story: &str) {
        let up: Vec<u32> = bench.shard.up().into_iter().map(|peer| peer.0).collect();
        assert_eq!(self.up.keys().map(|peer| peer.0).collect::<Vec<_>>(), up, "{story}");
        let rows = |rows: Vec<RouteRow>| -> Rows {
            rows.into_iter().map(|row| ((row.prefix, row.path_id), Attributes::clone(&row.attributes))).collect()
        };
        let query = Query::Routes { prefix: None, longer: false, family: None, received: None, advertised: None };
        let Query::Routes { prefix, longer, family, .. } = query.clone() else { return };
        let all = bench.routes(query);
        // Rows for people have LOCAL_PREF as it counts.
        let in_full = |rows: Rows| -> Rows {
            let full = |attributes: Attributes| Attributes { local_pref: attributes.local_pref.or(Some(100)), ..attributes };
            rows.into_iter().map(|(row, attributes)| (row, full(attributes))).collect()
        };
        let without_id =
            |rows: Rows| -> Rows { rows.into_iter().map(|((prefix, _), attributes)| ((prefix, PathId(0)), attributes)).collect() };
        let best = rows(all.iter().filter(|row| row.best).cloned().collect());
        assert_eq!(in_full(self.table(None, View::LocRib)), in_full(without_id(best)), "{story}: Loc-RIB");
        for peer in up {
            let received = bench.routes(Query::Routes { prefix, longer, family, received: Some(PeerId(peer)), advertised: None });
            assert_eq!(self.table(Some(peer), View::PrePolicy), rows(received), "{story}: before policy of {peer}");
            let accepted = rows(all.iter().filter(|row| row.peer == Some(PeerId(peer))).cloned().collect());
            assert_eq!(in_full(self.table(Some(peer), View::PostPolicy)), in_full(accepted), "{story}: after policy of {peer}");
            let sent = self.table(Some(peer), View::AdjRibOut);
            let advertised = rows(bench.told(peer));
            assert_eq!(sent.keys().collect::<Vec<_>>(), advertised.keys().collect::<Vec<_>>(), "{story}: what {peer} is told");
        }
    }
}

fn add_path(_: &mut crate::config::PeerConfig, context: &mut wire::Context) {
    (context.add_path_receive, context.add_path_send) = (BOTH, BOTH);
}

fn up(bench: &mut Bench, peer: u32) {
    match peer {
        1 => bench.up(1, 65001),
        2 => bench.up_with(2, US, add_path),
        3 => bench.up_with(3, 65003, |config, _| {
            config.import = PerFamily { ipv4: Arc::new(Policy::reject()), ipv6: Arc::new(Policy::accept()) }
        }),
        peer => bench.up(peer, US),
    }
}

#[test]
fn a_collector_hears_of_sessions_and_of_every_view() {
    let mut bench = Bench::new();
    let mut collector = Collector::new(&mut bench, 0, ALL);
    (1..=3).for_each(|peer| up(&mut bench, peer));
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    bench.announce(3, "198.51.100.0/24", attributes("10.0.0.3", &[65003]));
    bench.local(RouteSource::Block, "10.244.1.0/26", Some(LocalTarget::Blackhole));
    collector.catch_up(&mut bench);
    collector.check(&mut bench, "told");
    assert_eq!(collector.table(Some(3), View::PrePolicy).len(), 1);
    assert_eq!(collector.table(Some(3), View::PostPolicy).len(), 0, "its policy refuses it");
    assert_eq!(collector.table(None, View::LocRib).len(), 2);
    assert_eq!(collector.table(Some(2), View::AdjRibOut).len(), 2);
    assert!(Family::ALL.iter().all(|family| collector.ended.contains(&(None, View::LocRib, *family))));
    assert!(Family::ALL.iter().all(|family| collector.ended.contains(&(Some(PeerId(2)), View::AdjRibOut, *family))));
    assert!(!collector.ended.contains(&(Some(PeerId(1)), View::PrePolicy, Family::IPV4_UNICAST)), "it has not said so");
    bench.hear(1, vec![RouteChange::EndOfRib(Family::IPV4_UNICAST)]);
    collector.catch_up(&mut bench);
    assert!(collector.ended.contains(&(Some(PeerId(1)), View::PrePolicy, Family::IPV4_UNICAST)));
    let words = collector.words;
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    collector.catch_up(&mut bench);
    assert_eq!(collector.words, words, "nothing is new");
    bench.withdraw(1, "192.0.2.0/24");
    bench.down(3, NONE);
    collector.catch_up(&mut bench);
    collector.check(&mut bench, "withdrawn");
    assert_eq!(collector.ends, [SessionEnd::Lost]);
}

#[test]
fn a_collector_that_comes_late_is_told_the_whole_state_in_steps() {
    let mut bench = Bench::new();
    (1..=2).for_each(|peer| up(&mut bench, peer));
    let prefixes: Vec<IpNet> = (0..3000_u32).map(|n| net(&format!("10.{}.{}.0/24", n >> 8, n & 255))).collect();
    bench.hear(1, vec![RouteChange::Announce(Arc::new(attributes("10.0.0.1", &[65001])), items(&prefixes, 0))]);
    bench.round();
    let mut collector = Collector::new(&mut bench, 7, ALL);
    collector.pull(&mut bench);
    assert!((1..1001).contains(&collector.table(Some(1), View::PrePolicy).len()), "one step, and not all of it");
    assert!(collector.ended.iter().all(|(_, view, _)| *view == View::AdjRibOut), "{:?}", collector.ended);
    collector.catch_up(&mut bench);
    collector.check(&mut bench, "all");
    assert_eq!(collector.table(Some(1), View::PrePolicy).len(), 3000);
    assert_eq!(collector.ended.len(), 2 + 2 * 2 * 2 + 2 * 2, "Loc-RIB, both peers in three views, each in two families");
    let mut again = Collector::new(&mut bench, 7, ALL);
    again.catch_up(&mut bench);
    again.check(&mut bench, "it came back");
}

#[test]
fn a_collector_that_does_not_ask_costs_keys_and_is_given_up_at_its_limit() {
    let mut bench = Bench::new();
    up(&mut bench, 1);
    let _silent = Collector::new(&mut bench, 0, Watch { limit: 20, ..ALL });
    for round in 0..100 {
        bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001, 65000 + round]));
    }
    assert!(bench.overrun.is_empty(), "however often one path changes");
    for n in 0..30 {
        bench.announce(1, &format!("10.0.{n}.0/24"), attributes("10.0.0.1", &[65001]));
    }
    assert_eq!(bench.overrun, [MonitorId(0)]);
    assert!(bench.monitored.is_empty());
    let mut again = Collector::new(&mut bench, 0, ALL);
    again.catch_up(&mut bench);
    again.check(&mut bench, "it asks at last");
}

#[test]
fn totals_are_the_best_paths_and_what_was_needless() {
    let mut bench = Bench::new();
    (1..=2).for_each(|peer| up(&mut bench, peer));
    let _collector = Collector::new(&mut bench, 0, ALL);
    for _ in 0..3 {
        bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    }
    bench.announce(2, "2001:db8::/48", attributes("fd00::2", &[]));
    bench.withdraw(1, "203.0.113.0/24");
    bench.say(Input::Query(QueryId(9), Query::Totals));
    bench.round();
    let mut sum = PerFamily::<u64>::default();
    let mut all = BTreeMap::new();
    for answer in std::mem::take(&mut bench.answers) {
        let Answer::Totals(totals, needless) = answer else { panic!("{answer:?}") };
        (sum.ipv4, sum.ipv6) = (sum.ipv4 + totals.ipv4, sum.ipv6 + totals.ipv6);
        all.extend(needless);
    }
    assert_eq!(sum, PerFamily { ipv4: 1, ipv6: 1 });
    assert_eq!(all, BTreeMap::from([(PeerId(1), Needless { announcements: 2, withdrawals: 1 })]));
}

/// Anything may happen between two questions of a collector; two of them ask at different paces.
#[test]
fn what_collectors_are_told_adds_up_to_the_tables() {
    for seed in 0..60 {
        let mut random = Pcg32::new(seed, 7);
        let mut below = |n: u32| random.next_u32() % n;
        let mut bench = Bench::new();
        let mut collectors = vec![Collector::new(&mut bench, 0, ALL)];
        for step in 0..120 {
            let peer = 1 + below(4);
            let is_up = bench.shard.up().contains(&PeerId(peer));
            let prefix = if below(3) == 0 { format!("2001:db8:{}::/48", below(6)) } else { format!("192.0.{}.0/24", below(12)) };
            let next_hop = if prefix.contains(':') { format!("fd00::{peer}") } else { format!("10.0.0.{peer}") };
            let path_id = if peer == 2 { below(3) } else { 0 };
            let path = [65001 + below(3), 65010 + below(3)];
            match below(12) {
                0 if is_up => bench.down(peer, if below(2) == 0 { BOTH } else { NONE }),
                0..3 if !is_up => up(&mut bench, peer),
                3..7 => bench.announce_path(peer, &prefix, path_id, attributes(&next_hop, &path)),
                7 | 8 => bench.withdraw_path(peer, &prefix, path_id),
                9 => bench.local(RouteSource::Block, &prefix, (below(2) == 0).then_some(LocalTarget::Blackhole)),
                10 => bench.say(Input::Drain(below(2) == 0)),
                _ => {}
            }
            if step == 60 {
                collectors.push(Collector::new(&mut bench, 3, ALL));
            }
            for collector in &mut collectors {
                if below(4) == 0 {
                    collector.pull(&mut bench);
                }
            }
        }
        for collector in &mut collectors {
            collector.catch_up(&mut bench);
        }
        for collector in &collectors {
            collector.check(&mut bench, &format!("seed {seed}, collector {}", collector.id));
        }
    }
}
